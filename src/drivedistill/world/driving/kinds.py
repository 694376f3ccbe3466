"""The kinds of scenes, and how one of them is drawn from a seed."""

from __future__ import annotations

from collections.abc import Callable

from drivedistill.world.driving import hazards, regular
from drivedistill.world.driving.background import add_background
from drivedistill.world.driving.dice import Dice
from drivedistill.world.driving.stage import Draw, Stage
from drivedistill.world.scene import Light, Weather

Builder = Callable[[Draw], Stage]

REGULAR_BUILDERS: dict[str, Builder] = {
    "lane_keep": regular.lane_keep,
    "follow": regular.follow,
    "lead_brake": regular.lead_brake,
    "red_light": regular.red_light,
    "green_light": regular.green_light,
    "turn_left": regular.turn_left,
    "turn_right": regular.turn_right,
    "overtake": regular.overtake,
    "crosswalk": regular.crosswalk,
    "cut_in": regular.cut_in,
    "cyclist": regular.cyclist,
    "queue": regular.queue,
    "curve": regular.curve,
    "rural_junction": regular.rural_junction,
    "residential_junction": regular.residential_junction,
    "merge": regular.merge,
    "lane_change": regular.lane_change,
}
HAZARD_BUILDERS: dict[str, Builder] = {
    "fallen_cargo": hazards.fallen_cargo,
    "animal": hazards.animal,
    "construction": hazards.construction,
    "overturned": hazards.overturned,
    "ped_dash": hazards.ped_dash,
    "wrong_way": hazards.wrong_way,
    "stroller": hazards.stroller,
    "odd_vehicle": hazards.odd_vehicle,
    "obscured_sign": hazards.obscured_sign,
}
ADVERSE: dict[str, tuple[tuple[Weather, ...], tuple[Light, ...]]] = {
    "dense_fog": (("fog",), ("day", "day", "dusk", "night")),
    "heavy_rain": (("rain",), ("day", "dusk", "night")),
    "unlit_night": (("clear", "cloudy"), ("night",)),
    "snow": (("snow",), ("day", "day", "dusk", "night")),
}
"""Corner kinds of weather and light: any regular manoeuvre is driven in them."""

REGULAR: tuple[str, ...] = tuple(REGULAR_BUILDERS)
CORNER: tuple[str, ...] = (*HAZARD_BUILDERS, *ADVERSE)
NUMBERS = {kind: number for number, kind in enumerate((*REGULAR, *CORNER))}
"""The order is part of every seed: append new kinds, or data sets change."""


def build(kind: str, seed: int, *, held_out: bool = False) -> Stage:
    """A stage with everybody on it, ready to be driven.

    Raises:
        KeyError: There is no such kind.
    """
    dice = Dice(seed, NUMBERS[kind], int(held_out))
    weathers, lights = ADVERSE.get(kind, (("clear", "cloudy", "rain"), ("day", "dusk", "night")))
    ordinary = kind not in ADVERSE
    weather = dice.pick(weathers, (0.42, 0.36, 0.22) if ordinary else None)
    light = dice.pick(lights, (0.5, 0.22, 0.28) if ordinary else None)
    manoeuvre = kind if ordinary else dice.pick(REGULAR)
    draw = Draw(kind, manoeuvre, seed, kind in CORNER, dice, weather, light, kind == "unlit_night", held_out)
    stage = (REGULAR_BUILDERS | HAZARD_BUILDERS)[manoeuvre](draw)
    add_background(stage)
    return stage
