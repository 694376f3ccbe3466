"""Short and long answers of a batch are decoded apart, so that two words do not pay for a paragraph's padding.

One answer of 160 tokens among 127 of three makes every other position of the decoder padding. Which answers go together
changes no result: padding comes last and is masked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields

import torch
from torch import Tensor

from drivedistill.models.mixture import Decision, Mixture

WORTH = 0.8
"""A cut that leaves more than this share of the positions is not made; every call has a price of its own."""

Decode = Callable[[Tensor, int], Tensor]
"""Samples `int64[B']` and a length T' -> the decoder's output `float[B', T', d]`."""


def decode_apart(decode: Decode, lengths: Tensor, longest: int, layers: Iterable[Mixture]) -> Tensor:
    """The decoder's output for all samples, `float[B, T, d]`, zeros behind an answer's group.

    Args:
        decode: Runs the decoder on some samples.
        lengths: Tokens of every answer, `int64[B]`.
        longest: T.
        layers: Layers of experts; those that record remember the decisions of all groups, as for one call.
    """
    groups = by_length(lengths)
    if len(groups) == 1:
        return decode(torch.arange(len(lengths), device=lengths.device), longest)
    recording = [layer for layer in layers if layer.recording]
    for layer in recording:
        layer.last = None
    shape = (len(lengths), longest)
    hidden: Tensor | None = None
    kept: dict[Mixture, Decision] = {}
    for group in groups:
        length = int(lengths[group].max())
        hidden = _put(hidden, decode(group, length), group, length, shape)
        for layer in recording:
            if layer.last is not None:
                kept[layer] = _joined(kept.get(layer), layer.last, group, length, shape)
                layer.last = None
    for layer, decision in kept.items():
        layer.last = decision
    assert hidden is not None
    return hidden


def by_length(lengths: Tensor) -> list[Tensor]:
    """Samples in one group or two, the short answers first, so that the fewest positions are decoded.

    >>> [group.tolist() for group in by_length(torch.tensor([3, 90, 2, 4]))]
    [[2, 0, 3], [1]]
    """
    ordered, order = lengths.sort(stable=True)
    count = torch.arange(1, len(lengths), device=lengths.device)
    if not len(count):
        return [order]
    positions = count * ordered[:-1] + (len(lengths) - count) * ordered[-1]
    best = int(positions.argmin())
    if positions[best] > WORTH * len(lengths) * ordered[-1]:
        return [torch.arange(len(lengths), device=lengths.device)]
    return [order[: best + 1], order[best + 1 :]]


def _joined(whole: Decision | None, part: Decision, group: Tensor, length: int, shape: tuple[int, int]) -> Decision:
    values = {}
    for field in fields(Decision):
        before = None if whole is None else getattr(whole, field.name)
        values[field.name] = _put(before, getattr(part, field.name), group, length, shape)
    return Decision(**values)


def _put(whole: Tensor | None, part: Tensor, group: Tensor, length: int, shape: tuple[int, int]) -> Tensor:
    """`whole` (zeros `[B, T, ...]` if there is none) with the part `[B', T', ...]` of a group in its place."""
    if whole is None:
        whole = part.new_zeros(*shape, *part.shape[2:])
    padded = part.new_zeros(len(group), shape[1], *part.shape[2:])
    padded[:, :length] = part
    return whole.index_copy(0, group, padded)
