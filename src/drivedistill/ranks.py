"""What several ranks do together; with one process nothing happens here."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor


def exchange_gradients(model: Any, *, last: bool) -> AbstractContextManager[Any]:
    """Exchange gradients between ranks only in the window's last backward."""
    if hasattr(model, "set_requires_gradient_sync"):  # FSDP2
        model.set_requires_gradient_sync(last)
        return nullcontext()
    if last or not hasattr(model, "no_sync"):
        return nullcontext()
    return model.no_sync()  # DDP


def sum_over_ranks(values: Tensor, accelerator: Accelerator) -> Tensor:
    """Sum over ranks, on the CPU."""
    if accelerator.num_processes == 1:
        return values
    values = values.to(accelerator.device)
    dist.all_reduce(values)
    return values.cpu()


def gather(values: Tensor, accelerator: Accelerator) -> list[Tensor]:
    """A tensor of the same shape on every rank: those of all ranks, on the CPU."""
    if accelerator.num_processes == 1:
        return [values.cpu()]
    values = values.to(accelerator.device)
    everyone = [torch.empty_like(values) for _ in range(accelerator.num_processes)]
    dist.all_gather(everyone, values)
    return [value.cpu() for value in everyone]


def any_rank(number: int, accelerator: Accelerator) -> int:
    """The signal that any rank has received (0: none), so that all stop at the same step."""
    if accelerator.num_processes == 1:
        return number
    asked = torch.tensor([number], device=accelerator.device)
    dist.all_reduce(asked, op=dist.ReduceOp.MAX)
    return int(asked)
