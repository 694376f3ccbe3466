"""Every kind of scene shows what its name says, and none of the rare ones fixes what to do."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

from drivedistill.world.action import action
from drivedistill.world.catalogue import KINDS
from drivedistill.world.driving.drive import drive_scene
from drivedistill.world.driving.hazards import HELD_OUT, USUAL
from drivedistill.world.driving.kinds import CORNER, HAZARD_BUILDERS, NUMBERS, REGULAR, build
from drivedistill.world.scene import HEAD_IDS, LANE_M, SIGN_IDS


@lru_cache
def driven(kind, count=20, held_out=False):
    drives = (drive_scene(kind, seed, held_out=held_out) for seed in range(100, 100 + count))
    return [drive for drive in drives if drive is not None]


def share(kind, fact):
    return np.mean([fact(drive) for drive in driven(kind)])


def reacts(*reasons):
    return lambda drive: any(decision.reason in reasons for decision in drive.decisions[6:61])


def does(*laterals):
    return lambda drive: any(action(drive, step).lateral in laterals for step in range(6, 61, 3))


def has(role):
    return lambda drive: any(actor.role == role and actor.hazard for actor in drive.scene.actors)


CHANGES = ("change to the left lane", "change to the right lane")
EXPECTED = {
    "follow": (reacts("lead"), 0.9),
    "lead_brake": (lambda drive: drive.accelerations[0, :80].min() < -2, 0.8),
    "red_light": (reacts("light"), 0.9),
    "turn_left": (lambda drive: (drive.turning == 1).any(), 0.6),
    "turn_right": (lambda drive: (drive.turning == -1).any(), 0.8),
    "overtake": (does("change to the left lane"), 0.8),
    "crosswalk": (has("crosser"), 1.0),
    "cut_in": (reacts("merging"), 0.8),
    "cyclist": (lambda drive: any(KINDS[a.kind].family == "cyclist" for a in drive.scene.actors), 1.0),
    "queue": (lambda drive: drive.speeds[0].min() < 3.0, 0.9),
    "curve": (does("turn left", "turn right"), 0.95),
    "rural_junction": (lambda drive: drive.scene.road.junction is not None and not drive.scene.heads, 1.0),
    "residential_junction": (reacts("stop sign", "yield", "turn", "crossing"), 0.7),
    "merge": (lambda drive: drive.offsets[0] < drive.scene.road.right or has("merging")(drive), 1.0),
    "lane_change": (does(*CHANGES), 0.8),
    "fallen_cargo": (has("obstacle"), 1.0),
    "construction": (lambda drive: any(sign.kind == "works" for sign in drive.scene.signs), 1.0),
    "overturned": (has("obstacle"), 1.0),
    "ped_dash": (has("crosser"), 1.0),
    "wrong_way": (has("wrong way"), 1.0),
    "stroller": (lambda drive: any("stroller" in actor.kind for actor in drive.scene.actors if actor.hazard), 1.0),
    "obscured_sign": (reacts("stop sign"), 0.4),
}


@pytest.mark.parametrize("kind", EXPECTED)
def test_the_story_is_told(kind):
    fact, at_least = EXPECTED[kind]
    assert share(kind, fact) >= at_least


@pytest.mark.parametrize("kind", CORNER)
def test_a_corner_kind_does_not_fix_the_action(kind):
    plans = [action(drive, 20) for drive in driven(kind)]
    assert len(set(plans)) > 1
    if kind in ("fallen_cargo", "animal", "construction", "ped_dash", "stroller", "overturned"):
        hazards = [{a.id for a in drive.scene.actors if a.hazard} for drive in driven(kind)]
        heeded = [
            any(decision.actor in ids for decision in drive.decisions[:91])
            for drive, ids in zip(driven(kind), hazards, strict=True)
        ]
        assert 0.1 < np.mean(heeded) < 0.95


def test_names_and_numbers():
    assert len(REGULAR) == 17
    assert len(CORNER) == 13
    assert sorted(NUMBERS.values()) == list(range(30))
    with pytest.raises(KeyError):
        build("no such kind", 1)


def test_kind_and_manoeuvre():
    for kind in REGULAR + tuple(HAZARD_BUILDERS):
        assert driven(kind, 3)[0].scene.manoeuvre == kind
    for kind in ("dense_fog", "snow"):
        scene = driven(kind)[0].scene
        assert (scene.kind, scene.corner) == (kind, True)
        assert scene.manoeuvre in REGULAR


def test_unlit_nights_have_no_lamps():
    for drive in driven("unlit_night"):
        assert (drive.scene.conditions.light, drive.scene.conditions.street_lamps) == ("night", False)


def test_both_sides_occur():
    assert {int(side) for drive in driven("curve") for side in np.sign(drive.scene.road.track.headings[-1:])} == {-1, 1}
    for kind in ("rural_junction", "residential_junction"):
        assert {int(side) for drive in driven(kind, 40) for side in np.unique(drive.turning)} == {-1, 0, 1}
        controls = {drive.scene.road.junction.control for drive in driven(kind, 40)}
        assert controls == {"stop sign", "priority road"}
        assert {drive.scene.road.junction.arms for drive in driven(kind, 40)} >= {("left",), ("right",)}
    changes = {action(drive, step).lateral for drive in driven("lane_change") for step in range(6, 61, 3)}
    assert changes >= set(CHANGES)


def test_both_merge():
    lanes = [round((drive.scene.road.right - drive.offsets[0]) / LANE_M + 0.5) for drive in driven("merge")]
    assert {0, 1} <= set(lanes)
    assert any(has("merging")(drive) for drive in driven("merge"))


def test_curves_are_driven_slowly():
    for drive in driven("curve"):
        turned = np.abs(np.diff(np.unwrap(drive.poses[0, :, 2]))) / 0.1
        assert (turned * drive.speeds[0, 1:]).max() < 2.9


def test_ego_stops_at_stop_signs():
    for kind in ("rural_junction", "residential_junction", "obscured_sign"):
        for drive in driven(kind):
            junction = drive.scene.road.junction
            if junction is None or junction.control != "stop sign":
                continue
            s = drive.scene.road.track.project(*drive.poses[0, :, :2].T)[0]
            beyond = np.flatnonzero(s > junction.s - 5.0)
            if len(beyond):
                assert drive.speeds[0, : beyond[0]].min() < 0.4


@pytest.mark.parametrize("kind", ["turn_left", "residential_junction"])
def test_the_ego_lets_others_go_first(kind):
    waits = [
        step
        for drive in driven(kind, 40)
        for step, decision in enumerate(drive.decisions)
        if decision.reason == "yield" and drive.speeds[0, step] < 0.5
        if drive.scene.actors[decision.actor - 1].role in ("oncoming", "crossing")
    ]
    assert len(waits) > 60


def test_ids_of_heads_and_signs():
    for kind in ("red_light", "construction", "obscured_sign"):
        for drive in driven(kind):
            assert [head.id for head in drive.scene.heads] == [HEAD_IDS + i for i in range(len(drive.scene.heads))]
            assert [sign.id for sign in drive.scene.signs] == [SIGN_IDS + i for i in range(len(drive.scene.signs))]
    assert all(len(drive.scene.heads) == 2 for drive in driven("red_light"))


def test_lights_are_ahead_and_face_the_ego():
    for drive in driven("red_light"):
        x, y, yaw = drive.poses[0, 0]
        for head in drive.scene.heads:
            assert (head.x - x) * np.cos(yaw) + (head.y - y) * np.sin(yaw) > 20
            assert np.cos(head.facing - yaw) < -0.99


def test_held_out_appearances_stay_out_of_training():
    kept = {kind for kinds in HELD_OUT.values() for kind in kinds}
    assert not kept & {kind for kinds in USUAL.values() for kind in kinds}
    for kind in REGULAR + CORNER:
        for drive in driven(kind):
            assert not drive.scene.held_out
            assert not kept & {actor.kind for actor in drive.scene.actors}, kind


@pytest.mark.parametrize("kind", HELD_OUT)
def test_held_out_scenes_show_them(kind):
    drives = driven(kind, 20, True)
    assert len(drives) >= 16
    for drive in drives:
        assert drive.scene.held_out
        assert any(actor.kind in HELD_OUT[kind] and actor.hazard for actor in drive.scene.actors)
    assert {a.kind for drive in drives for a in drive.scene.actors if a.hazard} >= set(HELD_OUT[kind])


def test_nothing_is_held_out_where_no_hazard_has_a_shape():
    assert not any(drive.scene.held_out for drive in driven("wrong_way", 5, True))


def test_a_trailer_stays_behind_its_tractor():
    trailers = 0
    for drive in driven("odd_vehicle", 40, True):
        for actor in drive.scene.actors:
            if actor.kind != "log trailer":
                continue
            trailers += 1
            assert drive.scene.actors[actor.id - 2].kind in ("pickup", "SUV")
            apart = np.hypot(*(drive.poses[actor.id, :, :2] - drive.poses[actor.id - 1, :, :2]).T)
            assert 5.6 < apart[0] < 6.5
            assert np.ptp(apart) < 0.1
            assert np.array_equal(drive.speeds[actor.id], drive.speeds[actor.id - 1])
    assert trailers > 8


def in_view(drive, actor, step, farthest=45.0):
    """Is the middle of somebody ahead of the ego, within 50 degrees, and not behind a vehicle?"""
    x, y, _ = drive.seen_from_ego(actor, step)
    if not 3.0 < x < farthest or abs(y) > 1.2 * x:
        return False
    ego, place = drive.poses[0, step, :2], drive.poses[actor, step, :2]
    line = ego + (place - ego) * np.linspace(0.0, 1.0, 80)[:, None]
    for other in drive.scene.actors:
        if other.id != actor and KINDS[other.kind].family == "vehicle":
            yaw = drive.poses[other.id, step, 2]
            away = line - drive.poses[other.id, step, :2]
            along, left = away @ (np.cos(yaw), np.sin(yaw)), away @ (-np.sin(yaw), np.cos(yaw))
            length, width, _ = KINDS[other.kind].size
            if ((np.abs(along) < length / 2) & (np.abs(left) < width / 2)).any():
                return False
    return True


@pytest.mark.parametrize("kind", ["ped_dash", "cyclist"])
def test_whom_the_scene_is_about_is_seen(kind):
    seen = []
    for drive in driven(kind, 40):
        (actor,) = (actor.id for actor in drive.scene.actors if actor.hazard)
        seen.append(sum(in_view(drive, actor, step) for step in range(6, 61)))
    assert np.mean([steps >= 10 for steps in seen]) >= 0.85


def test_who_dashes_comes_from_behind_a_vehicle():
    dashes = 0
    for drive in driven("ped_dash", 40):
        (runner,) = (actor.id for actor in drive.scene.actors if actor.hazard)
        near = [
            actor
            for actor in drive.scene.actors
            if actor.role == "parked" and actor.kind in ("van", "truck", "SUV")
            if np.hypot(*(drive.poses[actor.id, 0, :2] - drive.poses[runner, 0, :2])) < 8.0
        ]
        assert near
        dashes += drive.speeds[runner].max() > 0.0
    assert 15 < dashes < 38


def test_people_walk_clear_of_posts_and_bins():
    walkers = 0
    for kind in ("lane_keep", "crosswalk", "stroller"):
        for drive in driven(kind):
            road = drive.scene.road
            for actor in drive.scene.actors:
                if actor.role == "walking":
                    walkers += 1
                    d = road.track.project(*drive.poses[actor.id, 0, :2])[1]
                    from_kerb = (d - road.left if d > 0 else road.right - d) - road.margin
                    assert 1.25 < from_kerb < 3.0
    assert walkers > 30


def test_few_stand_nose_to_nose():
    assert np.mean([drive.speeds[0, -20:].max() < 0.5 for drive in driven("wrong_way", 60)]) < 0.15


def test_the_ego_comes_back_after_passing_an_obstacle():
    """On a road with one lane it leaves over the centre line, and is in its lane again before the end."""
    borrowed, back = 0, 0
    for kind in ("fallen_cargo", "overturned", "construction", "cyclist"):
        for drive in driven(kind, 40):
            out = np.flatnonzero(drive.offsets > drive.offsets[0] + 1.4)
            if drive.scene.road.lanes > 1 or not len(out) or out[0] > 60:
                continue
            borrowed += 1
            back += abs(drive.offsets[-1] - drive.offsets[0]) < 0.1
    assert borrowed > 10
    assert back >= 0.5 * borrowed
