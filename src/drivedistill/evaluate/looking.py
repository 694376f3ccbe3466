"""How much a model looks, and what bad pictures cost it: the same questions under several conditions, set side by side.

    looks     (score - blind) / (1 - blind): of what cannot be had without looking, the share that the model has.
              0 where the pictures change nothing, 1 where every answer is right; below 0 where they do harm.
    relative  score under a corruption over the clean score

`blind` is the score on black pictures, on none, on another scene's, or that of the text-only prior. Both numbers are made
of sums, so their intervals come from drawing the scenes anew, for all conditions the same ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from drivedistill.evaluate.captions.measures import Tokenizer
from drivedistill.evaluate.difference import difference
from drivedistill.evaluate.families import measures_of
from drivedistill.evaluate.measure import Draws, Floats, Measure, combined, draw_scenes, measure_interval
from drivedistill.evaluate.metric import METRICS
from drivedistill.evaluate.rows import QuestionSet, set_of
from drivedistill.records import CLEAN, Prediction

HEADLINES = ("meta_accuracy", "exact_match", "avg")
PRIOR = "text-only prior"


def looks(score: Measure, blind: Measure) -> Measure:
    """(score - blind) / (1 - blind), for scores whose best value is 1; nan where blindness is perfect."""

    def share(seen: Floats, unseen: Floats) -> Floats:
        room = 1 - unseen
        return np.divide(seen - unseen, room, out=np.full_like(room, np.nan), where=room > 0)

    return combined([score, blind], share, "(score - blind) / (1 - blind)")


def relative(score: Measure, clean: Measure) -> Measure:
    """Score over clean score; nan where the clean one is 0."""

    def quotient(worse: Floats, usual: Floats) -> Floats:
        return np.divide(worse, usual, out=np.full_like(usual, np.nan), where=usual > 0)

    return combined([score, clean], quotient, "score / clean score")


def side_by_side(
    answers: Mapping[str, Sequence[Prediction]], *, captions: bool = True, tokenizer: Tokenizer = "ptb", seed: int = 0
) -> list[dict[str, Any]]:
    """Scores of the same questions under several conditions.

    Args:
        answers: Condition (and `PRIOR`) -> answers to the same questions; `clean` must be there.
        captions: Also METEOR, BLEU-4 and ROUGE-L as `avg`; needs Java.
        tokenizer: See `captions.measures`.
        seed: Of the draws of scenes.

    Returns:
        One row per set, condition and headline metric: `value`, `low`, `high` in the papers' scale; unless it is the clean
        row also `verdict` and `minus_clean`, `relative` and, for controls and the prior, `looks`, each as [value, low, high].

    Raises:
        InputError: Scorers or Java are missing.
    """
    sets = _aligned(answers)
    measures = measures_of(sets, captions=captions, tokenizer=tokenizer)
    rows = []
    for (place, condition), items in sets.items():
        draws = draw_scenes([item.scene for item in items], seed)
        for name in HEADLINES:
            mine, clean = measures[place, condition].get(name), measures[place, CLEAN].get(name)
            if mine is not None and clean is not None and mine.n:
                rows.append(_row(place, condition, name, mine, clean, draws))
    return rows


def _aligned(answers: Mapping[str, Sequence[Prediction]]) -> dict[tuple[QuestionSet, str], list[Prediction]]:
    """Answers with a reference by set and condition, in the order of the clean ones."""
    sets: dict[tuple[QuestionSet, str], list[Prediction]] = {}
    for condition, items in answers.items():
        by_id = {item.id: item for item in items}
        for usual in answers[CLEAN]:
            if usual.reference is not None:
                sets.setdefault((set_of(usual), condition), []).append(by_id[usual.id])
    return sets


def _row(
    place: QuestionSet, condition: str, name: str, mine: Measure, clean: Measure, draws: Draws | None
) -> dict[str, Any]:
    factor, higher = METRICS[name].factor, METRICS[name].higher_is_better
    value, low, high = _with_interval(mine, draws)
    delta = difference([mine], [clean], draws, higher_is_better=higher)
    row: dict[str, Any] = {
        **place._asdict(),
        "condition": condition,
        "metric": name,
        "value": _scaled(value, factor),
        "low": _scaled(low, factor),
        "high": _scaled(high, factor),
        "n": mine.n,
        "scenes": delta.num_scenes,
    }
    if condition != CLEAN:
        row["minus_clean"] = [_scaled(number, factor) for number in (delta.mean, delta.low, delta.high)]
        row["verdict"] = delta.verdict
        row["relative"] = [_scaled(number) for number in _with_interval(relative(mine, clean), draws)]
        if METRICS[name].unit == "fraction" and ":" not in condition:
            row["looks"] = [_scaled(number) for number in _with_interval(looks(clean, mine), draws)]
    return row


def _with_interval(measure: Measure, draws: Draws | None) -> list[float | None]:
    return [measure.point, *measure_interval(measure, draws)]


def _scaled(number: float | None, factor: float = 1) -> float | None:
    """None for what does not exist."""
    return None if number is None or number != number else round(factor * number, 4)


def by_set(rows: Iterable[Mapping[str, Any]]) -> dict[QuestionSet, list[Mapping[str, Any]]]:
    """The rows of `side_by_side` by set of questions."""
    sets: dict[QuestionSet, list[Mapping[str, Any]]] = {}
    for row in rows:
        sets.setdefault(QuestionSet(row["regime"], row["dataset"], row["split"]), []).append(row)
    return sets


def reading(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One sentence per set about whether its model looks, from the headline metric and the hardest control."""
    sentences = []
    for place, here in by_set(rows).items():
        metric = here[0]["metric"]
        blind = [row for row in here if row["metric"] == metric and "looks" in row]
        if blind and not any(row["value"] for row in here if row["metric"] == metric):
            sentences.append(
                f"{place.dataset} {place.split}, {place.regime}: {METRICS[metric].label} is 0 whatever is shown"
            )
        elif blind:
            hardest = max(blind, key=lambda row: row["value"])
            sentences.append(f"{place.dataset} {place.split}, {place.regime}: {_judged(hardest, metric)}")
    return sentences


def _judged(row: Mapping[str, Any], metric: str) -> str:
    value, low, high = row["minus_clean"]
    found = f"{METRICS[metric].label} with pictures minus {row['condition']}: {0 - value:+.1f}"
    if low is None or high is None:
        return f"{found}; no interval, no verdict"
    found += f" [{0 - high:+.1f}, {0 - low:+.1f}]"
    if row["verdict"] == "too few scenes":
        return f"{found}; too few scenes ({row['scenes']}) for a verdict"
    if row["verdict"] == "better":
        return f"{found}; pictures do it harm"
    if row["verdict"] != "worse":
        return f"{found}; no sign that it looks"
    share, *bounds = row["looks"]
    known = "" if None in bounds else f" [{bounds[0]:.2f}, {bounds[1]:.2f}]"
    return f"{found}; it looks: {share:.2f}{known} of what only pictures tell"
