import copy
import random
from collections import Counter

import pytest

from drivedistill.data.senna_rules import meta_action_question, multi_view
from drivedistill.world.dataset.balance_senna import EXPECTED_SHARE, NO_SHARE, balance_senna
from drivedistill.world.dataset.senna import INTENTIONS, NO_ROAD_USER, ROAD_USER_QUESTION


def record(question, answer):
    turns = [{"from": "human", "value": multi_view(question)}, {"from": "gpt", "value": answer}]
    return {"token": "t", "conversations": turns}


def intentions(*objects):
    """A record about objects, each given by its speed and what it will do."""
    listed = "".join(
        f"Object {number}: car, 9 meters ahead, 1 meters to the left, speed of {speed} m/s.\n"
        for number, (speed, _) in enumerate(objects, start=1)
    )
    answer = "".join(f"Object {number}: {plan}\n" for number, (_, plan) in enumerate(objects, start=1))
    return record(INTENTIONS.format(view="front", objects=listed), answer)


def drawn(generator):
    """An object, of whose intention the speed tells nearly everything."""
    speed = generator.choice([0, 0, 0, 7, 12])
    if generator.random() < 0.06:
        return speed, generator.choice(["ACCELERATE, STRAIGHT", "KEEP, LEFT_TURN"])
    return speed, "KEEP, STRAIGHT" if speed else "STOP, STRAIGHT"


def frames_of(count, seed):
    generator = random.Random(seed)
    seen = "Yes, I see a pedestrian located 8 meters ahead of me."
    return [
        [
            record(meta_action_question(7.0, "go straight"), "KEEP, STRAIGHT\n"),
            record(ROAD_USER_QUESTION, seen if generator.random() < 0.12 else NO_ROAD_USER),
            *(intentions(*(drawn(generator) for _ in range(generator.randint(1, 2)))) for _ in range(3)),
        ]
        for _ in range(count)
    ]


def answers(frames, words):
    turns = [record["conversations"] for records in frames for record in records]
    return [answer["value"] for question, answer in turns if words in question["value"]]


@pytest.mark.parametrize("count", [1, 3, 40, 300])
@pytest.mark.parametrize("seed", range(3))
def test_no_is_seldom_enough_and_nothing_else_about_road_users_is_lost(count, seed):
    frames = frames_of(count, seed)
    before, after = (answers(each, "vulnerable road users") for each in (frames, balance_senna(frames, seed)))
    seen = len(before) - before.count(NO_ROAD_USER)
    assert len(after) - after.count(NO_ROAD_USER) == seen
    assert after.count(NO_ROAD_USER) == min(before.count(NO_ROAD_USER), int(seen * NO_SHARE / (1 - NO_SHARE) + 1e-9))


@pytest.mark.parametrize("seed", range(3))
def test_telling_intentions_stay_and_ordinary_ones_are_thinned(seed):
    frames = frames_of(300, seed)
    lines = {
        name: Counter(line.split(": ")[1] for answer in answers(each, "SPEED decisions") for line in answer.split("\n")[:-1])
        for name, each in (("before", frames), ("after", balance_senna(frames, seed)))
    }  # fmt: skip
    for plan in ("ACCELERATE, STRAIGHT", "KEEP, LEFT_TURN"):
        assert lines["after"][plan] == lines["before"][plan] > 10
    ordinary = {
        name: (count["KEEP, STRAIGHT"] + count["STOP, STRAIGHT"]) / count.total() for name, count in lines.items()
    }
    assert ordinary["before"] > 0.9 and 0.6 < ordinary["after"] <= EXPECTED_SHARE + 1e-9


def test_what_is_ordinary_depends_on_the_pace():
    def front(speed, plan):
        return [intentions((speed, plan))]

    frames = [front(0, "STOP, STRAIGHT")] * 20 + [front(0, "KEEP, STRAIGHT")] + [front(12, "KEEP, STRAIGHT")] * 20
    kept = answers(balance_senna(frames, 0), "SPEED decisions")
    assert Counter(kept) == {"Object 1: STOP, STRAIGHT\n": 3, "Object 1: KEEP, STRAIGHT\n": 1}  # 12 m/s: no exception


def test_plans_and_the_order_stay_and_nothing_is_changed():
    frames = frames_of(30, 0)
    original = copy.deepcopy(frames)
    kept = balance_senna(frames, 0)
    assert frames == original and len(kept) == len(frames)
    assert answers(kept, "your plan") == answers(frames, "your plan")
    for given, taken in zip(frames, kept, strict=True):
        places = [next(i for i, one in enumerate(given) if one is each) for each in taken]
        assert places == sorted(places)


def test_same_seed_same_choice_and_another_seed_another():
    frames = frames_of(40, 0)
    assert balance_senna(frames, 1) == balance_senna(frames, 1) != balance_senna(frames, 2)
    assert balance_senna([], 0) == [] and balance_senna([[]], 0) == [[]]
