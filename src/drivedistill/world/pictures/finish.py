"""From light to a picture: the glow around lamps, exposure, rain and snow in the air, the sensor's noise."""

from __future__ import annotations

from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray

from drivedistill.world.kernel import kernel
from drivedistill.world.pictures.look import Look
from drivedistill.world.pictures.noise import hashed
from drivedistill.world.pictures.raster import Frame
from drivedistill.world.pictures.sky import clarity
from drivedistill.world.pictures.triangles import Single
from drivedistill.world.rig import Camera
from drivedistill.world.track import Floats

STREAKS, FLAKES = 300, 420
"""Rain streaks and snow flakes in a picture of any size."""
KNEE = 0.6
"""Brighter light is compressed, toward 1."""


@kernel
def glow(sprites: Floats, view: Camera, smooth: int, ground: int, look: Look, buffers: Frame, picture: Single) -> None:
    """Add the glow of lamps that are in sight, and their streaks on a wet road.

    Args:
        sprites: float[n, 10]: x, y, z, red, green, blue, radius in metres, strength, and the direction (x, y) in which
            the lamp shines; (0, 0) for all.
        view: The camera.
        smooth: Samples per pixel along each axis.
        ground: Number of ground triangles; these carry the streaks.
        look: Weather and light.
        buffers: What the samples show.
        picture: float[height, width, 3], changed.
    """
    for sprite in range(sprites.shape[0]):
        x, y = sprites[sprite, 0] - view.position[0], sprites[sprite, 1] - view.position[1]
        toward = _toward(x, y, sprites[sprite, 8], sprites[sprite, 9])
        if toward <= 0.05:
            continue
        right, down, ahead = _projected(view, x, y, sprites[sprite, 2] - view.position[2])
        if ahead < 0.6 or not 0.0 <= right < view.width:
            continue
        radius = sprites[sprite, 6] * view.fx / ahead + 0.006 * view.width
        strength = sprites[sprite, 7] * toward * clarity(look.fog, ahead)
        squeeze = view.fy / view.fx
        if look.wet > 0.0 and ahead > 2.0:
            mirrored = _projected(view, x, y, -sprites[sprite, 2] - view.position[2])[1]
            _streak(sprites, sprite, right, mirrored, radius, strength, view, smooth, ground, buffers, picture)
        if not 0.0 <= down < view.height:
            continue
        if buffers.nearness[int(down * smooth), int(right * smooth)] > 1.0 / max(ahead - 0.5, 0.5):
            continue
        reach = 3.0 * radius
        for line in range(max(0, int(down - reach * squeeze)), min(view.height, int(down + reach * squeeze) + 1)):
            for column in range(max(0, int(right - reach)), min(view.width, int(right + reach) + 1)):
                dx, dy = (column + 0.5 - right) / radius, (line + 0.5 - down) / (radius * squeeze)
                square = dx * dx + dy * dy
                if square < 9.0:
                    light = strength / (1.0 + 3.0 * square) * (1.0 - square / 9.0)
                    for channel in range(3):
                        picture[line, column, channel] += light * sprites[sprite, 3 + channel]


@kernel
def _toward(x: float, y: float, shines_x: float, shines_y: float) -> float:
    """How directly a lamp at (x, y) from the camera shines into it, from 0 to 1."""
    if shines_x == 0.0 and shines_y == 0.0:
        return 1.0
    return -(x * shines_x + y * shines_y) / (sqrt(x * x + y * y) + 1e-9)


@kernel
def _projected(view: Camera, x: float, y: float, z: float) -> tuple[float, float, float]:
    axes = view.axes
    ahead = axes[2, 0] * x + axes[2, 1] * y + axes[2, 2] * z
    safe = max(ahead, 0.05)
    right = (axes[0, 0] * x + axes[0, 1] * y + axes[0, 2] * z) / safe * view.fx + 0.5 * view.width
    down = (axes[1, 0] * x + axes[1, 1] * y + axes[1, 2] * z) / safe * view.fy + 0.5 * view.height
    return right, down, ahead


@kernel
def _streak(
    sprites: Floats,
    sprite: int,
    right: float,
    mirrored: float,
    radius: float,
    strength: float,
    view: Camera,
    smooth: int,
    ground: int,
    buffers: Frame,
    picture: Single,
) -> None:
    """A lamp's reflection on wet ground, drawn out vertically around the line `mirrored` by the ripples."""
    length = 0.14 * view.height
    width = 0.8 * radius
    for line in range(max(0, int(mirrored - 0.4 * length)), min(view.height, int(mirrored + length) + 1)):
        along = (line + 0.5 - mirrored) / length
        along = 1.0 - (along if along > 0.0 else -2.5 * along)
        if along <= 0.0:
            continue
        for column in range(max(0, int(right - 2 * width)), min(view.width, int(right + 2 * width) + 1)):
            aside = (column + 0.5 - right) / width
            seen = buffers.triangle[line * smooth + smooth // 2, column * smooth + smooth // 2]
            if aside * aside < 4.0 and 0 <= seen < ground:
                light = 0.35 * strength * along * along * (1.0 - 0.25 * aside * aside) / (1.0 + 2.0 * aside * aside)
                for channel in range(3):
                    picture[line, column, channel] += light * sprites[sprite, 3 + channel]


@kernel
def develop(light: Single, look: Look, seed: int, air: Single, picture: NDArray[np.uint8]) -> None:
    """Turn light float[h, w, 3] into a picture uint8[h, w, 3].

    `seed` chooses streaks, flakes and noise; `air` float[h, w], zero, is room for what falls.
    """
    height, width = light.shape[0], light.shape[1]
    if look.rain > 0.0:
        _rain(air, seed)
    if look.flakes > 0.0:
        _snowfall(air, seed)
    # What falls is as bright as the sky behind it.
    veil = 0.35 + 0.47 * (1.0 - look.night) if look.night < 1.0 else 0.40
    for line in range(height):
        for column in range(width):
            white = min(air[line, column], 0.7)
            noise = (hashed(column, line, seed + 5) + hashed(column, line, seed + 6) - 1.0) * look.grain
            for channel in range(3):
                value = light[line, column, channel] * look.exposure
                if value > KNEE:
                    value = KNEE + (1.0 - KNEE) * (value - KNEE) / (value - KNEE + 1.0 - KNEE)
                level = sqrt(max(value, 0.0))
                level += (veil - level) * white if veil > level else 0.0
                level += noise * (1.3 if channel == 2 else 1.0)
                picture[line, column, channel] = np.uint8(min(max(level * 255.0 + 0.5, 0.0), 255.0))


@kernel
def _rain(air: Single, seed: int) -> None:
    height, width = air.shape
    thick = max(1, ceil(width / 700.0))
    strength = 0.09 + 0.17 * min(1.0, width / 400.0)
    for streak in range(STREAKS):
        x, y = hashed(streak, 1, seed) * width, (hashed(streak, 2, seed) * 1.2 - 0.2) * height
        length, slant = (0.03 + 0.08 * hashed(streak, 3, seed)) * height, 0.12 + 0.1 * hashed(streak, 4, seed)
        for step in range(int(length) + 1):
            line, column = int(y + step), int(x + slant * step)
            for across in range(thick):
                if 0 <= line < height and 0 <= column + across < width:
                    air[line, column + across] += strength


@kernel
def _snowfall(air: Single, seed: int) -> None:
    height, width = air.shape
    for flake in range(FLAKES):
        x, y = hashed(flake, 1, seed) * width, hashed(flake, 2, seed) * height
        size = hashed(flake, 3, seed) * hashed(flake, 5, seed)
        radius = max(0.6, (0.002 + 0.006 * size) * width)
        strength = 0.7 * min(1.0, 0.3 + (0.002 + 0.006 * size) * width)
        for line in range(max(0, int(y - radius)), min(height, int(y + radius) + 2)):
            for column in range(max(0, int(x - radius)), min(width, int(x + radius) + 2)):
                dx, dy = (column - x) / radius, (line - y) / radius
                if dx * dx + dy * dy < 1.0:
                    air[line, column] += strength * (1.0 - dx * dx - dy * dy)
