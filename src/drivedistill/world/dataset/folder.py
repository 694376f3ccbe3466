"""The folder of a data set: what it is a function of, whether it is there already, whether it may be written."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from drivedistill.data.paths import load_json
from drivedistill.problems import InputError, Problem
from drivedistill.records import CAMERAS, write_json
from drivedistill.world import VERSION
from drivedistill.world.dataset.plan import REGIMES
from drivedistill.world.dataset.shard import PARTS
from drivedistill.world.kernel import source_digest

MANIFEST = "manifest.json"
BALANCE = "balance.txt"
SHEETS = "sheets"
OURS = (*REGIMES, PARTS, MANIFEST, BALANCE, SHEETS)
"""All that a data set's folder may hold, and all that is ever deleted."""
NOTE = f"{PARTS}/settings.json"
"""Marks an unfinished data set as ours."""
SIZES = (96, 448)
FEWEST = 20
"""Key frames: every split needs some."""
GENERATOR = "drivedistill world"


@dataclass(frozen=True)
class Settings:
    """What a data set is a function of, beside the generator's version and its libraries'."""

    keyframes: int
    seed: int
    size: int
    """Width and height of the pictures in pixels."""

    def problems(self) -> list[Problem]:
        """Everything that cannot be met."""
        low, high = SIZES
        found = []
        if self.keyframes < FEWEST:
            expected = f"{FEWEST} or more: every split needs some"
            found.append(Problem("command line", "--keyframes", expected, str(self.keyframes), "ask for more"))
        if not low <= self.size <= high:
            expected = f"{low} to {high} pixels"
            found.append(Problem("command line", "--size", expected, str(self.size), "choose another size"))
        if self.seed < 0:
            found.append(Problem("command line", "--seed", "0 or more", str(self.seed), "choose another seed"))
        return found

    def mark(self) -> dict[str, Any]:
        """What the manifest says about where the data come from."""
        return {"generator": GENERATOR, "version": VERSION, **asdict(self)}


def finished(out: Path, settings: Settings) -> dict[str, Any] | None:
    """The manifest, if the very same data set is there and complete; None if there is no finished one.

    Raises:
        InputError: A finished data set of other settings, an incomplete one, or a manifest that is not ours.
    """
    path = out / MANIFEST
    if not path.is_file():
        return None
    manifest, wanted = load_json(path, "a manifest: a JSON object"), settings.mark()
    _require_same(out, manifest, wanted)
    missing = [name for name in manifest.get("files", ()) if not (out / name).is_file()]
    for part in REGIMES:
        frames = sum(row["key_frames"] for row in manifest["parts"] if row["regime"] == part)
        for camera in CAMERAS:
            folder = out / part / "nuscenes" / "samples" / camera
            if len(list(folder.glob("*.jpg"))) != frames:
                missing.append(f"{folder.relative_to(out)}: {frames} pictures")
    if missing:
        found = f"{len(missing)} missing, e.g. {missing[0]}"
        raise InputError(Problem(str(out), "", "all files of the manifest", found, "write it again with --overwrite"))
    return manifest


def prepare(out: Path, settings: Settings, *, overwrite: bool) -> None:
    """Make the folder ready for a new data set, or for the rest of an unfinished one.

    Raises:
        InputError: It holds something else, or cannot be made. Nothing is deleted then.
    """
    names = _names(out)
    mark = settings.mark() | {"code": source_digest()}  # parts of another source must not be mixed with ours
    foreign = [name for name in names if name not in OURS]
    recognised = not names or (names == [PARTS] and not any((out / PARTS).iterdir()))
    if (out / NOTE).is_file() or (overwrite and (out / MANIFEST).is_file()):
        path = out / NOTE if (out / NOTE).is_file() else out / MANIFEST
        note = load_json(path, "a note of this generator: a JSON object")
        recognised = note.get("generator") == GENERATOR
        if recognised and not overwrite:
            _require_same(out, note, mark)
            return
    if foreign or not recognised:
        found = ", ".join((foreign or names)[:5])
        raise InputError(Problem(str(out), "", "an empty folder", found, "choose another folder"))
    for name in names:
        path = out / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    try:
        (out / PARTS).mkdir(parents=True)
        write_json(out / NOTE, mark)
    except OSError as error:
        raise InputError(Problem(str(out), "", "a folder that can be written", str(error), "choose another")) from error


def _names(out: Path) -> list[str]:
    """What lies in the folder; nothing if it is not there."""
    try:
        return sorted(path.name for path in out.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(Problem(str(out), "", "a folder", str(error), "choose another")) from error


def _require_same(out: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    differs = [f"{key} {found.get(key)!r}" for key, value in wanted.items() if found.get(key) != value]
    if differs:
        expected = f"{GENERATOR} with " + ", ".join(
            f"{key} {value!r}" for key, value in wanted.items() if key != "generator"
        )
        remedy = "choose another folder, or add --overwrite"
        raise InputError(Problem(str(out), "", expected, ", ".join(differs), remedy))
