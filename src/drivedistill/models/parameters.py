"""How many parameters a model has, and where they sit."""

from __future__ import annotations

from typing import TypedDict

from torch import nn

from drivedistill.models.mixture import Mixture


class ParameterCount(TypedDict):
    """Numbers of parameters; tied weights are counted once."""

    total: int
    activated: int
    """What one token uses: without the experts that its routers leave out (top-p: at most); shared layers count in full."""
    trainable: int
    by_part: dict[str, int]
    """Top-level part (`vision`, `fusion`, `language_model`, ...) -> total."""


def count_parameters(model: nn.Module) -> ParameterCount:
    """Count a model's parameters, also on the meta device and behind LoRA.

    Published columns are printed in 1e6 or in 2^20 (CLKD: 94.25 * 2^20 = 98,823,651); the figures here are plain.
    """
    count = ParameterCount(total=0, activated=0, trainable=0, by_part={})
    for name, parameter in model.named_parameters():
        part = name.removeprefix("base_model.model.").partition(".")[0]
        count["total"] += parameter.numel()
        count["trainable"] += parameter.numel() if parameter.requires_grad else 0
        count["by_part"][part] = count["by_part"].get(part, 0) + parameter.numel()
    layers = [module for module in model.modules() if isinstance(module, Mixture)]
    idle = sum(layer.expert_parameters() * (1 - layer.active_share) for layer in layers)
    count["activated"] = count["total"] - round(idle)
    return count
