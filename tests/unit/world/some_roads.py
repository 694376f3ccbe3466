"""Scenes on roads of every kind, and what stands around them."""

from __future__ import annotations

from functools import cache

from drivedistill.world.driving import roads
from drivedistill.world.driving.dice import Dice
from drivedistill.world.scene import ROAD_TYPES, Conditions, Road, Scene
from drivedistill.world.surroundings import Surroundings, surroundings

DAY, NIGHT = Conditions("clear", "day", True), Conditions("clear", "night", True)


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
