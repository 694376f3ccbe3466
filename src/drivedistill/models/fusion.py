"""From the tokens of several views to the image part of the encoder's sequence, and the order of that sequence.

    views float[B, C, P, D_v], view_mask bool[B, C]  ->  tokens float[B, K, D_v], mask bool[B, K]

Legend: B samples, C cameras, P tokens of a view, D_v vision width, K image tokens of a sample, L text tokens,
S encoder positions.

Both fusions take any number of views, so that one-view CODA-LM and six-view DriveLM share a batch; content of absent
views never matters. A sample without any view has no image tokens: a question asked blindly.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from drivedistill.models.pyramid import features_at

TEXT, IMAGE, PADDING = 0, 1, 2
"""Kinds of an encoder position."""


def averaged(views: Tensor, grid: tuple[int, int], pooled: tuple[int, int]) -> Tensor:
    """Every view's grid averaged down to fewer cells: `float[B, C, P, D_v]` to `float[B, C, P', D_v]`."""
    if pooled == grid:
        return views
    maps = views.flatten(0, 1).transpose(1, 2).unflatten(2, grid)
    maps = nn.functional.adaptive_avg_pool2d(maps, pooled)
    return maps.flatten(2).transpose(1, 2).unflatten(0, views.shape[:2])


class GatedPooling(nn.Module):
    r"""Gated pooling attention: one weighted sum over the views.

    .. math:: a_v = w^T (\tanh(Z x_v) \odot \sigma(G x_v)) + b, \quad
              \text{fused} = \sum_v \mathrm{softmax}_v(a)\, x_v

    `x_v` in R^{P D_v} is a view's token grid, flattened; Z and G have no bias. Source: EM-VLM4AD (arXiv 2403.19838)
    and its code, modules/multi_frame_model.py 82-130 (commit ebfb59f4). Deviation: the softmax runs over present views
    only, so one view is passed through unchanged.

    Args:
        num_tokens: P.
        width: D_v.
        hidden: Width of the two gates (128 in EM-VLM4AD).
    """

    def __init__(self, num_tokens: int, width: int, hidden: int) -> None:
        super().__init__()
        self.num_tokens = num_tokens
        self.content = nn.Linear(num_tokens * width, hidden, bias=False)
        self.gate = nn.Linear(num_tokens * width, hidden, bias=False)
        self.score = nn.Linear(hidden, 1)

    def forward(self, views: Tensor, view_mask: Tensor | None = None) -> Tensor:
        """Pool `float[B, C, P, D_v]` under `bool[B, C]` (None: all views exist) to `float[B, P, D_v]`."""
        weights = self.weights(views, view_mask)
        return torch.einsum("bc,bcpd->bpd", weights, views)

    def weights(self, views: Tensor, view_mask: Tensor | None = None) -> Tensor:
        """Weights of the views, `float[B, C]`: they sum to 1 and are 0 for absent views; all 0 where there is none."""
        flat = views.flatten(2)
        scores = self.score(torch.tanh(self.content(flat)) * torch.sigmoid(self.gate(flat))).squeeze(-1)
        if view_mask is None:
            return scores.softmax(dim=1)
        lowest = torch.finfo(scores.dtype).min  # not -inf, of which a sample without views would get nan
        return scores.masked_fill(~view_mask, lowest).softmax(dim=1).masked_fill(~view_mask, 0)

    def token_mask(self, view_mask: Tensor) -> Tensor:
        """Which image tokens exist, `bool[B, P]`: all of them, unless there is no view."""
        return view_mask.any(dim=1, keepdim=True).expand(-1, self.num_tokens)


class Concatenation(nn.Module):
    """Every view's grid averaged down to a few tokens, the views one after the other.

    Args:
        grid: Height and width of a view's token grid.
        tokens_per_view: Tokens that a view keeps; they form the most square grid with so many cells.

    Raises:
        ValueError: A view has fewer tokens than it should keep.
    """

    def __init__(self, grid: tuple[int, int], tokens_per_view: int) -> None:
        super().__init__()
        self.grid = grid
        self.tokens_per_view = tokens_per_view
        self.pooled = pooled_grid(grid, tokens_per_view)

    def forward(self, views: Tensor, view_mask: Tensor | None = None) -> Tensor:
        """Pool and join `float[B, C, P, D_v]` to `float[B, C * tokens_per_view, D_v]`; see `token_mask`."""
        batch, cameras, _, width = views.shape
        views = averaged(views, self.grid, self.pooled)
        return views.reshape(batch, cameras * self.tokens_per_view, width)

    def token_mask(self, view_mask: Tensor) -> Tensor:
        """Which image tokens exist, `bool[B, C * tokens_per_view]`: those of the present views."""
        return view_mask.repeat_interleave(self.tokens_per_view, dim=1)


class Points(nn.Module):
    """The places that a question names, as tokens: what a view shows there, and where that is.

    Args:
        width: D_v.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.place = nn.Linear(2, width)

    def forward(self, grid: Tensor, points: Tensor, cameras: Tensor) -> Tensor:
        """Tokens `float[B, R, D_v]` of R places.

        Args:
            grid: `float[B, C, P, D_v]`, square grids.
            points: `float[B, R, 3]`: camera, x and y as shares of the picture; camera -1 is padding, its token is any.
            cameras: `float[C, D_v]`, the embeddings of the cameras.
        """
        batch, count = points.shape[:2]
        camera = points[:, :, 0].long().clamp_min(0)
        view = camera + grid.shape[1] * torch.arange(batch, device=points.device)[:, None]
        x, y = points[:, :, 1:].flatten(0, 1).unbind(dim=1)  # in full precision, whatever the grid's
        seen = features_at(grid.flatten(0, 1), view.flatten(), x, y).view(batch, count, grid.shape[3]).to(grid.dtype)
        return seen + self.place(points[:, :, 1:].to(grid.dtype)) + cameras[camera]

    def token_mask(self, points: Tensor, view_mask: Tensor) -> Tensor:
        """Which places exist, `bool[B, R]`: those in a view that is present."""
        camera = points[:, :, 0].long()
        return (camera >= 0) & view_mask.gather(1, camera.clamp_min(0))


def pooled_grid(grid: tuple[int, int], tokens_per_view: int) -> tuple[int, int]:
    """Height and width of the most square grid with `tokens_per_view` cells.

    Raises:
        ValueError: `grid`, a view's own, is smaller.
    """
    if tokens_per_view < 1:
        raise ValueError(f"`tokens_per_view` must be at least 1, got {tokens_per_view}.")
    rows = max(side for side in range(1, math.isqrt(tokens_per_view) + 1) if tokens_per_view % side == 0)
    pooled = (rows, tokens_per_view // rows)
    if pooled[0] > grid[0] or pooled[1] > grid[1]:
        raise ValueError(
            f"`tokens_per_view` = {tokens_per_view} needs a grid of at least {pooled[0]} x {pooled[1]}, but a view has "
            f"{grid[0]} x {grid[1]} tokens; use another number or larger pictures."
        )
    return pooled


def sequence_layout(
    text_mask: Tensor, image_mask: Tensor, layout: Literal["compact", "padded"]
) -> tuple[Tensor | None, Tensor]:
    """Where the tokens of `[text; image]` go in the encoder's sequence.

    `compact`: text tokens, then image tokens, padding last and cut to the longest sample, so that T5's relative
    positions do not depend on the batch. `padded`: as EM-VLM4AD has it, image tokens after the padded text; padding is
    masked here (in the original it is not), but it still moves the image tokens.

    Args:
        text_mask: `bool[B, L]`
        image_mask: `bool[B, K]`
        layout: See above.

    Returns:
        `int64[B, S]`, the source position in `[text; image]` of each encoder position (None: as it is), and
        `int8[B, S]`, its kind: 0 text, 1 image, 2 padding.
    """
    mask = torch.cat([text_mask, image_mask], dim=1)
    kind = torch.full_like(mask, IMAGE, dtype=torch.int8)
    kind[:, : text_mask.shape[1]] = TEXT
    kind = kind.masked_fill(~mask, PADDING)
    if layout == "padded":
        return None, kind
    order = (~mask).to(torch.int8).argsort(dim=1, stable=True)[:, : int(mask.sum(dim=1).max())]
    return order, kind.gather(1, order)
