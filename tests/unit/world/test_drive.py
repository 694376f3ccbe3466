"""Facts that hold for every drive, whatever its kind."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from drivedistill.world.action import action
from drivedistill.world.catalogue import KINDS
from drivedistill.world.driving.drive import drive_scene, simulate, stays_on_road
from drivedistill.world.driving.kinds import CORNER, REGULAR, build
from drivedistill.world.scene import BRAKE_LIGHTS, EGO_SIZE, STEP_S, STEPS

SEEDS = range(5)
CANDIDATES = range(6, 61, 3)


@pytest.fixture(scope="module")
def drives():
    driven = {(kind, seed): drive_scene(kind, seed) for kind in REGULAR + CORNER for seed in SEEDS}
    return {name: drive for name, drive in driven.items() if drive is not None}


def corners(pose, size):
    cos, sin = np.cos(pose[2]), np.sin(pose[2])
    signs = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]]) * np.array(size[:2]) / 2
    return pose[:2] + signs @ np.array([[cos, sin], [-sin, cos]])


def touch(one, other):
    """Separating axes: the normals of the sides of both rectangles."""
    for rectangle in (one, other):
        for axis in (rectangle[0] - rectangle[1], rectangle[1] - rectangle[2]):
            first, second = one @ axis, other @ axis
            if first.max() < second.min() or second.max() < first.min():
                return False
    return True


def overlapping(drive, first, second, sizes, steps=STEPS):
    near = np.hypot(*(drive.poses[first, :steps, :2] - drive.poses[second, :steps, :2]).T)
    close = np.flatnonzero(near < (sizes[first][0] + sizes[second][0]) / 2 + 2.6)
    return any(
        touch(corners(drive.poses[first, step], sizes[first]), corners(drive.poses[second, step], sizes[second]))
        for step in close
    )


def test_a_drive_beside_the_road_is_told():
    stage = build("lane_keep", 3)
    drive = simulate(stage)
    assert stays_on_road(stage, drive)
    edges = (stage.road.right - stage.road.margin, stage.road.left + stage.road.margin)
    for beyond in (edges[0] + EGO_SIZE[1] / 2 - 0.05, edges[1] - EGO_SIZE[1] / 2 + 0.05):
        strayed = drive.offsets.copy()
        strayed[50] = beyond
        assert not stays_on_road(stage, dataclasses.replace(drive, offsets=strayed))


def test_nearly_every_scene_can_be_driven(drives):
    assert len(drives) >= 0.95 * len(REGULAR + CORNER) * len(SEEDS)


def test_the_ego_touches_nobody(drives):
    for name, drive in drives.items():
        sizes = [EGO_SIZE, *(KINDS[actor.kind].size for actor in drive.scene.actors)]
        for row in range(1, len(sizes)):
            assert not overlapping(drive, 0, row, sizes), (name, drive.scene.actors[row - 1])


def test_nobody_drives_through_anybody(drives):
    for name, drive in drives.items():
        actors = drive.scene.actors
        sizes = [EGO_SIZE, *((KINDS[a.kind].size[0] - 0.25, KINDS[a.kind].size[1] - 0.25) for a in actors)]
        vehicles = [actor for actor in actors if KINDS[actor.kind].family == "vehicle"]
        for first in vehicles:
            for second in vehicles:
                if first.id < second.id and (first.moves or second.moves):
                    assert not overlapping(drive, first.id, second.id, sizes), (name, first, second)


def test_logs_have_their_shapes_and_finite_values(drives):
    for drive in drives.values():
        rows = len(drive.scene.actors) + 1
        assert drive.poses.shape == (rows, STEPS, 3)
        assert drive.speeds.shape == drive.accelerations.shape == drive.indicators.shape == (rows, STEPS)
        assert drive.offsets.shape == drive.turning.shape == (STEPS,)
        assert len(drive.signals) == len(drive.decisions) == STEPS
        assert np.isfinite(drive.poses).all()
        assert (drive.speeds >= 0).all()
        assert drive.indicators.dtype == drive.turning.dtype == np.int8
        assert set(np.unique(drive.indicators)) <= {-1, 0, 1}
        assert [actor.id for actor in drive.scene.actors] == list(range(1, rows))


def test_places_follow_from_speeds_and_speeds_from_accelerations(drives):
    for name, drive in drives.items():
        moved = np.hypot(*np.moveaxis(np.diff(drive.poses[..., :2], axis=1), -1, 0))
        # The road's curvature jumps where a bend begins: one step there is off by a few centimetres.
        assert np.abs(moved - drive.speeds[:, 1:] * STEP_S).max() < 0.13, name
        driven = [0, *(a.id for a in drive.scene.actors if a.role not in ("walking", "crosser"))]
        gained = np.diff(drive.speeds, axis=1) - drive.accelerations[:, :-1] * STEP_S
        assert np.abs(gained[driven]).max() < 1e-9, name


def test_bodies_point_where_they_go(drives):
    for name, drive in drives.items():
        move = np.diff(drive.poses[..., :2], axis=1)
        length = np.hypot(move[..., 0], move[..., 1])
        heading = np.arctan2(move[..., 1], move[..., 0])
        off = np.abs(np.angle(np.exp(1j * (heading - drive.poses[:, 1:, 2]))))
        assert off[length > 0.1].max() < 0.2, name


@pytest.mark.parametrize("kind", REGULAR + CORNER)
def test_the_same_seed_gives_the_same_drive(kind):
    one, other = (drive_scene(kind, 7) for _ in range(2))
    if one is None or other is None:
        assert one is other
        return
    for name in ("poses", "speeds", "accelerations", "indicators", "offsets", "turning"):
        assert np.array_equal(getattr(one, name), getattr(other, name))
    assert one.decisions == other.decisions
    assert dataclasses.replace(one.scene, road=None) == dataclasses.replace(other.scene, road=None)


def test_seeds_differ():
    assert len({drive_scene("lane_keep", seed).speeds[0].tobytes() for seed in range(10)}) == 10


def test_decisions_name_whom_they_are_about(drives):
    alone = {"free", "light", "stop sign", "turn", "curve"}
    for name, drive in drives.items():
        roles = {actor.id: actor.role for actor in drive.scene.actors}
        for decision in drive.decisions:
            assert (decision.actor == 0) == (decision.reason in alone), (name, decision)
            role = roles.get(decision.actor)
            if decision.reason == "lead":
                assert role in ("traffic", "merging", "crossing", "oncoming")
            if decision.reason in ("wrong way", "crossing"):
                assert role == decision.reason


def test_nobody_crosses_who_drives_where_the_ego_is_going():
    """A car in the arm of the junction into which the ego turns is a leader, not somebody who crosses."""
    named = set()
    for kind in ("rural_junction", "residential_junction"):
        for seed in range(7000, 7020):
            drive = drive_scene(kind, seed)
            for step, decision in enumerate(drive.decisions):
                if not decision.actor or drive.scene.actors[decision.actor - 1].role != "crossing":
                    continue
                turned = drive.poses[0, -1, 2] if drive.turning.any() else drive.poses[0, step, 2]
                along = np.cos(drive.poses[decision.actor, step, 2] - turned)
                named.add(decision.reason)
                if drive.turning[step] and along > 0.9 and np.cos(turned - drive.poses[0, step, 2]) > 0.9:
                    assert decision.reason != "crossing", (kind, seed, step)
    assert named >= {"lead", "yield"}


def test_a_reason_costs_speed(drives):
    """The free road allows 1.6 m/s^2 at most; somebody who is a reason takes at least 0.25 m/s^2 of it."""
    slowed = 0
    for name, drive in drives.items():
        for step, decision in enumerate(drive.decisions):
            if decision.reason in ("lead", "crossing", "merging"):
                slowed += 1
                assert drive.accelerations[0, step] < 1.6 - 0.25 + 1e-9, (name, step)
    assert slowed > 100


@pytest.mark.parametrize("kind", ["turn_left", "turn_right", "rural_junction", "residential_junction"])
def test_nothing_but_a_person_makes_it_brake_hard_in_a_turn(kind):
    for seed in range(5000, 5040):
        drive = drive_scene(kind, seed)
        if drive is None:
            continue
        roles = {actor.id: actor.role for actor in drive.scene.actors}
        for step in np.flatnonzero(drive.accelerations[0] < -6.0):
            assert roles.get(drive.decisions[step].actor) == "crosser", (seed, step)


@pytest.mark.parametrize("kind", ["merge", "lane_change", "overtake", "odd_vehicle"])
def test_it_changes_only_into_gaps_that_fit(kind):
    for seed in range(3000, 3030):
        drive = drive_scene(kind, seed)
        assert drive is None or drive.accelerations[0].min() > -6.0, (kind, seed)


def test_the_others_do_not_begin_in_emergency_braking(drives):
    for step, most in ((0, 0.12), (6, 0.08), (12, 0.08)):
        braking = [
            drive.accelerations[actor.id, step] < BRAKE_LIGHTS
            for drive in drives.values()
            for actor in drive.scene.actors
            if actor.role in ("traffic", "oncoming", "crossing") and not actor.hazard
        ]
        assert 0.0 < np.mean(braking) < most
    assert len(braking) > 800


def test_once_released_it_is_not_stopped_again_by_who_stood():
    """Ego and crossing car do not start and stop for each other in turn."""
    for kind in ("residential_junction", "rural_junction", "obscured_sign"):
        for seed in range(5000, 5040):
            drive = drive_scene(kind, seed)
            waits = np.array([decision.reason == "yield" for decision in drive.decisions])
            begins = np.flatnonzero(~waits[:-1] & waits[1:])
            for_whom = [drive.decisions[step + 1].actor for step in begins]
            assert all(for_whom.count(actor) <= 2 for actor in for_whom), (kind, seed)


def test_the_ego_never_crosses_the_line_at_red(drives):
    crossed = 0
    for name, drive in drives.items():
        road = drive.scene.road
        assert all((signal is None) == (not drive.scene.heads) for signal in drive.signals)
        if not drive.scene.heads:
            continue
        front = road.track.project(*drive.poses[0, :, :2].T)[0] + EGO_SIZE[0] / 2
        over = (front[:-1] <= road.stop_line) & (front[1:] > road.stop_line)
        crossed += over.sum()
        assert not any(drive.signals[step + 1] == "red" for step in np.flatnonzero(over)), name
    assert crossed > 20


def test_it_indicates_before_it_moves_sideways(drives):
    shifts = turns = 0
    for name, drive in drives.items():
        moved = np.diff(drive.offsets)
        sideways = (np.abs(moved) > 0.004) & (drive.turning[1:] == 0)
        for step in np.flatnonzero(sideways & ~np.r_[False, sideways[:-1]]):
            if drive.scene.kind == "wrong_way" or step < 15:
                continue
            shifts += 1
            assert (drive.indicators[0, step - 14 : step + 2] == np.sign(moved[step])).all(), (name, step)
        turning = np.flatnonzero(drive.turning)
        if len(turning):
            turns += 1
            shown = drive.indicators[0, max(turning[0] - 15, 0) : turning[-1] + 1]
            assert (shown == drive.turning[turning[0]]).all(), name
    assert shifts > 20
    assert turns > 10


def test_others_indicate_before_they_cut_in(drives):
    for kind in ("cut_in", "merge"):
        for seed in SEEDS:
            drive = drives[kind, seed]
            actor = next((actor for actor in drive.scene.actors if actor.hazard), None)
            if actor is None:
                continue
            d = drive.scene.road.track.project(*drive.poses[actor.id, :, :2].T)[1]
            begins = int(np.flatnonzero(np.abs(d - d[0]) > 0.1)[0])
            shown = drive.indicators[actor.id, max(begins - 15, 0) : begins]
            assert (shown == np.sign(d[-1] - d[0])).mean() > 0.7


def test_offsets_rest_after_a_turn(drives):
    for drive in drives.values():
        turning = np.flatnonzero(drive.turning)
        if len(turning):
            assert (drive.offsets[turning[-1] :] == drive.offsets[turning[-1]]).all()
            assert (np.diff(turning) == 1).all()


def test_regular_scenes_are_not_all_straight(drives):
    regular = [drive for (kind, _), drive in drives.items() if kind in REGULAR]
    actions = [[action(drive, step).lateral for step in CANDIDATES] for drive in regular]
    bent = [sum(lateral != "go straight" for lateral in scene) >= 3 for scene in actions]
    assert np.mean(bent) >= 0.3
    assert {lateral for scene in actions for lateral in scene} == {
        "go straight",
        "turn left",
        "turn right",
        "change to the left lane",
        "change to the right lane",
    }
    assert np.mean([drive.scene.road.type == "urban" for drive in regular]) <= 0.55
    assert {drive.scene.road.type for drive in regular} == {"urban", "residential", "rural", "highway"}


def test_weather_and_light_are_crossed(drives):
    seen = {(d.scene.conditions.weather, d.scene.conditions.light) for (k, _), d in drives.items() if k in REGULAR}
    assert seen == {(weather, light) for weather in ("clear", "cloudy", "rain") for light in ("day", "dusk", "night")}
    foggy = {drive.scene.kind for drive in drives.values() if drive.scene.conditions.weather == "fog"}
    assert foggy == {"dense_fog"}
    for kind in ("dense_fog", "heavy_rain", "unlit_night", "snow"):
        assert len({drives[kind, seed].scene.manoeuvre for seed in SEEDS if (kind, seed) in drives}) > 2
