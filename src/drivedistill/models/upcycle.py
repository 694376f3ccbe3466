"""From dense feed-forward layers to mixtures of experts.

`convert_ffn` starts from a trained dense model (sparse upcycling, arXiv 2212.05055; LLaVA-MoD, arXiv 2408.15881); `install_ffn`
makes the same structure for weights that are loaded afterwards. Both work for `DrivingT5` (encoder and decoder) and for the
language models of the supported vision-language models, never for vision towers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from drivedistill import sections as cards
from drivedistill.models.mixture import Mixture
from drivedistill.models.moe import FeedForwardExperts, experts_like, parts_of
from drivedistill.problems import InputError, Problem


@dataclass
class Place:
    """Where a feed-forward layer sits."""

    owner: nn.Module
    attribute: str

    @property
    def layer(self) -> nn.Module:
        """What sits there."""
        return getattr(self.owner, self.attribute)

    @layer.setter
    def layer(self, layer: nn.Module) -> None:
        setattr(self.owner, self.attribute, layer)


Stacks = dict[str, list[Place]]
Fill = Callable[[FeedForwardExperts, nn.Module, cards.FfnExperts], None]


@torch.no_grad()
def convert_ffn(model: Any, spec: cards.FfnExperts) -> None:
    """Replace feed-forward layers of a dense model by experts that start from their weights; in place.

    Routers start near uniform. `init_noise` draws from torch's global generator. The spec is recorded in
    `model.config.ffn_experts`, by which `from_pretrained` builds the same structure.

    When the result equals the dense model is told in `models/moe.py`.

    Args:
        model: `DrivingT5` or a supported vision-language model, without PEFT.
        spec: Experts, their kind and router, and the layers that get them.

    Raises:
        InputError: The model already has experts or has no layer of the given index, the layers cannot be split evenly,
            or noise is asked for where it has no meaning. The model is then unchanged.
    """
    _replace(model, spec, _upcycle)
    model.config.ffn_experts = spec.model_dump(mode="json")


@torch.no_grad()
def install_ffn(model: Any, spec: cards.FfnExperts) -> None:
    """The structure that `convert_ffn` makes, for weights to be loaded into, or to be trained from random weights.

    Every expert is drawn by itself, with the standard deviations of the dense layer; on the meta device nothing is drawn.

    Raises:
        InputError: As `convert_ffn`.
    """
    _replace(model, spec, _draw)


def _replace(model: Any, spec: cards.FfnExperts, fill: Fill) -> None:
    stacks = _stacks(model)
    places = [stack[index] for stack in stacks.values() for index in _indices(spec.layers, len(stack))]
    problems = [*_absent(stacks, places, spec), *_unfit(places, spec)]
    if problems:
        raise InputError(problems)
    for place in places:
        experts = experts_like(place.layer, spec)
        if isinstance(experts, FeedForwardExperts):
            fill(experts, place.layer, spec)
        place.layer = experts


def _sources(experts: FeedForwardExperts, dense: nn.Module) -> list[tuple[str, Tensor, Tensor]]:
    """Every stack `[E, H, d]` or `[E, H]` with its name and the dense tensor, of F hidden units, that it comes from."""
    parts = parts_of(dense)
    assert parts is not None
    up, down = getattr(dense, parts.up), getattr(dense, parts.down)
    sources = {"up": up.weight, "up_bias": up.bias, "down": down.weight.T, "down_bias": down.bias}
    if parts.gate is not None:
        gate = getattr(dense, parts.gate)
        sources |= {"gate": gate.weight, "gate_bias": gate.bias}
    count = experts.num_experts
    stacks = {name: getattr(experts, f"expert_{name}") for name, source in sources.items() if source is not None}
    return [(name, stack.view(count, -1, *stack.shape[2:]), sources[name]) for name, stack in stacks.items()]


def _upcycle(experts: FeedForwardExperts, dense: nn.Module, spec: cards.FfnExperts) -> None:
    """Copies, or slices of the hidden units; the bias of the output, which has no hidden units, is shared out evenly."""
    for name, stack, source in _sources(experts, dense):
        if spec.kind == "upcycle":
            stack.copy_(source.expand_as(stack))
        elif name == "down_bias":
            stack.copy_((source / spec.experts).expand_as(stack))
        else:
            stack.copy_(source.unflatten(0, (spec.experts, -1)))
        if spec.init_noise:
            stack.add_(torch.randn_like(stack) * (spec.init_noise * source.std(correction=0)))


def _draw(experts: FeedForwardExperts, dense: nn.Module, _spec: cards.FfnExperts) -> None:
    for _name, stack, source in _sources(experts, dense):
        stack.copy_(torch.randn_like(stack) * source.std(correction=0))


def _absent(stacks: Stacks, places: list[Place], spec: cards.FfnExperts) -> list[Problem]:
    """Blocks that are named and do not exist, or nothing to convert."""
    where = "model.ffn_experts.layers"
    if isinstance(spec.layers, list):
        remedy = "name blocks that the model has after cutting"
        problems = [
            Problem("recipe", where, f"blocks of the {name}: 0 to {len(stack) - 1}", str(index), remedy)
            for name, stack in stacks.items()
            for index in spec.layers
            if index >= len(stack)
        ]
        if problems:
            return problems
    if places:
        return []
    sizes = ", ".join(f"{name} {len(stack)}" for name, stack in stacks.items())
    found = f"{spec.layers!r} chooses none of these blocks: {sizes}"
    return [Problem("recipe", where, "at least one block", found, "choose others")]


def _indices(layers: str | list[int], count: int) -> list[int]:
    """LLaVA-MoD's choices (there `moe_mode`: sparse, dense, first_half, second_half)."""
    if isinstance(layers, list):
        return [index for index in sorted(set(layers)) if index < count]
    choices = {
        "every_second": range(0, count, 2),
        "all": range(count),
        "first_half": range(count // 2),
        "second_half": range(count // 2, count),
    }
    return list(choices[layers])


def _stacks(model: Any) -> Stacks:
    """The feed-forward layer of every block, by stack of blocks."""
    if model.config.model_type == "driving_t5":
        language = model.language_model
        return {
            name: [Place(block.layer[-1], "DenseReluDense") for block in stack.block]
            for name, stack in (("encoder", language.encoder), ("decoder", language.decoder))
        }
    return {"language model": [Place(block, "mlp") for block in model.model.language_model.layers]}


def _unfit(places: list[Place], spec: cards.FfnExperts) -> list[Problem]:
    where = "model.ffn_experts"
    if any(isinstance(place.layer, Mixture) for place in places):
        found = "a model that already has experts"
        return [Problem("recipe", where, "a dense model", found, "remove `ffn_experts`, or name the dense model")]
    problems = []
    if spec.kind == "lora" and spec.init_noise:
        found = f"{spec.init_noise:g} for `lora` experts, which are 0 at the start and differ by their A"
        problems.append(Problem("recipe", f"{where}.init_noise", "0", found, "remove it"))
    for dense in {type(place.layer): place.layer for place in places}.values():
        parts = parts_of(dense)
        if parts is None:
            expected, found = "feed-forward layers of T5, Llama, Qwen2 or Mistral", type(dense).__name__
            problems.append(Problem("recipe", where, expected, found, "use a model of a supported family"))
        elif spec.kind == "split" and (hidden := getattr(dense, parts.up).out_features) % spec.experts:
            expected = f"a hidden width divisible by {spec.experts} experts"
            remedy = "choose another number of experts, or kind `upcycle` or `lora`"
            problems.append(Problem("recipe", f"{where}.experts", expected, str(hidden), remedy))
    return problems
