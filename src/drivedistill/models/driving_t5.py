"""The EM-VLM4AD family as one Hugging Face class: EM-VLM4AD itself, CLKD's teacher and student, and small relatives.

    pictures of C cameras -> vision -> fusion -> adapter (-> interaction with the question) -+
                                                                                             +-> modal embeddings -> T5
    question              -> T5 token embeddings --------------------------------------------+

Legend: B samples, C cameras, P tokens of a view, K image tokens of a sample, L question tokens, S encoder positions,
T answer positions, d width of T5, V vocabulary.

Source: EM-VLM4AD (arXiv 2403.19838) and its code (akshaygopalkr/EM-VLM4AD, commit ebfb59f4); CLKD (Zhao and Fang, ICRA
2026) puts Swin-T and T5-Small into the same layout; MiniDrive (arXiv 2409.07267) has another fusion and the interaction.
Differences to EM-VLM4AD: padding is masked and, with `layout="compact"`, moved
to the end, so that an answer does not depend on the batch; views may be absent.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    GenerationMixin,
    PreTrainedModel,
    T5ForConditionalGeneration,
)
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPastAndCrossAttentions, Seq2SeqLMOutput
from transformers.utils import can_return_tuple

from drivedistill.models.adapter import MixtureAdapter, build_adapter
from drivedistill.models.by_length import decode_apart
from drivedistill.models.driving_t5_config import DrivingT5Config
from drivedistill.models.fusion import (
    IMAGE,
    TEXT,
    Concatenation,
    GatedPooling,
    Points,
    averaged,
    pooled_grid,
    sequence_layout,
)
from drivedistill.models.minidrive import FeatureExperts, InstructionAdapter
from drivedistill.models.mixture import Mixture
from drivedistill.models.upcycle import install_ffn
from drivedistill.models.vision import VisionEncoder
from drivedistill.sections import FfnExperts


class DrivingT5(PreTrainedModel, GenerationMixin):
    """Answers questions about the pictures of several cameras.

    Sub-modules: `vision`, `camera_embedding`, `fusion`, `adapter`, `interaction`, `modal_embedding`, `language_model`.
    """

    config_class = DrivingT5Config
    config: DrivingT5Config
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _no_split_modules: ClassVar[list[str]] = ["T5Block"]
    _supports_sdpa = True

    def __init__(self, config: DrivingT5Config) -> None:
        super().__init__(config)
        width = config.text.d_model
        self.vision = VisionEncoder(
            config.vision, blocks=config.vision_blocks, stored=config.vision_stored, classes=config.vision_classes
        )
        self.camera_embedding = (
            nn.Embedding(len(config.cameras), self.vision.width) if config.camera_embeddings else None
        )
        grid = self.vision.grid
        self.fusion: GatedPooling | Concatenation | FeatureExperts
        self.pooled = grid if config.grid_tokens is None else pooled_grid(grid, config.grid_tokens)
        if config.fusion == "gated_pooling":
            self.fusion = GatedPooling(self.pooled[0] * self.pooled[1], self.vision.width, config.fusion_hidden)
        elif config.fusion == "feature_experts":
            self.fusion = FeatureExperts(
                grid, self.vision.width, config.tokens_per_view, config.fusion_hidden, config.fusion_experts
            )
        else:
            self.fusion = Concatenation(grid, config.tokens_per_view)
        self.points = Points(self.vision.width) if config.points else None
        self.adapter = build_adapter(config)
        self.interaction = InstructionAdapter(width) if config.interaction else None
        self.modal_embedding = nn.Embedding(2, width) if config.modal_embeddings else None
        self.language_model = T5ForConditionalGeneration(config.text)
        self.apart = True
        """Decode short and long answers apart (`by_length.py`); False, as for shards: every layer is called once per batch."""
        self.generation_config.update(
            decoder_start_token_id=config.text.pad_token_id,
            pad_token_id=config.text.pad_token_id,
            eos_token_id=config.text.eos_token_id,
        )
        self.post_init()
        if config.ffn_experts is not None:  # after `post_init`, which would draw the routers as T5's other layers
            install_ffn(self, FfnExperts(**config.ffn_experts))

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load a directory or hub id, as every Hugging Face model does."""
        result = super().from_pretrained(*args, **kwargs)
        # Loading replaces parameters, and with them the mark that a stored part never runs.
        (result[0] if isinstance(result, tuple) else result).vision.freeze_unused()
        return result

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        view_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: BaseModelOutput | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = False,
        labels: None = None,
        vision_features: Tensor | None = None,
        points: Tensor | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """Logits of every answer position.

        Args:
            input_ids: `int64[B, L]`, the question, padded on the right.
            attention_mask: `[B, L]`, 1 for question tokens (None: all); beside `encoder_outputs`, the mask `[B, S]`
                that `encode` returned with them.
            pixel_values: `float[B, C, 3, H, W]`, normalised pictures in the order of `config.cameras`.
            view_mask: `bool[B, C]`, True where the view exists (None: everywhere).
            decoder_input_ids: `int64[B, T]`, the answer shifted right; made by `data/collate.py`.
            decoder_attention_mask: `[B, T]`; not needed for padding on the right.
            encoder_outputs: Result of an earlier encoder pass, instead of the four inputs above.
            past_key_values: Cache of earlier positions.
            use_cache: Return the cache.
            labels: Refused; see below.
            vision_features: `float[B, C, P, D_v]` instead of pictures: what `vision` makes of them (a cache).
            points: `float[B, R, 3]`, places that the question names: camera (-1: padding), x and y as shares of the
                picture; only for a model with `config.points`, which reads no places when None.
            **kwargs: `output_attentions`, `output_hidden_states`.

        Returns:
            `logits` is `float[B, T, V]`.

        Raises:
            ValueError: `labels` are given (targets are shifted in one place, `data/collate.py`, and losses are computed
                outside), not exactly one of pictures and features is given, or a shape is wrong.
        """
        if labels is not None:
            raise ValueError("`labels` are refused: losses are computed outside; pass `decoder_input_ids`.")
        if encoder_outputs is None:
            encoder_outputs, attention_mask = self._run_encoder(
                input_ids, attention_mask, pixel_values, view_mask, vision_features, points, **kwargs
            )
        decoder_outputs: BaseModelOutputWithPastAndCrossAttentions = self.language_model.decoder(
            input_ids=decoder_input_ids,
            attention_mask=decoder_attention_mask,
            encoder_hidden_states=encoder_outputs[0],
            encoder_attention_mask=attention_mask,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **kwargs,
        )
        return Seq2SeqLMOutput(
            logits=self.lm_logits(decoder_outputs.last_hidden_state),
            past_key_values=decoder_outputs.past_key_values,
            decoder_hidden_states=decoder_outputs.hidden_states,
            decoder_attentions=decoder_outputs.attentions,
            cross_attentions=decoder_outputs.cross_attentions,
            encoder_last_hidden_state=encoder_outputs[0],
            encoder_hidden_states=encoder_outputs.hidden_states,
            encoder_attentions=encoder_outputs.attentions,
        )

    def encode(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        pixel_values: Tensor | None = None,
        view_mask: Tensor | None = None,
        vision_features: Tensor | None = None,
        points: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The encoder's output `float[B, S, d]` and its mask `bool[B, S]`; arguments as for `forward`."""
        outputs, mask = self._run_encoder(input_ids, attention_mask, pixel_values, view_mask, vision_features, points)
        return outputs.last_hidden_state, mask

    def decode_hidden(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        pixel_values: Tensor | None = None,
        view_mask: Tensor | None = None,
        *,
        decoder_input_ids: Tensor,
        decoder_attention_mask: Tensor | None = None,
        vision_features: Tensor | None = None,
        points: Tensor | None = None,
    ) -> Tensor:
        """The decoder's output before the head, `float[B, T, d]`; arguments as for `forward`.

        Right up to the end of every answer; what stands at the padding behind it depends on the batch.
        """
        memory, mask = self.encode(input_ids, attention_mask, pixel_values, view_mask, vision_features, points)
        batch, longest = decoder_input_ids.shape
        if decoder_attention_mask is None:
            decoder_attention_mask = decoder_input_ids.new_ones(batch, longest)

        def decode(samples: Tensor, length: int) -> Tensor:
            return self.language_model.decoder(
                input_ids=decoder_input_ids[samples, :length],
                attention_mask=decoder_attention_mask[samples, :length],
                encoder_hidden_states=memory[samples],
                encoder_attention_mask=mask[samples],
                use_cache=False,
            ).last_hidden_state

        if not self.apart:
            return decode(torch.arange(batch, device=memory.device), longest)
        lengths = decoder_attention_mask.sum(dim=1)
        layers = (module for module in self.language_model.decoder.modules() if isinstance(module, Mixture))
        return decode_apart(decode, lengths, longest, layers)

    def view_tokens(
        self, pixel_values: Tensor | None, view_mask: Tensor | None, vision_features: Tensor | None = None
    ) -> Tensor:
        """Every view's tokens `float[B, C, P, D_v]`, before camera embedding and fusion; zeros for absent views.

        Made of pictures by `vision`, or taken as they are given, which spares a frozen encoder its work.

        Raises:
            ValueError: Not exactly one of pictures and features is given, or a shape is wrong.
        """
        if (pixel_values is None) == (vision_features is None):
            raise ValueError("Give exactly one of `pixel_values` and `vision_features`.")
        mask = None if view_mask is None else view_mask.bool()
        given = vision_features is not None
        views = self.vision.accept(vision_features, mask) if given else self.vision(pixel_values, mask)
        if views.shape[1] > len(self.config.cameras):
            raise ValueError(f"There are {views.shape[1]} views for {len(self.config.cameras)} cameras.")
        return views

    def lm_logits(self, hidden: Tensor) -> Tensor:
        """The head: `float[..., d]` to `float[..., V]`, with the d^-0.5 that T5 puts before a tied head."""
        if self.config.text.scale_decoder_outputs:
            hidden = hidden * self.config.text.d_model**-0.5
        return self.language_model.lm_head(hidden)

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        view_mask: Tensor | None = None,
        vision_features: Tensor | None = None,
        points: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Write answers: `int64[B, T]`, beginning with the decoder's start token, as every Hugging Face model does.

        Args:
            input_ids: As for `forward`; likewise the next five.
            attention_mask: See there.
            pixel_values: See there.
            view_mask: See there.
            vision_features: See there.
            points: See there.
            **kwargs: Anything that `GenerationMixin.generate` takes: `max_new_tokens`, `num_beams`, `do_sample`, ...
        """
        if kwargs.get("encoder_outputs") is None:
            # Encoded here, once, so that beams copy hidden states and not pictures.
            kwargs["encoder_outputs"], attention_mask = self._run_encoder(
                input_ids, attention_mask, pixel_values, view_mask, vision_features, points
            )
        return super().generate(attention_mask=attention_mask, **kwargs)

    def token_kind(
        self, input_ids: Tensor, attention_mask: Tensor, view_mask: Tensor, points: Tensor | None = None
    ) -> Tensor:
        """`int8[B, S]`: 0 text, 1 image, 2 padding, for the encoder's sequence; arguments as for `forward`."""
        return sequence_layout(attention_mask.bool(), self.image_mask(view_mask, points), self.config.layout)[1]

    def image_mask(self, view_mask: Tensor, points: Tensor | None = None) -> Tensor:
        """Which tokens of the image part exist, `bool[B, K]`: fused ones, then one per view, then one per place."""
        view_mask = view_mask.bool()
        parts = [self.fusion.token_mask(view_mask), view_mask.repeat_interleave(self.vision.view_tokens, dim=1)]
        if self.points is not None and points is not None:
            parts.append(self.points.token_mask(points, view_mask))
        return torch.cat(parts, dim=1)

    def get_encoder(self, modality: str | None = None) -> nn.Module:
        """The T5 encoder, or the vision encoder for `image`."""
        return self.vision if modality == "image" else self.language_model.encoder

    def get_input_embeddings(self) -> nn.Module:
        """T5's token embeddings, shared with the decoder and the head."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace T5's token embeddings."""
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """The head."""
        return self.language_model.lm_head

    def set_output_embeddings(self, value: nn.Module) -> None:
        """Replace the head."""
        self.language_model.lm_head = value

    def enable_input_require_grads(self) -> None:
        """Let gradients begin at the token embeddings (reentrant checkpointing needs that when they are frozen).

        Not at the pictures as well: a frozen vision encoder would run backward for nothing.
        """

        def start_here(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            output.requires_grad_(True)

        self._require_grads_hooks = [self.get_input_embeddings().register_forward_hook(start_here)]

    def _run_encoder(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        pixel_values: Tensor | None,
        view_mask: Tensor | None,
        vision_features: Tensor | None,
        points: Tensor | None,
        **kwargs: Any,
    ) -> tuple[BaseModelOutput, Tensor]:
        embeddings = self.get_input_embeddings()(input_ids)
        views = self.view_tokens(pixel_values, view_mask, vision_features)
        if view_mask is None and points is not None:  # places come with padding
            view_mask = torch.ones(views.shape[:2], dtype=torch.bool, device=views.device)
        image_mask = None if view_mask is None else self.image_mask(view_mask, points)
        image = self._image_embeddings(views, view_mask, image_mask, points)
        if self.interaction is not None:
            image = self.interaction(image, embeddings, attention_mask)
        if self.modal_embedding is not None:
            embeddings = embeddings + self.modal_embedding.weight[TEXT]
            image = image + self.modal_embedding.weight[IMAGE]
        embeddings = torch.cat([embeddings, image], dim=1)
        mask = torch.ones(embeddings.shape[:2], dtype=torch.bool, device=embeddings.device)
        if attention_mask is not None or image_mask is not None:
            all_text, all_image = mask.split([input_ids.shape[1], image.shape[1]], dim=1)
            text_mask = all_text if attention_mask is None else attention_mask.bool()
            image_mask = all_image if image_mask is None else image_mask
            order, kind = sequence_layout(text_mask, image_mask, self.config.layout)
            mask = kind < 2
            if order is not None:
                embeddings = embeddings.gather(1, order[:, :, None].expand(-1, -1, embeddings.shape[2]))
        outputs = self.language_model.encoder(inputs_embeds=embeddings, attention_mask=mask, **kwargs)
        return outputs, mask

    def _image_embeddings(
        self, views: Tensor, view_mask: Tensor | None, image_mask: Tensor | None, points: Tensor | None
    ) -> Tensor:
        """The image part of the encoder's input, `float[B, K, d]`, from what `view_tokens` returns."""
        view_mask = None if view_mask is None else view_mask.bool()
        grid, whole = views.split([views.shape[2] - self.vision.view_tokens, self.vision.view_tokens], dim=2)
        named = None
        if self.points is not None and points is not None:
            assert self.camera_embedding is not None
            named = self.points(grid, points, self.camera_embedding.weight)
        grid = averaged(grid, self.vision.grid, self.pooled)
        if self.camera_embedding is not None:
            cameras = self.camera_embedding.weight[: views.shape[1], None]
            grid, whole = grid + cameras, whole + cameras
        tokens = self.fusion(grid, view_mask)
        if self.vision.view_tokens:
            tokens = torch.cat([tokens, whole.flatten(1, 2)], dim=1)
        if named is not None:
            tokens = torch.cat([tokens, named], dim=1)
        if isinstance(self.adapter, MixtureAdapter) and image_mask is not None:
            return self.adapter(tokens, image_mask)
        return self.adapter(tokens)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Our own layers; vision network and T5 initialise themselves.

        Linear layers are drawn as torch does by default, like EM-VLM4AD's: N(0, 0.02) would saturate the gates, which
        read 37,632 values. Embeddings are N(0, 0.02).
        """
        if isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, 0.0, self.config.initializer_range)
        elif isinstance(module, MixtureAdapter):
            module.reset_parameters()


AutoConfig.register("driving_t5", DrivingT5Config, exist_ok=True)
AutoModel.register(DrivingT5Config, DrivingT5, exist_ok=True)
AutoModelForImageTextToText.register(DrivingT5Config, DrivingT5, exist_ok=True)
