"""A small vision tower with two levels: what lies where, and one token for the whole view. It trains from scratch on a CPU.

    pictures float[M, 3, H, W] -> ResNet -> /8 map, /16 map -+-> 1 x 1 each, added, normalised -> grid tokens [M, P, D]
                                                             +-> squeezed, flattened, normalised -> view token [M, 1, D]

Legend: M pictures, P = (H / 8)^2 cells, row by row, D width of a token.

The layout is that of a feature pyramid (Lin et al., arXiv 1612.03144) on the ResNet of transformers: small things are
seen on the finer level, what they are is known on the coarser one. A whole view's token keeps places apart, which a mean
over the grid would not (there is a car on the left). Every channel is standardised by statistics that are learnt with
the tower: raw features share an offset that swamps text embeddings.
"""

# No `from __future__ import annotations`: `strict` checks values against types, and cannot read them from strings.

from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel, ResNetBackbone, ResNetConfig
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput

STRIDE = 8
"""Pixels of a picture per grid cell."""


@strict
class PyramidConfig(PreTrainedConfig):
    """The architecture of a `PyramidModel`."""

    model_type = "pyramid"

    image_size: int = 112
    """A multiple of 16."""
    embedding_size: int = 24
    """Channels behind the stem."""
    hidden_sizes: list[int] | tuple[int, ...] = (32, 64, 128)
    """Channels of the stages, which see pictures at a quarter, an eighth and a sixteenth of their side."""
    depths: list[int] | tuple[int, ...] = (2, 2, 2)
    """Residual blocks per stage."""
    width: int = 96
    """D."""
    view_width: int = 32
    """Channels per place from which a view's token is made."""

    @property
    def patch_size(self) -> int:
        """Pixels per grid cell."""
        return STRIDE

    @property
    def hidden_size(self) -> int:
        """Width of a token."""
        return self.width

    def validate_architecture(self) -> None:
        """Refuse sizes that do not fit together."""
        if len(self.hidden_sizes) != 3 or len(self.depths) != 3:
            raise ValueError(f"`hidden_sizes` and `depths` name three stages, got {self.hidden_sizes}, {self.depths}.")
        if self.image_size % (2 * STRIDE) or self.image_size < 2 * STRIDE:
            raise ValueError(f"`image_size` must be a multiple of {2 * STRIDE}, got {self.image_size}.")


class PyramidModel(PreTrainedModel):
    """See the module; `forward(pictures).last_hidden_state` is `float[M, P + 1, D]`, the view token last."""

    config_class = PyramidConfig
    config: PyramidConfig
    main_input_name = "pixel_values"
    _supports_sdpa = True

    def __init__(self, config: PyramidConfig) -> None:
        super().__init__(config)
        fine, coarse = config.hidden_sizes[1:]
        self.trunk = ResNetBackbone(
            ResNetConfig(
                embedding_size=config.embedding_size,
                hidden_sizes=list(config.hidden_sizes),
                depths=list(config.depths),
                layer_type="basic",
                out_features=["stage2", "stage3"],
            )
        )
        self.fine = nn.Conv2d(fine, config.width, 1)
        self.coarse = nn.Conv2d(coarse, config.width, 1)
        self.squeeze = nn.Conv2d(coarse, config.view_width, 1)
        cells = (config.image_size // STRIDE // 2) ** 2
        self.view = nn.Linear(config.view_width * cells, config.width)
        self.grid_norm = nn.BatchNorm2d(config.width, affine=False)
        self.view_norm = nn.BatchNorm1d(config.width, affine=False)
        self.post_init()

    def forward(self, pixel_values: Tensor) -> BaseModelOutput:
        """Tokens of `float[M, 3, H, W]`."""
        fine, coarse = self.trunk(pixel_values.contiguous(memory_format=torch.channels_last)).feature_maps
        grid = self.fine(fine) + functional.interpolate(self.coarse(coarse), scale_factor=2)
        grid = _standardised(functional.relu(grid), self.grid_norm)
        view = functional.relu(self.squeeze(coarse)).flatten(1)
        view = _standardised(functional.relu(self.view(view)), self.view_norm)
        tokens = torch.cat([grid.flatten(2).transpose(1, 2), view[:, None]], dim=1)
        return BaseModelOutput(last_hidden_state=tokens)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """As torchvision and transformers draw ResNets: the trunk does so itself."""
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            init.uniform_(module.weight, -bound, bound)
            init.zeros_(module.bias)


def _standardised(values: Tensor, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> Tensor:
    """`float[M, D, ...]` by the statistics of these pictures while training; one picture has none: by the running ones."""
    if len(values) > 1:
        standardised: Tensor = norm(values)
        return standardised
    return functional.batch_norm(values, norm.running_mean, norm.running_var, eps=norm.eps)


def features_at(grid: Tensor, view: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """What a grid shows at a place, between cells bilinearly.

    Args:
        grid: `float[M, P, D]`, a square grid row by row.
        view: `int64[N]`, which of the M.
        x: `float[N]`, share of the picture's width, 0 to 1.
        y: `float[N]`, of its height.

    Returns:
        `float[N, D]`
    """
    side = round(grid.shape[1] ** 0.5)
    cells = grid.flatten(0, 1)
    column = (x * side - 0.5).clamp(0, side - 1)
    row = (y * side - 0.5).clamp(0, side - 1)
    left, top = column.floor().long().clamp(max=max(side - 2, 0)), row.floor().long().clamp(max=max(side - 2, 0))
    right_share, low_share = (column - left)[:, None], (row - top)[:, None]
    step = 1 if side > 1 else 0

    def at(down: int, right: int) -> Tensor:
        # Rows are gathered: `grid_sample` on a selection of views costs several times as much in the backward pass.
        return functional.embedding(view * side * side + (top + down * step) * side + left + right * step, cells)

    upper = (1 - right_share) * at(0, 0) + right_share * at(0, 1)
    lower = (1 - right_share) * at(1, 0) + right_share * at(1, 1)
    mixed: Tensor = (1 - low_share) * upper + low_share * lower
    return mixed


AutoConfig.register("pyramid", PyramidConfig, exist_ok=True)
AutoModel.register(PyramidConfig, PyramidModel, exist_ok=True)


def view_token_count(config: Any) -> int:
    """Tokens per view that stand for the whole of it, behind those of the grid."""
    return 1 if config.model_type == "pyramid" else 0
