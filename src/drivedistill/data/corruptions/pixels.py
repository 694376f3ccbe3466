"""What several corruptions do to pixels."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Pixels: TypeAlias = NDArray[np.float32]
"""[height, width, 3], 0 to 1"""
Trail: TypeAlias = dict[tuple[int, int], float]
"""(rows down, columns to the right) -> weight; the weights sum to 1"""

PUBLISHED_WIDTH = 1600
"""Width of the pictures that the published lengths are meant for, nuScenes'."""

BAND = 8
"""Rows worked on at once, so that they stay in the processor's cache."""


def scale(image: Image.Image) -> float:
    """Pixels of this picture per published pixel."""
    return image.width / PUBLISHED_WIDTH


def pixels_of(image: Image.Image) -> Pixels:
    """An RGB picture as numbers from 0 to 1, a copy."""
    return np.asarray(image, np.float32) / np.float32(255)


def picture_of(pixels: Pixels) -> Image.Image:
    """The reverse of `pixels_of`: clipped, rounded to the nearest level."""
    return Image.fromarray(np.rint(np.clip(pixels, 0, 1) * np.float32(255)).astype(np.uint8))


def brightest(pixels: Pixels) -> Pixels:
    """HSV's value: [height, width, 1]."""
    red, green, blue = np.moveaxis(pixels, 2, 0)
    return np.maximum(np.maximum(red, green), blue)[..., None]


def blurred(image: Image.Image, kernel: int) -> Image.Image:
    """Gaussian blur with the sigma that OpenCV takes for a kernel of so many pixels, scaled to the picture's width."""
    sigma = 0.3 * ((kernel - 1) / 2 - 1) + 0.8
    return image.filter(ImageFilter.GaussianBlur(sigma * scale(image)))


def trail(radius: int, sigma: float, degrees: float, size: float) -> Trail:
    """The trace of a point that moves: a one-sided Gaussian along a line.

    Args:
        radius: The line has 2 radius + 1 steps.
        sigma: In steps.
        degrees: 0 is to the right, 90 down.
        size: Pixels per step.
    """
    parts = max(1, math.ceil(size))  # long steps are divided, so that the trace has no gaps
    steps = np.arange((2 * radius + 1) * parts) / parts
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    angle = math.radians(degrees)
    down = np.ceil(steps * size * math.sin(angle) - 0.5).astype(int)
    right = np.ceil(steps * size * math.cos(angle) - 0.5).astype(int)
    found: Trail = {}
    for row, column, weight in zip(down.tolist(), right.tolist(), weights.tolist(), strict=True):
        found[row, column] = found.get((row, column), 0.0) + weight
    return found


def smear(pixels: Pixels, traces: Trail) -> Pixels:
    """Every pixel becomes the weighted mean of those along the trail; beyond the border the border's pixel counts.

    Args:
        pixels: [height, width, channels]
        traces: See `trail`.
    """
    height, width, _ = pixels.shape
    margin = max(max(abs(row), abs(column)) for row, column in traces)
    wide = np.pad(pixels, ((margin, margin), (margin, margin), (0, 0)), "edge")
    result = np.zeros_like(pixels)
    part = np.empty_like(pixels[:BAND])
    for top in range(0, height, BAND):
        rows = min(BAND, height - top)
        for (down, right), weight in traces.items():
            shifted = wide[margin + top + down :, margin + right :][:rows, :width]
            np.multiply(shifted, np.float32(weight), out=part[:rows])
            result[top : top + rows] += part[:rows]
    return result
