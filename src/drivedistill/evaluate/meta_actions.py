"""Planning as meta-actions: accuracy, F1 of every action, what the errors could cost, and the constant answer beside all.

Counted are answers with a reference action (`Prediction.meta_action`, `KEEP, STRAIGHT`). An answer that the strict parser
cannot read is wrong. On nuScenes "KEEP, STRAIGHT" alone has an accuracy of 72 %: no number here means anything without the
one of the constant answer. Suffixes: `_lenient` Senna's published rule, `_free` plain English, `_constant` always the
commonest reference of the set.

Source: Senna (arXiv 2410.22313), `eval_tools/senna_plan_cmd_eval_multi_img.py`. The costs and `missed_vru` are ours.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from drivedistill.data.meta_action import PATHS, SPEEDS, free_text, named, strict
from drivedistill.data.senna_rules import MetaAction, PathPlan, SpeedPlan
from drivedistill.evaluate.measure import Floats, Measure, mean_of
from drivedistill.problems import InputError, Problem
from drivedistill.records import Prediction

PUBLISHED = (*SPEEDS, "STRAIGHT", "RIGHT_TURN", "LEFT_TURN")
"""Actions of which the published script has an F1."""

SPEED_COST: Mapping[SpeedPlan, Mapping[SpeedPlan, float]] = {
    "STOP": {"STOP": 0.0, "DECELERATE": 0.3, "KEEP": 1.0, "ACCELERATE": 1.0},
    "DECELERATE": {"STOP": 0.2, "DECELERATE": 0.0, "KEEP": 0.7, "ACCELERATE": 1.0},
    "KEEP": {"STOP": 0.3, "DECELERATE": 0.1, "KEEP": 0.0, "ACCELERATE": 0.5},
    "ACCELERATE": {"STOP": 0.3, "DECELERATE": 0.2, "KEEP": 0.1, "ACCELERATE": 0.0},
}
"""Right speed -> said speed -> cost. Driving on where one must stand hits somebody: the worst, 1. Braking for nothing risks a
collision from behind and is mild."""

PATH_COST: Mapping[PathPlan, Mapping[PathPlan, float]] = {
    path: dict(zip(PATHS, costs, strict=True))
    for path, costs in zip(
        PATHS,
        (  # STRAIGHT, RIGHT_CHANGE, LEFT_CHANGE, RIGHT_TURN, LEFT_TURN
            (0.0, 0.5, 0.5, 0.8, 0.8),
            (0.3, 0.0, 1.0, 0.6, 1.0),
            (0.3, 1.0, 0.0, 1.0, 0.6),
            (0.6, 0.3, 0.8, 0.0, 1.0),
            (0.6, 0.8, 0.3, 1.0, 0.0),
        ),
        strict=True,
    )
}
"""Right path -> said path -> cost. The other side is the worst; leaving the lane where the road goes on is worse than missing
a change of lane, after which one is still in a lane."""

NO_ACTION_COST = 1.0
"""A planner that says nothing that can be read."""

_ROAD_USER_QUESTION = "Do you see any vulnerable road users"
_NAME = r"(?:pedestrian|person|people|child|bicycle|bike|cyclist|motorcycl|motorbike|rider|scooter|road user)"
_NAMES_ONE = re.compile(rf"\b{_NAME}")
_CLAUSE = re.compile(
    r"[.;!?\n]|\b(?:but|however|although|though|while|only)\b|\band (?=(?:there|i|we|one|two|some)\b)"
    # A road user that does something begins a clause: "the light is not green and a pedestrian crosses".
    rf"|(?:,|\band) (?=(?:an? |the )?{_NAME}\w* (?:is|are|was|were|waits?|walks?|stands?|rides?|cross\w*)\b)"
)
_DENIED = re.compile(
    r"\b(?:no|nope|not|none|nobody|nothing|never|neither|nor|without|cannot|\w+n't|(?:clear|free|empty|absence|lack) of)\b.*"
    r"|.*\b(?:(?:is|are|was|were) not|(?:is|are|was|were)n't) (?:visible|present|there|seen|detected)\b"
)
"""What a clause denies: all that follows a denial, and what is "not visible"."""


def danger(truth: MetaAction, answer: MetaAction | None) -> float:
    """What an answer could cost, 0 (right) to 1: the worse of speed and path; `NO_ACTION_COST` without an action."""
    if answer is None:
        return NO_ACTION_COST
    return max(SPEED_COST[truth.speed][answer.speed], PATH_COST[truth.path][answer.path])


def sees_road_user(answer: str) -> bool:
    """Whether an answer to Senna's question about vulnerable road users says that there is one.

    It begins with yes, or one of its clauses names one without denying it. Empty and irrelevant answers see nobody.
    """
    text = answer.casefold().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").strip()
    return text.startswith("yes") or any(_NAMES_ONE.search(_DENIED.sub("", clause)) for clause in _CLAUSE.split(text))


def truths(items: Iterable[Prediction]) -> list[MetaAction | None]:
    """The reference action of each answer, None where it has none.

    Raises:
        InputError: A reference that is no meta-action.
    """
    found = [(item, strict(item.meta_action) if item.meta_action is not None else None) for item in items]
    remedy = "write the reference as Senna does, or leave it out"
    bad = [
        Problem("predictions", f"{item.id}, meta_action", "SPEED, PATH", repr(item.meta_action), remedy)
        for item, action in found
        if action is None and item.meta_action is not None
    ]
    if bad:
        raise InputError(bad)
    return [action for _, action in found]


def commonest(actions: Iterable[MetaAction | None]) -> MetaAction | None:
    """The reference that occurs most often (of several the first in the alphabet); None without references."""
    counts = Counter(action for action in actions if action is not None)
    return min(counts, key=lambda action: (-counts[action], action)) if counts else None


def measures(items: Sequence[Prediction]) -> dict[str, Measure]:
    """The numbers of planning answers, and of answers about vulnerable road users, where there are any."""
    return {**_planning(items), **_road_users(items)}


def _planning(items: Sequence[Prediction]) -> dict[str, Measure]:
    right = truths(items)
    usual = commonest(right)
    if usual is None:
        return {}
    read = [strict(item.prediction.strip()) if truth else None for item, truth in zip(items, right, strict=True)]
    free = [free_text(item.prediction) if truth else None for item, truth in zip(items, right, strict=True)]
    words = [named(item.prediction) for item in items]
    always = f"always {str(usual)!r}"
    table: dict[str, tuple[Sequence[bool | float], str]] = {
        "meta_accuracy": ([a == b for a, b in zip(read, right, strict=True)], "strict parser, equality"),
        "meta_accuracy_free": ([a == b for a, b in zip(free, right, strict=True)], "plain English, equality"),
        "meta_accuracy_lenient": (
            [truth is not None and found >= {*truth} for found, truth in zip(words, right, strict=True)],
            "Senna's evaluation script: both words occur",
        ),
        "meta_accuracy_constant": ([usual == truth for truth in right], always),
        "meta_unparsable": ([a is None for a in read], "strict parser"),
        "meta_speed_accuracy": (
            [bool(a and b and a.speed == b.speed) for a, b in zip(read, right, strict=True)],
            "strict parser",
        ),
        "meta_path_accuracy": (
            [bool(a and b and a.path == b.path) for a, b in zip(read, right, strict=True)],
            "strict parser",
        ),
        "meta_danger": (
            [b is not None and danger(b, a) for a, b in zip(free, right, strict=True)],
            "our costs, plain English",
        ),
        "meta_danger_constant": (
            [truth is not None and danger(truth, usual) for truth in right],
            f"our costs, {always}",
        ),
    }
    found = {name: _mean(values, right, label) for name, (values, label) in table.items()}
    said = [frozenset[str](action or ()) for action in read]
    found |= _f1s(said, right, (*SPEEDS, *PATHS), "", "strict parser")
    found |= _f1s(words, right, PUBLISHED, "_lenient", "Senna's evaluation script")
    return found | _f1s([frozenset(usual)] * len(items), right, (*SPEEDS, *PATHS), "_constant", always)


def _mean(values: Sequence[bool | float], right: Sequence[MetaAction | None], label: str) -> Measure:
    return mean_of([float(value) if truth else None for value, truth in zip(values, right, strict=True)], label)


def _f1s(
    said: Sequence[frozenset[str]],
    right: Sequence[MetaAction | None],
    actions: Iterable[str],
    suffix: str,
    label: str,
) -> dict[str, Measure]:
    """F1 of every action that occurs; 0 for one that is never found, as in the published script.

    Its rule: an action that is said is a hit if the true speed (path) is said as well, else a false alarm; the true one is a
    miss if it is not said. Where one speed and one path are said, this is the usual F1; who says all has 1 everywhere.
    """
    found: dict[str, Measure] = {}
    for action in actions:
        outcomes = [_outcome(action, words, truth) for words, truth in zip(said, right, strict=True)]
        statistics = np.array(outcomes, dtype=np.float64)
        if statistics.any():
            count = sum(truth is not None for truth in right)
            found[f"meta_f1_{action.lower()}{suffix}"] = Measure(statistics, f1, f"F1, {label}", count)
    return found


def _outcome(action: str, words: frozenset[str], truth: MetaAction | None) -> tuple[bool, bool, bool]:
    """Whether one answer is a true positive, a false positive, a false negative of an action."""
    if truth is None:
        return False, False, False
    true: str = truth.speed if action in SPEEDS else truth.path
    is_said = action in words
    return is_said and true in words, is_said and true not in words, not is_said and action == true


def f1(sums: Floats) -> Floats:
    """2 TP / (2 TP + FP + FN) of sums `[..., 3]` (TP, FP, FN); nan where nothing is expected and nothing said."""
    hits, total = 2 * sums[..., 0], 2 * sums[..., 0] + sums[..., 1] + sums[..., 2]
    return np.divide(hits, total, out=np.full(total.shape, np.nan), where=total > 0)


def _road_users(items: Sequence[Prediction]) -> dict[str, Measure]:
    """Misses and false alarms of Senna's question about vulnerable road users."""
    asked = [item.reference is not None and _ROAD_USER_QUESTION in item.question for item in items]
    there = [is_asked and sees_road_user(item.truth) for item, is_asked in zip(items, asked, strict=True)]
    seen = [sees_road_user(item.prediction) for item in items]
    rows = list(zip(asked, there, seen, strict=True))
    missed = mean_of(
        [float(not said) if is_there else None for _, is_there, said in rows], "no road user seen where one is"
    )
    alarms = mean_of(
        [float(said) if is_asked and not is_there else None for is_asked, is_there, said in rows],
        "one seen where none is",
    )
    return {name: measure for name, measure in (("missed_vru", missed), ("false_vru", alarms)) if measure.n}
