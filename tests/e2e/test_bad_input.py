"""What a user gets wrong, and what the user is told: every case exits with 2, names everything, and leaves no trace."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from PIL import Image

import tiny
from drivedistill.recipe import save_recipe
from make_driving_data import make
from typed import typed

DRIVELM = Path("data/regular/QA_dataset_nus/v1_1_train_nus.json")
FROM_DRIVELM = "data.sources=[{name: d, format: drivelm, root: data/regular, regime: regular}]"
FROM_BOTH = (
    "data.sources=[{name: d, format: drivelm, root: data/regular, regime: regular, fractions: {train: 1}}, "
    "{name: c, format: coda_lm, file: Train, root: data/corner, regime: corner, fractions: {train: 1}}]"
)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """A folder in which everything is right: data sets, recipes, a finished teacher, predictions, a submission."""
    folder = tmp_path_factory.mktemp("workplace")
    torch.set_num_threads(1)  # threads of tiny tensors wait for one another; on a busy machine that takes minutes
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make(Path("data"), scenes=2, frames=1, corner=4, size=(96, 64), seed=0)
        for name, changes in {"train": {}, "distill": {"teacher": {"path": "teacher"}}}.items():
            save_recipe(tiny.recipe(folder, **changes), Path(f"{name}.yaml"))
            relative = Path(f"{name}.yaml").read_text().replace(f"{folder}/", "")
            Path(f"{name}.yaml").write_text(relative)
        typed("train", "train.yaml", "--out", "teacher")
        typed("predict", "teacher", "--data", "drawn", "--format", "jsonl", "--out", "answers.jsonl")
        questions = [f"{scene}_{frame}_{i}" for scene, frame, i in questions_of(json.loads(DRIVELM.read_text()))]
        rows = [{"id": id, "question": "?", "answer": "Stop."} for id in questions]
        Path("submission.json").write_text(json.dumps({"method": "ours", "results": rows}))
    return folder


def questions_of(scenes):
    for scene, body in scenes.items():
        for frame, record in body["key_frames"].items():
            for index in range(sum(map(len, record["QA"].values()))):
                yield scene, frame, index


def fingerprint(folder: Path) -> dict[str, str]:
    """Every path below a folder, with a digest of what is in it."""
    return {
        str(path.relative_to(folder)): hashlib.md5(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in folder.rglob("*")
    }


# --- ways to spoil a workplace ----------------------------------------------------------------------------------------


def nothing() -> None:
    """The command line itself is wrong."""


def edit(change: Callable[[list[dict]], object]) -> Callable[[], None]:
    """Change DriveLM's key frames."""

    def spoil() -> None:
        scenes = json.loads(DRIVELM.read_text())
        change([frame for scene in scenes.values() for frame in scene["key_frames"].values()])
        DRIVELM.write_text(json.dumps(scenes))

    return spoil


def write(path: str, content: str | bytes) -> Callable[[], None]:
    return lambda: Path(path).write_bytes(content if isinstance(content, bytes) else content.encode()) and None


def remove(*paths: str) -> Callable[[], None]:
    return lambda: [Path(path).unlink() for path in paths] and None


def all_of(*steps: Callable[[], None]) -> Callable[[], None]:
    return lambda: [step() for step in steps] and None


def cut(path: str) -> Callable[[], None]:
    return lambda: Path(path).write_bytes(Path(path).read_bytes()[: Path(path).stat().st_size // 2]) and None


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")


def bomb(path: str) -> Callable[[], None]:
    """A true picture of a few kilobytes that would unfold to 64 million pixels and a row."""
    return lambda: Image.new("1", (8000, 8001)).save(path)


def rows(change: Callable[[list[dict]], object]) -> Callable[[], None]:
    """Change our own JSONL samples."""

    def spoil() -> None:
        samples = [json.loads(line) for line in Path("drawn/train.jsonl").read_text().splitlines()]
        change(samples)
        Path("drawn/train.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))

    return spoil


def rename_key(mapping: dict, old: str, new: str) -> None:
    mapping[new] = mapping.pop(old)


def other_tokenizer() -> None:
    from drivedistill.data.prompt import train_tokenizer

    train_tokenizer(["quite other words"] * 3, 270).save_pretrained("other")


def pickled(path: str) -> Callable[[], None]:
    return lambda: torch.save({"weight": torch.zeros(2)}, path)


def submitted(change: Callable[[list[dict]], object]) -> Callable[[], None]:
    def spoil() -> None:
        value = json.loads(Path("submission.json").read_text())
        change(value["results"])
        Path("submission.json").write_text(json.dumps(value))

    return spoil


# --- the table --------------------------------------------------------------------------------------------------------


@dataclass
class Case:
    """A mistake: how it is made, the command, and words that the message must have."""

    name: str
    spoil: Callable[[], None]
    command: list[str]
    words: list[str]
    problems: int = 1
    may_write: set[str] = field(default_factory=set)


CHECK = ["data", "check", "data/regular"]
CHECK_OURS = ["data", "check", "drawn", "--format", "jsonl"]
TRAIN = ["train", "train.yaml", "--out", "new/run"]
INTO = ["train", "train.yaml", "--out"]
DISTILL = ["distill", "distill.yaml", "--out", "new/run"]
PREDICT = ["predict", "teacher", "--data", "drawn", "--format", "jsonl", "--out", "new.jsonl"]
AGAIN = ["predict", "teacher/model", "--data", "drawn", "--format", "jsonl", "--out", "answers.jsonl"]
SCORE = ["score", "answers.jsonl", "--no-meteor", "--tokenizer", "approximate"]
SUBMITTED = ["score", "submission.json", "--reference", "data/regular", "--file", "train", "--no-meteor",
             "--tokenizer", "approximate"]  # fmt: skip
FRONT, BACK = "drawn/CAM_FRONT.png", "drawn/CAM_BACK.png"
WEIGHTS = "teacher/model/model.safetensors"

DATA = [
    Case("truncated JSON", cut(str(DRIVELM)), CHECK, [DRIVELM.name, "cut off", "line"]),
    Case("JSON of another form", write(str(DRIVELM), "[1, 2]"), CHECK, [DRIVELM.name, "list"]),
    Case("missing data file", remove(str(DRIVELM)), CHECK, ["data/regular", DRIVELM.name, "no such file"]),
    Case("missing data root", nothing, ["data", "check", "data/typo"], ["data/typo"]),
    Case(
        "missing keys, all of them",
        edit(lambda f: [f[0]["QA"]["perception"][0].pop("Q"), f[1]["QA"]["planning"][0].pop("Q"), f[1].pop("image_paths")]),
        CHECK,
        ["scene", "frame", "perception[0].Q", "planning[0].Q", "image_paths", "nothing"],
        4,
    ),
    Case(
        "wrong types, all of them",
        edit(lambda f: [f[0]["QA"]["perception"][0].update(A=5, tag="x"), f[1].update(QA=[1])]),
        CHECK,
        ["perception[0].A", "5", "perception[0].tag", "'x'", "QA", "a JSON list"],
        3,
    ),
    Case(
        "unknown camera",
        edit(lambda f: rename_key(f[0]["image_paths"], "CAM_BACK", "CAM_TOP")),
        CHECK,
        ["image_paths.CAM_TOP", "one of CAM_FRONT"],
    ),
    Case(
        "path outside the data root",
        edit(lambda f: f[0]["image_paths"].update(CAM_BACK="../../../etc/passwd", CAM_FRONT="/etc/hostname")),
        CHECK,
        ["etc/passwd", "/etc/hostname", "inside the data root"],
        2,
    ),
    Case("unknown task", edit(lambda f: rename_key(f[0]["QA"], "planning", "plans")), CHECK, ["QA.plans", "planning"]),
    Case("missing pictures", remove(FRONT, BACK), CHECK_OURS, [FRONT, BACK, "no such file", "data root"], 2),
    Case("missing pictures before training", remove(FRONT, BACK), TRAIN, [FRONT, BACK, "no such file"], 2),
    Case("missing picture before predicting", remove(FRONT), PREDICT, [FRONT, "no such file"]),
    Case("empty picture", write(FRONT, b""), TRAIN, [FRONT, "0 bytes"]),
    Case("text named .png", write(FRONT, "not a picture"), TRAIN, [FRONT, "a picture"]),
    Case("header of 400 million pixels", write(FRONT, png_header(20_000, 20_000)), TRAIN, [FRONT, "64 million", "scale"]),
    Case("header of 81 million pixels", write(FRONT, png_header(9000, 9000)), TRAIN, [FRONT, "9000 x 9000", "scale"]),
    Case("decompression bomb", bomb(FRONT), CHECK_OURS, [FRONT, "8000 x 8001", "64 million"]),
    Case("truncated picture", cut(FRONT), CHECK_OURS, [FRONT, "decoded", "fetch the picture again"]),
    Case(
        "bad lines of JSONL, all of them",
        rows(lambda r: [r[0].pop("question"), r[2].update(regime="rare"), r[3].update(speed=3)]),
        CHECK_OURS,
        ["line 1, question", "nothing", "line 3, regime", "'rare'", "line 4, speed"],
        3,
    ),
    Case(
        "camera and path in JSONL",
        rows(lambda r: [r[0]["images"].update(CAM_TOP="x.png"), r[1]["images"].update(CAM_BACK="../../x.png")]),
        CHECK_OURS,
        ["CAM_TOP", "../../x.png", "inside the data root"],
        2,
    ),
    Case("no questions", write("drawn/train.jsonl", ""), CHECK_OURS, ["drawn", "empty split"]),
    Case("id twice", rows(lambda r: r.append(r[0])), TRAIN, ["s0", "every id once"]),
    Case("nothing to learn from", rows(lambda r: [x.update(answer=None) for x in r]), TRAIN, ["s0", "an answer"], 6),
    Case(
        "scenes too few for the splits",
        nothing,
        [*TRAIN, "data.sources.0.fractions={train: 0.2, val: 0.2, a: 0.2, b: 0.2, c: 0.2}"],
        ["4 (an empty split)", "at least 5 scenes"],
    ),
    Case("no train split", nothing, [*TRAIN, "data.sources.0.fractions={val: 1}"], ["split `train`", "none"]),
    Case(
        "both sources broken",
        all_of(cut(str(DRIVELM)), write("data/corner/CODA-LM/Train/val_0002.json", "{")),
        [*TRAIN, FROM_BOTH],
        [DRIVELM.name, "val_0002.json"],
        2,
    ),
    Case(
        "region outside its picture",
        rows(lambda r: r[1].update(region={"camera": "CAM_FRONT", "box": [900, 900, 5, 5]})),
        CHECK_OURS,
        ["s1, region", "160 x 90", "x 900"],
    ),
]  # fmt: skip

RECIPE = [
    Case("missing recipe", nothing, ["train", "typo.yaml"], ["typo.yaml", "recipes/"]),
    Case("no YAML", write("train.yaml", "a: ["), TRAIN, ["train.yaml: line 1, column 5", "YAML"]),
    Case("key twice", write("train.yaml", "name: a\nname: b\n"), TRAIN, ["line 2", "`name` for the second time"]),
    Case(
        "unknown keys and bad numbers at once",
        nothing,
        [*TRAIN, "train.lr=1", "train.learning_rate=-1e-4", "train.batch_size=0", "data.sources.0.regim=x", "oops"],
        ["train.lr", "train.learning_rate", "-1e-4", "train.batch_size", "data.sources.0.regim", "oops", "key.sub=value"],
        5,
    ),
    Case("unknown preset", nothing, [*TRAIN, "model.preset=huge"], ["model.preset", "'huge'", "tiny"]),
    Case(
        "unknown field of a preset",
        nothing,
        [*TRAIN, "model.overrides.text.n_layers=3", "model.overrides.fusion_hiden=8"],
        ["model.overrides.text.n_layers", "did you mean", "fusion_hidden"],
        2,
    ),
    Case("frozen matches nothing", nothing, [*TRAIN, "model.frozen=[visoin]"], ["model.frozen", "'visoin' matches nothing"]),
    Case(
        "rate matches nothing",
        nothing,
        [*TRAIN, "train.learning_rates={fusoin: 1, visoin: 1}"],
        ["'fusoin' matches nothing", "'visoin' matches nothing", "names look like"],
        2,
    ),
    Case("LoRA matches nothing", nothing, [*TRAIN, "model.lora.targets=qq"], ["model.lora.targets", "'qq' matches nothing"]),
    Case("no regular expression", nothing, [*TRAIN, "model.frozen=['(']"], ["model.frozen.0", "a regular expression"]),
    Case("frozen random weights", nothing, [*TRAIN, "model.frozen=['vision\\.']"], ["random weights", "--allow-random"]),
    Case("small vocabulary", nothing, [*TRAIN, "model.tokenizer_size=100"], ["model.tokenizer_size", "100", "259"]),
    Case("texts too long", nothing, [*TRAIN, "data.max_question_tokens=9"], ["at most 9 question tokens"], 8),
    Case("train with a teacher", nothing, ["train", "distill.yaml"], ["distill.yaml", "drivedistill distill", "teacher=null"]),
    Case("distill without a teacher", nothing, ["distill", "train.yaml"], ["train.yaml", "drivedistill train"]),
    Case(
        "other vocabulary than the teacher",
        other_tokenizer,
        [*DISTILL, "model.tokenizer=other"],
        ["recipe: teacher", "300 tokens in the teacher's vocabulary, 270 in the student's"],
    ),
    Case("check of a broken recipe", nothing, ["data", "check", "typo.yaml"], ["typo.yaml"]),
]  # fmt: skip

MODEL = [
    Case("no such model", nothing, [*DISTILL, "teacher.path=no/such"], ["no/such", "hf download"]),
    Case("pickle named safetensors", pickled(WEIGHTS), DISTILL, ["teacher/model", "no safetensors file", "pickle"]),
    Case("text named safetensors", write(WEIGHTS, "hello"), DISTILL, ["teacher/model", "no safetensors file"]),
    Case("half of the weights", cut(WEIGHTS), DISTILL, ["teacher/model", "no safetensors file", "cut off"]),
    Case(
        "pickle beside no safetensors",
        all_of(remove(WEIGHTS), pickled("teacher/model/pytorch_model.bin")),
        DISTILL,
        ["teacher/model", "model.safetensors", "safetensors only"],
    ),
    Case("pickle for predicting", pickled(WEIGHTS), PREDICT, ["teacher/model", "no safetensors file"]),
    Case(
        "no tokenizer",
        remove("teacher/model/tokenizer.json", "teacher/model/tokenizer_config.json"),
        DISTILL,
        ["teacher/model", "a tokenizer"],
    ),
    Case("no configuration", remove("teacher/model/config.json"), DISTILL, ["teacher/model", "a model"]),
    Case("broken configuration", write("teacher/model/config.json", "{"), DISTILL, ["teacher/model", "config"]),
    Case("broken reading", write("teacher/model/reading.json", '{"family": "t5"}'), PREDICT, ["reading.json", "family"], 2),
    Case("no image processor", remove("teacher/model/preprocessor_config.json"), DISTILL, ["teacher/model", "processor"]),
]  # fmt: skip

FOLDER = [
    Case("occupied folder", nothing, [*INTO, "teacher"], ["teacher", "--resume", "--overwrite"]),
    Case("overwrite of a folder that is no run", nothing, [*INTO, "data", "--overwrite"], ["data", "no run"]),
    Case("resume of a folder that is no run", nothing, [*INTO, "data", "--resume"], ["data", "no run"]),
    Case("folder is a file", nothing, [*INTO, "train.yaml"], ["train.yaml", "a file"]),
    Case(
        "resume with another recipe",
        nothing,
        ["train", "train.yaml", "train.learning_rate=2e-3", "seed=1", "--out", "teacher", "--resume"],
        ["train.learning_rate", "0.001", "0.002", "seed"],
        2,
    ),
    Case("bad data do not remove the old run", remove(FRONT), [*INTO, "teacher", "--overwrite"], [FRONT]),
    Case("answers of another model", nothing, AGAIN, ["answers.jsonl", "teacher"]),
    Case("somebody's notes as answers", write("notes.txt", "buy milk"), [*PREDICT[:-1], "notes.txt"], ["notes.txt"]),
    Case("unknown decoding", nothing, [*PREDICT, "--decode", "beem-4"], ["--decode", "'beem-4'", "greedy"]),
    Case("model that is no run, without data", nothing, ["predict", "teacher/model"], ["recipe.yaml", "--data"]),
    Case("split that the run lacks", nothing, ["predict", "teacher", "--split", "exam"], ["exam", "train, val"]),
]  # fmt: skip

ANSWERS = [
    Case("missing predictions", nothing, ["score", "typo.jsonl"], ["typo.jsonl"]),
    Case("no predictions", write("answers.jsonl", ""), SCORE, ["answers.jsonl"]),
    Case("bad answers", write("answers.jsonl", '{"id": 1}\nx\n'), SCORE, ["line 1, id", "a value for this key", "'x'"], 13),
    Case("submission without its questions", nothing, ["score", "submission.json"], ["submission.json", "--reference"]),
    Case("submission that is no JSON", write("submission.json", "{"), SUBMITTED, ["submission.json", "JSON"]),
    Case(
        "unknown, repeated and missing ids, all of them",
        submitted(lambda r: [r[0].update(id="who"), r.append(r[1]), r[2].update(answer=None)]),
        SUBMITTED,
        ["results[0]", "unknown id who", "again", "results[2]", "an answer for each question"],
        5,
    ),
]  # fmt: skip

CASES = [*DATA, *RECIPE, *MODEL, *FOLDER, *ANSWERS]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_mistake_is_explained_completely_and_leaves_no_trace(case, workplace, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "here"
    shutil.copytree(workplace, folder)
    monkeypatch.chdir(folder)
    case.spoil()
    before = fingerprint(folder)
    code = typed(*case.command)
    said = capsys.readouterr().err
    assert code == 2, said
    assert fingerprint(folder) == before
    assert "Traceback" not in said
    for word in case.words:
        assert word in said, said
    lines = said.splitlines()
    for part in ("expected: ", "found:    ", "remedy:   "):
        values = [line.partition(part)[2] for line in lines if line.startswith(f"    {part}")]
        assert len(values) == case.problems, said
        assert all(value.strip() for value in values), said
    assert lines[-1] == f"{case.problems} problem{'s' if case.problems > 1 else ''} to mend"


def test_workplace_itself_is_right(workplace, tmp_path, monkeypatch):
    """Or the cases above would prove nothing."""
    folder = tmp_path / "here"
    shutil.copytree(workplace, folder)
    monkeypatch.chdir(folder)
    for command in (
        CHECK,
        CHECK_OURS,
        [*TRAIN, "--dry-run"],
        [*DISTILL, "--dry-run"],
        [*TRAIN, FROM_BOTH, "--dry-run"],
    ):
        assert typed(*command) == 0, command
    for command in (PREDICT, SCORE, SUBMITTED, DISTILL):
        assert typed(*command) == 0, command


def test_debug_shows_the_traceback(workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    assert typed("--debug", "train", "typo.yaml") == 2
    assert "Traceback" in capsys.readouterr().err
