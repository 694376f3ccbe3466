r"""Which layers, block and signal the curves speak for, capability by capability, as lessons of a recipe.

The rules know shapes and no names of capabilities, so they can be asked about any model; about the curves that Drive-KD
published of InternVL3-8B (whose layers count from 1) they say what Drive-KD chose.

1. *Flat*: similarity differs by less than `FLAT` between all layers but the last. What the questions of the capability share is
   everywhere, so every layer but the last is imitated, whole maps. (Published: reasoning, 1.00 to 0.98.)
2. *Late peak*: else, if in the deeper half similarity rises by `MARKED` to a local maximum and falls by as much behind it, the
   last such layer: the questions come together there, before the last layers turn to the form of the words. (Published:
   planning, 0.84 at layer 24 of 28, 0.885 at 27, 0.76 at 28: the penultimate.)
3. *Where fusion begins*: else, among the third of the layers whose incoming image and text tokens are least aligned, the
   one of highest similarity: there text begins to look at pictures, and does so in the same way for all questions. (Published:
   perception, 0.97 at layer 1 falling to 0.81; alignment 0.29 at 1, 0.78 at 28.)

One layer is imitated in its text-to-vision block, many in whole maps: no curve says so but Drive-KD's Table 3 (text-to-vision
ahead by 0.7 at the first and 1.5 points at the penultimate layer, whole maps ahead by 3.9 in the middle).

Signal: attention, if hidden states are `CLEARER` times as dispersed (published: 6 to 80 times); hidden states, if it is the
other way round. Words: the teacher's divergence is advised against where the mean margin of the two likeliest tokens is below
`DECISIVE` (published: 0.54 to 0.66 on driving, 0.65 to 0.78 on general questions; CE + KL was below CE in all three rows).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from drivedistill.drivekd_sections import Layers, Lesson
from drivedistill.evaluate.measure import ENOUGH_SCENES
from drivedistill.evaluate.rows import ALL
from drivedistill.study.curves import Curve, Curves

FLAT = 0.05
MARKED = 0.02
CLEARER = 3.0
DECISIVE = 0.65
FEW_LAYERS = 6
"""A curve of fewer points has no shape to speak of."""

_SETTINGS = ("signal", "block", "layers")
"""Fields of a lesson that are advised."""

Rule = Literal["flat", "late peak", "where fusion begins"]


@dataclass(frozen=True)
class Choice:
    """A lesson and why."""

    lesson: Lesson
    rule: Rule
    why: str
    doubts: list[str]
    """What the curves do not show; empty where they support the choice."""


@dataclass(frozen=True)
class Words:
    """Whether the teacher's words are worth imitating."""

    margin: float
    """Mean over the answer."""
    advised_against: bool


def advise(found: Curves) -> dict[str, Choice]:
    """What to imitate for every capability of which two questions were seen.

    Args:
        found: The curves.
    """
    lacking = {name for by_name in found.dispersion.values() for name, curve in by_name.items() if None in curve.values}
    known = {name: curve for name, curve in found.similarity.items() if name not in lacking}
    shapes = {name: choose_layers(numbers(curve), _alignments(found)) for name, curve in known.items()}
    alike = len(shapes) > 1 and len(set(shapes.values())) == 1
    return {name: _choice(found, name, *shapes[name], alike=alike) for name in known}


def words(found: Curves) -> Words:
    """About the divergence from the teacher's words."""
    margins = numbers(found.margin[ALL])
    mean = sum(margins) / len(margins)
    return Words(mean, mean < DECISIVE)


def choose_layers(similarity: Sequence[float], alignment: Sequence[float] | None) -> tuple[Rule, int | None]:
    """The rule that applies, and its layer (from 0); None for all but the last.

    Args:
        similarity: Of L layers.
        alignment: Of what enters each of them; None where layers see no image tokens.
    """
    depth = len(similarity)
    inner = similarity[:-1] or similarity
    if max(inner) - min(inner) < FLAT:
        return "flat", None if depth > 1 else 0
    for layer in range(depth - 2, depth // 2 - 1, -1):
        before, here, behind = similarity[:layer], similarity[layer], similarity[layer + 1 :]
        peak = here >= max(before[-1], behind[0])
        if peak and here - min(before) >= MARKED and here - min(behind) >= MARKED:
            return "late peak", layer
    candidates = list(range(depth - 1))
    if alignment is not None:
        candidates = sorted(sorted(candidates, key=lambda layer: alignment[layer])[: -(-len(candidates) // 3)])
    return "where fusion begins", max(candidates, key=lambda layer: similarity[layer])


def numbers(curve: Curve) -> list[float]:
    """The numbers of a curve that exist."""
    return [value for value in curve.values if value is not None]


def _alignments(found: Curves) -> list[float] | None:
    """Of what enters every layer."""
    return None if found.alignment is None else numbers(found.alignment)[:-1]


def named(layer: int | None, depth: int) -> Layers:
    """A layer as recipes write it, so that it means the same in a model of another depth as far as possible."""
    if layer is None:
        return "intermediate"
    if layer in (0, depth - 1, depth - 2):
        return "first" if layer == 0 else "last" if layer == depth - 1 else "penultimate"
    return [layer, layer] if layer < depth / 2 else [layer - depth, layer - depth]


def _choice(found: Curves, name: str, rule: Rule, layer: int | None, *, alike: bool) -> Choice:
    depth = found.layers
    chosen = list(range(depth - 1)) if layer is None else [layer]
    block: Literal["text_to_vision", "full"] = "full" if layer is None else "text_to_vision"
    spread = {signal: numbers(found.dispersion[signal][name]) for signal in ("hidden", block)}
    hidden, maps = (sum(values[other] for other in chosen) / len(chosen) for values in spread.values())
    signal: Literal["attention", "hidden"] = "hidden" if maps >= CLEARER * hidden and maps > 0 else "attention"
    layers = named(layer, depth)
    lesson = Lesson(block=block, layers=layers) if signal == "attention" else Lesson(signal="hidden", layers=layers)
    doubts = list(_doubts(found, name, rule, layer))
    if max(hidden, maps) < CLEARER * min(hidden, maps) or hidden == maps:
        doubts.append(f"neither signal is {CLEARER:g} times as steady as the other; attention as in Drive-KD")
    if alike:
        doubts.append("all capabilities have the same shape: the curves do not tell them apart")
    why = f"{_shape(found, name, rule, layer)}; dispersion {hidden:.3g} of hidden states, {maps:.3g} of maps"
    return Choice(lesson, rule, why, doubts)


def _shape(found: Curves, name: str, rule: Rule, layer: int | None) -> str:
    similarity = numbers(found.similarity[name])
    if layer is None or rule == "flat":
        inner = similarity[:-1] or similarity
        return f"similarity is flat, {min(inner):.3f} to {max(inner):.3f} before the last layer"
    if rule == "late peak":
        low, end = min(similarity[:layer]), min(similarity[layer + 1 :])
        return f"similarity rises from {low:.3f} to {similarity[layer]:.3f} at layer {layer}, then falls to {end:.3f}"
    aligned = _alignments(found)
    where = "" if aligned is None else f", where image and text come in with cosine {aligned[layer]:.2f}"
    return f"similarity has no late peak; it is {similarity[layer]:.3f} at layer {layer}{where}"


def _doubts(found: Curves, name: str, rule: Rule, layer: int | None) -> Iterator[str]:
    """What speaks against reading a shape out of the curve of a capability."""
    curve = found.similarity[name]
    similarity = numbers(curve)
    if found.layers < FEW_LAYERS:
        yield f"{found.layers} layers make no curve"
    if curve.scenes < ENOUGH_SCENES:
        yield f"{curve.scenes} scenes, fewer than {ENOUGH_SCENES}"
    if rule == "late peak" and layer is not None:
        before = min(range(layer), key=lambda other: similarity[other])
        behind = min(range(layer + 1, found.layers), key=lambda other: similarity[other])
        if not (_above(curve, layer, before) and _above(curve, layer, behind)):
            yield "the peak's interval is not clear of what is around it"
    if rule == "where fusion begins" and layer is not None:
        lowest = min(range(found.layers), key=lambda other: similarity[other])
        if not _above(curve, layer, lowest):
            yield "its interval is not clear of that of the layer of lowest similarity"
        if max(similarity[:-1]) - similarity[layer] >= MARKED:
            best = max(range(found.layers - 1), key=lambda other: similarity[other])
            yield f"layer {best} has a higher similarity ({similarity[best]:.3f}), but image and text are aligned there"
        if _alignments(found) is None:
            yield "the layers see no image tokens, so it is not known where fusion begins: the highest similarity decides"


def _above(curve: Curve, layer: int, other: int) -> bool:
    """Whether two intervals do not overlap."""
    low, high = curve.low[layer], curve.high[other]
    return low is not None and high is not None and low > high


# --- as a recipe and as JSON ------------------------------------------------------------------------------------------


def as_json(found: Curves, choices: dict[str, Choice], said: Words) -> dict[str, Any]:
    """The content of `study.json`, but for what was asked."""
    lessons = {
        name: choice.lesson.model_dump(mode="json", include=set(_SETTINGS))
        | {"rule": choice.rule, "why": choice.why, "doubts": choice.doubts}
        for name, choice in choices.items()
    }
    return asdict(found) | {"lessons": lessons, "words": asdict(said)}


def snippet(choices: dict[str, Choice], said: Words) -> str:
    """The advice as part of a recipe, YAML."""
    lines = ["distill:"]
    if said.advised_against:
        lines.append(f"  weight: 0  # of the teacher's words: their mean margin is {said.margin:.2f}")
    lines += ["  drivekd:", "    lessons:"]
    for name, choice in choices.items():
        lesson = choice.lesson
        settings = [key for key in _SETTINGS if key != "block" or lesson.signal == "attention"]  # states have no blocks
        text = ", ".join(f"{key}: {getattr(lesson, key)}" for key in settings)
        lines.append(f"      {name}: {{{text}}}{'  # in doubt' if choice.doubts else ''}")
    return "\n".join(lines) + "\n"
