"""How many parameters a model has, and where they sit."""

from __future__ import annotations

from typing import TypedDict

from torch import nn


class ParameterCount(TypedDict):
    """Numbers of parameters; tied weights are counted once."""

    total: int
    trainable: int
    by_part: dict[str, int]
    """Top-level part (`vision`, `fusion`, `language_model`, ...) -> total."""


def count_parameters(model: nn.Module) -> ParameterCount:
    """Count a model's parameters, also on the meta device and behind LoRA.

    Published columns are printed in 1e6 or in 2^20 (CLKD: 94.25 * 2^20 = 98,823,651); the figures here are plain.
    """
    count = ParameterCount(total=0, trainable=0, by_part={})
    for name, parameter in model.named_parameters():
        part = name.removeprefix("base_model.model.").partition(".")[0]
        count["total"] += parameter.numel()
        count["trainable"] += parameter.numel() if parameter.requires_grad else 0
        count["by_part"][part] = count["by_part"].get(part, 0) + parameter.numel()
    return count
