"""What stands around a drive keeps off the roads, and is where the scene says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from some_roads import DAY, NIGHT, all_made, one, scene

from drivedistill.world.driving import roads
from drivedistill.world.driving.dice import Dice
from drivedistill.world.materials import Material
from drivedistill.world.meshes.atlas import uv
from drivedistill.world.pictures.render import Renderer
from drivedistill.world.scene import LANE_M, Conditions, Drive, Scene
from drivedistill.world.surroundings.layout import CORNER_M, layout
from drivedistill.world.track import Track

STEPS = 5
CLEARANCE_M = 2.1
"""Above this, crowns of trees may reach over what lies beside the lanes."""


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
