"""What the renderer gives: six pictures and six instance masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Views:
    """One key frame as the cameras see it; cameras in the order of `records.CAMERAS`."""

    pictures: dict[str, NDArray[np.uint8]]
    """uint8[height, width, 3], RGB"""
    instances: dict[str, NDArray[np.int32]]
    """int32[height, width]: ids of actors, traffic light heads and signs; 0 elsewhere"""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        height, width = next(iter(self.instances.values())).shape
        return width, height
