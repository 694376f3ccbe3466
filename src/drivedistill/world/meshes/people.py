"""People on foot, with a stroller, in a wheelchair."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from drivedistill.world.catalogue import KINDS
from drivedistill.world.materials import Material
from drivedistill.world.meshes.fittings import CHROME, PLASTIC, RUBBER, Order
from drivedistill.world.meshes.shape import Colour, Point, Shape, circle

HEIGHT_M, DEPTH_M, WIDTH_M = 1.75, 0.5, 0.6
"""Of the standing figure, which is scaled to its kind's size."""
THIGH_M, ARM_M, STRIDE_M = 0.43, 0.29, 0.27
SKINS = ((0.50, 0.32, 0.22), (0.42, 0.25, 0.16), (0.22, 0.12, 0.07), (0.12, 0.065, 0.04))
HAIRS = ((0.03, 0.02, 0.015), (0.12, 0.06, 0.03), (0.36, 0.24, 0.09), (0.30, 0.30, 0.29))
TOPS = (
    (0.50, 0.05, 0.05), (0.05, 0.10, 0.38), (0.06, 0.24, 0.12), (0.62, 0.60, 0.56), (0.06, 0.06, 0.07),
    (0.60, 0.42, 0.05), (0.30, 0.08, 0.28), (0.10, 0.32, 0.38), (0.26, 0.15, 0.08), (0.55, 0.22, 0.05),
)  # fmt: skip
BOTTOMS = ((0.04, 0.05, 0.10), (0.03, 0.03, 0.035), (0.16, 0.13, 0.10), (0.22, 0.22, 0.23), (0.07, 0.10, 0.20))
VEST, STRIPES, HELMET = (0.85, 0.30, 0.02), (0.55, 0.56, 0.40), (0.85, 0.68, 0.03)


class Clothes(NamedTuple):
    """What a person wears."""

    top: Colour
    bottom: Colour
    skin: Colour
    hair: Colour
    skirt: bool = False
    bag: Colour | None = None
    vest: bool = False
    """high visibility, with a helmet"""


class Pose(NamedTuple):
    """Where the joints are; left before right."""

    hip: Point
    lean: float
    """of the back, radians forward"""
    ankles: tuple[Point, Point]
    hands: tuple[Point, Point]


def dressed(seed: int) -> Clothes:
    """Clothes from a seed."""
    rng = np.random.default_rng([seed, 1])
    top, bottom, skin, hair, bag = (int(rng.integers(len(part))) for part in (TOPS, BOTTOMS, SKINS, HAIRS, TOPS))
    skirt, has_bag = rng.random(2) < (0.22, 0.3)
    return Clothes(TOPS[top], BOTTOMS[bottom], SKINS[skin], HAIRS[hair], bool(skirt), TOPS[bag] if has_bag else None)


def walking(phase: float) -> Pose:
    """A figure on foot; at phase 0 it stands."""
    swing, lift = np.sin(phase), np.cos(phase)
    moving = 1.0 if phase else 0.0
    ankles, hands = [], []
    for side in (1, -1):
        forward = side * swing * STRIDE_M + (0.0 if moving else side * 0.115)
        raised = 0.12 * max(0.0, side * lift) * moving
        ankles.append((float(forward - 0.06), side * 0.10, 0.07 + float(raised)))
        reach = -side * swing * 0.26 + (0.04 if moving else -side * 0.03)
        hands.append((float(reach), side * 0.25, 0.84 + 0.10 * abs(float(swing))))
    return Pose(
        (0.0, 0.0, 0.92 - 0.03 * abs(float(swing))), 0.04 * moving, (ankles[0], ankles[1]), (hands[0], hands[1])
    )


def figure(shape: Shape, clothes: Clothes, pose: Pose) -> Shape:
    """Add a person of ordinary height."""
    _torso(shape, clothes, pose)
    for side, ankle, hand in zip((1, -1), pose.ankles, pose.hands, strict=True):
        _leg(shape, clothes, (pose.hip[0], side * 0.09, pose.hip[2]), ankle)
        x, z = _along_back(pose, 0.49)
        shoulder = (x, side * 0.215, z)
        elbow = _between(shoulder, hand, ARM_M, -1.0)
        shape.cylinder(shoulder, elbow, 0.06, Material.MATT, clothes.top, end_radius=0.048, sides=5)
        shape.cylinder(elbow, hand, 0.046, Material.MATT, clothes.top, end_radius=0.038, sides=5)
        shape.ball(hand, 0.048, Material.MATT, clothes.skin, 5, 3)
    x, z = _along_back(pose, 0.70, 0.02)
    shape.ball((x, 0.0, z), (0.10, 0.085, 0.125), Material.MATT, clothes.skin, 6, 4)
    x, z = _along_back(pose, 0.745, -0.015)
    cover, wide = (HELMET, 0.13) if clothes.vest else (clothes.hair, 0.108)
    shape.ball((x, 0.0, z), (wide, wide * 0.9, 0.095), Material.MATT, cover, 6, 4)
    if clothes.bag:
        x, z = _along_back(pose, 0.33, -0.18)
        edges = (x - 0.09, x + 0.07), (-0.14, 0.14), (z - 0.2, z + 0.2)
        shape.box(*edges, Material.MATT, clothes.bag, taper=(0.02, 0.03, 0.02))
    return shape


def _along_back(pose: Pose, up: float, ahead: float = 0.0) -> tuple[float, float]:
    """The x and z of a point so far up the back and so far before it."""
    sin, cos = float(np.sin(pose.lean)), float(np.cos(pose.lean))
    return pose.hip[0] + sin * up + cos * ahead, pose.hip[2] + cos * up - sin * ahead


def _leg(shape: Shape, clothes: Clothes, hip: Point, ankle: Point) -> None:
    knee = _between(hip, ankle, THIGH_M, 1.0)
    below = clothes.skin if clothes.skirt else clothes.bottom
    shape.cylinder(hip, knee, 0.088, Material.MATT, clothes.bottom, end_radius=0.065, sides=5)
    shape.cylinder(knee, ankle, 0.063, Material.MATT, below, end_radius=0.045, sides=5)
    x, y, z = ankle
    shoe = (x - 0.07, x + 0.19), (y - 0.045, y + 0.045), (z - 0.07, z + 0.03)
    shape.box(*shoe, Material.MATT, RUBBER, taper=(0.12, 0.02, 0.01))


def _torso(shape: Shape, clothes: Clothes, pose: Pose) -> None:
    """Back and chest as a skin over rings; a vest's stripes and a skirt around them."""
    sin, cos = np.sin(pose.lean), np.cos(pose.lean)

    def ring(up: float, deep: float, wide: float) -> np.ndarray:
        """A section float[6, 3] of the trunk, `up` metres above the hip, with its half depth and half width."""
        x, y = circle(6).T
        ahead = x * deep
        return np.stack([pose.hip[0] + sin * up + cos * ahead, y * wide, pose.hip[2] + cos * up - sin * ahead], axis=1)

    rings = [
        ring(*row)
        for row in (
            (-0.06, 0.11, 0.17),
            (0.18, 0.10, 0.155),
            (0.42, 0.125, 0.20),
            (0.54, 0.08, 0.19),
            (0.61, 0.05, 0.055),
        )
    ]
    shape.loft(np.stack(rings), Material.MATT, VEST if clothes.vest else clothes.top, closed=True)
    if clothes.vest:
        for up in (0.14, 0.30):
            band = [ring(up + part, 0.127, 0.20) for part in (0.0, 0.07)]
            shape.loft(np.stack(band), Material.LAMP, STRIPES, closed=True)
    if clothes.skirt:
        low = ring(0.0, 0.2, 0.22) * (1, 1, 0) + (0, 0, pose.hip[2] - 0.45)
        shape.loft(np.stack([ring(0.08, 0.12, 0.17), low]), Material.MATT, clothes.bottom, closed=True)


def _between(start: Point, end: Point, length: float, forward: float) -> Point:
    """The joint of two bones of one length between two points; it lies before the line (forward 1) or behind it (-1)."""
    dx, dy, dz = end[0] - start[0], end[1] - start[1], end[2] - start[2]
    distance = max((dx * dx + dy * dy + dz * dz) ** 0.5, 1e-6)
    out = max(length * length - distance * distance / 4, 0.0) ** 0.5 * forward
    level = max((dx * dx + dz * dz) ** 0.5, 1e-6)
    return start[0] + dx / 2 - dz / level * out, start[1] + dy / 2, start[2] + dz / 2 + dx / level * out


def person(order: Order) -> Shape:
    """A pedestrian, child or construction worker."""
    clothes = dressed(order.seed)
    if order.kind == "construction worker":
        clothes = clothes._replace(bottom=(0.05, 0.06, 0.13), skirt=False, bag=None, vest=True)
    elif order.kind == "child":
        clothes = clothes._replace(skirt=False, hair=HAIRS[order.seed % 3])
    depth, width, height = KINDS[order.kind].size
    tall = height / HEIGHT_M * (0.97 + 0.06 * (order.seed % 101) / 100)
    return figure(Shape(), clothes, walking(order.phase)).scaled((depth / DEPTH_M, width / WIDTH_M, tall))


def seated(seed: int, hands_ahead: float) -> Shape:
    """Somebody who sits at z = 0 with the feet down in front and the hands `hands_ahead` times an arm's length ahead."""
    reach = 0.2 + 0.25 * hands_ahead
    pose = Pose(
        (0.0, 0.0, 0.12), 0.1, ((0.42, 0.11, -0.28), (0.42, -0.11, -0.28)), ((reach, 0.16, 0.32), (reach, -0.16, 0.32))
    )
    return figure(Shape(), dressed(seed)._replace(skirt=False, bag=None), pose)


def with_stroller(order: Order) -> Shape:
    """Somebody who pushes a stroller."""
    shape, pose = Shape(), walking(order.phase)
    hands = ((0.42, 0.2, 1.02), (0.42, -0.2, 1.02))
    figure(shape, dressed(order.seed)._replace(bag=None), pose._replace(hands=hands, lean=0.12))
    cloth = order.paint
    dark: Colour = (0.6 * cloth[0], 0.6 * cloth[1], 0.6 * cloth[2])
    shape.box((0.72, 1.42), (-0.24, 0.24), (0.48, 0.72), Material.MATT, cloth, taper=(-0.06, -0.06, -0.03), bottom=True)
    hood = circle(10)[[1, 2, 3, 4, 5]] * 0.34
    arch = [(0.98 + x, 0.72 + z) for x, z in hood]
    sections = np.array([[(x, y, z) for x, z in arch] for y in (-0.26, 0.26)])
    shape.loft(sections, Material.MATT, dark, ends=(Material.MATT, dark))
    for side in (-1, 1):
        shape.cylinder((0.42, side * 0.2, 1.02), (1.35, side * 0.24, 0.2), 0.022, Material.MATT, CHROME, sides=4)
        shape.cylinder((1.25, side * 0.24, 0.55), (0.75, side * 0.24, 0.18), 0.022, Material.MATT, CHROME, sides=4)
        for x in (0.74, 1.38):
            _wheel(shape, (x, side * 0.27, 0.15), 0.15, 0.05, side)
    shape.cylinder((0.42, -0.22, 1.02), (0.42, 0.22, 1.02), 0.025, Material.MATT, RUBBER, sides=4)
    length, width, height = KINDS[order.kind].size
    return shape.fitted((length, width, height))


def wheelchair_user(order: Order) -> Shape:
    """Somebody in a wheelchair, hands on its wheels."""
    shape = Shape()
    pose = Pose(
        (-0.08, 0.0, 0.56), 0.06, ((0.42, 0.1, 0.20), (0.42, -0.1, 0.20)), ((0.10, 0.29, 0.62), (0.10, -0.29, 0.62))
    )
    figure(shape, dressed(order.seed)._replace(skirt=False, bag=None), pose)
    shape.box((-0.28, 0.26), (-0.22, 0.22), (0.40, 0.48), Material.MATT, PLASTIC, bottom=True)
    shape.box((-0.32, -0.26), (-0.22, 0.22), (0.45, 0.95), Material.MATT, PLASTIC)
    for side in (-1, 1):
        hoop(shape, (-0.10, side * 0.31, 0.32), 0.32, 0.045, RUBBER)
        hoop(shape, (-0.10, side * 0.33, 0.32), 0.25, 0.02, CHROME)
        _wheel(shape, (0.36, side * 0.24, 0.09), 0.09, 0.04, side)
        shape.cylinder((-0.30, side * 0.24, 0.95), (-0.45, side * 0.24, 0.93), 0.025, Material.MATT, RUBBER, sides=4)
        shape.cylinder((0.26, side * 0.22, 0.44), (0.42, side * 0.16, 0.14), 0.02, Material.MATT, CHROME, sides=4)
        shape.box((-0.25, 0.2), (side * 0.26 - 0.03, side * 0.26 + 0.03), (0.66, 0.71), Material.MATT, PLASTIC)
    shape.box((0.36, 0.52), (-0.18, 0.18), (0.10, 0.13), Material.MATT, PLASTIC)
    return shape.fitted(KINDS[order.kind].size)


def _wheel(shape: Shape, centre: Point, radius: float, width: float, side: int) -> None:
    """A small wheel whose outer face looks to the left (side 1) or right (-1)."""
    x, y, z = centre
    shape.cylinder(
        (x, y - side * width, z),
        centre,
        radius,
        Material.MATT,
        RUBBER,
        sides=7,
        ends=(Material.MATT, (0.12, 0.12, 0.12)),
    )


def hoop(shape: Shape, centre: Point, radius: float, thick: float, colour: Colour, deep: float = 0.04) -> None:
    """A wheel's rim that one can look through: its tread, and a skin from there to its inner edge."""
    rim = np.insert(circle(12), 1, 0.0, axis=1)
    half = np.array([0.0, deep / 2, 0.0])
    rings = [rim * (radius - thick), rim * radius - half, rim * radius + half]
    shape.loft(np.stack(rings) + np.array(centre), Material.MATT, colour, closed=True)
