"""Which Senna records a data set keeps, so that the commonest answers do not swamp the others."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from drivedistill.world.dataset.balance import rank
from drivedistill.world.dataset.senna import NO_ROAD_USER, ROAD_USER_QUESTION

NO_SHARE = 0.6
"""Largest share of "No" among the answers about road users."""
EXPECTED_SHARE = 0.75
"""Largest share, where possible, of the commonest intention among the objects of one pace."""
PACES = (2, 5, 10)
"""m/s: the printed speeds of objects are told apart at these."""
SPEED = re.compile(r"Object \d+: .* speed of (\d+) m/s\.")
INTENTION = re.compile(r"Object \d+: (\w+, \w+)")

Record: TypeAlias = Mapping[str, Any]
Place: TypeAlias = tuple[int, int]


class Line(NamedTuple):
    """What a record of intentions says of one object."""

    pace: int
    """How many of `PACES` its printed speed reaches."""
    intention: str
    """E.g. `KEEP, STRAIGHT`."""


def balance_senna(frames: Sequence[Sequence[dict[str, Any]]], seed: int) -> list[list[dict[str, Any]]]:
    """Choose which Senna records of one split to keep.

    All meta-actions stay: key frames are picked to a quota of actions already. Of the answers about road users, "No" is
    thinned to `NO_SHARE`. Of the intentions, every record stays in which an object does something else than most of its
    pace; of the others, as many as leave the commonest intention of each pace its `EXPECTED_SHARE`.

    What remains guessable: Senna's questions print the speed of the ego vehicle and of every object, and its rules say
    STOP below 2 m/s and KEEP unless the speed changes by 3 m/s within two seconds. So most objects that stand will stop
    and most that drive will keep their speed, which nobody needs a picture for. Kept records also speak of the ordinary
    objects beside the telling one, so that the share may stay above `EXPECTED_SHARE`. A split without any telling
    record keeps no record of intentions, and one without road users none about them.

    Args:
        frames: The records of every key frame, as `senna_records` makes them.
        seed: Of the data set.

    Returns:
        The kept records of every key frame, in the order in which they were given.
    """
    places = [(frame, index) for frame, records in enumerate(frames) for index in range(len(records))]
    places.sort(key=lambda place: rank(seed, "senna", place))
    conversations = {place: _conversation(frames[place[0]][place[1]]) for place in places}
    intentions = {place: lines for place in places if (lines := _lines(*conversations[place]))}
    absent = [place for place in places if conversations[place][1] == NO_ROAD_USER]
    present = sum(ROAD_USER_QUESTION in question for question, _ in conversations.values()) - len(absent)
    dropped = {*absent[_at_most(NO_SHARE, present) :], *_too_ordinary(intentions)}
    return [
        [record for index, record in enumerate(records) if (frame, index) not in dropped]
        for frame, records in enumerate(frames)
    ]


def _conversation(record: Record) -> tuple[str, str]:
    """Question and answer."""
    question, answer = (turn["value"] for turn in record["conversations"])
    return question, answer


def _lines(question: str, answer: str) -> list[Line]:
    """What a record says of every object; nothing if it is not about intentions."""
    speeds = map(int, SPEED.findall(question))
    if "SPEED decisions" not in question:
        return []
    intentions = INTENTION.findall(answer)
    return [Line(sum(speed >= pace for pace in PACES), said) for speed, said in zip(speeds, intentions, strict=True)]


def _at_most(share: float, others: int) -> int:
    """How many may stand beside `others` without exceeding their share."""
    return int(share / (1 - share) * others + 1e-9)


def _too_ordinary(intentions: Mapping[Place, Sequence[Line]]) -> list[Place]:
    """Records to drop: they say of every object what most of its pace do, and enough others say so too."""
    counts: dict[int, Counter[str]] = defaultdict(Counter)
    for line in (line for lines in intentions.values() for line in lines):
        counts[line.pace][line.intention] += 1
    expected = {pace: max(sorted(said), key=said.__getitem__) for pace, said in counts.items()}
    limits = {pace: _at_most(EXPECTED_SHARE, said.total() - said[expected[pace]]) for pace, said in counts.items()}
    ordinary = {
        place: Counter(line.pace for line in lines)
        for place, lines in intentions.items()
        if all(line.intention == expected[line.pace] for line in lines)
    }
    kept = Counter(
        line.pace
        for place, lines in intentions.items()
        if place not in ordinary
        for line in lines
        if line.intention == expected[line.pace]
    )
    dropped = []
    for place, paces in ordinary.items():
        if all(kept[pace] + count <= limits[pace] for pace, count in paces.items()):
            kept += paces
        else:
            dropped.append(place)
    return dropped
