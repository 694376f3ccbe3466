"""The order in which a run sees its samples: one endless stream of epochs, cut into windows, shared out to ranks.

A pure function of seed and position: a run resumes at any step by counting, and however a window is cut into micro-batches
and ranks, it holds the same samples. The last window of an epoch is filled from the next one, so no sample is dropped
and no window is short.

With `similar_length` the size of a micro-batch also decides which samples share a window, since batches of answers of similar
length are made first. Ranks, resuming and whole epochs are as before.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch.utils.data import Dataset, Sampler

from drivedistill.data.collate import Reading, views
from drivedistill.data.mixture import corner_draws, epoch_order, regime_ratio
from drivedistill.records import Sample

LETTERS_OF_A_VIEW = 200
"""To a model a picture is as much work as a text of about so many letters; it only orders samples."""

POOL = 50
"""Micro-batches among whose samples answers of similar length are sought: more pad less, fewer mix better."""


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
        similar_length: Micro-batches hold answers of similar length, see `by_length`.
        lengths: By sample, what similar length goes by; None: letters of the answer.
    """

    samples: Sequence[Sample]
    seed: int
    corner_ratio: float | None
    batch_size: int
    accumulate: int
    ranks: int
    similar_length: bool = False
    lengths: Sequence[int] | None = None

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
            yield from self._epoch(epoch)[offset:]
            epoch, offset = epoch + 1, 0

    @cached_property
    def _lengths(self) -> list[int]:
        """Letters of every answer; tokens would tell little more and need a tokenizer."""
        return list(self.lengths) if self.lengths is not None else [len(s.answer or "") for s in self.samples]

    def _epoch(self, epoch: int) -> list[int]:
        order = epoch_order(self.samples, self.seed, epoch, self.corner_ratio)
        if not self.similar_length:
            return order
        begun = -epoch * self.epoch_size % self.batch_size  # the last micro-batch of the epoch before takes so many
        return order[:begun] + by_length(order[begun:], self._lengths, self.batch_size, f"{self.seed} {epoch}")


def shown_lengths(samples: Sequence[Sample], reading: Reading) -> list[int]:
    """Lengths of samples that come with different numbers of pictures: letters of the answer, and those of its pictures."""
    return [len(s.answer or "") + LETTERS_OF_A_VIEW * sum(1 for _ in views(s, reading)) for s in samples]


def by_length(order: Sequence[int], lengths: Sequence[int], batch_size: int, seed: str) -> list[int]:
    """The same indices in an order whose batches hold samples of similar length.

    Among `POOL` batches at a time the indices are sorted by length, cut into batches, and the batches are shuffled. What is
    left over for a last, short batch stays where it is.

    Args:
        order: Indices, shuffled.
        lengths: By index.
        batch_size: Of every batch.
        seed: Of the order of the batches.
    """
    shuffled, found = random.Random(f"length {seed}"), list[int]()
    whole = len(order) - len(order) % batch_size
    for start in range(0, whole, POOL * batch_size):
        pool = sorted(order[start : min(whole, start + POOL * batch_size)], key=lengths.__getitem__)
        batches = [pool[first : first + batch_size] for first in range(0, len(pool), batch_size)]
        shuffled.shuffle(batches)
        found += [index for batch in batches for index in batch]
    return found + list(order[whole:])


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
