"""The curves of the pre-study, with intervals over scenes, made of what `observe.py` kept.

    change       how much each layer changes its tokens, and how near image and text tokens are: panel (a)
    similarity   how alike the questions of a capability look in each layer: panel (b)
    dispersion   one minus that, of hidden states and of attention maps: panel (c)
    margin       how decided the words are along the answer: panel (d)

Legend: n questions, L layers (from 0, as in recipes), B bundles of scenes, R draws of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from drivedistill.evaluate.measure import Floats, Measure, draw_scenes, drawn_values, interval
from drivedistill.evaluate.rows import ALL
from drivedistill.study.observe import BINS, SIGNALS, Directions, Seen

CAPABILITIES = ("perception", "reasoning", "planning")


@dataclass(frozen=True)
class Curve:
    """Numbers by layer, state or part of the answer; None where there is none, and no interval for one scene."""

    values: list[float | None]
    low: list[float | None]
    high: list[float | None]
    questions: int
    scenes: int


@dataclass(frozen=True)
class Curves:
    """The whole study of one model."""

    layers: int
    """L."""
    change: Curve
    """L numbers: cosine of what enters and what leaves layer l."""
    alignment: Curve | None
    """L + 1 numbers: cosine of mean image and mean text token of what enters layer l, and of
    what leaves the last. None: the layers see no image tokens."""
    similarity: dict[str, Curve]
    """By capability L numbers: mean cosine of two questions' mean states behind layer l."""
    dispersion: dict[str, dict[str, Curve]]
    """By signal and capability L numbers: 1 - mean cosine of two questions."""
    margin: dict[str, Curve]
    """All questions, then by regime where there are two, then by capability: ten numbers along the answer."""


def curves(seen: Seen, seed: int = 0) -> Curves:
    """All curves.

    Args:
        seen: What was observed.
        seed: Of the drawn scenes.
    """
    every = list(range(len(seen.samples)))
    capabilities = [name for name in CAPABILITIES if any(sample.capability == name for sample in seen.samples)]
    dispersion = {
        signal: {name: _dispersion(seen, seen.directions[signal], name, seed) for name in capabilities}
        for signal in SIGNALS
    }
    similarity = {name: _turned(curve) for name, curve in dispersion["hidden"].items()}
    margin = {name: _margin(seen, members, seed) for name, members in _groups(seen)}
    aligned = None if seen.alignment is None else _mean(seen, seen.alignment, every, seed)
    change = _mean(seen, seen.change, every, seed)
    return Curves(seen.layers, change, aligned, similarity, dispersion, margin)


def _groups(seen: Seen) -> Iterator[tuple[str, list[int]]]:
    numbered = list(enumerate(seen.samples))
    yield ALL, [number for number, _ in numbered]
    regimes = sorted({sample.regime for sample in seen.samples}, reverse=True)
    for regime in regimes if len(regimes) > 1 else ():
        yield regime, [number for number, sample in numbered if sample.regime == regime]
    for name in CAPABILITIES:
        if members := [number for number, sample in numbered if sample.capability == name]:
            yield name, members


# --- means over questions ---------------------------------------------------------------------------------------------


def _mean(seen: Seen, values: Floats, members: Sequence[int], seed: int) -> Curve:
    return _ratios(seen, values[members], np.ones_like(values[members]), members, seed)


def _margin(seen: Seen, members: Sequence[int], seed: int) -> Curve:
    """Mean over the answers' tokens of each part."""
    sums = seen.margins[members]
    return _ratios(seen, sums[:, :BINS], sums[:, BINS:], members, seed)


def _ratios(seen: Seen, sums: Floats, counts: Floats, members: Sequence[int], seed: int) -> Curve:
    measure = Measure(np.hstack([sums, counts]), _halves, "", len(members))
    scenes = [seen.samples[number].scene for number in members]
    draws = draw_scenes(scenes, seed)
    drawn = np.empty((0, sums.shape[1])) if draws is None else drawn_values(measure, draws)
    return _curve(_halves(measure.statistics.sum(axis=0)), drawn, len(scenes), len(set(scenes)))


def _halves(sums: Floats) -> Floats:
    """First half over second, `[..., 2 k]` to `[..., k]`; nan where the second is 0."""
    above, below = np.split(sums, 2, axis=-1)
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below != 0)


def _curve(values: Floats, drawn: Floats, questions: int, scenes: int) -> Curve:
    bounds = [interval(column) if len(drawn) else (None, None) for column in drawn.T]
    numbers = [float(value) if np.isfinite(value) else None for value in values]
    return Curve(numbers, [low for low, _ in bounds], [high for _, high in bounds], questions, scenes)


# --- mean cosine of two questions -------------------------------------------------------------------------------------


def _dispersion(seen: Seen, directions: Directions, capability: str, seed: int) -> Curve:
    keys = sorted(key for key in directions.sums if key[0] == capability)
    members = [number for key in keys for number in directions.members[key]]
    scenes = len({seen.samples[number].scene for number in members})
    if len(members) < 2:
        nothing: list[float | None] = [None] * seen.layers
        return Curve(nothing, nothing, nothing, len(members), scenes)
    counts = np.array([len(directions.members[key]) for key in keys], dtype=float)
    sums = np.stack([directions.sums[key] for key in keys], axis=1)
    gram = np.matmul(sums, sums.transpose(0, 2, 1))
    value = 1 - mean_cosine(gram, counts, np.ones((1, len(keys))))[0]
    draws = draw_scenes([f"{bundle:03d}" for _, bundle in keys], seed)
    drawn = np.empty((0, seen.layers)) if draws is None else 1 - mean_cosine(gram, counts, draws.counts)
    return _curve(value, drawn, len(members), scenes)


def mean_cosine(gram: Floats, counts: Floats, drawn: Floats) -> Floats:
    """Mean cosine of two different questions, `float64[R, L]`; nan where a draw has fewer than two.

    A bundle that is drawn twice counts twice beside the others, yet a question is never paired with itself: that would raise
    every draw above the truth.

    Args:
        gram: `float64[L, B, B]`: products of the bundles' summed unit vectors.
        counts: `float64[B]`: their questions.
        drawn: `float64[R, B]`: how often each bundle counts.
    """
    own = np.diagonal(gram, axis1=1, axis2=2)
    apart = gram - own[:, :, None] * np.eye(len(counts))
    across = (np.matmul(drawn, apart) * drawn).sum(axis=-1).T
    within = drawn @ (own - counts).T
    pairs = (drawn @ counts) ** 2 - drawn**2 @ counts**2 + drawn @ (counts * (counts - 1))
    total = across + within
    return np.divide(total, pairs[:, None], out=np.full_like(total, np.nan), where=pairs[:, None] > 0)


def _turned(curve: Curve) -> Curve:
    """One minus a curve."""
    values, high, low = (
        [None if value is None else 1 - value for value in part] for part in (curve.values, curve.low, curve.high)
    )
    return Curve(values, low, high, curve.questions, curve.scenes)
