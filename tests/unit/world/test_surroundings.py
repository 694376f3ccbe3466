"""What stands around a drive keeps off the roads, and is where the scene says."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from drivedistill.world.driving import roads
from drivedistill.world.driving.dice import Dice
from drivedistill.world.materials import Draw, Material
from drivedistill.world.meshes.atlas import uv
from drivedistill.world.pictures.render import Renderer
from drivedistill.world.scene import LANE_M, ROAD_TYPES, Conditions, Drive, Road, Scene
from drivedistill.world.surroundings import Surroundings, surroundings
from drivedistill.world.surroundings.layout import CORNER_M, layout
from drivedistill.world.surroundings.markings import WHITE
from drivedistill.world.track import Track, lay

DAY, NIGHT = Conditions("clear", "day", True), Conditions("clear", "night", True)
STEPS = 5
CLEARANCE_M = 2.1
"""Above this, crowns of trees may reach over what lies beside the lanes."""


@cache
def some_roads() -> tuple[Road, ...]:
    made: list[Road] = []
    for seed in range(2):
        dice = Dice(seed, 99)
        for kind in ROAD_TYPES:
            made.append(roads.open_road(dice, kind))
            made.append(roads.bent_road(dice, kind, 20.0, 1 if seed % 2 else -1))
            for arms in (("left", "right"), ("left",), ("right",)):
                control = ("lights", "stop sign", "priority road")[seed]
                made.append(roads.junction_road(dice, kind, 41.0 + len(made) * 7 % 19, control, arms))
        made.append(roads.merging_road(dice, "highway", 20.0, 120.0))
        made.append(roads.merging_road(dice, "rural", 30.0, 110.0))
    return tuple(made)


def scene(road: Road, seed: int = 0, conditions: Conditions = DAY) -> Scene:
    signs = (roads.sign_beside(road, 0, "speed 50", 12.0), roads.sign_beside(road, 1, "works", 22.0, size=1.1))
    return Scene("follow", "follow", seed, False, conditions, road, (), roads.heads(road), signs)


@cache
def all_made() -> tuple[tuple[Scene, Surroundings], ...]:
    scenes = [scene(road, number) for number, road in enumerate(some_roads())]
    return tuple((each, surroundings(each)) for each in scenes)


def one(kind: str, conditions: Conditions = DAY, seed: int = 0) -> Surroundings:
    return surroundings(scene(roads.open_road(Dice(1), kind), seed, conditions))


def samples(points: np.ndarray) -> np.ndarray:
    """Corners and centres of triangles, float[n, 3]."""
    return np.concatenate([points, points.mean(axis=1, keepdims=True)], axis=1).reshape(-1, 3)


def on_lanes(
    track: Track, points: np.ndarray, right: float, left: float, span: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """The points between the edges, and their d."""
    line = track.points[::20]
    near = np.hypot(points[:, 0, None] - line[:, 0], points[:, 1, None] - line[:, 1]).min(axis=1) < 15.0
    points = np.unique(np.round(points[near], 3), axis=0)
    s, d = track.project(points[:, 0], points[:, 1])
    inside = (s > span[0]) & (s < span[1]) & (d > right + 0.02) & (d < left - 0.02)
    return points[inside], d[inside]


def test_nothing_stands_on_a_road():
    for each, made in all_made():
        road = each.road
        points = samples(made.standing.points)
        points = points[points[:, 2] < CLEARANCE_M]
        left = 0.3 if road.type == "highway" and not road.opposite else road.left + road.margin
        span = (-85.0, road.track.end)
        blocked, _ = on_lanes(road.track, points, road.right - road.margin, left, span)
        assert not len(blocked), road
        if road.junction is not None:
            half = LANE_M + road.margin
            arm = (-100.0 * ("right" in road.junction.arms), 100.0 * ("left" in road.junction.arms))
            assert not len(on_lanes(road.junction.cross, points, -half, half, arm)[0]), road
        if road.merge is not None:
            edge = road.right - LANE_M
            assert not len(on_lanes(road.track, points, edge, road.right, (road.merge[0], road.merge[1] - 40))[0])


def test_traffic_may_pass_below_what_reaches_over_the_road():
    for each, made in all_made():
        road, points = each.road, made.standing.points.reshape(-1, 3)
        low = points[points[:, 2] < 4.5]
        over, d = on_lanes(road.track, low, road.right, road.left, (-85.0, road.track.end))
        assert not len(over[np.abs(d) > 0.5] if road.type == "highway" else over)


def test_nothing_stands_on_the_rounded_corners_of_a_junction():
    for each, made in all_made():
        plan, junction = layout(each), each.road.junction
        if plan.cross is None or junction is None:
            continue
        low = made.standing.points.reshape(-1, 3)
        low = np.unique(np.round(low[low[:, 2] < 0.5], 3), axis=0)
        low = low[np.hypot(low[:, 0] - junction.cross.points[240, 0], low[:, 1] - junction.cross.points[240, 1]) < 40]
        s, d = each.road.track.project(low[:, 0], low[:, 1])
        across = np.abs(s - junction.s) - plan.cross.left
        for side, beyond in (("left", d - plan.main.left), ("right", plan.main.right - d)):
            inside = (across > 0) & (across < CORNER_M) & (beyond > 0) & (beyond < CORNER_M)
            distance = np.hypot(CORNER_M - across[inside], CORNER_M - beyond[inside])
            assert side not in junction.arms or (distance < CORNER_M).all()


def test_meshes_are_sound_and_not_too_many():
    for _, made in all_made():
        for mesh in (made.ground, made.standing):
            assert all(np.isfinite(part).all() for part in (mesh.points, mesh.uv, mesh.colours))
            assert set(mesh.materials) <= set(Material)
        assert len(made.ground) + len(made.standing) <= 9500
        assert len(made.ground_seeds) == len(made.ground)
        assert len(made.standing_seeds) == len(made.standing_ids) == len(made.standing)
        textured = made.standing.materials == Material.TEXTURE
        assert (made.standing.uv[textured] >= 0).all()
        assert (made.standing.uv[textured] <= 1).all()
    assert np.mean([len(made.ground) + len(made.standing) for _, made in all_made()]) < 6500


def test_ground_lies_flat_and_begins_with_the_land():
    for _, made in all_made():
        assert (made.ground.points[..., 2] == 0).all()
        assert (made.ground.flags == Draw.GROUND | Draw.TWO_SIDED | Draw.NO_SHADOW).all()
        assert not (made.standing.flags & Draw.GROUND).any()
        assert np.ptp(made.ground.points[:2, :, 0]) >= 900


def painted_at(made: Surroundings, x: float, y: float) -> int:
    """Material of the last ground triangle over a point."""
    first, second, third = made.ground.points[..., :2].transpose(1, 0, 2)
    point = np.array([x, y])
    turns = [
        (b - a)[:, 0] * (point - a)[:, 1] - (b - a)[:, 1] * (point - a)[:, 0]
        for a, b in ((first, second), (second, third), (third, first))
    ]
    over = (np.min(turns, axis=0) >= 0) | (np.max(turns, axis=0) <= 0)
    return int(made.ground.materials[np.flatnonzero(over)[-1]])


def test_patterns_of_the_ground_follow_the_roads():
    for each, made in all_made():
        tracks = [each.road.track] + ([each.road.junction.cross] if each.road.junction else [])
        points, along = made.ground.points[2:, :, :2], made.ground.uv[2:]
        gaps = []
        for track in tracks:
            pose = track.world(along[..., 0], along[..., 1])
            gaps.append(np.hypot(pose.x - points[..., 0], pose.y - points[..., 1]).max(axis=1))
        assert np.min(gaps, axis=0).max() < 1e-6


def test_lanes_are_asphalt_or_paint_and_verges_are_not():
    for each, made in all_made()[:20]:
        road = each.road
        for s in (-40.0, 5.0, 33.0, 90.0):
            for lane in range(-road.opposite, road.lanes):
                x, y, _ = road.track.world(s, road.lane(lane) + 0.3)
                assert painted_at(made, float(x), float(y)) in (Material.ASPHALT, Material.PAINT)
        x, y, _ = road.track.world(-40.0, road.right - road.margin - 1.0)
        beside = Material.PAVING if road.pavement else Material.DIRT
        assert painted_at(made, float(x), float(y)) == beside


def test_edges_follow_bends():
    for each, made in all_made():
        road = each.road
        if np.ptp(road.track.headings) and road.merge is None and road.junction is None:
            for s in np.arange(-30.3, 150.0, 3.1):
                inside, outside = (road.track.world(s, road.right - road.margin + shift)[:2] for shift in (0.4, -0.5))
                assert painted_at(made, *inside) == Material.ASPHALT
                assert painted_at(made, *outside) in (Material.PAVING, Material.DIRT)


def test_kerbs_show_no_corners_in_sharp_bends():
    for kind, radius in (("residential", 25.0), ("urban", 50.0)):
        track = lay([(60.0, 0.0), (0.9 * radius, 1 / radius), (80.0, 0.0)], start=-40.0)
        plan = layout(scene(replace(roads.open_road(Dice(1), kind), track=track)))
        ends = np.concatenate([[plan.main.painted[0]], plan.main.cuts, [plan.main.painted[1]]])
        turns = np.abs(np.diff(track.world(ends, 0.0).yaw))
        assert turns.max() < 0.045
        assert len(ends) < 60


def test_no_lane_line_crosses_a_junction():
    for each, made in all_made():
        junction = each.road.junction
        if junction is not None and each.road.lanes > 1:
            for s in np.arange(-3.0, 3.0, 0.5):
                x, y, _ = each.road.track.world(junction.s + s, -LANE_M)
                assert painted_at(made, float(x), float(y)) == Material.ASPHALT


def test_only_open_arms_are_painted():
    for each, made in all_made():
        junction = each.road.junction
        if junction is not None:
            for side, name in ((1, "left"), (-1, "right")):
                edge = abs(each.road.left if side > 0 else each.road.right) + each.road.margin
                x, y, _ = junction.cross.world(side * (edge + 8.0), 1.2)
                is_road = painted_at(made, float(x), float(y)) in (Material.ASPHALT, Material.PAINT)
                assert is_road == (name in junction.arms) or each.road.type == "highway"


def test_acceleration_lane_is_paved_and_has_a_dashed_line():
    for each, made in all_made():
        if each.road.merge is not None:
            begin, end = each.road.merge
            for s in np.linspace(begin + 1, end - 35, 9):
                x, y, _ = each.road.track.world(s, each.road.right - LANE_M / 2)
                assert painted_at(made, float(x), float(y)) == Material.ASPHALT
            border = [
                painted_at(made, *each.road.track.world(s, each.road.right)[:2])
                for s in np.arange(begin + 1, end - 35, 0.5)
            ]
            assert {Material.ASPHALT, Material.PAINT} == set(border)


def test_stop_line_and_zebra_are_painted():
    road = roads.junction_road(Dice(3), "urban", 60.0, "lights")
    made = surroundings(scene(road))
    stop = road.stop_line
    assert stop is not None
    assert painted_at(made, *road.track.world(stop + 0.5, road.lane(0))[:2]) == Material.PAINT
    across = [
        painted_at(made, *road.track.world(road.junction.s - 7.4, d)[:2]) for d in np.arange(road.right, road.left, 0.1)
    ]
    assert 0.3 < np.mean(np.array(across) == Material.PAINT) < 0.7
    crossed = replace(roads.open_road(Dice(1), "residential"), crosswalk=30.0)
    made = surroundings(scene(crossed))
    across = [painted_at(made, *crossed.track.world(30.0, d)[:2]) for d in np.arange(-3.5, 3.5, 0.1)]
    assert 0.3 < np.mean(np.array(across) == Material.PAINT) < 0.7


def test_markings_keep_to_the_paint():
    made = one("urban")
    paint = made.ground.materials == Material.PAINT
    assert (made.ground.colours[paint] == WHITE).all(axis=1).any()


def test_signs_and_lights_have_their_ids_and_nothing_else_has():
    for each, made in all_made():
        wanted = {sign.id for sign in each.signs} | {head.id for head in each.heads}
        assert set(made.standing_ids) - {0} == wanted
        for sign in each.signs:
            plate = made.standing.points[made.standing_ids == sign.id]
            assert np.allclose(plate.reshape(-1, 3).mean(0)[:2], (sign.x, sign.y), atol=0.1)
            assert np.isclose(plate[..., 2].min(), sign.z)
            assert np.isclose(np.ptp(plate[..., 2]), sign.size)
        for head in each.heads:
            housing = made.standing.points[made.standing_ids == head.id].reshape(-1, 3)
            assert np.allclose([np.ptp(housing[:, 2]), housing[:, 2].min()], [1.2, head.z])
            assert np.allclose(housing.mean(0)[:2], (head.x, head.y), atol=0.15)


def test_sign_reads_from_left_to_right_for_those_it_faces():
    each, made = all_made()[0]
    sign = each.signs[0]
    mine = made.standing_ids == sign.id
    points, texture = made.standing.points[mine].reshape(-1, 3), made.standing.uv[mine].reshape(-1, 2)
    # Seen by somebody who looks against `facing`, the right hand is at facing + 90 degrees.
    right = -np.sin(sign.facing) * points[:, 0] + np.cos(sign.facing) * points[:, 1]
    assert np.corrcoef(right, texture[:, 0])[0, 1] > 0.99
    assert np.allclose(texture.min(0), uv(sign.kind).min(0))


@pytest.mark.parametrize("kind", ["residential", "rural"])
def test_bush_hides_a_part_of_its_sign_from_those_who_come_near(kind):
    for seed in range(3):
        road = roads.bent_road(Dice(seed, 5), kind, 60.0, 1) if seed else roads.open_road(Dice(1), kind)
        sign = roads.sign_beside(road, 0, "stop", 50.0, size=0.85 + 0.1 * seed)
        plain, hidden = (
            Renderer(_driven(replace(scene(road), signs=(each,))))
            for each in (sign, replace(sign, hidden_by_bush=True))
        )
        for step in range(STEPS):
            bare, left = (
                np.sum(each.views(step, 480, 270, pictures=False).instances["CAM_FRONT"] == sign.id)
                for each in (plain, hidden)
            )
            assert bare > 20
            assert 0.3 < 1 - left / bare < 0.8


def _driven(scene: Scene) -> Drive:
    """The ego comes on its lane from 35 to 15 metres before s = 50."""
    poses = np.stack(scene.road.track.world(np.linspace(15.0, 35.0, STEPS), scene.road.lane(0)), axis=1)[None]
    zero = np.zeros((1, STEPS))
    still = zero.astype(np.int8)
    return Drive(scene, poses, zero, zero, still, zero[0], still[0], (None,) * STEPS, ())


@pytest.mark.parametrize("kind", ["urban", "residential", "highway"])
def test_lamps_shine_only_in_the_dark_where_they_are_lit(kind):
    lit = one(kind, NIGHT)
    assert lit.lamps.shape[1:] == (7,)
    assert lit.glows.shape == (len(lit.lamps), 10)
    assert len(lit.lamps) > 5
    assert (lit.lamps[:, 2] > 5).all()
    assert (lit.standing.materials == Material.LAMP).any()
    for conditions in (DAY, replace(NIGHT, street_lamps=False)):
        dark = one(kind, conditions)
        assert len(dark.lamps) == len(dark.glows) == 0
        assert not (dark.standing.materials == Material.LAMP).any()


def test_facades_have_one_seed_per_building():
    made = one("urban")
    facade = made.standing.materials == Material.FACADE
    assert (made.standing_seeds[facade] > 0).all()
    assert len(np.unique(made.standing_seeds[facade])) == facade.sum() // 8


def test_same_scene_same_surroundings_and_other_seed_other_ones():
    first, again, other = one("rural"), one("rural"), one("rural", seed=1)
    assert np.array_equal(first.standing.points, again.standing.points)
    assert np.array_equal(first.ground.colours, again.ground.colours)
    assert not np.array_equal(first.standing.points[:500], other.standing.points[:500])


def test_weather_does_not_move_buildings():
    winter = one("residential", Conditions("snow", "day", True))
    summer = one("residential")
    walls = [made.standing.points[made.standing.materials == Material.FACADE] for made in (winter, summer)]
    assert np.array_equal(*walls)
