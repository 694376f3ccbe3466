"""What the optimizer sees: parameter groups, the learning rate at a step, shards."""

from __future__ import annotations

import math
import re
from typing import Any

from torch import nn
from torch.distributed.fsdp import fully_shard

from drivedistill.models.student import Student, bare, bare_name
from drivedistill.problems import InputError, Problem
from drivedistill.sections import Train


def parameter_groups(model: nn.Module, options: Train) -> list[dict[str, Any]]:
    """Trainable parameters by learning rate; biases, norms and other vectors without weight decay.

    Raises:
        InputError: Nothing is trainable, or a pattern of `learning_rates` matches nothing.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    matched: set[str] = set()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        pattern = next((p for p in options.learning_rates if re.search(p, bare_name(name))), None)
        rate = options.learning_rate if pattern is None else options.learning_rates[pattern]
        if pattern is not None:
            matched.add(pattern)
        decay = options.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    if not groups:
        remedy = "freeze less (model.frozen, model.lora.also_train)"
        raise InputError(Problem("recipe", "model", "something to train", "every parameter is frozen", remedy))
    if unused := sorted(set(options.learning_rates) - matched):
        names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        remedy = f"names look like: {', '.join(names[:3])}"
        raise InputError(
            Problem(
                "recipe", "train.learning_rates", "a pattern that matches", f"{p!r} matches nothing trainable", remedy
            )
            for p in unused
        )
    return [
        {"params": parameters, "lr": rate, "initial_lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def learning_rate_factor(options: Train, step: int, total: int, per_epoch: int) -> float:
    """What the learning rates are multiplied with at a step (from 0): a pure function, so resuming needs no scheduler state.

    `exponential` is EM-VLM4AD's: times `decay` after every epoch (train.py:67,127).
    """
    if step < options.warmup_steps:
        return (step + 1) / options.warmup_steps
    rest = (step - options.warmup_steps) / max(1, total - options.warmup_steps)
    if options.schedule == "linear":
        return 1 - rest
    if options.schedule == "cosine":
        return (1 + math.cos(math.pi * rest)) / 2
    if options.schedule == "exponential":
        return float(options.decay ** (step // per_epoch))
    return 1.0


def shard(student: Student) -> nn.Module:
    """FSDP2: every transformer block (what the model says must not be split) is a shard, the rest belongs to the root.

    Called directly, because accelerate offers FSDP on accelerators only and so could not be tested on a CPU.
    """
    model = bare(student.model)
    if hasattr(model, "apart"):
        # Every call of a shard is a collective: a rank must not call the decoder twice where another calls it once.
        model.apart = False
    blocks = set(model._no_split_modules or ())
    for module in student.modules():
        if type(module).__name__ in blocks:
            fully_shard(module)
    return fully_shard(student)
