"""What surrounds the story of a scene: traffic in all lanes, parked cars, people on the pavements, cross traffic."""

from __future__ import annotations

import math

import numpy as np

from drivedistill.world.driving.roads import SignKind, stop_lines
from drivedistill.world.driving.signals import closures
from drivedistill.world.driving.stage import CAR_WEIGHTS, CARS, CROSS_LANE_M, VEHICLE_WEIGHTS, VEHICLES, Stage
from drivedistill.world.driving.traffic import DRIVE, STILL, WALK, Script, decide
from drivedistill.world.scene import LANE_M, RoadType

DENSITY: dict[RoadType, float] = {"urban": 0.33, "residential": 0.19, "rural": 0.14, "highway": 0.38}
"""Chance of a car in every 17 metres of a lane."""
PARKED: dict[RoadType, float] = {"urban": 0.32, "residential": 0.42, "rural": 0.0, "highway": 0.0}
"""Chance of a car on every 7 metres of a parking strip."""
CROSS_SPEEDS: dict[RoadType, float] = {"urban": 10.0, "residential": 7.5, "rural": 13.0, "highway": 13.0}
SPEED_SIGNS: dict[RoadType, SignKind] = {"urban": "speed 50", "residential": "speed 30", "rural": "speed 80"}
JUNCTION_M = 16.0
"""Half the length of the part of the road where nobody starts, or parks."""
HEADWAY_S = 1.0
"""Of the others, at least, from the end of one to the front of the next."""
GENTLE = 1.6
"""Nobody in the background begins with harder braking, m/s^2."""
SETTLING = 12
"""Times that the speed of who brakes is lowered by 15 %."""
NEAR_KERB_M = (1.3, 1.5)
"""From the kerb to the walking line on its side: lamp posts, poles and bins stand before it."""
WALKERS = ("pedestrian",) * 8 + ("child", "dog")


def add_background(stage: Stage) -> None:
    """Fill the stage around what is on it already."""
    _same_direction(stage)
    _other_direction(stage)
    if stage.road.type in ("urban", "residential"):
        _parked(stage)
        _walkers(stage)
    if stage.road.junction is not None:
        _cross_traffic(stage)
    elif stage.road.type != "highway" and stage.dice.chance(0.6):
        stage.add_sign(SPEED_SIGNS[stage.road.type], stage.dice.between(15.0, 60.0))
    _settle(stage)


def _settle(stage: Stage) -> None:
    """Let nobody begin with hard braking: whoever would begins more slowly."""
    agents, lines = stage.agents(), np.array(stop_lines(stage.road))
    closed = closures(stage.road.junction, stage.phases)[0]
    extra = np.array([True, *(actor.hazard for actor in stage.actors)]) == 0
    for _ in range(SETTLING):
        decide(agents, 0.0, closed, lines)
        hasty = extra & (agents["acceleration"] < -GENTLE)
        if not hasty.any():
            break
        agents["v"][hasty] *= 0.85
    stage.scripts = [script._replace(v=float(v)) for script, v in zip(stage.scripts, agents["v"][1:], strict=True)]


def _has_room(stage: Stage, s: float, d: float, speed: float) -> bool:
    """Is there, before and behind, a second's way to the next?"""
    return not stage.taken(s, d, 2.5 + HEADWAY_S * speed, 0.9)


def _near_junction(stage: Stage, s: float, reach: float = JUNCTION_M) -> bool:
    return stage.road.junction is not None and abs(s - stage.road.junction.s) < reach


def _same_direction(stage: Stage) -> None:
    """Traffic in the ego's direction; in the ego's lane only behind it."""
    road, dice = stage.road, stage.dice
    for lane in range(road.lanes):
        pace = stage.cruise * dice.between(0.82, 1.02)
        for cell in range(-4, 9):
            s = 17.0 * cell + dice.between(-5.0, 5.0)
            mine = lane == stage.lane and s > -14.0
            quiet = lane == stage.quiet_lane and -24.0 < s < 50.0 and dice.chance(0.8)
            if mine or quiet or _near_junction(stage, s) or not dice.chance(DENSITY[road.type]):
                continue
            speed = pace * dice.between(0.97, 1.03)
            script = Script(s, road.lane(lane), way=DRIVE, v=_braked(stage, s, speed), desired=speed)
            if _has_room(stage, s, script.d, script.v):
                stage.add(dice.pick(VEHICLES, VEHICLE_WEIGHTS), "traffic", script)


def _other_direction(stage: Stage) -> None:
    road, dice = stage.road, stage.dice
    chance = DENSITY[road.type] * (dice.pick((0.0, 0.3, 0.8)) if stage.turn > 0 else 0.9)
    for lane in range(road.opposite):
        pace = stage.cruise * dice.between(0.82, 1.02)
        for cell in range(-4, 11):
            s = 20.0 * cell + dice.between(-6.0, 6.0)
            if not dice.chance(chance) or _near_junction(stage, s):
                continue
            speed = pace * dice.between(0.97, 1.03)
            mirrored = s if road.junction is None else 2 * road.junction.s - s
            script = Script(
                s, (lane + 0.5) * LANE_M, math.pi, way=DRIVE, v=_braked(stage, mirrored, speed), desired=speed
            )
            if _has_room(stage, s, script.d, script.v):
                stage.add(dice.pick(VEHICLES, VEHICLE_WEIGHTS), "oncoming", script)


def _braked(stage: Stage, s: float, speed: float) -> float:
    """A speed from which somebody at `s` who heads for the junction can still stop if it is closed."""
    line, junction = stage.road.stop_line, stage.road.junction
    if line is None or junction is None or s > line:
        return speed
    first = stage.phases[0][1] if stage.phases else "green"
    if junction.control != "stop sign" and first == "green":
        return speed
    return min(speed, math.sqrt(3.0 * max(line - s - 6.0, 0.0)))


def _parked(stage: Stage) -> None:
    road, dice = stage.road, stage.dice
    for side, d in ((-1, road.right - 1.15), (1, road.left + 1.15)):
        for cell in range(-5, 16):
            s = 7.0 * cell + dice.between(-0.8, 0.8)
            kept = any(abs(s - place) < 9.0 for place in stage.no_parking) or _near_junction(stage, s, 20.0)
            if not kept and dice.chance(PARKED[road.type]):
                heading = 0.0 if side < 0 else math.pi
                stage.add(dice.pick(CARS, CAR_WEIGHTS), "parked", Script(s, d, heading, way=STILL))


def _walkers(stage: Stage) -> None:
    """People and dogs on the pavements; who comes and who goes keep apart, and they wait before a junction."""
    road, dice = stage.road, stage.dice
    corner = road.margin + 3.5
    for _ in range(dice.count(2, 7)):
        side, ahead = dice.side(), dice.side()
        off = road.margin + (dice.between(2.3, 2.7) if ahead == side else dice.between(*NEAR_KERB_M))
        s, speed = dice.between(-18.0, 60.0), dice.between(0.8, 1.5)
        reach = 99.0
        if road.junction is not None:
            if _near_junction(stage, s, corner + 1.0):
                continue
            to_corner = (road.junction.s - s) * ahead - corner
            reach = to_corner if to_corner > 0.0 else reach
        d = road.left + off if side > 0 else road.right - off
        script = Script(s, d, 0.0 if ahead > 0 else math.pi, WALK, v=speed, desired=speed, reach=reach)
        stage.add(dice.pick(WALKERS), "walking", script)


def _cross_traffic(stage: Stage) -> None:
    """Cars on the arms of the cross road: a flow where it has priority, otherwise a few that wait."""
    junction, road = stage.road.junction, stage.road
    if junction is None:
        return
    closed = closures(junction, stage.phases)[:, 1]
    flows = closed[0] == 0
    speed = CROSS_SPEEDS[road.type]
    for side in (-1, 1):
        if ("right" if side < 0 else "left") not in junction.arms:
            continue
        edge = (-road.right if side < 0 else road.left) + road.margin + 4.0
        s, heading = junction.s - side * CROSS_LANE_M, -side * math.pi / 2
        if flows:
            _flow(stage, s, side, heading, speed)
        else:
            _queue(stage, s, side, edge, heading, speed)


def _flow(stage: Stage, s: float, side: int, heading: float, speed: float) -> None:
    """Cars that cross one after the other, with gaps."""
    dice = stage.dice
    through = stage.road.junction is not None and len(stage.road.junction.arms) == 2
    away = dice.between(-10.0, 20.0)
    gaps = (30.0, 100.0) if stage.road.junction and stage.road.junction.control == "stop sign" else (15.0, 55.0)
    while through and away < 95.0:
        if dice.chance(0.7):
            script = Script(s, side * (away + 4.0), heading, DRIVE, v=speed, desired=speed)
            stage.add(dice.pick(CARS, CAR_WEIGHTS), "crossing", script)
        away += dice.between(*gaps)


def _queue(stage: Stage, s: float, side: int, edge: float, heading: float, speed: float) -> None:
    """Up to two cars that wait, and perhaps one that still comes."""
    dice = stage.dice
    for place in range(dice.count(0, 2)):
        away = edge + 3.4 + 8.0 * place
        script = Script(s, side * away, heading, DRIVE, v=0.0, desired=speed)
        stage.add(dice.pick(CARS, CAR_WEIGHTS), "crossing", script)
    if dice.chance(0.4):
        away = edge + dice.between(40.0, 60.0)
        script = Script(s, side * away, heading, DRIVE, v=speed, desired=speed)
        stage.add(dice.pick(CARS, CAR_WEIGHTS), "crossing", script)
