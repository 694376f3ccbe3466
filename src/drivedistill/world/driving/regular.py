"""The regular kinds of scenes: ordinary driving. Every builder chooses a road and puts the story on the stage."""

from __future__ import annotations

import math
from dataclasses import replace

from drivedistill.world.catalogue import KINDS
from drivedistill.world.driving.roads import Arm, bent_road, beside, junction_road, merging_road, open_road
from drivedistill.world.driving.signals import red_for_a_while, stays_green, turns_green, turns_red
from drivedistill.world.driving.stage import CAR_WEIGHTS, CARS, VEHICLE_WEIGHTS, VEHICLES, Draw, Stage, Wish, pace
from drivedistill.world.driving.traffic import DRIVE, NEVER, WALK, Script
from drivedistill.world.scene import Road, RoadType

ANY_ROAD: tuple[RoadType, ...] = ("urban", "residential", "highway", "rural")
WIDE_ROADS: tuple[RoadType, ...] = ("urban", "highway")
FOOT_ROADS: tuple[RoadType, ...] = ("urban", "residential")
LIT_ROADS: tuple[RoadType, ...] = ("urban", "residential", "rural")
MERGE_ROADS: tuple[RoadType, ...] = ("highway", "rural")
ARMS: tuple[tuple[Arm, ...], ...] = (("left", "right"), ("left",), ("right",))
ANY_WEIGHTS = (0.3, 0.26, 0.22, 0.22)


def any_road(draw: Draw) -> Road:
    """A road without junctions, of any type."""
    return open_road(draw.dice, draw.dice.pick(ANY_ROAD, ANY_WEIGHTS))


def wide_road(draw: Draw) -> Road:
    """A road with several lanes in the ego's direction."""
    return open_road(draw.dice, draw.dice.pick(WIDE_ROADS, (0.45, 0.55)))


def on(draw: Draw, road: Road, lane: int | None = None) -> Stage:
    """The ego on a road; in any lane if none is given."""
    lane = draw.dice.count(0, road.lanes - 1) if lane is None else lane
    return Stage(draw, road, lane, *pace(draw, road.type))


def headway(stage: Stage, shortest: float, longest: float) -> float:
    """A distance from the middle of the ego to somebody ahead, drawn from seconds."""
    return 8.0 + stage.speed * stage.dice.between(shortest, longest)


def lane_keep(draw: Draw) -> Stage:
    """Nothing happens."""
    return on(draw, any_road(draw))


def follow(draw: Draw) -> Stage:
    """Somebody ahead drives a little more slowly."""
    stage = on(draw, any_road(draw))
    speed = stage.speed * draw.dice.between(0.7, 0.95)
    script = Script(headway(stage, 0.7, 1.7), stage.d, way=DRIVE, v=speed, desired=speed)
    stage.add(draw.dice.pick(VEHICLES, VEHICLE_WEIGHTS), "traffic", script, hazard=True)
    return stage


def lead_brake(draw: Draw) -> Stage:
    """Somebody ahead brakes hard, and some go on later."""
    stage, dice = on(draw, any_road(draw)), draw.dice
    begins = dice.between(0.8, 3.2)
    until = begins + dice.between(3.0, 5.0) if dice.chance(0.6) else 99.0
    script = Script(
        headway(stage, 1.0, 1.8), stage.d, way=DRIVE, v=stage.speed, desired=stage.cruise, brake_at=begins,
        brake_to=dice.between(0.0, 0.4) * stage.speed, brake_until=until,
    )  # fmt: skip
    stage.add(dice.pick(VEHICLES, VEHICLE_WEIGHTS), "traffic", script, hazard=True)
    return stage


def at_lights(draw: Draw, ahead: tuple[float, float], *, turn: int = 0, fastest: float = 99.0) -> Stage:
    """The ego on its way to a junction with lights, `ahead` metres beyond a second and a half of driving."""
    kind = draw.dice.pick(LIT_ROADS, (0.76, 0.12, 0.12))
    cruise, speed = pace(draw, kind)
    speed = min(speed, fastest)
    road = junction_road(draw.dice, kind, 1.5 * speed + draw.dice.between(*ahead), "lights")
    lane = {0: draw.dice.count(0, road.lanes - 1), 1: 0, -1: road.lanes - 1}[turn]
    return Stage(draw, road, lane, cruise, speed, turn)


def red_light(draw: Draw) -> Stage:
    """The light is red, or becomes red."""
    stage = at_lights(draw, (24.0, 40.0))
    stage.phases = red_for_a_while(draw.dice, 4.0, 10.0)
    return stage


def green_light(draw: Draw) -> Stage:
    """The light is green; sometimes it changes just before the ego arrives, or has just become green."""
    stage = at_lights(draw, (30.0, 48.0))
    change = draw.dice.pick(("none", "to red", "to green"), (0.7, 0.15, 0.15))
    stage.phases = stays_green()
    if change == "to red":
        stage.phases = turns_red(draw.dice.between(1.5, 6.0))
    elif change == "to green":
        stage.phases = turns_green(draw.dice.between(0.5, 2.0))
    return stage


def queue(draw: Draw) -> Stage:
    """Others wait at the red light."""
    stage, dice = at_lights(draw, (30.0, 46.0)), draw.dice
    stage.phases = turns_green(dice.between(3.5, 10.0)) if dice.chance(0.7) else [(0.0, "red")]
    place = (stage.road.stop_line or 0.0) - 0.8
    for _ in range(dice.count(1, 3)):
        kind = dice.pick(VEHICLES, VEHICLE_WEIGHTS)
        half = KINDS[kind].size[0] / 2
        script = Script(place - half, stage.d, way=DRIVE, v=0.0, desired=stage.cruise)
        if place - half < 14.0 or not stage.add(kind, "traffic", script, hazard=True):
            break
        place -= 2 * half + dice.between(2.2, 3.4)
    return stage


def turn_left(draw: Draw) -> Stage:
    """The ego turns left at lights; who comes toward it goes first."""
    return _turning_at_lights(draw, 1)


def turn_right(draw: Draw) -> Stage:
    """The ego turns right at lights, sometimes toward people who cross."""
    return _turning_at_lights(draw, -1)


def _turning_at_lights(draw: Draw, side: int) -> Stage:
    stage = at_lights(draw, (18.0, 40.0), turn=side, fastest=9.5)
    stage.phases = stays_green() if draw.dice.chance(0.65) else turns_green(draw.dice.between(2.0, 5.5))
    if draw.dice.chance(0.25):
        people_on_arm(stage, side)
    return stage


def people_on_arm(stage: Stage, side: int) -> None:
    """Somebody crosses the arm of the junction into which the ego turns."""
    road, dice, junction = stage.road, stage.dice, stage.road.junction
    if junction is None:
        return
    edge = (road.left if side > 0 else -road.right) + road.margin + 2.0
    ahead, width = dice.side(), 3.5 + road.margin + 1.5
    for _ in range(dice.count(1, 2)):
        script = Script(
            junction.s - ahead * width + dice.between(-1.0, 1.0), side * (edge + dice.between(-0.8, 0.8)),
            0.0 if ahead > 0 else math.pi, WALK, desired=dice.between(1.1, 1.6), begins=dice.between(1.0, 4.5),
            reach=2 * width + 1.0,
        )  # fmt: skip
        stage.add(dice.pick(("pedestrian", "pedestrian", "child")), "crosser", script, hazard=True)


def rural_junction(draw: Draw) -> Stage:
    """A crossing or a T-junction in the country, without lights."""
    return without_lights(draw, "rural")


def residential_junction(draw: Draw) -> Stage:
    """A crossing or a T-junction among houses, without lights."""
    return without_lights(draw, "residential")


def without_lights(draw: Draw, kind: RoadType, *, stop: bool = False) -> Stage:
    """A junction with a stop sign for the ego or on a priority road; with `stop` always a crossing with a stop sign."""
    dice = draw.dice
    cruise, speed = pace(draw, kind)
    arms = ARMS[0] if stop else dice.pick(ARMS, (0.6, 0.2, 0.2))
    stops = stop or (len(arms) == 2 and dice.chance(0.6))
    turn = dice.pick([{"left": 1, "right": -1}[arm] for arm in arms]) if dice.chance(0.75) else 0
    if stops or turn:
        speed = min(speed, dice.between(3.0, 5.0) if stops and dice.chance(0.55) else 11.0)
        way = speed * speed / 3.6 + dice.between(3.0, 8.0 if stops else 18.0)
    else:
        way = speed * dice.between(1.5, 3.5)
    road = junction_road(dice, kind, way + 12.0, "stop sign" if stops else "priority road", arms)
    stage = Stage(draw, road, 0, cruise, speed, turn)
    if stops and not stop:
        stage.add_sign("stop", (road.stop_line or 0.0) + 0.5)
    if turn and kind == "residential" and dice.chance(0.2):
        people_on_arm(stage, turn)
    return stage


def curve(draw: Draw) -> Stage:
    """A real bend, for which the ego slows down; sometimes behind somebody."""
    dice = draw.dice
    kind: RoadType = dice.pick(("urban", "residential", "rural"), (0.25, 0.35, 0.4))
    cruise, speed = pace(draw, kind)
    road = bent_road(dice, kind, speed * dice.between(0.8, 4.0), dice.side())
    stage = Stage(draw, road, dice.count(0, road.lanes - 1), cruise, speed)
    if dice.chance(0.35):
        script = Script(headway(stage, 1.0, 2.2), stage.d, way=DRIVE, v=speed * 0.85, desired=speed * 0.9)
        stage.add(dice.pick(CARS, CAR_WEIGHTS), "traffic", script, hazard=True)
    return stage


def overtake(draw: Draw) -> Stage:
    """Somebody slow is ahead, and the lane to the left can be used."""
    dice, road = draw.dice, wide_road(draw)
    stage = on(draw, road, dice.count(1, road.lanes - 1))
    stage.overtakes, stage.quiet_lane = 0.62, stage.lane - 1
    speed = stage.speed * dice.between(0.3, 0.55)
    script = Script(headway(stage, 1.8, 3.2), stage.d, way=DRIVE, v=speed, desired=speed)
    stage.add(dice.pick(("truck", "bus", "van")), "traffic", script, hazard=True)
    return stage


def lane_change(draw: Draw) -> Stage:
    """The route asks for another lane, or somebody slow is ahead."""
    stage, dice = on(draw, wide_road(draw)), draw.dice
    target = dice.pick(beside(stage.road, stage.lane))
    stage.quiet_lane = target
    if dice.chance(0.5):
        speed = stage.speed * dice.between(0.4, 0.6)
        script = Script(headway(stage, 1.4, 2.8), stage.d, way=DRIVE, v=speed, desired=speed)
        stage.add(dice.pick(VEHICLES, VEHICLE_WEIGHTS), "traffic", script, hazard=True)
    stage.wishes = [Wish(dice.between(0.0, 2.5), target)]
    return stage


def cut_in(draw: Draw) -> Stage:
    """Somebody in the next lane changes into the ego's, close ahead."""
    stage, dice = on(draw, wide_road(draw)), draw.dice
    lane = dice.pick(beside(stage.road, stage.lane))
    speed = stage.speed * dice.between(0.8, 0.97)
    script = Script(
        dice.between(8.0, 14.0) + 0.2 * stage.speed, stage.road.lane(lane), way=DRIVE, v=speed, desired=speed,
        shift_at=dice.between(1.0, 4.0), shift_to=stage.d,
    )  # fmt: skip
    stage.add(dice.pick(VEHICLES, VEHICLE_WEIGHTS), "traffic", script, hazard=True)
    stage.quiet_lane = lane
    return stage


def merge(draw: Draw) -> Stage:
    """An acceleration lane: the ego is on it, or somebody comes from it."""
    dice = draw.dice
    road = merging_road(dice, dice.pick(MERGE_ROADS, (0.7, 0.3)), -90.0, dice.between(130.0, 190.0))
    if dice.chance(0.6):
        stage = on(draw, road, road.lanes)
        stage.speed *= dice.between(0.65, 0.85)
        stage.wishes = [Wish(dice.between(0.0, 1.5), road.lanes - 1)]
        stage.quiet_lane = road.lanes - 1
        return stage
    stage = on(draw, road, road.lanes - 1)
    stage.add_sign("merge", dice.between(15.0, 35.0))
    speed = stage.speed * dice.between(0.75, 0.95)
    script = Script(
        dice.between(9.0, 15.0) + 0.3 * stage.speed, road.lane(road.lanes), way=DRIVE, v=speed, desired=stage.cruise,
        shift_at=dice.between(0.8, 3.5), shift_to=stage.d,
    )  # fmt: skip
    stage.add(dice.pick(VEHICLES, VEHICLE_WEIGHTS), "merging", script, hazard=True)
    return stage


def crosswalk(draw: Draw) -> Stage:
    """People cross, or wait, at a zebra crossing."""
    dice, kind = draw.dice, draw.dice.pick(FOOT_ROADS)
    stage = on(draw, open_road(dice, kind))
    s = stage.speed * dice.between(2.0, 3.4) + 14.0
    stage.road = replace(stage.road, crosswalk=s)
    stage.no_parking.append(s)
    stage.add_sign("crosswalk", s - 3.5)
    for _ in range(dice.count(1, 3)):
        cross_road(stage, dice.pick(("pedestrian", "pedestrian", "child", "pedestrian")), s + dice.between(-1.0, 1.0))
    return stage


def cross_road(stage: Stage, kind: str, s: float, *, waits: float = 0.2) -> int:
    """Somebody crosses the road at s from one pavement to the other, or with the chance `waits` stands at its edge."""
    road, dice, side = stage.road, stage.dice, stage.dice.side()
    start = road.left + road.margin + 0.5 if side > 0 else road.right - road.margin - 0.5
    latest = (s - stage.speed**2 / 5.0 - 8.0) / stage.speed  # later the ego could not stop
    begins = NEVER if dice.chance(waits) else dice.between(0.0, max(min(latest, 3.5), 0.0))
    script = Script(
        s, start + side * dice.between(0.0, 1.5), -side * math.pi / 2, WALK, desired=dice.between(1.1, 1.7),
        begins=begins, reach=road.left - road.right + 2 * road.margin + 3.0,
    )  # fmt: skip
    return stage.add(kind, "crosser", script, hazard=True)


def cyclist(draw: Draw) -> Stage:
    """Somebody on two wheels is ahead; the ego follows or overtakes."""
    stage, dice = on(draw, any_road(draw)), draw.dice
    kind = "motorcyclist" if stage.road.type == "highway" else dice.pick(("cyclist", "motorcyclist"))
    speed = dice.between(4.0, 6.0) if kind == "cyclist" else stage.cruise * dice.between(0.5, 0.85)
    stage.overtakes = dice.pick((0.0, 0.9, 0.9))
    lanes = beside(stage.road, stage.lane)
    stage.quiet_lane = lanes[0] if lanes else None
    place = dice.between(11.0, 17.0) + 3.0 * max(stage.speed - speed, 0.0)  # three seconds until it is near
    script = Script(place, stage.d + dice.between(-1.1, 0.2), way=DRIVE, v=speed, desired=speed)
    stage.add(kind, "traffic", script, hazard=True)
    return stage
