"""Triangles: the mesh that everything is made of, and the builder that makes one from boxes, cylinders and balls.

Object frame: x forward, y left, z up, metres; the origin lies on the ground in the middle of the footprint.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from drivedistill.world.materials import Draw, Material
from drivedistill.world.track import Floats

Point: TypeAlias = tuple[float, float, float]
Colour: TypeAlias = tuple[float, float, float]

QUAD_UV = np.array([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
HALVES = [0, 1, 2, 0, 2, 3]
"""The corners of a quadrilateral that make its two triangles."""
_BOX_SIDES = [[0, 1, 5, 4], [1, 2, 6, 5], [2, 3, 7, 6], [3, 0, 4, 7]]
_BOX_TOP, _BOX_BOTTOM = [[4, 5, 6, 7]], [[0, 3, 2, 1]]


@dataclass(frozen=True)
class Mesh:
    """n triangles."""

    points: Floats
    """float[n, 3, 3]: corners in metres"""
    uv: Floats
    """float[n, 3, 2]: texture coordinates (atlas, or metres on facades)"""
    flags: NDArray[np.int64]
    """int[n]: `materials.Draw`"""
    materials: NDArray[np.int64]
    """int[n]: `materials.Material`"""
    colours: Floats
    """float[n, 3]: linear reflectance, or radiance of a lamp"""

    def __len__(self) -> int:
        return len(self.points)


class _Chunk(NamedTuple):
    """Triangles of one look."""

    points: Floats
    uv: Floats
    flags: int
    material: int
    colour: Colour


class Shape:
    """A mesh in the making. Every method that adds something gives the shape back, so that calls can be chained."""

    def __init__(self) -> None:
        self._chunks: list[_Chunk] = []

    def triangles(
        self, points: Floats, material: Material, colour: Colour, uv: Floats, flags: int = Draw.TWO_SIDED
    ) -> Shape:
        """Add triangles float[n, 3, 3] with texture coordinates float[n, 3, 2]."""
        self._chunks.append(_Chunk(points, uv, int(flags), int(material), colour))
        return self

    def triangle(self, corners: ArrayLike, material: Material, colour: Colour) -> Shape:
        """Add one triangle float[3, 3]."""
        return self.triangles(np.asarray(corners, float)[None], material, colour, QUAD_UV[None, :3])

    def quads(
        self,
        corners: ArrayLike,
        material: Material,
        colour: Colour,
        uv: ArrayLike = QUAD_UV,
        flags: int = Draw.TWO_SIDED,
    ) -> Shape:
        """Add quadrilaterals float[n, 4, 3] with corners in order around each; uv float[4, 2] or float[n, 4, 2]."""
        corners, uv = np.asarray(corners, float), np.asarray(uv, float)
        uv = np.broadcast_to(uv, (len(corners), 4, 2))
        halves = corners[:, HALVES].reshape(-1, 3, 3)
        return self.triangles(halves, material, colour, uv[:, HALVES].reshape(-1, 3, 2), flags)

    def quad(self, corners: ArrayLike, material: Material, colour: Colour) -> Shape:
        """Add one quadrilateral float[4, 3]."""
        return self.quads(np.asarray(corners, float)[None], material, colour)

    def box(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        z: tuple[float, float],
        material: Material,
        colour: Colour,
        *,
        taper: tuple[float, float, float] = (0.0, 0.0, 0.0),
        top: tuple[Material, Colour] | None = None,
        bottom: bool = False,
    ) -> Shape:
        """Add a box.

        Args:
            x: Rear and front in metres, in any order.
            y: Right and left, in any order.
            z: Bottom and top.
            material: Of its sides.
            colour: Of its sides.
            taper: Metres by which the top is smaller at the front, at the back, and on each side.
            top: Material and colour of the top where they differ.
            bottom: Is the bottom face drawn? Nobody sees it in what stands on the ground.
        """
        (x0, x1), (y0, y1), (z0, z1), (front, back, side) = sorted(x), sorted(y), sorted(z), taper
        low = [(x0, y0, z0), (x1, y0, z0), (x1, y1, z0), (x0, y1, z0)]
        left, right = y1 - side, y0 + side
        high = [(x0 + back, right, z1), (x1 - front, right, z1), (x1 - front, left, z1), (x0 + back, left, z1)]
        corners = np.array(low + high)
        sides = _BOX_SIDES + (_BOX_BOTTOM if bottom else []) + ([] if top else _BOX_TOP)
        self.quads(corners[sides], material, colour)
        return self.quads(corners[_BOX_TOP], *top) if top else self

    def loft(
        self,
        sections: Floats,
        material: Material,
        colour: Colour,
        *,
        closed: bool = False,
        ends: tuple[Material, Colour] | None = None,
    ) -> Shape:
        """Add the skin between successive sections float[n, k, 3]; closed: the last point of each meets its first.

        `ends` closes the first and the last section (convex ones) with a flat face.
        """
        joined = np.concatenate([sections, sections[:, :1]], axis=1) if closed else sections
        this, following = joined[:-1], joined[1:]
        corners = np.stack([this[:, :-1], this[:, 1:], following[:, 1:], following[:, :-1]], axis=2)
        self.quads(corners.reshape(-1, 4, 3), material, colour, _loft_uv(*corners.shape[:2]))
        if ends:
            faces = sections[[0, -1]][:, _fan(sections.shape[1])].reshape(-1, 3, 3)
            self.triangles(faces, *ends, np.broadcast_to(QUAD_UV[:3], (len(faces), 3, 2)))
        return self

    def cylinder(
        self,
        start: Point,
        end: Point,
        radius: float,
        material: Material,
        colour: Colour,
        *,
        end_radius: float | None = None,
        sides: int = 8,
        ends: tuple[Material, Colour] | None = None,
    ) -> Shape:
        """Add a cylinder, or a cone, between two points; open at both ends unless `ends` says how they look."""
        across, up = _across(start, end)
        ring = circle(sides) @ np.array([across, up])
        last = radius if end_radius is None else end_radius
        return self.loft(np.stack([ring * radius + start, ring * last + end]), material, colour, closed=True, ends=ends)

    def ball(
        self, centre: Point, radius: float | Point, material: Material, colour: Colour, sides: int = 7, rings: int = 4
    ) -> Shape:
        """Add a ball, or an ellipsoid with three radii."""
        points, uv = unit_ball(sides, rings)
        return self.triangles(points * np.asarray(radius) + centre, material, colour, uv)

    def add(self, other: Shape, dx: float = 0.0, dy: float = 0.0, dz: float = 0.0, yaw: float = 0.0) -> Shape:
        """Add another shape, turned by `yaw` radians to the left and then moved."""
        cos, sin = np.cos(yaw), np.sin(yaw)
        turn = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
        self._chunks += [part._replace(points=part.points @ turn + (dx, dy, dz)) for part in other._chunks]
        return self

    def scaled(self, factors: tuple[float, float, float]) -> Shape:
        """The shape stretched along its axes."""
        shape = Shape()
        shape._chunks = [part._replace(points=part.points * factors) for part in self._chunks]
        return shape

    def flipped(self) -> Shape:
        """The shape upside down, lying on the ground."""
        top = max(float(part.points[:, :, 2].max()) for part in self._chunks)
        shape = Shape()
        shape._chunks = [part._replace(points=part.points * (1, -1, -1) + (0, 0, top)) for part in self._chunks]
        return shape

    def on_its_back(self) -> Shape:
        """The shape tipped over backwards: what looked forward looks up, and its top looks back."""
        turn = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
        shape = Shape()
        shape._chunks = [part._replace(points=part.points @ turn) for part in self._chunks]
        return shape

    def fitted(self, size: tuple[float, float, float]) -> Shape:
        """The shape stretched and moved so that it fills length, width and height, standing on the ground."""
        points = np.concatenate([part.points for part in self._chunks]).reshape(-1, 3)
        low, high = points.min(0), points.max(0)
        scale = np.array(size) / (high - low)
        origin = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]])
        shape = Shape()
        shape._chunks = [part._replace(points=(part.points - origin) * scale) for part in self._chunks]
        return shape

    def mesh(self) -> Mesh:
        """The triangles so far."""
        if not self._chunks:
            return EMPTY
        points, uv, flags, materials, colours = zip(*self._chunks, strict=True)
        counts = [len(part) for part in points]
        return Mesh(
            np.concatenate(points),
            np.concatenate(uv),
            np.repeat(np.array(flags, np.int64), counts),
            np.repeat(np.array(materials, np.int64), counts),
            np.repeat(np.array(colours, float), counts, axis=0),
        )


EMPTY = Mesh(np.zeros((0, 3, 3)), np.zeros((0, 3, 2)), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 3)))


@lru_cache
def circle(sides: int) -> Floats:
    """float[sides, 2]: points on the unit circle."""
    angles = np.arange(sides) * (2 * np.pi / sides)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


@lru_cache
def unit_ball(sides: int, rings: int) -> tuple[Floats, Floats]:
    """Triangles float[n, 3, 3] and texture coordinates float[n, 3, 2] of a ball of radius 1 around the origin."""
    heights = np.linspace(0.0, np.pi, rings + 1)
    ring = np.concatenate([circle(sides), np.zeros((sides, 1))], axis=1)
    sections = np.sin(heights)[:, None, None] * ring + np.cos(heights)[:, None, None] * np.array([0.0, 0.0, 1.0])
    skin = Shape().loft(sections, Material.MATT, (0.0, 0.0, 0.0), closed=True).mesh()
    areas = np.linalg.norm(
        np.cross(skin.points[:, 1] - skin.points[:, 0], skin.points[:, 2] - skin.points[:, 0]), axis=1
    )
    return skin.points[areas > 1e-9], skin.uv[areas > 1e-9]


@lru_cache
def _loft_uv(rows: int, columns: int) -> Floats:
    """float[rows * columns, 4, 2]: once around and once along the whole skin."""
    row, column = np.divmod(np.arange(rows * columns), columns)
    u0, u1, v0, v1 = column / columns, (column + 1) / columns, row / rows, (row + 1) / rows
    return np.stack([u0, v0, u1, v0, u1, v1, u0, v1], axis=1).reshape(-1, 4, 2)


@lru_cache
def _fan(corners: int) -> NDArray[np.int64]:
    """int[corners - 2, 3]: triangles of a convex polygon."""
    return np.array([(0, index, index + 1) for index in range(1, corners - 1)])


def _across(start: Point, end: Point) -> tuple[Point, Point]:
    """Two unit vectors at right angles to a line and to each other; the first one is level."""
    dx, dy, dz = end[0] - start[0], end[1] - start[1], end[2] - start[2]
    level, length = (dx * dx + dy * dy) ** 0.5, (dx * dx + dy * dy + dz * dz) ** 0.5
    if level < 1e-9:
        return (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)
    ux, uy = -dy / level, dx / level
    return (ux, uy, 0.0), (-dz * uy / length, dz * ux / length, (dx * uy - dy * ux) / length)
