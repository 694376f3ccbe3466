import re
from collections import Counter
from itertools import product

import numpy as np
import pytest

from drivedistill.data.meta_action import PATHS, SPEEDS
from drivedistill.data.senna_rules import MetaAction
from drivedistill.evaluate.families import answer_measures
from drivedistill.evaluate.measure import draw_scenes, measure_interval
from drivedistill.evaluate.meta_actions import PATH_COST, PUBLISHED, SPEED_COST, danger, measures, sees_road_user
from drivedistill.evaluate.metric import METRICS
from drivedistill.problems import InputError

NUSCENES = {
    "KEEP, STRAIGHT": 3704, "STOP, STRAIGHT": 975, "KEEP, RIGHT_TURN": 187, "KEEP, LEFT_TURN": 139,
    "ACCELERATE, STRAIGHT": 62, "DECELERATE, STRAIGHT": 45, "ACCELERATE, LEFT_TURN": 4, "ACCELERATE, RIGHT_TURN": 3,
}  # fmt: skip
"""The labels of nuScenes' validation set, counted by a user of Senna (its issue 11)."""

VRU = "Do you see any vulnerable road users within 20 meters ahead of you, such as cyclists?"
EVERYTHING = ", ".join((*SPEEDS, *PATHS))


@pytest.fixture
def ask(make):
    """Pairs of (reference action, answer) as predictions, one per frame, two frames a scene."""

    def build(pairs):
        return [
            make(
                id=f"{n}",
                scene=f"{n // 2}",
                frame=f"{n}",
                task="planning",
                reference=truth,
                meta_action=truth,
                prediction=said,
            )
            for n, (truth, said) in enumerate(pairs)
        ]

    return build


def points(items):
    return {name: measure.point for name, measure in measures(items).items()}


def percent(value):
    return round(100 * value, 2)


def test_constant_answer_of_nuscenes(ask):
    """Accuracy 72.36, F1 of STRAIGHT 96.64, of KEEP 88.10, of STOP 0: what CLKD's Table III must be read against."""
    items = ask([(label, "KEEP, STRAIGHT") for label, count in NUSCENES.items() for _ in range(count)])
    assert len(items) == 5119
    found = points(items)
    for suffix in ("", "_lenient", "_constant"):
        assert percent(found[f"meta_accuracy{suffix}"]) == 72.36
        assert percent(found[f"meta_f1_straight{suffix}"]) == 96.64
        assert percent(found[f"meta_f1_keep{suffix}"]) == 88.10
        assert found[f"meta_f1_stop{suffix}"] == 0
    assert measures(items)["meta_accuracy_constant"].implementation == "always 'KEEP, STRAIGHT'"
    assert found["meta_danger"] == found["meta_danger_constant"] and found["meta_unparsable"] == 0


def test_listing_every_action_satisfies_the_published_rule_and_no_other(ask):
    found = points(ask([(label, EVERYTHING) for label in NUSCENES]))
    assert found["meta_accuracy_lenient"] == 1 and found["meta_accuracy"] == 0
    assert found["meta_unparsable"] == 1 and found["meta_speed_accuracy"] == found["meta_path_accuracy"] == 0


def test_published_f1_counts_as_the_published_script_does(ask):
    rng = np.random.default_rng(0)
    words = [*SPEEDS, *PATHS]
    actions = [f"{speed}, {path}" for speed, path in product(SPEEDS, PATHS)]
    pairs = [(actions[rng.integers(20)], " ".join(rng.choice(words, rng.integers(4)))) for _ in range(200)]
    found = points(ask(pairs))
    for key in (*SPEEDS, "RIGHT_TURN", "LEFT_TURN", "STRAIGHT"):
        tp = fp = fn = 0
        for truth, said in pairs:  # the script's own branches
            true = truth.split(", ")[key not in SPEEDS]
            if key in said:
                if true in said:
                    tp += 1
                else:
                    fp += 1
            elif key in truth:
                fn += 1
        precision, recall = tp / (tp + fp), tp / (tp + fn)
        assert found[f"meta_f1_{key.lower()}_lenient"] == pytest.approx(2 * precision * recall / (precision + recall))
    assert "meta_f1_left_change_lenient" not in found and "meta_f1_left_change" in found


@pytest.mark.parametrize("answer", ["KEEP or STOP, STRAIGHT", EVERYTHING])
def test_published_f1_forgives_what_is_said_besides_the_truth(ask, answer):
    items = ask([("KEEP, STRAIGHT", answer), ("STOP, STRAIGHT", answer)])
    found = {name: value for name, value in points(items).items() if re.fullmatch("meta_f1_.*_lenient", name)}
    said = ["keep", "stop", "straight"] if answer != EVERYTHING else [word.lower() for word in PUBLISHED]
    assert found == {f"meta_f1_{word}_lenient": 1 for word in said}
    assert points(items)["meta_f1_keep"] == points(items)["meta_f1_stop"] == 0


def test_published_f1_of_wrong_and_missing_words(ask):
    found = points(
        ask([("KEEP, STRAIGHT", "STOP, STRAIGHT"), ("STOP, STRAIGHT", "STOP or KEEP"), ("STOP, LEFT_TURN", "")])
    )
    assert found["meta_f1_stop_lenient"] == pytest.approx(2 / (2 + 1 + 1))  # a hit, a false alarm, a miss
    assert found["meta_f1_keep_lenient"] == pytest.approx(2 / (2 + 1))  # a hit beside the true STOP, a miss
    assert found["meta_f1_straight_lenient"] == pytest.approx(2 / (2 + 1)) and found["meta_f1_left_turn_lenient"] == 0


def test_right_answers_are_right_by_every_rule_and_cost_nothing(ask):
    found = points(ask([(label, f"{label}\n") for label in NUSCENES]))
    for name, value in found.items():
        if not name.endswith("_constant"):
            assert value == (0 if name in ("meta_unparsable", "meta_danger") else 1), name


def test_speed_and_path_are_judged_apart_and_plain_english_by_its_own_parser(ask):
    pairs = [
        ("KEEP, STRAIGHT", "KEEP, LEFT_TURN"),
        ("STOP, STRAIGHT", "KEEP, STRAIGHT"),
        ("STOP, STRAIGHT", "The ego vehicle should stop."),
        ("STOP, STRAIGHT", "Blue."),
    ]
    found = points(ask(pairs))
    assert (found["meta_speed_accuracy"], found["meta_path_accuracy"], found["meta_accuracy"]) == (0.25, 0.25, 0)
    assert (found["meta_accuracy_free"], found["meta_unparsable"]) == (0.25, 0.5)
    assert found["meta_danger"] == pytest.approx((0.8 + 1.0 + 0.0 + 1.0) / 4)
    assert found["meta_f1_straight"] == pytest.approx(2 * 1 / (2 * 1 + 0 + 3))


def test_commonest_reference_is_the_constant_and_the_alphabet_decides_a_tie(ask):
    for order in (("STOP, STRAIGHT", "KEEP, STRAIGHT"), ("KEEP, STRAIGHT", "STOP, STRAIGHT")):
        found = measures(ask([(label, "") for label in order]))
        assert found["meta_accuracy_constant"].implementation == "always 'KEEP, STRAIGHT'"
    assert measures(ask([("STOP, STRAIGHT", "")] * 2))["meta_accuracy_constant"].point == 1


def test_costs_are_zero_for_the_truth_alone_and_worst_for_driving_on_where_one_must_stand():
    for table, names in ((SPEED_COST, SPEEDS), (PATH_COST, PATHS)):
        assert set(table) == set(names)
        for truth, costs in table.items():
            assert set(costs) == set(names) and costs[truth] == 0
            assert all(0 < cost <= 1 for said, cost in costs.items() if said != truth)
    assert SPEED_COST["STOP"]["KEEP"] == SPEED_COST["STOP"]["ACCELERATE"] == 1 > SPEED_COST["DECELERATE"]["KEEP"]
    assert SPEED_COST["KEEP"]["STOP"] < SPEED_COST["KEEP"]["ACCELERATE"]
    assert PATH_COST["LEFT_TURN"]["RIGHT_TURN"] == PATH_COST["RIGHT_CHANGE"]["LEFT_CHANGE"] == 1
    mirrored = {path: path.replace("LEFT", "X").replace("RIGHT", "LEFT").replace("X", "RIGHT") for path in PATHS}
    assert all(PATH_COST[a][b] == PATH_COST[mirrored[a]][mirrored[b]] for a, b in product(PATHS, PATHS))
    assert danger(MetaAction("KEEP", "STRAIGHT"), None) == 1
    assert danger(MetaAction("STOP", "STRAIGHT"), MetaAction("DECELERATE", "LEFT_TURN")) == 0.8


def test_answers_without_a_reference_action_do_not_count(ask, make):
    items = ask([("KEEP, STRAIGHT", "KEEP, STRAIGHT"), ("STOP, STRAIGHT", "KEEP, STRAIGHT")])
    others = [
        make(id="x", scene="9", prediction="KEEP, STRAIGHT"),
        make(id="y", scene="9", prediction="STOP, STRAIGHT"),
    ]
    mixed = measures([others[0], *items, others[1]])
    assert {name: (m.point, m.n) for name, m in mixed.items()} == {
        name: (m.point, m.n) for name, m in measures(items).items()
    }
    assert all(measure.n == 2 and len(measure.statistics) == 4 for measure in mixed.values())
    assert measures(others) == {}


def test_reference_that_is_no_action_is_refused_with_all_its_answers(make):
    items = [
        make(id="a", meta_action="FLY, STRAIGHT"),
        make(id="b", meta_action="keep"),
        make(id="c", meta_action="KEEP, STRAIGHT"),
    ]
    with pytest.raises(InputError) as error:
        measures(items)
    assert [problem.record for problem in error.value.problems] == ["a, meta_action", "b, meta_action"]


@pytest.mark.parametrize(
    ("answer", "sees"),
    [
        ("Yes, I see a pedestrian located 8 meters ahead of me.", True),
        ("Yes.", True),
        ("yes, a cyclist that is not moving", True),
        ("A pedestrian is ahead.", True),
        ("There are two cyclists, no motorcyclists.", True),
        (
            "No, I don't see any vulnerable road users ahead of me, such as bicycles, motorcycles, or pedestrians.",
            False,
        ),
        ("No pedestrians.", False),
        ("None.", False),
        ("I do not see any cyclist.", False),
        ("There is no pedestrian.", False),
        ("", False),
        ("KEEP, STRAIGHT", False),
        ("I see no pedestrians ahead.", False),
        ("There aren't any pedestrians.", False),
        ("I don\N{RIGHT SINGLE QUOTATION MARK}t see any pedestrians.", False),
        ("I did not see any cyclists.", False),
        ("There are cars but no pedestrians", False),
        ("The road is clear of pedestrians.", False),
        ("Nope, no cyclists", False),
        ("Pedestrians are not visible.", False),
        ("There is neither a pedestrian nor a cyclist.", False),
        ("A pedestrian is ahead; I do not see cyclists.", True),
        ("I do not see cyclists. A pedestrian is ahead.", True),
        ("There are no cars, but a child is crossing.", True),
        ("I see no cyclist and there is a pedestrian.", True),
        ("A cyclist is ahead that is not moving.", True),
        ("Not only cars, I also see a pedestrian.", True),
        ("The light is not green and pedestrians are crossing.", True),
        ("The road is clear of traffic and a pedestrian waits.", True),
        ("A cyclist who has not seen us is ahead.", True),
        ("It is not raining, a pedestrian crosses", True),
        ("I see vulnerable road users ahead.", True),
        ("I don't see any of these: pedestrians, cyclists.", False),
        ("No, none of the following: pedestrian, bicycle", False),
        ("I do not see a pedestrian, a cyclist or a motorcyclist.", False),
    ],
)
def test_what_an_answer_says_about_road_users(answer, sees):
    assert sees_road_user(answer) is sees


def test_missed_and_imagined_road_users(make):
    yes, no = "Yes, I see a pedestrian.", "No, I don't see any."
    said = [(yes, yes), (yes, no), (yes, ""), (yes, "Yes."), (no, no), (no, yes), (no, "KEEP, STRAIGHT"), (no, "None.")]
    items = [make(id=f"{n}", question=VRU, reference=a, prediction=b) for n, (a, b) in enumerate(said)]
    found = measures([*items, make(id="other", reference=yes, prediction=no)])
    assert {name: (m.point, m.n) for name, m in found.items()} == {"missed_vru": (0.5, 4), "false_vru": (0.25, 4)}
    assert set(measures(items[:4])) == {"missed_vru"} and set(measures(items[4:])) == {"false_vru"}


def test_family_is_scored_and_every_number_has_a_name_and_an_interval(ask):
    counts = Counter({"KEEP, STRAIGHT": 30, "STOP, STRAIGHT": 30, "ACCELERATE, LEFT_TURN": 30})
    rng = np.random.default_rng(1)
    labels = list(counts.elements())
    rng.shuffle(labels)
    items = ask([(label, label if rng.random() < 0.6 else "KEEP, STRAIGHT") for label in labels])
    found = answer_measures(items)
    assert measures(items).keys() <= found.keys() <= METRICS.keys()
    draws = draw_scenes([item.scene for item in items], 0)
    for name in measures(items):
        low, high = measure_interval(found[name], draws)
        assert low is not None and low <= found[name].point <= high, name
