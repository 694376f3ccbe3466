"""`quickstart.json`: what a folder was made with, what is done, and how long it took."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from drivedistill.data.paths import load_json
from drivedistill.problems import InputError, Problem
from drivedistill.records import write_json
from drivedistill.yaml_tree import flat

NAME = "quickstart.json"
LIBRARIES = ("drivedistill", "torch", "transformers", "numpy")


class Record:
    """What `quickstart.json` says; written anew after every change.

    Args:
        folder: Of the quickstart.

    Raises:
        InputError: The file is no JSON object.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        known = load_json(self._path, "the notes of a quickstart") if self._path.is_file() else {}
        self.settings: dict[str, Any] = known.get("settings", {})
        self.seconds: dict[str, float] = known.get("seconds", {})
        """Of every stage, over all calls."""
        self.processor_seconds: dict[str, float] = known.get("processor_seconds", {})
        """Likewise, what the cores worked for it: on a busy machine the fairer number."""
        self.made_from: dict[str, str] = known.get("made_from", {})
        """Result -> digest of what it was made from."""
        self.data_hash: str = known.get("data_hash", "")

    def require(self, settings: dict[str, Any]) -> None:
        """Refuse a folder that was made in another way.

        Raises:
            InputError: With every setting that differs.
        """
        before, now = flat(self.settings), flat(settings)
        remedy = "choose another --out, or replace it with --overwrite"
        problems = [
            Problem(str(self._path), name, f"{before.get(name)!r} as when it began", repr(now.get(name)), remedy)
            for name in sorted(before.keys() | now.keys())
            if self.settings and before.get(name) != now.get(name)
        ]
        if problems:
            raise InputError(problems)
        self.settings = settings

    def require_data(self, data_hash: str) -> None:
        """Note which data were used; refuse others.

        Raises:
            InputError: What is there was made from other data.
        """
        if self.data_hash and self.data_hash != data_hash:
            remedy = "replace all with --overwrite, or choose another --out"
            raise InputError(Problem(str(self._path), "data_hash", self.data_hash, f"data of {data_hash}", remedy))
        self.data_hash = data_hash

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Count the seconds of a stage, also of one that fails."""
        started, worked = time.monotonic(), sum(os.times()[:4])
        try:
            yield
        finally:
            for counted, now, before in (
                (self.seconds, time.monotonic(), started),
                (self.processor_seconds, sum(os.times()[:4]), worked),
            ):
                counted[stage] = round(counted.get(stage, 0.0) + now - before, 1)
            self.write()

    def write(self) -> None:
        """Write the file."""
        versions = {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}
        notes = {"settings": self.settings, "versions": versions, "data_hash": self.data_hash}
        times = {"seconds": self.seconds, "processor_seconds": self.processor_seconds}
        write_json(self._path, {**notes, **times, "made_from": self.made_from})
