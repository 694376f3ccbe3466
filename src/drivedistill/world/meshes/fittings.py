"""What vehicles have in common: a hull from cross-sections, windows, wheels, lamps, number plates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from drivedistill.world.catalogue import COLOURS
from drivedistill.world.materials import Material
from drivedistill.world.meshes.shape import Colour, Shape, circle
from drivedistill.world.track import Floats

RUBBER, PLASTIC, CHROME = (0.025, 0.025, 0.028), (0.05, 0.05, 0.055), (0.35, 0.35, 0.37)
GLASS, PLATE = (0.03, 0.035, 0.045), (0.7, 0.7, 0.62)
LIT_FRONT, DARK_FRONT = (1.6, 1.5, 1.25), (0.75, 0.76, 0.74)
LIT_BRAKE, DARK_BRAKE = (1.7, 0.06, 0.03), (0.36, 0.015, 0.012)
LIT_INDICATOR, DARK_INDICATOR = (1.8, 0.75, 0.05), (0.45, 0.16, 0.02)
FLASHING_BLUE, FLASHING_RED = (0.12, 0.25, 1.7), (1.6, 0.1, 0.1)
PROUD_M = 0.012
"""How far what is stuck on a surface stands before it."""


class Order(NamedTuple):
    """What is wanted of a mesh."""

    kind: str
    colour: str
    seed: int
    phase: float
    """Of the walk, radians; two steps are 2 pi."""
    braking: bool
    indicator: int
    """1 left, -1 right, 0 off"""
    headlights: bool

    @property
    def paint(self) -> Colour:
        """The colour's reflectance."""
        return COLOURS[self.colour]


class Station(NamedTuple):
    """A cross-section of a hull, metres: sides rise from the bottom to the shoulder and lean inward to the top."""

    x: float
    half: float
    """half width"""
    bottom: float
    shoulder: float
    top: float
    inset: float
    """by which the top is narrower on each side"""


def hull(shape: Shape, stations: Sequence[Station], paint: Colour, *, glass_tops: Sequence[int] = ()) -> Floats:
    """Add the skin over stations from the rear to the front; gives them as float[n, 6].

    The top panel behind each station is made of glass where `glass_tops` names the number of the segment.
    """
    rows = np.array(stations)
    x, half, bottom, shoulder, top, inset = rows.T
    upper = half - inset
    across = np.stack([-half, -half, -upper, upper, half, half], axis=1)
    height = np.stack([bottom, shoulder, top, top, shoulder, bottom], axis=1)
    points = np.stack([np.broadcast_to(x[:, None], across.shape), across, height], axis=2)
    corners = np.stack([points[:-1, :-1], points[1:, :-1], points[1:, 1:], points[:-1, 1:]], axis=2)
    glass: NDArray[np.bool_] = np.zeros(corners.shape[:2], np.bool_)
    glass[list(glass_tops), 2] = True
    shape.quads(corners[~glass], Material.CAR, paint)
    if glass_tops:
        shape.quads(corners[glass], Material.GLASS, GLASS)
    for end in (points[0], points[-1]):
        shape.quads(end[[[0, 1, 4, 5], [1, 2, 3, 4]]], Material.CAR, paint)
    return rows


def side_panes(
    shape: Shape, rows: Floats, panes: Sequence[tuple[float, float, float, float]], material: Material, colour: Colour
) -> None:
    """Stick panes on both sides of a hull: (x from, x to, from, to) with parts of the way from shoulder to top."""
    spans = np.array(panes)
    x, up = spans[:, [0, 1, 1, 0]], spans[:, [2, 2, 3, 3]]
    half, shoulder, top, inset = (np.interp(x, rows[:, 0], rows[:, column]) for column in (1, 3, 4, 5))
    y, z = half - inset * up + PROUD_M, shoulder + (top - shoulder) * up
    right, left = np.stack([x, -y, z], axis=2), np.stack([x, y, z], axis=2)
    shape.quads(np.concatenate([right, left]), material, colour)


def both_sides(shape: Shape, corners: Sequence[tuple[float, float, float]], material: Material, colour: Colour) -> None:
    """A quadrilateral on the left and its mirror image on the right."""
    left = np.array(corners)
    shape.quads(np.stack([left, left * (1, -1, 1)]), material, colour)


def upright_pane(
    shape: Shape, x: float, half: float, z: tuple[float, float], material: Material, colour: Colour, middle: float = 0.0
) -> None:
    """A pane that looks forward or back."""
    right, left = middle - half, middle + half
    shape.quad([(x, right, z[0]), (x, left, z[0]), (x, left, z[1]), (x, right, z[1])], material, colour)


def wheels(
    shape: Shape, places: Sequence[float], half: float, radius: float, width: float = 0.24, *, whole: bool = False
) -> None:
    """Wheels at x = `places` on both sides, their outer faces at y = +-half; `whole`: with the tread's upper part."""
    wheel = np.insert(circle(8), 1, 0.0, axis=1) * radius
    inner = wheel - np.array([0.0, width, 0.0])
    begin = np.arange(0 if whole else 3, 8)
    end: NDArray[np.int64] = (begin + 1) % 8
    tread = np.stack([wheel[begin], wheel[end], inner[end], inner[begin]], axis=1)
    fan = [(0, 1, 2, 3), (0, 3, 4, 7), (4, 5, 6, 7)]
    face, hub = wheel[fan], (wheel * 0.6 + np.array([0.0, PROUD_M, 0.0]))[fan]
    mirrored = (1.0, -1.0, 1.0)
    at = np.array([(x, half, radius) for x in places])[:, None, None]
    for corners, colour in ((tread, RUBBER), (face, RUBBER), (hub, CHROME)):
        left = corners + at
        both = np.concatenate([left, left * mirrored]).reshape(-1, 4, 3)
        shape.quads(both, Material.MATT, colour)


def wheel_arches(shape: Shape, places: Sequence[float], half: float, radius: float, sill: float) -> None:
    """Dark half discs on the sides, around wheels."""
    rim = circle(8)[[0, 1, 2, 3, 4]] * (radius + 0.07)
    low = min(0.0, sill - radius)
    for x in places:
        arch = [(x + across, half + PROUD_M * 0.5, radius + up) for across, up in rim]
        ends = [
            (x - radius - 0.07, half + PROUD_M * 0.5, radius + low),
            (x + radius + 0.07, half + PROUD_M * 0.5, radius + low),
        ]
        both_sides(shape, [arch[0], arch[1], arch[3], arch[4]], Material.MATT, RUBBER)
        both_sides(shape, [arch[1], arch[2], arch[2], arch[3]], Material.MATT, RUBBER)
        both_sides(shape, [ends[1], arch[0], arch[4], ends[0]], Material.MATT, RUBBER)


def lamps(
    shape: Shape,
    order: Order,
    front: float,
    rear: float,
    half: float,
    z: float,
    size: tuple[float, float] = (0.34, 0.15),
) -> None:
    """Head, tail and indicator lamps; x of front and rear, half width, z of their lower edges, width and height."""
    wide, tall = size
    inner, outer, blink = half - wide, half, half - wide * 0.4
    head, tail = front + PROUD_M, rear - PROUD_M
    lens, light = (Material.LAMP, LIT_FRONT) if order.headlights else (Material.CAR, DARK_FRONT)
    both_sides(shape, _pane(head, inner, outer, z, z + tall), lens, light)
    lens, light = (Material.LAMP, LIT_BRAKE) if order.braking else (Material.MATT, DARK_BRAKE)
    both_sides(shape, _pane(tail, inner, outer, z, z + 1.4 * tall), lens, light)
    for side in (-1, 1):
        lit = order.indicator == side
        lens, light = (Material.LAMP, LIT_INDICATOR) if lit else (Material.MATT, DARK_INDICATOR)
        grown = 0.04 if lit else 0.0
        for x, high in ((head + PROUD_M, z + 0.45 * tall), (tail - PROUD_M, z + 0.5 * tall)):
            corners = np.array(_pane(x, blink - grown, outer + 0.02, z - 0.02 - grown, high + grown))
            shape.quad(corners * (1, side, 1), lens, light)


def _pane(x: float, inner: float, outer: float, low: float, high: float) -> list[tuple[float, float, float]]:
    return [(x, inner, low), (x, outer, low), (x, outer, high), (x, inner, high)]


def number_plates(shape: Shape, front: float, rear: float, z: float) -> None:
    """Pale plates at both ends."""
    for x, low in ((front + 2 * PROUD_M, z - 0.06), (rear - 2 * PROUD_M, z)):
        upright_pane(shape, x, 0.26, (low, low + 0.12), Material.MATT, PLATE)
