"""The still surroundings of a scene: ground with markings, buildings, plants, street furniture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivedistill.world.materials import Material
from drivedistill.world.meshes.many import join
from drivedistill.world.meshes.shape import Mesh
from drivedistill.world.scene import Scene
from drivedistill.world.surroundings.buildings import Lots, buildings, lots
from drivedistill.world.surroundings.furniture import furniture, street_lamps
from drivedistill.world.surroundings.greenery import greenery
from drivedistill.world.surroundings.ground import Painter, lay_ground
from drivedistill.world.surroundings.layout import Layout, layout
from drivedistill.world.surroundings.markings import lay_markings
from drivedistill.world.surroundings.signals import signals
from drivedistill.world.track import Floats

_STREAM = 4107
"""Keeps these draws apart from others that begin with the scene's seed."""


@dataclass(frozen=True)
class Surroundings:
    """Everything that neither moves nor changes, in world coordinates."""

    ground: Mesh
    """Painted in order, each triangle over those before it."""
    ground_seeds: NDArray[np.int64]
    """int[n]: per triangle of the ground"""
    standing: Mesh
    standing_seeds: NDArray[np.int64]
    """int[n]: per triangle; what the windows of its building depend on, 0 elsewhere"""
    standing_ids: NDArray[np.int32]
    """int[n]: ids of signs (their plates) and of traffic lights (their housings), 0 elsewhere"""
    lamps: Floats
    """float[k, 7]: x, y, z, red, green, blue, strength of lit street lamps"""
    glows: Floats
    """float[m, 10]: x, y, z, red, green, blue, radius, opacity, and the direction x, y in which it shines (0, 0: all)"""


def surroundings(scene: Scene) -> Surroundings:
    """What stands and lies around the drive; depends on the scene only."""
    rng = np.random.default_rng([scene.seed, _STREAM])
    plan = layout(scene)
    places = lots(plan, rng)
    ground = _ground(plan, places, rng)
    houses, facades = buildings(scene.road.type, places, rng)
    lamp_posts, lamps, glows = street_lamps(plan)
    signs, ids = signals(plan)
    standing = join([signs, houses, greenery(plan, places, rng), lamp_posts, furniture(plan, rng)])
    return Surroundings(
        ground,
        np.zeros(len(ground), np.int64),
        standing,
        _padded(facades, len(signs), len(standing)),
        _padded(ids, 0, len(standing)),
        lamps,
        glows,
    )


def _ground(plan: Layout, places: Lots, rng: np.random.Generator) -> Mesh:
    painter, main = Painter(), plan.main
    colour, material = lay_ground(painter, plan, rng)
    if plan.scene.road.type == "residential":
        for side, edge in ((-1, main.right), (1, main.left)):
            mine = places.on_main & (np.sign(places.front) == side)
            s, front = places.s[mine, 0], places.front[mine]
            painter.strip(main, (s + 0.6, s + 3.4), (edge + side * 0.2, front), Material.PAVING, (0.34, 0.33, 0.32))
    lay_markings(painter, plan)
    middle = main.track.world((main.begin + main.end) / 2, 0.0)
    return painter.mesh(colour, material, (float(middle.x), float(middle.y)))


def _padded(values: NDArray[np.int_], before: int, count: int) -> NDArray[np.int_]:
    """The values in an array of `count`, `before` zeros ahead of them."""
    padded = np.zeros(count, values.dtype)
    padded[before : before + len(values)] = values
    return padded
