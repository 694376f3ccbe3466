"""Animals that get onto roads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from drivedistill.world.catalogue import KINDS
from drivedistill.world.materials import Material
from drivedistill.world.meshes.fittings import Order
from drivedistill.world.meshes.shape import Colour, Shape

Line = tuple[float, float, float, float]
"""x, z of the begin and x, z of the end, metres, in the plane of symmetry"""


@dataclass(frozen=True)
class Build:
    """The shape of an animal, metres; it is fitted to its kind's size afterwards."""

    body: tuple[float, float, float, float, float]
    """x and z of the middle, half length, half width, half height"""
    legs: tuple[float, float, float, float]
    """x of hind and fore legs, y of the left ones, radius"""
    neck: Line
    neck_radii: tuple[float, float]
    head: Line
    head_radii: tuple[float, float]
    ears: float
    """length"""
    tail: Line
    tail_radius: float
    coats: tuple[tuple[Colour, Colour], ...]
    """body, and legs with head; one pair is chosen by the seed"""


BROWN, DARK_BROWN, BLACK, WHITE = (0.26, 0.14, 0.06), (0.12, 0.06, 0.03), (0.03, 0.025, 0.025), (0.62, 0.59, 0.53)
UDDER, BELLY, ANTLER = (0.55, 0.36, 0.32), (0.5, 0.42, 0.32), (0.45, 0.36, 0.24)
BUILDS = {
    "dog": Build(
        (-0.06, 0.44, 0.30, 0.11, 0.13),
        (-0.26, 0.14, 0.075, 0.035),
        (0.14, 0.48, 0.27, 0.60),
        (0.095, 0.075),
        (0.24, 0.62, 0.45, 0.57),
        (0.09, 0.045),
        0.09,
        (-0.33, 0.50, -0.45, 0.70),
        0.025,
        ((BROWN, BROWN), (BLACK, BLACK), ((0.45, 0.30, 0.14), (0.40, 0.26, 0.12)), (WHITE, (0.30, 0.18, 0.09))),
    ),
    "deer": Build(
        (-0.12, 0.93, 0.50, 0.19, 0.22),
        (-0.46, 0.22, 0.12, 0.042),
        (0.24, 0.98, 0.50, 1.32),
        (0.15, 0.09),
        (0.46, 1.36, 0.76, 1.24),
        (0.10, 0.05),
        0.17,
        (-0.60, 1.0, -0.68, 0.88),
        0.06,
        (((0.33, 0.19, 0.09), (0.27, 0.15, 0.07)), ((0.26, 0.16, 0.09), (0.22, 0.13, 0.07))),
    ),
    "cow": Build(
        (-0.12, 1.0, 0.82, 0.36, 0.36),
        (-0.72, 0.42, 0.22, 0.085),
        (0.45, 1.08, 0.80, 1.22),
        (0.27, 0.18),
        (0.76, 1.28, 1.13, 1.04),
        (0.16, 0.12),
        0.18,
        (-0.93, 1.15, -1.0, 0.55),
        0.03,
        ((WHITE, WHITE), (BROWN, BROWN), (BLACK, BLACK), ((0.45, 0.26, 0.12), (0.5, 0.32, 0.18))),
    ),
    "sheep": Build(
        (-0.06, 0.60, 0.43, 0.24, 0.25),
        (-0.33, 0.22, 0.12, 0.04),
        (0.26, 0.66, 0.40, 0.76),
        (0.14, 0.10),
        (0.37, 0.80, 0.60, 0.67),
        (0.095, 0.065),
        0.10,
        (-0.46, 0.66, -0.52, 0.50),
        0.05,
        ((WHITE, BLACK), (WHITE, (0.50, 0.46, 0.40)), ((0.55, 0.50, 0.42), DARK_BROWN)),
    ),
    "horse": Build(
        (-0.16, 1.10, 0.68, 0.28, 0.29),
        (-0.65, 0.32, 0.16, 0.06),
        (0.34, 1.18, 0.78, 1.60),
        (0.24, 0.13),
        (0.72, 1.65, 1.10, 1.34),
        (0.135, 0.08),
        0.14,
        (-0.82, 1.22, -0.98, 0.55),
        0.07,
        ((BROWN, DARK_BROWN), (DARK_BROWN, BLACK), (BLACK, BLACK), (WHITE, (0.45, 0.43, 0.40))),
    ),
}


def animal(order: Order) -> Shape:
    """A dog, deer, cow, sheep or horse."""
    shape, build = Shape(), BUILDS[order.kind]
    rng = np.random.default_rng([order.seed, 2])
    coat, dark = build.coats[int(rng.integers(len(build.coats)))]
    x, z, long, wide, high = build.body
    wool = Material.DIRT if order.kind == "sheep" else Material.MATT
    shape.ball((x, 0.0, z), (long, wide, high), wool, coat, 9, 6)
    shape.ball((x + long * 0.55, 0.0, z), (long * 0.42, wide * 0.92, high * 1.04), wool, coat, 7, 5)
    shape.ball((x - long * 0.58, 0.0, z + high * 0.05), (long * 0.42, wide * 0.95, high), wool, coat, 7, 5)
    _limbs(shape, build, order.phase, dark if order.kind in ("sheep", "horse") else coat)
    head = dark if order.kind == "sheep" else coat
    _bone(shape, build.neck, build.neck_radii, coat)
    _bone(shape, build.head, build.head_radii, head)
    shape.ball((build.head[0] + 0.01, 0.0, build.head[1]), build.head_radii[0] * 1.08, Material.MATT, head, 6, 4)
    muzzle = BLACK if order.kind in ("dog", "deer") else dark
    shape.ball((build.head[2], 0.0, build.head[3]), build.head_radii[1] * 1.05, Material.MATT, muzzle, 6, 4)
    _bone(shape, build.tail, (build.tail_radius, build.tail_radius * 0.7), dark if order.kind == "horse" else coat)
    for side in (-1, 1):
        ear_x, ear_z, y = (
            build.head[0] - 0.01,
            build.head[1] + build.head_radii[0] * 0.6,
            side * build.head_radii[0] * 0.75,
        )
        out, up = (0.95, 0.25) if order.kind in ("cow", "sheep", "deer") else (0.3, 0.95)
        tip = (ear_x - 0.02, y + side * build.ears * out, ear_z + build.ears * up)
        shape.triangle([(ear_x - 0.03, y, ear_z), (ear_x + 0.05, y, ear_z - 0.03), tip], Material.MATT, head)
    if order.kind == "cow":
        _cow_marks(shape, build, coat, rng)
    elif order.kind == "deer":
        _deer_marks(shape, build)
    elif order.kind == "horse":
        _mane(shape, build)
    return shape.fitted(KINDS[order.kind].size)


def _bone(shape: Shape, line: Line, radii: tuple[float, float], colour: Colour) -> None:
    x0, z0, x1, z1 = line
    shape.cylinder((x0, 0.0, z0), (x1, 0.0, z1), radii[0], Material.MATT, colour, end_radius=radii[1], sides=7)


def _limbs(shape: Shape, build: Build, phase: float, colour: Colour) -> None:
    """Four legs; the diagonal ones swing together."""
    hind, fore, y, radius = build.legs
    top = build.body[1] - build.body[4] * 0.35
    swing = 0.28 * top * float(np.sin(phase))
    for x, side, sign in ((hind, 1, 1), (hind, -1, -1), (fore, 1, -1), (fore, -1, 1)):
        knee = (x + sign * swing * 0.45 - (0.05 * top if x == hind else 0.0), side * y, top * 0.5)
        foot = (x + sign * swing, side * y, 0.0)
        shape.cylinder((x, side * y, top), knee, radius * 1.7, Material.MATT, colour, end_radius=radius, sides=5)
        shape.cylinder(knee, foot, radius, Material.MATT, colour, end_radius=radius * 0.8, sides=5)


def _cow_marks(shape: Shape, build: Build, coat: Colour, rng: np.random.Generator) -> None:
    """Patches, horns and an udder."""
    x, z, long, wide, high = build.body
    patch = BLACK if coat != BLACK else WHITE
    for along, side, up in ((-0.4, 1, 0.25), (0.25, -1, 0.2), (-0.25, -1, 0.3), (0.45, 1, 0.1), (0.0, 1, 0.5)):
        place = (x + (along + rng.uniform(-0.1, 0.1)) * long, side * wide * 0.62, z + up * high)
        shape.ball(place, (long * 0.24, wide * 0.46, high * 0.48), Material.MATT, patch, 6, 4)
    for side in (-1, 1):
        foot = (build.head[0], side * 0.12, build.head[1] + 0.1)
        tip = (foot[0] + 0.08, side * 0.28, foot[2] + 0.17)
        shape.cylinder(foot, tip, 0.035, Material.MATT, WHITE, end_radius=0.01, sides=4)
    shape.ball((build.legs[0] + 0.15, 0.0, z - high * 0.9), (0.16, 0.14, 0.13), Material.MATT, UDDER, 6, 4)


def _deer_marks(shape: Shape, build: Build) -> None:
    """A white rump, a pale belly, and antlers with three tines each."""
    x, z, long, wide, high = build.body
    shape.ball((x - long * 0.93, 0.0, z + high * 0.1), (0.10, 0.14, 0.17), Material.MATT, WHITE, 6, 4)
    belly = (long * 0.7, wide * 0.75, high * 0.6)
    shape.ball((x + long * 0.1, 0.0, z - high * 0.45), belly, Material.MATT, BELLY, 7, 4)
    foot_x, foot_z = build.head[0] - 0.02, build.head[1] + 0.07
    for side in (-1, 1):
        tip = (foot_x - 0.10, side * 0.26, foot_z + 0.26)
        shape.cylinder((foot_x, side * 0.05, foot_z), tip, 0.024, Material.MATT, ANTLER, end_radius=0.016, sides=4)
        for part, dx, dz in ((0.45, 0.17, 0.13), (0.95, 0.12, 0.15), (0.95, -0.12, 0.12)):
            fork = (foot_x - 0.10 * part, side * (0.05 + 0.21 * part), foot_z + 0.26 * part)
            tine = (fork[0] + dx, fork[1] + side * 0.03, fork[2] + dz)
            shape.cylinder(fork, tine, 0.018, Material.MATT, ANTLER, end_radius=0.006, sides=3)


def _mane(shape: Shape, build: Build) -> None:
    x0, z0, x1, z1 = build.neck
    outline = ((x0 - 0.16, z0 + 0.16), (x1 - 0.17, z1 + 0.05), (x1 + 0.02, z1 + 0.14), (x0 + 0.02, z0 + 0.05))
    for y in (-0.09, 0.09):
        shape.quad([(x, y, z) for x, z in outline], Material.MATT, BLACK)
