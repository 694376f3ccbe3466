"""Losses of rows chunk by chunk beside the plain way: time, peak memory and error of the gradient.

    python benchmarks/losses.py --out benchmarks/losses.json
    python benchmarks/losses.py --device cuda --out benchmarks/losses_gpu.json

A step of the loss alone, forward and backward down to the head's input (and its weight, where it learns): cross-entropy and
forward KL of N rows, from the head's input to the gradient. The teacher's logits are made on the way from its own head's
input; a kept teacher's 64 likeliest tokens are there already. Plain: all logits at once, `losses.py`, autograd.

Times are medians of interleaved rounds in one process (processor time of one thread; on a GPU wall-clock time between
synchronisations). Peaks come from a process for every variant: the most resident memory during the step minus what was
resident before it (on a GPU: allocated). The error is that of the gradient with respect to the head's input, over the
gradient's norm, against the plain formula in float64.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from drivedistill.batch import Head, Signal, TopK
from drivedistill.distill.likeliest import FIELDS, likeliest
from drivedistill.distill.losses import cross_entropy, forward_kl, forward_kl_top
from drivedistill.distill.row_losses import row_losses
from drivedistill.machine import machine_facts

K = 64
GOALS = {
    "32k: peak over plain": "<= 0.12",
    "32k: time over plain": "<= 0.85",
    "32k: gradient error": "<= 1e-5",
    "152k: peak over plain": "<= 0.2",
    "152k: time over plain": "<= 1.05",
    "152k: gradient error": "<= 1e-5",
    "top-64: lowest cosine where mass >= 0.98": ">= 0.999",
}


@dataclass(frozen=True)
class Case:
    """One setting of the loss."""

    vocabulary: int
    rows: int = 512
    width: int = 512
    teacher_width: int = 768
    learns: bool = False
    """The head has a gradient."""
    device: str = "cpu"
    dtype: str = "float32"


class Step:
    """The tensors of a case and the ways through it."""

    def __init__(self, case: Case) -> None:
        torch.manual_seed(0)
        device, self.dtype = torch.device(case.device), getattr(torch, case.dtype)
        n, v, ours, theirs = case.rows, case.vocabulary, case.width, case.teacher_width
        self.hidden = torch.randn(n, ours, device=device).requires_grad_()
        weight = torch.randn(v, ours, device=device).mul_(2 * ours**-0.5).requires_grad_(case.learns)
        self.head = Head(weight, dtype=self.dtype)
        self.signal = Signal(
            hidden=torch.randn(n, theirs, device=device),
            head=Head(torch.randn(v, theirs, device=device).mul_(4 * theirs**-0.5), dtype=self.dtype),
        )
        self.gold = torch.randint(v, (n,), device=device)
        self.weights = torch.full((n,), 1 / n, device=device)

    def keep(self) -> None:
        """From now on the teacher is what was kept of it."""
        self.signal = Signal(top=cut_down(self.signal, self.gold))

    def plain(self) -> None:
        """All logits at once."""
        ours = self.head(self.hidden)
        if self.signal.top is not None:
            divergence = forward_kl_top(ours, self.signal.top)
        else:
            with torch.no_grad():
                theirs = self.signal.dense()
            divergence = forward_kl(ours, theirs)
        self._finish(cross_entropy(ours, self.gold), divergence)

    def fused(self) -> None:
        """Chunk by chunk; what backward brings is known."""
        both = self.weights, self.weights
        self._finish(*row_losses(self.hidden, self.head, self.gold, self.signal, weights=both))

    def mined(self) -> None:
        """Chunk by chunk; what backward brings depends on the values."""
        self._finish(*row_losses(self.hidden, self.head, self.gold, self.signal))

    def _finish(self, ce: Tensor, kl: Tensor | None) -> None:
        assert kl is not None
        self.hidden.grad = self.head.weight.grad = None
        ((ce + kl) * self.weights).sum().backward()


@torch.no_grad()
def cut_down(signal: Signal, gold: Tensor) -> TopK:
    """What a cache keeps of a teacher's rows, some rows at a time."""
    assert signal.hidden is not None and signal.head is not None
    pairs = zip(signal.hidden.split(64), gold.split(64), strict=True)
    parts = [likeliest(signal.head(hidden), tokens, K, 1.0) for hidden, tokens in pairs]
    ids, log_probs, log_tail, gold_loss = (torch.cat([getattr(part, name) for part in parts]) for name in FIELDS)
    return TopK(ids, log_probs, log_tail, gold_loss, 1.0)


# --- time -------------------------------------------------------------------------------------------------------------


def seconds(work: Callable[[], None], device: str) -> float:
    """What a call takes: processor time, or wall-clock time between synchronisations of the GPU."""
    if device == "cuda":
        torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        torch.cuda.synchronize()
        return time.perf_counter() - started
    started = time.process_time()
    work()
    return time.process_time() - started


def medians(case: Case, ways: tuple[str, ...], rounds: int) -> dict[str, float]:
    """Milliseconds by way, interleaved; `kept ...` are ways through a teacher's 64 likeliest tokens."""
    dense, kept = Step(case), Step(case)
    if any(way.startswith("kept") for way in ways):
        kept.keep()
    work = {way: getattr(kept if way.startswith("kept") else dense, way.removeprefix("kept ")) for way in ways}
    times: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way, call in work.items():
            taken = seconds(call, case.device)
            if number:
                times[way].append(taken)
    return {way: 1e3 * statistics.median(values) for way, values in times.items()}


# --- memory -----------------------------------------------------------------------------------------------------------


def peak(case: Case, way: str) -> float:
    """Megabytes that a way needs at its most beyond what lay there before; in this process."""
    step = Step(case)
    if way.startswith("kept"):
        step.keep()
    call = getattr(step, way.removeprefix("kept "))
    if case.device == "cuda":
        call()  # libraries set aside their work space
        step.hidden.grad = step.head.weight.grad = None
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return float(torch.cuda.max_memory_allocated() - before) / 1e6
    getattr(Step(Case(64, 4, 8, 8, case.learns)), way.removeprefix("kept "))()  # loads the libraries' code
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # freed blocks would otherwise be used again, and not be seen
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    call()
    return resident("VmHWM") - before


def resident(field: str) -> float:
    """Megabytes of this process: `VmRSS` now, `VmHWM` at the most."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(field))


def peaks(case: Case, ways: tuple[str, ...]) -> dict[str, float]:
    """Megabytes by way, a process each."""
    found = {}
    for way in ways:
        command = [sys.executable, __file__, "--peak", json.dumps([asdict(case), way])]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        found[way] = float(done.stdout.split()[-1])
    return found


# --- gradients ----------------------------------------------------------------------------------------------------------


def error(case: Case) -> float:
    """Norm of the gradient's difference to float64's, over its norm."""
    step = Step(case)
    step.fused()
    ours, exact = step.hidden.grad, []
    assert ours is not None and step.signal.hidden is not None and step.signal.head is not None
    weight, their_weight = (head.weight.detach().double() for head in (step.head, step.signal.head))
    for part in torch.arange(case.rows, device=ours.device).split(32):
        hidden = step.hidden.detach()[part].double().requires_grad_()
        log_q = (hidden @ weight.T).log_softmax(dim=-1)
        log_p = (step.signal.hidden[part].double() @ their_weight.T).log_softmax(dim=-1)
        ce = -log_q.gather(1, step.gold[part, None]).sum()
        kl = (log_p.exp() * (log_p - log_q)).sum()
        exact.append(torch.autograd.grad((ce + kl) / case.rows, hidden)[0])
    reference = torch.cat(exact)
    return float((ours.double() - reference).norm() / reference.norm())


def cosines(device: str) -> list[dict[str, float]]:
    """Gradient of the divergence from 64 tokens and a tail beside that from all, for teachers from sharp to flat."""
    torch.manual_seed(0)
    vocabulary, width, rows = 32_128, 512, 64
    weight = torch.randn(vocabulary, width, device=device) * width**-0.5
    theirs = torch.randn(rows, width, device=device)
    ours = theirs + 0.5 * torch.randn(rows, width, device=device)  # partly learnt
    gold = torch.zeros(rows, dtype=torch.long, device=device)
    found = []
    for sharpness in (14.0, 11.0, 9.0, 8.0, 7.0, 6.0, 4.0):
        signal = Signal(hidden=theirs, head=Head(sharpness * weight))
        top = cut_down(signal, gold)
        gradients = []
        for teacher in (signal, Signal(top=top)):
            hidden = ours.clone().requires_grad_()
            _, kl = row_losses(hidden, Head(0.9 * sharpness * weight), gold, teacher)
            assert kl is not None
            gradients.append(torch.autograd.grad(kl.mean(), hidden)[0].flatten())
        mass = 1 - float(top.log_tail.exp().mean())
        cosine = float(torch.nn.functional.cosine_similarity(*gradients, dim=0))
        found.append({"sharpness": sharpness, "captured_mass": mass, "cosine": cosine})
    return found


# --- all of it ----------------------------------------------------------------------------------------------------------

WAYS = ("plain", "fused", "mined", "kept plain", "kept fused")


def compared(name: str, case: Case, rounds: int, ways: tuple[str, ...] = WAYS) -> dict[str, Any]:
    """Times, peaks and error of a case."""
    found: dict[str, Any] = {"case": asdict(case), "ms": medians(case, ways, rounds), "mb": peaks(case, ways)}
    for way in ways:
        print(f"{name:28}{way:14}{found['ms'][way]:10.1f} ms {found['mb'][way]:10.1f} MB", flush=True)
    return found


def measure(rounds: int, device: str, dtype: str, small: bool) -> dict[str, Any]:
    """Every figure; `small` only shows that all of it runs."""

    def case(vocabulary: int, **options: Any) -> Case:
        shrunk = {"vocabulary": max(256, vocabulary // 64), "rows": options.pop("rows", 512) // 4} if small else {}
        return Case(**{"vocabulary": vocabulary, **options, **shrunk}, device=device, dtype=dtype)

    qwen = {"width": 896, "teacher_width": 1536}
    cases = {"32k": compared("32k", case(32_128), rounds), "152k": compared("152k", case(151_936, **qwen), rounds)}
    figures = {}
    for name, found in cases.items():
        ms, mb = found["ms"], found["mb"]
        figures[f"{name}: peak over plain"] = mb["fused"] / mb["plain"]
        figures[f"{name}: time over plain"] = ms["fused"] / ms["plain"]
        figures[f"{name}: gradient error"] = error(Case(**found["case"]))
        figures[f"{name}: time over plain, mined"] = ms["mined"] / ms["plain"]
        figures[f"{name}: peak over plain, mined"] = mb["mined"] / mb["plain"]
        figures[f"{name}: time over plain, both kept"] = ms["kept fused"] / ms["kept plain"]
        figures[f"{name}: kept fused over plain, time"] = ms["kept fused"] / ms["plain"]
    curve, few = ("plain", "fused"), max(1, rounds // 2)
    curves = {
        "rows": [compared(f"{n} rows", case(32_128, rows=n), few, curve) for n in (128, 256, 512, 1024, 2048)],
        "vocabulary": [compared(f"{v} tokens", case(v), few, curve) for v in (8_192, 32_128, 65_536, 151_936)],
        "rows, head learns": [
            compared(f"{n} rows, head learns", case(32_128, rows=n, learns=True), few, (*curve, "mined"))
            for n in (128, 512, 2048)
        ],
    }
    cut = cosines(device)
    figures["top-64: lowest cosine where mass >= 0.98"] = min(k["cosine"] for k in cut if k["captured_mass"] >= 0.98)
    return {
        "rounds": rounds,
        "machine": machine_facts(),
        "figures": figures,
        "cases": cases,
        "curves": curves,
        "kept": cut,
    }


def main() -> None:
    """Print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--small", action="store_true", help="small sizes, to see that everything runs")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.peak:
        card, way = json.loads(arguments.peak)
        print(peak(Case(**card), way))
        return
    found = measure(arguments.rounds, arguments.device, arguments.dtype, arguments.small)
    for row in found["kept"]:
        print(f"top-64 of {row['captured_mass']:.4f} of the mass: cosine {row['cosine']:.5f}")
    for name, value in found["figures"].items():
        print(f"{name:<46}{value:>12.3g}   {GOALS.get(name, '')}")
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
