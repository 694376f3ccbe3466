"""How far one gets without looking: the commonest answer of every template, and what can be learnt from texts alone."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from drivedistill.data.choices import answer_text, letter_of
from drivedistill.data.drivelm_challenge import options
from drivedistill.records import Sample

TAG = re.compile(r"<\s*c\d+\s*,[^<>]*>")
NUMBER = re.compile(r"\d+(?:\.\d+)?")
OPTIONS = re.compile(r"(following options:).*", re.DOTALL)
OBJECT = re.compile(r"<\s*(c\d+)\s*,\s*(\w+)\s*,\s*([\d.]+)\s*,\s*([\d.]+)\s*>")
WORD = re.compile(r"[\w.']+")

FOLDS = 5
BINS = 8
"""Quantiles of a coordinate that the learner tells apart."""
SMOOTHING = 0.3
ANSWERS = 200
"""Different answers that the learner knows, the commonest ones."""

Floats: TypeAlias = NDArray[np.float64]


class Example(NamedTuple):
    """A question as the learner reads it."""

    features: tuple[str, ...]
    choices: tuple[str, ...]
    """Of a multiple-choice question."""
    answer: str


@dataclass(frozen=True)
class Template:
    """A kind of question, the answer that fits most often, and what a learner makes of the text alone."""

    question: str
    """With objects and numbers masked; the commonest wording where the data set names its templates."""
    named: bool
    """The data set names it."""
    count: int
    answers: int
    """Different ones."""
    answer: str
    """The commonest; of a multiple-choice question the text, not the letter."""
    share: float
    examined: int
    """Questions on which the learner was examined; it never saw their scenes."""
    text_only: float
    """Share of them that it got right; 0 where it was not examined."""


def template(question: str) -> str:
    """The question with objects, numbers and multiple-choice options masked; directions and classes stay.

    >>> template("What is the moving status of object <c1,CAM_BACK,1088.3,497.5>?")
    'What is the moving status of object <OBJ>?'
    """
    return NUMBER.sub("<NUM>", OPTIONS.sub(r"\1 <OPTIONS>", TAG.sub("<OBJ>", question)))


def template_name(sample: Sample) -> str:
    """The kind of question: the template that the data set names, otherwise the masked question."""
    return str(sample.extra["template"]) if _is_named(sample) else template(sample.question)


def family(sample: Sample) -> str:
    """What is learnt together: a data set's named template, or what masks to the same question."""
    return f"{sample.dataset} {template_name(sample)}" if _is_named(sample) else template_name(sample)


def _is_named(sample: Sample) -> bool:
    return isinstance(sample.extra.get("template"), str)


def templates(samples: Sequence[Sample], examined: Sequence[Sample], verdicts: Sequence[bool | None]) -> list[Template]:
    """The templates of the answered samples, the most frequent first.

    Args:
        samples: What is counted.
        examined: What a learner was examined on.
        verdicts: Whether it was right, one for each of `examined`; see `judge`.
    """
    right_of: dict[str, list[bool]] = defaultdict(list)
    for sample, right in zip(examined, verdicts, strict=True):
        if right is not None:
            right_of[family(sample)].append(right)
    rows = []
    for name, places in _families(samples).items():
        answers = Counter(answer_text(samples[place]) for place in places)
        answer, most = answers.most_common(1)[0]
        wording = Counter(template(samples[place].question) for place in places).most_common(1)[0][0]
        judged, share = right_of[name], most / len(places)
        right_share = sum(judged) / max(1, len(judged))
        named = _is_named(samples[places[0]])
        rows.append(Template(wording, named, len(places), len(answers), answer, share, len(judged), right_share))
    return sorted(rows, key=lambda row: (-row.count, row.question))


def judge(fit: Sequence[Sample], examine: Sequence[Sample] | None = None) -> list[bool | None]:
    """Whether a learner that sees no picture answers right: naive Bayes on the question's words and coordinates.

    Every template is learnt by itself, from its words, the objects' numbers, cameras and places in the picture (in
    bins of equal frequency); options are chosen by how often each is right when it is listed.

    Args:
        fit: What it learns from.
        examine: What it is examined on; by default `fit` itself, one fifth of the scenes after the other, learning from
            the rest.

    Returns:
        One verdict per examined sample; None where there is no answer, or no scene that is left to learn from.
    """
    if examine is not None:
        reader = TextReader(fit)
        return [None if s.answer is None else reader.guess(s) == answer_text(s) for s in examine]
    verdicts: list[bool | None] = [None if sample.answer is None else False for sample in fit]
    folds = _folds(fit)
    if len(set(folds)) < 2:
        return [None] * len(fit)
    for known in _families(fit).values():
        lessons, _ = _lessons([fit[place] for place in known])
        for learner, held_out in cross_fitted(lessons, [folds[place] for place in known]):
            for index in held_out:
                verdicts[known[index]] = learner.guess(lessons[index]) == lessons[index].answer
    return verdicts


def _lessons(samples: Sequence[Sample]) -> tuple[list[Example], tuple[Floats, Floats]]:
    """What one kind of questions teaches, and the bins of its coordinates."""
    edges = bin_edges(sample.question for sample in samples)
    return [example(sample.question, answer_text(sample), edges) for sample in samples], edges


class TextReader:
    """Answers from the text alone what it was taught; the bar that a model that looks has to pass.

    Args:
        fit: Answered samples that it learns from.
    """

    def __init__(self, fit: Sequence[Sample]) -> None:
        self._taught: dict[str, tuple[Learner, tuple[Floats, Floats]]] = {}
        for name, places in _families(fit).items():
            lessons, edges = _lessons([fit[place] for place in places])
            self._taught[name] = Learner(lessons), edges

    def guess(self, sample: Sample) -> str:
        """The likeliest answer in words; nothing for a kind of question that it was not taught."""
        if (taught := self._taught.get(family(sample))) is None:
            return ""
        learner, edges = taught
        return learner.guess(example(sample.question, "", edges))

    def answer(self, sample: Sample) -> str:
        """The likeliest answer as the data set writes it: the letter of a multiple choice."""
        return letter_of(sample.question, self.guess(sample))


def cross_fitted(lessons: Sequence[Example], folds: Sequence[int]) -> Iterator[tuple[Learner, list[int]]]:
    """Per fold a learner that the others taught, and the places of the lessons that it does not know."""
    for fold in sorted(set(folds)):
        held_out = [place for place, other in enumerate(folds) if other == fold]
        yield Learner([lesson for lesson, other in zip(lessons, folds, strict=True) if other != fold]), held_out


def _families(samples: Sequence[Sample]) -> dict[str, list[int]]:
    """Places of the answered samples of every template."""
    families: dict[str, list[int]] = defaultdict(list)
    for place, sample in enumerate(samples):
        if sample.answer is not None:
            families[family(sample)].append(place)
    return families


def _folds(samples: Sequence[Sample]) -> list[int]:
    """Per sample one of five parts; a scene is in one of them."""
    names = {f"{sample.dataset}/{sample.scene}" for sample in samples}
    order = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    fold_of = {name: index % FOLDS for index, name in enumerate(order)}
    return [fold_of[f"{sample.dataset}/{sample.scene}"] for sample in samples]


def bin_edges(questions: Iterable[str]) -> tuple[Floats, Floats]:
    """Between the bins of x and of y of all objects."""
    places = [(_float(x), _float(y)) for question in questions for _, _, x, y in OBJECT.findall(question)]
    if not places:
        return np.zeros(0), np.zeros(0)
    xs, ys = np.quantile(np.array(places), np.linspace(0, 1, BINS + 1)[1:-1], axis=0).T
    return xs, ys


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def example(question: str, answer: str, edges: tuple[Floats, Floats]) -> Example:
    """A question as features: its words; its objects' numbers, cameras and places; who is where beside the other.

    Args:
        question: With its options, if it has any.
        answer: In words, not as a letter.
        edges: Between the bins of x and of y; see `bin_edges`.
    """
    wording = TAG.sub(" ", question.partition("Please select")[0]).lower()
    features = {wording, *WORD.findall(wording)}
    places: list[tuple[int, int]] = []
    for turn, (number, camera, *place) in enumerate(OBJECT.findall(question)):
        column, row = (int(np.searchsorted(bins, _float(value))) for bins, value in zip(edges, place, strict=True))
        found = (number, camera, f"x{column}", f"y{row}", f"{camera} x{column}", f"{camera} y{row}")
        features |= {f"{turn} {feature}" for feature in found}
        places.append((column, row))
    if len(places) > 1:
        right, below = (one - other for one, other in zip(*places[:2], strict=True))
        features |= {f"right by {right}", f"below by {below}", f"right {right > 0}", f"below {below > 0}"}
    return Example(tuple(sorted(features)), tuple(options(question).values()), answer)


class Learner:
    """Naive Bayes over one template; an answer's prior is how often it is right among the times it could be."""

    def __init__(self, lessons: Sequence[Example]) -> None:
        right = Counter(lesson.answer for lesson in lessons)
        possible = Counter(option for lesson in lessons for option in lesson.choices)
        anything = sum(not lesson.choices for lesson in lessons)
        self.answers = {answer: row for row, (answer, _) in enumerate(right.most_common(ANSWERS))}
        self.features: dict[str, int] = {}
        for lesson in lessons:
            for feature in lesson.features:
                self.features.setdefault(feature, len(self.features))
        counts = np.zeros((len(self.answers), len(self.features)))
        for lesson in lessons:
            if lesson.answer in self.answers:
                counts[self.answers[lesson.answer], [self.features[feature] for feature in lesson.features]] += 1
        totals = np.array([right[answer] for answer in self.answers], float)[:, None]
        self.likelihoods: Floats = np.log((counts + SMOOTHING) / (totals + 2 * SMOOTHING))
        self.priors: dict[str, float] = {
            answer: math.log((right[answer] + 0.5) / (possible[answer] + anything + 2)) for answer in (right | possible)
        }
        self.prior_of_row = np.array([self.priors[answer] for answer in self.answers])

    def evidence(self, asked: Example) -> dict[str, float]:
        """Answer -> log-likelihood of the text, however frequent the answer is."""
        return dict(zip(self.answers, self._scores(asked).tolist(), strict=True))

    def _scores(self, asked: Example) -> Floats:
        columns = [self.features[feature] for feature in asked.features if feature in self.features]
        scores: Floats = self.likelihoods[:, columns].sum(axis=1)
        return scores

    def guess(self, asked: Example) -> str:
        """The likeliest answer, or the likeliest option; empty where nothing was taught."""
        scores = self._scores(asked)
        if not asked.choices:
            return list(self.answers)[int(np.argmax(scores + self.prior_of_row))] if len(scores) else ""
        strangest = float(scores.min(initial=0.0))

        def score(option: str) -> float:
            row = self.answers.get(option)
            return self.priors.get(option, math.log(0.25)) + (strangest if row is None else float(scores[row]))

        return max(asked.choices, key=score)
