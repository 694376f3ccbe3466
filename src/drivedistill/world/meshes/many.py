"""Meshes by the dozen: joined, copied to many places, or made of many quadrilaterals at once."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from drivedistill.world.materials import Draw, Material
from drivedistill.world.meshes.shape import EMPTY, HALVES, QUAD_UV, Mesh
from drivedistill.world.track import Floats


def join(meshes: Iterable[Mesh]) -> Mesh:
    """One mesh of several, in their order."""
    parts = [mesh for mesh in meshes if len(mesh)]
    if not parts:
        return EMPTY
    return Mesh(
        np.concatenate([part.points for part in parts]),
        np.concatenate([part.uv for part in parts]),
        np.concatenate([part.flags for part in parts]),
        np.concatenate([part.materials for part in parts]),
        np.concatenate([part.colours for part in parts]),
    )


def panels(
    corners: Floats,
    material: Material,
    colours: ArrayLike,
    uv: ArrayLike = QUAD_UV,
    flags: int = Draw.TWO_SIDED,
) -> Mesh:
    """Quadrilaterals float[n, 4, 3], counter-clockwise from the front; colours float[3] or [n, 3], uv [4, 2] or [n, 4, 2]."""
    count = len(corners)
    uv = np.broadcast_to(np.asarray(uv, float), (count, 4, 2))
    colours = np.broadcast_to(np.asarray(colours, float), (count, 3))
    return Mesh(
        corners[:, HALVES].reshape(-1, 3, 3),
        uv[:, HALVES].reshape(-1, 3, 2),
        np.full(2 * count, int(flags)),
        np.full(2 * count, int(material)),
        np.repeat(colours, 2, axis=0),
    )


def copies(
    mesh: Mesh, place: Floats, yaw: ArrayLike = 0.0, scale: ArrayLike = 1.0, tint: ArrayLike | None = None
) -> Mesh:
    """A mesh at n places of the world.

    Args:
        mesh: In its own coordinates.
        place: float[n, 3], where its origins lie.
        yaw: Radians, one number or float[n].
        scale: One number, or float[n] or float[n, 3]: factors along its own axes.
        tint: float[n, 3]: factors of its colours.
    """
    count, triangles = len(place), len(mesh)
    yaw = np.broadcast_to(np.asarray(yaw, float), (count,))
    scale = np.asarray(scale, float)
    scale = np.broadcast_to(scale[:, None] if scale.ndim == 1 else scale, (count, 3))
    cos, sin, zero = np.cos(yaw), np.sin(yaw), np.zeros(count)
    rows = [cos * scale[:, 0], sin * scale[:, 0], zero, -sin * scale[:, 1], cos * scale[:, 1], zero, zero, zero]
    turn = np.stack([*rows, scale[:, 2]], axis=1).reshape(count, 3, 3)
    points = mesh.points.reshape(-1, 3) @ turn + place[:, None]
    colours = np.broadcast_to(mesh.colours, (count, triangles, 3))
    return Mesh(
        points.reshape(-1, 3, 3),
        np.tile(mesh.uv, (count, 1, 1)),
        np.tile(mesh.flags, count),
        np.tile(mesh.materials, count),
        (colours if tint is None else colours * np.asarray(tint)[:, None]).reshape(-1, 3),
    )
