"""Cars, vans, lorries and buses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from drivedistill.world.catalogue import COLOURS, KINDS
from drivedistill.world.materials import Material
from drivedistill.world.meshes.fittings import (
    FLASHING_BLUE,
    FLASHING_RED,
    GLASS,
    PLASTIC,
    PROUD_M,
    Order,
    Station,
    both_sides,
    hull,
    lamps,
    number_plates,
    side_panes,
    upright_pane,
    wheel_arches,
    wheels,
)
from drivedistill.world.meshes.shape import Colour, Shape

STRIPE_BLUE, CHECKER = (0.03, 0.10, 0.45), (0.02, 0.02, 0.02)


@dataclass(frozen=True)
class Style:
    """The shape of a car. x in parts of the length from -0.5 to 0.5, y of the half width, z of the height."""

    hull: tuple[tuple[float, float, float, float, float, float], ...]
    """`fittings.Station`s from the rear to the front"""
    cabin: tuple[tuple[float, float, float], ...]
    """x, z of the roof line and how far the sides lean in: rear foot, roof's rear and front, front foot"""
    pillars: tuple[float, ...]
    """x of the pillars between side windows"""
    axles: tuple[float, float]
    radius: float
    """of the wheels, metres"""
    lamps: float
    """z of the lamps' lower edge, metres"""


SEDAN = Style(
    (
        (-0.5, 0.88, 0.24, 0.40, 0.56, 0.06), (-0.485, 0.965, 0.15, 0.48, 0.64, 0.09), (-0.34, 0.965, 0.15, 0.50, 0.655, 0.10),
        (0.2, 0.965, 0.15, 0.48, 0.64, 0.10), (0.44, 0.94, 0.15, 0.45, 0.55, 0.10), (0.5, 0.84, 0.24, 0.38, 0.46, 0.06),
    ),
    ((-0.38, 0.64, 0.12), (-0.19, 0.99, 0.30), (0.02, 1.0, 0.30), (0.2, 0.63, 0.12)),
    (-0.06, -0.24),
    (-0.30, 0.31),
    0.33,
    0.60,
)  # fmt: skip
SUV = Style(
    (
        (-0.5, 0.90, 0.25, 0.42, 0.58, 0.05), (-0.485, 0.965, 0.15, 0.48, 0.64, 0.08), (-0.3, 0.965, 0.15, 0.50, 0.66, 0.08),
        (0.22, 0.965, 0.15, 0.48, 0.65, 0.08), (0.45, 0.95, 0.17, 0.46, 0.58, 0.08), (0.5, 0.88, 0.25, 0.40, 0.50, 0.05),
    ),
    ((-0.49, 0.64, 0.11), (-0.42, 0.98, 0.24), (0.05, 1.0, 0.24), (0.22, 0.64, 0.11)),
    (-0.07, -0.27),
    (-0.30, 0.31),
    0.38,
    0.72,
)  # fmt: skip
HATCHBACK = Style(
    (
        (-0.5, 0.90, 0.22, 0.40, 0.58, 0.05), (-0.48, 0.965, 0.14, 0.48, 0.63, 0.09), (-0.3, 0.965, 0.14, 0.50, 0.65, 0.10),
        (0.24, 0.965, 0.14, 0.48, 0.63, 0.10), (0.44, 0.94, 0.15, 0.44, 0.53, 0.10), (0.5, 0.85, 0.22, 0.38, 0.45, 0.06),
    ),
    ((-0.49, 0.62, 0.12), (-0.38, 0.97, 0.28), (0.04, 1.0, 0.28), (0.24, 0.62, 0.12)),
    (-0.09,),
    (-0.31, 0.32),
    0.32,
    0.62,
)  # fmt: skip
PICKUP = Style(
    (
        (-0.5, 0.95, 0.28, 0.46, 0.56, 0.05), (-0.08, 0.965, 0.20, 0.46, 0.56, 0.06), (0.02, 0.965, 0.20, 0.46, 0.57, 0.06),
        (0.24, 0.965, 0.20, 0.46, 0.58, 0.08), (0.46, 0.95, 0.20, 0.45, 0.53, 0.08), (0.5, 0.90, 0.28, 0.40, 0.47, 0.05),
    ),
    ((-0.10, 0.57, 0.10), (-0.07, 0.98, 0.24), (0.11, 1.0, 0.24), (0.25, 0.57, 0.10)),
    (0.03,),
    (-0.31, 0.33),
    0.40,
    0.70,
)  # fmt: skip
VAN = (
    (-0.5, 0.96, 0.13, 0.5, 0.97, 0.08), (-0.48, 0.985, 0.12, 0.5, 1.0, 0.09), (0.2, 0.985, 0.12, 0.5, 1.0, 0.10),
    (0.38, 0.985, 0.12, 0.46, 0.56, 0.10), (0.48, 0.95, 0.12, 0.36, 0.42, 0.08), (0.5, 0.90, 0.14, 0.34, 0.38, 0.06),
)  # fmt: skip
STYLES = {"sedan": SEDAN, "taxi": SEDAN, "police car": SEDAN, "SUV": SUV, "hatchback": HATCHBACK, "pickup": PICKUP}


def stations_of(
    parts: Sequence[tuple[float, float, float, float, float, float]], length: float, half: float, height: float
) -> list[Station]:
    """Stations in metres from parts of length, half width and height (the inset is in metres already)."""
    return [
        Station(x * length, y * half, bottom * height, shoulder * height, top * height, inset)
        for x, y, bottom, shoulder, top, inset in parts
    ]


def car(order: Order) -> Shape:
    """A sedan, SUV, hatchback, pickup, taxi or police car."""
    shape, style = Shape(), STYLES[order.kind]
    length, width, height = KINDS[order.kind].size
    half = width / 2 - 0.04
    paint = {"taxi": COLOURS["yellow"], "police car": COLOURS["white"]}.get(order.kind, order.paint)
    stations = stations_of(style.hull, length, half, height)
    hull(shape, stations, paint)
    _cabin(shape, style, length, half, height, paint)
    axles = [x * length for x in style.axles]
    wheel_arches(shape, axles, half * 0.965, style.radius, stations[1].bottom)
    wheels(shape, axles, half * 0.965 + 0.02, style.radius)
    front, rear = length / 2, -length / 2
    lamps(shape, order, front, rear, half * 0.84, style.lamps, (0.36, min(0.15, stations[-1].top - style.lamps)))
    number_plates(shape, front, rear, style.lamps - 0.12)
    upright_pane(shape, front + PROUD_M, 0.42, (stations[-1].bottom + 0.02, style.lamps - 0.02), Material.MATT, PLASTIC)
    mirror = style.cabin[3][0] * length - 0.35
    for side in (-1, 1):
        z = stations[3].top
        shape.box(
            (mirror, mirror + 0.12), (side * half * 0.93, side * (width / 2 + 0.06)), (z, z + 0.13), Material.CAR, paint
        )
    _livery(shape, order.kind, half, height)
    if order.kind == "pickup":
        bed = (stations[0].x + 0.1, stations[1].x - 0.15)
        wide, rim = half - 0.16, stations[0].top + PROUD_M
        floor = [(bed[0], -wide, rim), (bed[1], -wide, rim), (bed[1], wide, rim), (bed[0], wide, rim)]
        shape.quad(floor, Material.MATT, (0.02, 0.02, 0.02))
    return shape


def _cabin(shape: Shape, style: Style, length: float, half: float, height: float, paint: Colour) -> None:
    """Windows all around, the roof over them, and pillars between."""
    x, z, lean = np.array(style.cabin).T * np.array([[length], [height], [1.0]])
    foot = np.interp(x, x[[0, 3]], z[[0, 3]])
    low, high = half - 0.12, half - lean
    right_foot, left_foot = np.stack([x, 0 * x - low, foot], axis=1), np.stack([x, 0 * x + low, foot], axis=1)
    right_top, left_top = np.stack([x, -high, z], axis=1), np.stack([x, high, z], axis=1)
    ring = np.stack([right_foot, right_top, left_top, left_foot], axis=1)
    corners = np.stack([ring[:-1, :-1], ring[1:, :-1], ring[1:, 1:], ring[:-1, 1:]], axis=2)
    roof = corners[1, 1].copy()
    shape.quads(corners.reshape(-1, 4, 3)[[0, 1, 2, 3, 5, 6, 7, 8]], Material.GLASS, GLASS)
    shape.quad(roof, Material.CAR, paint)
    gutter = roof[[0, 1]] - (0, 0, 0.09) - np.array([(0, 0.03, 0)])
    both_sides(shape, [*(roof[[1, 0]] * (1, -1, 1)), *(gutter * (1, -1, 1))], Material.CAR, paint)
    struts = [(x[0], x[1], 0, 1), (x[3], x[2], 3, 2)]
    for low_x, high_x, at_foot, at_top in struts:
        wide = 0.09 if at_foot else 0.14
        _strut(shape, (low_x, low, foot[at_foot]), (high_x, high[at_top], z[at_top]), wide, paint)
    for part in style.pillars:
        _strut(
            shape,
            (part * length, low, float(np.interp(part * length, x, foot))),
            (part * length, high[1], z[1] - 0.02),
            0.09,
            paint,
        )


def _strut(
    shape: Shape, low: tuple[float, float, float], high: tuple[float, float, float], wide: float, paint: Colour
) -> None:
    (x0, y0, z0), (x1, y1, z1) = low, high
    out = PROUD_M
    corners = [
        (x0 - wide, y0 + out, z0),
        (x0 + wide, y0 + out, z0),
        (x1 + wide / 2, y1 + out, z1),
        (x1 - wide / 2, y1 + out, z1),
    ]
    both_sides(shape, corners, Material.CAR, paint)


def _livery(shape: Shape, kind: str, half: float, height: float) -> None:
    """What makes a taxi or a police car of a car."""
    y = half * 0.965 + PROUD_M
    if kind == "taxi":
        shape.box((-0.35, -0.05), (-0.28, 0.28), (height, height + 0.15), Material.LAMP, (1.0, 0.75, 0.2))
        for number in range(8):
            x, z = -0.9 + 0.225 * number, 0.62 + 0.09 * (number % 2)
            both_sides(
                shape,
                [(x, y, z), (x + 0.225, y, z), (x + 0.225, y, z + 0.09), (x, y, z + 0.09)],
                Material.MATT,
                CHECKER,
            )
    elif kind == "police car":
        both_sides(
            shape, [(-0.95, y, 0.36), (0.9, y, 0.36), (0.9, y, 0.70), (-0.95, y, 0.70)], Material.MATT, STRIPE_BLUE
        )
        light_bar(shape, (-0.45, -0.2), 0.55, height)


def light_bar(shape: Shape, x: tuple[float, float], half: float, z: float) -> None:
    """Red and blue flashing lights on a roof."""
    shape.box(x, (-half, 0.0), (z, z + 0.13), Material.LAMP, FLASHING_RED)
    shape.box(x, (0.0, half), (z, z + 0.13), Material.LAMP, FLASHING_BLUE)


def van(order: Order, *, roof: float | None = None) -> Shape:
    """A delivery van; `roof` in metres where it differs from the kind's height."""
    shape = Shape()
    length, width, height = KINDS[order.kind].size
    half, height = width / 2 - 0.03, roof or height
    paint = COLOURS["white"] if order.kind == "ambulance" else order.paint
    rows = hull(shape, stations_of(VAN, length, half, height), paint, glass_tops=(2,))
    side_panes(
        shape,
        rows,
        [(0.08 * length, 0.21 * length, 0.12, 0.72), (0.22 * length, 0.31 * length, 0.12, 0.6)],
        Material.GLASS,
        GLASS,
    )
    for side in (-1, 1):
        upright_pane(
            shape,
            -length / 2 - PROUD_M,
            half * 0.36,
            (0.56 * height, 0.86 * height),
            Material.GLASS,
            GLASS,
            side * half * 0.44,
        )
    upright_pane(shape, -length / 2 - PROUD_M, 0.015, (0.4, 0.95 * height), Material.MATT, PLASTIC)
    front, rear = length / 2, -length / 2
    axles = (-0.31 * length, 0.32 * length)
    wheel_arches(shape, axles, half * 0.985, 0.36, 0.28)
    wheels(shape, axles, half + 0.005, 0.36)
    lamps(shape, order, front, rear, half * 0.88, 0.68)
    number_plates(shape, front, rear, 0.5)
    upright_pane(shape, front + PROUD_M, 0.5, (0.42, 0.62), Material.MATT, PLASTIC)
    return shape
