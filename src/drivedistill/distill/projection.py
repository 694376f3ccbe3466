r"""How the gradients of several tasks become one: asymmetric gradient projection (AGP), and its rivals.

An anchor (the supervised loss) and followers (one per capability). AGP has two stages:

.. math:: \bar g_c = g_{sup} + \text{Proj}(g_c \mid g_{sup}), \qquad
          \tilde g_c = \text{Proj}(\dots \text{Proj}(\bar g_c \mid \bar g_{c'}) \dots), \qquad g = \sum_c \tilde g_c

with Proj(f | a) = f if <f, a> >= 0, else f - <f, a> / <a, a> a. The anchor is never altered by a follower (stage 1); merged
vectors are projected off each other in one random order, always off the others' stage-1 vectors (stage 2, as in PCGrad).

Everything here is linear in the gradients, with coefficients that depend on inner products alone. So it runs in
Gram space: a vector is a row of T = 1 + C coefficients, <u, v> = u^T G v with the Gram matrix G of the gradients, and what
comes out are the coefficients of g = sum_i w_i g_i. Gradients of a billion numbers are read once to make G and once to add up.

Source: Drive-KD (arXiv 2601.21288) and its released code, intern/trainer.py 1241-1394.
Legend: T tasks, row 0 the anchor, rows 1..C the followers. A task whose gradient is zero is absent.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from functools import reduce
from typing import Any, Literal

import torch
from torch import Tensor

from drivedistill.drivekd_sections import Projection
from drivedistill.problems import InputError, Problem

STAGES: dict[str, tuple[int, ...]] = {"agp": (1, 2), "stage1": (1,), "stage2": (2,)}
"""Kinds of projection that are AGP or a part of it."""

CAGRAD_RADIUS = 0.4
"""c of CAGrad, as its paper has it for dense prediction (arXiv 2110.14048, section 5)."""


def agp(
    gram: Tensor,
    order: Sequence[int],
    *,
    stages: Collection[int] = (1, 2),
    supervised: Literal["each", "once"] = "each",
) -> Tensor:
    """The coefficients `float64[T]` of AGP's total.

    Args:
        gram: `float64[T, T]`, inner products of the weighted gradients; row 0 is the anchor.
        order: A permutation of the followers' rows: stage 2 goes through it outside and inside.
        stages: (1, 2), (1,): no projection between capabilities, or (2,): vectors g_sup + g_c are merged as they are.
        supervised: Every one of the C present capabilities brings the anchor (released code), or a C-th of it. `once` is
            `each` with followers C times as long, divided by C.

    >>> sup, perception, reasoning, planning = (1.0, 0.0), (-1.0, 1.0), (-1.0, -2.0), (1.0, 1.0)
    >>> vectors = torch.tensor([sup, perception, reasoning, planning], dtype=torch.float64)
    >>> [round(value, 6) for value in (agp(vectors @ vectors.T, [1, 2, 3]) @ vectors).tolist()]
    [4.7, 0.1]
    """
    unit = torch.eye(len(gram), dtype=gram.dtype)
    present = [row for row in order if gram[row, row] > 0]
    if not present:
        return unit[0]
    share = 1.0 if supervised == "each" else 1 / len(present)

    def project(vector: Tensor, onto: Tensor) -> Tensor:
        against = gram @ onto
        inner, square = vector @ against, onto @ against
        return vector - inner / square * onto if inner < 0 < square else vector

    merged = {row: share * unit[0] + (project(unit[row], unit[0]) if 1 in stages else unit[row]) for row in present}
    if 2 not in stages:
        return torch.stack([*merged.values()]).sum(dim=0)
    others = {row: [merged[other] for other in present if other != row] for row in present}
    return torch.stack([reduce(project, others[row], merged[row]) for row in present]).sum(dim=0)


def coefficients(gram: Tensor, spec: Projection, draw: random.Random) -> Tensor:
    """The coefficients `float64[T]` of the total, by any kind of projection.

    Where nothing conflicts every kind but `cagrad` gives the plain sum (AGP with `supervised: each`: with C anchors).

    Args:
        gram: `float64[T, T]`, on the CPU; row 0 is the anchor.
        spec: The recipe's section.
        draw: Decides the order of the followers.

    Returns:
        NaN everywhere if any inner product is not finite, so that nobody takes such a gradient for an absent one.
    """
    if not gram.isfinite().all():
        return torch.full_like(gram[0], torch.nan)
    if spec.kind == "sum":
        return torch.ones_like(gram[0])
    if spec.kind in STAGES:
        order = draw.sample(range(1, len(gram)), len(gram) - 1)
        return agp(gram, order, stages=STAGES[spec.kind], supervised=spec.supervised)
    return _rival(gram, spec.kind, draw)


def _rival(gram: Tensor, kind: str, draw: random.Random) -> Tensor:
    """A method of torchjd on the tasks that are present, in the scale of a sum.

    Two of them divide by the number of tasks, which differs from sample to sample. Both take small gradients for none at all
    (`norm_eps`), so the matrix is scaled first; none of the three depends on its scale otherwise.
    """
    weights = torch.zeros_like(gram[0])
    rows = gram.diagonal().nonzero()[:, 0]
    if len(rows) < 2:
        weights[rows] = 1.0
        return weights
    chosen = gram[rows][:, rows]
    with torch.random.fork_rng(devices=[]):  # PCGrad draws its orders from the CPU's generator
        torch.default_generator.manual_seed(draw.getrandbits(48))
        found = _weighting(kind)(chosen / chosen.trace())
    weights[rows] = found if kind == "pcgrad" else found * len(rows)
    return weights


def _weighting(kind: str) -> Callable[[Tensor], Any]:
    from torchjd.aggregation import CAGradWeighting, PCGradWeighting, UPGradWeighting

    if kind == "cagrad":
        return CAGradWeighting(CAGRAD_RADIUS)
    return PCGradWeighting() if kind == "pcgrad" else UPGradWeighting()


def require_solver(spec: Projection) -> None:
    """Look for what a kind of projection needs, before anything is trained.

    Raises:
        InputError: A package is missing.
    """
    if spec.kind == "sum" or spec.kind in STAGES:
        return
    try:
        _weighting(spec.kind)
    except ImportError as error:
        remedy = 'pip install "drivedistill[rivals]", or choose another kind'
        found = str(error).partition("\n")[0]
        problem = Problem("recipe", "distill.drivekd.projection.kind", f"what {spec.kind} needs", found, remedy)
        raise InputError(problem) from error
