"""Which candidate questions a data set keeps, so that answering them needs the pictures; and the letters of choices.

What is true most often would be a good guess: most objects drive straight on, nothing is on the pavement. Candidates of
closed templates are therefore thinned until no answer dominates, neither in a template as a whole nor among the
questions that a reader of the text alone could tell apart (`Question.group`).
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import TypeAlias

import numpy as np

from drivedistill.data.drivelm_challenge import CHOOSE
from drivedistill.data.prior import bin_edges, cross_fitted, example
from drivedistill.world.questions.question import Question

TOP_SHARE = 0.4
"""Largest share of an answer in a closed template with three answers or more; of two answers, each has half."""
GROUP_SHARE = 0.55
"""Largest share of an answer in a group that has three answers or more."""
WORD_SHARE = 0.55
"""Largest share of an answer among the questions with the same word at the same place of their groups."""
SPARE = 2
"""So many questions more are allowed there: fewer teach nobody anything."""
SMALL = 8
"""Groups with fewer candidates are joined: the finest word of their name is dropped."""
ALIKE, MOST_BINS, FOLDS = 8, 40, 5
"""Questions of two answers are sorted by what their texts suggest; so many of the rarer answer share a bin."""
OPTIONS, FEWEST_OPTIONS = 4, 3
"""Of a multiple-choice question, at most and at least."""
LETTERS = "ABCD"

Words: TypeAlias = tuple[str, ...]
Place: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class Candidate:
    """A question and its place."""

    frame: int
    index: int
    """In the frame's list."""
    rank: str
    """Seeded: candidates are kept or dropped in this order, whatever their place."""
    question: Question

    @property
    def place(self) -> Place:
        """Frame and index."""
        return self.frame, self.index

    @property
    def words(self) -> Words:
        """Of the group, the coarsest first."""
        return tuple(self.question.group.split())


def balance(frames: Sequence[Sequence[Question]], seed: int, *, per_frame: int) -> list[list[Question]]:
    """Choose which candidates of one split to keep, and give the letters of multiple-choice questions out.

    Closed templates are thinned so that their texts say little about their answers. With two answers, both are equally
    frequent among questions that look alike to a learner of the texts (`data.prior`), and neither exceeds `WORD_SHARE`
    of a group. With more answers, none exceeds `TOP_SHARE` of the template and `GROUP_SHARE` of a group. Rare answers
    take the frequent ones down with them; a closed template with one answer vanishes. In open templates, an answer
    that is given word for word again and again is thinned to `TOP_SHARE` too. The result depends on the seed and on
    the frames' order, not on time or machine.

    Args:
        frames: The candidates of every key frame.
        seed: Of the data set.
        per_frame: Most questions of a key frame. Every template keeps its first question while there is room, then
            all lose the same share.

    Returns:
        The kept questions of every key frame, in the order in which they were given.
    """
    candidates = [
        Candidate(frame, index, rank(seed, frame, index), question)
        for frame, questions in enumerate(frames)
        for index, question in enumerate(questions)
    ]
    alike = _look_alikes(candidates)
    kept = _thin_all(_cut(_thin_all(candidates, alike), per_frame), alike)
    finished = _finish(kept, candidates, seed)
    return [
        [finished[frame, index] for index in range(len(questions)) if (frame, index) in finished]
        for frame, questions in enumerate(frames)
    ]


def rank(seed: int, *names: object) -> str:
    """A place in an order that looks random and depends on the seed and the names alone."""
    return hashlib.sha256(" ".join(map(str, (seed, *names))).encode()).hexdigest()


def _by(candidates: Iterable[Candidate], key: Callable[[Candidate], Hashable]) -> dict[Hashable, list[Candidate]]:
    parts: dict[Hashable, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        parts[key(candidate)].append(candidate)
    return parts


def _look_alikes(candidates: Sequence[Candidate]) -> dict[Place, int]:
    """Place -> bin, for templates of two answers: how much more a learner of the texts expects one than the other.

    Taught by the other frames of the split, with no regard to how frequent the answers are.
    """
    bins: dict[Place, int] = {}
    for items in _by(candidates, lambda item: item.question.template).values():
        answers = Counter(item.question.answer for item in items)
        if len(answers) != 2 or not any(item.question.closed for item in items):
            continue
        (often, _), (rare, count) = answers.most_common()
        odds = np.array(_odds(items, often, rare))
        of_rare = odds[[item.question.answer == rare for item in items]]
        number = min(MOST_BINS, max(1, count // ALIKE))
        edges = np.quantile(of_rare, np.linspace(0, 1, number + 1)[1:-1]).tolist()
        bins |= {item.place: bisect_left(edges, value) for item, value in zip(items, odds.tolist(), strict=True)}
    return bins


def _odds(items: Sequence[Candidate], answer: str, other: str) -> list[float]:
    """How much better each text goes with one answer than with the other; neighbouring frames do not teach each other."""
    edges = bin_edges(item.question.text for item in items)
    lessons = [example(item.question.text, item.question.answer, edges) for item in items]
    frames = 1 + max(item.frame for item in items)
    odds = [0.0] * len(items)
    for learner, held_out in cross_fitted(lessons, [item.frame * FOLDS // frames for item in items]):
        for index in held_out:
            evidence = learner.evidence(lessons[index])
            if len(evidence) == 2:
                odds[index] = evidence[answer] - evidence[other]
    return odds


def _thin_all(candidates: Sequence[Candidate], alike: Mapping[Place, int]) -> list[Candidate]:
    """Thin every template."""
    kept: list[Candidate] = []
    for items in _by(candidates, lambda item: item.question.template).values():
        items.sort(key=lambda item: item.rank)
        if any(item.question.closed for item in items):
            kept += _thin(items, alike)
        else:
            kept += _cap(items, lambda item: (), TOP_SHARE, SPARE)
    return kept


def _thin(items: list[Candidate], alike: Mapping[Place, int]) -> list[Candidate]:
    """Drop candidates of one template until every rule holds; dropping for one may break another, hence the loop."""
    group = merged_groups({item.place: item.words for item in items})
    deepest = max(len(item.words) for item in items)
    while True:
        before = len(items)
        answers = len({item.question.answer for item in items})
        if answers > 2:
            items = _cap(items, lambda item: group[item.place], GROUP_SHARE)
        else:
            items = _cap(items, lambda item: alike.get(item.place), 0.5)
            items = _cap(items, lambda item: group[item.place], WORD_SHARE, SPARE)
        for place in range(deepest):
            items = _cap(items, lambda item, place=place: item.words[place : place + 1], WORD_SHARE, SPARE)  # type: ignore[misc]
        items = _cap(items, lambda item: item.words, WORD_SHARE, SPARE)
        items = _cap(items, lambda item: (), max(TOP_SHARE, 1 / max(1, answers)))
        if len(items) == before:
            return items


def merged_groups(words: dict[Place, Words]) -> dict[Place, Words]:
    """Groups of at least `SMALL` candidates where possible, by dropping the last word of smaller ones, longest first."""
    groups = dict(words)
    while True:
        sizes = Counter(groups.values())
        small = [name for name, size in sizes.items() if size < SMALL and name]
        if not small:
            return groups
        longest = max(map(len, small))
        join = {name for name in small if len(name) == longest}
        groups = {place: name[:-1] if name in join else name for place, name in groups.items()}


def _cap(
    items: Sequence[Candidate], key: Callable[[Candidate], Hashable], share: float, spare: int = 0
) -> list[Candidate]:
    """Drop, in every part, the last candidates of answers that have more than their share of it (and `spare` more)."""
    counts: dict[Hashable, Counter[str]] = defaultdict(Counter)
    for item in items:
        counts[key(item)][item.question.answer] += 1
    limits = {part: _limit(sorted(answers.values()), share, spare) for part, answers in counts.items()}
    taken: Counter[Hashable] = Counter()
    kept = []
    for item in items:
        part = key(item)
        taken[part, item.question.answer] += 1
        if taken[part, item.question.answer] <= limits[part]:
            kept.append(item)
    return kept


def _limit(counts: Sequence[int], share: float, spare: int) -> int:
    """How many of each answer may stay: the largest number that gives the top answer its share at most.

    Args:
        counts: Of the answers, ascending.
        share: Of the top answer.
        spare: How many more it may have.
    """
    odds = share / (1 - share) if share < 1 else inf
    *others, most = counts

    def too_many(limit: int) -> bool:
        return limit > odds * sum(min(count, limit) for count in others) + spare + 1e-9

    return bisect_left(range(most + 1), True, key=too_many) - 1


def _cut(candidates: Sequence[Candidate], per_frame: int) -> list[Candidate]:
    """At most `per_frame` questions of every frame."""
    kept: list[Candidate] = []
    for items in _by(candidates, lambda item: item.frame).values():
        kept += sorted(items, key=_turns(items).__getitem__)[:per_frame]
    return kept


def _turns(items: Sequence[Candidate]) -> dict[Candidate, tuple[bool, float, str]]:
    """When each question of a frame is taken: first one of every template, then all templates at the same pace."""
    turns: dict[Candidate, tuple[bool, float, str]] = {}
    for of_template in _by(items, lambda item: item.question.template).values():
        for place, item in enumerate(sorted(of_template, key=lambda item: item.rank)):
            turns[item] = (place > 0, place / len(of_template), item.rank)
    return turns


def _finish(kept: Sequence[Candidate], candidates: Sequence[Candidate], seed: int) -> dict[Place, Question]:
    """Place -> question, with letters where it is asked as multiple choice.

    Answers that were thinned away are listed only where the kept ones are too few: whoever knows that they are never
    right need not look.
    """
    finished = {item.place: item.question for item in kept}
    asked = [item for item in kept if item.question.options]
    of_template = _by(candidates, lambda item: item.question.template)
    for template, items in _by(asked, lambda item: item.question.template).items():
        before = Counter(item.question.answer for item in of_template[template])
        everywhere = Counter(item.question.answer for item in items)
        for group in _by(items, lambda item: item.words).values():
            nearby = Counter(item.question.answer for item in group)
            for item in group:
                generator = np.random.default_rng([seed, item.frame, item.index])
                wrong = _distractors(item.question.answer, (nearby, everywhere), OPTIONS - 1, generator)
                if len(wrong) < FEWEST_OPTIONS - 1:
                    wrong = _distractors(item.question.answer, (everywhere, before), FEWEST_OPTIONS - 1, generator)
                finished[item.place] = with_options(item.question, wrong, generator)
    return finished


def _distractors(answer: str, sources: Iterable[Counter[str]], most: int, generator: np.random.Generator) -> list[str]:
    """At most `most` wrong answers as frequent as they are in truth: from the first source first, then from the next.

    Uniform ones would give the right answer away: the one common answer among rare ones.
    """
    drawn: list[str] = []
    for counts in sources:
        others = sorted(counts.keys() - {answer, *drawn})
        wanted = min(most - len(drawn), len(others))
        if wanted:
            weights = np.array([counts[other] for other in others], float)
            chosen = generator.choice(len(others), wanted, replace=False, p=weights / weights.sum())
            drawn += [others[index] for index in chosen]
    return drawn


def with_options(question: Question, wrong: Collection[str], generator: np.random.Generator) -> Question:
    """The question with its right and wrong answers listed in random order; its answer becomes a letter.

    With fewer than three options it would answer itself; then it is asked openly.

    >>> plain = Question("perception", "status", "What does it do?", "going ahead", (0,), options=True)
    >>> with_options(plain, ["stopped", "braking"], np.random.default_rng(0)).text
    'What does it do? Please select the correct answer from the following options: A. Braking. B. Going ahead. C. Stopped.'
    >>> with_options(plain, ["stopped"], np.random.default_rng(0)) == replace(plain, options=False)
    True
    """
    if len(wrong) < FEWEST_OPTIONS - 1:
        return replace(question, options=False)
    options = [question.answer, *wrong]
    options = [options[index] for index in generator.permutation(len(options))]
    listed = " ".join(
        f"{letter}. {option[:1].upper()}{option[1:].rstrip('.')}."
        for letter, option in zip(LETTERS, options, strict=False)
    )
    return replace(question, text=f"{question.text}{CHOOSE}{listed}", answer=LETTERS[options.index(question.answer)])
