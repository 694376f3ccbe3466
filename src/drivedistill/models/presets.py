"""Ready architectures of the `DrivingT5` family, and the published weights that fill them.

    em_vlm4ad_base         EM-VLM4AD-Base, what it uses                                234,938,241 parameters
    em_vlm4ad_base_stored  the same with the ViT-B/32 blocks that never run            320,763,241
    em_vlm4ad_small        "EM-VLM4AD-Small" of CLKD's tables = CLKD's teacher          98,823,651
    em_vlm4ad_qlarge       EM-VLM4AD-QLarge, to which LoRA adds 18,874,368             836,315,753
    minidrive224           MiniDrive, a re-implementation, with UniRepLKNet-N           82,890,380
    minidrive384           the same with UniRepLKNet-S at 384 pixels                   121,781,708
    paper_a                CLKD's student: gated pooling, linear adapter; modal embeddings are counted,
                           camera embeddings there are none                             63,047,246
    paper_b                CLKD's student: concatenated views, MLP adapter; neither modal nor camera
                           embeddings                                                   61,325,110
    tiny                   from scratch in about a minute on two cores, 64-96 pixels
    tiny_student           tiny with half of the T5 blocks
    tiny_minidrive         MiniDrive at the size of tiny
    demo                   the quickstart's teacher: a pyramid tower, one token per view and per named place

CLKD prints 61.3 for its student and 63.5 with experts, in units of 2^20 elsewhere, and does not say of what. Both readings
have T5-Small with 3 + 3 blocks and a Swin-T without ImageNet head; a is exact in 2^20, b close in 10^6:

    paper_a    Swin [1, 1, 3, 1], LoRA r = 64 on q and v     64,226,894 = 61.25 * 2^20
               and the linear adapter as 7 experts           66,594,645 = 63.51 * 2^20
    paper_b    Swin [2, 2, 3, 2]                             61,325,110 = 61.33 * 10^6
               and the MLP adapter as 4 experts              63,297,338 = 63.30 * 10^6

Totals: EM-VLM4AD (arXiv 2403.19838) prints 235M for what is used. CLKD (ICRA 2026) counts whole modules in units of
2^20: 94 for the small one, whose Swin-T keeps its ImageNet head, and 816 for QLarge with LoRA (855,190,121). MiniDrive
(arXiv 2409.07267, no public code) prints 83M and 137M without naming its UniRepLKNet: N meets the first, and no variant
the second (S gives 122M, B 168M).
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drivedistill.problems import InputError, Problem, unavailable

if TYPE_CHECKING:
    from drivedistill.models.driving_t5 import DrivingT5
    from drivedistill.models.driving_t5_config import DrivingT5Config

_VIT_B_32 = {"model_type": "vit", "patch_size": 32, "image_size": 224, "layer_norm_eps": 1e-6}
_UNIREPLKNET_N = {"model_type": "unireplknet", "image_size": 224}
_UNIREPLKNET_S = {
    "model_type": "unireplknet",
    "image_size": 384,
    "depths": [3, 3, 27, 3],
    "hidden_sizes": [96, 192, 384, 768],
    "large_every": [0, 1, 3, 1],
}
_SWIN_T = {"model_type": "swin", "image_size": 224}
_T5_BASE = {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12, "vocab_size": 32128}
_T5_SMALL = {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8, "vocab_size": 32128}
_T5_SMALL_HALF = {**_T5_SMALL, "num_layers": 3}
_T5_LARGE = {"d_model": 1024, "d_kv": 64, "d_ff": 4096, "num_layers": 24, "num_heads": 16, "vocab_size": 32128}
_MINIDRIVE = {
    "fusion": "feature_experts",
    "fusion_experts": 4,
    "tokens_per_view": 16,
    "interaction": True,
    "modal_embeddings": False,
}
_TINY: dict[str, Any] = {
    "text": {
        "d_model": 128,
        "d_kv": 32,
        "d_ff": 256,
        "num_layers": 4,
        "num_heads": 4,
        "vocab_size": 1024,
        "dropout_rate": 0.0,
    },
    "vision": {
        "model_type": "convnext",
        "image_size": 64,
        "num_stages": 3,
        "depths": [1, 1, 1],
        "hidden_sizes": [32, 64, 128],
        # The published 1e-6 needs hundreds of epochs before the blocks do anything.
        "layer_scale_init_value": 1.0,
    },
    "fusion_hidden": 32,
}
_TINY_UNIREPLKNET = {
    "model_type": "unireplknet",
    "image_size": 64,
    "depths": [1, 1, 1],
    "hidden_sizes": [32, 64, 128],
    "large_every": [0, 1, 1],
    "large_kernel": 7,
    # The published 0.02 suits networks that batch norms keep awake while they train; blocks this narrow would sleep.
    "initializer_range": 0.1,
}

_DEMO: dict[str, Any] = {
    "text": {
        "d_model": 128,
        "d_kv": 32,
        "d_ff": 512,
        "num_layers": 4,
        "num_heads": 4,
        "vocab_size": 1024,
        "dropout_rate": 0.0,
    },
    "vision": {"model_type": "pyramid", "image_size": 112},
    "grid_tokens": 16,
    "fusion_hidden": 32,
}

PRESETS: dict[str, dict[str, Any]] = {
    "em_vlm4ad_base": {"text": _T5_BASE, "vision": _VIT_B_32, "vision_blocks": False, "adapter": "none"},
    "em_vlm4ad_base_stored": {
        "text": _T5_BASE,
        "vision": _VIT_B_32,
        "vision_blocks": False,
        "vision_stored": "full",
        "adapter": "none",
    },
    "em_vlm4ad_small": {"text": _T5_SMALL, "vision": _SWIN_T, "vision_classes": 1000},
    "paper_a": {"text": _T5_SMALL_HALF, "vision": {**_SWIN_T, "depths": [1, 1, 3, 1]}},
    "paper_b": {
        "text": _T5_SMALL_HALF,
        "vision": {**_SWIN_T, "depths": [2, 2, 3, 2]},
        "fusion": "concatenation",
        "tokens_per_view": 49,
        "adapter": "mlp",
        "modal_embeddings": False,
        "camera_embeddings": False,
    },
    "em_vlm4ad_qlarge": {"text": _T5_LARGE, "vision": _VIT_B_32, "vision_blocks": False, "vision_stored": "full"},
    # Half of the map's channels between an expert's two layers is our choice; the paper does not say.
    "minidrive224": {**_MINIDRIVE, "text": _T5_SMALL, "vision": _UNIREPLKNET_N, "fusion_hidden": 320},
    "minidrive384": {**_MINIDRIVE, "text": _T5_SMALL, "vision": _UNIREPLKNET_S, "fusion_hidden": 384},
    "tiny": _TINY,
    "tiny_student": {**_TINY, "text": {**_TINY["text"], "num_layers": 2}},
    "demo": _DEMO,
    "tiny_minidrive": {**_MINIDRIVE, "text": _TINY["text"], "vision": _TINY_UNIREPLKNET, "fusion_hidden": 32},
}
"""Name -> fields of `DrivingT5Config`."""

_IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
_HALF = ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])
STATISTICS = {"vit": _HALF, "swin": _IMAGENET, "convnext": _IMAGENET, "unireplknet": _IMAGENET, "pyramid": _HALF}
"""Mean and standard deviation of the channels, by vision network. EM-VLM4AD: (x - 127.5) / 127.5 on 0-255."""

_SAME_VALUES = {
    "t5": ("feed_forward_proj", "relative_attention_max_distance", "scale_decoder_outputs", "num_heads"),
    "vit": ("hidden_act", "num_attention_heads"),
    "swin": ("hidden_act", "num_heads", "window_size"),
    "convnext": ("hidden_act",),
    "pyramid": (),
    "internvl_vision": ("hidden_act", "num_attention_heads", "norm_type", "layer_norm_eps"),
}
"""Fields that change what a network computes and that the shapes of its weights may not betray."""

_OTHER = "name weights of the same architecture, or change the preset or model.overrides to match them"


def build_config(
    preset: str,
    *,
    vocab_size: int | None = None,
    image_size: int | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> DrivingT5Config:
    """The configuration of a preset.

    Args:
        preset: A key of `PRESETS`.
        vocab_size: Size of the tokenizer; None keeps the preset's. `overrides.text.vocab_size` may exceed it.
        image_size: Side of the pictures in pixels; None keeps the preset's.
        overrides: Fields to change, nested as in `DrivingT5Config`: `{"text": {"num_layers": 3}}`. A new
            `vision.model_type` replaces the preset's vision part.

    Raises:
        InputError: The preset or a field is unknown, or the fields do not fit together.
    """
    from huggingface_hub.errors import StrictDataclassError

    from drivedistill.models.driving_t5_config import DrivingT5Config

    if preset not in PRESETS:
        known = f"one of {', '.join(PRESETS)}"
        raise InputError(Problem("recipe", "model.preset", known, repr(preset), "correct the name"))
    tree = copy.deepcopy(PRESETS[preset])
    if vocab_size is not None:
        tree["text"]["vocab_size"] = vocab_size
    if image_size is not None:
        tree["image_size"] = image_size
    overrides = overrides or {}
    problems = [*_bad_keys(tree, overrides), *_two_sizes(image_size, overrides)]
    if problems:
        raise InputError(problems)
    try:
        return DrivingT5Config(**merge(tree, overrides))
    except (StrictDataclassError, ValueError, TypeError) as error:
        found = " ".join(str(error).split())
        problem = Problem("recipe", "model.overrides", "fields that fit together", found, "correct the field")
        raise InputError(problem) from error


def image_statistics(config: DrivingT5Config) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel (pictures scaled to 0-1) for the image processor."""
    mean, std = STATISTICS[config.vision.model_type]
    return list(mean), list(std)


def load_text_weights(model: DrivingT5, name: str) -> None:
    """Fill the T5 part from a directory or hub id of a T5 (safetensors only).

    Raises:
        InputError: It cannot be loaded, or is another T5 than the configuration says; every difference is listed.
    """
    from transformers import T5ForConditionalGeneration

    loaded = load_part(T5ForConditionalGeneration, model.config.text, name, "a T5 model in safetensors")
    model.language_model.load_state_dict(loaded.state_dict())


def load_vision_weights(model: DrivingT5, name: str) -> None:
    """Fill the vision part from a directory or hub id of a ViT, Swin, ConvNeXt, UniRepLKNet or pyramid (safetensors only).

    A folder of `drivedistill pretrain` stands for the tower in its `model/`.
    Takes base models and classifiers; a stored classification head is filled too. With `vision_blocks: false` the
    checkpoint's blocks are left out, unless the model stores them.

    Raises:
        InputError: It cannot be loaded, or is another network than the configuration says; every difference is listed.
    """
    from transformers import ConvNextForImageClassification, SwinForImageClassification, ViTForImageClassification

    from drivedistill.models.large_kernel_weights import load_large_kernel_weights

    vision, config = model.vision, copy.deepcopy(model.vision.model.config)
    if vision.kind == "unireplknet":
        load_large_kernel_weights(vision.model, name)
        return
    if vision.head is None:
        if vision.kind == "pyramid" and (Path(name) / "model" / "config.json").is_file():
            name = str(Path(name) / "model")
        options = {} if vision.kind in ("convnext", "pyramid") else {"add_pooling_layer": False}
        may_skip = r"pooler|classifier|mask_token" + ("" if vision.stores_blocks else r"|layers\.|layernorm")
        loaded = load_part(type(vision.model), config, name, f"a {vision.kind} in safetensors", may_skip, **options)
        kept = vision.model.state_dict()
        vision.model.load_state_dict({key: value for key, value in loaded.state_dict().items() if key in kept})
        return
    config.num_labels = vision.head.out_features
    classifiers = {
        "vit": ViTForImageClassification,
        "swin": SwinForImageClassification,
        "convnext": ConvNextForImageClassification,
    }
    what = f"a {vision.kind} classifier in safetensors"
    loaded = load_part(classifiers[vision.kind], config, name, what, r"pooler|mask_token")
    vision.model.load_state_dict(loaded.base_model.state_dict())
    vision.head.load_state_dict(loaded.classifier.state_dict())


def load_part(kind: Any, config: Any, name: str, what: str, may_skip: str = r"$^", **options: Any) -> Any:
    """`from_pretrained` that tolerates no difference but `may_skip`, a pattern of tensors left out.

    Args:
        kind: The class.
        config: What the part must be.
        name: Directory or hub id.
        what: The part, in words.
        may_skip: Tensors of the file that are not needed.
        **options: For the class.

    Raises:
        InputError: It cannot be loaded, or is another network than the configuration says; every difference is listed.
    """
    from safetensors import SafetensorError
    from transformers import AutoConfig

    config = copy.deepcopy(config)
    config._attn_implementation = None
    try:
        theirs = AutoConfig.from_pretrained(name)
        problems = list(_other_values(name, config, theirs))
        if problems:
            raise InputError(problems)
        loaded, info = kind.from_pretrained(
            name,
            config=config,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise InputError(unavailable(name, what, error)) from error
    problems = [Problem(name, key, "a tensor", "nothing", _OTHER) for key in sorted(info["missing_keys"])]
    for key, found, expected in sorted(info["mismatched_keys"]):
        problems.append(Problem(name, key, f"shape {tuple(expected)}", f"shape {tuple(found)}", _OTHER))
    for key in sorted(key for key in info["unexpected_keys"] if not re.search(may_skip, key)):
        problems.append(Problem(name, key, "no such tensor", "a tensor that the model has no place for", _OTHER))
    if problems:
        raise InputError(problems)
    return loaded


def _other_values(name: str, ours: Any, theirs: Any) -> Iterator[Problem]:
    if theirs.model_type != ours.model_type:
        yield Problem(name, "config.json: model_type", repr(ours.model_type), repr(theirs.model_type), _OTHER)
        return
    for key in _SAME_VALUES[ours.model_type]:
        expected, found = getattr(ours, key), getattr(theirs, key)
        # A sequence is a tuple in a default and a list in a file.
        if expected != found and not (isinstance(expected, list | tuple) and list(expected) == list(found)):
            yield Problem(name, f"config.json: {key}", repr(expected), repr(found), _OTHER)


def merge(tree: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A preset with fields changed, level by level; another `model_type` replaces its level."""
    merged = dict(tree)
    for key, value in overrides.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            replaced = value.get("model_type", old.get("model_type")) != old.get("model_type")
            merged[key] = dict(value) if replaced else merge(old, value)
        else:
            merged[key] = value
    return merged


def _bad_keys(tree: Mapping[str, Any], overrides: Mapping[str, Any]) -> Iterator[Problem]:
    """Unknown fields at every level."""
    from transformers import T5Config

    from drivedistill.models.driving_t5_config import DrivingT5Config
    from drivedistill.models.vision import VISION_MODELS

    vision = overrides.get("vision", {})
    kind = vision.get("model_type", tree["vision"]["model_type"]) if isinstance(vision, Mapping) else None
    if kind not in VISION_MODELS:
        known = f"a mapping with `model_type`, one of {', '.join(VISION_MODELS)}"
        yield Problem("recipe", "model.overrides.vision", known, repr(vision), "correct the value")
        return
    own = set(DrivingT5Config.__annotations__) - {"sub_configs"}
    levels: list[tuple[str, Any, set[str]]] = [
        ("", overrides, own),
        ("text.", overrides.get("text", {}), {field.name for field in fields(T5Config)}),
        ("vision.", vision, {field.name for field in fields(VISION_MODELS[kind].config_class)} | {"model_type"}),
    ]
    yield from unknown_keys(levels)


def unknown_keys(levels: Sequence[tuple[str, Any, set[str]]]) -> Iterator[Problem]:
    """What of `model.overrides` is no field: levels are a prefix, what was given, and the fields that there are."""
    for prefix, level, known_keys in levels:
        if not isinstance(level, Mapping):
            yield Problem("recipe", f"model.overrides.{prefix[:-1]}", "a mapping", repr(level), "give fields to change")
            continue
        for key in level:
            if key not in known_keys:
                near = difflib.get_close_matches(str(key), known_keys, n=3)
                hint = f"did you mean {' or '.join(near)}?" if near else "remove the key"
                yield Problem("recipe", f"model.overrides.{prefix}{key}", "a known field", "an unknown one", hint)


def _two_sizes(image_size: int | None, overrides: Mapping[str, Any]) -> Iterator[Problem]:
    """Pictures have one size, and the data section says which."""
    vision = overrides.get("vision")
    places = {"image_size": overrides}
    if isinstance(vision, Mapping):
        places["vision.image_size"] = vision
    for place, level in places.items():
        other = level.get("image_size")
        if image_size is not None and other not in (None, image_size):
            expected = f"{image_size}, as data.image_size says"
            yield Problem("recipe", f"model.overrides.{place}", expected, repr(other), "set data.image_size alone")
