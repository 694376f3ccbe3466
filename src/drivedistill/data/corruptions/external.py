"""Something on the lens: water splash, obstacle. The front view always, and some of the others, drawn for each frame."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from drivedistill.data.corruptions.pixels import blurred, picture_of, pixels_of, scale
from drivedistill.data.corruptions.shot import Shot

SPLASH = ((10, 7, 5, 15), (20, 15, 10, 20), (30, 21, 15, 25), (40, 31, 20, 30), (50, 51, 25, 35))
"""Number of drops, width of the blur's kernel, smallest and largest radius of a drop, in pixels."""

OBSTACLE = ((11, 0.1, 0.3), (21, 0.2, 0.25), (31, 0.3, 0.2), (51, 0.4, 0.15), (71, 0.5, 0.1))
"""Width of the blur's kernel in pixels; largest half axis and sigma of the centre, in widths and heights."""

DROP = 0.2
"""How much white a drop adds."""


def water_splash(image: Image.Image, severity: int, shot: Shot) -> Image.Image:
    """White translucent discs, then a blur of the whole picture."""
    if not _hit(shot):
        return image.copy()
    number, kernel, smallest, largest = SPLASH[severity - 1]
    random = shot.random()
    radii = (smallest + random.random(number) * (largest - smallest)) * scale(image)
    drops = np.zeros((image.height, image.width), np.float32)
    for radius, across, down in zip(radii, random.random(number), random.random(number), strict=True):
        x, y = (_inside(place, radius, side) for place, side in zip((across, down), image.size, strict=True))
        rows = slice(max(0, math.floor(y - radius - 1)), math.ceil(y + radius + 1))
        columns = slice(max(0, math.floor(x - radius - 1)), math.ceil(x + radius + 1))
        part = drops[rows, columns]
        distance = np.hypot(
            (np.arange(part.shape[0]) + rows.start + 0.5 - y)[:, None],
            np.arange(part.shape[1]) + columns.start + 0.5 - x,
        )
        part += np.clip(radius - distance + 0.5, 0, 1).astype(
            np.float32
        )  # soft edges: small drops are not cut to pixels
    # Drop upon drop: each leaves 0.8 of what is still to white.
    left = np.exp(np.float32(math.log(1 - DROP)) * drops)[..., None]
    return blurred(picture_of(1 - (1 - pixels_of(image)) * left), kernel)


def _inside(share: float, radius: float, side: int) -> float:
    """A place along a side for a disc that lies within; in the middle if it is too large."""
    return radius + share * (side - 2 * radius) if side > 2 * radius else side / 2


def lens_obstacle(image: Image.Image, severity: int, shot: Shot) -> Image.Image:
    """A strong blur within one ellipse."""
    if not _hit(shot):
        return image.copy()
    kernel, largest, sigma = OBSTACLE[severity - 1]
    random = shot.random()
    width, height = image.size
    x, y = np.clip(random.normal(0.5, sigma, 2), 0, 1) * (width, height)
    along, across = (0.1 + random.random(2) * (largest - 0.1)) * (width, height)
    angle = random.uniform(0, 2 * math.pi)
    right, down = np.arange(width) + 0.5 - x, (np.arange(height) + 0.5 - y)[:, None]
    turned = (right * math.cos(angle) + down * math.sin(angle)) / along
    aside = (down * math.cos(angle) - right * math.sin(angle)) / across
    mask = Image.fromarray(((turned**2 + aside**2 <= 1) * 255).astype(np.uint8))
    return Image.composite(blurred(image, kernel), image, mask)


def _hit(shot: Shot) -> bool:
    """Whether this view is: the front (or first) one always, of the others one to five, or as many as there are."""
    front, *others = shot.views
    random = shot.random(*shot.place[:3])
    number = int(random.integers(1, 6)) if others else 0
    return shot.place.camera in (front, *random.permutation(others)[:number])
