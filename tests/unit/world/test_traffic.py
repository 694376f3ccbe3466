"""Facts about routes, footprints, lights and the car-following model."""

from __future__ import annotations

import numpy as np
import pytest

from drivedistill.world.driving.dice import Dice
from drivedistill.world.driving.footprints import Box, overlap
from drivedistill.world.driving.roads import junction_road, merging_road
from drivedistill.world.driving.route import Shift, Turn, from_route, in_the_way, shifted, to_route
from drivedistill.world.driving.signals import closures, signals, stays_green, stays_red, turns_green, turns_red
from drivedistill.world.driving.speed_limits import SpeedLimits
from drivedistill.world.driving.traffic import AGENT, DRIVE, WALK, ease, idm
from drivedistill.world.scene import STEPS


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_route_coordinates_come_back(sign):
    turn = Turn(30.0, -1.75, 8.0, sign)
    for along in np.linspace(0.0, 80.0, 161):
        for d in (-3.0, -1.75, 0.5):
            s, across, direction = from_route(along, d, turn)
            back = to_route(s, across, turn)
            assert back == pytest.approx((along, d, direction), abs=1e-9)


def test_a_left_turn_ends_on_the_left():
    s, d, direction = from_route(30.0 + 8.0 * np.pi / 2 + 5.0, -1.75, Turn(30.0, -1.75, 8.0, 1.0))
    assert (s, d, direction) == pytest.approx((38.0, -1.75 + 8.0 + 5.0, np.pi / 2))


def test_without_a_turn_the_route_is_the_road():
    assert to_route(12.0, -3.0, Turn()) == from_route(12.0, -3.0, Turn()) == (12.0, -3.0, 0.0)


def test_a_change_of_lane_begins_and_ends_level():
    shift = Shift(-5.25, -1.75, 10.0, 30.0)
    assert shifted(shift, 5.0) == (-5.25, 0.0)
    assert shifted(shift, 45.0) == (-1.75, 0.0)
    assert shifted(shift, 25.0)[0] == pytest.approx(-3.5)
    assert ease(0.5) == (0.5, 1.5)


def corners(box):
    cos, sin = np.cos(box.yaw), np.sin(box.yaw)
    signs = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]]) * (box.length, box.width)
    return (box.x, box.y) + signs @ np.array([[cos, sin], [-sin, cos]])


def inside(points, box):
    cos, sin = np.cos(box.yaw), np.sin(box.yaw)
    x, y = points[:, 0] - box.x, points[:, 1] - box.y
    return (abs(cos * x + sin * y) <= box.length) & (abs(cos * y - sin * x) <= box.width)


def test_overlap_agrees_with_points_of_the_rectangles():
    random = np.random.default_rng(3)
    grid = np.stack(np.meshgrid(np.linspace(0, 1, 41), np.linspace(0, 1, 41)), -1).reshape(-1, 2)
    seen = set()
    for _ in range(400):
        one, other = (
            Box(*random.uniform(-3, 3, 2), random.uniform(-7, 7), *random.uniform(0.3, 2.5, 2)) for _ in range(2)
        )
        a, b, _, d = corners(other)
        filled = a + grid[:, :1] * (b - a) + grid[:, 1:] * (d - a)
        expected = bool(inside(filled, one).any())
        if expected != overlap(one, other):
            # A corner of overlap may fall between the points of the grid: a hair more must then hit.
            grown = one._replace(length=one.length + 0.15, width=one.width + 0.15)
            assert overlap(one, other)
            assert inside(filled, grown).any()
        assert overlap(one, other) == overlap(other, one)
        seen.add(expected)
    assert seen == {True, False}


def test_phases_of_a_light():
    assert set(signals([])) == {None}
    assert set(signals(stays_green())) == {"green"}
    shown = signals(turns_green(5.0))
    assert (shown[49], shown[50], len(shown)) == ("red", "green", STEPS)
    shown = signals(turns_red(2.0))
    assert (shown[19], shown[20], shown[49], shown[50]) == ("green", "yellow", "yellow", "red")
    shown = signals(turns_red(-1.0))
    assert (shown[0], shown[19], shown[20]) == ("yellow", "yellow", "red")


@pytest.mark.parametrize("phases", [stays_red(), stays_green(), turns_green(6.0), turns_red(3.0), turns_red(-1.0)])
def test_the_two_roads_are_never_open_together(phases):
    road = junction_road(Dice(1), "urban", 60.0, "lights")
    closed = closures(road.junction, phases)
    assert (closed.max(axis=1) > 0).all()
    green = np.array([signal == "green" for signal in signals(phases)])
    assert (closed[green, 0] == 0).all()
    assert (closed[green, 1] == 2).all()


def test_a_road_is_cleared_before_the_other_opens():
    junction = junction_road(Dice(1), "urban", 60.0, "lights").junction
    cross = closures(junction, turns_green(6.0))[:, 1]
    assert (cross[:10].max(), set(cross[10:40]), set(cross[40:])) == (0, {1}, {2})
    cross = closures(junction, turns_red(3.0))[:, 1]
    assert (set(cross[:80]), set(cross[80:])) == ({2}, {0})


def test_signs_close_one_road():
    for control, expected in (("stop sign", [2, 0]), ("priority road", [0, 2])):
        road = junction_road(Dice(1), "rural", 60.0, control)
        assert closures(road.junction, []).tolist() == [expected] * STEPS
    assert closures(None, []).max() == 0


def seen(place, speed, turn, **script):
    """The gap to somebody on the ego's way, None if nobody is."""
    agents = np.zeros(2, AGENT)
    agents["half_length"], agents["half_width"] = (2.35, script.pop("half_length", 2.3)), (0.95, 0.9)
    for name, value in {"reach": 1e9, **script}.items():
        agents[name][1] = value
    agents["yaw"] = agents["heading"]
    out = np.zeros((2, 4))
    count = in_the_way(agents, turn, Shift(-1.75, -1.75), place, speed, 100.0, 1.0, out)
    return out[0, 1] if count else None


def test_who_walks_no_farther_is_not_braked_for():
    walker = {"way": WALK, "s": 16.0, "d": -5.5, "heading": np.pi / 2, "v": 1.4, "half_length": 0.3}
    assert seen(0.0, 8.0, Turn(), **walker) is not None
    assert seen(0.0, 8.0, Turn(), **walker, reach=10.0, moved=9.8) is None


def test_whom_the_front_has_passed_is_not_braked_for():
    walker = {"way": WALK, "d": -4.4, "heading": np.pi / 2, "v": 0.9, "half_length": 0.3}
    assert seen(0.0, 8.0, Turn(), **walker, s=4.0) is not None
    assert seen(0.0, 8.0, Turn(), **walker, s=1.5) is None


def test_oncoming_traffic_at_a_turn_is_met_in_time_not_head_on():
    oncoming = {"way": DRIVE, "s": 33.0, "d": 1.75, "heading": np.pi, "v": 10.0}
    turn = Turn(30.0, -1.75, 9.5, 1.0)
    assert seen(26.0, 4.0, turn, **oncoming) is None  # it has passed before the ego is there
    assert seen(31.0, 5.0, turn, **(oncoming | {"s": 48.0})) is not None


def test_following():
    assert idm(10.0, 10.0, 1e3, 0.0) == pytest.approx(0.0, abs=0.01)
    assert idm(5.0, 10.0, 1e3, 0.0) > 1.0
    assert idm(10.0, 10.0, 10.0, 5.0) < -3.0
    assert idm(20.0, 10.0, 1.0, 20.0) == -7.5


def test_it_may_be_slow_in_a_turn_and_can_slow_down_before():
    road = junction_road(Dice(2), "rural", 60.0, "priority road")
    limits = SpeedLimits(road, Turn(52.0, -1.75, 6.2, -1.0))
    assert limits.at(53.0) == (pytest.approx((2.6 * 6.2) ** 0.5, rel=0.01), "turn")
    speeds = [limits.at(place)[0] for place in np.arange(0.0, 52.0, 0.5)]
    braking = -np.diff(np.square(speeds)) / 2 / 0.5
    assert braking.max() == pytest.approx(1.7, rel=0.01)
    assert limits.at(75.0)[0] > 50.0


def test_the_cross_road_leads_from_right_to_left():
    road = junction_road(Dice(4), "urban", 50.0, "lights")
    middle = road.track.world(50.0, 0.0)
    cross = road.junction.cross
    assert cross.project(middle.x, middle.y) == (pytest.approx(0.0, abs=1e-6), pytest.approx(0.0, abs=1e-6))
    right = cross.world(-20.0, 0.0)
    assert road.track.project(right.x, right.y) == (pytest.approx(50.0), pytest.approx(-20.0))


def test_an_acceleration_lane_has_an_end():
    assert merging_road(Dice(1), "highway", -90.0, 150.0).merge == (-90.0, 150.0)


def test_dice():
    dice = Dice(1, 2)
    assert all(0.0 <= dice.between(0.0, 2.0) < 2.0 for _ in range(100))
    assert {dice.count(1, 3) for _ in range(100)} == {1, 2, 3}
    assert {dice.side() for _ in range(50)} == {-1, 1}
    picked = [dice.pick("abc", (0.0, 3.0, 1.0)) for _ in range(400)]
    assert "a" not in picked
    assert picked.count("b") == pytest.approx(300, abs=50)
    assert Dice(5).seed() == Dice(5).seed() != Dice(6).seed()
