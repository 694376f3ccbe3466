"""Folders that exist completely or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WRITING = ".writing-"
"""How the names of folders and links begin that nobody may read yet."""
OLD = f"{WRITING}old-"
"""And of folders whose place a newer one is taking."""


@contextmanager
def write_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to write into, which takes the place of `folder` at the end of the block.

    Until then, and if the block fails, the folder before is left as it is. What is new is on the disk before it gets its name.
    A process that is killed leaves one of the two under the name; between the renames at the end it leaves both beside it,
    whole, and `clear_up` gives the old one its name back.
    """
    temporary = folder.with_name(f"{WRITING}{folder.name}")
    old = folder.with_name(f"{OLD}{folder.name}")
    _give_back(old, folder)
    _clear(temporary)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        flush(temporary)
    except Exception:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    if folder.exists():
        _clear(old)
        folder.rename(old)
    temporary.rename(folder)
    flush_folder(folder.parent)
    _clear(old)


def remove_folder(folder: Path) -> None:
    """Remove a folder so that a kill in between cannot leave half of it under a valid name."""
    gone = folder.with_name(f"{WRITING}gone-{folder.name}")
    _clear(gone)
    folder.rename(gone)
    shutil.rmtree(gone)


def clear_up(parent: Path) -> None:
    """Put right what killed processes left in a folder of folders: names are given back, what never got one is removed."""
    for old in parent.glob(f"{OLD}*"):
        _give_back(old, parent / old.name.removeprefix(OLD))
    for leftover in parent.glob(f"{WRITING}*"):
        if leftover.is_symlink():
            leftover.unlink()
        else:
            shutil.rmtree(leftover)


def flush(folder: Path) -> None:
    """Wait until the files of a folder are on the disk."""
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            flush_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Wait until the names of a folder's files are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _give_back(old: Path, folder: Path) -> None:
    """Undo the first of the two renames where the second was never made."""
    if old.exists() and not folder.exists():
        old.rename(folder)


def _clear(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
