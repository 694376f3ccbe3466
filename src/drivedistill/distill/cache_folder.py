"""The folder of `drivedistill cache`: who may write it, what its parts are made from, and what is said when that does not fit.

    FOLDER/cache.json              what this folder is
           lock                    held by the process that builds
           pictures.jsonl          digests of the files that were read (file_digests.py)
           vision-0123456789abcdef/   features of a frozen vision tower (cache.py)
           teacher-0123456789abcdef/  what a teacher says of answers (teacher_cache.py)
           maps-0123456789abcdef/     where its text looks at pictures (map_cache.py)

The name of a subfolder is the fingerprint of all that decides what lies in it; its own `cache.json` says that in words.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import PIL
import torch
from PIL import features as pillow

import drivedistill
from drivedistill.data.paths import load_json
from drivedistill.distill.file_digests import FileDigests
from drivedistill.problems import InputError, Problem, missing_file
from drivedistill.progress import Progress
from drivedistill.records import lock, write_json
from drivedistill.signals import Interrupted, Signals

Precision = Literal["no", "bf16"]

CARD = "cache.json"
HOLDS = "caches of drivedistill"
"""How the card of a whole folder begins."""
BUILD = "run `drivedistill cache RECIPE`"
POLL_S = 0.5
"""Seconds between two looks at a cache that another process writes."""


def decoding() -> dict[str, str]:
    """What decodes pictures; another version may make other pixels of the same bytes."""
    return {"pillow": PIL.__version__, "libjpeg_turbo": str(pillow.version_feature("libjpeg_turbo"))}


def fingerprint(made_from: Mapping[str, Any]) -> str:
    """16 hexadecimal digits that name what something was made from."""
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:16]


def file_digests(folder: Path) -> FileDigests:
    """The digests that a cache remembers."""
    return FileDigests(folder / "pictures.jsonl")


def look_at(pictures: Iterable[str], folder: Path, digests: FileDigests, signals: Signals, *, keep: bool) -> None:
    """Find the digests of all pictures, and `keep` them.

    Raises:
        Interrupted: SIGINT or SIGTERM; what was found is kept.
    """
    chosen = set(pictures)
    try:
        with Progress(len(chosen), word="picture") as progress:
            for _ in digests.look(chosen):
                progress.advance()
                stop_if_asked(signals, folder)
    finally:
        if keep:
            digests.save()


def require_cache(folder: Path, field: str) -> None:
    """Refuse a folder that is no cache.

    Args:
        folder: The folder.
        field: Of the recipe, which names it.

    Raises:
        InputError: It is missing, a file, or something else.
    """
    what = "a folder of `drivedistill cache`"
    if not folder.exists():
        raise InputError(missing_file(folder, what, f"{BUILD}, or remove {field}"))
    if not folder.is_dir() or not (folder / CARD).is_file() or not _holds(folder / CARD).startswith(HOLDS):
        found = "something else (no cache.json of ours)"
        raise InputError(Problem(str(folder), "", what, found, f"name another folder in {field}"))


def _holds(card: Path) -> str:
    return str(load_json(card, "a card of a cache").get("holds"))


def is_new(folder: Path) -> bool:
    """Whether a folder is empty, but for the temporary file of a builder that was killed at once."""
    return folder.is_dir() and all(path.name.startswith(f".{CARD}") for path in folder.iterdir())


@contextmanager
def claimed(folder: Path, field: str, waiting: Signals | None = None) -> Iterator[None]:
    """Make the folder a cache, and keep other builders out of it; with `waiting`, wait for them until a signal comes.

    Raises:
        InputError: It holds something else, or another process writes it and nobody is to wait.
        Interrupted: A signal came while waiting.
    """
    if not folder.exists() or is_new(folder):
        folder.mkdir(parents=True, exist_ok=True)
        kinds = "a subfolder per frozen vision tower and per teacher, digests of the files that were read"
        write_json(folder / CARD, {"holds": f"{HOLDS}: {kinds}", "format": 1})
    require_cache(folder, field)
    with (folder / "lock").open("ab") as file:
        while True:
            try:
                lock(file, folder)
                break
            except InputError:
                if waiting is None:
                    raise
                stop_if_asked(waiting, folder)
                time.sleep(POLL_S)
        yield


def begin_part(part: Path, card: Mapping[str, Any]) -> None:
    """Say what a subfolder's rows are, before the first of them is written."""
    part.mkdir(exist_ok=True)
    if (part / CARD).exists():
        return
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    made_with = {"drivedistill": drivedistill.__version__, "torch": torch.__version__, "device": device}
    write_json(part / CARD, {**card, "made_with": made_with})


def cards_of(folder: Path, kind: Literal["vision", "teacher", "maps"]) -> dict[Path, dict[str, Any]]:
    """By subfolder, the cards of the parts of one kind."""
    found = sorted(folder.glob(f"{kind}-*/{CARD}"))
    return {path.parent: load_json(path, f"a card of {kind} rows") for path in found}


def made_otherwise(cards: Iterable[Mapping[str, Any]], ours: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> str:
    """What the nearest part differs in from the one that is needed, in words; `none` where there are no parts.

    Args:
        cards: Of a cache's parts of the same kind.
        ours: What a part like the given card (the same type, the same k) would have to be made from.
    """
    differences = [list(_differences(ours(card["made_from"]), card["made_from"])) for card in cards]
    if not differences:
        return "none"
    nearest = min(differences, key=len)
    return "; ".join(nearest[:5]) + (f"; and {len(nearest) - 5} more" if len(nearest) > 5 else "")


def _differences(ours: Any, theirs: Any, name: str = "") -> Iterator[str]:
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for key in sorted(ours.keys() | theirs.keys()):
            yield from _differences(ours.get(key), theirs.get(key), f"{name}.{key}" if name else key)
    elif ours != theirs:
        yield f"{name} {str(theirs)[:40]} instead of {str(ours)[:40]}"


def stop_if_asked(signals: Signals, folder: Path) -> None:
    """Leave between two portions of work.

    Raises:
        Interrupted: SIGINT or SIGTERM came.
    """
    if signals.number:
        raise Interrupted(signals.number, f"after keeping what is done in {folder}; the same command goes on")
