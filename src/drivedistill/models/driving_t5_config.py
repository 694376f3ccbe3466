"""The configuration of `DrivingT5`: which vision network, which fusion, which T5."""

# No `from __future__ import annotations`: `strict` checks values against types, and cannot read them from strings.

from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig, T5Config

from drivedistill.models.fusion import pooled_grid
from drivedistill.models.minidrive import HEADS
from drivedistill.models.pyramid import view_token_count
from drivedistill.models.vision import VISION_MODELS, token_grid, token_width
from drivedistill.records import CAMERAS
from drivedistill.sections import AdapterExperts


@strict
class DrivingT5Config(PreTrainedConfig):
    """Everything that fixes the architecture of a `DrivingT5`; `models/presets.py` has the published ones."""

    model_type = "driving_t5"
    sub_configs: ClassVar[dict[str, Any]] = {"text": T5Config, "vision": AutoConfig}

    text: Any = None
    """Configuration of T5 (a mapping or a `T5Config`)."""
    vision: Any = None
    """Configuration of the vision network (a mapping or a configuration); its `model_type` is `vit`, `swin`, `convnext`,
    `unireplknet` or `pyramid`."""
    vision_blocks: bool = True
    """False: patch and position embeddings only, as EM-VLM4AD's public code runs ViT-B/32."""
    vision_stored: Literal["used", "full"] = "used"
    """`full` also holds blocks and a 1000-class head that never run, for whole checkpoints and published totals."""
    vision_state: Literal["whole", "cut", "matched"] = "whole"
    """`cut`: blocks were taken out and the rest has not learnt to do without; `matched`: it has."""
    vision_classes: int = 0
    """Size of a classification head that is stored and never run."""
    fusion: Literal["gated_pooling", "concatenation", "feature_experts"] = "gated_pooling"
    fusion_hidden: int = 128
    """Width of the gates (gated pooling), or channels between the two layers of an expert (feature experts)."""
    fusion_experts: int = 4
    """Number of experts (feature experts)."""
    tokens_per_view: int = 9
    """Tokens that a view becomes (concatenation, feature experts)."""
    grid_tokens: int | None = None
    """Cells to which a view's grid is averaged before gated pooling; null: all its tokens."""
    points: bool = False
    """Every place that a question names adds an image token: what the view's grid shows there."""
    cameras: list[str] | tuple[str, ...] = CAMERAS
    """Names of the views, in their order."""
    adapter: Literal["linear", "mlp", "none"] = "linear"
    """Vision width to T5 width, see `models/adapter.py`; `none` needs equal widths."""
    adapter_hidden: int | None = None
    """Hidden width of the `mlp` adapter; null: that of T5."""
    adapter_experts: dict[str, Any] | None = None
    """The adapter as a mixture of experts: fields of the recipe's `AdapterExperts`; null: one dense layer."""
    ffn_experts: dict[str, Any] | None = None
    """T5's feed-forward layers as mixtures of experts: fields of the recipe's `FfnExperts`; null: all dense."""
    interaction: bool = False
    """Image tokens attend to the question before they join it (MiniDrive's DI-adapter)."""
    modal_embeddings: bool = True
    """Learnt vectors added to all text tokens and to all image tokens."""
    camera_embeddings: bool | None = None
    """Learnt vectors added to the tokens of each camera, before fusion; null: with concatenation, with `points` and with a
    tower that has view tokens."""
    image_size: int | None = None
    """Side of the square pictures in pixels; null: that of `vision`."""
    layout: Literal["compact", "padded"] = "compact"
    """See `fusion.sequence_layout`."""
    initializer_range: float = 0.02
    is_encoder_decoder: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        """Turn the parts into configurations and settle what follows from other fields."""
        if not isinstance(self.text, PreTrainedConfig):
            self.text = T5Config(**(self.text or {}))
        if not isinstance(self.vision, PreTrainedConfig):
            vision = dict(self.vision or {})
            kind = vision.pop("model_type", "vit")
            if kind not in VISION_MODELS:
                raise ValueError(f"`vision.model_type` must be one of {sorted(VISION_MODELS)}, got {kind!r}.")
            self.vision = VISION_MODELS[kind].config_class(**vision)
        if self.image_size is None:
            self.image_size = int(self.vision.image_size)
        self.vision.image_size = self.image_size
        if self.camera_embeddings is None:
            told_apart = self.points or view_token_count(self.vision) > 0
            self.camera_embeddings = self.fusion == "concatenation" or told_apart
        if self.vision_stored == "full" and not self.vision_classes:
            self.vision_classes = 1000
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Refuse combinations that no model can be built from."""
        if not self.vision_blocks and self.vision.model_type != "vit":
            raise ValueError(f"`vision_blocks: false` is for a ViT, not for {self.vision.model_type}.")
        if self.adapter == "none" and self.fused_width != self.text.d_model:
            widths = f"vision has {self.fused_width}, T5 has {self.text.d_model}"
            raise ValueError(f"`adapter: none` needs equal widths, but {widths}; use `adapter: linear`.")
        if self.adapter_experts is not None:
            if self.adapter == "none":
                raise ValueError("`adapter_experts` need an adapter, but `adapter` is `none`; use `linear` or `mlp`.")
            AdapterExperts(**self.adapter_experts)
        if self.adapter_hidden is not None and self.adapter_hidden < 1:
            raise ValueError(f"`adapter_hidden` must be at least 1, got {self.adapter_hidden}.")
        if self.vision.model_type == "pyramid":  # once more: `image_size` is given to it after it was made
            self.vision.validate_architecture()
        if min(token_grid(self.vision)) < 1:
            raise ValueError(f"`image_size` = {self.image_size} leaves no token; use larger pictures.")
        if self.fusion == "concatenation":
            pooled_grid(token_grid(self.vision), self.tokens_per_view)
        if self.grid_tokens is not None:
            if self.fusion != "gated_pooling":
                raise ValueError(
                    f"`grid_tokens` is for gated pooling; `fusion` is {self.fusion}: use `tokens_per_view`."
                )
            pooled_grid(token_grid(self.vision), self.grid_tokens)
        if self.fusion == "feature_experts" and (self.points or view_token_count(self.vision)):
            raise ValueError("`fusion: feature_experts` has no place for points and view tokens; use another fusion.")
        if self.fusion == "feature_experts" and min(self.tokens_per_view, self.fusion_hidden, self.fusion_experts) < 1:
            raise ValueError("`tokens_per_view`, `fusion_hidden` and `fusion_experts` must be at least 1.")
        if self.interaction and self.text.d_model % HEADS:
            raise ValueError(
                f"`interaction` has {HEADS} heads; `text.d_model` = {self.text.d_model} is no multiple of that."
            )

    @property
    def vocab_size(self) -> int:
        """T5's number of embedding rows."""
        return int(self.text.vocab_size)

    @property
    def fused_width(self) -> int:
        """Width of the image tokens behind the fusion."""
        rows, columns = token_grid(self.vision)
        return 4 * rows * columns if self.fusion == "feature_experts" else token_width(self.vision)

    @property
    def image_tokens(self) -> int:
        """Image tokens in the encoder's sequence: of a sample with gated pooling, of a view otherwise; view tokens and points
        come in addition."""
        rows, columns = token_grid(self.vision)
        return (self.grid_tokens or rows * columns) if self.fusion == "gated_pooling" else self.tokens_per_view

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """T5's configuration; asked for the decoder's (by the key-value cache), with the decoder's number of layers."""
        text = self.text
        if decoder and not encoder and text.num_decoder_layers != text.num_layers:
            return T5Config(**{**text.to_dict(), "num_layers": text.num_decoder_layers})
        return text
