"""DriveLM's challenge: accuracy, match, judge, language and the final score, by the rules of `challenge/evaluation.py`.

Every question carries tags: 0 accuracy (exact equality), 1 judge, 2 language, 3 match. The first question of a frame
asks for its important objects. The answered points that lie near true ones become the frame's graph, and later
questions about points outside the graph are skipped: a model that finds nothing is asked only about the scene.

The rules are kept even where they surprise (the camera name of a point is ignored; a distance is |dx| + |dy|).
Deviations: odd numbers of coordinates never crash; an empty list scores None, never a division by zero;
`letter_correct` is a second, more tolerant accuracy of ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from drivedistill.data.drivelm_challenge import ACCURACY, JUDGE, MATCH, options
from drivedistill.evaluate.measure import Floats, Measure, combined
from drivedistill.records import Prediction

MATCH_RADIUS_PX = 16.0
"""A predicted point is right if its L1 distance to a true one is strictly less; pixels of a 1600 x 900 picture."""

RULES = "DriveLM challenge rules"

Point = tuple[float, float]

_DECIMAL = re.compile(r"\d+\.\d+")
_LEADING_LETTER = re.compile(r"\W*([A-H])\W*$|\W*([A-H])[.):](?:\s|$)")
_NAMED_LETTER = re.compile(
    r"(?i:answer|option|choice)\s*(?:is|:)?\s*(?:option\s*)?[\"'(\[*]*([A-H])(?=\s*$|[.,:;)\]\"'*])"
)


@dataclass(frozen=True)
class Match:
    """True points found by an answer, and the F1 of that answer (0 to just under 1: the 1e-8 of the original)."""

    found: tuple[Point, ...]
    f1: float


@dataclass(frozen=True)
class Graph:
    """What the challenge asks after the first answers: the predictions it scores and those it skips."""

    kept: list[Prediction]
    skipped: list[Prediction]
    headless: int
    """Frames without the question numbered 0; their first present question stood in, which is not the official rule."""


@dataclass(frozen=True)
class ChallengeScores:
    """The challenge's components. None where no kept question has the tag, or where a judge would be needed."""

    accuracy: float | None
    """0 to 1."""
    judge: float | None
    """Mean rating of tag 1, 0 to 100."""
    language: float | None
    """(mean of BLEU-1..4 + ROUGE-L + CIDEr / 10) / 3, 0 to 1."""
    match_f1: float | None
    """Mean F1, 0 to 100."""
    match: float | None
    """Mean of `match_f1` and the mean rating of tag 3, 0 to 100. Without a judge: `match_f1` alone."""
    final: float | None
    """0 to 1; None where a component is."""


def points(text: str) -> list[Point]:
    """Points named in a text: all decimal numbers in pairs; an odd last one is dropped. Pixels.

    >>> points("<c1,CAM_BACK,1088.3,497.5> at 12.0")
    [(1088.3, 497.5)]
    """
    numbers = [float(number) for number in _DECIMAL.findall(text)]
    return list(zip(numbers[0::2], numbers[1::2], strict=False))


def match_points(answer: str, reference: str) -> Match:
    """Match the points of an answer to those of the reference, each true point at most once.

    Predicted points are taken in order; each takes the nearest remaining true point (L1, the first of equals)
    if that is less than 16 px away. F1 = 2PR / (P + R + 1e-8), with 1e-8 in the denominators of P and R too.

    Source: DriveLM `challenge/evaluation.py`, `match_result`.
    """
    predicted, remaining = points(answer), points(reference)
    num_true = len(remaining)
    found: list[Point] = []
    for x, y in predicted:
        distances = [abs(x - true_x) + abs(y - true_y) for true_x, true_y in remaining]
        nearest = min(range(len(remaining)), key=distances.__getitem__, default=None)
        if nearest is not None and distances[nearest] < MATCH_RADIUS_PX:
            found.append(remaining.pop(nearest))
    precision = len(found) / (len(predicted) + 1e-8)
    recall = len(found) / (num_true + 1e-8)
    return Match(tuple(found), 2 * precision * recall / (precision + recall + 1e-8))


def graph_filter(predictions: Sequence[Prediction]) -> Graph:
    """Divide predictions into those that the challenge scores and those that it skips.

    The first question of each frame (by the number at the end of its id; else as listed) is always kept and sets the
    graph. A later one is kept if every point of its question was found in the first answer, so it is kept without any.

    Source: DriveLM `challenge/evaluation.py`, `set_graph` and `eval_graph`.

    Raises:
        ValueError: A prediction has no reference.
    """
    frames: dict[tuple[str, str, str], list[Prediction]] = {}
    for prediction in predictions:
        frames.setdefault((prediction.dataset, prediction.scene, prediction.frame), []).append(prediction)
    kept: list[Prediction] = []
    skipped: list[Prediction] = []
    headless = 0
    for frame in frames.values():
        numbers = [_number(prediction.id) for prediction in frame]
        if all(number is not None for number in numbers):
            frame = [frame[index] for index in sorted(range(len(frame)), key=lambda index: numbers[index] or 0)]
            headless += 0 not in numbers
        graph = set(match_points(frame[0].prediction, frame[0].truth).found)
        for index, prediction in enumerate(frame):
            in_graph = index == 0 or graph.issuperset(points(prediction.question))
            (kept if in_graph else skipped).append(prediction)
    return Graph(kept, skipped, headless)


def extract_letter(answer: str, question: str = "") -> str | None:
    """The option that an answer chooses, however it is worded; None where it names none, or several.

    Understood: `A`, `a.`, `(A)`, `A. Going ahead.`, `The correct answer is A.`, `Option B`, and the text of exactly one
    option. A capital that only begins a sentence (`A car is ahead.`) is no choice. Ours, not DriveLM's.
    """
    choices = options(question)
    text = answer.strip()
    by_text = [letter for letter, option in choices.items() if _plain(option) == _plain(text)]
    if len(by_text) == 1:
        return by_text[0]
    leading = _LEADING_LETTER.match(text.upper() if len(_plain(text)) == 1 else text)
    letters = {leading.group(1) or leading.group(2)} if leading else set(_NAMED_LETTER.findall(text))
    if choices:
        letters &= choices.keys()
    return letters.pop() if len(letters) == 1 else None


def letter_correct(prediction: Prediction) -> bool:
    """Whether an answer is right when its wording is forgiven: ours, beside the official exact equality.

    A multiple-choice answer counts by the letter it chooses; any other by its words without case and final points.
    """
    reference = prediction.truth.strip()
    if re.fullmatch(r"[A-H]", reference):
        return extract_letter(prediction.prediction, prediction.question) == reference
    return _plain(prediction.prediction) == _plain(reference)


def challenge_scores(
    graph: Graph, *, language: float | None, ratings: Mapping[str, float | None] | None = None
) -> ChallengeScores:
    """The challenge's components and final score over the kept questions.

    final = 0.4 judge/100 + 0.2 language + 0.2 match/100 + 0.2 accuracy.

    Source: DriveLM `challenge/evaluation.py`, lines 194-223.

    Args:
        graph: From `graph_filter`.
        language: `language_measure` of the kept questions with tag 2, over all of them.
        ratings: Judge's rating (0 to 100; None where its verdict could not be read) by prediction id, for tags 1
            and 3. None without a judge.
    """
    accuracy = mean([float(p.prediction == p.reference) for p in graph.kept if ACCURACY in p.tags])
    f1 = mean([100 * match_points(p.prediction, p.truth).f1 for p in graph.kept if MATCH in p.tags])
    judge, match_judge = (_mean_rating(graph, tag, ratings) for tag in (JUDGE, MATCH))
    match = f1
    if ratings is not None:
        match = None if f1 is None or match_judge is None else (f1 + match_judge) / 2
    final = None
    if judge is not None and language is not None and match is not None and accuracy is not None:
        final = 0.4 * judge / 100 + 0.2 * language + 0.2 * match / 100 + 0.2 * accuracy
    return ChallengeScores(accuracy, judge, language, f1, match, final)


def language_measure(captions: Mapping[str, Measure]) -> Measure | None:
    """The challenge's language component: (mean of BLEU-1..4 + ROUGE-L + CIDEr / 10) / 3; None without CIDEr."""
    if "cider" not in captions:
        return None
    names = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider")
    return combined([captions[name] for name in names], _language, f"{RULES}; {captions['cider'].implementation}")


def _language(bleu_1: Floats, bleu_2: Floats, bleu_3: Floats, bleu_4: Floats, rouge_l: Floats, cider: Floats) -> Floats:
    return ((bleu_1 + bleu_2 + bleu_3 + bleu_4) / 4 + rouge_l + cider / 10) / 3


def mean(values: Sequence[float]) -> float | None:
    """Arithmetic mean; None of nothing."""
    return sum(values) / len(values) if values else None


def _mean_rating(graph: Graph, tag: int, ratings: Mapping[str, float | None] | None) -> float | None:
    if ratings is None:
        return None
    values = [ratings[prediction.id] for prediction in graph.kept if tag in prediction.tags]
    return mean([value for value in values if value is not None])


def _number(identifier: str) -> int | None:
    match = re.search(r"_(\d+)$", identifier)
    return int(match.group(1)) if match else None


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .\"'()[]*")
