"""Two clocks with one face: the host's, and one that also knows when a GPU has really done what it was asked to do.

A GPU works behind the host's back. Waiting for it at every stage would slow it down, so a stage is marked by an event on
its stream, and the events are read after the answer. All times are seconds on the host's scale.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import torch


class Clock(Protocol):
    """What the stopwatches of this room ask."""

    def begin(self) -> float:
        """The time at which a question is asked, with nothing left to do on the device."""

    def finish(self) -> float:
        """The time at which the device has done everything."""

    def mark(self) -> Any:
        """A mark at this place of the work; `at` says when it was reached."""

    def at(self, mark: Any) -> float:
        """The time of a mark; only after `finish`."""

    def now(self) -> float:
        """The time on the host."""


class HostClock:
    """For a processor, which has finished when a call returns.

    Args:
        now: Seconds; another one in tests.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.now = now

    def begin(self) -> float:
        """See `Clock`."""
        return self.now()

    def finish(self) -> float:
        """See `Clock`."""
        return self.now()

    def mark(self) -> float:
        """See `Clock`."""
        return self.now()

    def at(self, mark: float) -> float:
        """See `Clock`."""
        return mark


class CudaClock:
    """For a GPU: marks are events on the current stream."""

    def __init__(self) -> None:
        self._anchor = (torch.cuda.Event(enable_timing=True), 0.0)

    def begin(self) -> float:
        """See `Clock`. Later marks are counted from here."""
        torch.cuda.synchronize()
        event = self.mark()
        event.synchronize()
        self._anchor = (event, time.perf_counter())
        return self._anchor[1]

    def finish(self) -> float:
        """See `Clock`."""
        torch.cuda.synchronize()
        return time.perf_counter()

    def mark(self) -> Any:
        """See `Clock`."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def at(self, mark: Any) -> float:
        """See `Clock`."""
        event, seconds = self._anchor
        return float(seconds + event.elapsed_time(mark) / 1000)

    def now(self) -> float:
        """See `Clock`."""
        return time.perf_counter()


def device_clock(device: torch.device) -> Clock:
    """The clock for a device."""
    return CudaClock() if device.type == "cuda" else HostClock()
