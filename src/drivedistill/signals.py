"""SIGINT and SIGTERM: finish the step, save, then leave."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any


def leave_group(worker: int) -> None:
    """For loading processes: a signal to the run's process group reaches the run alone, and the run stops them."""
    os.setpgrp()


class Interrupted(Exception):
    """A command was asked to stop and has saved; exit code 128 + the signal's number.

    Args:
        number: The signal.
        saved: What was saved, and how to go on.
    """

    def __init__(self, number: int, saved: str = "after saving a checkpoint; go on with --resume") -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} {saved}")
        self.number = number


class Signals:
    """`with Signals() as signals:` remembers the first signal in `signals.number` (0: none); a second one acts at once."""

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        signal.signal(number, self._before[number])
