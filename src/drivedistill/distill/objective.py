"""The objective: rows, signal and batch in, named terms out.

A term is a sum with a count; `train.py` divides it by the count of the whole optimizer window. Reduction `tokens`: the sum
runs over supervised rows. Reduction `samples`: it runs over samples, each one the mean over its rows; so a sample
counts the same whether its answer has two words or a hundred.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from drivedistill.batch import Batch, Rows, Signal
from drivedistill.distill.losses import DIVERGENCES, cross_entropy

Reduction = Literal["tokens", "samples"]
Role = Literal["anchor", "follower", "aux"]


@dataclass
class Term:
    """One named part of the loss: `weight * total / (count of the window)`."""

    name: str
    total: Tensor
    """A scalar: the sum over rows or samples, before any division."""
    weight: float
    role: Role
    by_regime: Tensor
    """`float64[2]`: the same sum over regular and over corner samples, without gradient."""


Objective = Callable[[Rows, Signal | None, Batch], list[Term]]


def count(batch: Batch, reduction: Reduction) -> int:
    """What this batch adds to the window's divisor; known before any forward."""
    return batch.num_tokens if reduction == "tokens" else batch.num_samples


def reduce_rows(values: Tensor, batch: Batch, reduction: Reduction) -> Tensor:
    """Per-row values `float[N]` to per-sample sums `float[B]`: sums over rows, or means over rows."""
    sums = values.new_zeros(batch.num_samples).index_add(0, batch.sample_of_row, values)
    if reduction == "tokens":
        return sums
    return sums / batch.tokens_per_sample().clamp_min(1)


def supervised(reduction: Reduction) -> Objective:
    """Plain supervised training: cross-entropy of the gold tokens."""

    def objective(rows: Rows, signal: Signal | None, batch: Batch) -> list[Term]:
        return [_term("ce", cross_entropy(rows.logits, batch.gold), 1.0, batch, reduction)]

    return objective


def soft_label(
    reduction: Reduction, *, loss: str, temperature: float, weight: float, supervised_weight: float, vocabulary: int
) -> Objective:
    """Plain soft-label distillation, the papers' `Dis.`: `supervised_weight * CE + weight * divergence`, constant.

    Args:
        reduction: What is counted.
        loss: A key of `losses.DIVERGENCES`.
        temperature: T.
        weight: alpha.
        supervised_weight: Weight of the cross-entropy.
        vocabulary: Number of real tokens. Families pad their heads to different widths (Qwen: 151,936 and 152,064);
            heads of different widths are compared on the real tokens only.
    """
    divergence = DIVERGENCES[loss]

    def objective(rows: Rows, signal: Signal | None, batch: Batch) -> list[Term]:
        if signal is None:
            raise ValueError("soft-label distillation needs a teacher's signal.")
        hard = cross_entropy(rows.logits, batch.gold)
        ours, theirs = rows.logits, signal.logits
        if ours.shape[1] != theirs.shape[1]:
            ours, theirs = ours[:, :vocabulary], theirs[:, :vocabulary]
        soft = divergence(ours, theirs, temperature)
        return [
            _term("ce", hard, supervised_weight, batch, reduction),
            _term(loss, soft, weight, batch, reduction),
        ]

    return objective


def _term(name: str, values: Tensor, weight: float, batch: Batch, reduction: Reduction) -> Term:
    per_sample = reduce_rows(values, batch, reduction)
    return Term(name, per_sample.sum(), weight, "anchor", regime_sums(per_sample.detach(), batch))


def regime_sums(per_sample: Tensor, batch: Batch) -> Tensor:
    """`float[B]` to `float64[2]`: the sum over regular and the sum over corner samples."""
    corner = torch.tensor([regime == "corner" for regime in batch.regimes], device=per_sample.device)
    return torch.stack([per_sample[~corner].sum(), per_sample[corner].sum()]).double()
