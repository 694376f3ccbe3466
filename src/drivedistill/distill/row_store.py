"""Rows of one shape on disk, one or several under a key: written once, read at random, safe to kill at any moment.

    FOLDER/rows.bin     row after row, raw numbers, little-endian
           index.jsonl  {"key": "...", "row": 17, "crc32": 123, "rows": 32} per key; without `rows` it has one.
                        The last line of a key counts.

A key counts only once its line is there, and a line is written only when its rows are on the disk. So a killed process
leaves, at worst, rows without lines, half a row or half a line; `mend` removes them before the next row is written.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from drivedistill.problems import InputError, Problem
from drivedistill.records import write_text

DType = Literal["float32", "float16"]
Entry = tuple[int, int, int]
"""Number of a key's first row, how many follow each other, and the checksum of them all."""


@dataclass(frozen=True)
class RowStore:
    """The rows of a folder; cheap to hand to another process, which opens the files itself.

    Args:
        folder: Where `rows.bin` and `index.jsonl` lie.
        shape: Of every row.
        dtype: Of every number, or a record of named fields.
    """

    folder: Path
    shape: tuple[int, ...]
    dtype: DType | np.dtype[Any] = "float32"

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return prod(self.shape) * self._type.itemsize

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def read(self, key: str) -> NDArray[Any]:
        """A copy of a key's rows, `[n, *shape]`; they are checked when this process reads them for the first time.

        Raises:
            KeyError: There is none.
            InputError: They were damaged after they had been written.
        """
        row, count, checksum = self._entries[key]
        values = np.array(self._rows[row : row + count])
        if row not in self._checked:
            if zlib.crc32(values) != checksum:
                remedy = "repeat `drivedistill cache` with --verify, which computes damaged rows again"
                expected = f"row {row} as it was written"
                raise InputError(Problem(str(self._data), "", expected, "other bytes (damaged)", remedy))
            self._checked.add(row)
        return values

    def rows_of(self, key: str) -> int:
        """How many rows a key has.

        Raises:
            KeyError: It has none.
        """
        return self._entries[key][1]

    def append(self, records: Mapping[str, NDArray[Any]]) -> None:
        """Add rows `[n, *shape]` under keys of their own. The caller holds the folder's lock and has called `mend`."""
        row, entries, data = self._whole_rows, {}, bytearray()
        for key, values in records.items():
            assert values.shape[1:] == self.shape
            raw = np.ascontiguousarray(values, self._type).tobytes()
            entries[key] = (row, len(values), zlib.crc32(raw))
            row += len(values)
            data += raw
        for path, content in ((self._data, bytes(data)), (self._index, _lines(entries).encode())):
            with path.open("ab") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        self._entries.update(entries)
        self.__dict__.pop("_rows", None)  # the file has grown

    def mend(self, *, verify: bool = False) -> None:
        """Remove what a killed process left half-written. The caller holds the folder's lock.

        Args:
            verify: Read every row, and forget those that were damaged after they had been written.
        """
        entries = self._entries
        if verify:
            for key, (row, count, checksum) in list(entries.items()):
                if zlib.crc32(self._rows[row : row + count]) != checksum:
                    del entries[key]
        text = _lines(entries)
        if self._index.exists() and self._index.read_bytes() != text.encode():
            write_text(self._index, text)  # first the lines, then their rows: a line never points past the end
        used = max((row + count for row, count, _ in entries.values()), default=0) * self.row_bytes
        if self._data.exists() and self._data.stat().st_size > used:
            os.truncate(self._data, used)

    @cached_property
    def _entries(self) -> dict[str, Entry]:
        """By key, the rows that are whole."""
        if not self._index.exists():
            return {}
        whole = self._whole_rows
        entries: dict[str, Entry] = {}
        for line in self._index.read_bytes().split(b"\n")[:-1]:
            try:
                found = json.loads(line)
                key, row, checksum = str(found["key"]), int(found["row"]), int(found["crc32"])
                count = int(found.get("rows", 1))
            except (ValueError, TypeError, KeyError, AttributeError):
                continue  # half a line; its rows are written again
            if 0 <= row < row + count <= whole:
                entries[key] = (row, count, checksum)
        return entries

    @property
    def _whole_rows(self) -> int:
        return self._data.stat().st_size // self.row_bytes if self._data.exists() else 0

    @cached_property
    def _rows(self) -> NDArray[Any]:
        """`[rows, *shape]`, mapped into memory; only what is touched is read."""
        return np.memmap(self._data, self._type, "r", shape=(self._whole_rows, *self.shape))

    @cached_property
    def _checked(self) -> set[int]:
        return set()

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "shape": self.shape, "dtype": self.dtype}

    @property
    def _type(self) -> np.dtype[Any]:
        return np.dtype(self.dtype).newbyteorder("<")

    @property
    def _data(self) -> Path:
        return self.folder / "rows.bin"

    @property
    def _index(self) -> Path:
        return self.folder / "index.jsonl"


def _lines(entries: dict[str, Entry]) -> str:
    return "".join(
        json.dumps({"key": key, "row": row, "crc32": checksum} | ({} if count == 1 else {"rows": count})) + "\n"
        for key, (row, count, checksum) in entries.items()
    )
