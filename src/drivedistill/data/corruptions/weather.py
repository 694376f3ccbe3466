"""Brightness, low light, snow, fog and rain: the whole picture, every view."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from drivedistill.data.corruptions.pixels import Pixels, brightest, picture_of, pixels_of, scale, smear, trail
from drivedistill.data.corruptions.shot import Shot

BRIGHTNESS = (0.1, 0.2, 0.3, 0.4, 0.5)
"""What is added to HSV's value."""

LOW_LIGHT = ((0.5, 250, 0.012), (0.4, 120, 0.018), (0.3, 50, 0.026), (0.2, 30, 0.038), (0.1, 20, 0.05))
"""Brightest value, photons of a white pixel, sigma of the Gaussian noise. The fifth is ours: the original fails there."""

SNOW = (
    (0.1, 0.3, 3.0, 0.5, 10, 4, 0.8),
    (0.2, 0.3, 2.0, 0.5, 12, 4, 0.7),
    (0.55, 0.3, 4.0, 0.9, 12, 8, 0.7),
    (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
    (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
)
"""Mean and sigma of the flakes' noise, their size in pixels, threshold, radius and sigma of their fall, weight of the
picture against its whitened version."""

FOG = ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))
"""Density, and how fast its structure fades from large to small."""

RAIN = ((770, 10, 0.8), (770, 30, 0.8), (770, 60, 0.7), (500, 60, 0.6), (400, 80, 0.5))
"""Pixels of the picture per streak, length of a streak, contrast that remains."""

STREAK = 220 / 255


def brightness(image: Image.Image, severity: int, shot: Shot) -> Image.Image:
    """`imagecorruptions`: value of HSV + 0.4 (severity 4), clipped; hue and saturation stay."""
    pixels = pixels_of(image)
    value = brightest(pixels)
    raised = np.minimum(value + np.float32(BRIGHTNESS[severity - 1]), 1)
    # With hue and saturation fixed the channels keep their ratios; black has neither and becomes gray.
    return picture_of(np.where(value > 0, pixels * (raised / np.maximum(value, 1e-6)), raised))


def low_light(image: Image.Image, severity: int, shot: Shot) -> Image.Image:
    """Stretched, squared (gamma 2) and scaled to 0 .. 0.2 (severity 4), then Poisson and Gaussian noise.

    A pixel of a narrower picture stands for several of nuScenes': it has the photons of all, and the mean of their noise.
    """
    limit, photons, sigma = LOW_LIGHT[severity - 1]
    grain = min(1.0, scale(image))
    pixels = pixels_of(image)
    low, high = pixels.min(), pixels.max()
    if low == high:
        low, high = np.float32(0), np.float32(1)  # one colour only: nothing to stretch
    dark: Pixels = ((pixels - low) / (high - low)) ** 2 * np.float32(limit)
    random = shot.random()
    white = np.float32(photons / grain**2)
    dark = np.minimum(np.asarray(random.poisson(dark * white), np.float32) / white, 1)
    return picture_of(dark + random.standard_normal(dark.shape, np.float32) * np.float32(sigma * grain))


def snow(image: Image.Image, severity: int, shot: Shot) -> Image.Image:
    """`imagecorruptions`: a whitened picture, falling flakes, and the flakes once more turned by 180 degrees.

    Flakes have at least one pixel.
    """
    kept = SNOW[severity - 1][-1]
    layer = _flakes(image, severity, shot.random())[..., None]
    pixels = pixels_of(image)
    gray = pixels @ np.array([[0.299], [0.587], [0.114]], np.float32)
    white = np.maximum(pixels, gray * np.float32(1.5) + np.float32(0.5))
    return picture_of(np.float32(kept) * pixels + np.float32(1 - kept) * white + layer + layer[::-1, ::-1])


def _flakes(image: Image.Image, severity: int, random: np.random.Generator) -> NDArray[np.float32]:
    """How much a flake covers, 0 to 1: [height, width].

    Small flakes are drawn on a larger layer, three pixels each, and shrunk: single pixels of noise would be far denser.
    """
    mean, sigma, flake, threshold, radius, fall, _ = SNOW[severity - 1]
    size = max(scale(image), 1 / flake)
    larger = max(1, math.ceil(3 / (flake * size)))
    angle = random.uniform(-135, -45)
    grid = (math.ceil(image.height / (flake * size)), math.ceil(image.width / (flake * size)))
    noise = Image.fromarray((random.standard_normal(grid) * sigma + mean).astype(np.float32))
    layer = np.asarray(noise.resize((image.width * larger, image.height * larger), Image.Resampling.BILINEAR))
    layer = np.where(layer < threshold, np.float32(0), np.clip(layer, 0, 1))
    layer = smear(layer[..., None], trail(radius, fall, angle, size * larger))[..., 0]
    return np.asarray(Image.fromarray(layer).reduce(larger))


def fog(image: Image.Image, severity: int, shot: Shot) -> Image.Image:
    """`imagecorruptions`: a cloud is added and the sum scaled back to the picture's brightest value."""
    density, decay = FOG[severity - 1]
    pixels = pixels_of(image)
    side = 1 << (max(image.size) - 1).bit_length()
    cloud = _plasma(max(side, 2), decay, shot.random())[: image.height, : image.width, None]
    most = pixels.max()
    return picture_of((pixels + np.float32(density) * cloud) * (most / (most + np.float32(density))))


def _plasma(side: int, decay: float, random: np.random.Generator) -> NDArray[np.float32]:
    """Heights from 0 to 1 by midpoint displacement (diamond-square), periodic; `side` is a power of two."""
    heights: NDArray[np.float32] = np.zeros((side, side), np.float32)
    reach = 1.0  # only ratios matter: the result is stretched to 0 .. 1

    def displaced(neighbours: NDArray[np.float32]) -> NDArray[np.float32]:
        return neighbours / 4 + (2 * random.random(neighbours.shape, np.float32) - 1) * np.float32(reach)

    step = side
    while step >= 2:
        half = step // 2
        corners = heights[::step, ::step]
        below = np.roll(corners, -1, axis=0)
        beside = np.roll(corners, -1, axis=1)
        centres = displaced(corners + below + beside + np.roll(below, -1, axis=1))
        heights[half::step, half::step] = centres
        heights[::step, half::step] = displaced(corners + beside + centres + np.roll(centres, 1, axis=0))
        heights[half::step, ::step] = displaced(corners + below + centres + np.roll(centres, 1, axis=1))
        reach /= decay**2  # the original displaces by wibble * U(-wibble, wibble)
        step = half
    heights -= heights.min()
    return heights / heights.max()


def rain(image: Image.Image, severity: int, shot: Shot) -> Image.Image:
    """Bright streaks, blurred where they are, and less contrast about each channel's mean.

    Streaks are as near to vertical as the original's, which draws a slant and does not use it. They are at least a pixel
    wide, and as many as cover the same part of the picture at every size.
    """
    area, length, contrast = RAIN[severity - 1]
    pixels = pixels_of(image)
    streaks = _streaks(image, area, length, shot.random())[..., None] * np.float32(STREAK)
    bright = pixels + streaks * (1 - pixels) * np.float32(1 - np.asarray(image).mean() / 255)
    soft = pixels_of(picture_of(bright).filter(ImageFilter.BoxBlur(scale(image))))
    wet = soft * streaks + pixels * (1 - streaks)
    means = wet.mean(axis=(0, 1), keepdims=True, dtype=np.float64).astype(np.float32)
    return picture_of((wet - means) * np.float32(contrast) + means)


def _streaks(image: Image.Image, area: int, length: int, random: np.random.Generator) -> NDArray[np.float32]:
    """1 where a streak is, 0 elsewhere: [height, width]."""
    size = scale(image)
    wide = max(1, round(size))
    long = min(max(2, round(length * size)), image.height)
    count = round(image.width * image.height * length / (area * wide * max(1.0, length * size)))
    left = random.integers(0, image.width, count)[:, None, None]
    top = random.integers(0, image.height - long + 1, count)[:, None, None]
    along, across = np.arange(long)[:, None], np.arange(wide)
    columns = np.maximum(left - np.rint(along / long * size).astype(int) + across, 0)
    mask = np.zeros((image.height, image.width), np.float32)
    mask[top + along, np.minimum(columns, image.width - 1)] = 1
    return mask
