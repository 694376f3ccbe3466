"""From chunks to data sets: balance the questions of a split, and write DriveLM, CODA-LM and Senna files.

OUT/regular/  QA_dataset_nus/{v1_1_train_nus,validation,test}.json   nuscenes/samples/CAM_*/*.jpg
              senna/{train,validation,test}.json                     truth/{train,validation,test}.jsonl
OUT/corner/   the same, and CODA-LM/{Train,Val,Test}/*.json with the front pictures in {val,test}/images/
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drivedistill.data.drivelm import TASKS
from drivedistill.records import Regime, write_json, write_text
from drivedistill.world.dataset.balance import balance, rank
from drivedistill.world.dataset.balance_senna import balance_senna
from drivedistill.world.dataset.balance_table import balance_table
from drivedistill.world.dataset.plan import CORNER_RATIO, Chunk
from drivedistill.world.dataset.shard import read_chunk
from drivedistill.world.questions.question import Question

PER_FRAME = 20
"""Most DriveLM questions per key frame."""
NAMES = {"train": "train", "validation": "validation", "test-regular": "test", "test-corner": "test"}
"""Split -> file name below its root."""
DRIVELM_NAMES = {"train": "v1_1_train_nus", "validation": "validation", "test": "test"}
CODA_FOLDERS = {"train": ("Train", "val"), "validation": ("Val", "test"), "test": ("Test", "test")}
"""File name -> CODA-LM's folder of annotations, and of pictures, as in the published data set."""

FrameRecord = dict[str, Any]


@dataclass
class Part:
    """The key frames of one split and regime, with the questions that are kept."""

    split: str
    regime: Regime
    frames: list[FrameRecord]
    kept: list[list[Question]]
    balance: str
    """What balancing did, per template."""
    files: dict[str, str] = field(default_factory=dict)
    """Path relative to OUT -> SHA-256"""

    @property
    def coda_questions(self) -> int:
        """Questions that the CODA-LM reader makes: general, suggestion, one per region."""
        codas = [frame["coda"] for frame in self.frames if frame["coda"]]
        return sum(2 + len(coda["region_perception"]) for coda in codas)

    @property
    def drivelm_questions(self) -> int:
        """Questions in the DriveLM file."""
        return sum(map(len, self.kept))


def load_part(out: Path, chunks: Sequence[Chunk], seed: int) -> Part:
    """Read the chunks of one split and regime, and balance their questions.

    Raises:
        InputError: A chunk's file is damaged.
    """
    frames = [frame for chunk in chunks for frame in read_chunk(out, chunk)]
    candidates = [
        [
            Question(**{**item, "tags": tuple(item["tags"]), "about": tuple(item["about"])})
            for item in frame["questions"]
        ]
        for frame in frames
    ]
    kept = balance(candidates, seed, per_frame=PER_FRAME)
    for frame, records in zip(frames, balance_senna([frame["senna"] for frame in frames], seed), strict=True):
        frame["senna"] = records
    return Part(chunks[0].split, chunks[0].regime, frames, kept, balance_table(candidates, kept))


def set_ratio(regular: Part, corner: Part, seed: int) -> None:
    """Drop questions, drawn by the seed, until training has `CORNER_RATIO` regular questions per corner question."""
    wanted = round(regular.drivelm_questions / CORNER_RATIO) - corner.coda_questions
    if wanted < corner.drivelm_questions:
        _thin(corner, max(0, wanted), seed)
    _thin(regular, CORNER_RATIO * (corner.drivelm_questions + corner.coda_questions), seed)


def _thin(part: Part, wanted: int, seed: int) -> None:
    """Keep `wanted` of the part's questions, whichever come first in a seeded order."""
    places = [(frame, index) for frame, questions in enumerate(part.kept) for index in range(len(questions))]
    chosen = sorted(places, key=lambda place: rank(seed, part.frames[place[0]]["frame"], place[1]))[:wanted]
    keep = set(chosen)
    part.kept = [
        [question for index, question in enumerate(questions) if (frame, index) in keep]
        for frame, questions in enumerate(part.kept)
    ]


def write_part(out: Path, part: Part, coda_number: int) -> None:
    """Write the part's files; `coda_number` is the number of its first CODA-LM picture."""
    root, name = out / part.regime, NAMES[part.split]
    _write(out, part, root / "QA_dataset_nus" / f"{DRIVELM_NAMES[name]}.json", _drivelm(part))
    _write(out, part, root / "senna" / f"{name}.json", [record for frame in part.frames for record in frame["senna"]])
    rows = [
        {key: frame[key] for key in ("scene", "frame", "images", "pixels")} | frame["truth"] for frame in part.frames
    ]
    _write(out, part, root / "truth" / f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    folder, pictures = CODA_FOLDERS[name]
    annotated = [frame for frame in part.frames if frame["coda"]]
    for number, frame in enumerate(annotated, start=coda_number):
        _write(out, part, root / "CODA-LM" / folder / f"{pictures}_{number:04d}.json", frame["coda"])
        picture = root / pictures / "images" / f"{number:04d}.jpg"
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes((root / frame["images"]["CAM_FRONT"]).read_bytes())


def _write(out: Path, part: Part, path: Path, value: Any) -> None:
    """Write JSON, or a text as it is, and remember its hash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(value, str):
        write_text(path, value)
    else:
        write_json(path, value)
    part.files[path.relative_to(out).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()


def _drivelm(part: Part) -> dict[str, Any]:
    """DriveLM v1.1: scene -> {scene_description, key_frames: frame -> {key_object_infos, QA, image_paths}}."""
    scenes: dict[str, Any] = {}
    for frame, questions in zip(part.frames, part.kept, strict=True):
        scene = scenes.setdefault(frame["scene"], {"scene_description": frame["description"], "key_frames": {}})
        answers: dict[str, list[dict[str, Any]]] = {}
        for task in TASKS:
            answers[task] = [_qa(question) for question in questions if question.task == task]
        scene["key_frames"][frame["frame"]] = {
            "key_object_infos": frame["key_object_infos"],
            "QA": answers,
            "image_paths": {camera: f"../{path}" for camera, path in frame["images"].items()},
        }
    return scenes


def _qa(question: Question) -> dict[str, Any]:
    return {
        "Q": question.text,
        "A": question.answer,
        "C": None,
        "con_up": None,
        "con_down": None,
        "cluster": None,
        "layer": None,
        "tag": list(question.tags),
        "template": question.template,
    }


def summary(part: Part) -> dict[str, Any]:
    """The part's row of the manifest."""
    truths = [frame["truth"] for frame in part.frames]
    laterals = Counter(truth["action"]["lateral"] for truth in truths)
    return {
        "split": part.split,
        "regime": part.regime,
        "scenes": len({frame["scene"] for frame in part.frames}),
        "key_frames": len(part.frames),
        "drivelm_questions": part.drivelm_questions,
        "coda_lm_questions": part.coda_questions,
        "senna_records": sum(len(frame["senna"]) for frame in part.frames),
        "kinds": dict(sorted(Counter(truth["kind"] for truth in truths).items())),
        "held_out": sum(truth["held_out"] for truth in truths),
        "lateral": dict(sorted(laterals.items())),
        "longitudinal": dict(sorted(Counter(truth["action"]["longitudinal"] for truth in truths).items())),
        "templates": dict(sorted(Counter(q.template for kept in part.kept for q in kept).items())),
    }


def data_hash(parts: Sequence[Part]) -> str:
    """SHA-256 of every file of questions and of every picture's pixels (before JPEG, whose bytes a library may change)."""
    digest = hashlib.sha256()
    for part in parts:
        for path, content in sorted(part.files.items()):
            digest.update(f"{path} {content}\n".encode())
        for frame in part.frames:
            digest.update(f"{frame['frame']} {frame['pixels']}\n".encode())
    return digest.hexdigest()
