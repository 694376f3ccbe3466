import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivedistill.data.splits import _edges, refuse_leakage, shared_scenes, split_by_question, split_by_scene
from drivedistill.problems import InputError

THREE = {"train": 0.9, "val": 0.05, "test": 0.05}


def scenes_of(splits):
    return {name: {sample.scene for sample in samples} for name, samples in splits.items()}


@pytest.fixture
def rows(sample):
    return [sample(f"{scene}_{index}", scene=f"scene {scene}") for scene in range(40) for index in range(1 + scene % 5)]


def test_no_scene_is_shared_and_no_sample_is_lost(rows):
    splits = split_by_scene(rows, THREE, 0)
    scenes = scenes_of(splits)
    assert {name: len(found) for name, found in scenes.items()} == {"train": 36, "val": 2, "test": 2}
    assert not scenes["train"] & scenes["val"] and not scenes["val"] & scenes["test"]
    assert sorted(sample.id for part in splits.values() for sample in part) == sorted(sample.id for sample in rows)
    assert all(sample.split == name for name, part in splits.items() for sample in part)
    refuse_leakage(splits)


def test_split_depends_on_the_seed_and_not_on_the_order_of_the_file(rows):
    shuffled = random.Random(3).sample(rows, len(rows))
    assert scenes_of(split_by_scene(rows, THREE, 0)) == scenes_of(split_by_scene(shuffled, THREE, 0))
    assert scenes_of(split_by_scene(rows, THREE, 0)) != scenes_of(split_by_scene(rows, THREE, 1))


def test_split_is_the_same_on_every_machine(rows):
    splits = scenes_of(split_by_scene(rows, THREE, 0))
    assert splits["val"] == {"scene 37", "scene 8"} and splits["test"] == {"scene 21", "scene 3"}


def test_split_by_question_shares_scenes(rows):
    splits = split_by_question(rows, {"train": 0.5, "test": 0.5}, 0)
    assert {name: len(part) for name, part in splits.items()} == {"train": 60, "test": 60}
    assert shared_scenes(splits)


def test_few_scenes_still_fill_every_split(sample):
    rows = [sample(str(scene), scene=str(scene)) for scene in range(3)]
    assert {name: len(part) for name, part in split_by_scene(rows, THREE, 0).items()} == {
        "train": 1,
        "val": 1,
        "test": 1,
    }


def test_fewer_scenes_than_splits_are_an_empty_split(sample):
    for rows in ([], [sample("a"), sample("b")]):
        with pytest.raises(InputError, match="empty split"):
            split_by_scene(rows, THREE, 0)
    assert split_by_scene([sample("a")], {"train": 1.0, "val": 0.0}, 0) == {"train": [sample("a")], "val": []}


def test_leakage_lists_every_shared_scene(sample):
    train = [sample("a", scene="x"), sample("b", scene="y"), sample("c", scene="z")]
    test = [sample("d", scene="x"), sample("e", scene="y"), sample("f", scene="z", dataset="other")]
    with pytest.raises(InputError) as error:
        refuse_leakage({"train": train, "test": test})
    assert [problem.record for problem in error.value.problems] == ["scene x", "scene y"]


@given(st.data())
def test_cuts_leave_no_part_empty_and_are_near_the_fractions(data):
    weights = data.draw(st.lists(st.integers(1, 100), min_size=1, max_size=6))
    fractions = [weight / sum(weights) for weight in weights]
    count = data.draw(st.integers(len(weights), 2000))
    edges = _edges(count, fractions)
    sizes = [end - start for start, end in pairwise(edges)]
    assert edges[0] == 0 and edges[-1] == count and min(sizes) >= 1
    if min(fractions) * count >= 1:
        assert all(abs(size - fraction * count) <= 1.001 for size, fraction in zip(sizes, fractions, strict=True))
