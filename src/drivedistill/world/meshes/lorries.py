"""Lorries and buses."""

from __future__ import annotations

from drivedistill.world.catalogue import KINDS
from drivedistill.world.materials import Material
from drivedistill.world.meshes.fittings import (
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
from drivedistill.world.meshes.vehicles import stations_of
from drivedistill.world.track import Floats

BUS = (
    (-0.5, 0.97, 0.115, 0.42, 0.95, 0.06), (-0.495, 1.0, 0.10, 0.42, 0.99, 0.08),
    (0.49, 1.0, 0.10, 0.42, 1.0, 0.08), (0.5, 0.97, 0.115, 0.42, 0.95, 0.06),
)  # fmt: skip


def bus(order: Order) -> Shape:
    """A city bus with its destination lit over the windscreen."""
    shape = Shape()
    length, width, height = KINDS["bus"].size
    half = width / 2 - 0.03
    rows = hull(shape, stations_of(BUS, length, half, height), order.paint)
    step = (length - 1.0) / 7
    panes = [
        (-length / 2 + 0.5 + step * number, -length / 2 + 0.4 + step * (number + 1), 0.06, 0.72) for number in range(7)
    ]
    side_panes(shape, rows, panes, Material.GLASS, GLASS)
    door = [(x, -half - PROUD_M, z) for x, z in ((3.9, 0.4), (5.0, 0.4), (5.0, 2.3), (3.9, 2.3))]
    shape.quad(door, Material.GLASS, (0.05, 0.055, 0.06))
    both_sides(
        shape, _belt(-length / 2 + 0.1, length / 2 - 1.7, half + PROUD_M, 0.80, 1.0), Material.MATT, (0.8, 0.8, 0.78)
    )
    front, rear = length / 2, -length / 2
    upright_pane(shape, front + PROUD_M, half - 0.16, (1.0, 2.45), Material.GLASS, GLASS)
    upright_pane(shape, rear - PROUD_M, half - 0.28, (1.55, 2.45), Material.GLASS, GLASS)
    upright_pane(shape, front + PROUD_M, 0.8, (2.55, 2.83), Material.LAMP, (0.9, 0.55, 0.05))
    axles = (-0.28 * length, 0.30 * length)
    wheel_arches(shape, axles, half, 0.48, 0.32)
    wheels(shape, axles, half + 0.02, 0.48, 0.3)
    lamps(shape, order, front, rear, half - 0.08, 0.72)
    number_plates(shape, front, rear, 0.52)
    return shape


def _belt(x0: float, x1: float, y: float, z0: float, z1: float) -> list[tuple[float, float, float]]:
    """A stripe on the left side."""
    return [(x0, y, z0), (x1, y, z0), (x1, y, z1), (x0, y, z1)]


def lorry_cab(shape: Shape, order: Order, paint: Colour, length: float, width: float, top: float) -> float:
    """Add cab, frame, wheels and lamps of a lorry; gives the x of the cab's back."""
    half, back = width / 2 - 0.04, length / 2 - 2.1
    stations = [
        Station(back, half * 0.98, 0.5, 1.5, top, 0.10),
        Station(length / 2 - 0.35, half * 0.98, 0.5, 1.5, top, 0.12),
        Station(length / 2, half * 0.96, 0.5, 1.45, 1.55, 0.06),
    ]
    rows: Floats = hull(shape, stations, paint, glass_tops=(1,))
    side_panes(shape, rows, [(back + 0.55, length / 2 - 0.42, 0.06, 0.8)], Material.GLASS, GLASS)
    shape.box((-length / 2, back), (-half * 0.75, half * 0.75), (0.5, 0.95), Material.MATT, PLASTIC)
    upright_pane(shape, length / 2 + PROUD_M, half * 0.6, (1.05, 1.35), Material.MATT, PLASTIC)
    for side in (-1, 1):
        shape.box(
            (length / 2 - 0.5, length / 2 - 0.38),
            (side * half, side * (half + 0.14)),
            (1.6, 2.1),
            Material.MATT,
            PLASTIC,
        )
    wheel_arches(shape, (0.34 * length,), half * 0.98, 0.48, 0.5)
    axles = (-0.36 * length, -0.22 * length, 0.34 * length) if length > 7 else (-0.3 * length, 0.33 * length)
    wheels(shape, axles, half, 0.48, 0.32, whole=True)
    lamps(shape, order, length / 2, -length / 2, half * 0.86, 0.78)
    number_plates(shape, length / 2, -length / 2, 0.6)
    return back


def truck(order: Order) -> Shape:
    """A lorry with a box body in its colour and a pale stripe: its name must be true from every side."""
    shape = Shape()
    length, width, height = KINDS["truck"].size
    back = lorry_cab(shape, order, order.paint, length, width, 2.75)
    half, rear = width / 2, -length / 2
    shape.box((rear, back - 0.15), (-half, half), (0.95, height), Material.MATT, order.paint)
    stripe = (0.30, 0.31, 0.33) if min(order.paint) > 0.4 else (0.76, 0.76, 0.74)
    band = (height * 0.42, height * 0.42 + 0.7)
    both_sides(shape, _belt(rear + 0.05, back - 0.2, half + PROUD_M, *band), Material.MATT, stripe)
    upright_pane(shape, rear - PROUD_M, half - 0.06, band, Material.MATT, stripe)
    upright_pane(shape, rear - 2 * PROUD_M, 0.02, (1.0, height - 0.1), Material.MATT, PLASTIC)
    return shape
