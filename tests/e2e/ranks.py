"""Run by `torchrun` in test_ranks.py: the contracts on two ranks (gloo, CPU). Prints one JSON line on rank 0."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch.nn.parallel import DistributedDataParallel

import tiny
from drivedistill.data.collate import collate
from drivedistill.data.stream import MicroBatches
from drivedistill.models.student import Student, full_logits
from drivedistill.optimize import shard
from drivedistill.records import Sample
from drivedistill.runs import assemble, run
from drivedistill.step import step
from drivedistill.train import start


def full(value: torch.Tensor) -> torch.Tensor:
    return (value.full_tensor() if hasattr(value, "full_tensor") else value).detach().clone()


def gradients(folder: Path, sharding: str, pool: str | None) -> dict[str, torch.Tensor]:
    """The first window's gradient, 3 samples on each of two ranks, in micro-batches of one."""
    changes = {"train__batch_size": 1, "train__accumulate": 3, "train__clip": None, "train__sharding": sharding}
    if sharding == "none" and pool in ("window", "bank"):  # one process computes its losses the plain way
        changes["train__fused_loss"] = "on"
    card = tiny.recipe(folder, **changes, **mined(pool))
    setting = assemble(card).setting
    loop = start(setting, Accelerator(cpu=True))
    order = iter(MicroBatches(loop.stream, 0, dist.get_rank()))
    window = [collate([setting.train[i] for i in next(order)], setting.preparations) for _ in range(3)]
    kept: dict[str, torch.Tensor] = {}
    loop.optimizer.register_step_pre_hook(
        lambda *_: kept.update(
            {n.removeprefix("module."): full(p.grad) for n, p in loop.model.named_parameters() if p.grad is not None}
        )
    )
    step(loop, window)
    return kept


def mined(pool: str | None) -> dict[str, object]:
    """Recipe changes: mining among a pool, by a student with experts."""
    experts = {"experts": 2, "k": 1, "layers": "all", "init_noise": 0.1}
    train: dict[str, object] = {"train__router_balance": 0.0}  # a product of means depends on how a window is cut
    train |= {"train__reduction": "sqrt"} if pool == "bank" else {}
    return {"mining": {"pool": pool}, "model__ffn_experts": experts, **train} if pool else {}


def unequal(samples: list[Sample]) -> list[Sample]:
    """One long answer among short ones for the first rank, long ones only for the second: they are decoded otherwise."""
    long = "Slow down, keep lane. " * 3
    return [
        sample.model_copy(update={"answer": "No." if i % 2 == 0 and i < len(samples) - 2 else long})
        for i, sample in enumerate(samples)
    ]


def parity(folder: Path) -> dict[str, float]:
    """Largest difference between wrapped rows and the bare model's own logits, for every family."""
    samples = unequal(tiny.samples({path.stem: str(path) for path in folder.glob("CAM_*.png")}))
    found: dict[str, float] = {}
    for family in tiny.FAMILIES:
        for lora in (False, True):
            for wrap in ("ddp", "fsdp2"):
                subject = tiny.subject(family, folder, lora=lora)
                batch = collate(samples[dist.get_rank() :: 2], {"student": subject.preparation})
                expected = full_logits(subject.model.eval(), batch.role("student"))
                student = Student(subject.model)
                wrapped = DistributedDataParallel(student) if wrap == "ddp" else shard(student)
                for _ in range(2):  # twice: DDP notices in the second forward that a weight had no gradient
                    rows = wrapped(batch).logits
                    rows.sum().backward()
                worst = (rows.detach() - expected).abs().max().reshape(1)
                dist.all_reduce(worst, op=dist.ReduceOp.MAX)
                found[f"{family}-{'lora' if lora else 'plain'}-{wrap}"] = float(worst)
    return found


def main() -> None:
    job, folder = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)
    Accelerator(cpu=True)
    result: dict[str, object] = {}
    if job == "gradients":
        for sharding in ("none", "fsdp2"):
            for pool in (None, "window", "ranks", "bank"):
                torch.save(gradients(folder, sharding, pool), folder / f"{sharding}-{pool}-{dist.get_rank()}.pt")
    elif job == "parity":
        result = dict(parity(folder))
    elif job == "run":
        resume, sharding = sys.argv[3] == "resume", sys.argv[4]
        run(tiny.recipe(folder, train__batch_size=1, train__sharding=sharding), folder / sharding, resume=resume)
    dist.barrier()
    if dist.get_rank() == 0:
        print("RESULT " + json.dumps(result))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
