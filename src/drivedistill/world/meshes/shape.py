"""Triangles: the mesh that everything is made of, and the builder that makes one from boxes, cylinders and balls.

Object frame: x forward, y left, z up, metres; the origin lies on the ground in the middle of the footprint.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivedistill.world.track import Floats


@dataclass(frozen=True)
class Mesh:
    """n triangles."""

    points: Floats
    """float[n, 3, 3]: corners in metres"""
    uv: Floats
    """float[n, 3, 2]: texture coordinates (atlas, or metres on facades)"""
    flags: NDArray[np.int64]
    """int[n]: `materials.Draw`"""
    materials: NDArray[np.int64]
    """int[n]: `materials.Material`"""
    colours: Floats
    """float[n, 3]: linear reflectance, or radiance of a lamp"""

    def __len__(self) -> int:
        return len(self.points)
