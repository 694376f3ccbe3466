"""The corner kinds of scenes: rare things on and beside the road. None of them fixes what the ego has to do."""

from __future__ import annotations

import math
from dataclasses import replace

from drivedistill.world.catalogue import KINDS
from drivedistill.world.driving.regular import (
    FOOT_ROADS,
    any_road,
    cross_road,
    headway,
    on,
    wide_road,
    without_lights,
)
from drivedistill.world.driving.roads import SignKind, beside, open_road
from drivedistill.world.driving.stage import CAR_WEIGHTS, CARS, Draw, Stage
from drivedistill.world.driving.traffic import DRIVE, NEVER, STILL, WALK, Script
from drivedistill.world.scene import LANE_M, Road, RoadType, Role

USUAL: dict[str, tuple[str, ...]] = {
    "fallen_cargo": ("pile of cardboard boxes", "fallen tire", "rock"),
    "animal": ("dog", "deer", "sheep"),
    "construction": ("cement mixer", "truck"),
    "overturned": ("overturned car",),
    "ped_dash": ("pedestrian", "child"),
    "stroller": ("person with a stroller",),
    "odd_vehicle": ("cement mixer", "fire truck", "ambulance", "police car"),
}
HELD_OUT: dict[str, tuple[str, ...]] = {
    "fallen_cargo": ("fallen sofa", "pile of logs"),
    "animal": ("cow", "horse"),
    "construction": ("excavator",),
    "overturned": ("log trailer",),  # left standing
    "ped_dash": ("wheelchair user",),
    "stroller": ("wheelchair user",),
    "odd_vehicle": ("horse cart", "excavator", "log trailer"),
}
"""What hazards look like where `held_out` is asked for; none of these kinds is in any other scene."""

SLOW_VEHICLES = {"horse cart": 2.5, "excavator": 5.0, "cement mixer": 9.0, "log trailer": 9.0}
"""Fastest pace, m/s."""
DRAWBAR_M = 0.6
"""Between a tractor and its trailer."""
HARMLESS: tuple[SignKind, ...] = ("speed 30", "works", "yield")
VERGE_ROADS: tuple[RoadType, ...] = ("urban", "residential", "rural")


def appearance(stage: Stage) -> str:
    """The kind of the actor that the scene is about."""
    stage.held_out = stage.draw.held_out
    return stage.dice.pick((HELD_OUT if stage.held_out else USUAL)[stage.draw.kind])


def far(stage: Stage) -> float:
    """Where a hazard lies: from where one has to brake in earnest, and up to two seconds farther."""
    return 10.0 + stage.speed**2 / 12.0 + stage.speed * stage.dice.between(1.6, 3.4)


def another_place(stage: Stage) -> float:
    """The d of something beside the ego's lane: in the next lane, on the other side, or on the shoulder."""
    road, lanes = stage.road, beside(stage.road, stage.lane)
    if lanes and stage.dice.chance(0.75):
        return road.lane(stage.dice.pick(lanes))
    if road.opposite and stage.dice.chance(0.4):
        return LANE_M / 2
    return road.right - max(road.margin / 2, 0.9)


def fallen_cargo(draw: Draw) -> Stage:
    """Something lies in the ego's lane, or in another."""
    stage, dice = on(draw, any_road(draw)), draw.dice
    mine = dice.chance(0.65)
    d = stage.d + dice.between(-0.5, 0.5) if mine else another_place(stage)
    lanes = beside(stage.road, stage.lane)
    stage.quiet_lane = dice.pick(lanes) if lanes else None
    s = far(stage)
    stage.no_parking.append(s)
    stage.add(appearance(stage), "obstacle", Script(s, d, dice.between(-0.4, 0.4)), hazard=True, force=True)
    return stage


def animal(draw: Draw) -> Stage:
    """Animals run across the road, stand on it, or stay on the verge."""
    stage, dice = on(draw, open_road(draw.dice, draw.dice.pick(VERGE_ROADS, (0.15, 0.35, 0.5)))), draw.dice
    kind, side, s = appearance(stage), dice.side(), far(stage)
    plot = dice.pick(("crosses", "on the road", "on the verge"), (0.45, 0.25, 0.3))
    edge = stage.road.left + stage.road.margin if side > 0 else stage.road.right - stage.road.margin
    stage.no_parking.append(s)
    for _ in range(dice.count(1, 3) if kind in ("sheep", "cow") else 1):
        place = s + dice.between(-3.0, 3.0)
        beside = edge + side * dice.between(0.6, 3.0)
        if plot == "crosses":
            script = Script(
                place, beside, -side * math.pi / 2, WALK, desired=dice.between(1.3, 3.0), begins=dice.between(0.0, 2.5),
                reach=dice.between(12.0, 25.0),
            )  # fmt: skip
            stage.add(kind, "crosser", script, hazard=True)
        elif plot == "on the road":
            d = stage.d + dice.between(-1.3, 1.3)
            stage.add(kind, "obstacle", Script(place, d, dice.between(-3.0, 3.0)), hazard=True)
        else:
            stage.add(kind, "bystander", Script(place, beside, dice.between(-3.0, 3.0)), hazard=True)
    return stage


def construction(draw: Draw) -> Stage:
    """Works close the ego's lane or another one."""
    dice = draw.dice
    road = wide_road(draw) if dice.chance(0.7) else open_road(dice, dice.pick(VERGE_ROADS, (0.0, 0.5, 0.5)))
    stage = on(draw, road)
    lanes = beside(stage.road, stage.lane)
    lane = dice.pick(lanes) if lanes and dice.chance(0.35) else stage.lane
    if lanes:
        stage.quiet_lane = dice.pick(lanes) if lane == stage.lane else None
    s, d = far(stage), road.lane(lane)
    taper = 1 if lane > 0 or road.lanes == 1 else -1
    stage.add_sign("works", s - 14.0, size=1.1)
    stage.no_parking += [s, s + 12.0, s + 24.0]
    for cone in range(7):
        across = (-1.6 + 3.2 * min(1.0, cone / 3.0)) * taper
        script = Script(s + 3.2 * cone, d + across)
        stage.add("traffic cone", "obstacle", script, hazard=cone < 3, force=True)
    stage.add("construction barrier", "obstacle", Script(s + 9.0, d), hazard=True, force=True)
    stage.add(appearance(stage), "obstacle", Script(s + 18.0, d), hazard=True, force=True)
    worker = Script(s + 12.0, d + dice.between(-1.0, 1.0), dice.between(0.0, 6.0))
    stage.add("construction worker", "obstacle", worker, force=True)
    return stage


def overturned(draw: Draw) -> Stage:
    """A crashed vehicle, with a warning triangle before it and its driver beside it."""
    stage, dice = on(draw, any_road(draw)), draw.dice
    d = stage.d + dice.between(-0.5, 0.5) if dice.chance(0.7) else another_place(stage)
    lanes = beside(stage.road, stage.lane)
    stage.quiet_lane = dice.pick(lanes) if lanes else None
    s = far(stage) + 4.0
    stage.no_parking += [s, s - 9.0]
    kind, turned = appearance(stage), dice.between(0.05, 0.7) * dice.side()
    stage.add(kind, "obstacle", Script(s, d, turned), hazard=True, force=True)
    if dice.chance(0.8):
        stage.add("warning triangle", "obstacle", Script(s - 9.0, d + 0.6), hazard=True, force=True)
    driver = Script(s + 1.0, stage.road.right - stage.road.margin - 0.6, dice.between(-3.0, 3.0))
    stage.add("pedestrian", "bystander", driver)
    return stage


def ped_dash(draw: Draw) -> Stage:
    """Somebody runs onto the road from behind a parked car, or stays there."""
    dice = draw.dice
    stage = on(draw, open_road(dice, dice.pick(FOOT_ROADS)))
    road, side, s = stage.road, dice.side(), stage.speed * dice.between(2.2, 3.6) + 12.0
    edge = road.left if side > 0 else road.right
    cover = dice.pick(("van", "truck", "SUV"))
    half_length = KINDS[cover].size[0] / 2
    hides, dashes = s - half_length - dice.between(0.8, 1.6), dice.chance(0.65)
    stage.no_parking += [s, hides - half_length]
    heading = 0.0 if side < 0 else math.pi
    stage.add(cover, "parked", Script(hides, edge + side * 1.25, heading, STILL), force=True)
    # While the ego needs so long to the place, somebody who runs then is seen; who stays, stays where he can be seen.
    latest = min((s - 8.0) / stage.speed - 1.2, 2.6)
    begins = dice.between(0.4, max(latest, 0.6)) if dashes else NEVER
    place = (s, edge + side * dice.between(1.0, 1.8)) if dashes else (
        hides - half_length - dice.between(0.8, 2.0), edge + side * dice.between(0.3, 1.6)
    )  # fmt: skip
    runner = Script(
        *place, -side * math.pi / 2, WALK, desired=dice.between(2.4, 3.6), begins=begins,
        reach=road.left - road.right + road.margin + 3.0,
    )  # fmt: skip
    stage.add(appearance(stage), "crosser", runner, hazard=True, force=True)
    return stage


def wrong_way(draw: Draw) -> Stage:
    """Somebody comes toward the ego in a lane of its own direction; some find back to their side, some stop."""
    stage, dice = on(draw, any_road(draw)), draw.dice
    lanes = beside(stage.road, stage.lane)
    lane = dice.pick(lanes) if lanes and dice.chance(0.3) else stage.lane
    speed = min(0.7 * stage.cruise, dice.between(6.0, 11.0))
    # Where the ego cannot move aside far enough, most of them find back; some others notice, and stop.
    finds_back = stage.road.opposite and lane == 0 and dice.chance(0.4 if stage.road.margin > 1.0 else 0.75)
    back = dice.between(0.8, 2.5) if finds_back else NEVER
    stops = dice.between(0.6, 2.0) if not finds_back and dice.chance(0.4) else NEVER
    script = Script(
        stage.speed * dice.between(3.2, 4.6) + 34.0, stage.road.lane(lane), math.pi, DRIVE, v=speed, desired=speed,
        shift_at=back, shift_to=LANE_M / 2, brake_at=stops,
    )  # fmt: skip
    stage.no_parking += [6.0 + 12.0 * place for place in range(9)]
    stage.add(dice.pick(CARS, CAR_WEIGHTS), "wrong way", script, hazard=True, headlights=True)
    return stage


def stroller(draw: Draw) -> Stage:
    """Somebody with a stroller, or in a wheelchair, crosses the road or moves beside it."""
    dice = draw.dice
    stage = on(draw, open_road(dice, dice.pick(FOOT_ROADS)))
    s = stage.speed * dice.between(2.0, 3.4) + 14.0
    kind = appearance(stage)
    if dice.chance(0.7):
        if dice.chance(0.7):
            stage.road = replace(stage.road, crosswalk=s)
            stage.add_sign("crosswalk", s - 3.5)
        stage.no_parking.append(s)
        cross_road(stage, kind, s, waits=0.15)
        return stage
    d, ahead, speed = _pavement(stage.road, dice.side()), dice.side(), dice.between(0.9, 1.4)
    script = Script(s, d, 0.0 if ahead > 0 else math.pi, WALK, v=speed, desired=speed)
    stage.add(kind, "walking", script, hazard=True)
    return stage


def _pavement(road: Road, side: int) -> float:
    """The d of the middle of a pavement, clear of posts and bins."""
    return road.left + road.margin + 1.8 if side > 0 else road.right - road.margin - 1.8


def odd_vehicle(draw: Draw) -> Stage:
    """A vehicle that is seldom met drives ahead, in the next lane or on the other side."""
    stage, dice = on(draw, any_road(draw)), draw.dice
    kind = appearance(stage)
    speed = min(stage.cruise * dice.between(0.45, 0.9), SLOW_VEHICLES.get(kind, 99.0))
    stage.overtakes = dice.pick((0.0, 0.75))
    lanes = beside(stage.road, stage.lane)
    lane = dice.pick(lanes) if lanes and dice.chance(0.25) else stage.lane
    s, d = headway(stage, 0.8, 2.2), stage.road.lane(lane)
    if stage.road.opposite and dice.chance(0.15):
        oncoming = Script(s + 40.0, LANE_M / 2, math.pi, DRIVE, v=speed, desired=speed)
        _add_towed(stage, kind, "oncoming", oncoming)
        return stage
    _add_towed(stage, kind, "traffic", Script(s, d, way=DRIVE, v=speed, desired=speed))
    return stage


def _add_towed(stage: Stage, kind: str, role: Role, script: Script) -> None:
    """Add the vehicle, and before a trailer the car that tows it, which the scene cannot do without either."""
    if kind == "log trailer":
        tractor = stage.dice.pick(("pickup", "SUV"))
        distance = (KINDS[tractor].size[0] + KINDS[kind].size[0]) / 2 + DRAWBAR_M
        ahead = script._replace(s=script.s + distance * math.cos(script.heading))
        script = script._replace(towed_by=stage.add(tractor, role, ahead, hazard=True, force=True))
    stage.add(kind, role, script, hazard=True, force=True)


def obscured_sign(draw: Draw) -> Stage:
    """A sign is dirty or behind a bush: a stop sign at a crossing, or one that asks for nothing."""
    dice = draw.dice
    dirty = dice.chance(0.5)
    if dice.chance(0.65):
        stage = without_lights(draw, "residential", stop=True)
        line = stage.road.stop_line or 0.0
        stage.add_sign("dirty stop" if dirty else "stop", line + 0.5, size=0.95, hidden_by_bush=not dirty)
        return stage
    stage = on(draw, open_road(dice, "residential"))
    stage.add_sign(dice.pick(HARMLESS), dice.between(18.0, 40.0), hidden_by_bush=True)
    return stage
