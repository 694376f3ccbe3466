"""Published decoder-only models exactly as Hugging Face ships them: InternVL3, Qwen2.5-VL, LLaVA.

Nothing of the models is changed, unless the configuration that lies beside the weights asks for experts (`ffn_experts`,
`adapter_experts`: such a model was converted here). What is ours is a way around torchvision: their processors insist on
a video processor, which needs it, although a still picture does not.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoConfig, LlavaProcessor
from transformers import InternVLProcessor as _InternVLProcessor
from transformers import Qwen2_5_VLProcessor as _Qwen2_5_VLProcessor
from transformers.utils import cached_file

from drivedistill.problems import InputError, Problem, unavailable
from drivedistill.sections import AdapterExperts, FfnExperts


# The classes keep the official names, so that what they save loads anywhere; their signature has no `video_processor`,
# because the base class loads every processor that the signature names.
class InternVLProcessor(_InternVLProcessor):
    """InternVL's processor for still pictures."""

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        image_seq_length: int = 256,
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_processor, tokenizer, None, image_seq_length, chat_template=chat_template, **kwargs)


class Qwen2_5_VLProcessor(_Qwen2_5_VLProcessor):
    """Qwen2.5-VL's processor for still pictures."""

    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(image_processor, tokenizer, None, chat_template=chat_template, **kwargs)


PROCESSORS: dict[str, type] = {
    "internvl": InternVLProcessor,
    "qwen2_5_vl": Qwen2_5_VLProcessor,
    "llava": LlavaProcessor,
}
"""Supported families by `model_type`."""


def load_vlm(name: str, *, attention: str = "sdpa", dtype: str = "float32", weights: bool = True) -> Any:
    """A model of a supported family from a directory or hub id; safetensors only, no remote code.

    Without `weights` it stays on the meta device: it has shapes and takes no memory.

    Raises:
        InputError: It cannot be loaded, or its family is not supported.
    """
    try:
        config = AutoConfig.from_pretrained(name)
        _supported(name, config.model_type)
        published = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)]
        kind = _with_experts(published, config) if has_experts(config) else published
        if not weights:
            with torch.device("meta"):
                return kind(config)
        model, info = kind.from_pretrained(
            name, attn_implementation=attention, dtype=dtype, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(unavailable(name, "a vision-language model", error)) from error
    if not has_experts(config):
        info["unexpected_keys"] = ()  # published checkpoints may hold more than is used
    require_all_tensors(name, info)
    model.__class__ = published
    freeze_never_run(model)
    return model


def has_experts(config: Any) -> bool:
    """Whether a configuration says that layers of experts take the place of dense ones."""
    return any(getattr(config, field, None) is not None for field in ("adapter_experts", "ffn_experts"))


def _with_experts(published: Any, config: Any) -> Any:
    """A sub-class that is built with the layers of experts which its configuration names, for `from_pretrained`.

    It has the published class's name and module, by which transformers finds how tensors are named in files.
    """
    from drivedistill.models.adapter import install_adapter
    from drivedistill.models.upcycle import install_ffn

    adapter = AdapterExperts(**config.adapter_experts) if getattr(config, "adapter_experts", None) else None
    ffn = FfnExperts(**config.ffn_experts) if getattr(config, "ffn_experts", None) else None

    def build(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        published.__init__(self, config, *args, **kwargs)
        if adapter:
            install_adapter(self, adapter)
        if ffn:
            install_ffn(self, ffn)

    return type(published.__name__, (published,), {"__init__": build, "__module__": published.__module__})


def require_all_tensors(name: str, info: dict[str, Any]) -> None:
    """Nothing may stay random because a file lacks it.

    Args:
        name: Directory or hub id.
        info: The loading information of `from_pretrained`.

    Raises:
        InputError: Tensors are missing or have no place in the model; each is listed.
    """
    remedy = "the weights belong to another config.json; take both from the same model"
    missing = [Problem(name, key, "a tensor", "nothing", remedy) for key in sorted(info["missing_keys"])]
    extra = [Problem(name, key, "no such tensor", "a tensor", remedy) for key in sorted(info["unexpected_keys"])]
    if missing or extra:
        raise InputError([*missing, *extra])


def freeze_never_run(model: Any) -> None:
    """LLaVA reads an inner layer of its vision tower; what lies behind never runs, and DDP would wait for its gradients."""
    if model.config.model_type != "llava":
        return
    tower = model.model.vision_tower
    tower = getattr(tower, "vision_model", tower)
    layers = tower.encoder.layers
    chosen = model.config.vision_feature_layer
    last = max(
        index if index >= 0 else len(layers) + 1 + index for index in ([chosen] if isinstance(chosen, int) else chosen)
    )
    for module in (*layers[last:], tower.post_layernorm):
        module.requires_grad_(False)


def load_processor(name: str) -> Any:
    """The family's processor from a directory or hub id, without torchvision.

    `AutoProcessor` would silently hand back a bare tokenizer where it does not know a class name.
    """
    try:
        kind = AutoConfig.from_pretrained(name).model_type
        _supported(name, kind)
        return PROCESSORS[kind].from_pretrained(name)  # type: ignore[attr-defined]
    except (OSError, ValueError) as error:
        raise InputError(unavailable(name, "a processor", error)) from error


def _supported(name: str, kind: str) -> None:
    if kind not in PROCESSORS:
        found = f"model_type `{kind}`"
        raise InputError(Problem(name, "config.json", f"one of {', '.join(PROCESSORS)}", found, "use another model"))


def keep_video_entry(source: str, folder: Path) -> None:
    """Copy the video processor's settings from a model's source to where it is saved.

    They are not read here, since that needs torchvision; without them, elsewhere, `AutoProcessor` could not load the
    saved model.
    """
    if standalone := _source_file(source, "video_preprocessor_config.json"):
        (folder / standalone.name).write_bytes(standalone.read_bytes())
    combined = _source_file(source, "processor_config.json")
    video = json.loads(combined.read_text("utf-8")).get("video_processor") if combined else None
    if video is not None:
        target = folder / "processor_config.json"
        settings = json.loads(target.read_text("utf-8")) if target.is_file() else {}
        target.write_text(json.dumps({**settings, "video_processor": video}, indent=2) + "\n", "utf-8")


def _source_file(source: str, name: str) -> Path | None:
    found = cached_file(source, name, _raise_exceptions_for_missing_entries=False)
    return Path(found) if found else None
