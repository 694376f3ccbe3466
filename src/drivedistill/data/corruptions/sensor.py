"""Cameras that fail, frames that are lost, colours that are overdone."""

from __future__ import annotations

import numpy as np
from PIL import Image

from drivedistill.data.corruptions.pixels import brightest, picture_of, pixels_of
from drivedistill.data.corruptions.shot import Shot

SATURATE = ((0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (20.0, 0.2))
"""Factor and summand of HSV's saturation. The first two take colour away: not a scale from little to much."""

VIEWS = 6


def camera_crash(image: Image.Image, severity: int, shot: Shot) -> Image.Image:
    """As many cameras as the severity are drawn, with replacement, once for the data set: black in every frame."""
    drawn = shot.random(shot.place.dataset).integers(0, len(shot.rig), 5)[:severity]
    return _black(image, shot.place.camera in [shot.rig[index] for index in drawn])


def frame_lost(image: Image.Image, severity: int, shot: Shot) -> Image.Image:
    """Every view of every frame is black with probability severity / 6."""
    return _black(image, shot.random().random() < severity / VIEWS)


def _black(image: Image.Image, lost: bool) -> Image.Image:
    return Image.new("RGB", image.size) if lost else image.copy()


def saturate(image: Image.Image, severity: int, shot: Shot) -> Image.Image:
    """`imagecorruptions`: saturation of HSV times 20 plus 0.2 (severity 5), clipped; gray has the hue of red."""
    factor, summand = SATURATE[severity - 1]
    pixels = pixels_of(image)
    value = brightest(pixels)
    chroma = value + brightest(-pixels)  # less the darkest
    before = chroma / np.maximum(value, 1e-6)
    after = np.clip(before * np.float32(factor) + np.float32(summand), 0, 1)
    # With hue and value fixed, a channel's distance from the value grows as the saturation does.
    coloured = value - (value - pixels) * (after / np.maximum(before, 1e-6))
    red = value * (1 - after * np.array([0, 1, 1], np.float32))
    return picture_of(np.where(chroma > 0, coloured, red))
