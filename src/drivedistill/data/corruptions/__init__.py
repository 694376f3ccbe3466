"""DriveBench's fifteen corruptions, made anew from its description, seeded, at any picture size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from drivedistill.data.images import Change
from drivedistill.records import Sample


class Corruption(NamedTuple):
    """One row of `CORRUPTIONS`."""

    group: str
    """weather, external, sensor, motion or transmission"""
    severities: tuple[int, ...]
    drivebench: int
    """The severity that DriveBench uses."""
    published: str
    """Its folder in the published data."""


CORRUPTIONS: dict[str, Corruption] = {}


def corruption(name: str, severity: int, samples: Sequence[Sample], seed: int) -> Change:
    """A corruption of the pictures of these samples."""
    raise NotImplementedError(name, severity, len(samples), seed)
