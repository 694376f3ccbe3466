"""Randomness without a state, for kernels: a value that depends on whole numbers only, and smooth noise made of it."""

from __future__ import annotations

from math import floor

import numpy as np

from drivedistill.world.kernel import kernel

_X, _Y, _SEED, _MIX = np.uint32(374761393), np.uint32(668265263), np.uint32(2246822519), np.uint32(1274126177)


@kernel
def _mixed(value: np.uint32) -> float:
    value = np.uint32((value ^ (value >> np.uint32(13))) * _MIX)
    value = np.uint32(value ^ (value >> np.uint32(16)))
    return float(value & np.uint32(0xFFFF)) / 65535.0


@kernel
def hashed(x: int, y: int, seed: int) -> float:
    """A number in [0, 1] that looks random."""
    return _mixed(np.uint32(np.uint32(x) * _X + np.uint32(y) * _Y + np.uint32(seed) * _SEED))


@kernel
def smooth_noise(x: float, y: float, seed: int) -> float:
    """Noise in [0, 1] with bumps of about the size 1."""
    left, low = floor(x), floor(y)
    u, v = x - left, y - low
    u, v = u * u * (3.0 - 2.0 * u), v * v * (3.0 - 2.0 * v)
    corner = np.uint32(np.uint32(int(left)) * _X + np.uint32(int(low)) * _Y + np.uint32(seed) * _SEED)
    near, far = _mixed(corner), _mixed(np.uint32(corner + _X))
    above, across = _mixed(np.uint32(corner + _Y)), _mixed(np.uint32(corner + _X + _Y))
    lower, upper = near + (far - near) * u, above + (across - above) * u
    return lower + (upper - lower) * v


@kernel
def clamped(value: float, low: float, high: float) -> float:
    """The value, or the limit it lies beyond."""
    return min(max(value, low), high)
