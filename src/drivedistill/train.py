"""The loop: supervised training and distillation, on one process, DDP or FSDP2.

The division. An optimizer window is `accumulate` micro-batches on each of W ranks. Its divisor, the number of supervised
tokens (or samples) of the whole window over all ranks, is known before its first forward. Every term's sum is divided
by it once, here; so the accumulated gradient is the same for 1x8 and 8x1 micro-batches and for one or two ranks.

The order of the samples is a pure function of seed and position (`mixture.epoch_order`), one endless stream cut into windows.
The last window of an epoch is filled from the next one, so no sample is dropped and no window is short; a run resumes
at any step by counting, and reaches the uninterrupted run's weights bit for bit on a CPU.
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from drivedistill.batch import Batch
from drivedistill.checkpoint import load_checkpoint, save_checkpoint
from drivedistill.data.collate import Preparation, collate
from drivedistill.data.mixture import epoch_order
from drivedistill.distill.objective import Objective, Term, count
from drivedistill.distill.teacher import Teacher
from drivedistill.models.student import Student
from drivedistill.optimize import learning_rate_factor, parameter_groups, shard
from drivedistill.problems import RunError
from drivedistill.progress import Progress
from drivedistill.recipe import Recipe
from drivedistill.records import Sample


class Interrupted(Exception):
    """The run was asked to stop and has saved; exit code 128 + the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} after saving a checkpoint")
        self.number = number


@dataclass
class Progressed:
    """Where a run stands; saved with every checkpoint."""

    step: int = 0
    best: float | None = None
    """Lowest validation loss so far, nats per token (or per sample)."""
    best_step: int | None = None
    seconds: float = 0.0


@dataclass
class Setting:
    """Everything the loop needs, built by the caller."""

    recipe: Recipe
    student: Student
    preparations: dict[str, Preparation]
    objective: Objective
    teacher: Teacher | None
    train: Sequence[Sample]
    validation: Sequence[Sample]
    run: Path
    resume_from: Path | None = None
    log: Callable[[dict[str, Any]], None] = field(default=lambda record: None)


def fit(setting: Setting, accelerator: Accelerator) -> Progressed:
    """Train until the recipe's last step; checkpoints, validation and log lie in the run's folder.

    Raises:
        RunError: The loss is not finite; the window's sample ids are named.
        Interrupted: SIGINT or SIGTERM came; a checkpoint was saved first.
    """
    recipe, options = setting.recipe, setting.recipe.train
    set_seed(recipe.seed, device_specific=True)
    model, optimizer = _prepare(setting, accelerator)
    state = _restore(setting, model, optimizer)
    total = total_steps(recipe, len(setting.train), accelerator.num_processes)
    every = math.ceil(steps_per_epoch(recipe, len(setting.train), accelerator.num_processes))
    validate_every = options.validate_every or every
    save_every = options.save_every or validate_every
    windows = _windows(setting, accelerator, state.step)
    with _Signals() as signals, Progress(total, state.step, accelerator.is_main_process) as progress:
        while state.step < total:
            started = time.monotonic()
            record = _step(setting, accelerator, model, optimizer, next(windows), state.step, total, every)
            state.step += 1
            state.seconds += time.monotonic() - started
            progress.advance(record["loss"])
            asked = _agree(signals.number, accelerator)
            if state.step % validate_every == 0 or state.step == total:
                _validate(setting, accelerator, model, state)
            if state.step % options.log_every == 0 or state.step == total:
                setting.log({"step": state.step, "of": total, **record, "seconds": round(state.seconds, 3)})
            if state.step % save_every == 0 or state.step == total or asked:
                save_checkpoint(setting.run / "checkpoints", model, optimizer, vars(state), keep=options.keep)
            if asked and state.step < total:
                raise Interrupted(asked)
    return state


def steps_per_epoch(recipe: Recipe, samples: int, processes: int) -> float:
    """Optimizer steps in one epoch, not rounded."""
    return samples / (recipe.train.batch_size * recipe.train.accumulate * processes)


def total_steps(recipe: Recipe, samples: int, processes: int) -> int:
    """Optimizer steps of the whole run."""
    if recipe.train.steps is not None:
        return recipe.train.steps
    return max(1, math.ceil(recipe.train.epochs * steps_per_epoch(recipe, samples, processes)))


# --- one step -------------------------------------------------------------------------------------------------------


def _step(
    setting: Setting,
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    window: list[Batch],
    step: int,
    total: int,
    per_epoch: int,
) -> dict[str, Any]:
    """One optimizer window: forward and backward of its micro-batches, one update; returns what is logged."""
    options = setting.recipe.train
    divisor = _sum(torch.tensor([sum(count(batch, options.reduction) for batch in window)]), accelerator).item()
    sums: dict[str, float] = {}
    for position, batch in enumerate(window):
        with _synchronised(model, last=position == len(window) - 1):
            terms = window_terms(setting, accelerator, model, batch.to(accelerator.device))
            loss = sum((term.weight * term.total for term in terms), torch.zeros((), device=accelerator.device))
            # DDP and FSDP2 average over ranks; times W makes it the sum that the divisor belongs to.
            accelerator.backward(loss * (accelerator.num_processes / divisor))
        for term in terms:
            for regime, value in term.by_regime.items():
                key = f"{term.name}/{regime}"
                sums[key] = sums.get(key, 0.0) + value
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    norm = nn.utils.clip_grad_norm_(parameters, options.clip or math.inf)
    norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    record = _record(setting, accelerator, window, sums, float(divisor), float(norm), terms)
    factor = learning_rate_factor(options, step, total, per_epoch)
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return record | {"epoch": round((step + 1) / per_epoch, 4), "learning_rate": options.learning_rate * factor}


def window_terms(setting: Setting, accelerator: Accelerator, model: nn.Module, batch: Batch) -> list[Term]:
    """Terms of one micro-batch; the teacher speaks just in time and without gradient."""
    with accelerator.autocast():
        said = setting.teacher.signal(batch) if setting.teacher else None
        rows = model(batch)
    return setting.objective(rows, said, batch)


def _record(
    setting: Setting,
    accelerator: Accelerator,
    window: list[Batch],
    sums: dict[str, float],
    divisor: float,
    norm: float,
    terms: list[Term],
) -> dict[str, Any]:
    """What the log says of a window: every term's mean, and each regime's share of it in samples, tokens and value.

    Raises:
        RunError: A term or the gradient is not finite.
    """
    names = [term.name for term in terms]
    keys = [f"{name}/{regime}" for name in names for regime in ("regular", "corner")]
    counts = [
        float(sum(other == regime for batch in window for other in batch.regimes)) for regime in ("regular", "corner")
    ] + [float(sum(_tokens_of(batch, regime) for batch in window)) for regime in ("regular", "corner")]
    values = _sum(
        torch.tensor([sums.get(key, 0.0) for key in keys] + counts, dtype=torch.float64), accelerator
    ).tolist()
    if not all(map(math.isfinite, [*values, norm])):
        ids = ", ".join(sample for batch in window for sample in batch.ids)
        reason = "a loss" if not all(map(math.isfinite, values)) else "the gradient norm"
        raise RunError(f"{reason} is not finite; no update was made. Samples of this window: {ids}")
    means = {name: (values[2 * i] + values[2 * i + 1]) / divisor for i, name in enumerate(names)}
    samples, tokens = values[-4:-2], values[-2:]
    share = {
        "samples": _share(samples),
        "tokens": _share(tokens),
        **{name: _share(values[2 * i : 2 * i + 2]) for i, name in enumerate(names)},
    }
    weights = {term.name: term.weight for term in terms}
    loss = sum(weights[name] * value for name, value in means.items())
    return {"loss": loss, **means, "grad_norm": norm, "corner_share": share}


def _share(pair: list[float]) -> float:
    """The corner regime's share of a sum over (regular, corner)."""
    return round(pair[1] / sum(pair), 4) if sum(pair) else 0.0


def _tokens_of(batch: Batch, regime: str) -> int:
    wanted = torch.tensor([other == regime for other in batch.regimes])
    return int(wanted[batch.sample_of_row.cpu()].sum())


# --- validation -----------------------------------------------------------------------------------------------------


def _validate(setting: Setting, accelerator: Accelerator, model: nn.Module, state: Progressed) -> None:
    if not setting.validation:
        return
    loss = validation_loss(setting, accelerator, model)
    if state.best is None or loss < state.best:
        state.best, state.best_step = loss, state.step
    setting.log({"step": state.step, "validation_loss": loss, "best": state.best, "best_step": state.best_step})


def validation_loss(setting: Setting, accelerator: Accelerator, model: nn.Module) -> float:
    """Cross-entropy per supervised token (or sample) over the validation split, in nats.

    Every rank runs the same number of forwards, as FSDP2 demands; a rank that has run out repeats a sample unweighted.
    """
    from drivedistill.distill.objective import supervised

    options = setting.recipe.train
    chosen = setting.validation[: options.validate_limit]
    ranks, rank = accelerator.num_processes, accelerator.process_index
    rounds = math.ceil(len(chosen) / (options.batch_size * ranks))
    objective = supervised(options.reduction)
    sums = torch.zeros(2, dtype=torch.float64)
    model.eval()
    with torch.no_grad():
        for index in range(rounds):
            start = (index * ranks + rank) * options.batch_size
            mine = chosen[start : start + options.batch_size]
            batch = collate(mine or chosen[:1], setting.preparations).to(accelerator.device)
            with accelerator.autocast():
                rows = model(batch)
            if mine:
                total = objective(rows, None, batch)[0].total
                sums += torch.tensor([float(total), count(batch, options.reduction)], dtype=torch.float64)
    model.train()
    total, number = _sum(sums, accelerator).tolist()
    return total / number


# --- data, devices, signals -------------------------------------------------------------------------------------------


class _Samples(Dataset[Sample]):
    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


class _MicroBatches(Sampler[list[int]]):
    """This rank's micro-batches of the endless stream of epochs, from a step on."""

    def __init__(self, recipe: Recipe, samples: Sequence[Sample], start: int, rank: int, ranks: int) -> None:
        self.recipe, self.samples = recipe, samples
        self.start, self.rank, self.ranks = start, rank, ranks

    def __iter__(self) -> Iterator[list[int]]:
        options = self.recipe.train
        size, window = options.batch_size, options.batch_size * options.accumulate * self.ranks
        stream = self._stream(self.start * window)
        while True:
            items = [next(stream) for _ in range(window)]
            for micro in range(options.accumulate):
                first = (micro * self.ranks + self.rank) * size
                yield items[first : first + size]

    def _stream(self, position: int) -> Iterator[int]:
        epoch = 0
        while True:
            order = epoch_order(self.samples, self.recipe.seed, epoch, self.recipe.data.corner_ratio)
            if position < len(order):
                yield from order[position:]
                position = 0
            else:
                position -= len(order)
            epoch += 1


def _windows(setting: Setting, accelerator: Accelerator, start: int) -> Iterator[list[Batch]]:
    recipe = setting.recipe
    ranks, rank = accelerator.num_processes, accelerator.process_index
    workers = recipe.data.workers
    loader: DataLoader[Batch] = DataLoader(
        _Samples(setting.train),
        batch_sampler=_MicroBatches(recipe, setting.train, start, rank, ranks),
        collate_fn=partial(collate, preparations=setting.preparations),
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        generator=torch.Generator(),  # or starting the loader would draw from the generator that dropout uses
    )
    batches = iter(loader)
    while True:
        yield [next(batches) for _ in range(recipe.train.accumulate)]


def _prepare(setting: Setting, accelerator: Accelerator) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Student on its device, wrapped for its ranks, and AdamW over what is trainable."""
    options = setting.recipe.train
    setting.student.train()
    if options.sharding == "fsdp2" and accelerator.num_processes > 1:
        model: nn.Module = shard(setting.student.to(accelerator.device))
    else:
        model = accelerator.prepare_model(setting.student)
    groups = parameter_groups(model, options)
    return model, torch.optim.AdamW(groups, lr=options.learning_rate, betas=(0.9, 0.999), eps=1e-8)


def _restore(setting: Setting, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progressed:
    if setting.resume_from is None:
        return Progressed()
    saved = load_checkpoint(setting.resume_from, model, optimizer)
    return Progressed(saved["step"], saved["best"], saved["best_step"], saved["seconds"])


def _synchronised(model: nn.Module, *, last: bool) -> Any:
    """Exchange gradients between ranks only in the window's last backward."""
    from contextlib import nullcontext

    if hasattr(model, "set_requires_gradient_sync"):
        model.set_requires_gradient_sync(last)
        return nullcontext()
    return nullcontext() if last or not hasattr(model, "no_sync") else model.no_sync()


def _sum(values: Tensor, accelerator: Accelerator) -> Tensor:
    """Sum over ranks."""
    if accelerator.num_processes == 1:
        return values
    values = values.to(accelerator.device)
    dist.all_reduce(values)
    return values.cpu()


def _agree(number: int, accelerator: Accelerator) -> int:
    """The signal that any rank has received (0: none), so that all stop at the same step."""
    if accelerator.num_processes == 1:
        return number
    asked = torch.tensor([number], device=accelerator.device)
    dist.all_reduce(asked, op=dist.ReduceOp.MAX)
    return int(asked)


class _Signals:
    """Remember SIGINT and SIGTERM until the window is finished; a second one kills at once."""

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        signal.signal(number, self._before[number])


def write_metrics(path: Path) -> Callable[[dict[str, Any]], None]:
    """A log function that appends one JSON object per line."""

    def log(record: dict[str, Any]) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    return log
