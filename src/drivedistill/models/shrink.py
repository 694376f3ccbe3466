"""A smaller model of the same class: some of a model's blocks, with their weights, and nothing else changed.

CLKD (ICRA 2026, section III-A) cuts "half of the blocks". Its totals fit a T5-Small cut from 6 + 6 to 3 + 3 blocks and a
Swin-T cut from [2, 2, 6, 2] to [1, 1, 3, 1].

The smaller model is built anew from a smaller configuration and then filled, so everything that follows from a block's
place is right by construction: cache slots, Swin's window shifts, rates of stochastic depth.
"""

from __future__ import annotations

import copy
import math
import re
from dataclasses import dataclass, field
from typing import Any

from transformers import initialization

from drivedistill.models.adapter import install_adapter
from drivedistill.problems import InputError, Problem
from drivedistill.sections import AdapterExperts, Blocks, Shrink

STAGES = {
    "swin": "vision.model.encoder.layers.{}.blocks",
    "convnext": "vision.model.encoder.stages.{}.layers",
    "pyramid": "vision.model.trunk.encoder.stages.{}.layers",
}
"""Where the blocks of a stage lie in a `DrivingT5`."""


def shrink(model: Any, spec: Shrink) -> Any:
    """A new model that keeps some of the blocks of another; it saves and loads like any other.

    Args:
        model: A `DrivingT5` or a supported Hugging Face vision-language model; it is left as it is.
        spec: Which blocks stay.

    Returns:
        The smaller model, on the same device and in the same type. A `DrivingT5` whose vision tower was cut says so in
        `config.vision_state` and no longer carries a classification head, which belonged to the whole tower.

    Raises:
        InputError: Blocks are named that do not exist or cannot go, or feed-forward layers are experts already; every
            finding is listed.
    """
    plan = _Plan(copy.deepcopy(model.config))
    if getattr(model.config, "ffn_experts", None) is not None:
        remedy = "name the dense model in model.path, or remove model.shrink"
        plan.refuse("", "a model without experts", "feed-forward layers that are experts", remedy)
    elif model.config.model_type == "driving_t5":
        _plan_driving_t5(plan, spec)
    else:
        _plan_vlm(plan, spec)
    if plan.problems:
        raise InputError(plan.problems)
    return _build(model, plan)


def tower_learns(model: Any) -> bool:
    """Whether most of a model's vision tower is trained: what a cut tower needs before it may be frozen."""
    blocks = ("vision.", "model.vision_tower.", "model.visual.blocks.")  # beside them lies Qwen's adapter
    tower = [parameter for name, parameter in model.named_parameters() if name.startswith(blocks)]
    learns = sum(parameter.numel() for parameter in tower if parameter.requires_grad)
    return 2 * learns > sum(parameter.numel() for parameter in tower)


def kept_blocks(blocks: Blocks, total: int) -> list[int]:
    """Indices of the blocks that stay, of `total`; see `sections.Blocks`.

    >>> kept_blocks("half", 6), kept_blocks("first_half", 6), kept_blocks("alternate", 6)
    ([0, 2, 5], [0, 1, 2], [0, 2, 4])
    """
    if blocks == "half":
        return evenly_spaced(total, math.ceil(total / 2))
    if blocks == "first_half":
        return list(range(math.ceil(total / 2)))
    if blocks == "alternate":
        return list(range(0, total, 2))
    return list(blocks)


def evenly_spaced(total: int, count: int) -> list[int]:
    """`count` of `total` indices with the first and, if there are several, the last."""
    return [round(target) for target in _targets(total, count)]


def evenly_alternating(total: int, count: int) -> list[int]:
    """As `evenly_spaced`, but even and odd indices alternate.

    Swin's blocks look through windows (even index) and shifted windows (odd); a block keeps the kind that it has learnt.

    >>> evenly_alternating(6, 3)
    [0, 3, 4]
    """
    chosen: list[int] = []
    for place, target in enumerate(_targets(total, count)):
        first = chosen[-1] + 1 if chosen else 0
        candidates = range(first, total - count + place + 1, 2)
        chosen.append(min(candidates, key=lambda index: abs(index - target)))
    return chosen


def _targets(total: int, count: int) -> list[float]:
    return [place * (total - 1) / max(1, count - 1) for place in range(count)]


@dataclass
class _Plan:
    config: Any
    """Of the smaller model."""
    kept: dict[str, list[int]] = field(default_factory=dict)
    """Name of a list of blocks -> indices that stay."""
    problems: list[Problem] = field(default_factory=list)

    def refuse(self, part: str, expected: str, found: str, remedy: str) -> None:
        self.problems.append(Problem("recipe", f"model.shrink{part and '.'}{part}", expected, found, remedy))

    def keep(self, part: str, place: str, blocks: Blocks, total: int) -> list[int]:
        """Note the blocks that stay of the `total` at `place`."""
        kept = kept_blocks(blocks, total)
        if kept[-1] >= total:
            self.refuse(part, f"indices from 0 to {total - 1}", str(kept), "name blocks that the model has")
        self.kept[place] = kept
        return kept

    def counts(self, blocks: Any, depths: list[int]) -> list[int]:
        """Numbers of vision blocks that stay, by stage; empty if they are refused."""
        if blocks == "half":
            counts = [math.ceil(depth / 2) for depth in depths]
            if counts == depths:
                self.refuse("vision", "a tower with blocks to spare", f"depths {depths}", "remove `vision`")
            return counts
        if len(blocks) != len(depths) or any(count > depth for count, depth in zip(blocks, depths, strict=True)):
            self.refuse("vision", f"one number per stage, at most {depths}", str(blocks), "correct the numbers")
            return []
        return list(blocks)


def _plan_driving_t5(plan: _Plan, spec: Shrink) -> None:
    text = plan.config.text
    for part, name in (("encoder", "num_layers"), ("decoder", "num_decoder_layers")):
        blocks = getattr(spec, part)
        if blocks is None:
            continue
        kept = plan.keep(part, f"language_model.{part}.block", blocks, getattr(text, name))
        if kept[0] != 0 and kept[-1] < getattr(text, name):  # of blocks that do not exist, `keep` speaks
            expected = "a list with block 0, whose relative-position bias all others of the stack use"
            plan.refuse(part, expected, str(kept), "keep block 0")
        setattr(text, name, len(kept))
    if spec.vision is not None:
        _plan_tower(plan, spec.vision)


def _plan_tower(plan: _Plan, blocks: Any) -> None:
    """The vision tower of a `DrivingT5`."""
    config, vision = plan.config, plan.config.vision
    if not config.vision_blocks:
        plan.refuse("vision", "a tower that runs its blocks", "`vision_blocks: false`", "remove `vision`")
        return
    if vision.model_type not in (*STAGES, "vit"):
        plan.refuse("vision", f"one of {', '.join(STAGES)}, vit", vision.model_type, "remove `vision`")
        return
    staged = vision.model_type in STAGES
    depths = list(vision.depths) if staged else [vision.num_hidden_layers]
    counts = plan.counts(blocks, depths)
    if counts in ([], depths):
        return
    choose = evenly_alternating if vision.model_type == "swin" else evenly_spaced
    for stage, (depth, count) in enumerate(zip(depths, counts, strict=True)):
        plan.kept[STAGES.get(vision.model_type, "vision.model.layers").format(stage)] = choose(depth, count)
    if staged:
        vision.depths = counts
    else:
        vision.num_hidden_layers = counts[0]
    config.vision_state, config.vision_classes = "cut", 0


def _plan_vlm(plan: _Plan, spec: Shrink) -> None:
    text = plan.config.text_config
    if spec.encoder is not None:
        found = f"{plan.config.model_type}, which has a decoder alone"
        plan.refuse("encoder", "an encoder-decoder", found, "name `decoder`")
    if spec.decoder is not None:
        total = text.num_hidden_layers
        kept = plan.keep("decoder", "model.language_model.layers", spec.decoder, total)
        text.num_hidden_layers = len(kept)
        for name, value in vars(text).items():
            if "layer" in name and isinstance(value, list | tuple) and len(value) == total and kept[-1] < total:
                setattr(text, name, [value[index] for index in kept])  # for example `layer_types`
    if spec.vision is not None:
        _plan_vlm_tower(plan, spec.vision)


def _plan_vlm_tower(plan: _Plan, blocks: Any) -> None:
    config, vision = plan.config, plan.config.vision_config
    windowed = config.model_type == "qwen2_5_vl"
    if not windowed and getattr(config, "vision_feature_layer", -1) != -1:
        found = f"{config.model_type}, which reads layer {config.vision_feature_layer} of its tower"
        plan.refuse("vision", "a tower that is read at its end", found, "remove `vision`")
        return
    total = vision.num_hidden_layers
    counts = plan.counts(blocks, [total])
    if counts in ([], [total]):
        return
    kept = evenly_spaced(total, counts[0])
    plan.kept["model.visual.blocks" if windowed else "model.vision_tower.encoder.layer"] = kept
    vision.num_hidden_layers = counts[0]
    config.vision_state = "cut"
    if windowed:
        # The other blocks look through windows; without one that sees the whole picture the windows would never meet.
        vision.fullatt_block_indexes = [
            place for place, index in enumerate(kept) if index in vision.fullatt_block_indexes
        ]
        if not vision.fullatt_block_indexes:
            plan.refuse("vision", "a block with full attention among them", f"blocks {kept}", "keep more blocks")


def _build(model: Any, plan: _Plan) -> Any:
    """Build the planned model and fill it."""
    with initialization.no_init_weights(), model.device:
        smaller = type(model)._from_config(plan.config, dtype=model.dtype)
    smaller.tie_weights()
    if model.config.model_type != "driving_t5" and getattr(plan.config, "adapter_experts", None) is not None:
        install_adapter(smaller, AdapterExperts(**plan.config.adapter_experts))
    weights = model.state_dict()
    smaller.load_state_dict({name: weights[_origin(name, plan.kept)] for name in smaller.state_dict()})
    learns = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    for name, parameter in smaller.named_parameters():
        parameter.requires_grad_(learns[_origin(name, plan.kept)])
    smaller.generation_config = copy.deepcopy(model.generation_config)
    return smaller.train(model.training)


def _origin(name: str, kept: dict[str, list[int]]) -> str:
    """What a tensor of the smaller model is called in the whole one."""
    for place, indices in kept.items():
        if match := re.match(rf"{re.escape(place)}\.(\d+)\.", name):
            return f"{place}.{indices[int(match[1])]}.{name[match.end() :]}"
    return name
