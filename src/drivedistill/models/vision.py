"""The vision encoder: pictures to tokens, one view at a time, on the views that exist.

    pixel_values float[B, C, 3, H, W], view_mask bool[B, C]  ->  float[B, C, P, D_v]

Legend: B samples, C cameras, P tokens of a view (a grid of h x w, and behind it the view token of a `pyramid`), D_v vision
width, M present views of the batch.

The networks are those of transformers, so published checkpoints load; `unireplknet` is ours. What they contribute:

    vit          all patch tokens without the class token; with `blocks=False` only patch and position embeddings, which is
                 what EM-VLM4AD's public code runs of ViT-B/32 (modules/multi_frame_model.py 117-125, commit ebfb59f4)
    swin         the last feature map: 7 x 7 x 768 for Swin-T at 224 pixels (CLKD)
    convnext     the last feature map, normalised by the network's own final layer norm; small ones train from scratch
    unireplknet  likewise (MiniDrive)
    pyramid      a grid, then one token for the whole view (pyramid.py); small, trains from scratch
"""

from __future__ import annotations

import copy
from typing import Literal

from torch import Tensor, nn
from transformers import ConvNextModel, PreTrainedConfig, SwinModel, ViTModel

from drivedistill.models.large_kernel import LargeKernelModel
from drivedistill.models.pyramid import PyramidModel, view_token_count

VISION_MODELS = {
    "vit": ViTModel,
    "swin": SwinModel,
    "convnext": ConvNextModel,
    "unireplknet": LargeKernelModel,
    "pyramid": PyramidModel,
}


class VisionEncoder(nn.Module):
    """A vision network and, where a published total needs them, the parts of it that never run.

    A frozen encoder stays in eval mode: Swin's drop path would otherwise disturb features that nothing can adapt to,
    and cached features would differ from live ones.

    Args:
        config: Configuration of the network; `model_type` is a key of `VISION_MODELS`.
        blocks: Run the transformer blocks. False (ViT only): patch and position embeddings.
        stored: `full` keeps blocks that `blocks=False` never runs; `used` drops them.
        classes: Size of a classification head that is stored and never run; 0 for none.
    """

    def __init__(
        self,
        config: PreTrainedConfig,
        *,
        blocks: bool = True,
        stored: Literal["used", "full"] = "used",
        classes: int = 0,
    ) -> None:
        super().__init__()
        self.kind: str = config.model_type
        self.blocks = blocks
        self.stores_blocks = blocks or stored == "full"
        self.grid = token_grid(config)
        self.view_tokens = view_token_count(config)
        self.tokens = self.grid[0] * self.grid[1] + self.view_tokens
        self.width = token_width(config)
        self.model = _build_network(config, with_blocks=self.stores_blocks)
        self.head = nn.Linear(self.width, classes) if classes else None
        self.freeze_unused()

    def forward(self, pixel_values: Tensor, view_mask: Tensor | None = None) -> Tensor:
        """Encode the present views.

        Args:
            pixel_values: `float[B, C, 3, H, W]`, normalised; content of absent views is never read.
            view_mask: `bool[B, C]`, True where a view exists; None when all do (no data-dependent shapes then).

        Returns:
            `float[B, C, P, D_v]`; zeros for absent views.

        Raises:
            ValueError: Pictures or mask have the wrong shape.
        """
        self._check(pixel_values, view_mask)
        dtype = next(self.model.parameters()).dtype
        if view_mask is None:
            tokens = self._tokens(pixel_values.flatten(0, 1).to(dtype))
            return tokens.unflatten(0, pixel_values.shape[:2])
        tokens = self._tokens(pixel_values[view_mask].to(dtype))
        views = tokens.new_zeros(*view_mask.shape, *tokens.shape[1:])
        views[view_mask] = tokens
        return views

    def accept(self, features: Tensor, view_mask: Tensor | None = None) -> Tensor:
        """Features that this encoder computed earlier, as `forward` would return them.

        Args:
            features: `float[B, C, P, D_v]` of any floating type; content of absent views is never read.
            view_mask: As for `forward`.

        Raises:
            ValueError: Features or mask have the wrong shape.
        """
        tokens = (self.tokens, self.width)
        if features.ndim != 4 or tuple(features.shape[2:]) != tokens:
            expected = f"float[B, C, {tokens[0]}, {tokens[1]}]"
            raise ValueError(f"`vision_features` must be {expected}, got {tuple(features.shape)}.")
        features = features.to(next(self.model.parameters()).dtype)
        if view_mask is None:
            return features
        _check_mask(view_mask, features, "vision_features")
        return features.masked_fill(~view_mask[:, :, None, None], 0)

    def train(self, mode: bool = True) -> VisionEncoder:
        """Switch to training mode, except for an encoder whose parameters are all frozen."""
        return super().train(mode and any(parameter.requires_grad for parameter in self.parameters()))

    def freeze_unused(self) -> None:
        """Switch gradients off for what forward never touches; DDP would wait for them."""
        if self.head is not None:
            self.head.requires_grad_(False)
        if not self.blocks:
            self.model.layers.requires_grad_(False)
            self.model.layernorm.requires_grad_(False)

    def _tokens(self, pictures: Tensor) -> Tensor:
        """`float[M, 3, H, W]` to `float[M, P, D_v]`."""
        if not len(pictures):
            return pictures.new_zeros(0, self.tokens, self.width)
        if self.kind == "vit":
            hidden = self.model(pictures).last_hidden_state if self.blocks else self.model.embeddings(pictures)
            return hidden[:, 1:]
        hidden = self.model(pictures).last_hidden_state
        if self.kind == "convnext":
            # The network normalises only its pooled output; raw maps share an offset that swamps text embeddings.
            return self.model.layernorm(hidden.flatten(2).transpose(1, 2))
        return hidden

    def _check(self, pixel_values: Tensor, view_mask: Tensor | None) -> None:
        size = self.model.config.image_size
        if pixel_values.ndim != 5 or tuple(pixel_values.shape[2:]) != (3, size, size):
            expected = f"float[B, C, 3, {size}, {size}]"
            raise ValueError(f"`pixel_values` must be {expected}, got {tuple(pixel_values.shape)}.")
        if view_mask is not None:
            _check_mask(view_mask, pixel_values, "pixel_values")


def token_grid(config: PreTrainedConfig) -> tuple[int, int]:
    """Height and width of a view's token grid."""
    size, patch = int(config.image_size), int(config.patch_size)
    side = size // patch if config.model_type in ("vit", "convnext", "pyramid") else -(-size // patch)
    stages = 1 if config.model_type == "pyramid" else len(getattr(config, "depths", (1,)))
    for _ in range(stages - 1):
        side = side // 2 if config.model_type == "convnext" else -(-side // 2)
    return side, side


def token_width(config: PreTrainedConfig) -> int:
    """Width D_v of a view's tokens."""
    if config.model_type != "pyramid" and hasattr(config, "hidden_sizes"):
        return int(config.hidden_sizes[-1])
    return int(config.hidden_size)


def _check_mask(view_mask: Tensor, views: Tensor, name: str) -> None:
    if view_mask.shape != views.shape[:2]:
        expected = f"bool{list(views.shape[:2])}, like `{name}`"
        raise ValueError(f"`view_mask` must be {expected}, got {list(view_mask.shape)}.")


def _build_network(config: PreTrainedConfig, *, with_blocks: bool) -> nn.Module:
    if config.model_type == "convnext":
        # ConvNeXt has no attention and refuses to be asked for SDPA, which the text part is given for both.
        config._attn_implementation = "eager"
        network = ConvNextModel(config)
        network._supports_sdpa = network.encoder._supports_sdpa = True
        return network
    if config.model_type in ("unireplknet", "pyramid"):
        return VISION_MODELS[config.model_type](config)
    if with_blocks:
        return VISION_MODELS[config.model_type](config, add_pooling_layer=False)
    config = copy.deepcopy(config)
    config.num_hidden_layers = 0
    network = ViTModel(config, add_pooling_layer=False)
    network.layernorm = nn.Identity()
    return network
