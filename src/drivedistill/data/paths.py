"""Where files may lie (under the data root, nowhere else), and JSON that says what is wrong with it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from drivedistill.problems import InputError, Problem, missing_file

_CAMERA = re.compile(r"CAM_(?:FRONT|BACK)(?:_LEFT|_RIGHT)?(?!_?[A-Z])")


def named_cameras(path: str) -> set[str]:
    """The nuScenes cameras that a picture's path names: `samples/CAM_FRONT/x.jpg`, `n__CAM_FRONT__1.jpg`."""
    return set(_CAMERA.findall(path))


def under(root: Path, relative: str) -> Path | None:
    """The absolute path of `relative` in the data root, or None if it leads out of it.

    Decided lexically: symbolic links below the root are the user's own and are followed. Backslashes are read as
    slashes, since some published files were written on Windows.
    """
    base = os.path.abspath(root)
    path = os.path.normpath(os.path.join(base, relative.replace("\\", "/")))
    inside = path == base or path.startswith(base.rstrip(os.sep) + os.sep)
    return Path(path) if inside and "\0" not in path else None


def published(root: Path, path: str) -> Path | None:
    """`under` for the paths of published files: `../nuscenes/samples/...` and `./data/nuscenes/...` mean the root."""
    relative = path.replace("\\", "/").removeprefix("./")
    first, _, rest = relative.partition("/")
    return under(root, rest if first in ("..", "data") else relative)


def find(root: Path, candidates: list[str], what: str) -> Path:
    """The first of `candidates` (files or folders, relative to the data root) that exists.

    Raises:
        InputError: None of them exists, or one leads out of the data root.
    """
    for candidate in candidates:
        path = under(root, candidate)
        if path is None:
            remedy = "name a file below the data root, or choose another root"
            raise InputError(Problem(str(root), candidate, "a path inside the data root", "a path outside", remedy))
        if path.exists():
            return path
    raise InputError(missing_file(root, what, f"put one of these into the data root: {', '.join(candidates)}"))


def load_any_json(path: Path, what: str) -> Any:
    """Read whatever JSON a file holds.

    Raises:
        InputError: The file cannot be read, is no UTF-8 JSON, ends early, or repeats a key.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        found = f"{error.msg} at line {error.lineno}, column {error.colno}; the file has {path.stat().st_size} bytes"
        remedy = "the file is damaged or was cut off; fetch it again"
        raise InputError(Problem(str(path), "", what, found, remedy)) from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(Problem(str(path), "", what, str(error), "mend or replace the file")) from error


def load_json_lines(path: Path, what: str) -> list[Any]:
    """Read a file with one JSON value per line; blank lines are none.

    Raises:
        InputError: The file cannot be read, or lines are no JSON or repeat a key; all of them are listed.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise InputError(Problem(str(path), "", what, str(error), "mend or replace the file")) from error
    found, problems = [], []
    for number, line in enumerate(lines, start=1):
        try:
            found += [json.loads(line, object_pairs_hook=_unique)] if line.strip() else []
        except (ValueError, RecursionError) as error:
            problems.append(Problem(str(path), f"line {number}", what, str(error), "mend or remove the line"))
    if problems:
        raise InputError(problems)
    return found


def load_json(path: Path, what: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: The file cannot be read, is no UTF-8 JSON, ends early, repeats a key, or holds no object.
    """
    value = load_any_json(path, what)
    if not isinstance(value, dict):
        raise InputError(_other(path, what, value))
    return value


def load_json_list(path: Path, what: str) -> list[Any]:
    """Read a JSON list.

    Raises:
        InputError: The file cannot be read, is no UTF-8 JSON, ends early, repeats a key, or holds no list.
    """
    value = load_any_json(path, what)
    if not isinstance(value, list):
        raise InputError(_other(path, what, value))
    return value


def _other(path: Path, what: str, value: Any) -> Problem:
    return Problem(str(path), "", what, f"a JSON {type(value).__name__}", "check the format and the file")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys must differ: Python would silently keep the last of two records with one name."""
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} occurs twice in one object")
    return value
