"""Triangles of a whole scene in arrays that the rasteriser walks through."""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from drivedistill.world.kernel import kernel
from drivedistill.world.meshes.shape import Mesh

BLOCK = 32
"""Triangles that are skipped together when their bounding sphere is out of sight."""

Single: TypeAlias = NDArray[np.float32]
Numbers: TypeAlias = NDArray[np.int32]


class Triangles(NamedTuple):
    """n triangles, counter-clockwise when seen from the front."""

    points: Single
    """float[n, 3, 3]: corners in metres"""
    normals: Single
    """float[n, 3], of length 1"""
    uv: Single
    """float[n, 3, 2]"""
    colours: Single
    """float[n, 3]"""
    flags: Numbers
    """int[n]: `materials.Draw`"""
    materials: Numbers
    """int[n]: `materials.Material`"""
    ids: Numbers
    """int[n]: instance ids"""
    seeds: Numbers
    """int[n]: of what the surface's pattern depends on"""


def empty(count: int) -> Triangles:
    """Room for `count` triangles."""
    single = [np.zeros((count, *shape), np.float32) for shape in ((3, 3), (3,), (3, 2), (3,))]
    return Triangles(*single, *(np.zeros(count, np.int32) for _ in range(4)))


def from_mesh(mesh: Mesh, ids: int | Numbers = 0, seeds: int | Numbers = 0) -> Triangles:
    """The triangles of a mesh, where they are; instance ids and seeds for all or one by one."""
    count = len(mesh)
    triangles = empty(count)
    triangles.points[:] = mesh.points
    triangles.uv[:] = mesh.uv
    triangles.colours[:] = mesh.colours
    triangles.flags[:] = mesh.flags
    triangles.materials[:] = mesh.materials
    triangles.ids[:] = ids
    triangles.seeds[:] = seeds
    _find_normals(triangles.points, triangles.normals)
    return triangles


def joined(parts: list[Triangles], room: int = 0) -> Triangles:
    """All triangles in one, with room for more behind them."""
    return Triangles(*(np.concatenate(columns) for columns in zip(*parts, empty(room), strict=True)))


@kernel
def _find_normals(points: Single, normals: Single) -> None:
    for row in range(points.shape[0]):
        ax, ay, az = (
            points[row, 1, 0] - points[row, 0, 0],
            points[row, 1, 1] - points[row, 0, 1],
            points[row, 1, 2] - points[row, 0, 2],
        )
        bx, by, bz = (
            points[row, 2, 0] - points[row, 0, 0],
            points[row, 2, 1] - points[row, 0, 1],
            points[row, 2, 2] - points[row, 0, 2],
        )
        x, y, z = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
        length = max(sqrt(x * x + y * y + z * z), 1e-12)
        normals[row, 0], normals[row, 1], normals[row, 2] = x / length, y / length, z / length


@kernel
def place(
    into: Triangles,
    row: int,
    what: Triangles,
    where: tuple[float, float, float],
    cos: float,
    sin: float,
    instance: int,
    seed: int,
) -> None:
    """Copy triangles into the rows from `row` on, turned about the vertical axis and shifted."""
    for index in range(what.flags.shape[0]):
        target = row + index
        into.flags[target], into.materials[target] = what.flags[index], what.materials[index]
        into.ids[target], into.seeds[target] = instance, seed
        for corner in range(3):
            x, y = what.points[index, corner, 0], what.points[index, corner, 1]
            into.points[target, corner, 0] = cos * x - sin * y + where[0]
            into.points[target, corner, 1] = sin * x + cos * y + where[1]
            into.points[target, corner, 2] = what.points[index, corner, 2] + where[2]
            into.uv[target, corner, 0], into.uv[target, corner, 1] = (
                what.uv[index, corner, 0],
                what.uv[index, corner, 1],
            )
            into.colours[target, corner] = what.colours[index, corner]
        x, y = what.normals[index, 0], what.normals[index, 1]
        into.normals[target, 0] = cos * x - sin * y
        into.normals[target, 1] = sin * x + cos * y
        into.normals[target, 2] = what.normals[index, 2]


@kernel
def bound(points: Single, start: int, end: int, spheres: Single) -> None:
    """Bounding spheres (x, y, z, radius) of the blocks that hold the rows from `start` to `end`."""
    for block in range(start // BLOCK, (end + BLOCK - 1) // BLOCK):
        first, last = block * BLOCK, min(block * BLOCK + BLOCK, end)
        for axis in range(3):
            low, high = points[first, 0, axis], points[first, 0, axis]
            for row in range(first, last):
                for corner in range(3):
                    low, high = min(low, points[row, corner, axis]), max(high, points[row, corner, axis])
            spheres[block, axis] = (low + high) * 0.5
        farthest = 0.0
        for row in range(first, last):
            for corner in range(3):
                dx = points[row, corner, 0] - spheres[block, 0]
                dy = points[row, corner, 1] - spheres[block, 1]
                dz = points[row, corner, 2] - spheres[block, 2]
                farthest = max(farthest, dx * dx + dy * dy + dz * dz)
        spheres[block, 3] = sqrt(farthest) * 1.0001 + 1e-3
