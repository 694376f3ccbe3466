"""Buildings: blocks with facades in towns, houses with gabled and hipped roofs elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from drivedistill.world.materials import Draw, Material
from drivedistill.world.meshes.many import join, panels
from drivedistill.world.meshes.shape import EMPTY, Mesh
from drivedistill.world.pictures.surface import has_shop
from drivedistill.world.scene import RoadType
from drivedistill.world.surroundings.layout import CROSS_M, Layout, Way
from drivedistill.world.track import Floats

HEIGHTS = (7.0, 10.0, 13.0, 17.0, 24.0, 34.0)
HALL_HEIGHTS = (6.0, 8.0, 11.0)
TOWN_COLOURS = np.array(
    [
        (0.42, 0.20, 0.14), (0.50, 0.42, 0.32), (0.36, 0.36, 0.37), (0.55, 0.50, 0.44),
        (0.30, 0.24, 0.20), (0.22, 0.26, 0.30), (0.60, 0.57, 0.52), (0.45, 0.30, 0.20),
    ]
)  # fmt: skip
HOUSE_COLOURS = np.array([(0.62, 0.58, 0.5), (0.5, 0.3, 0.2), (0.45, 0.5, 0.52), (0.68, 0.66, 0.62), (0.5, 0.46, 0.3)])
ROOF_COLOURS = np.array([(0.25, 0.07, 0.05), (0.10, 0.10, 0.11), (0.18, 0.12, 0.08)])
AWNING_COLOURS = np.array([(0.45, 0.05, 0.05), (0.05, 0.22, 0.12), (0.06, 0.12, 0.35), (0.55, 0.42, 0.12)])
DOOR_COLOURS = np.array([(0.22, 0.05, 0.04), (0.05, 0.09, 0.16), (0.12, 0.07, 0.04), (0.5, 0.5, 0.48)])
OVERHANG_M = 0.4


@dataclass(frozen=True)
class Row:
    """How buildings stand along one kind of road; every pair is from and to, in metres."""

    width: tuple[float, float]
    gap: tuple[float, float]
    closed: float
    """Share of buildings that touch the next one."""
    setback: tuple[float, float]
    """Behind the pavement, or the asphalt."""
    depth: tuple[float, float]
    skipped: float
    """Share of lots that stay empty."""


ROWS: dict[RoadType, Row] = {
    "urban": Row((11.0, 24.0), (1.0, 5.0), 0.6, (0.3, 2.5), (10.0, 16.0), 0.0),
    "residential": Row((9.0, 13.0), (4.0, 10.0), 0.0, (4.5, 7.5), (7.5, 9.5), 0.05),
    "rural": Row((10.0, 18.0), (25.0, 60.0), 0.0, (16.0, 45.0), (8.0, 14.0), 0.5),
    "highway": Row((20.0, 45.0), (20.0, 60.0), 0.0, (28.0, 70.0), (15.0, 30.0), 0.45),
}


@dataclass(frozen=True)
class Lots:
    """n places for buildings."""

    corners: Floats
    """float[n, 4, 2]: counter-clockwise; the first two are the front's"""
    s: Floats
    """float[n, 2]: from and to along the road"""
    front: Floats
    """float[n]: d of the front"""
    on_main: NDArray[np.bool_]
    """bool[n]: it looks at the main road, not at the cross road"""

    def __len__(self) -> int:
        return len(self.s)


def lots(layout: Layout, rng: np.random.Generator) -> Lots:
    """Places for buildings along all roads, none of them on a road."""
    row = ROWS[layout.scene.road.type]
    parts = [
        _along(layout.main, row, rng, begin, end, side, on_main=True)
        for side in (-1, 1)
        for begin, end in layout.blocks(side)
    ]
    if layout.cross is not None:
        for arm in (-1, 1):
            edge = abs(layout.main.left if arm > 0 else layout.main.right) + layout.main.pavement
            begin, end = sorted((arm * (edge + row.setback[1] + row.depth[1]), arm * CROSS_M))
            if layout.has_arm(arm):
                parts += [_along(layout.cross, row, rng, begin, end, side, on_main=False) for side in (-1, 1)]
    made = _together(parts)
    rim = np.linspace(0.0, 1.0, 4, endpoint=False)[:, None]
    following = np.roll(made.corners, -1, axis=1)
    outline = made.corners[:, :, None] * (1 - rim) + following[:, :, None] * rim
    gap = layout.main.pavement * 0.75 + 0.2
    free = layout.clear(outline[..., 0].reshape(len(made), -1), outline[..., 1].reshape(len(made), -1), gap).all(axis=1)
    return _chosen(made, free & (rng.random(len(made)) >= row.skipped))


def _along(way: Way, row: Row, rng: np.random.Generator, begin: float, end: float, side: int, *, on_main: bool) -> Lots:
    """Lots from s to s on one side (1 left, -1 right) of a road, stretched a little so that they fill it."""
    mean_gap = (1 - row.closed) * sum(row.gap) / 2
    count = max(1, round((end - begin) / (sum(row.width) / 2 + mean_gap)))
    widths = rng.uniform(*row.width, count)
    gaps = rng.uniform(*row.gap, count) * (rng.random(count) >= row.closed)
    stretch = (end - begin) / (widths.sum() + gaps.sum())
    to = begin + np.cumsum(widths + gaps) * stretch
    s = np.stack([to - (widths + gaps / 2) * stretch, to - gaps / 2 * stretch], axis=1)
    edge = way.left + way.pavement if side > 0 else way.right - way.pavement
    front = edge + side * rng.uniform(*row.setback, count)
    pose = way.track.world(s if side > 0 else s[:, ::-1], front[:, None])
    ends = np.stack([pose.x, pose.y], axis=2)
    facing = ends[:, 1] - ends[:, 0]
    away = np.stack([-facing[:, 1], facing[:, 0]], axis=1) / np.linalg.norm(facing, axis=1, keepdims=True)
    back = ends + away[:, None] * rng.uniform(*row.depth, count)[:, None, None]
    return Lots(np.concatenate([ends, back[:, ::-1]], axis=1), s, front, np.full(count, on_main))


def _together(parts: Sequence[Lots]) -> Lots:
    return Lots(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Lots)))


def _chosen(made: Lots, kept: NDArray[np.bool_]) -> Lots:
    return Lots(*(getattr(made, field.name)[kept] for field in fields(Lots)))


def buildings(kind: RoadType, places: Lots, rng: np.random.Generator) -> tuple[Mesh, NDArray[np.int64]]:
    """Buildings on the lots, and the seed of each triangle's facade, int[n]."""
    if not len(places):
        return EMPTY, np.zeros(0, np.int64)
    seeds = rng.integers(1, 1 << 20, len(places))
    if kind == "urban":
        parts = [*_blocks(places, rng, HEIGHTS), _awnings(places, rng)]
    else:
        seeds = np.array([_without_shop(int(seed)) for seed in seeds])
        parts = _blocks(places, rng, HALL_HEIGHTS) if kind == "highway" else _houses(places, rng)
    return join(parts), np.concatenate([np.repeat(seeds, len(part) // len(places)) for part in parts])


def _upright(low: Floats, z0: Floats, z1: Floats) -> tuple[Floats, Floats]:
    """Walls float[n * k, 4, 3] over the edges of outlines float[n, k, 2], and their size in metres as texture."""
    count, edges, _ = low.shape
    following = np.roll(low, -1, axis=1)
    plan = np.stack([low, following, following, low], axis=2)
    bottom, top = (np.broadcast_to(z[:, None], (count, edges)) for z in (z0, z1))
    walls = np.concatenate([plan, np.stack([bottom, bottom, top, top], axis=2)[..., None]], axis=3)
    length, zero = np.linalg.norm(following - low, axis=2), np.zeros((count, edges))
    across = np.stack([zero, length, length, zero], axis=2)
    uv = np.stack([across, np.stack([bottom, bottom, top, top], axis=2)], axis=3)
    return walls.reshape(-1, 4, 3), uv.reshape(-1, 4, 2)


def _level(outline: Floats, z: Floats) -> Floats:
    """The outlines float[n, k, 2] at the heights float[n], as float[n, k, 3]."""
    return np.concatenate([outline, np.broadcast_to(z[:, None, None], (*outline.shape[:2], 1))], axis=2)


def _grown(outline: Floats, by: float) -> Floats:
    """Outlines a little larger on all sides."""
    middle = outline.mean(axis=1, keepdims=True)
    size = np.linalg.norm(outline - middle, axis=2, keepdims=True)
    return middle + (outline - middle) * (1 + by * np.sqrt(2) / size)


def _without_shop(seed: int) -> int:
    """The next seed of a facade without shops."""
    while has_shop(seed):
        seed += 1
    return seed


def _blocks(places: Lots, rng: np.random.Generator, heights: tuple[float, ...]) -> list[Mesh]:
    """Flat-roofed buildings with a cornice."""
    count, ground = len(places), np.zeros(len(places))
    height = rng.choice(heights, count) * rng.uniform(0.9, 1.1, count)
    colour = TOWN_COLOURS[rng.integers(len(TOWN_COLOURS), size=count)] * rng.uniform(0.75, 1.15, (count, 1))
    walls, uv = _upright(places.corners, ground, height)
    edge, _ = _upright(_grown(places.corners, 0.18), height - 0.35, height + 0.45)
    trim = np.repeat(colour * 0.6 + 0.12, 4, axis=0)
    return [
        panels(walls, Material.FACADE, np.repeat(colour, 4, axis=0), uv, Draw.PLAIN),
        panels(edge, Material.MATT, trim),
        panels(_level(places.corners, height), Material.MATT, (0.2, 0.2, 0.2)),
    ]


def _awnings(places: Lots, rng: np.random.Generator) -> Mesh:
    """Sloping awnings over a part of each front; on two of three they are rolled in."""
    count = len(places)
    begin, end = rng.uniform(0.04, 0.2, (count, 1)), rng.uniform(0.5, 0.96, (count, 1))
    left, right = places.corners[:, 0], places.corners[:, 1]
    ends = np.stack([left + (right - left) * begin, left + (right - left) * end], axis=1)
    outward = left - places.corners[:, 3]
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    length = np.where(rng.random(count) < 0.35, 0.9, 0.06)
    outer = ends + outward[:, None] * length[:, None, None]
    corners = np.concatenate([_level(outer, np.full(count, 2.6)), _level(ends[:, ::-1], np.full(count, 3.05))], axis=1)
    return panels(corners, Material.MATT, AWNING_COLOURS[rng.integers(len(AWNING_COLOURS), size=count)])


def _houses(places: Lots, rng: np.random.Generator) -> list[Mesh]:
    """Houses with a pitched roof, a door and a chimney."""
    count, ground = len(places), np.zeros(len(places))
    eaves = rng.uniform(3.3, 6.2, count)
    ridge = eaves + rng.uniform(1.8, 3.0, count)
    colour = HOUSE_COLOURS[rng.integers(len(HOUSE_COLOURS), size=count)] * rng.uniform(0.8, 1.1, (count, 1))
    roof = ROOF_COLOURS[rng.integers(len(ROOF_COLOURS), size=count)] * rng.uniform(0.8, 1.2, (count, 1))
    hipped = rng.random(count) < 0.4
    walls, uv = _upright(places.corners, ground, eaves)
    under = _level(_grown(places.corners, OVERHANG_M), eaves - 0.15)
    inset = np.where(hipped, 0.28, 0.02)[:, None]
    left, right = (under[:, 0] + under[:, 3]) / 2, (under[:, 1] + under[:, 2]) / 2
    tops = np.stack([left + (right - left) * inset, right - (right - left) * inset], axis=1)
    tops[:, :, 2] = ridge[:, None]
    slopes = [
        np.stack([under[:, 0], under[:, 1], tops[:, 1], tops[:, 0]], axis=1),
        np.stack([under[:, 2], under[:, 3], tops[:, 0], tops[:, 1]], axis=1),
    ]
    gables = [
        np.stack([under[:, 1], under[:, 2], tops[:, 1], tops[:, 1]], axis=1),
        np.stack([under[:, 3], under[:, 0], tops[:, 0], tops[:, 0]], axis=1),
    ]
    gable_colour = np.where(hipped[:, None], roof, colour)
    pairs = [np.stack(pair, axis=1).reshape(-1, 4, 3) for pair in (slopes, gables)]
    return [
        panels(walls, Material.FACADE, np.repeat(colour, 4, axis=0), uv, Draw.PLAIN),
        panels(pairs[0], Material.MATT, np.repeat(roof, 2, axis=0)),
        panels(pairs[1], Material.MATT, np.repeat(gable_colour, 2, axis=0)),
        _chimneys(tops, rng),
        _doors(places, rng),
    ]


def _chimneys(ridge: Floats, rng: np.random.Generator) -> Mesh:
    """A chimney on each ridge float[n, 2, 3]."""
    part = rng.uniform(0.2, 0.8, (len(ridge), 1))
    middle = ridge[:, 0] * (1 - part) + ridge[:, 1] * part
    square = middle[:, None, :2] + np.array([(-0.3, -0.3), (0.3, -0.3), (0.3, 0.3), (-0.3, 0.3)])
    walls, _ = _upright(square, middle[:, 2] - 0.8, middle[:, 2] + 0.7)
    return panels(walls, Material.MATT, (0.28, 0.14, 0.10))


def _doors(places: Lots, rng: np.random.Generator) -> Mesh:
    """A door in each front."""
    left, right = places.corners[:, 0], places.corners[:, 1]
    along = (right - left) / np.linalg.norm(right - left, axis=1, keepdims=True)
    begin = left + (right - left) * rng.uniform(0.3, 0.6, (len(places), 1))
    outward = np.stack([along[:, 1], -along[:, 0]], axis=1) * 0.05
    ends = np.stack([begin + outward, begin + along * 1.1 + outward], axis=1)
    low, high = _level(ends, np.zeros(len(places))), _level(ends[:, ::-1], np.full(len(places), 2.15))
    colours = DOOR_COLOURS[rng.integers(len(DOOR_COLOURS), size=len(places))]
    return panels(np.concatenate([low, high], axis=1), Material.MATT, colours)
