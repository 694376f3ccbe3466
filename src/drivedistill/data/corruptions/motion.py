"""Motion blur and zoom blur: the whole picture, every view."""

from __future__ import annotations

import numpy as np
from PIL import Image

from drivedistill.data.corruptions.pixels import picture_of, pixels_of, scale, smear, trail
from drivedistill.data.corruptions.shot import Shot

MOTION = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))
"""Radius and sigma in pixels."""

ZOOM = ((12, 0.01), (16, 0.01), (11, 0.02), (13, 0.02), (11, 0.03))
"""How many zooms, and the step between them; the first is 1. `np.arange(1, 1.11, 0.01)` has 12, since it rounds."""


def motion_blur(image: Image.Image, severity: int, shot: Shot) -> Image.Image:
    """`imagecorruptions`: a one-sided Gaussian along a line within 45 degrees of the horizontal."""
    radius, sigma = MOTION[severity - 1]
    angle = shot.random().uniform(-45, 45)
    return picture_of(smear(pixels_of(image), trail(radius, sigma, angle, scale(image))))


def zoom_blur(image: Image.Image, severity: int, shot: Shot) -> Image.Image:
    """`imagecorruptions`: the mean of the picture and its zooms about the centre, 1 to 1.24 (severity 4)."""
    number, step = ZOOM[severity - 1]
    width, height = image.size
    total = 2 * np.asarray(image, np.uint32)  # the picture itself, and its zoom by 1
    for index in range(1, number):
        margin = (1 - 1 / (1 + index * step)) / 2
        box = (width * margin, height * margin, width * (1 - margin), height * (1 - margin))
        total += np.asarray(image.resize(image.size, Image.Resampling.BILINEAR, box))
    return Image.fromarray(((total + (number + 1) // 2) // (number + 1)).astype(np.uint8))
