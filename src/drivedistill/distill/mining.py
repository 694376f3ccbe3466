r"""H2G: the hardest samples of a pool and, inside them, the hardest tokens. Pure functions of detached losses.

.. math:: S_m = \{x_i : L(x_i) \text{ in the top } m\%\}, \qquad
          t_n(x_i) = \{t_j : L(x_i, t_j) \text{ in the top } n\% \text{ of } x_i\}

L(x_i, t_j) is the cross-entropy of a supervised token, L(x_i) its mean over the sample's tokens. Loss_H2G is the mean over
all selected tokens (reduction `tokens`), or over selected samples of each one's mean (`samples`), weighed by the root of
its number of selected tokens (`sqrt`). Of T things the top p % are `max(1, ceil(p T / 100))`; the lower position wins a
tie. Padding has no row, so it can never be selected.
Source: CLKD (Zhao and Fang, ICRA 2026), equations 3-5. OHEM (arXiv 1604.03540) ranks samples the same way.

Legend: B samples of a micro-batch, N supervised rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from drivedistill.batch import Batch

Reduction = Literal["tokens", "samples", "sqrt"]
POWERS: dict[Reduction, float] = {"tokens": 1.0, "sqrt": 0.5, "samples": 0.0}
"""A sample of T tokens counts T to this power, shared equally by its tokens."""


@dataclass
class Selection:
    """The rows that learn. `(weights * losses).sum()` is a micro-batch's share of the term, before division."""

    rows: Tensor
    """`bool[N]`"""
    weights: Tensor
    """`float[N]`, 0 outside of `rows`."""


def everything(batch: Batch, reduction: Reduction) -> Selection:
    """All rows: a sample counts as many as it has tokens (`tokens`), the root of that (`sqrt`), or 1 (`samples`)."""
    rows = torch.ones_like(batch.sample_of_row, dtype=torch.bool)
    return Selection(rows, _row_weights(batch.tokens_per_sample(), batch, reduction))


def counts(tokens: Tensor, reduction: Reduction) -> Tensor:
    """What samples of so many tokens (`int64[B]`) count, `float64[B]`; the window's divisor is the sum of these.

    >>> [counts(torch.tensor([1, 4, 9]), reduction).tolist() for reduction in ("tokens", "samples", "sqrt")]
    [[1.0, 4.0, 9.0], [1.0, 1.0, 1.0], [1.0, 2.0, 3.0]]
    """
    return tokens.double() ** POWERS[reduction]


def _row_weights(tokens: Tensor, batch: Batch, reduction: Reduction) -> Tensor:
    """Each row's share of what its sample counts, `float[N]`, if the sample has so many tokens, `int64[B]`."""
    return (tokens.clamp_min(1).float() ** (POWERS[reduction] - 1))[batch.sample_of_row]


def sample_hardness(losses: Tensor, batch: Batch, allowed: Tensor) -> Tensor:
    """Mean of each sample's allowed losses, `float[B]`; minus infinity for samples without an allowed token.

    Args:
        losses: `float[N]`
        batch: Says which sample a row belongs to.
        allowed: `bool[N]`: tokens that may be mined.
    """
    sums = losses.new_zeros(batch.num_samples).index_add(0, batch.sample_of_row, losses * allowed)
    counts = losses.new_zeros(batch.num_samples).index_add(0, batch.sample_of_row, allowed.to(losses.dtype))
    return torch.where(counts > 0, sums / counts.clamp_min(1), -torch.inf)


def hardest_samples(hardness: Tensor, percent: float, groups: Tensor | None = None) -> Tensor:
    """The top `percent` of the samples that have an allowed token, `bool[B]`.

    Args:
        hardness: `float[B]`, minus infinity for samples that cannot be chosen.
        percent: m.
        groups: `int64[B]`: samples are ranked among their own group first, so that no kind of question is hard as such.
    """
    candidates = hardness > -torch.inf
    number = top(percent, candidates.sum())
    order = hardness.argsort(descending=True, stable=True)
    if groups is not None:
        standing = standing_in_group(hardness, groups, hardness[candidates], groups[candidates])
        order = order[standing[order].argsort(descending=True, stable=True)]
        order = order[candidates[order].logical_not().to(torch.int8).argsort(stable=True)]
    rank = torch.empty_like(order).scatter(0, order, torch.arange(len(order), device=order.device))
    return (rank < number) & candidates


def standing_in_group(
    values: Tensor, groups: Tensor, among: Tensor | None = None, theirs: Tensor | None = None
) -> Tensor:
    """Mid-rank of each value within its group, `float[X]` in (0, 1): 0.5 for the median and for one who is alone.

    Args:
        values: `float[X]`
        groups: `int64[X]`
        among: `float[Y]`: compare with these values (default: with `values` themselves).
        theirs: `int64[Y]`: the groups of `among`.
    """
    among = values if among is None else among
    theirs = groups if theirs is None else theirs
    same = groups[:, None] == theirs[None]
    below = ((among[None] < values[:, None]) & same).sum(dim=1)
    equal = ((among[None] == values[:, None]) & same).sum(dim=1)
    return (below + equal / 2) / same.sum(dim=1).clamp_min(1)


def hardest_tokens(losses: Tensor, batch: Batch, percent: float, allowed: Tensor) -> Tensor:
    """In every sample, the top `percent` of its allowed tokens, `bool[N]`.

    Args:
        losses: `float[N]`
        batch: Says which sample a row belongs to.
        percent: n.
        allowed: `bool[N]`: tokens that may be mined.
    """
    number = top(percent, mineable_tokens(batch, allowed))
    order = torch.where(allowed, losses, -torch.inf).argsort(descending=True, stable=True)
    order = order[batch.sample_of_row[order].argsort(stable=True)]  # by sample, the hardest token first
    starts = batch.tokens_per_sample().cumsum(0) - batch.tokens_per_sample()
    sample = batch.sample_of_row[order]
    chosen = torch.arange(len(order), device=order.device) - starts[sample] < number[sample]
    return torch.zeros_like(allowed).scatter(0, order, chosen)


def mineable_tokens(batch: Batch, allowed: Tensor) -> Tensor:
    """Number of allowed tokens of every sample, `int64[B]`."""
    return torch.zeros_like(batch.tokens_per_sample()).index_add(0, batch.sample_of_row, allowed.long())


def top(percent: float, number: Tensor) -> Tensor:
    """How many of `number` things (`int64[...]`) the top `percent` are: at least one, of none none."""
    share = (number.double() * percent / 100 - 1e-9).ceil().long()
    return torch.minimum(share.clamp_min(1), number)


def pool_size(mined: Tensor, batch: Batch, reduction: Reduction) -> Tensor:
    """What a micro-batch counts and what its mined tokens count, `float64[2]`; sums of these describe larger pools.

    Args:
        mined: `int64[B]`: the selected tokens of every sample.
        batch: The micro-batch.
        reduction: A key of `POWERS`.
    """
    parts = (batch.tokens_per_sample(), mined[mined > 0])
    return torch.stack([counts(part, reduction).sum() for part in parts]).cpu()


def weigh(rows: Tensor, batch: Batch, reduction: Reduction, pool: Tensor) -> Selection:
    """Selected rows with weights that make the term the mean over what its pool selected, times the pool's size.

    So a pool weighs what its samples weigh in the window, however few of them were selected, and with m = n = 100 every
    weight is that of `everything`.

    Args:
        rows: `bool[N]`
        batch: The micro-batch.
        reduction: A key of `POWERS`.
        pool: `pool_size` of the whole pool.
    """
    everyone, mined = pool.tolist()
    scale = everyone / max(mined, 1.0)
    return Selection(rows, rows * scale * _row_weights(mineable_tokens(batch, rows), batch, reduction))
