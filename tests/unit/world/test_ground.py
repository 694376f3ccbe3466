"""What is painted on the ground lies where the roads are, and follows them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from some_roads import all_made, one, scene

from drivedistill.world.driving import roads
from drivedistill.world.driving.dice import Dice
from drivedistill.world.materials import Draw, Material
from drivedistill.world.scene import LANE_M
from drivedistill.world.surroundings import Surroundings, surroundings
from drivedistill.world.surroundings.layout import layout
from drivedistill.world.surroundings.markings import WHITE
from drivedistill.world.track import lay


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
