"""Decoder-only students with experts, in layouts that others read: Mixtral for Llama and Mistral, Qwen2-MoE for Qwen2.

    published_text(load_vlm("runs/student/model")).save_pretrained("student-text")     MixtralForCausalLM, Qwen2MoeForCausalLM
    published(load_vlm("runs/student/model")).save_pretrained("student-hf")            LLaVA or InternVL around one of them

What is written needs no code of ours, and says the same: whole copies (`kind: upcycle`) chosen by top-k, weights that sum to 1.

    ours         router.linear [E, d]   expert_gate, expert_up, expert_down [E, H, d]
    published    gate [E, d]            experts.gate_up_proj [E, 2H, d], experts.down_proj [E, d, H]

Mixtral has experts in every layer. Qwen2-MoE may have dense layers in between (`mlp_only_layers`), divides the weights of the
chosen by their sum only with `norm_topk_prob`, and adds a shared expert to every layer of experts. A converted model has none,
so it is written with zeros, `SHARED` hidden units wide: it adds nothing, and since its gradient is zero too, it stays so.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import MixtralConfig, MixtralForCausalLM, Qwen2MoeConfig, Qwen2MoeForCausalLM

from drivedistill.models.mixture import Mixture
from drivedistill.models.moe import FeedForwardExperts
from drivedistill.problems import InputError, Problem

SHARED = 64
"""Hidden units of Qwen2-MoE's shared expert, all zero; one would do, but engines split them among devices."""

LAYOUTS: dict[str, tuple[type, type]] = {
    "llama": (MixtralConfig, MixtralForCausalLM),
    "mistral": (MixtralConfig, MixtralForCausalLM),
    "qwen2": (Qwen2MoeConfig, Qwen2MoeForCausalLM),
}
"""The language model's own `model_type` -> the layout that holds it with experts."""


@torch.no_grad()
def published_text(model: Any) -> Any:
    """The language model of a converted vision-language model, as the unmodified Hugging Face class.

    Args:
        model: As `load_vlm` gives it, with feed-forward experts and without LoRA.

    Returns:
        `MixtralForCausalLM` or `Qwen2MoeForCausalLM` with weights of its own: logits are equal for `input_ids` and for
        `inputs_embeds`, up to rounding where the weights are not float32, since only our routers compute in float32 then.

    Raises:
        InputError: It has something that the layout cannot hold; every finding is named.
    """
    text, layers = model.config.text_config, model.model.language_model.layers
    if problems := [*_unpublishable(model, layers)]:
        raise InputError(problems)
    config_class, model_class = LAYOUTS[text.model_type]
    tied = model.lm_head.weight is model.model.language_model.embed_tokens.weight
    written = model_class(_config(text, layers, config_class, tied)).to(model.dtype).train(model.training)
    state = {f"model.{name}": tensor for name, tensor in model.model.language_model.state_dict().items()}
    for index, layer in enumerate(layers):
        if isinstance(layer.mlp, FeedForwardExperts):
            place = f"model.layers.{index}.mlp."
            state = {name: tensor for name, tensor in state.items() if not name.startswith(place)}
            state |= {place + name: tensor for name, tensor in _tensors(layer.mlp, config_class)}
    written.load_state_dict(state | {"lm_head.weight": model.lm_head.weight})
    written.generation_config = copy.deepcopy(model.generation_config)
    return written


@torch.no_grad()
def published(model: Any) -> Any:
    """The whole converted model as the unmodified Hugging Face class, its language model in the published layout.

    Raises:
        InputError: As `published_text`.
    """
    text = published_text(model)
    config = copy.deepcopy(model.config)
    config.text_config, config.ffn_experts = text.config, None
    config.tie_word_embeddings = text.config.tie_word_embeddings
    written = type(model)(config).to(model.dtype).train(model.training)
    state = {name: tensor for name, tensor in model.state_dict().items() if ".language_model." not in name}
    inner = {f"model.language_model.{name}": tensor for name, tensor in text.model.state_dict().items()}
    written.load_state_dict(state | inner)
    written.generation_config = copy.deepcopy(model.generation_config)
    return written


def _config(text: Any, layers: nn.ModuleList, kind: type, tied: bool) -> Any:
    """The dense language model's settings, as far as the layout knows them, and those of its experts."""
    ours, known = text.to_dict(), kind().to_dict().keys() - {"model_type", "architectures", "transformers_version"}
    settings = {name: ours[name] for name in known & ours.keys()} | {"tie_word_embeddings": tied}
    experts = next(layer.mlp for layer in layers if isinstance(layer.mlp, FeedForwardExperts))
    hidden = experts.expert_up.shape[1]
    settings["num_experts_per_tok"] = experts.router.k
    if kind is MixtralConfig:
        return kind(**settings | {"num_local_experts": experts.num_experts, "intermediate_size": hidden})
    dense = [index for index, layer in enumerate(layers) if not isinstance(layer.mlp, FeedForwardExperts)]
    settings |= {"num_experts": experts.num_experts, "moe_intermediate_size": hidden, "norm_topk_prob": True}
    return kind(**settings, shared_expert_intermediate_size=SHARED, mlp_only_layers=dense)


def _tensors(experts: FeedForwardExperts, kind: type) -> Iterator[tuple[str, Tensor]]:
    """A layer's weights under the published names."""
    assert experts.expert_gate is not None
    yield "gate.weight", experts.router.linear.weight
    yield "experts.gate_up_proj", torch.cat([experts.expert_gate, experts.expert_up], dim=1)
    yield "experts.down_proj", experts.expert_down.transpose(1, 2)
    if kind is Qwen2MoeConfig:
        width = experts.expert_up.shape[2]
        empty = experts.expert_up.new_zeros(SHARED, width)
        yield "shared_expert.gate_proj.weight", empty
        yield "shared_expert.up_proj.weight", empty
        yield "shared_expert.down_proj.weight", empty.T
        yield "shared_expert_gate.weight", empty[:1]


def _unpublishable(model: Any, layers: nn.ModuleList) -> Iterator[Problem]:
    """Everything that the layout of the model's family cannot hold."""
    config, text = model.config, model.config.text_config
    name = f"{type(model).__name__} ({text.model_type})"
    spec = getattr(config, "ffn_experts", None)
    if text.model_type not in LAYOUTS:
        expected = f"a language model of {', '.join(LAYOUTS)}, whose positions are plain numbers"
        yield Problem(
            name, "text_config.model_type", expected, text.model_type, "write it with save_pretrained as it is"
        )
        return
    if getattr(config, "adapter_experts", None) is not None:
        expected, found = "a dense adapter; no published layout has experts there", "adapter experts"
        yield Problem(name, "adapter_experts", expected, found, "convert a model without model.adapter_experts")
    if spec is None:
        yield Problem(name, "ffn_experts", "feed-forward experts", "a dense model", "it is published as it is")
        return
    allowed = {"kind": ("upcycle", "whole copies"), "router": ("top_k", "the likeliest k, with weights that sum to 1")}
    for field, (value, words) in allowed.items():
        if spec[field] != value:
            yield Problem(name, f"ffn_experts.{field}", f"{value}: {words}", str(spec[field]), f"convert with {value}")
    mixtures = {index: layer.mlp for index, layer in enumerate(layers) if isinstance(layer.mlp, Mixture)}
    dense = [index for index in range(len(layers)) if index not in mixtures]
    if dense and LAYOUTS[text.model_type][0] is MixtralConfig:
        found = f"dense layers {', '.join(map(str, dense))}"
        yield Problem(name, "ffn_experts.layers", "all, as in Mixtral", found, "convert with layers: all")
    if biased := [index for index, layer in mixtures.items() if _has_bias(layer)]:
        expected, found = "no bias in routers and experts", f"one in layers {', '.join(map(str, biased))}"
        yield Problem(
            name, "ffn_experts.router_bias", expected, found, "convert a model without biases, router_bias: false"
        )
    if getattr(text, "attention_bias", False):
        yield Problem(name, "text_config.attention_bias", "false, as in Mixtral", "true", "choose another base model")


def _has_bias(layer: Mixture) -> bool:
    """Whether a layer adds anything that is not a product; a router's bias of zeros adds nothing."""
    bias = layer.router.linear.bias
    stacked = any("_bias" in name for name, _ in layer.named_parameters())
    return stacked or (bias is not None and bool(bias.any()))
