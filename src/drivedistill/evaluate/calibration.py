"""Does the model know when it is wrong: the confidence of an answer against whether it is right.

    confidence           mean probability that the model gave the tokens it wrote; recorded by `predict`, greedy only
    calibration error    sum over ten bins of n_b / n * |accuracy_b - confidence_b|        (ECE, arXiv 1706.04599, equation 3)
    Brier score          mean (confidence - right)^2
    AUROC                how often a right answer is more confident than a wrong one; equally confident ones count half
    AURC                 mean over k = 1..n of the share of wrong answers among the k most confident   (arXiv 1805.08206)

A mean over tokens is no probability that the answer is right: a long answer has many sure words and one that decides.
So a calibration error says how far the raw number can be trusted; AUROC and accuracy at a coverage ask only for the order.
What is right says `correct.py`. Answers of equal confidence share their places evenly, so no order of the file matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivedistill.evaluate.correct import by_rules, is_right
from drivedistill.evaluate.measure import Finding, Floats, Measure, mean_of
from drivedistill.evaluate.rows import place_of
from drivedistill.records import Prediction

BINS = 10
COVERAGES = (90, 80, 50)
"""Percent of the answers that are given; the least confident ones are refused."""

_EDGES = np.arange(1, BINS) / BINS


def measures(items: Sequence[Prediction]) -> dict[str, Measure]:
    """Mean confidence and Brier score of the answers that have a confidence."""
    if not any(item.confidence is not None for item in items):
        return {}
    brier = [None if item.confidence is None else (item.confidence - is_right(item)) ** 2 for item in items]
    return {
        "confidence": mean_of([item.confidence for item in items], "mean token probability, mean over answers"),
        "brier": mean_of(brier, _label(items)),
    }


def findings(items: Sequence[Prediction]) -> dict[str, Finding]:
    """Calibration error, accuracy at three coverages, AUROC and AURC of the answers that have a confidence.

    The calibration error is a sum of absolute values: drawing anew adds noise to each of them and so raises the sum. The
    interval of a calibrated model would never hold its 0, and the one with fewer answers would look worse: it gets none.
    """
    sure, right = _known(items)
    if not len(sure):
        return {}
    label = _label(items)
    accuracy = accuracy_of_most_confident(sure, right)
    found = {
        f"accuracy_at_{percent}": Finding(float(accuracy[kept - 1]), kept, f"{len(sure) - kept} refused, {label}")
        for percent in COVERAGES
        for kept in [answered(len(sure), percent)]
    }
    error = calibration_error(sure, right)
    found["calibration_error"] = Finding(error, len(sure), f"{BINS} bins of equal width, {label}")
    found["aurc"] = Finding(float((1 - accuracy).mean()), len(sure), label)
    if 0 < right.sum() < len(right):
        found["auroc"] = Finding(auroc(sure, right), len(sure), f"equal ones count half, {label}")
    return found


def bin_of(confidence: Floats) -> NDArray[np.int64]:
    """The bin of each confidence, counted from 0; a bin holds its upper edge, the first also 0."""
    return np.digitize(confidence, _EDGES, right=True)


def calibration_error(confidence: Floats, right: Floats) -> float:
    """Sum over the bins of abs(sum of confidence - right), over n; biased upwards where bins hold few answers.

    Args:
        confidence: n >= 1.
        right: 1.0 for right, 0.0 for wrong, n.
    """
    gaps = np.bincount(bin_of(confidence), weights=confidence - right)
    return float(np.abs(gaps).sum() / len(confidence))


def answered(n: int, percent: int) -> int:
    """How many of n answers are given at a coverage: at least so many percent, at least one."""
    return max(1, -(-n * percent // 100))


def accuracy_of_most_confident(confidence: Floats, right: Floats) -> Floats:
    """The share of right answers among the k most confident, k = 1..n, `float64[n]`.

    Args:
        confidence: n.
        right: 1.0 for right, 0.0 for wrong, n.
    """
    _, level, counts = np.unique(-confidence, return_inverse=True, return_counts=True)
    ends = np.concatenate([[0], counts.cumsum()])
    gained = np.concatenate([[0.0], np.bincount(level, weights=right).cumsum()])
    kept = np.arange(1, len(confidence) + 1)
    return np.interp(kept, ends, gained) / kept


def auroc(confidence: Floats, right: Floats) -> float:
    """Probability that a right answer is more confident than a wrong one, ties half; there must be some of both."""
    _, level = np.unique(confidence, return_inverse=True)
    hits, misses = (np.bincount(level, weights=part, minlength=level.max() + 1) for part in (right, 1 - right))
    below = misses.cumsum() - misses
    return float((hits * (below + misses / 2)).sum() / (hits.sum() * misses.sum()))


def _known(items: Sequence[Prediction]) -> tuple[Floats, Floats]:
    """Confidence, and 1.0 for right or 0.0 for wrong, of the answers that have a confidence."""
    known = [item for item in items if item.confidence is not None]
    sure = np.array([item.confidence for item in known], dtype=np.float64)
    return sure, np.array([is_right(item) for item in known], dtype=np.float64)


def _label(items: Sequence[Prediction]) -> str:
    return by_rules(item for item in items if item.confidence is not None)


# --- curves ---------------------------------------------------------------------------------------------------------


def curves(predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    """For every place with confidences: the bins of the reliability diagram, and accuracy by coverage in steps of 5 %."""
    places: dict[Any, list[Prediction]] = {}
    for item in predictions:
        if item.reference is not None and item.confidence is not None:
            places.setdefault(place_of(item), []).append(item)
    return [{**place._asdict(), "right": _label(items), **_curve(*_known(items))} for place, items in places.items()]


def _curve(sure: Floats, right: Floats) -> dict[str, Any]:
    accuracy, level = accuracy_of_most_confident(sure, right), bin_of(sure)
    ordered = np.sort(sure)[::-1]
    bins = []
    for number in range(BINS):
        inside = level == number
        row: dict[str, float | None] = {"low": number / BINS, "high": (number + 1) / BINS, "n": int(inside.sum())}
        for name, values in (("confidence", sure[inside]), ("accuracy", right[inside])):
            row[name] = float(values.mean()) if len(values) else None
        bins.append(row)
    kept = [(percent, answered(len(sure), percent)) for percent in range(5, 101, 5)]
    return {
        "n": len(sure),
        "accuracy": float(right.mean()),
        "bins": bins,
        "coverage": [
            {"percent": percent, "n": k, "least_confidence": float(ordered[k - 1]), "accuracy": float(accuracy[k - 1])}
            for percent, k in kept
        ],
    }
