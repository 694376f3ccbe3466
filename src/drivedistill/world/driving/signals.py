"""Traffic lights over time: what the ego meets, and when the two roads of a junction are closed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from drivedistill.world.driving.dice import Dice
from drivedistill.world.driving.traffic import NEVER
from drivedistill.world.scene import STEP_S, STEPS, Junction, Signal

YELLOW_S = 3.0
ALL_RED_S = 2.0
"""Between the yellow light of one road and the green light of the other."""

Phase = tuple[float, Signal]
"""Seconds, and the signal that the ego meets from then on."""


def stays_red() -> list[Phase]:
    """Red to the end."""
    return [(0.0, "red")]


def turns_green(time: float) -> list[Phase]:
    """Red until `time`."""
    return [(0.0, "red"), (time, "green")]


def turns_red(time: float) -> list[Phase]:
    """Green until `time`, then yellow, then red."""
    return (
        [(0.0, "green"), (time, "yellow"), (time + YELLOW_S, "red")]
        if time > 0.0
        else ([(0.0, "yellow"), (time + YELLOW_S, "red")])
    )


def stays_green() -> list[Phase]:
    """Green to the end."""
    return [(0.0, "green")]


def red_for_a_while(dice: Dice, shortest: float, longest: float) -> list[Phase]:
    """Red to the end, red until some moment, or turning red as the ego comes near."""
    kind = dice.pick(("turns green", "stays red", "turns red"), (0.6, 0.2, 0.2))
    if kind == "turns green":
        return turns_green(dice.between(shortest, longest))
    return stays_red() if kind == "stays red" else turns_red(dice.between(-1.0, 0.8))


def signals(phases: Sequence[Phase]) -> tuple[Signal | None, ...]:
    """The signal of every step; None without lights."""
    shown: list[Signal | None] = [None] * STEPS
    for time, signal in phases:
        for step in range(round(time / STEP_S), STEPS):
            shown[step] = signal
    return tuple(shown)


def closures(junction: Junction | None, phases: Sequence[Phase]) -> NDArray[np.int8]:
    """How others meet the junction: int8[STEPS, 2] for the main and the cross road, 0 open, 1 yellow, 2 red.

    At a stop sign the others on the main road wait, on a priority road those on the cross road do.
    """
    closed: NDArray[np.int8] = np.zeros((STEPS, 2), np.int8)
    if junction is None:
        return closed
    if junction.control != "lights":
        closed[:, 0 if junction.control == "stop sign" else 1] = 2
        return closed
    times = np.arange(STEPS) * STEP_S
    closed[:, 1] = 2
    for (begin, signal), (end, _) in zip(phases, [*phases[1:], (NEVER, "red")], strict=True):
        during = (times >= begin - 1e-9) & (times < end - 1e-9)
        closed[during, 0] = {"green": 0, "yellow": 1, "red": 2}[signal]
        if signal == "red":
            since = begin if begin == 0.0 else begin + ALL_RED_S
            closed[during & (times >= since), 1] = 0
            closed[during & (times >= end - ALL_RED_S - YELLOW_S), 1] = 1
            closed[during & (times >= end - ALL_RED_S), 1] = 2
    return closed
