"""Lamps that change from step to step: those of vehicles, and the traffic lights'."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from drivedistill.world.catalogue import KINDS
from drivedistill.world.materials import Draw, Material
from drivedistill.world.meshes.shape import Mesh
from drivedistill.world.pictures.look import Colour, is_dark
from drivedistill.world.pictures.triangles import Triangles, from_mesh
from drivedistill.world.scene import Actor, Drive, Signal
from drivedistill.world.track import Floats

HEADLIGHT: Colour = (1.0, 0.93, 0.78)
TAIL_LIGHT: Colour = (1.0, 0.05, 0.03)
INDICATOR: Colour = (1.0, 0.50, 0.02)
DRIVING = ("traffic", "oncoming", "crossing", "merging", "wrong way")
UNLIT = ("horse cart", "log trailer", "overturned car")
"""Vehicles without lamps."""
DISCS: dict[Signal, tuple[float, Colour]] = {
    "green": (0.26, (0.05, 1.50, 0.45)),
    "yellow": (0.60, (0.90, 0.40, 0.02)),
    "red": (0.94, (1.70, 0.06, 0.04)),
}
"""Height of the middle of each lamp above the head's lower edge, and its colour when lit.

Yellow has little green in linear light: a camera compresses what is bright, and much green would come out as lemon.
"""
DISC_RADIUS_M, DISC_AHEAD_M = 0.13, 0.155
MOST_LAMPS = 14


def has_headlights_on(drive: Drive, actor: Actor) -> bool:
    """Are its headlights lit? Those of driving vehicles are when it is dark."""
    drives = KINDS[actor.kind].family == "vehicle" or actor.kind == "motorcyclist"
    return actor.headlights or (drives and actor.role in DRIVING and is_dark(drive.scene.conditions))


def vehicle_glows(drive: Drive, step: int) -> Floats:
    """Sprites float[n, 10] (see `finish.glow`) of head, brake, tail and indicator lamps."""
    conditions = drive.scene.conditions
    strength = {"day": 0.5, "dusk": 0.8, "night": 1.0}[conditions.light]
    sprites: list[tuple[float, ...]] = []
    for actor in drive.scene.actors:
        length, width, height = KINDS[actor.kind].size
        lit = KINDS[actor.kind].family == "vehicle" and actor.role in (*DRIVING, "parked") and actor.kind not in UNLIT
        if not lit and actor.kind != "motorcyclist":
            continue
        x, y, yaw = drive.poses[actor.id, step]
        cos, sin = np.cos(yaw), np.sin(yaw)
        headlights, braking = has_headlights_on(drive, actor), drive.braking(actor.id, step)
        half, z = length / 2 + 0.05, 0.68 if height < 2.3 else 0.9
        for side in (-0.34 * width, 0.34 * width) if lit else (0.0,):
            front = (x + cos * half - sin * side, y + sin * half + cos * side, z)
            back = (x - cos * half - sin * side, y - sin * half + cos * side, z + 0.1)
            if headlights:
                sprites.append((*front, *HEADLIGHT, 0.22, 1.3 * strength, cos, sin))
            if braking:
                sprites.append((*back, *TAIL_LIGHT, 0.17, 0.9 * strength, -cos, -sin))
            elif headlights and is_dark(conditions):
                sprites.append((*back, *TAIL_LIGHT, 0.12, 0.35 * strength, -cos, -sin))
            if drive.indicators[actor.id, step] * side > 0.0:
                sprites.append((*back, *INDICATOR, 0.15, 0.8 * strength, -cos, -sin))
                sprites.append((*front, *INDICATOR, 0.13, 0.6 * strength, cos, sin))
    return np.array(sprites, float).reshape(-1, 10)


def vehicle_lamps(drive: Drive, step: int) -> Floats:
    """Lamps float[n, 7] for the light that others' headlights throw on the road at night."""
    lamps: list[tuple[float, ...]] = []
    if drive.scene.conditions.light == "night":
        for actor in drive.scene.actors:
            if has_headlights_on(drive, actor):
                x, y, yaw = drive.poses[actor.id, step]
                ahead = KINDS[actor.kind].size[0] / 2 + 3.5
                lamps.append((x + np.cos(yaw) * ahead, y + np.sin(yaw) * ahead, 1.0, *HEADLIGHT, 1.6))
    return np.array(lamps, float).reshape(-1, 7)


def nearest(lamps: Floats, ego: Floats) -> Floats:
    """The lamps nearest to the ego, as many as shading can afford."""
    squares = (lamps[:, 0] - ego[0]) ** 2 + (lamps[:, 1] - ego[1]) ** 2
    return np.ascontiguousarray(lamps[np.argsort(squares, kind="stable")[:MOST_LAMPS]])


def signal_glows(drive: Drive, step: int) -> Floats:
    """Sprites float[n, 10] of the lamps that are lit in traffic lights."""
    signal = drive.signals[step]
    sprites: list[tuple[float, ...]] = []
    for head in drive.scene.heads:
        if signal is None:
            break
        height, colour = DISCS[signal]
        cos, sin = np.cos(head.facing), np.sin(head.facing)
        at = (head.x + DISC_AHEAD_M * cos, head.y + DISC_AHEAD_M * sin, head.z + height)
        strength = 1.0 if is_dark(drive.scene.conditions) else 0.55
        sprites.append((*at, *(part / max(colour) for part in colour), 0.16, strength, cos, sin))
    return np.array(sprites, float).reshape(-1, 10)


@lru_cache(maxsize=4)
def signal_lamps(signal: Signal | None) -> Triangles:
    """The three discs of a traffic light that faces along x, its lower edge in the origin; one of them lit."""
    angles = np.arange(8) * np.pi / 4
    points, materials, colours = [], [], []
    for name, (height, colour) in DISCS.items():
        rim = np.stack([0 * angles, np.cos(angles), np.sin(angles)], axis=1) * DISC_RADIUS_M
        rim += (DISC_AHEAD_M, 0.0, height)
        points += [rim[[0, corner, corner + 1]] for corner in range(1, 7)]
        materials += [Material.LAMP if name == signal else Material.MATT] * 6
        colours += [colour if name == signal else tuple(0.05 * part for part in colour)] * 6
    count = len(points)
    flags = np.full(count, int(Draw.TWO_SIDED | Draw.NO_SHADOW))
    return from_mesh(
        Mesh(np.array(points), np.zeros((count, 3, 2)), flags, np.array(materials, np.int64), np.array(colours))
    )
