"""Right and in time: what an answer is worth to a car that does not wait for it.

    rsd  = [t <= threshold] x a            one answer: t its latency in ms, a = 1 if it is right    (CLKD, equation 8)
    rsdr = mean of rsd over all answers    the real-time success rate                               (CLKD, equation 9)

The threshold is inclusive. CLKD takes 80 ms and mentions 100 ms, the industry's budget from sensor to actuation; `curve`
has every threshold, and ends at the accuracy. A latency counts from the pictures on disk to the last token, decoding and
preprocessing of the pictures included (`drivedistill bench` measures it so). What is right says `evaluate/correct.py`.

Source: CLKD (Zhao and Fang, ICRA 2026), section III, equations 8 and 9, and section IV-B.3.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from drivedistill.evaluate.correct import by_rules, is_right
from drivedistill.evaluate.measure import Finding, Floats, Measure, mean_of
from drivedistill.records import Prediction

THRESHOLDS_MS = (80, 100)
PERCENTILES = (50, 90, 99)
CLIP = "clip"
"""Key of `extra` that names the clip to which an answer's frame belongs."""


def rsd(t_ms: ArrayLike, correct: ArrayLike, threshold: float) -> Floats:
    """Equation 8 for n answers: 1.0 where an answer is right and not later than the threshold, else 0.0.

    Args:
        t_ms: Latencies in milliseconds, n.
        correct: Whether each answer is right, n.
        threshold: In milliseconds, inclusive.

    Raises:
        ValueError: The two are not equally many.
    """
    times, right = np.asarray(t_ms, dtype=np.float64), np.asarray(correct, dtype=bool)
    if times.shape != right.shape:
        raise ValueError(f"{times.shape} latencies for {right.shape} answers")
    return ((times <= threshold) & right).astype(np.float64)


def rsdr(t_ms: ArrayLike, correct: ArrayLike, threshold: float) -> float:
    """Equation 9: the share of answers that are right and in time; arguments as for `rsd`, at least one answer."""
    return float(rsd(t_ms, correct, threshold).mean())


def curve(t_ms: ArrayLike, correct: ArrayLike, thresholds: ArrayLike) -> Floats:
    """The RSDR at every threshold: it never falls, and beyond the slowest answer it is the accuracy."""
    return np.array([rsdr(t_ms, correct, threshold) for threshold in np.asarray(thresholds, dtype=np.float64)])


def percentile(t_ms: ArrayLike, percent: float) -> float:
    """The smallest latency that `percent` of the answers do not exceed: a latency that was measured, not interpolated."""
    return float(np.percentile(np.asarray(t_ms, dtype=np.float64), percent, method="inverted_cdf"))


# --- families of `score` and `compare` -------------------------------------------------------------------------------


def measures(items: Sequence[Prediction]) -> dict[str, Measure]:
    """RSDR and the share of answers in time, over the answers that have a latency; per clip where there are clips."""
    timed = [item.latency_ms is not None for item in items]
    if not any(timed):
        return {}
    by_rule = by_rules(item for item, has in zip(items, timed, strict=True) if has)
    right = [has and is_right(item) for item, has in zip(items, timed, strict=True)]
    found: dict[str, Measure] = {}
    for threshold in THRESHOLDS_MS:
        intime = [has and _latency(item) <= threshold for item, has in zip(items, timed, strict=True)]
        success = [a and b for a, b in zip(right, intime, strict=True)]
        label = f"CLKD equation 9, t <= {threshold} ms, {by_rule}"
        found[f"rsdr_{threshold}"] = _share(success, timed, label)
        found[f"in_time_{threshold}"] = _share(intime, timed, f"t <= {threshold} ms")
        whole, counts = _by_clip(items, success, timed)
        if any(counts):
            found[f"rsdr_{threshold}_clip"] = _share(whole, counts, f"{label}; clips all of whose answers are")
    return found


def findings(items: Sequence[Prediction]) -> dict[str, Finding]:
    """Percentiles of the latency, and how many answers lack one where others have it."""
    times = [item.latency_ms for item in items if item.latency_ms is not None]
    if not times:
        return {}
    found = {
        f"latency_p{percent}": Finding(percentile(times, percent), len(times), "nearest rank, question by question")
        for percent in PERCENTILES
    }
    if missing := len(items) - len(times):
        found["without_latency"] = Finding(missing, len(items), "count")
    return found


def _latency(item: Prediction) -> float:
    assert item.latency_ms is not None
    return item.latency_ms


def _share(yes: Sequence[bool], counts: Sequence[bool], implementation: str) -> Measure:
    values = [float(value) if count else None for value, count in zip(yes, counts, strict=True)]
    return mean_of(values, implementation)


def _by_clip(
    items: Sequence[Prediction], success: Sequence[bool], timed: Sequence[bool]
) -> tuple[list[bool], list[bool]]:
    """Whether all answers of a clip succeed, and whether it counts, noted at the clip's first answer.

    A clip with an answer that has no latency does not count: nobody knows whether it would have been in time.
    """
    clips: dict[tuple[str, str], list[int]] = {}
    for i, item in enumerate(items):
        if CLIP in item.extra:
            clips.setdefault((item.scene, str(item.extra[CLIP])), []).append(i)
    whole, counts = [False] * len(items), [False] * len(items)
    for members in clips.values():
        whole[members[0]] = all(success[i] for i in members)
        counts[members[0]] = all(timed[i] for i in members)
    return whole, counts
