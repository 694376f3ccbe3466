"""From the sums of `observe.py` to numbers: how many experts, which ones, and whether corner cases use more of them.

A group is a part of the questions (a data set, a task, all). Every number is made of sums over tokens; its interval is that
of whole scenes drawn anew, and a random router's number is made of the same questions in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from drivedistill.distill.diagnostics import EFFECTIVE
from drivedistill.evaluate.measure import ENOUGH_SCENES, Draws, Floats, Measure, draw_scenes, drawn_values, interval
from drivedistill.evaluate.rows import ALL
from drivedistill.experts.observe import ACTIVE, CONTROLS, TOKENS, WEIGHTS, Cell, Layer, Use

REGIMES = ("regular", "corner")

READINGS = {
    "exp_entropy": "effective number: exponential of the entropy of a token's probabilities, mean over tokens",
    "above_uniform": "experts with more than 1/N of a token's probability, mean over tokens",
    "for_half": "fewest experts that hold 50 % of a token's probability, mean over tokens",
    "for_nine_tenths": "fewest experts that hold 90 % of a token's probability, mean over tokens",
    "active": "experts that ran, mean over tokens; varies with `top_p` alone",
    "of_mean": "effective number of the mean probabilities: how evenly the experts share the tokens",
}
"""How many experts are used: name -> definition."""

DEAD = 0.01
"""An expert is dead if its part of all use is less than this share of an even part, 1/E."""


class Group(NamedTuple):
    """A part of the questions; `all` for every data set or every task."""

    dataset: str
    task: str

    def holds(self, cell: Cell) -> bool:
        """Whether a question is in it."""
        return self.dataset in (ALL, cell.dataset) and self.task in (ALL, cell.task)

    def __str__(self) -> str:
        return " ".join(part for part in self if part != ALL) or ALL


class Value(NamedTuple):
    """A number with its interval; none for fewer than two scenes."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Part:
    """How the tokens of one kind in one group were treated by one layer, in one regime."""

    questions: int
    scenes: int
    tokens: int
    weights: list[Value]
    """Mean probability of every expert."""
    load: list[float]
    """See `load`."""
    dead: list[int]
    """Experts that are never or hardly used, counted from 0."""
    readings: dict[str, Value]


@dataclass(frozen=True)
class RegimeComparison:
    """One layer's treatment of one group."""

    layer: Layer
    group: Group
    parts: dict[str, Part]
    """By regime."""
    differences: dict[str, Value]
    """By reading, corner - regular; empty where one of the two has no questions."""
    controls: dict[str, dict[str, list[float]]]
    """By reading and name of the control: the same difference of D random routers."""


def compare_regimes(use: Use, seed: int = 0) -> list[RegimeComparison]:
    """Everything that `experts.json` holds, by layer, then by group, all questions first.

    Args:
        use: The sums.
        seed: Of the drawn scenes.
    """
    found = []
    draws = {group: _draws(use, group, seed) for group in _groups(use.cells)}
    for layer in use.layers:
        found += [_compare(use, layer, group, draws[group]) for group in draws]
    return found


def _groups(cells: Sequence[Cell]) -> Iterator[Group]:
    datasets, tasks = ([ALL, *dict.fromkeys(cell[part] for cell in cells)] for part in (0, 2))
    seen: set[tuple[Cell, ...]] = set()
    for group in [Group(ALL, ALL)] + [Group(dataset, task) for dataset in datasets for task in tasks]:
        held = tuple(cell for cell in cells if group.holds(cell))
        if held and held not in seen:  # with one data set, it is the same as all of them
            seen.add(held)
            yield group


def _members(use: Use, group: Group, regime: str | None = None) -> list[int]:
    return [
        number
        for number, sample in enumerate(use.samples)
        if group.holds(Cell(sample.dataset, sample.regime, sample.task)) and regime in (None, sample.regime)
    ]


def _draws(use: Use, group: Group, seed: int) -> Draws | None:
    # A scene that two data sets ask about (nuScenes in DriveLM and in Senna) is one scene: it is drawn as a whole.
    return draw_scenes([use.samples[number].scene for number in _members(use, group)], seed)


def _compare(use: Use, layer: Layer, group: Group, draws: Draws | None) -> RegimeComparison:
    members = _members(use, group)
    corner = np.array([use.samples[number].regime == "corner" for number in members])[:, None]
    sums = layer.sums[members]
    halves = np.concatenate([sums * ~corner, sums * corner], axis=1)
    values = _with_intervals(Measure(halves, partial(_numbers, experts=layer.experts), "", len(members)), draws)
    size = len(READINGS) + layer.experts
    parts = {}
    for place, regime in enumerate(REGIMES):
        chosen = _members(use, group, regime)
        total = layer.sums[chosen].sum(axis=0)
        if total[TOKENS]:
            scenes = len({use.samples[number].scene for number in chosen})
            parts[regime] = _part(layer, total, len(chosen), scenes, values[place * size : (place + 1) * size])
    if len(parts) < len(REGIMES):
        return RegimeComparison(layer, group, parts, {}, {})
    differences = dict(zip(READINGS, values[2 * size :], strict=True))
    return RegimeComparison(layer, group, parts, differences, _control_differences(use, layer, group))


def _numbers(sums: Floats, *, experts: int) -> Floats:
    """Sums of the regular and of the corner questions, `[..., 2 S]`: readings and weights of both, and the differences."""
    halves = np.split(sums, 2, axis=-1)
    regular, corner = (np.stack([reading(name, half, experts) for name in READINGS], axis=-1) for half in halves)
    of_regular, of_corner = (weights(half, experts) for half in halves)
    return np.concatenate([regular, of_regular, corner, of_corner, corner - regular], axis=-1)


def _with_intervals(measure: Measure, draws: Draws | None) -> list[Value]:
    """A measure of many numbers at once."""
    points = measure.value(measure.statistics.sum(axis=0))
    if draws is None:
        return [Value(float(point), None, None) for point in points]
    return [
        Value(float(point), *interval(column))
        for point, column in zip(points, drawn_values(measure, draws).T, strict=True)
    ]


def _part(layer: Layer, total: Floats, questions: int, scenes: int, values: list[Value]) -> Part:
    readings = dict(zip(READINGS, values[: len(READINGS)], strict=True))
    used = load(total, layer.experts, layer.router)
    unused = dead(total, layer.experts, layer.router)
    loads = [float(value) for value in used]
    return Part(questions, scenes, int(total[TOKENS]), values[len(READINGS) :], loads, unused, readings)


def _control_differences(use: Use, layer: Layer, group: Group) -> dict[str, dict[str, list[float]]]:
    found: dict[str, dict[str, list[float]]] = {name: {} for name in READINGS}
    for control in CONTROLS:
        regular, corner = (
            layer.controls[control][:, [group.holds(cell) and cell.regime == regime for cell in use.cells]].sum(axis=1)
            for regime in REGIMES
        )
        for name in READINGS:
            gap = reading(name, corner, layer.experts) - reading(name, regular, layer.experts)
            found[name][control] = [float(value) for value in gap]
    return found


# --- readings of the sums -------------------------------------------------------------------------------------------


def reading(name: str, sums: Floats, experts: int) -> Floats:
    """How many experts are used, `float[...]`, from sums `float[..., S]`; nan without tokens.

    Args:
        name: One of `READINGS`.
        sums: See `observe.py`.
        experts: E.
    """
    if name == "of_mean":
        mean = weights(sums, experts)
        return np.asarray(np.exp(-(mean * np.log(np.maximum(mean, 1e-300))).sum(axis=-1)))
    column = ACTIVE if name == "active" else TOKENS + 1 + EFFECTIVE.index(name)
    return _per_token(sums, slice(column, column + 1))[..., 0]


def weights(sums: Floats, experts: int) -> Floats:
    """Mean probability of every expert, `float[..., E]`, from sums `float[..., S]`."""
    return _per_token(sums, slice(WEIGHTS, WEIGHTS + experts))


def load(sums: Floats, experts: int, router: str) -> Floats:
    """How much every expert is used, `float[..., E]`.

    Of a sparse router the share of the tokens for which an expert ran; of a dense one, that runs all, its mean weight.
    """
    if router in ("dense", "sample"):
        return weights(sums, experts)
    return _per_token(sums, slice(WEIGHTS + experts, WEIGHTS + 2 * experts))


def dead(sums: Floats, experts: int, router: str) -> list[int]:
    """The experts that are never or hardly used (see `DEAD`), counted from 0; of sums `float[S]`."""
    used = load(sums, experts, router)
    return [int(expert) for expert in np.flatnonzero(used < DEAD * used.sum() / experts)]


def _per_token(sums: Floats, columns: slice) -> Floats:
    chosen, tokens = sums[..., columns], sums[..., TOKENS, None]
    return np.divide(chosen, tokens, out=np.full_like(chosen, np.nan), where=tokens != 0)


# --- in words and as JSON -------------------------------------------------------------------------------------------


def verdict(found: RegimeComparison, name: str = "exp_entropy") -> str:
    """What a difference shows: `more` or `fewer`, else why it shows nothing.

    `, random routers too` follows where the inputs alone may explain it.
    """
    if not found.differences:
        return "one regime only"
    if min(part.scenes for part in found.parts.values()) < ENOUGH_SCENES:
        return "too few scenes"
    value, low, high = found.differences[name]
    if low is None or high is None or low <= 0 <= high:
        return "no difference shown"
    sign = 1 if value > 0 else -1
    chance = max(sign * other for draws in found.controls[name].values() for other in draws)
    return ("more" if value > 0 else "fewer") + (", random routers too" if chance >= abs(value) else "")


def label(layer: Layer) -> str:
    """`adapter`, `encoder 0`: place and block."""
    block = re.search(r"\.(\d+)\.", layer.name)
    return f"{layer.place} {block[1]}" if block else layer.place


def as_json(model: str, use: Use, found: Sequence[RegimeComparison]) -> dict[str, Any]:
    """The content of `experts.json`."""
    return {
        "model": model,
        "questions": len(use.samples),
        "readings": READINGS,
        "comparisons": [_json(item) for item in found],
    }


def _json(found: RegimeComparison) -> dict[str, Any]:
    layer = found.layer
    return {
        "layer": layer.name,
        "place": layer.place,
        "tokens": layer.tokens,
        "router": layer.router,
        "experts": layer.experts,
        "distance": layer.distance,
        **found.group._asdict(),
        "regimes": {regime: _part_json(part) for regime, part in found.parts.items()},
        "differences": {
            name: value._asdict() | found.controls[name] | {"verdict": verdict(found, name)}
            for name, value in found.differences.items()
        },
    }


def _part_json(part: Part) -> dict[str, Any]:
    return {
        "questions": part.questions,
        "scenes": part.scenes,
        "tokens": part.tokens,
        "weights": [value._asdict() for value in part.weights],
        "load": part.load,
        "dead": part.dead,
        "readings": {name: value._asdict() for name, value in part.readings.items()},
    }
