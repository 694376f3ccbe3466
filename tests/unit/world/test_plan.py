"""Key frames: how many per split, from which scenes, to which quota."""

from collections import Counter

import pytest

from drivedistill.world.action import action
from drivedistill.world.dataset.plan import (
    APART,
    CANDIDATES,
    PER_SCENE,
    Chunk,
    _scene_seed,
    chunks,
    parts,
    pick_key_frames,
)


@pytest.fixture(scope="module")
def picked():
    """Two regular chunks and a corner one of the training split."""
    return {chunk: pick_key_frames(chunk, seed=3) for chunk in chunks(200) if chunk.split == "train"}


@pytest.mark.parametrize("keyframes", [20, 21, 57, 240, 6000])
def test_every_key_frame_belongs_to_one_split(keyframes):
    counts = parts(keyframes)
    assert sum(counts.values()) == keyframes
    assert min(counts.values()) >= 1
    work = chunks(keyframes)
    assert sum(chunk.keyframes for chunk in work) == keyframes
    assert len({chunk.name for chunk in work}) == len(work)


def test_training_has_seventeen_regular_frames_and_a_corner_frame():
    counts = parts(6000)
    assert counts["train", "regular"] / counts["train", "corner"] == pytest.approx(17, rel=0.01)


def test_no_scene_seed_occurs_twice():
    work = [*chunks(3000), Chunk("train", "regular", 2**20 - 1, 1)]
    seeds = [_scene_seed(chunk, seed, number) for seed in (0, 1, 7) for chunk in work for number in (0, 1, 1023)]
    assert len(set(seeds)) == len(seeds)


def test_chunks_are_filled_from_distinct_moments(picked):
    for chunk, picks in picked.items():
        assert sum(len(pick.steps) for pick in picks) == chunk.keyframes
        for pick in picks:
            assert len(pick.steps) <= PER_SCENE
            assert all(later - earlier >= APART for earlier, later in zip(pick.steps, pick.steps[1:], strict=False))
            assert set(pick.steps) <= set(CANDIDATES)


def test_straight_on_at_the_same_speed_is_not_the_answer(picked):
    actions = [action(pick.drive, step) for picks in picked.values() for pick in picks for step in pick.steps]
    assert sum(done.lateral != "go straight" for done in actions) / len(actions) >= 0.25
    assert Counter(actions).most_common(1)[0][1] / len(actions) < 0.3


def test_the_same_chunk_gives_the_same_key_frames(picked):
    chunk = next(iter(picked))
    again = pick_key_frames(chunk, seed=3)
    assert [(pick.drive.scene.seed, pick.steps) for pick in again] == [
        (pick.drive.scene.seed, pick.steps) for pick in picked[chunk]
    ]


def test_every_corner_kind_has_its_turn():
    corner = [chunk for chunk in chunks(2400) if chunk.split == "test-corner"][:2]
    kinds = {pick.drive.scene.kind for chunk in corner for pick in pick_key_frames(chunk, 1)}
    assert len(kinds) >= 11


def test_training_never_shows_what_is_held_out(picked):
    assert not any(pick.drive.scene.held_out for picks in picked.values() for pick in picks)
    tests = [pick for chunk in chunks(600) if chunk.split == "test-corner" for pick in pick_key_frames(chunk, 0)]
    assert any(pick.drive.scene.held_out for pick in tests)


def test_key_frames_are_clear(picked):
    for pick in (pick for picks in picked.values() for pick in picks):
        for step in pick.steps:
            speeds = pick.drive.speeds[0, step : step + 21]
            assert speeds.min() > min(speeds[0], speeds[-1]) - 1.01
            lateral, longitudinal = action(pick.drive, step)
            assert not (pick.drive.accelerations[0, step] < -1 and longitudinal in ("keep speed", "accelerate"))
            assert not (pick.drive.turning[step] and lateral == "go straight")
