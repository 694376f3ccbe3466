"""Small vision-language models of a published family, from configurations: the Hugging Face classes are as they are.

    world_internvl_large   InternVL3's layout at the embedded world's size: a teacher of 8 blocks
    world_internvl_small   its student: 4 narrower blocks behind the same vision tower

As InternVL3-1B and -8B share InternViT-300M, both have one tower, one tokenizer and one number of image tokens: pictures of
112 pixels in patches of 14 are an 8 x 8 grid, of which pixel shuffle makes 16 tokens per view. Depths differ by a factor of
two and widths by 1.5, heads are grouped (GQA), and the language model is a Qwen2.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    InternVLVisionModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
)
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from drivedistill.models.hf_vlm import InternVLProcessor
from drivedistill.models.presets import load_part, merge, unknown_keys
from drivedistill.problems import InputError, Problem

STATISTICS = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
"""Mean and standard deviation of the channels: ImageNet's, as InternVL3 has them."""

SHUFFLE = 2
"""Patches of a row and of a column that become one image token."""

SPECIAL_TOKENS = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
"""What InternVL's processor asks its tokenizer for."""

PAD, TURN, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}{% if c['type'] == 'image' %}"
    "<IMG_CONTEXT>\n{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""InternVL3's template, without a system prompt."""

_TOWER = {
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "image_size": [112, 112],
    "patch_size": [14, 14],
    # Published towers average or take the class token; here the grid itself is used, so it is what gets the last norm.
    "use_mean_pooling": False,
    # The published 0.1 and 0.02 need many epochs before narrow blocks do anything.
    "layer_scale_init_value": 1.0,
    "initializer_range": 0.05,
}
_TEXT = {"num_key_value_heads": 2, "max_position_embeddings": 4096, "initializer_range": 0.05}

VLM_PRESETS: dict[str, dict[str, Any]] = {
    "world_internvl_large": {
        "vision": _TOWER,
        "text": {
            **_TEXT,
            "hidden_size": 192,
            "intermediate_size": 512,
            "num_hidden_layers": 8,
            "num_attention_heads": 6,
        },
    },
    "world_internvl_small": {
        "vision": _TOWER,
        "text": {
            **_TEXT,
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
        },
    },
}
"""Name -> `vision`, fields of `InternVLVisionConfig`, and `text`, fields of `Qwen2Config`."""


def build_tower_config(preset: str, image_size: int, overrides: Mapping[str, Any]) -> InternVLVisionConfig:
    """The configuration of a preset's vision tower.

    Args:
        preset: A key of `VLM_PRESETS`.
        image_size: Side of the pictures in pixels; a multiple of two patches.
        overrides: Fields to change: `{"vision": {...}, "text": {...}}`.

    Raises:
        InputError: A field is unknown, or the fields do not fit together.
    """
    if problems := list(_unknown(overrides)):
        raise InputError(problems)
    tree = copy.deepcopy(merge(VLM_PRESETS[preset]["vision"], overrides.get("vision", {})))
    tree["image_size"] = [image_size, image_size]
    try:
        config = InternVLVisionConfig(**tree)
    except (StrictDataclassError, ValueError, TypeError) as error:
        raise InputError(_unfit(error)) from error
    if any(image_size % (SHUFFLE * side) for side in config.patch_size):
        step = SHUFFLE * max(config.patch_size)
        expected, found = f"a multiple of {step}, two patches of the vision tower", str(image_size)
        raise InputError(Problem("recipe", "data.image_size", expected, found, "change it, or the tower's patch_size"))
    return config


def build_vlm(
    preset: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    image_size: int,
    overrides: Mapping[str, Any],
    attention: str = "sdpa",
) -> tuple[InternVLForConditionalGeneration, InternVLProcessor]:
    """A preset's model with random weights, and the processor that reads for it: one tile per picture.

    Args:
        preset: A key of `VLM_PRESETS`.
        tokenizer: Of `train_chat_tokenizer` with `SPECIAL_TOKENS`, or one that has them too.
        image_size: Side of the pictures in pixels.
        overrides: As for `build_tower_config`.
        attention: `sdpa` or `eager`.

    Raises:
        InputError: The tokenizer lacks a token, a field is unknown, or the fields do not fit together.
    """
    _require_special_tokens(tokenizer)
    vision = build_tower_config(preset, image_size, overrides)
    rows = image_size // vision.patch_size[0] // SHUFFLE
    ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = merge(VLM_PRESETS[preset]["text"], overrides.get("text", {}))
    if text["num_attention_heads"] % text["num_key_value_heads"]:
        raise InputError(_unfit("`num_attention_heads` is no multiple of `num_key_value_heads`"))
    try:
        config = InternVLConfig(
            vision_config=vision,
            text_config=Qwen2Config(**{"vocab_size": len(tokenizer), **text}, **ends),
            image_token_id=tokenizer.context_image_token_id,
            image_seq_length=rows**2,
            downsample_ratio=1 / SHUFFLE,
        )
        config._attn_implementation = attention
        model = InternVLForConditionalGeneration(config)
    except (StrictDataclassError, ValueError, TypeError, RuntimeError) as error:
        raise InputError(_unfit(error)) from error
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    mean, std = STATISTICS
    side = {"height": image_size, "width": image_size}
    images = GotOcr2ImageProcessorPil(size=side, crop_to_patches=False, image_mean=mean, image_std=std)
    return model, InternVLProcessor(images, tokenizer, image_seq_length=rows**2, chat_template=CHAT)


def load_tower_weights(model: InternVLForConditionalGeneration, name: str) -> None:
    """Fill the vision tower from a folder of `drivedistill pretrain`, a directory or a hub id (safetensors only).

    Raises:
        InputError: It cannot be loaded, or is another network than the configuration says; every difference is listed.
    """
    inside = Path(name) / "model"
    folder = str(inside) if (inside / "config.json").is_file() else name
    tower = model.model.vision_tower
    loaded = load_part(InternVLVisionModel, tower.config, folder, "an InternVL vision tower in safetensors")
    tower.load_state_dict(loaded.state_dict())


def _require_special_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    """Pictures and turns need tokens of their own."""
    missing = [name for name in SPECIAL_TOKENS if getattr(tokenizer, name, None) is None]
    known = tokenizer.get_vocab()
    missing += [token for token in (PAD, TURN, END) if token not in known]
    if missing or tokenizer.eos_token != END:
        found = f"one without {', '.join(missing)}" if missing else f"the end token {tokenizer.eos_token!r}"
        remedy = "use InternVL's, or leave `model.tokenizer` empty to train one"
        raise InputError(Problem("recipe", "model.tokenizer", "a tokenizer of InternVL's family", found, remedy))


def _unknown(overrides: Mapping[str, Any]) -> Iterator[Problem]:
    kinds = {"vision": InternVLVisionConfig, "text": Qwen2Config}
    levels = [("", overrides, set(kinds))]
    levels += [
        (f"{part}.", overrides.get(part, {}), {item.name for item in fields(kind)} - {"image_size"})
        for part, kind in kinds.items()
    ]
    return unknown_keys(levels)


def _unfit(error: Exception | str) -> Problem:
    found = " ".join(str(error).split())
    return Problem("recipe", "model.overrides", "fields that fit together", found, "correct the field")
