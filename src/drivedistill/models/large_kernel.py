"""UniRepLKNet in its merged form: the large-kernel CNN that MiniDrive freezes as its vision encoder.

    pictures float[M, 3, H, W] -> stem (/4) -> stage 1 -> /2 -> stage 2 -> ... -> norm -> tokens float[M, h * w, C]

    block:  x + project(grn(gelu(expand(squeeze(depthwise(x))))))

Legend: M pictures, C channels of the last stage, h = w = ceil(H / 32) for four stages.

Source: UniRepLKNet (arXiv 2311.15599) and its code (AILab-CVC/UniRepLKNet, unireplknet.py). Parameters of its variants
here, without the classification head:

    N   depths (2, 2, 8, 2)     hidden_sizes (80, 160, 320, 640)    large_every (0, 1, 1, 1)    17,677,560
    T   depths (3, 3, 18, 3)    hidden_sizes (80, 160, 320, 640)    large_every (0, 1, 2, 1)    30,396,980
    S   depths (3, 3, 27, 3)    hidden_sizes (96, 192, 384, 768)    large_every (0, 1, 3, 1)    54,876,984

Simplified: the published network trains with parallel dilated branches and batch norms and merges them afterwards into
one kernel per block; only that merged form exists here, which computes the same. It suits a frozen encoder, and a
picture's features never depend on its batch; who wants to train the published network from scratch should use its code.
"""

# No `from __future__ import annotations`: `strict` checks values against types, and cannot read them from strings.

from itertools import pairwise
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput


@strict
class LargeKernelConfig(PreTrainedConfig):
    """The architecture of a UniRepLKNet; the defaults are UniRepLKNet-N."""

    model_type = "unireplknet"

    image_size: int = 224
    depths: list[int] | tuple[int, ...] = (2, 2, 8, 2)
    """Blocks per stage."""
    hidden_sizes: list[int] | tuple[int, ...] = (80, 160, 320, 640)
    """Channels per stage."""
    large_every: list[int] | tuple[int, ...] = (0, 1, 1, 1)
    """Per stage, every how many blocks, from the first, the kernel is large; 0: never."""
    large_kernel: int = 13
    small_kernel: int = 3
    expansion: int = 4
    """Hidden width of a block's feed-forward part, in multiples of its channels."""
    layer_norm_eps: float = 1e-6
    initializer_range: float = 0.02

    @property
    def patch_size(self) -> int:
        """Pixels per cell behind the stem, which halves twice."""
        return 4

    def validate_architecture(self) -> None:
        """Refuse stages that do not match."""
        if not len(self.depths) == len(self.hidden_sizes) == len(self.large_every):
            lengths = f"{len(self.depths)}, {len(self.hidden_sizes)} and {len(self.large_every)}"
            raise ValueError(f"`depths`, `hidden_sizes` and `large_every` name {lengths} stages; they must agree.")
        if self.large_kernel % 2 == 0 or self.small_kernel % 2 == 0:
            raise ValueError("`large_kernel` and `small_kernel` must be odd.")

    def kernel(self, stage: int, block: int) -> int:
        """Side of the depthwise kernel of a block."""
        every = self.large_every[stage]
        return self.large_kernel if every and block % every == 0 else self.small_kernel


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of `float[M, C, h, w]`."""

    def forward(self, maps: Tensor) -> Tensor:
        """Normalise every position for itself."""
        return super().forward(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Squeeze(nn.Module):
    """Squeeze-and-excitation: every channel is scaled by what all channels say on average (arXiv 1709.01507)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(width, hidden, 1)
        self.up = nn.Conv2d(hidden, width, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Scale the channels of `float[M, C, h, w]`."""
        means = maps.mean(dim=(2, 3), keepdim=True)
        return maps * torch.sigmoid(self.up(functional.relu(self.down(means))))


class ResponseNorm(nn.Module):
    """Global response normalisation without its bias, which the merged form moves into the layer behind (ConvNeXt V2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(width))

    def forward(self, maps: Tensor) -> Tensor:
        """Raise the channels of `float[M, h, w, C]` that respond more than the average one."""
        response = torch.linalg.vector_norm(maps, dim=(1, 2), keepdim=True)
        return maps * (1 + self.gamma * response / (response.mean(dim=-1, keepdim=True) + 1e-6))


class Block(nn.Module):
    """Depthwise convolution, squeeze-and-excitation, feed-forward part; added to its input."""

    def __init__(self, width: int, kernel: int, expansion: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.squeeze = Squeeze(width, max(1, width // 4))
        self.expand = nn.Linear(width, expansion * width)
        self.response = ResponseNorm(expansion * width)
        self.project = nn.Linear(expansion * width, width)

    def forward(self, maps: Tensor) -> Tensor:
        """`float[M, C, h, w]` to the same shape."""
        hidden = self.squeeze(self.depthwise(maps)).permute(0, 2, 3, 1)
        hidden = self.project(self.response(functional.gelu(self.expand(hidden))))
        return maps + hidden.permute(0, 3, 1, 2)


class LargeKernelModel(PreTrainedModel):
    """UniRepLKNet up to its last feature map, normalised at every position by the network's own final norm."""

    config_class = LargeKernelConfig
    config: LargeKernelConfig
    base_model_prefix = "unireplknet"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    # It has no attention; the text part beside it is asked for SDPA, and the question is put to both.
    _supports_sdpa = True

    def __init__(self, config: LargeKernelConfig) -> None:
        super().__init__(config)
        sizes, eps = list(config.hidden_sizes), config.layer_norm_eps
        stem = nn.Sequential(
            nn.Conv2d(3, sizes[0] // 2, 3, stride=2, padding=1),
            ChannelNorm(sizes[0] // 2, eps=eps),
            nn.GELU(),
            nn.Conv2d(sizes[0] // 2, sizes[0], 3, stride=2, padding=1),
            ChannelNorm(sizes[0], eps=eps),
        )
        halvings = [
            nn.Sequential(nn.Conv2d(before, after, 3, stride=2, padding=1), ChannelNorm(after, eps=eps))
            for before, after in pairwise(sizes)
        ]
        self.downsample_layers = nn.ModuleList([stem, *halvings])
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(Block(width, config.kernel(stage, block), config.expansion) for block in range(config.depths[stage]))
            )
            for stage, width in enumerate(sizes)
        )
        self.norm = nn.LayerNorm(sizes[-1], eps=eps)
        self.post_init()

    def forward(self, pixel_values: Tensor, **kwargs: Any) -> BaseModelOutput:
        """`last_hidden_state` is `float[M, h * w, C]` for pictures `float[M, 3, H, W]`."""
        maps = pixel_values
        for downsample, stage in zip(self.downsample_layers, self.stages, strict=True):
            maps = stage(downsample(maps))
        return BaseModelOutput(last_hidden_state=self.norm(maps.flatten(2).transpose(1, 2)))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Truncated normal weights and zero biases, as published; `ResponseNorm` begins as the identity."""
        if isinstance(module, nn.Conv2d | nn.Linear):
            init.trunc_normal_(module.weight, std=self.config.initializer_range)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, ResponseNorm):
            init.zeros_(module.gamma)


AutoConfig.register("unireplknet", LargeKernelConfig, exist_ok=True)
AutoModel.register(LargeKernelConfig, LargeKernelModel, exist_ok=True)
