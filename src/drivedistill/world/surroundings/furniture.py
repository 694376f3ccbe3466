"""What people put beside roads: lamps, rails, fences, posts, litter bins, billboards."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from drivedistill.world.materials import Material
from drivedistill.world.meshes.atlas import uv
from drivedistill.world.meshes.many import copies, join, panels
from drivedistill.world.meshes.shape import Mesh, Shape
from drivedistill.world.surroundings.layout import TAPER_M, Layout, Way
from drivedistill.world.track import Floats

LAMP_SPACING_M, LAMP_HEIGHT_M, LAMP_ARM_M = 30.0, 7.2, 1.9
LAMP_LIGHT = (1.0, 0.74, 0.42)
LAMP_STRENGTH = 7.0
STEEL, DARK_STEEL, CONCRETE, TIMBER = (0.42, 0.43, 0.44), (0.16, 0.17, 0.17), (0.38, 0.38, 0.37), (0.24, 0.18, 0.12)
RAIL_GAP_M = 0.35
"""From the asphalt to the guard rail."""


def furniture(layout: Layout, rng: np.random.Generator) -> Mesh:
    """Everything but lamps, signs and traffic lights."""
    road = layout.scene.road
    if road.type == "highway":
        return join([_median(layout), *_guard_rail(layout), *_billboards(layout, rng)])
    if road.type == "rural":
        return join([_delineators(layout), *_fences(layout, rng), *_utility_poles(layout, rng)])
    return join([_bins(layout, rng), *(_billboards(layout, rng) if road.type == "urban" else [])])


def street_lamps(layout: Layout) -> tuple[Mesh, Floats, Floats]:
    """The lamps, and where they are lit: light float[k, 7] and glow float[k, 10] as in `Surroundings`."""
    scene = layout.scene
    lit = scene.conditions.light != "day" and scene.conditions.street_lamps
    none = np.zeros((0, 7)), np.zeros((0, 10))
    if scene.road.type == "rural" and not scene.conditions.street_lamps:
        return join([]), *none
    main = layout.main
    offset = 0.7 if scene.road.pavement else 2.6
    left = scene.road.left + scene.road.margin if scene.road.opposite else main.left
    s = np.arange(main.begin + 20.0, main.end - 20.0, LAMP_SPACING_M)
    side: Floats = np.repeat([-1.0, 1.0], len(s))
    s = np.concatenate([s, s + LAMP_SPACING_M / 2])
    d = np.where(side > 0, left + offset, layout.right_edge(s) - offset)
    pose = main.track.world(s, d, np.where(side > 0, -np.pi / 2, np.pi / 2))
    kept = layout.clear(pose.x, pose.y, offset * 0.8)
    x, y, yaw = pose.x[kept], pose.y[kept], pose.yaw[kept]
    zero = np.zeros_like(x)
    mesh = copies(_lamp(lit=lit), np.stack([x, y, zero], axis=1), yaw)
    if not lit:
        return mesh, *none
    bulb = [x + np.cos(yaw) * LAMP_ARM_M, y + np.sin(yaw) * LAMP_ARM_M]
    lights = [*bulb, zero + 6.8, *(zero + part for part in LAMP_LIGHT), zero + LAMP_STRENGTH]
    glows = [*bulb, zero + 7.0, *(zero + part for part in LAMP_LIGHT), zero + 0.35, zero + 0.75, zero, zero]
    return mesh, np.stack(lights, axis=1), np.stack(glows, axis=1)


@lru_cache
def _lamp(*, lit: bool) -> Mesh:
    """A street lamp whose arm reaches forward."""
    pole = Shape().cylinder((0, 0, 0), (0, 0, LAMP_HEIGHT_M), 0.09, Material.MATT, DARK_STEEL, end_radius=0.06, sides=6)
    pole.box((0.0, LAMP_ARM_M), (-0.05, 0.05), (LAMP_HEIGHT_M - 0.1, LAMP_HEIGHT_M), Material.MATT, DARK_STEEL)
    material, colour = (Material.LAMP, (2.2, 1.7, 1.0)) if lit else (Material.MATT, (0.6, 0.6, 0.55))
    reach = (LAMP_ARM_M - 0.5, LAMP_ARM_M + 0.2)
    return pole.box(
        reach, (-0.15, 0.15), (LAMP_HEIGHT_M - 0.2, LAMP_HEIGHT_M - 0.1), material, colour, bottom=True
    ).mesh()


def _ribbon(
    way: Way, s: Floats, profile: list[tuple[float, float]], d: Floats, material: Material, colour: Floats
) -> Mesh:
    """Skin between the same profile [(d offset, z), ...] at successive s; d float[n] is its place there."""
    offsets, heights = np.array(profile).T
    pose = way.track.world(s[:, None], d[:, None] + offsets)
    points = np.stack([pose.x, pose.y, np.broadcast_to(heights, pose.x.shape)], axis=2)
    corners = np.stack([points[:-1, :-1], points[1:, :-1], points[1:, 1:], points[:-1, 1:]], axis=2)
    return panels(corners.reshape(-1, 4, 3), material, colour)


def _posts(way: Way, s: Floats, d: Floats, post: Mesh) -> Mesh:
    pose = way.track.world(s, d)
    return copies(post, np.stack([pose.x, pose.y, np.zeros_like(pose.x)], axis=1), pose.yaw)


def _median(layout: Layout) -> Mesh:
    """The concrete wall between the directions of a highway."""
    road, main = layout.scene.road, layout.main
    middle = 0.0 if road.opposite else 0.7
    profile = [(-0.3, 0.0), (-0.12, 0.35), (-0.08, 0.95), (0.08, 0.95), (0.12, 0.35), (0.3, 0.0)]
    if road.opposite:
        profile = [(0.6 * across, height) for across, height in profile]
    parts = []
    for begin, end in layout.blocks(1 if layout.has_arm(1) else -1):
        s = main.pieces(begin, end, 24.0)
        parts.append(_ribbon(main, s, profile, np.full(len(s), middle), Material.MATT, np.array(CONCRETE)))
    return join(parts)


def _guard_rail(layout: Layout) -> list[Mesh]:
    main, merge = layout.main, layout.scene.road.merge
    spans = layout.blocks(-1)
    if merge is not None:
        spans = [(main.begin, merge[0] - TAPER_M - 20.0), (merge[0] + 4.0, main.end)]
    post = Shape().box((-0.04, 0.04), (-0.14, -0.06), (0.0, 0.75), Material.MATT, DARK_STEEL).mesh()
    parts = []
    for begin, end in spans:
        s = main.pieces(begin, end, 12.0)
        d = layout.right_edge(s) - RAIL_GAP_M
        beam = [(-0.05, 0.45), (0.05, 0.52), (-0.02, 0.62), (0.05, 0.72), (-0.05, 0.80)]
        parts += [_ribbon(main, s, beam, d, Material.MATT, np.array(STEEL)), _posts(main, s, d, post)]
    return parts


def _delineators(layout: Layout) -> Mesh:
    """White posts with a dark band along a country road."""
    main = layout.main
    s: Floats = np.repeat(np.arange(main.begin + 40.0, main.end - 40.0, 25.0), 2)
    d = np.where(np.arange(len(s)) % 2, main.left + 0.9, main.right - 0.9)
    pose = main.track.world(s, d)
    kept = layout.clear(pose.x, pose.y, 0.6)
    return _posts(main, s[kept], d[kept], _delineator())


@lru_cache
def _delineator() -> Mesh:
    shape = Shape().box((-0.04, 0.04), (-0.06, 0.06), (0.0, 1.0), Material.MATT, (0.75, 0.75, 0.74))
    corners = [[(x, -0.062, 0.7), (x, 0.062, 0.7), (x, 0.062, 0.88), (x, -0.062, 0.88)] for x in (-0.042, 0.042)]
    return shape.quads(corners, Material.MATT, (0.03, 0.03, 0.03)).mesh()


def _fences(layout: Layout, rng: np.random.Generator) -> list[Mesh]:
    """Timber fences along parts of a country road."""
    main, parts = layout.main, []
    post = Shape().box((-0.06, 0.06), (-0.06, 0.06), (0.0, 1.15), Material.WOOD, TIMBER).mesh()
    for side, edge in ((-1, main.right), (1, main.left)):
        for begin, end in layout.blocks(side):
            begin, end = max(begin + rng.uniform(0, 40), -60.0), min(end - rng.uniform(0, 80), 170.0)
            if end - begin < 20.0 or rng.random() < 0.3:
                continue
            s = main.pieces(begin + 4.0, end - 8.0, 6.0)
            d = np.full(len(s), edge + side * 4.6)
            for low in (0.4, 0.85):
                parts.append(_ribbon(main, s, [(0.0, low), (0.0, low + 0.14)], d, Material.MATT, np.array(TIMBER)))
            parts.append(_posts(main, s, d, post))
    return parts


def _utility_poles(layout: Layout, rng: np.random.Generator) -> list[Mesh]:
    main = layout.main
    side = -1 if rng.random() < 0.5 else 1
    s = np.arange(main.begin + rng.uniform(10, 40), main.end - 20.0, 42.0)
    d = np.full(len(s), (main.left if side > 0 else main.right) + side * 5.6)
    pose = main.track.world(s, d)
    kept = layout.clear(pose.x, pose.y, 4.0)
    pole = Shape().cylinder((0, 0, 0), (0, 0, 8.5), 0.13, Material.BARK, TIMBER, end_radius=0.09, sides=6)
    pole.box((-0.06, 0.06), (-1.0, 1.0), (7.7, 7.85), Material.MATT, TIMBER, bottom=True)
    return [_posts(main, s[kept], d[kept], pole.mesh())]


def _bins(layout: Layout, rng: np.random.Generator) -> Mesh:
    main = layout.main
    s = np.arange(-40.0, 120.0, 40.0) + rng.uniform(0, 25, 4)
    d = np.where(rng.random(4) < 0.5, main.left + 0.75, main.right - 0.75)
    pose = main.track.world(s, d)
    kept = layout.clear(pose.x, pose.y, 0.5)
    return _posts(main, s[kept], d[kept], _bin())


@lru_cache
def _bin() -> Mesh:
    green = (0.04, 0.12, 0.06)
    shape = Shape().cylinder((0, 0, 0.1), (0, 0, 0.85), 0.2, Material.MATT, green, end_radius=0.25, sides=8)
    return shape.cylinder((0, 0, 0.85), (0, 0, 0.98), 0.27, Material.MATT, DARK_STEEL, end_radius=0.1, sides=8).mesh()


def _billboards(layout: Layout, rng: np.random.Generator) -> list[Mesh]:
    """A billboard beside a highway; at a wall's foot in half of all towns."""
    main, town = layout.main, layout.scene.road.pavement > 0
    if rng.random() < 0.5:
        return []
    side = -1 if rng.random() < 0.7 else 1
    edge = main.left if side > 0 else main.right
    pose = main.track.world(rng.uniform(40, 110, 1), [edge + side * (main.pavement - 0.3 if town else 9.0)], np.pi)
    if not layout.clear(pose.x, pose.y, 1.5 if town else 6.0).all():
        return []
    scale = 0.45 if town else 1.0
    return [copies(_billboard(), np.stack([pose.x, pose.y, 0 * pose.x], axis=1), pose.yaw + side * 0.25, scale)]


@lru_cache
def _billboard() -> Mesh:
    """A board that looks forward."""
    shape = Shape()
    for y in (-2.0, 2.0):
        shape.box((-0.12, 0.0), (y - 0.1, y + 0.1), (0.0, 5.4), Material.MATT, DARK_STEEL)
    shape.box((-0.1, 0.0), (-3.1, 3.1), (2.3, 5.5), Material.MATT, STEEL)
    board = [(0.03, -3.0, 2.4), (0.03, 3.0, 2.4), (0.03, 3.0, 5.4), (0.03, -3.0, 5.4)]
    return shape.quads([board], Material.TEXTURE, (1.0, 1.0, 1.0), uv("billboard")).mesh()
