"""Vehicles that one does not meet every day."""

from __future__ import annotations

import numpy as np

from drivedistill.world.catalogue import KINDS
from drivedistill.world.materials import Material
from drivedistill.world.meshes.animals import animal
from drivedistill.world.meshes.fittings import (
    CHROME,
    GLASS,
    PLASTIC,
    PROUD_M,
    RUBBER,
    Order,
    both_sides,
    lamps,
    upright_pane,
    wheels,
)
from drivedistill.world.meshes.lorries import lorry_cab
from drivedistill.world.meshes.people import seated
from drivedistill.world.meshes.shape import Colour, Shape, circle
from drivedistill.world.meshes.vehicles import car, light_bar, van

RED, WHITE, DIGGER_YELLOW, TIMBER = (0.55, 0.02, 0.02), (0.78, 0.78, 0.77), (0.72, 0.45, 0.02), (0.33, 0.20, 0.09)
LOG, LOG_END = (0.22, 0.13, 0.07), (0.55, 0.38, 0.2)


def ambulance(order: Order) -> Shape:
    """White, with red stripes and flashing lights."""
    length, width, height = KINDS["ambulance"].size
    shape, half = van(order, roof=height - 0.13), width / 2 - 0.03
    y = half + 2 * PROUD_M
    both_sides(
        shape,
        [(-length / 2 + 0.1, y, 0.95), (1.9, y, 0.95), (1.9, y, 1.2), (-length / 2 + 0.1, y, 1.2)],
        Material.MATT,
        RED,
    )
    for x0, x1, z0, z1 in ((-1.45, -0.65, 1.6, 1.85), (-1.18, -0.92, 1.32, 2.12)):
        lean = half - 0.02
        both_sides(
            shape, [(x0, lean, z0), (x1, lean, z0), (x1, lean - 0.03, z1), (x0, lean - 0.03, z1)], Material.MATT, RED
        )
    upright_pane(shape, -length / 2 - 2 * PROUD_M, half * 0.9, (1.0, 1.25), Material.MATT, RED)
    light_bar(shape, (0.5, 0.9), 0.8, height - 0.13)
    return shape


def fire_truck(order: Order) -> Shape:
    """Red, with a ladder on its roof."""
    shape = Shape()
    length, width, height = KINDS["fire truck"].size
    back = lorry_cab(shape, order, RED, length, width, 2.7)
    half, rear, top = width / 2, -length / 2, height - 0.35
    shape.box((rear, back - 0.1), (-half, half), (0.75, top), Material.CAR, RED, taper=(0.0, 0.0, 0.06))
    for z0, z1, colour in ((1.0, 1.25, (0.8, 0.75, 0.1)), (1.25, 1.4, WHITE)):
        stripe = [(rear + 0.05, half, z0), (back - 0.15, half, z0), (back - 0.15, half, z1), (rear + 0.05, half, z1)]
        both_sides(shape, [(x, y + PROUD_M, z) for x, y, z in stripe], Material.MATT, colour)
        upright_pane(shape, rear - PROUD_M, half - 0.1, (z0, z1), Material.MATT, colour)
    for x in (rear + 0.4, rear + 1.9, rear + 3.4):
        shutter = [
            (x, half + PROUD_M, 1.5),
            (x + 1.2, half + PROUD_M, 1.5),
            (x + 1.2, half - 0.03, 2.5),
            (x, half - 0.03, 2.5),
        ]
        both_sides(shape, shutter, Material.MATT, CHROME)
    for y in (-0.4, 0.4):
        shape.box((rear, length / 2 - 1.2), (y - 0.05, y + 0.05), (height - 0.25, height), Material.MATT, WHITE)
    for number in range(int((length - 1.6) / 0.7)):
        x = rear + 0.3 + 0.7 * number
        shape.box((x, x + 0.07), (-0.4, 0.4), (height - 0.2, height - 0.1), Material.MATT, WHITE)
    light_bar(shape, (length / 2 - 1.1, length / 2 - 0.75), 0.9, 2.7)
    return shape


def cement_mixer(order: Order) -> Shape:
    """A lorry with a drum that leans forward, narrow at the back."""
    shape = Shape()
    length, width, height = KINDS["cement mixer"].size
    back = lorry_cab(shape, order, order.paint, length, width, 2.75)
    start, end = -length / 2 + 0.2, back - 0.1
    x = np.array([start, start + 0.15 * (end - start), start + 0.45 * (end - start), start + 0.75 * (end - start), end])
    radius, middle = np.array([0.5, 0.75, 1.2, 1.15, 0.55]), np.array([2.65, 2.55, 2.25, 2.1, 2.0])
    ring = circle(10)
    y, z = radius[:, None] * ring[:, 0], middle[:, None] + radius[:, None] * ring[:, 1]
    sections = np.stack([np.broadcast_to(x[:, None], y.shape), y, z], axis=2)
    for part, colour in (
        (slice(0, 3), (0.70, 0.68, 0.64)),
        (slice(2, 4), (0.66, 0.22, 0.04)),
        (slice(3, 5), (0.70, 0.68, 0.64)),
    ):
        shape.loft(sections[part], Material.MATT, colour, closed=True)
    shape.box((start - 0.1, start + 0.1), (-0.6, 0.6), (0.95, 2.1), Material.MATT, PLASTIC)
    shape.box(
        (start - 0.15, start + 0.5),
        (-0.35, 0.35),
        (height - 0.35, height),
        Material.MATT,
        CHROME,
        taper=(-0.1, -0.1, -0.1),
    )
    shape.quad(
        [(start, -0.2, 2.1), (start, 0.2, 2.1), (start - 0.15, 0.2, 0.9), (start - 0.15, -0.2, 0.9)],
        Material.MATT,
        CHROME,
    )
    return shape


def excavator(order: Order) -> Shape:
    """Tracks, a cab on a turntable, and a raised arm with its bucket before it."""
    shape, paint = Shape(), DIGGER_YELLOW
    length, width, height = KINDS["excavator"].size
    rear, half = -length / 2, width / 2
    for side in (-1, 1):
        edges = (side * half, side * (half - 0.55))
        profile = [
            (rear, 0.3),
            (rear + 0.3, 0.0),
            (1.0, 0.0),
            (1.35, 0.3),
            (1.35, 0.55),
            (1.0, 0.85),
            (rear + 0.3, 0.85),
            (rear, 0.55),
        ]
        sections = np.array([[(x, across, z) for x, z in profile] for across in edges])
        shape.loft(sections, Material.MATT, RUBBER, closed=True, ends=(Material.MATT, (0.07, 0.07, 0.07)))
    shape.box((rear + 0.1, 0.9), (-1.15, 1.15), (0.95, 1.85), Material.CAR, paint, taper=(0.0, 0.15, 0.03), bottom=True)
    shape.box((rear, rear + 0.7), (-1.1, 1.1), (0.95, 1.6), Material.MATT, PLASTIC)
    shape.box(
        (-0.5, 0.9),
        (0.15, 1.15),
        (1.85, 2.9),
        Material.GLASS,
        GLASS,
        taper=(0.2, 0.05, 0.04),
        top=(Material.CAR, paint),
    )
    for x in (-0.5, 0.84):
        both = [(x, 1.16, 1.85), (x + 0.08, 1.16, 1.85), (x + 0.02, 1.13, 2.9), (x - 0.06, 1.13, 2.9)]
        shape.quads([both], Material.CAR, paint)
    _digging_arm(shape, paint)
    return shape.fitted((length, width, height))


def _digging_arm(shape: Shape, paint: Colour) -> None:
    """Boom, stick and bucket, with the boom's hydraulic cylinder."""
    joints = [(0.7, 1.5), (1.5, 3.15), (2.25, 3.45), (2.3, 1.1)]
    for (x0, z0), (x1, z1), thick in zip(joints[:-1], joints[1:], (0.24, 0.22, 0.16), strict=True):
        start, end = (x0, -0.35, z0), (x1, -0.35, z1)
        shape.cylinder(start, end, thick, Material.CAR, paint, sides=5, ends=(Material.CAR, paint))
    shape.cylinder((0.9, -0.35, 1.3), (1.75, -0.35, 2.7), 0.07, Material.MATT, CHROME, sides=5)
    bucket = [(2.05, 0.35), (2.6, 0.55), (2.6, 1.15), (2.2, 1.25), (1.85, 0.9)]
    sections = np.array([[(x, across, z) for x, z in bucket] for across in (-0.85, 0.15)])
    shape.loft(sections, Material.MATT, (0.10, 0.10, 0.10), closed=True, ends=(Material.MATT, (0.12, 0.12, 0.12)))


def log_trailer(order: Order) -> Shape:
    """A low trailer loaded with tree trunks."""
    shape = Shape()
    length, width, _ = KINDS["log trailer"].size
    half, front, rear = width / 2, length / 2, -length / 2
    shape.box((rear, front - 0.8), (-half, half), (0.6, 0.8), Material.MATT, (0.25, 0.05, 0.03), bottom=True)
    shape.box((front - 0.8, front + 0.1), (-0.07, 0.07), (0.52, 0.66), Material.MATT, PLASTIC)
    for x in (rear + 0.5, front - 1.4):
        for side in (-1, 1):
            shape.box((x, x + 0.1), (side * half, side * (half - 0.08)), (0.8, 1.9), Material.MATT, PLASTIC)
    for number, (y, z) in enumerate(
        ((-0.68, 1.08), (0.0, 1.08), (0.68, 1.08), (-0.34, 1.58), (0.34, 1.58), (0.0, 2.04))
    ):
        start, end = (rear - 0.1 - 0.04 * number, y, z), (front - 0.9 - 0.1 * (number % 2), y, z)
        shape.cylinder(start, end, 0.28, Material.BARK, LOG, sides=8, ends=(Material.WOOD, LOG_END))
    wheels(shape, (-0.6, 0.4), half + 0.02, 0.38, whole=True)
    lamps(shape, order, front - 0.8, rear, half * 0.9, 0.6, (0.3, 0.12))
    return shape


def horse_cart(order: Order) -> Shape:
    """A wooden cart with a driver, drawn by a horse."""
    shape = Shape()
    length, width, height = KINDS["horse cart"].size
    rear, front, half = -length / 2, length / 2, width / 2
    shape.add(animal(order._replace(kind="horse")), front - 1.15)
    shape.box(
        (rear, -0.15), (-half * 0.85, half * 0.85), (0.75, 1.25), Material.WOOD, TIMBER, taper=(-0.08, -0.08, -0.08)
    )
    shape.box((-0.55, -0.25), (-half * 0.8, half * 0.8), (1.1, 1.18), Material.WOOD, TIMBER)
    spokes: Colour = (0.26, 0.15, 0.06)
    for side in (-1, 1):
        y = side * (half - 0.06)
        shape.cylinder((-1.3, y, 0.6), (-1.3, y + side * 0.06, 0.6), 0.6, Material.WOOD, spokes, sides=12)
        ring = np.insert(circle(12), 1, 0.0, axis=1) * 0.6
        inner = ring * 0.82
        rim = np.stack([ring, np.roll(ring, -1, axis=0), np.roll(inner, -1, axis=0), inner], axis=1)
        shape.quads(rim + np.array([-1.3, y + side * 0.06, 0.6]), Material.MATT, spokes)
        for turn in np.arange(6) * np.pi / 6:
            dx, dz = 0.55 * np.cos(turn), 0.55 * np.sin(turn)
            cross = np.array([(dx, 0, dz + 0.03), (dx, 0, dz - 0.03), (-dx, 0, -dz - 0.03), (-dx, 0, -dz + 0.03)])
            shape.quads(cross[None] + np.array([-1.3, y + side * 0.03, 0.6]), Material.MATT, spokes)
        shape.box((-0.2, front - 0.7), (side * 0.42 - 0.03, side * 0.42 + 0.03), (0.92, 1.0), Material.MATT, TIMBER)
    shape.add(seated(order.seed, 1.0), -0.45, 0.0, 0.70)
    return shape.fitted((length, width, max(height, 1.95)))


def overturned_car(order: Order) -> Shape:
    """A sedan on its roof, its wheels in the air."""
    body = car(order._replace(kind="sedan", braking=False, indicator=0, headlights=False))
    shape = body.flipped()
    length, width, height = KINDS["overturned car"].size
    shape.box((-1.9, 1.9), (-0.75, 0.75), (1.16, 1.24), Material.MATT, (0.07, 0.06, 0.05))
    shape.box((-1.8, 0.6), (-0.12, 0.12), (1.24, 1.30), Material.MATT, CHROME)
    for x in (-0.30 * 4.6, 0.31 * 4.6):
        shape.box((x - 0.08, x + 0.08), (-0.8, 0.8), (1.2, 1.3), Material.MATT, PLASTIC)
    return shape.fitted((length, width, height))
