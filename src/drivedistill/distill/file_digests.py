"""What is in a picture or a file of weights, as sha256 of its bytes; remembered, so that no run reads 50,000 files to begin.

    FILE (JSON lines)   {"path": "/data/....jpg", "size": 181523, "mtime_ns": 17..., "sha256": "..."}

A file whose size or time of change differs from the note is read again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from drivedistill.records import Row, read_jsonl, write_jsonl


class _Note(Row):
    called = "digests of files"

    path: str
    size: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True)
class FileDigests:
    """Digests of files, remembered in a file; another process that is given this reads the file itself.

    Args:
        file: Where they are remembered; need not exist.
    """

    file: Path

    def of(self, name: str) -> str:
        """The sha256 of a file's bytes, in hexadecimal.

        Raises:
            OSError: It cannot be read.
        """
        path = os.path.abspath(name)
        found = os.stat(path)
        note = self._notes.get(path)
        if note is None or (note.size, note.mtime_ns) != (found.st_size, found.st_mtime_ns):
            with open(path, "rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            note = _Note(path=path, size=found.st_size, mtime_ns=found.st_mtime_ns, sha256=sha256)
            self._notes[path] = note
        return note.sha256

    def look(self, names: Iterable[str]) -> Iterator[str]:
        """Find the digests of many files, several at once; yields each name when it is done."""
        names = list(names)
        pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
        try:
            for name, _ in zip(names, pool.map(self.of, names), strict=True):
                yield name
        finally:
            pool.shutdown(cancel_futures=True)  # whoever stops early does not wait for the rest

    def save(self) -> None:
        """Write what is known, completely or not at all."""
        write_jsonl(self.file, self._notes.values())

    @cached_property
    def _notes(self) -> dict[str, _Note]:
        """By absolute path."""
        return {note.path: note for note in read_jsonl(self.file, _Note)} if self.file.exists() else {}

    def __getstate__(self) -> dict[str, Any]:
        return {"file": self.file}
