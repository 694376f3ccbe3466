"""Clips of the embedded world: a real-world test in small, which everybody can run (the form is that of `data.clips`).

OUT/labels.jsonl                            clip, frame, speed, command, future path, regime: asked with Senna's question
OUT/target.jsonl                            the same moments, asked in the plain words of the world's planning questions
OUT/truth.jsonl                             what is known about every moment
OUT/0003-debris/CAM_FRONT/000000.jpg ...    six cameras, a moment every half second
OUT/clips.json                              what the folder is a function of
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from drivedistill.data.paths import load_json
from drivedistill.data.senna_rules import FUTURE_POINTS, meta_action, navigation_command
from drivedistill.problems import InputError, Problem
from drivedistill.progress import Progress
from drivedistill.records import CAMERAS, write_json, write_text
from drivedistill.world import VERSION
from drivedistill.world.dataset.folder import SIZES
from drivedistill.world.dataset.plan import REGIMES, clip_drives, hazard_ahead
from drivedistill.world.dataset.senna import NAVIGATION_POINTS, POINT_STEPS, future_path
from drivedistill.world.dataset.shard import save_jpeg, truth
from drivedistill.world.kernel import source_digest
from drivedistill.world.pictures.render import Renderer
from drivedistill.world.questions.planning import TARGET, route
from drivedistill.world.scene import STEPS, Drive

MOMENTS = 8
"""Of a clip, half a second apart."""
STARTS = range(6, STEPS - (MOMENTS - 1 + NAVIGATION_POINTS) * POINT_STEPS)
"""Steps at which a clip may begin, so that the log reaches six seconds beyond its last moment."""
MANIFEST, LABELS, PLAIN, TRUTH = "clips.json", "labels.jsonl", "target.jsonl", "truth.jsonl"
OURS = re.compile(rf"\.?\d{{4,}}-\w+|{'|'.join(map(re.escape, (MANIFEST, LABELS, PLAIN, TRUTH)))}")
"""All that a folder of clips may hold, and all that is ever deleted."""
GENERATOR = "drivedistill world --clips"


@dataclass(frozen=True)
class Settings:
    """What a folder of clips is a function of, beside the generator's version and its libraries'."""

    clips: int
    seed: int
    size: int
    """Width and height of the pictures in pixels."""

    def problems(self) -> list[Problem]:
        """Everything that cannot be met."""
        low, high = SIZES
        given = (
            ("--clips", self.clips >= 1, "1 or more", self.clips),
            ("--seed", self.seed >= 0, "0 or more", self.seed),
            ("--size", low <= self.size <= high, f"{low} to {high} pixels", self.size),
        )
        return [Problem("command line", n, want, str(value), "change it") for n, good, want, value in given if not good]

    def mark(self) -> dict[str, Any]:
        """What the manifest says about where the clips come from."""
        return {"generator": GENERATOR, "version": VERSION, **asdict(self), "code": source_digest()}


def write_clips(out: Path, settings: Settings, *, overwrite: bool = False) -> dict[str, Any]:
    """Write clips, regular and corner by turns, or finish a folder that was interrupted.

    Of each drive the four seconds are taken in which a hazard lies ahead longest and, among those, in which the labels
    differ most. Files depend on the settings alone; clip 7 of ten is clip 7 of a hundred.

    Args:
        out: New, empty, or a folder of clips of the same settings.
        settings: How many clips, of which seed and size.
        overwrite: Replace other clips that are there.

    Returns:
        The manifest, with the number of moments per label and per kind of scene.

    Raises:
        InputError: Settings that cannot be met, or a folder that holds something else.
    """
    if problems := settings.problems():
        raise InputError(problems)
    _prepare(out, settings, overwrite=overwrite)
    rows: dict[str, list[dict[str, Any]]] = {LABELS: [], PLAIN: [], TRUTH: []}
    with Progress(settings.clips, word="clips") as progress:
        for number, drive in enumerate(islice(_drives(settings.seed), settings.clips)):
            name = f"{number:04d}-{drive.scene.kind}"
            steps = _steps(drive)
            _write_pictures(out, name, drive, steps, settings.size)
            for index, step in enumerate(steps):
                label = _label(drive, name, index, step)
                rows[LABELS].append(label)
                rows[PLAIN].append(label | {"question": route(drive, step) + TARGET})
                rows[TRUTH].append(_truth(drive, name, index, step))
            progress.advance()
    for file, content in rows.items():
        write_text(out / file, "".join(json.dumps(row) + "\n" for row in content))
    manifest = settings.mark() | {
        "libraries": {name: version(name) for name in ("numpy", "numba", "pillow")},
        "moments": len(rows[LABELS]),
        "labels": dict(Counter(str(meta_action(row["future_path"])) for row in rows[LABELS]).most_common()),
        "kinds": dict(sorted(Counter(row["kind"] for row in rows[TRUTH]).items())),
    }
    write_json(out / MANIFEST, manifest)
    return manifest


def _drives(seed: int) -> Iterator[Drive]:
    by_regime = [clip_drives(regime, seed) for regime in REGIMES]
    while True:
        yield from map(next, by_regime)


def _steps(drive: Drive) -> list[int]:
    """The moments of the clip."""

    def tells(start: int) -> tuple[int, int]:
        steps = range(start, start + MOMENTS * POINT_STEPS, POINT_STEPS)
        labels = {meta_action(future_path(drive, step)[:FUTURE_POINTS]) for step in steps}
        return sum(hazard_ahead(drive, step) for step in steps), len(labels)

    start = max(STARTS, key=tells)
    return list(range(start, start + MOMENTS * POINT_STEPS, POINT_STEPS))


def _label(drive: Drive, clip: str, index: int, step: int) -> dict[str, Any]:
    path = future_path(drive, step)
    return {
        "clip": clip,
        "frame": index,
        "speed": round(float(drive.speeds[0, step]), 3),
        "command": navigation_command(*path[-1]),
        "future_path": path[:FUTURE_POINTS].tolist(),
        "regime": "corner" if drive.scene.corner else "regular",
    }


def _truth(drive: Drive, clip: str, index: int, step: int) -> dict[str, Any]:
    return {"scene": clip, "frame": f"{clip}/{index}", **truth(drive.scene), "step": step}


def _write_pictures(out: Path, name: str, drive: Drive, steps: list[int], size: int) -> None:
    """Write the clip's folder, whole or not at all; one that is there stays."""
    if (out / name).exists():
        return
    unfinished = out / f".{name}"
    renderer = Renderer(drive)
    for index, step in enumerate(steps):
        pictures = renderer.views(step, size, size).pictures
        for camera in CAMERAS:
            save_jpeg(unfinished / camera / f"{index:06d}.jpg", pictures[camera])
    unfinished.rename(out / name)


def _prepare(out: Path, settings: Settings, *, overwrite: bool) -> None:
    """Make the folder ready; nothing is deleted unless all of it is ours and is to be replaced."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        names = sorted(path.name for path in out.iterdir())
    except OSError as error:
        raise InputError(Problem(str(out), "", "a folder that can be written", str(error), "choose another")) from error
    foreign = [name for name in names if not OURS.fullmatch(name)]
    found = load_json(out / MANIFEST, "a manifest: a JSON object") if MANIFEST in names else {}
    if names and (foreign or found.get("generator") != GENERATOR):
        first = ", ".join((foreign or names)[:5])
        raise InputError(Problem(str(out), "", "an empty folder", first, "choose another folder"))
    wanted = settings.mark()
    if differs := [f"{key} {found.get(key)!r}" for key in wanted if names and found.get(key) != wanted[key]]:
        if not overwrite:
            expected = ", ".join(f"{key} {value!r}" for key, value in wanted.items() if key != "generator")
            remedy = "choose another folder, or add --overwrite"
            raise InputError(Problem(str(out), "", expected, ", ".join(differs), remedy))
        for name in names:
            shutil.rmtree(out / name) if (out / name).is_dir() else (out / name).unlink()
    if not (out / MANIFEST).is_file():
        write_json(out / MANIFEST, wanted)
