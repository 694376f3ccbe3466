"""How much memory a model needs to answer, and how that was found out.

On a GPU the allocator knows. On a processor a model gets a process of its own: several models in one process use each
other's freed memory, and no number could be given to any of them.
"""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import torch
import transformers

from drivedistill.bench.contest import Contestant, Rules, ask, enter
from drivedistill.machine import peak_memory_gb
from drivedistill.problems import RunError
from drivedistill.records import Sample

_QUESTIONS = 3
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Memory(NamedTuple):
    """Peak memory while answering, weights included."""

    gb: float
    """In 1e9 bytes."""
    method: str


def own_process_memory(path: str, rules: Rules, samples: Sequence[Sample], threads: int) -> Memory:
    """What a fresh process needs to answer the longest questions, beyond an empty one with the libraries loaded.

    Args:
        path: Run, directory or hub id.
        rules: How the contest is held.
        samples: The questions.
        threads: Of the process.

    Raises:
        RunError: The process was killed, for instance for want of memory.
    """
    longest = sorted(samples, key=lambda sample: (-len(sample.images), -len(sample.question)))[:_QUESTIONS]
    context = multiprocessing.get_context("spawn")  # a forked one would begin with our memory
    try:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(memory_here, path, rules, longest, threads).result()
    except BrokenProcessPool:
        raise RunError(f"the process that measures the memory of {path} was killed (out of memory?)") from None


def allocated_memory(contestant: Contestant) -> Memory:
    """What a model's answers took on the GPU beyond what lay there before, plus its weights."""
    tensors = [*contestant.subject.model.parameters(), *contestant.subject.model.buffers()]
    weights = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return Memory((weights + contestant.peak_bytes) / 1e9, "peak allocated on the GPU, weights included")


def memory_here(path: str, rules: Rules, samples: list[Sample], threads: int) -> Memory:
    """Likewise, for a process that is fresh already; arguments as for `own_process_memory`."""
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(threads)
    empty = _resident_gb("VmRSS")
    contestant = enter("", path, rules, samples)
    gc.collect()
    exact = _forget_peak()
    for sample in samples:
        ask(contestant, sample, "disk", note=False)
    if exact:
        return Memory(_resident_gb("VmHWM") - empty, "growth of a fresh process while it answers, weights included")
    return Memory(peak_memory_gb() - empty, "growth of a fresh process, loading of the weights included")


def _forget_peak() -> bool:
    """Count the peak from here, without what loading needed for a moment; False where the system cannot."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def _resident_gb(field: str) -> float:
    """`VmRSS` (now) or `VmHWM` (peak) of this process; without Linux's `/proc` the peak so far."""
    if not _STATUS.is_file():
        return peak_memory_gb()
    line = next(line for line in _STATUS.read_text("utf-8").splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024 / 1e9
