"""The teacher: where it lies, how it reads, and for which version of the world it was made.

teacher/   config.json  model.safetensors  tokenizer.json  preprocessor_config.json  reading.json  README.md
           origin.json: {"generator", "version", "data_hash", "recipe", ...}, of a demo teacher
           half_tower/: the same files of a student with half of its blocks and of its tower, matched to the whole tower
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drivedistill.data.paths import load_json
from drivedistill.problems import InputError, Problem, missing_file
from drivedistill.sections import Data
from drivedistill.world import VERSION
from drivedistill.world.dataset.folder import GENERATOR

DEMO = Path(__file__).parent / "teacher"
"""The one that comes with the package."""
ORIGIN = "origin.json"
HALF_TOWER = "half_tower"
FILES = ("config.json", "model.safetensors", "reading.json")
"""Without them a folder holds no model of ours."""


@dataclass(frozen=True)
class Teacher:
    """A model that is there already."""

    path: Path
    digest: str
    """SHA-256 of its weights."""
    reading: dict[str, Any]
    """Fields of a recipe's data section: students read as their teacher does."""
    origin: dict[str, Any]
    """What it says about where it comes from; empty where it says nothing."""
    half_tower: Path | None = None
    """A student that sees as it does with half of its tower, where it brings one."""


def examine(path: Path | None = None) -> Teacher:
    """Look at a teacher without loading it.

    Args:
        path: A run or a directory as `save_subject` writes it; the demo teacher if there is none.

    Raises:
        InputError: It is not there or not whole, or was made for another version of the world.
    """
    folder = path or DEMO
    model = folder / "model" if (folder / "model").is_dir() else folder
    remedy = "name a run or a model's directory" if path else "name a teacher of your own with --teacher"
    if missing := [model / name for name in FILES if not (model / name).is_file()]:
        raise InputError(missing_file(file, "a file of the teacher", remedy) for file in missing)
    origin = load_json(folder / ORIGIN, "where a teacher comes from") if (folder / ORIGIN).is_file() else {}
    _require_this_world(folder, origin)
    saved = load_json(model / FILES[2], "how a model reads")
    reading = {name: value for name, value in saved.items() if name in Data.model_fields}
    half = folder / HALF_TOWER
    if half.is_dir() and (missing := [half / name for name in FILES if not (half / name).is_file()]):
        raise InputError(missing_file(file, "a file of the student with half a tower", remedy) for file in missing)
    return Teacher(folder, sha256(model / FILES[1]), reading, origin, half if half.is_dir() else None)


def _require_this_world(folder: Path, origin: dict[str, Any]) -> None:
    """A teacher of another version knows other pictures and other questions."""
    found = origin.get("generator", GENERATOR), origin.get("version", VERSION)
    if found != (GENERATOR, VERSION):
        expected = f"a teacher made for {GENERATOR}, version {VERSION}"
        remedy = "train it again (its recipe is named in its README.md), or name another with --teacher"
        raise InputError(Problem(str(folder / ORIGIN), "version", expected, f"one for {' '.join(found)}", remedy))


def sha256(path: Path) -> str:
    """Digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
