"""Facts become classes: which heads there are, and what each of them should say about which picture."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from drivedistill.pretrain.facts import Fact, Frame, Place

ANSWERS = 200
"""A question with more different answers is no closed one; of an attribute the commonest are learnt."""
ASKED_OF_OBJECTS = 200
ASKED_OF_FRAMES = 50
"""A wording that is answered less often in the train split has no head."""
METRES = 20.0
"""Unit in which places are regressed."""


@dataclass(frozen=True)
class Head:
    """One thing that can be read off a picture."""

    kind: str
    """The kind of question or attribute; heads of one kind share one weight in the loss."""
    wording: str
    placed: bool
    """Read at an object's place; otherwise off the tokens of all views."""
    answers: tuple[str, ...]
    """Its classes, the commonest first."""


@dataclass(frozen=True)
class Lessons:
    """Frames and what is to be said about them; F frames, K places, L labels at places, N labels of frames."""

    speed: Tensor
    """`float[F]`, of the ego car; METRES per second are 1"""
    place_frame: Tensor
    """`int64[K]`"""
    place_view: Tensor
    """`int64[K]`"""
    place: Tensor
    """`float[K, 2]`, x and y as shares of the picture."""
    measures: Tensor
    """`float[K, 3]`: log of the distance in metres, metres ahead and to the left in units of METRES; NaN where not known."""
    place_labels: Tensor
    """`int64[L, 3]`: place, head, class (-1: an answer that training never gave)."""
    frame_labels: Tensor
    """`int64[N, 4]`: frame, head, class, view that the question names (-1: none)."""

    def to(self, device: torch.device | str) -> Lessons:
        """The same on a device."""
        return Lessons(**{item.name: getattr(self, item.name).to(device) for item in fields(self)})


def choose_heads(frames: Sequence[Frame]) -> list[Head]:
    """A head for every attribute and every wording of a closed question that the train split answers often enough."""
    counts: defaultdict[tuple[str, str, bool], Counter[str]] = defaultdict(Counter)
    for fact in _facts(frames):
        counts[_of_head(fact)][fact.answer] += 1
    heads = []
    for (kind, wording, placed), answers in sorted(counts.items()):
        if wording and (len(answers) > ANSWERS or answers.total() < (ASKED_OF_OBJECTS if placed else ASKED_OF_FRAMES)):
            continue
        if len(answers) > 1:
            heads.append(Head(kind, wording, placed, tuple(text for text, _ in answers.most_common(ANSWERS))))
    return heads


def encode(frames: Sequence[Frame], heads: Sequence[Head]) -> Lessons:
    """What the heads should say about the frames."""
    number = {(head.kind, head.wording, head.placed): index for index, head in enumerate(heads)}
    classes = [{answer: index for index, answer in enumerate(head.answers)} for head in heads]
    places: list[tuple[int, int, float, float]] = []
    measures: list[tuple[float, float, float]] = []
    at_places: list[tuple[int, int, int]] = []
    of_frames: list[tuple[int, int, int, int]] = []
    for index, frame in enumerate(frames):
        rows = {place: len(places) + row for row, place in enumerate(_places(frame))}
        places += [(index, place.view, place.x, place.y) for place in rows]
        measures += [_scaled(frame.measures.get(place)) for place in rows]
        for fact in frame.facts:
            if (head := number.get(_of_head(fact))) is None:
                continue
            answer = classes[head].get(fact.answer, -1)
            if fact.place is not None:
                at_places.append((rows[fact.place], head, answer))
            else:
                of_frames.append((index, head, answer, -1 if fact.view is None else fact.view))
    grid = torch.tensor(places, dtype=torch.float64).reshape(-1, 4)
    return Lessons(
        speed=torch.tensor([frame.speed / METRES for frame in frames]),
        place_frame=grid[:, 0].long(),
        place_view=grid[:, 1].long(),
        place=grid[:, 2:].float(),
        measures=torch.tensor(measures).reshape(-1, 3),
        place_labels=torch.tensor(at_places, dtype=torch.int64).reshape(-1, 3),
        frame_labels=torch.tensor(of_frames, dtype=torch.int64).reshape(-1, 4),
    )


def _facts(frames: Iterable[Frame]) -> Iterable[Fact]:
    return (fact for frame in frames for fact in frame.facts)


def _of_head(fact: Fact) -> tuple[str, str, bool]:
    return fact.kind, fact.wording, fact.place is not None


def _places(frame: Frame) -> list[Place]:
    """Every place that is spoken of, once."""
    return list(dict.fromkeys([*frame.measures, *(fact.place for fact in frame.facts if fact.place is not None)]))


def _scaled(measured: tuple[float, float, float] | None) -> tuple[float, float, float]:
    if measured is None:
        return math.nan, math.nan, math.nan
    distance, ahead, left = measured
    return math.log(max(distance, 0.1)), ahead / METRES, left / METRES
