"""What the six cameras make of triangles: draw, shade, develop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivedistill.records import CAMERAS
from drivedistill.world.pictures.finish import develop, glow
from drivedistill.world.pictures.look import Look
from drivedistill.world.pictures.raster import PAINT, SHADOW, SOLID, Frame, Grid, clear, draw, frame, identify
from drivedistill.world.pictures.shade import shade
from drivedistill.world.pictures.triangles import Single, Triangles
from drivedistill.world.rig import Camera, camera
from drivedistill.world.track import Floats
from drivedistill.world.views import Views

ANYWHERE = (0.0, 0.0, 1.0)
"""A sun for drawing without shadows."""


@dataclass(frozen=True)
class Model:
    """Everything at one moment: the ground first, then what stands on it, then what may move."""

    triangles: Triangles
    """There may be rows behind the last that is used."""
    spheres: Single
    """float[blocks, 4]: bounding spheres, from `triangles.bound`"""
    ground: int
    """Rows of the ground; what stands begins here."""
    actors: int
    """Row where actors begin."""
    end: int
    """Row behind the last one."""
    lamps: Floats
    """float[n, 7]: x, y, z, red, green, blue, strength"""
    glows: Floats
    """float[n, 10]: sprites of `finish.glow`"""
    atlas: NDArray[np.uint8]
    """uint8[h, w, 4]"""


def snapshot(
    model: Model, ego: Floats, look: Look, width: int, height: int, *, smooth: int = 2, seed: int = 0
) -> Views:
    """Pictures and instance masks of the six cameras.

    Args:
        model: What there is.
        ego: x, y, yaw of the vehicle that carries the cameras.
        look: Weather and light.
        width: Of the pictures, pixels.
        height: Of the pictures, pixels.
        smooth: Samples per pixel along each axis. An instance mask shows the middle sample of each pixel.
        seed: Of noise, rain and snow flakes in the pictures.
    """
    grid, buffers = Grid(smooth), frame(height * smooth, width * smooth)
    light: Single = np.empty((height, width, 3), np.float32)
    heading = np.array([ego[0], ego[1], np.cos(ego[2]), np.sin(ego[2])])
    near_lamps = np.empty_like(model.lamps)
    pictures: dict[str, NDArray[np.uint8]] = {}
    instances: dict[str, NDArray[np.int32]] = {}
    for number, name in enumerate(CAMERAS):
        view = camera(name, ego, width, height)
        _draw(model, view, grid, buffers)
        shadowing = model.ground if look.sun_shadows else model.actors
        _cast(model, (shadowing, model.end), view, grid, look, buffers)
        shade(buffers, view, smooth, model.triangles, look, model.lamps, heading, model.atlas, near_lamps, light)
        glow(model.glows, view, smooth, model.ground, look, buffers, light)
        pictures[name] = np.empty((height, width, 3), np.uint8)
        develop(light, look, seed + number * 101, np.zeros((height, width), np.float32), pictures[name])
        instances[name] = _instances(model, buffers, smooth, smooth // 2)
    return Views(pictures, instances)


def masks(model: Model, ego: Floats, width: int, height: int, *, smooth: int = 2) -> Views:
    """The instance masks of a snapshot of this size, without the pictures."""
    grid, buffers = Grid(smooth, smooth, smooth // 2), frame(height, width)
    instances = {}
    for name in CAMERAS:
        _draw(model, camera(name, ego, width, height), grid, buffers)
        instances[name] = _instances(model, buffers, 1, 0)
    return Views({}, instances)


def _draw(model: Model, view: Camera, grid: Grid, buffers: Frame) -> None:
    clear(buffers)
    triangles, spheres, ground = model.triangles, model.spheres, model.ground
    draw(triangles, spheres, (0, ground), view, grid, PAINT, ANYWHERE, ground, model.atlas, buffers)
    draw(triangles, spheres, (ground, model.end), view, grid, SOLID, ANYWHERE, ground, model.atlas, buffers)


def _cast(model: Model, rows: tuple[int, int], view: Camera, grid: Grid, look: Look, buffers: Frame) -> None:
    draw(model.triangles, model.spheres, rows, view, grid, SHADOW, look.sun, model.ground, model.atlas, buffers)


def _instances(model: Model, buffers: Frame, stride: int, first: int) -> NDArray[np.int32]:
    rows, columns = buffers.triangle.shape
    mask = np.empty((rows // stride, columns // stride), np.int32)
    identify(buffers, stride, first, model.triangles.ids, mask)
    return mask
