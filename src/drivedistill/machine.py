"""The machine on which a result is made: what it is, how much memory was used, and a stopwatch that suits it."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import accelerate
import torch
import transformers
from torch import Tensor, nn

import drivedistill


def machine_facts() -> dict[str, Any]:
    """Device, threads, versions, commit and command: what every file of results says about its origin."""
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu ({platform.machine()})",
        "threads": torch.get_num_threads(),
        "versions": {
            "drivedistill": drivedistill.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "accelerate": accelerate.__version__,
        },
        "git_commit": _commit(),
        "command": shlex.join(sys.argv),
    }


def kept_bytes(model: nn.Module, work: Callable[[], object]) -> int:
    """Bytes that autograd keeps for the backward pass of some work, shared storage counted once, the model's weights not."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = work()
    del result  # until here it holds what was kept, so that no address is used twice
    return sum(kept.values())


def peak_memory_gb() -> float:
    """The most memory that this process ever held, in 1e9 bytes: allocated on the GPU, or resident without one."""
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated() / 1e9)
    import resource  # Windows has none, and everybody imports this file

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9


class Stopwatch:
    """Seconds spent in one kind of work; on a GPU measured by events, so that nobody waits until they are read."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._events: list[tuple[Any, Any]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count what happens inside."""
        if torch.cuda.is_available():
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            yield
            end.record()
            self._events.append((begin, end))
        else:
            started = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - started

    def take(self) -> float:
        """Seconds since this was asked last; waits for the GPU."""
        if self._events:
            self._events[-1][1].synchronize()
        taken = self._seconds + sum(begin.elapsed_time(end) for begin, end in self._events) / 1000
        self._seconds = 0.0
        self._events.clear()
        return taken


def _commit() -> str | None:
    """The commit of the folder in which the command runs; None outside a repository."""
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return found.stdout.strip() or None
