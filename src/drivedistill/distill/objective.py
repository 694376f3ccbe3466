"""The objective: rows, signal and batch in, named terms out.

A term is a sum with a count; `train.py` divides it by the count of the whole optimizer window. Reduction `tokens`: the sum
runs over supervised rows. Reduction `samples`: it runs over samples, each one the mean over its rows; so a sample
counts the same whether its answer has two words or a hundred.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

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


class Objective(Protocol):
    """Rows, signal and batch in; terms out."""

    @property
    def needs(self) -> frozenset[str]:
        """What the teacher must provide; empty when none is asked."""

    def __call__(self, rows: Rows, signal: Signal | None, batch: Batch) -> list[Term]:
        """The terms of one micro-batch."""


def count(batch: Batch, reduction: Reduction) -> int:
    """What this batch adds to the window's divisor; known before any forward."""
    return batch.num_tokens if reduction == "tokens" else batch.num_samples


def reduce_rows(values: Tensor, batch: Batch, reduction: Reduction) -> Tensor:
    """Per-row values `float[N]` to per-sample sums `float[B]`: sums over rows, or means over rows."""
    sums = values.new_zeros(batch.num_samples).index_add(0, batch.sample_of_row, values)
    if reduction == "tokens":
        return sums
    return sums / batch.tokens_per_sample().clamp_min(1)


@dataclass(frozen=True)
class Supervised:
    """Plain supervised training: cross-entropy of the gold tokens."""

    reduction: Reduction
    needs: frozenset[str] = frozenset()

    def __call__(self, rows: Rows, signal: Signal | None, batch: Batch) -> list[Term]:
        """One term, `ce`."""
        return [_term("ce", cross_entropy(rows.logits, batch.gold), 1.0, batch, self.reduction)]


@dataclass(frozen=True)
class SoftLabel:
    """Plain soft-label distillation, the papers' `Dis.`: `supervised_weight * CE + weight * divergence`, constant."""

    reduction: Reduction
    vocabulary: int
    """Number of real tokens. Families pad their heads to different widths (Qwen: 151,936 and 152,064); heads of
    different widths are compared on the real tokens only."""
    loss: str = "forward_kl"
    """A key of `losses.DIVERGENCES`."""
    temperature: float = 1.0
    weight: float = 1.0
    """alpha"""
    supervised_weight: float = 1.0
    needs: frozenset[str] = frozenset({"logits"})

    def __call__(self, rows: Rows, signal: Signal | None, batch: Batch) -> list[Term]:
        """Two terms: `ce`, and the divergence under its name."""
        if signal is None:
            raise ValueError("soft-label distillation needs a teacher's signal.")
        hard = cross_entropy(rows.logits, batch.gold)
        ours, theirs = rows.logits, signal.logits
        if ours.shape[1] != theirs.shape[1]:
            ours, theirs = ours[:, : self.vocabulary], theirs[:, : self.vocabulary]
        soft = DIVERGENCES[self.loss](ours, theirs, self.temperature)
        return [
            _term("ce", hard, self.supervised_weight, batch, self.reduction),
            _term(self.loss, soft, self.weight, batch, self.reduction),
        ]


def _term(name: str, values: Tensor, weight: float, batch: Batch, reduction: Reduction) -> Term:
    per_sample = reduce_rows(values, batch, reduction)
    return Term(name, per_sample.sum(), weight, "anchor", regime_sums(per_sample.detach(), batch))


def regime_sums(per_sample: Tensor, batch: Batch) -> Tensor:
    """`float[B]` to `float64[2]`: the sum over regular and the sum over corner samples."""
    corner = torch.tensor([regime == "corner" for regime in batch.regimes], device=per_sample.device)
    return torch.stack([per_sample[~corner].sum(), per_sample[corner].sum()]).double()
