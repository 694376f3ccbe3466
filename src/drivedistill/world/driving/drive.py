"""Drive through a scene: build it, simulate twelve seconds, log them in world coordinates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drivedistill.world.catalogue import KINDS
from drivedistill.world.driving.expert import Expert
from drivedistill.world.driving.footprints import overlaps
from drivedistill.world.driving.kinds import build
from drivedistill.world.driving.roads import stop_lines
from drivedistill.world.driving.route import SIDE
from drivedistill.world.driving.signals import closures, signals
from drivedistill.world.driving.stage import Stage
from drivedistill.world.driving.traffic import Agents, advance, decide
from drivedistill.world.scene import EGO_SIZE, LANE_M, STEP_S, STEPS, Decision, Drive, Signal
from drivedistill.world.track import SPACING_M

TOUCH_M = 0.1
"""By so much others may overlap each other."""
TRIES = 3
"""How often a scene is driven again without those of its background who ran into somebody."""


def drive_scene(kind: str, seed: int, *, held_out: bool = False) -> Drive | None:
    """Build the scene `kind` with `seed` and drive through it.

    Args:
        kind: A name from `kinds.REGULAR` or `kinds.CORNER`.
        seed: The same seed gives the same drive.
        held_out: Hazards have appearances that are kept from training.

    Returns:
        The drive; None if the ego touches somebody or leaves the road, or if actors that the
        scene needs run into each other.
    """
    stage = build(kind, seed, held_out=held_out)
    for _ in range(TRIES):
        drive = simulate(stage)
        if not stays_on_road(stage, drive):
            return None
        collided = _collided(stage, drive)
        if not collided:
            return drive
        if 0 in collided or any(stage.actors[actor - 1].hazard for actor in collided):
            return None
        stage.remove(collided)
    return None


def simulate(stage: Stage) -> Drive:
    """Let everybody follow their scripts and the ego its route."""
    road, agents = stage.road, stage.agents()
    bends = np.gradient(road.track.headings, SPACING_M)
    closed, lines = closures(road.junction, stage.phases), np.array(stop_lines(road))
    shown = signals(stage.phases)
    expert = Expert(stage, agents, bends)
    history = np.empty((STEPS, len(agents)), agents.dtype)
    turning: NDArray[np.int8] = np.zeros(STEPS, np.int8)
    decisions: list[Decision] = []
    for step in range(STEPS):
        time = step * STEP_S
        decide(agents, time, closed[step], lines)
        decisions.append(expert.decide(time, shown[step]))
        turning[step] = expert.turning
        history[step] = agents
        advance(agents, time, road.track.start, bends)
        expert.advance()
    return _log(stage, history.T, turning, shown, decisions)


def _log(
    stage: Stage,
    history: Agents,
    turning: NDArray[np.int8],
    shown: tuple[Signal | None, ...],
    decisions: list[Decision],
) -> Drive:
    """The drive in world coordinates; `history` is `AGENT`[A + 1, T]."""
    offsets = history["d"][0].copy()
    turned = np.flatnonzero(turning)
    if len(turned):
        offsets[turned[-1] + 1 :] = offsets[turned[-1]]
    return Drive(
        scene=stage.scene(),
        poses=np.stack(stage.road.track.world(history["s"], history["d"], history["yaw"]), axis=-1),
        speeds=history["v"].copy(),
        accelerations=history["acceleration"].copy(),
        indicators=history["indicator"].astype(np.int8),
        offsets=offsets,
        turning=turning,
        signals=shown,
        decisions=tuple(decisions),
    )


def stays_on_road(stage: Stage, drive: Drive) -> bool:
    """Are the ego's sides between the outer edges of the road, as long as it is on the main road?"""
    road = stage.road
    on_main = np.cumsum(drive.turning != 0) == 0
    offsets = drive.offsets[on_main]
    right = road.right - road.margin - (LANE_M if road.merge else 0.0)
    return bool((offsets - SIDE >= right).all() and (offsets + SIDE <= road.left + road.margin).all())


def _collided(stage: Stage, drive: Drive) -> set[int]:
    """Who touches somebody: 0 is the ego; of two others it is the one that the scene can do without."""
    halves = np.array([EGO_SIZE[:2], *(KINDS[actor.kind].size[:2] for actor in stage.actors)]) / 2
    if overlaps(drive.poses, halves, 1, 0.0).any():
        return {0}
    pairs = np.argwhere(overlaps(drive.poses, halves, len(halves), TOUCH_M))
    collided = set()
    for one, other in pairs.tolist():
        first, second = stage.actors[one - 1], stage.actors[other - 1]
        on_foot = all(KINDS[actor.kind].family in ("person", "animal") for actor in (first, second))
        if (first.moves or second.moves) and not (on_foot and first.hazard and second.hazard):
            collided.add(first.id if second.hazard or (first.moves and not first.hazard) else second.id)
    return collided
