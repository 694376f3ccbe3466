"""What the world gave us: published data sets in, `Sample`s and `Batch`es out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from drivedistill.data import clips, coda_lm, drivelm, messages, samples, senna
from drivedistill.records import Regime, Sample


class Reader(Protocol):
    """Reads one of a format's files below `root`; raises one `InputError` with all problems after the last sample."""

    def __call__(self, root: Path, file: str, *, regime: Regime) -> Iterator[Sample]:
        """Yield the samples; materialise them with `list()` to see every problem."""
        ...


READERS: dict[str, Reader] = {
    "drivelm": drivelm.read,
    "coda_lm": coda_lm.read,
    "senna": senna.read,
    "clips": clips.read,
    "messages": messages.read,
    "jsonl": samples.read,
}
"""Format -> reader. A new data set is one file beside these, one row here and one fixture in the tests."""
