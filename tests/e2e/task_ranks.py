"""Run by `torchrun` in test_task_ranks.py: gradients of several tasks on two ranks (gloo, CPU)."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "distill"))

import torch
import torch.distributed as dist
from accelerate import Accelerator
from test_projection import explicit, trial
from torch import Tensor, nn

import tiny
from drivedistill import teaching
from drivedistill.data.collate import collate
from drivedistill.data.stream import MicroBatches
from drivedistill.distill.objective import Term
from drivedistill.recipe import Recipe
from drivedistill.runs import assemble
from drivedistill.step import step
from drivedistill.task_gradients import TaskGradients
from drivedistill.train import start
from fakes import CAPABILITIES, Quarrel, untaught

MIXINGS = {"soft": 0.1, "hard": 0.0}
"""`hard`: every sample has one lesson, so that a rank may see none of a task that the other has."""
PER = {"none": ("window", "sample"), "fsdp2": ("window",)}


def card(folder: Path, per: str, **changes: object) -> Recipe:
    options = {"train__batch_size": 1, "train__accumulate": 3, "train__clip": None, **changes}
    return untaught(tiny.recipe(folder, **options), projection={"per": per})


def gradients(folder: Path, sharding: str, per: str, mixing: float) -> tuple[dict[str, Tensor], dict[str, object]]:
    """The first window's gradient and its log, three samples on each of two ranks."""
    setting = assemble(card(folder, per, train__sharding=sharding)).setting
    setting.objective = Quarrel("tokens", model=setting.student.model, mixing=mixing)
    loop = start(setting, Accelerator(cpu=True))
    order = iter(MicroBatches(loop.stream, 0, dist.get_rank()))
    window = [collate([setting.train[i] for i in next(order)], setting.preparations) for _ in range(3)]
    kept: dict[str, Tensor] = {}

    def keep(*_: object) -> None:
        for name, parameter in loop.model.named_parameters():
            if (gradient := parameter.grad) is not None:
                whole = gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient
                kept[name.removeprefix("module.")] = whole.detach().clone()

    loop.optimizer.register_step_pre_hook(keep)
    record = step(loop, window)
    return kept, record


class Numbers(nn.Module):
    """A model whose gradients are whatever they are asked to be."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.rest = (nn.Parameter(torch.zeros(n, dtype=torch.float64)) for n in (3, 37))

    def terms(self, vectors: Tensor) -> list[Term]:
        """Linear losses with these gradients `float64[T, n]`; a follower of zeros is not there at all."""
        numbers = torch.cat([self.head, self.rest])[: vectors.shape[1]]
        none = torch.zeros(2, dtype=torch.float64)
        followers = [
            Term(name, vector @ numbers, 1.0, "follower", none)
            for name, vector in zip(CAPABILITIES, vectors[1:], strict=False)
            if vector.any()
        ]
        return [Term("ce", vectors[0] @ numbers, 1.0, "anchor", none), *followers]


def window_of(draw: random.Random) -> list[Tensor]:
    """Four samples' gradients `float64[T, n]` of one shape."""
    first = trial(draw)
    samples = [first]
    while len(samples) < 4:
        other = trial(draw)
        if len(other) == len(first):
            padded = nn.functional.pad(other, (0, max(0, first.shape[1] - other.shape[1])))
            samples.append(padded[:, : first.shape[1]])
    return samples


def worst_error(folder: Path, per: str, trials: int) -> float:
    """Of random gradients, two micro-batches on each rank, against the procedure on vectors; relative to the longest one."""
    draw, model, worst = random.Random(per), Numbers(), 0.0
    tasks = TaskGradients(card(folder, per), CAPABILITIES, model, Accelerator(cpu=True))
    for number in range(trials):
        samples = window_of(draw)
        tasks.begin(number)
        shares = {"anchor": 2.0, "follower": 2.0, "aux": 2.0}  # times the number of ranks, as in a step
        for place in range(2):
            tasks.backward(model.terms(samples[2 * place + dist.get_rank()]), shares, 1)
        tasks.finish()
        units = dict(enumerate(samples)) if per == "sample" else {"window": torch.stack(samples).sum(dim=0)}
        expected = torch.zeros(samples[0].shape[1], dtype=torch.float64)
        for name, vectors in units.items():
            order = random.Random(f"0 {number} {name}").sample([1, 2, 3], 3)
            expected += explicit(vectors, [row for row in order if row < len(vectors)])
        found = torch.cat([torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()])
        difference = float((found[: len(expected)] - expected).norm())
        longest = max(float(vectors.norm()) for vectors in samples)
        worst = max(worst, difference / longest if longest else difference)
    return worst


def main() -> None:
    folder, trials, windows = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "windows"
    teaching.courses_of = lambda *given: {}  # type: ignore[assignment]  # the lessons here are not a teacher's
    torch.set_num_threads(1)
    Accelerator(cpu=True)
    result: dict[str, object] = {per: worst_error(folder, per, trials) for per in ("window", "sample")}
    ways = [(sharding, per) for sharding, ways in PER.items() for per in ways] if windows else []
    for sharding, per in ways:
        for name, mixing in MIXINGS.items():
            kept, record = gradients(folder, sharding, per, mixing)
            result[f"{sharding}-{per}-{name}"] = [record["gradients"], record["loss"]]
            torch.save(kept, folder / f"{sharding}-{per}-{name}-{dist.get_rank()}.pt")
    dist.barrier()
    if dist.get_rank() == 0:
        print("RESULT " + json.dumps(result))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
