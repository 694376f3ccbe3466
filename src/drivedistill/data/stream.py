"""The order in which a run sees its samples: one endless stream of epochs, cut into windows, shared out to ranks.

A pure function of seed and position: a run resumes at any step by counting, and however a window is cut into micro-batches
and ranks, it holds the same samples. The last window of an epoch is filled from the next one, so no sample is dropped
and no window is short.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch.utils.data import Dataset, Sampler

from drivedistill.data.mixture import corner_draws, epoch_order, regime_ratio
from drivedistill.records import Sample


@dataclass(frozen=True)
class Stream:
    """Which samples belong to which window.

    Args:
        samples: The train split.
        seed: Of the order.
        corner_ratio: See `mixture.epoch_order`.
        batch_size: Samples per micro-batch.
        accumulate: Micro-batches per window and rank.
        ranks: Number of processes.
    """

    samples: Sequence[Sample]
    seed: int
    corner_ratio: float | None
    batch_size: int
    accumulate: int
    ranks: int

    @property
    def window_size(self) -> int:
        """Samples of one window over all ranks."""
        return self.batch_size * self.accumulate * self.ranks

    @cached_property
    def epoch_size(self) -> int:
        """Samples of one epoch; with a corner ratio not every sample, or some twice."""
        regular, corner = regime_ratio(self.samples)
        drawn = corner_draws(regular, corner, self.corner_ratio)
        return regular + drawn if drawn else regular + corner

    @property
    def windows_per_epoch(self) -> float:
        """Optimizer steps of one epoch, not rounded."""
        return self.epoch_size / self.window_size

    def indices(self, position: int) -> Iterator[int]:
        """Indices of the samples from a position of the stream on, without end."""
        epoch, offset = divmod(position, self.epoch_size)
        while True:
            yield from epoch_order(self.samples, self.seed, epoch, self.corner_ratio)[offset:]
            epoch, offset = epoch + 1, 0


class MicroBatches(Sampler[list[int]]):
    """One rank's micro-batches, from a window on: the batch sampler of its `DataLoader`."""

    def __init__(self, stream: Stream, start: int, rank: int) -> None:
        self.stream, self.start, self.rank = stream, start, rank

    def __iter__(self) -> Iterator[list[int]]:
        stream, size = self.stream, self.stream.batch_size
        indices = stream.indices(self.start * stream.window_size)
        while True:
            window = [next(indices) for _ in range(stream.window_size)]
            for micro in range(stream.accumulate):
                first = (micro * stream.ranks + self.rank) * size
                yield window[first : first + size]


class SampleList(Dataset[Sample]):
    """Samples as a torch data set."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]
