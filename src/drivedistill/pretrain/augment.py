"""Pictures changed a little each time they are shown, so that a tower that sees the same frames many times learns what is in
them and not which frame it is: other exposure and colour, noise, and the camera turned by a few pixels.

Nothing is mirrored: left and right are what questions ask about.
"""

from __future__ import annotations

import torch
from torch import Tensor

EXPOSURE = 0.3
"""Largest change of brightness, as a logarithm."""
COLOUR = 0.1
"""Of a single channel, likewise."""
OFFSET = 0.08
"""Largest shift of all values, as a share of white."""
NOISE = 0.05
"""Largest standard deviation of a pixel, as a share of white."""
TURN = 0.06
"""Farthest that a picture is moved, as a share of its side."""


def changed(pictures: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Change pictures at random.

    Args:
        pictures: `uint8[M, H, W, 3]`
        generator: Decides everything.

    Returns:
        `float[M, H, W, 3]` from 0 to 255, and `float[M, 2]`: how far what was at a place has moved to the right and down, as
        shares of the picture.
    """
    count, height, width = pictures.shape[:3]

    def spread(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator).to(pictures.device) * 2 - 1

    right, down = ((spread() * TURN * side).round().long() for side in (width, height))
    column = (torch.arange(width, device=pictures.device) - right[:, None]).clamp(0, width - 1)
    row = (torch.arange(height, device=pictures.device) - down[:, None]).clamp(0, height - 1)
    moved = pictures[torch.arange(count, device=pictures.device)[:, None, None], row[:, :, None], column[:, None, :]]
    gain = (spread(1, 1, 1) * EXPOSURE + spread(1, 1, 3) * COLOUR).exp()
    noise = torch.randn(moved.shape, generator=generator).to(pictures.device) * (spread(1, 1, 1).abs() * NOISE * 255)
    values = moved.float() * gain + spread(1, 1, 1) * OFFSET * 255 + noise
    return values.clamp(0, 255), torch.stack([right / width, down / height], dim=1)
