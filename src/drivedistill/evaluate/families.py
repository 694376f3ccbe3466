"""Every family of numbers that needs nothing but the answers themselves: what `score` prints and `compare` compares.

A new family is one file with a function from answers to measures, and one line in `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from drivedistill.evaluate import calibration, capabilities, meta_actions, realtime
from drivedistill.evaluate.captions.measures import Key, Tokenizer, caption_measures
from drivedistill.evaluate.correct import words
from drivedistill.evaluate.measure import Finding, Measure, mean_of
from drivedistill.records import Prediction


def exact_match(items: Sequence[Prediction]) -> dict[str, Measure]:
    """Equality of the texts, and of their case-folded words."""
    exact = [float(item.prediction == item.reference) for item in items]
    folded = [float(words(item.prediction) == words(item.truth)) for item in items]
    return {
        "exact_match": mean_of(exact, "equality"),
        "exact_match_stripped": mean_of(folded, "equality of case-folded words"),
    }


FAMILIES: tuple[Callable[[Sequence[Prediction]], Mapping[str, Measure]], ...] = (
    exact_match,
    capabilities.measures,
    meta_actions.measures,
    realtime.measures,
    calibration.measures,
)
"""Answers with references, all of one place -> measures over all of them, by names of `METRICS`.

A measure has a row of statistics for every answer; answers that do not count have zeros. No answer that counts: no
measure."""

FINDINGS: tuple[Callable[[Sequence[Prediction]], Mapping[str, Finding]], ...] = (
    realtime.findings,
    calibration.findings,
)
"""As `FAMILIES`, for numbers that are no function of sums (percentiles, areas): `score` prints them, without intervals."""


def answer_measures(items: Sequence[Prediction]) -> dict[str, Measure]:
    """The measures of every family."""
    return {name: measure for family in FAMILIES for name, measure in family(items).items()}


def answer_findings(items: Sequence[Prediction]) -> dict[str, Finding]:
    """The findings of every family."""
    return {name: finding for family in FINDINGS for name, finding in family(items).items()}


def measures_of(
    answers: Mapping[Key, Sequence[Prediction]],
    *,
    captions: bool = True,
    meteor: bool = True,
    tokenizer: Tokenizer = "ptb",
) -> dict[Key, dict[str, Measure]]:
    """Every measure of several lists of answers, all of them with references; Java starts once.

    Args:
        answers: Lists of answers, none of them empty.
        captions: False leaves the caption metrics out, and Java with them.
        meteor: See `captions.measures`.
        tokenizer: Likewise.

    Raises:
        ValueError: A list is empty, or an answer has no reference.
        InputError: The scorers or Java are missing.
        RunError: Java failed.
    """
    pairs = {key: [(item.truth, item.prediction) for item in items] for key, items in answers.items()}
    written = caption_measures(pairs, meteor=meteor, tokenizer=tokenizer) if captions and pairs else {}
    return {key: {**written.get(key, {}), **answer_measures(items)} for key, items in answers.items()}
