"""Traffic signs and the masts of traffic lights, with their instance ids."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drivedistill.world.materials import Draw, Material
from drivedistill.world.meshes.atlas import uv
from drivedistill.world.meshes.many import copies, join
from drivedistill.world.meshes.shape import Mesh, Shape
from drivedistill.world.scene import Head, Sign
from drivedistill.world.surroundings.furniture import DARK_STEEL, STEEL
from drivedistill.world.surroundings.greenery import bush
from drivedistill.world.surroundings.layout import Layout

HOUSING_M = (0.28, 0.4, 1.2)
"""Depth, width and height of a traffic light; it stands on `Head.z` with its middle at the head's place."""
POLE_OFFSET_M = 0.8
"""From the asphalt to the pole of a traffic light."""
OVERHEAD_M = 4.0
"""Heads above this hang from an arm."""
APPROACH_M = 22.0
"""From where a bush hides its sign."""
BUSH_AHEAD_M, BUSH_DEPTH_M = 0.8, 0.9
BUSH_WIDTH, BUSH_TOP = 1.25, 0.9
"""Factors of the sign's size: width, and height of its scale above the sign's lower edge."""
BUSH_TINT = (0.15, 0.28, 0.08)


def signals(layout: Layout) -> tuple[Mesh, NDArray[np.int32]]:
    """Signs and traffic lights without their coloured discs; instance ids int32[n] of plates and housings."""
    parts: list[tuple[Mesh, int]] = []
    for sign in layout.scene.signs:
        parts += _sign(sign)
        if sign.hidden_by_bush:
            parts.append((_bush_before(layout, sign), 0))
    for head in layout.scene.heads:
        parts += _traffic_light(layout, head)
    meshes = [mesh for mesh, _ in parts]
    instances = np.array([instance for _, instance in parts], np.int32)
    return join(meshes), np.repeat(instances, np.array([len(mesh) for mesh in meshes], np.int64))


def _placed(shape: Shape, x: float, y: float, yaw: float) -> Mesh:
    return copies(shape.mesh(), np.array([[x, y, 0.0]]), yaw)


def _sign(sign: Sign) -> list[tuple[Mesh, int]]:
    """Pole and back of a sign, and its plate."""
    low, high, half = sign.z, sign.z + sign.size, sign.size / 2
    cut = Draw.TWO_SIDED | Draw.CUT_OUT
    corners = [(0.06, -half, low), (0.06, half, low), (0.06, half, high), (0.06, -half, high)]
    rear = [(x - 0.03, y, z) for x, y, z in corners]
    behind = Shape().cylinder((0, 0, 0), (0, 0, sign.z + sign.size * 0.8), 0.04, Material.MATT, STEEL, sides=6)
    behind.quads([rear], Material.TEXTURE, (0.12, 0.12, 0.12), uv(sign.kind), cut)
    plate = Shape().quads([corners], Material.TEXTURE, (1.15, 1.15, 1.15), uv(sign.kind), cut)
    parts = [(_placed(behind, sign.x, sign.y, sign.facing), 0), (_placed(plate, sign.x, sign.y, sign.facing), sign.id)]
    return parts


def _bush_before(layout: Layout, sign: Sign) -> Mesh:
    """A bush that hides a part of the sign from those who come near it on the right lane."""
    road = layout.scene.road
    s, _ = road.track.project(sign.x, sign.y)
    eye = road.track.world(s - APPROACH_M, road.lane(road.lanes - 1))
    toward = np.array([float(eye.x) - sign.x, float(eye.y) - sign.y])
    x, y = BUSH_AHEAD_M * toward / np.hypot(*toward)
    size = BUSH_DEPTH_M, sign.size * BUSH_WIDTH, sign.z + sign.size * BUSH_TOP
    return copies(bush(), np.array([[sign.x + x, sign.y + y, 0.0]]), sign.facing, np.array([size]), [BUSH_TINT])


def _traffic_light(layout: Layout, head: Head) -> list[tuple[Mesh, int]]:
    """Housing, pole and, for a head over the road, the arm it hangs from."""
    depth, width, height = HOUSING_M
    housing = Shape().box(
        (-depth / 2, depth / 2),
        (-width / 2, width / 2),
        (head.z, head.z + height),
        Material.MATT,
        (0.02, 0.02, 0.02),
        bottom=True,
    )
    main = layout.main
    s, d = (float(part) for part in main.track.project(head.x, head.y))
    pole_d = main.left + POLE_OFFSET_M if d > (main.left + main.right) / 2 else main.right - POLE_OFFSET_M
    pole = main.track.world(s, pole_d)
    top = max(head.z + 0.9, 3.3) if head.z > OVERHEAD_M else head.z + 1.1
    metal = Shape().cylinder(
        (float(pole.x), float(pole.y), 0.0), (float(pole.x), float(pole.y), top + 0.1), 0.11, Material.MATT, DARK_STEEL
    )
    metal.cylinder(
        (float(pole.x), float(pole.y), top - 0.1), (head.x, head.y, top - 0.1), 0.07, Material.MATT, DARK_STEEL, sides=6
    )
    return [(metal.mesh(), 0), (_placed(housing, head.x, head.y, head.facing), head.id)]
