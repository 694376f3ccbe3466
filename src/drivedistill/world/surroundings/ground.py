"""The ground: land, pavements, kerbs, asphalt, and the painter that lays strips along the roads."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from drivedistill.world.materials import Draw, Material
from drivedistill.world.meshes.shape import Colour, Mesh
from drivedistill.world.surroundings.layout import CORNER_M, TAPER_M, Layout, Way
from drivedistill.world.track import Floats

FLAGS = int(Draw.GROUND | Draw.TWO_SIDED | Draw.NO_SHADOW)
LAND_M = 500.0
KERB_M = 0.22
PAVING, KERB, SOIL = (0.30, 0.29, 0.275), (0.36, 0.355, 0.35), (0.22, 0.17, 0.11)
GRASSES: tuple[Colour, ...] = ((0.075, 0.115, 0.035), (0.085, 0.12, 0.04), (0.17, 0.15, 0.07))
FIELDS: tuple[tuple[Material, Colour], ...] = (
    (Material.DIRT, (0.16, 0.11, 0.07)),
    (Material.GRASS, (0.24, 0.20, 0.06)),
    (Material.GRASS, (0.06, 0.13, 0.03)),
    (Material.GRASS, (0.13, 0.15, 0.05)),
)


class Painter:
    """Strips along roads, in the order in which they are painted over each other."""

    def __init__(self) -> None:
        self._ways: list[Way] = []
        self._strips: list[tuple[int, Floats, Material, Colour]] = []

    def strip(
        self, way: Way, s: tuple[ArrayLike, ArrayLike], d: tuple[ArrayLike, ...], material: Material, colour: Colour
    ) -> None:
        """Paint one strip or many.

        Args:
            way: The road they follow.
            s: From and to; a number or float[n] each.
            d: Right and left edge, or right and left at the first s and right and left at the second.
            material: Of all.
            colour: Of all.
        """
        if way not in self._ways:
            self._ways.append(way)
        edges = d if len(d) == 4 else (*d, *d)
        rows = np.stack(np.broadcast_arrays(*(np.atleast_1d(np.asarray(part, float)) for part in (*s, *edges))), axis=1)
        self._strips.append((self._ways.index(way), rows, material, colour))

    def mesh(self, land: Colour, land_material: Material, middle: tuple[float, float]) -> Mesh:
        """The ground: the land around a point and all strips on it."""
        rows = np.concatenate([rows for _, rows, _, _ in self._strips])
        counts = [len(rows) for _, rows, _, _ in self._strips]
        ways: NDArray[np.int64] = np.repeat([way for way, *_ in self._strips], counts)
        materials: NDArray[np.int64] = np.repeat([int(material) for _, _, material, _ in self._strips], counts)
        colours = np.repeat([colour for *_, colour in self._strips], counts, axis=0)
        rows, strip = self._cut(rows, ways)
        corners, uv = np.zeros((len(rows) + 1, 4, 3)), np.zeros((len(rows) + 1, 4, 2))
        corners[0, :, :2] = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * LAND_M + middle
        # Metres along and across the road, so that patterns follow it.
        uv[0], uv[1:, :, 0], uv[1:, :, 1] = corners[0, :, :2], rows[:, [0, 1, 1, 0]], rows[:, [2, 4, 5, 3]]
        for index, way in enumerate(self._ways):
            mine = ways[strip] == index
            pose = way.track.world(uv[1:][mine, :, 0], uv[1:][mine, :, 1])
            corners[1:][mine, :, 0], corners[1:][mine, :, 1] = pose.x, pose.y
        halves, count = [0, 1, 2, 0, 2, 3], 2 * len(corners)
        return Mesh(
            corners[:, halves].reshape(-1, 3, 3),
            uv[:, halves].reshape(-1, 3, 2),
            np.full(count, FLAGS),
            np.repeat(np.concatenate([[int(land_material)], materials[strip]]), 2),
            np.repeat(np.concatenate([[land], colours[strip]]), 2, axis=0),
        )

    def _cut(self, rows: Floats, ways: NDArray[np.int64]) -> tuple[Floats, NDArray[np.int64]]:
        """Cut strips where the roads bend: rows float[m, 6] of the pieces, and of which strip each is."""
        pieces: NDArray[np.int64] = np.ones(len(rows), np.int64)
        first: NDArray[np.int64] = np.zeros(len(rows), np.int64)
        for index, way in enumerate(self._ways):
            mine = ways == index
            first[mine] = np.searchsorted(way.cuts, rows[mine, 0] + 0.2)
            pieces[mine] += np.maximum(np.searchsorted(way.cuts, rows[mine, 1] - 0.2) - first[mine], 0)
        strip: NDArray[np.int64] = np.repeat(np.arange(len(rows)), pieces)
        number = np.arange(len(strip)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        whole = rows[strip]
        cut = np.concatenate([*(way.cuts for way in self._ways), [0.0]])
        offset = np.cumsum([0, *(len(way.cuts) for way in self._ways)])[ways[strip]]
        place = np.minimum(offset + first[strip] + number, len(cut) - 1)
        begin = np.where(number == 0, whole[:, 0], cut[place - 1])
        end = np.where(number == pieces[strip] - 1, whole[:, 1], cut[place])
        length = whole[:, 1] - whole[:, 0]
        from_part, to_part = (((at - whole[:, 0]) / length)[:, None] for at in (begin, end))
        change = whole[:, 4:] - whole[:, 2:4]
        edges = [whole[:, 2:4] + change * from_part, whole[:, 2:4] + change * to_part]
        return np.concatenate([begin[:, None], end[:, None], *edges], axis=1), strip


def lay_ground(painter: Painter, layout: Layout, rng: np.random.Generator) -> tuple[Colour, Material]:
    """Paint everything but the markings; gives colour and material of the land around."""
    kind = layout.scene.road.type
    red, green, blue = np.array(GRASSES[rng.integers(len(GRASSES))]) * rng.uniform(0.8, 1.2)
    if kind == "rural":
        _fields(painter, layout, rng)
    for way in layout.ways:
        for right, left in _beside(way, way.pavement or 1.4):
            material, colour = (Material.PAVING, PAVING) if way.pavement else (Material.DIRT, SOIL)
            painter.strip(way, way.painted, (right, left), material, colour)
    _asphalt(painter, layout, 0.105 * rng.uniform(0.7, 1.35))
    return ((0.20, 0.195, 0.19), Material.PAVING) if kind == "urban" else ((red, green, blue), Material.GRASS)


def _beside(way: Way, width: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Right and left edge of a strip beside the asphalt, on the right and on the left of a road."""
    return (way.right - width, way.right), (way.left, way.left + width)


def _asphalt(painter: Painter, layout: Layout, gray: float) -> None:
    colour, main = (gray, gray, gray * 1.05), layout.main
    for way in layout.ways:
        for right, left in _beside(way, KERB_M) if way.pavement else ():
            painter.strip(way, way.painted, (right, left), Material.MATT, KERB)
    for way in reversed(layout.ways):  # where they cross, the main road's wheel tracks are seen
        painter.strip(way, way.painted, (way.right, way.left), Material.ASPHALT, colour)
    if layout.scene.road.merge is not None:
        begin, end = layout.scene.road.merge
        s = np.concatenate([np.linspace(begin - TAPER_M, begin, 5), [end - TAPER_M, end]])
        edge = layout.right_edge(s + 1e-6)
        lane = (edge[:-1], np.minimum(edge[:-1] + 6.0, main.right), edge[1:], np.minimum(edge[1:] + 6.0, main.right))
        painter.strip(main, (s[:-1], s[1:]), lane, Material.ASPHALT, colour)
    for side in (-1, 1):
        if layout.has_arm(side):
            _corners(painter, layout, side, colour)


def _corners(painter: Painter, layout: Layout, side: int, colour: Colour) -> None:
    """Round off the two corners where the cross road meets one side (1 left, -1 right) of the main road."""
    junction, cross = layout.scene.road.junction, layout.cross
    assert junction is not None
    assert cross is not None
    edge = layout.main.left if side > 0 else layout.main.right
    along = CORNER_M * np.sin(np.linspace(0.0, np.pi / 2, 6))
    layers = ((KERB_M, Material.MATT, KERB), (0.0, Material.ASPHALT, colour))
    for kerb, material, shade in layers if cross.pavement else layers[1:]:
        depth = CORNER_M - np.sqrt(np.maximum((CORNER_M - kerb) ** 2 - along**2, 0.0))
        for toward in (-1, 1):
            s = junction.s + toward * (cross.left + CORNER_M - along)
            inner, outer = np.full(6, edge - side * 0.5), edge + side * depth
            begin, end = (s[:-1], s[1:]) if toward < 0 else (s[1:], s[:-1])
            near, far = (slice(0, 5), slice(1, 6)) if toward < 0 else (slice(1, 6), slice(0, 5))
            painter.strip(
                layout.main, (begin, end), (inner[near], outer[near], inner[far], outer[far]), material, shade
            )


def _fields(painter: Painter, layout: Layout, rng: np.random.Generator) -> None:
    """Fields of different crops on both sides of a country road."""
    main = layout.main
    for edge, side in ((main.right, -1), (main.left, 1)):
        begin = main.painted[0]
        while begin < main.painted[1]:
            end, near = begin + rng.uniform(70, 160), edge + side * rng.uniform(7, 16)
            material, colour = FIELDS[rng.integers(len(FIELDS))]
            painter.strip(main, (begin, end - 3.0), (near, near + side * rng.uniform(60, 150)), material, colour)
            begin = end
