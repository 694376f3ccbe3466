"""People on bicycles and motorcycles."""

from __future__ import annotations

import numpy as np

from drivedistill.world.catalogue import KINDS
from drivedistill.world.materials import Material
from drivedistill.world.meshes.fittings import CHROME, LIT_BRAKE, LIT_FRONT, RUBBER, Order
from drivedistill.world.meshes.people import Pose, dressed, figure, hoop
from drivedistill.world.meshes.shape import Shape


def cyclist(order: Order) -> Shape:
    """Somebody on a bicycle whose frame is painted."""
    shape, radius = Shape(), 0.34
    turn = order.phase
    pedals = [
        (0.02 + 0.17 * float(np.cos(turn + lag)), side, 0.32 + 0.17 * float(np.sin(turn + lag)))
        for side, lag in ((0.11, 0.6), (-0.11, 0.6 + np.pi))
    ]
    pose = Pose((-0.22, 0.0, 0.98), 0.55, ((pedals[0]), (pedals[1])), ((0.42, 0.23, 1.06), (0.42, -0.23, 1.06)))
    figure(shape, dressed(order.seed)._replace(skirt=False), pose)
    for x in (-0.54, 0.54):
        hoop(shape, (x, 0.0, radius), radius, 0.055, RUBBER)
        shape.cylinder((x, -0.04, radius), (x, 0.04, radius), 0.05, Material.MATT, CHROME, sides=5)
    frame = (
        (-0.54, radius, 0.02, 0.32),
        (-0.54, radius, -0.2, 0.85),
        (0.02, 0.32, -0.2, 0.88),
        (0.02, 0.32, 0.38, 0.8),
        (-0.2, 0.78, 0.40, 0.82),
        (0.54, radius, 0.38, 1.03),
    )
    for x0, z0, x1, z1 in frame:
        shape.cylinder((x0, 0.0, z0), (x1, 0.0, z1), 0.026, Material.CAR, order.paint, sides=4)
    shape.cylinder((0.40, -0.26, 1.03), (0.40, 0.26, 1.03), 0.022, Material.MATT, RUBBER, sides=4)
    shape.box((-0.34, -0.12), (-0.07, 0.07), (0.86, 0.92), Material.MATT, RUBBER, taper=(0.0, 0.0, 0.04))
    shape.ball((-0.58, 0.0, 0.72), 0.035, Material.MATT, (0.5, 0.02, 0.02), 5, 3)
    return shape.fitted(KINDS[order.kind].size)


def motorcyclist(order: Order) -> Shape:
    """Somebody with a helmet on a motorcycle."""
    shape, radius = Shape(), 0.33
    pose = Pose(
        (-0.25, 0.0, 0.84), 0.35, ((0.0, 0.2, 0.34), (0.0, -0.2, 0.34)), ((0.42, 0.3, 1.02), (0.42, -0.3, 1.02))
    )
    clothes = dressed(order.seed)._replace(skirt=False, bag=None)
    figure(shape, clothes, pose)
    shape.ball((0.015, 0.0, 1.51), (0.155, 0.14, 0.155), Material.CAR, order.paint, 7, 5)
    shape.box((0.10, 0.165), (-0.10, 0.10), (1.46, 1.55), Material.GLASS, (0.02, 0.02, 0.02))
    for x in (-0.68, 0.70):
        hoop(shape, (x, 0.0, radius), radius, 0.13, RUBBER, deep=0.11)
        for y in (-0.03, 0.03):
            hoop(shape, (x, y, radius), 0.22, 0.19, CHROME, deep=0.0)
    shape.box((-0.1, 0.42), (-0.15, 0.15), (0.66, 0.96), Material.CAR, order.paint, taper=(0.14, 0.1, 0.05))
    shape.box((-0.85, -0.05), (-0.12, 0.12), (0.68, 0.80), Material.MATT, RUBBER, taper=(0.0, -0.05, 0.03))
    shape.box((-0.22, 0.36), (-0.16, 0.16), (0.22, 0.66), Material.MATT, (0.10, 0.10, 0.105))
    shape.box(
        (0.42, 0.64), (-0.17, 0.17), (0.74, 1.08), Material.CAR, order.paint, taper=(0.14, 0.0, 0.06), bottom=True
    )
    shape.cylinder((0.40, -0.34, 1.02), (0.40, 0.34, 1.02), 0.025, Material.MATT, RUBBER, sides=4)
    for side in (-1, 1):
        shape.cylinder((0.70, side * 0.08, radius), (0.46, side * 0.1, 0.95), 0.03, Material.MATT, CHROME, sides=4)
        shape.cylinder((-0.05, side * 0.17, 0.3), (-0.8, side * 0.19, 0.36), 0.05, Material.MATT, CHROME, sides=5)
    front = (Material.LAMP, LIT_FRONT) if order.headlights else (Material.MATT, (0.6, 0.6, 0.58))
    rear = (Material.LAMP, LIT_BRAKE) if order.braking else (Material.MATT, (0.40, 0.02, 0.015))
    shape.quad([(0.655, -0.1, 0.80), (0.655, 0.1, 0.80), (0.62, 0.1, 0.94), (0.62, -0.1, 0.94)], *front)
    shape.quad([(-0.90, -0.09, 0.70), (-0.90, 0.09, 0.70), (-0.90, 0.09, 0.80), (-0.90, -0.09, 0.80)], *rear)
    return shape.fitted(KINDS[order.kind].size)
