r"""How far a student's attention maps (or hidden states) are from a teacher's: Drive-KD's signals.

.. math::
    L^{tv} = \frac{\sum_{ij} M_{ij} (\bar A^S_{ij} - \bar A^T_{ij})^2}{\max(1, \sum_{ij} M_{ij})}, \qquad
    L^{full} = \frac1{T^2} \sum_{ij} (\bar A^S_{ij} - \tilde A^T_{ij})^2

M: text queries, image keys; the sum also counts pairs whose key comes later, which are zero in both maps (`causal` does not).
A sample's loss does not depend on the batch: what lies behind its last query and key is zero and not counted.

Legend: B samples, Q queries, K keys, S positions, d width; k student layers, m teacher layers.
Source: Drive-KD (arXiv 2601.21288), trainer.py 145-256 and 287-372 of its released code (commit 7589a0c7).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from drivedistill.batch import Map

Distance = Literal["mse", "cosine"]


def layer_range(layers: int, start: int, end: int) -> list[int]:
    """Indices from `start` to `end`, both inclusive; negative ones count from the end.

    Raises:
        ValueError: One of them is no layer, or the first comes after the last.
    """
    first, last = (index + layers if index < 0 else index for index in (start, end))
    for given, index in ((start, first), (end, last)):
        if not 0 <= index < layers:
            raise ValueError(f"layer {given} of a model with {layers} layers")
    if first > last:
        raise ValueError(
            f"layers from {start} to {end} of a model with {layers} layers: the first comes after the last"
        )
    return list(range(first, last + 1))


def layer_groups(student: list[int], teacher: list[int]) -> dict[int, list[int]]:
    """Which teacher layers each student layer follows: a window of g = max(1, m - k + 1) that slides by one.

    A student deeper than its teacher: the last ones all follow the teacher's last layer. After CompoDistill
    (arXiv 2510.12184).
    """
    window = max(1, len(teacher) - len(student) + 1)
    starts = {layer: min(i, len(teacher) - window) for i, layer in enumerate(student)}
    return {layer: teacher[start : start + window] for layer, start in starts.items()}


def map_loss(ours: Map, theirs: Tensor, distance: Distance = "mse", *, causal: bool = False) -> Tensor:
    """How far maps are apart, sample by sample.

    Args:
        ours: The student's maps, `float[B, Q, K]`.
        theirs: The teacher's, same shape; no gradient goes there.
        distance: `mse`: the mean over pairs; `cosine`: 1 - cos of every row, the mean over the rows in which the teacher
            looks somewhere (text that comes before all pictures looks at none).
        causal: Count only the pairs that a causal map can fill.

    Returns:
        `float[B]`; a sample without queries or keys has a loss of 0, with a gradient (of 0).
    """
    values, theirs = ours.values.float(), theirs.detach().float()
    if distance == "cosine":
        looks = theirs.norm(dim=2) > 0
        apart = (1 - functional.cosine_similarity(values, theirs, dim=2, eps=1e-12)) * looks
        return apart.sum(dim=1) / looks.sum(dim=1).clamp_min(1)
    return (values - theirs).square().sum(dim=(1, 2)) / pairs(ours, causal=causal).clamp_min(1)


def pairs(of: Map, *, causal: bool = False) -> Tensor:
    """How many pairs of a query and a key the maps of each sample have, `int64[B]`."""
    queries, keys = of.queries >= 0, of.keys >= 0
    if not causal:
        return queries.sum(dim=1) * keys.sum(dim=1)
    seen = (of.keys[:, None] <= of.queries[:, :, None]) & queries[:, :, None] & keys[:, None]
    return seen.sum(dim=(1, 2))


def hidden_loss(ours: Map, theirs: Tensor, distance: Distance = "mse") -> Tensor:
    """How far hidden states `float[B, S, d]` are apart, the mean over a sample's real tokens (and widths): `float[B]`."""
    values, theirs = ours.values.float(), theirs.detach().float()
    real = torch.zeros(values.shape[:2], device=values.device)
    counted = ours.queries >= 0
    real.scatter_add_(1, ours.queries.clamp_min(0), counted.to(real.dtype))
    if distance == "cosine":
        apart = 1 - functional.cosine_similarity(values, theirs, dim=2, eps=1e-12)
    else:
        apart = (values - theirs).square().mean(dim=2)
    return torch.where(real > 0, apart, 0.0).sum(dim=1) / counted.sum(dim=1).clamp_min(1)
