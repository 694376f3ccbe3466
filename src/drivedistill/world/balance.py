"""Which candidate questions a data set keeps, so that answering them needs the pictures; and the letters of choices.

What is true most often would be a good guess: most objects drive straight on, nothing is on the pavement. Candidates of
closed templates are therefore thinned until no answer dominates, neither in a template as a whole nor among the
questions that a reader of the text alone could tell apart (`Question.group`).
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import TypeAlias

import numpy as np

from drivedistill.world.questions.question import Question

TOP_SHARE = 0.4
"""Largest share of an answer in a closed template with three answers or more; of two answers, each has half."""
GROUP_SHARE = 0.55
"""Largest share of an answer in a group that has three answers or more."""
WORD_SHARE = 0.6
"""Largest share of an answer among the questions with the same word at the same place of their groups."""
SPARE = 2
"""So many questions more are allowed there: fewer teach nobody anything."""
SMALL = 8
"""Groups with fewer candidates are joined: the finest word of their name is dropped."""
OPTIONS = 4
LETTERS = "ABCD"
CHOOSE = " Please select the correct answer from the following options: "

Words: TypeAlias = tuple[str, ...]


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
    def words(self) -> Words:
        """Of the group, the coarsest first."""
        return tuple(self.question.group.split())


def balance(frames: Sequence[Sequence[Question]], seed: int, *, per_frame: int) -> list[list[Question]]:
    """Choose which candidates of one split to keep, and give the letters of multiple-choice questions out.

    Closed templates are thinned so that their answers say nothing about themselves: with two answers, both are equally
    frequent in every group; with more, none exceeds `TOP_SHARE` of the template and `GROUP_SHARE` of a group. Answers
    that are too rare for that take the frequent ones down with them; a closed template with one answer vanishes.
    Open templates are left as they are. The result depends on the seed and on the frames' order, not on time, machine
    or the order of the questions that are dropped.

    Args:
        frames: The candidates of every key frame.
        seed: Of the data set.
        per_frame: Most questions of a key frame. Every template keeps its first question while there is room, then
            all lose the same share.

    Returns:
        The kept questions of every key frame, in the order in which they were given.
    """
    candidates = [
        Candidate(frame, index, _rank(seed, frame, index), question)
        for frame, questions in enumerate(frames)
        for index, question in enumerate(questions)
    ]
    kept = _thin_all(_cut(_thin_all(candidates), per_frame))
    finished = _finish(kept, seed)
    return [
        [finished[frame, index] for index in range(len(questions)) if (frame, index) in finished]
        for frame, questions in enumerate(frames)
    ]


def _rank(seed: int, frame: int, index: int) -> str:
    return hashlib.sha256(f"{seed} {frame} {index}".encode()).hexdigest()


def _by(candidates: Iterable[Candidate], key: Callable[[Candidate], Hashable]) -> dict[Hashable, list[Candidate]]:
    parts: dict[Hashable, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        parts[key(candidate)].append(candidate)
    return parts


def _thin_all(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Thin every closed template; the others pass."""
    kept: list[Candidate] = []
    for items in _by(candidates, lambda item: item.question.template).values():
        kept += _thin(items) if any(item.question.closed for item in items) else items
    return kept


def _thin(items: list[Candidate]) -> list[Candidate]:
    """Drop candidates of one template until every rule holds; dropping for one rule may break another, hence the loop."""
    items = sorted(items, key=lambda item: item.rank)
    group = merged_groups({(item.frame, item.index): item.words for item in items})
    deepest = max(len(item.words) for item in items)
    while True:
        before = len(items)
        answers = len({item.question.answer for item in items})
        share = 0.5 if answers <= 2 else GROUP_SHARE
        items = _cap(items, lambda item: group[item.frame, item.index], share)
        for place in range(deepest):
            items = _cap(items, lambda item, place=place: item.words[place : place + 1], WORD_SHARE, SPARE)  # type: ignore[misc]
        items = _cap(items, lambda item: item.words, WORD_SHARE, SPARE)
        items = _cap(items, lambda item: (), max(TOP_SHARE, 1 / max(1, answers)))
        if len(items) == before:
            return items


def merged_groups(words: dict[tuple[int, int], Words]) -> dict[tuple[int, int], Words]:
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


def _finish(kept: Sequence[Candidate], seed: int) -> dict[tuple[int, int], Question]:
    """Place -> question, with letters where it is asked as multiple choice."""
    finished = {(item.frame, item.index): item.question for item in kept}
    asked = [item for item in kept if item.question.options]
    for items in _by(asked, lambda item: item.question.template).values():
        everywhere = Counter(item.question.answer for item in items)
        for group in _by(items, lambda item: item.words).values():
            nearby = Counter(item.question.answer for item in group)
            for item in group:
                generator = np.random.default_rng([seed, item.frame, item.index])
                wrong = _distractors(item.question.answer, (nearby, everywhere), generator)
                finished[item.frame, item.index] = with_options(item.question, wrong, generator)
    return finished


def _distractors(answer: str, sources: Iterable[Counter[str]], generator: np.random.Generator) -> list[str]:
    """Wrong answers as frequent as they are in truth: from the question's group first, then from its template.

    Uniform ones would give the right answer away: the one common answer among rare ones.
    """
    drawn: list[str] = []
    for counts in sources:
        others = sorted(counts.keys() - {answer, *drawn})
        wanted = min(OPTIONS - 1 - len(drawn), len(others))
        if wanted:
            weights = np.array([counts[other] for other in others], float)
            chosen = generator.choice(len(others), wanted, replace=False, p=weights / weights.sum())
            drawn += [others[index] for index in chosen]
    return drawn


def with_options(question: Question, wrong: Collection[str], generator: np.random.Generator) -> Question:
    """The question with its right and wrong answers listed in random order; its answer becomes a letter.

    >>> plain = Question("perception", "status", "What does it do?", "going ahead", (0,), options=True)
    >>> with_options(plain, [], np.random.default_rng(0)).text
    'What does it do? Please select the correct answer from the following options: A. Going ahead.'
    """
    options = [question.answer, *wrong]
    options = [options[index] for index in generator.permutation(len(options))]
    listed = " ".join(
        f"{letter}. {option[:1].upper()}{option[1:].rstrip('.')}."
        for letter, option in zip(LETTERS, options, strict=False)
    )
    return replace(question, text=f"{question.text}{CHOOSE}{listed}", answer=LETTERS[options.index(question.answer)])
