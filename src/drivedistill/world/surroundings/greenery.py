"""Trees, bushes, hedges, and the woods behind them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from drivedistill.world.materials import Draw, Material
from drivedistill.world.meshes.atlas import uv
from drivedistill.world.meshes.many import copies, join, panels
from drivedistill.world.meshes.shape import QUAD_UV, Colour, Mesh, Shape, unit_ball
from drivedistill.world.scene import RoadType
from drivedistill.world.surroundings.buildings import Lots
from drivedistill.world.surroundings.layout import Layout
from drivedistill.world.track import Floats

WOOD: Colour = (0.10, 0.07, 0.045)
GREENS = np.array([(0.28, 0.44, 0.11), (0.20, 0.38, 0.12), (0.36, 0.44, 0.13)])
AUTUMN = np.array([(0.62, 0.42, 0.09), (0.58, 0.28, 0.07), (0.40, 0.42, 0.12)])
NEEDLES = np.array([(0.12, 0.26, 0.12), (0.10, 0.22, 0.13), (0.14, 0.26, 0.10)])
SPACING: dict[RoadType, float] = {"urban": 14.0, "residential": 9.0, "highway": 9.0, "rural": 8.0}
SHARE: dict[RoadType, float] = {"urban": 0.5, "residential": 0.7, "highway": 0.5, "rural": 0.75}
OFFSET: dict[RoadType, tuple[float, float]] = {
    "urban": (0.9, 0.9),
    "residential": (0.9, 0.9),
    "highway": (8.0, 26.0),
    "rural": (7.0, 24.0),
}
"""Of the trees from the asphalt, metres."""


def greenery(layout: Layout, places: Lots, rng: np.random.Generator) -> Mesh:
    """All plants of a scene, none of them on a road or in a building."""
    winter = layout.scene.conditions.weather == "snow"
    leaves = AUTUMN if rng.random() < 0.2 else GREENS
    parts = [_near_trees(layout, places, rng, leaves, winter=winter), _woods(layout, places, rng, winter=winter)]
    if layout.scene.road.type == "residential":
        parts.append(_hedges(layout, places, rng))
    if not layout.scene.road.pavement:
        parts.append(_bushes(layout, places, rng, leaves))
    return join(parts)


def _free(
    layout: Layout, places: Lots, s: Floats, d: Floats, gap: float | Floats, room: float
) -> tuple[Floats, NDArray[np.bool_]]:
    """Which (s, d) keep away from roads (by gap) and buildings (by room): their world places float[k, 3], and a mask."""
    pose = layout.main.track.world(s, d)
    kept = layout.clear(pose.x, pose.y, gap)
    if len(places):
        middles = places.corners.mean(axis=1)
        reach = np.linalg.norm(places.corners[:, 0] - middles, axis=1) * 0.8 + room
        distance = np.hypot(pose.x[:, None] - middles[:, 0], pose.y[:, None] - middles[:, 1])
        kept &= (distance > reach).all(axis=1)
    return np.stack([pose.x, pose.y, np.zeros_like(pose.x)], axis=1)[kept], kept


def _spots(layout: Layout, rng: np.random.Generator, spacing: float, share: float) -> tuple[Floats, Floats]:
    """Random s along both sides of the main road, and the side (1 left, -1 right) of each."""
    s = np.arange(layout.main.begin + 25.0, layout.main.end - 30.0, spacing)
    s = np.concatenate([s, s + spacing / 2])
    side: Floats = np.repeat([-1.0, 1.0], len(s) // 2)
    kept = rng.random(len(s)) < share
    return (s + rng.uniform(-0.25, 0.25, len(s)) * spacing)[kept], side[kept]


def _beside(layout: Layout, s: Floats, side: Floats, offset: Floats) -> Floats:
    """The d that lie `offset` metres outside the asphalt of the main road."""
    return np.where(side > 0, layout.main.left + offset, layout.right_edge(s) - offset)


def _in_sight_of_signs(layout: Layout, s: Floats, side: Floats) -> NDArray[np.bool_]:
    """Which places on the right would hide a sign, or a traffic light beyond a junction, from the ego."""
    scene = layout.scene
    hidden: NDArray[np.bool_] = np.zeros(len(s), np.bool_)
    for sign in scene.signs:
        at, _ = layout.main.track.project(sign.x, sign.y)
        hidden |= (s > at - 22.0) & (s < at + 2.0)
    if scene.heads and scene.road.junction is not None:
        hidden |= (s > scene.road.junction.s - 32.0) & (s < scene.road.junction.s + 10.0)
    return hidden & (side < 0)


def _near_trees(layout: Layout, places: Lots, rng: np.random.Generator, leaves: Floats, *, winter: bool) -> Mesh:
    kind = layout.scene.road.type
    s, side = _spots(layout, rng, SPACING[kind], SHARE[kind])
    shown = ~_in_sight_of_signs(layout, s, side)
    s, side = s[shown], side[shown]
    in_town = layout.scene.road.pavement > 0
    evergreen = rng.random(len(s)) < (0.0 if kind == "urban" else 0.3)
    offset = rng.uniform(*OFFSET[kind], len(s))
    if in_town:  # Firs have no bare trunk below which one can walk: they stand in the gardens.
        offset += evergreen * (layout.main.pavement + 2.0)
    d = _beside(layout, s, side, offset)
    gap = np.where(evergreen, 2.8, 0.7)[:, None] if in_town else 4.5
    spots, kept = _free(layout, places, s, d, gap, 1.0 if in_town else 3.0)
    evergreen = evergreen[kept]
    height = rng.uniform(6.2, 8.4, len(spots)) if in_town else rng.uniform(6.5, 10.0, len(spots))
    yaw, choice = rng.uniform(0, 2 * np.pi, len(spots)), rng.integers(3, size=len(spots))
    bright = rng.uniform(0.75, 1.15, (len(spots), 1))
    broad = [bare()] * 3 if winter else [broadleaf(seed) for seed in range(3)]
    parts = []
    for number, tree in enumerate([*broad, conifer()]):
        mine = evergreen if number == 3 else ~evergreen & (choice == number)
        tint = (NEEDLES if number == 3 else np.ones((3, 3)) if winter else leaves)[choice[mine]] * bright[mine]
        narrow = np.array([0.72, 0.72, 1.0]) if in_town else np.ones(3)
        parts.append(_tinted(tree, spots[mine], yaw[mine], height[mine, None] * narrow, tint))
    return join(parts)


def _tinted(plant: Mesh, spots: Floats, yaw: Floats, scale: Floats, tint: Floats) -> Mesh:
    """Copies of a plant whose leaves are tinted and whose wood is not."""
    grown = copies(plant, spots, yaw, scale)
    leafy = plant.materials == Material.TEXTURE
    factors = np.where(leafy[None, :, None], tint[:, None], 1.0).reshape(-1, 3)
    return Mesh(grown.points, grown.uv, grown.flags, grown.materials, grown.colours * factors)


def _woods(layout: Layout, places: Lots, rng: np.random.Generator, *, winter: bool) -> Mesh:
    """Trees far from the road, two crossed pictures each."""
    kind = layout.scene.road.type
    if kind == "urban":
        return join([])
    near, far = (24.0, 30.0) if kind == "residential" else (32.0, 80.0)
    s, side = _spots(layout, rng, 9.0, 0.8)
    d = _beside(layout, s, side, rng.uniform(near, far, len(s)))
    spots, _ = _free(layout, places, s, d, near * 0.7, 3.0)
    height, yaw = rng.uniform(6.0, 12.0, len(spots)), rng.uniform(0, np.pi, len(spots))
    names = ("bare tree", "conifer") if winter else ("broadleaf tree", "conifer", "broadleaf tree", "autumn tree")
    choice = rng.integers(len(names), size=len(spots))
    bright = np.repeat(rng.uniform(0.75, 1.1, (len(spots), 1)), 3, axis=1)
    return join(
        copies(
            picture(name),
            spots[choice == number],
            yaw[choice == number],
            height[choice == number],
            bright[choice == number],
        )
        for number, name in enumerate(names)
    )


def _bushes(layout: Layout, places: Lots, rng: np.random.Generator, leaves: Floats) -> Mesh:
    s, side = _spots(layout, rng, 11.0, 0.6)
    spots, _ = _free(layout, places, s, _beside(layout, s, side, rng.uniform(5.5, 16.0, len(s))), 3.5, 1.0)
    size = rng.uniform(0.9, 2.0, (len(spots), 1)) * np.array([1.3, 1.3, 1.0])
    tint = leaves[rng.integers(3, size=len(spots))] * rng.uniform(0.7, 1.1, (len(spots), 1))
    return _tinted(bush(), spots, rng.uniform(0, 2 * np.pi, len(spots)), size, tint)


def _hedges(layout: Layout, places: Lots, rng: np.random.Generator) -> Mesh:
    """Hedges in front of some of the houses, beside the driveway."""
    mine = places.on_main & (rng.random(len(places)) < 0.6)
    s0, s1, front = places.s[mine, 0] + 3.8, places.s[mine, 1] + 1.5, places.front[mine]
    side = np.sign(front)
    edge = np.where(side > 0, layout.main.left, layout.main.right) + side * (layout.main.pavement + 0.5)
    height = rng.uniform(0.8, 1.5, len(s0))
    pose = layout.main.track.world(np.stack([s0, s1, s1, s0], axis=1), edge[:, None] + side[:, None] * [0, 0, 0.7, 0.7])
    low = np.stack([pose.x, pose.y, np.zeros_like(pose.x)], axis=2)
    kept = layout.clear(pose.x, pose.y, layout.main.pavement * 0.9).all(axis=1)
    low, high = low[kept], (low + np.stack([0 * height, 0 * height, height], axis=1)[:, None])[kept]
    following = [1, 2, 3, 0]
    sides = np.stack([low, low[:, following], high[:, following], high], axis=2).reshape(-1, 4, 3)
    tint = GREENS[rng.integers(3, size=len(low))] * rng.uniform(0.5, 0.9, (len(low), 1))
    return join(
        [
            panels(sides, Material.TEXTURE, np.repeat(tint * 0.8, 4, axis=0), _leafy(QUAD_UV)),
            panels(high, Material.TEXTURE, tint, _leafy(QUAD_UV)),
        ]
    )


def _leafy(part: Floats) -> Floats:
    """Texture coordinates in the dense middle of the leaves for parts of it between 0 and 1."""
    corners = uv("leaves")
    low, high = corners.min(0), corners.max(0)
    return low + (high - low) * (0.2 + 0.6 * part)


def _crown(
    shape: Shape, middle: tuple[float, float, float], radius: tuple[float, float, float], cards: int, seed: int
) -> None:
    """A ball of leaves with tufts that break its outline; darker below, as little light comes there."""
    rng = np.random.default_rng(seed)
    points, part = unit_ball(6, 4)
    for lower, shade in ((True, 0.55), (False, 0.95)):
        mine = (points[:, :, 2].mean(axis=1) < 0) == lower
        inside = points[mine] * np.array(radius) * 0.82 + middle
        shape.triangles(inside, Material.TEXTURE, (shade, shade, shade), _leafy(part[mine]))
    turns, heights = rng.uniform(0, 2 * np.pi, cards), np.linspace(-0.75, 0.9, cards)
    level = np.sqrt(1 - heights**2)
    centres = np.stack([level * np.cos(turns), level * np.sin(turns), heights], axis=1)
    for centre in centres:
        first = np.cross(centre + 0.8 * rng.normal(size=3), rng.normal(size=3))
        first /= np.linalg.norm(first)
        second = np.cross(first, centre + 0.6 * rng.normal(size=3))
        second /= np.linalg.norm(second)
        corners = np.array([-first - second, first - second, first + second, second - first]) * 0.62
        shade = 0.75 + 0.3 * float(centre[2])
        quad = (corners + centre * 0.72) * np.array(radius) + middle
        flags = Draw.TWO_SIDED | Draw.CUT_OUT
        shape.quads(quad[None], Material.TEXTURE, (shade, shade, shade), uv("leaves"), flags)


@lru_cache
def broadleaf(seed: int) -> Mesh:
    """A tree of height 1 with pale leaves, to be tinted."""
    shape = Shape().cylinder((0, 0, 0), (0, 0, 0.5), 0.025, Material.BARK, WOOD, end_radius=0.015, sides=5)
    wide = (0.36, 0.32, 0.30)[seed]
    _crown(shape, (0.0, 0.0, 0.70), (wide, wide * 0.95, 0.27), 11, seed)
    return shape.mesh()


@lru_cache
def conifer() -> Mesh:
    """A fir of height 1 with pale needles, to be tinted."""
    shape = Shape().cylinder((0, 0, 0), (0, 0, 0.25), 0.025, Material.BARK, WOOD, sides=5)
    for bottom, top, radius, shade in ((0.12, 0.55, 0.24, 0.7), (0.36, 0.78, 0.18, 0.85), (0.6, 1.0, 0.12, 1.0)):
        cone = Shape().cylinder(
            (0, 0, bottom), (0, 0, top), radius, Material.TEXTURE, (1, 1, 1), end_radius=0.005, sides=7
        )
        skin = cone.mesh()
        shape.triangles(skin.points, Material.TEXTURE, (shade, shade, shade), _leafy(skin.uv))
    for turn in np.arange(3) * np.pi / 3:
        _picture(shape, "conifer", turn, 0.62, (1.9, 1.7, 2.0))
    return shape.mesh()


@lru_cache
def bare() -> Mesh:
    """A leafless tree of height 1."""
    shape = Shape().cylinder((0, 0, 0), (0, 0, 0.3), 0.025, Material.BARK, WOOD, end_radius=0.02, sides=5)
    for turn in np.arange(3) * np.pi / 3:
        _picture(shape, "bare tree", turn, 0.9, (1.0, 1.0, 1.0))
    return shape.mesh()


@lru_cache
def bush() -> Mesh:
    """A bush of height 1 and width 1 with pale leaves, to be tinted."""
    shape = Shape()
    _crown(shape, (0.0, 0.0, 0.36), (0.6, 0.55, 0.58), 8, 5)
    return shape.mesh()


@lru_cache
def picture(name: str) -> Mesh:
    """A tree of height 1 for the distance: two crossed pictures."""
    shape = Shape()
    for turn in (0.0, np.pi / 2):
        _picture(shape, name, turn, 0.8, (1.0, 1.0, 1.0))
    return shape.mesh()


def _picture(shape: Shape, name: str, turn: float, width: float, colour: Colour) -> None:
    """One upright picture of height 1 through the middle."""
    x, y = np.cos(turn) * width / 2, np.sin(turn) * width / 2
    corners = [(-x, -y, 0), (x, y, 0), (x, y, 1), (-x, -y, 1)]
    shape.quads([corners], Material.TEXTURE, colour, uv(name), Draw.TWO_SIDED | Draw.CUT_OUT)
