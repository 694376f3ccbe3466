"""What lies or stands on roads and should not, and what road works put there."""

from __future__ import annotations

import numpy as np

from drivedistill.world.catalogue import KINDS
from drivedistill.world.materials import Material
from drivedistill.world.meshes.fittings import CHROME, RUBBER, Order
from drivedistill.world.meshes.shape import Shape, circle, unit_ball

CARDBOARD, TAPE = (0.42, 0.27, 0.13), (0.55, 0.42, 0.24)
LOG, LOG_END = (0.26, 0.15, 0.08), (0.60, 0.42, 0.22)
UPHOLSTERY = ((0.42, 0.05, 0.05), (0.06, 0.14, 0.32), (0.10, 0.26, 0.14), (0.45, 0.33, 0.20))


def traffic_cone(order: Order) -> Shape:
    """Orange with white bands, on a black foot."""
    shape = Shape().box((-0.2, 0.2), (-0.2, 0.2), (0.0, 0.05), Material.MATT, RUBBER)
    return shape.cylinder(
        (0, 0, 0.05), (0, 0, 0.75), 0.16, Material.CONE, (0.85, 0.20, 0.02), end_radius=0.03, sides=10
    )


def construction_barrier(order: Order) -> Shape:
    """Two striped boards between posts, a lamp on one of them."""
    shape = Shape()
    for z in (0.32, 0.70):
        shape.box((-0.04, 0.04), (-1.0, 1.0), (z, z + 0.26), Material.BARRIER, (0.85, 0.25, 0.03), bottom=True)
    for y in (-0.8, 0.8):
        shape.box((-0.2, 0.2), (y - 0.05, y + 0.05), (0.0, 0.06), Material.MATT, RUBBER)
        shape.box((-0.03, 0.03), (y - 0.03, y + 0.03), (0.06, 1.0), Material.MATT, (0.4, 0.4, 0.4))
    shape.ball((0.0, 0.8, 1.02), 0.085, Material.LAMP, (1.7, 0.8, 0.05), 6, 4)
    return shape


def cardboard_boxes(order: Order) -> Shape:
    """Boxes in a heap, one of them on the others."""
    shape, rng = Shape(), np.random.default_rng([order.seed, 3])
    places = ((-0.45, -0.5, 0.0), (-0.35, 0.5, 0.0), (0.4, -0.1, 0.0), (0.35, 0.75, 0.0), (-0.1, 0.05, 0.52))
    for x, y, z in places:
        size, turn = rng.uniform(0.5, 0.75), rng.uniform(0, np.pi)
        half, tall = size / 2, 0.52 if z == 0 else rng.uniform(0.4, 0.5)
        box = Shape().box((-half, half), (-half * 0.8, half * 0.8), (0.0, tall), Material.WOOD, CARDBOARD)
        box.box((-half, half), (-0.04, 0.04), (tall, tall + 0.005), Material.MATT, TAPE)
        flap = [
            (-half, half * 0.8, tall),
            (half, half * 0.8, tall),
            (half, half * 1.25, tall + 0.12),
            (-half, half * 1.25, tall + 0.12),
        ]
        if z:
            box.quad(flap, Material.WOOD, CARDBOARD)
        shape.add(box, x + rng.uniform(-0.08, 0.08), y + rng.uniform(-0.08, 0.08), z, turn)
    return shape.fitted(KINDS[order.kind].size)


def fallen_tire(order: Order) -> Shape:
    """A tyre flat on the road; one can look through its middle."""
    rim = np.concatenate([circle(12), np.zeros((12, 1))], axis=1)
    profile = ((0.20, 0.05), (0.30, 0.0), (0.35, 0.06), (0.35, 0.18), (0.30, 0.25), (0.20, 0.20), (0.20, 0.05))
    sections = np.stack([rim * radius + (0, 0, height) for radius, height in profile])
    shape = Shape().loft(sections[1:4], Material.MATT, RUBBER, closed=True)
    shape.loft(sections[3:6], Material.MATT, (0.05, 0.05, 0.052), closed=True)
    return shape.loft(sections[5:7], Material.MATT, RUBBER, closed=True)


def pile_of_logs(order: Order) -> Shape:
    """Logs across the lane."""
    shape, rng = Shape(), np.random.default_rng([order.seed, 4])
    for number in range(4):
        turn, half = np.pi / 2 + rng.uniform(-0.25, 0.25), rng.uniform(1.3, 1.65)
        log = Shape().cylinder(
            (-half, 0, 0), (half, 0, 0), 0.18, Material.BARK, LOG, sides=8, ends=(Material.WOOD, LOG_END)
        )
        shape.add(log, -0.42 + 0.42 * (number % 3), rng.uniform(-0.15, 0.15), 0.18 + 0.3 * (number == 3), turn)
    return shape.fitted(KINDS[order.kind].size)


def fallen_sofa(order: Order) -> Shape:
    """A sofa on its back: those who come from behind look at its cushions and arms, others at its feet."""
    red, green, blue = UPHOLSTERY[order.seed % len(UPHOLSTERY)]
    cloth, dark, light = (
        (red, green, blue),
        (red * 0.7, green * 0.7, blue * 0.7),
        (red * 1.25, green * 1.25, blue * 1.25),
    )
    shape = Shape().box((-0.42, 0.42), (-0.98, 0.98), (0.12, 0.36), Material.MATT, dark)
    lining = [(-0.42, -0.96, 0.11), (0.42, -0.96, 0.11), (0.42, 0.96, 0.11), (-0.42, 0.96, 0.11)]
    shape.quad(lining, Material.MATT, (0.30, 0.28, 0.25))
    for y in (-0.78, 0.02):
        shape.box((-0.22, 0.45), (y, y + 0.76), (0.36, 0.50), Material.MATT, light, taper=(0.04, 0.0, 0.04))
        shape.box((-0.26, -0.12), (y, y + 0.76), (0.50, 0.86), Material.MATT, light, taper=(0.06, 0.0, 0.04))
    shape.box((-0.45, -0.25), (-1.0, 1.0), (0.12, 0.92), Material.MATT, cloth, taper=(0.03, 0.0, 0.04), bottom=True)
    for side in (-1, 1):
        shape.box(
            (-0.45, 0.45),
            (side * 0.79, side * 1.0),
            (0.12, 0.64),
            Material.MATT,
            cloth,
            taper=(0.03, 0.0, 0.02),
            bottom=True,
        )
        for x in (-0.38, 0.38):
            shape.box(
                (x - 0.04, x + 0.04),
                (side * 0.9 - 0.04, side * 0.9 + 0.04),
                (0.0, 0.12),
                Material.MATT,
                (0.10, 0.06, 0.03),
                bottom=True,
            )
    return shape.on_its_back().fitted(KINDS[order.kind].size)


def rock(order: Order) -> Shape:
    """Boulders."""
    shape, rng = Shape(), np.random.default_rng([order.seed, 5])
    points, uv = unit_ball(7, 5)
    for x, y, size in ((0.0, 0.0, 0.75), (-0.35, 0.5, 0.45), (0.4, -0.5, 0.4), (0.5, 0.45, 0.25)):
        # Waves over the surface move shared corners alike, so that the skin stays closed.
        wave = np.sin(points @ rng.uniform(-4, 4, (3, 3)) + rng.uniform(0, 6, 3)).sum(axis=-1, keepdims=True)
        stone = points * (1 + 0.12 * wave) * size * (1.0, 1.0, 0.85) + (x, y, size * 0.4)
        gray = 0.22 + 0.1 * rng.random()
        stone[..., 2] = np.maximum(stone[..., 2], 0.0)
        shape.triangles(stone, Material.DIRT, (gray, gray * 0.95, gray * 0.87), uv)
    return shape.fitted(KINDS[order.kind].size)


def warning_triangle(order: Order) -> Shape:
    """A red triangle on a foot; it throws light back, so it shines a little by itself."""
    shape = Shape()
    for x, outward in ((-0.012, -1), (0.012, 1)):
        outer = [(x, -0.25, 0.04), (x, 0.25, 0.04), (x, 0.0, 0.45)]
        inner = [(x + 0.006 * outward, y * 0.55, 0.16 + (z - 0.16) * 0.55) for _, y, z in outer]
        shape.triangle(outer, Material.LAMP, (1.1, 0.06, 0.04))
        shape.triangle(inner, Material.MATT, (0.70, 0.68, 0.66))
    shape.box((-0.15, 0.15), (-0.03, 0.03), (0.0, 0.03), Material.MATT, CHROME)
    return shape.box((-0.02, 0.02), (-0.2, 0.2), (0.02, 0.05), Material.MATT, CHROME)
