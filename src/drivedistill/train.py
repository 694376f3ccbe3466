"""The loop: supervised training and distillation, on one process, DDP or FSDP2. One step of it is `step.py`."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader

from drivedistill.batch import Batch
from drivedistill.checkpoint import load_checkpoint, load_extra, save_checkpoint
from drivedistill.data.collate import collate
from drivedistill.data.stream import MicroBatches, SampleList, Stream, shown_lengths
from drivedistill.distill.diagnostics import report
from drivedistill.distill.miner import Plan
from drivedistill.distill.objective import Answers, Moment, Objective
from drivedistill.distill.release import gamma_for
from drivedistill.distill.vision_match import VisionMatch
from drivedistill.machine import peak_memory_gb
from drivedistill.models.mixture import expert_distance
from drivedistill.models.student import mixtures
from drivedistill.optimize import parameter_groups, shard
from drivedistill.problems import InputError, RunError
from drivedistill.progress import Progress
from drivedistill.ranks import any_rank, gather, sum_over_ranks
from drivedistill.recipe import Recipe
from drivedistill.records import Sample
from drivedistill.signals import Interrupted, Signals, leave_group
from drivedistill.step import Loop, Setting, State, ask_teacher, step
from drivedistill.subject import reading_of
from drivedistill.task_gradients import TaskGradients


def fit(setting: Setting, accelerator: Accelerator) -> State:
    """Train until the recipe's last step; checkpoints, validation and log lie in the run's folder.

    Raises:
        RunError: The loss is not finite; the window's sample ids are named.
        Interrupted: SIGINT or SIGTERM came; a checkpoint was saved first.
    """
    loop = start(setting, accelerator)
    options, state, total = setting.recipe.train, loop.state, loop.total
    validate_every = options.validate_every or loop.per_epoch
    save_every = options.save_every or validate_every
    windows = _windows(loop)
    with (
        Signals() as signals,
        Progress(total, state.step, accelerator.is_main_process) as progress,
        _saved_first(loop, signals),
    ):
        if state.step and state.step % validate_every == 0 and state.validated < state.step:
            _validate(loop)  # the run was interrupted between this step and its validation
        if not total:  # a model as it is: looked at and kept
            _validate(loop)
            _save(loop)
        while state.step < total:
            started = time.monotonic()
            record = step(loop, next(windows))
            state.step += 1
            state.seconds += time.monotonic() - started
            progress.advance(record["loss"])
            last = state.step == total
            asked = 0 if last else any_rank(signals.number, accelerator)
            if not asked and (state.step % validate_every == 0 or last):
                _validate(loop)
            if state.step % options.log_every == 0 or last:
                _note_cost(loop)
                notes, loop.notes = (
                    report({name: sum_over_ranks(value, accelerator) for name, value in loop.notes.items()}),
                    {},
                )
                setting.log({"step": state.step, "of": total, **record, **notes, "seconds": round(state.seconds, 3)})
            best = state.best_step == state.step  # kept although no save is due: `model/` is made from it
            if state.step % save_every == 0 or best or last or asked:
                _save(loop)
            if asked:
                raise Interrupted(asked)
    return state


@contextmanager
def _saved_first(loop: Loop, signals: Signals) -> Iterator[None]:
    """What ends a run between two steps costs none: a picture that breaks, a loading process that a signal killed."""
    alone = loop.accelerator.num_processes == 1  # saving needs every rank, and the others do not know
    try:
        yield
    except InputError:
        if alone and loop.state.step:
            _save(loop)
        raise
    except RuntimeError:
        if not (alone and loop.state.step and signals.number):
            raise
        _save(loop)
        raise Interrupted(signals.number) from None


def _save(loop: Loop) -> None:
    _note_cost(loop)
    folder, keep = loop.setting.run / "checkpoints", loop.setting.recipe.train.keep
    miner = loop.setting.objective.miner
    extra = miner.state() if miner else {}
    extra |= loop.tasks.state() if loop.tasks else {}
    extra |= {f"notes/{name}": sum_over_ranks(value, loop.accelerator) for name, value in loop.notes.items()}
    save_checkpoint(folder, loop.model, loop.optimizer, asdict(loop.state), keep=keep, extra=extra)


def _note_cost(loop: Loop) -> None:
    loop.state.teacher_seconds += loop.teaching.take()
    loop.state.peak_memory_gb = max(loop.state.peak_memory_gb, peak_memory_gb())


def start(setting: Setting, accelerator: Accelerator) -> Loop:
    """Put the student on its device, wrap it for its ranks, and go back to the checkpoint if there is one."""
    recipe, options = setting.recipe, setting.recipe.train
    set_seed(recipe.seed, device_specific=True)
    setting.student.train()
    if options.sharding == "fsdp2" and accelerator.num_processes > 1:
        model: nn.Module = shard(setting.student.to(accelerator.device))
    else:
        model = accelerator.prepare_model(setting.student)
    optimizer = torch.optim.AdamW(parameter_groups(model, options), lr=options.learning_rate)
    stream = train_stream(recipe, setting.train, accelerator.num_processes)
    total, per_epoch = total_steps(recipe, stream), math.ceil(stream.windows_per_epoch)
    release, state = recipe.distill.release, State()
    if release is not None:
        state.gamma = gamma_for(recipe.distill.weight, release.end, total)
        if release.corner_end is not None and release.corner_end != release.end:
            state.gamma_corner = gamma_for(recipe.distill.weight, release.corner_end, total)
    miner = setting.objective.miner
    if miner is not None:
        miner.require_choice(stream, accelerator.num_processes)
        miner.gather, miner.rank = partial(gather, accelerator=accelerator), accelerator.process_index
    drivekd, tasks = recipe.distill.drivekd, None
    if drivekd is not None and drivekd.projection is not None:
        tasks = TaskGradients(recipe, setting.objective.followers, model, accelerator)
    notes: dict[str, Tensor] = {}
    if setting.resume_from is not None:
        saved = load_checkpoint(setting.resume_from, model, optimizer)
        state = State(**{name: saved.get(name, value) for name, value in asdict(state).items()})
        extra = load_extra(setting.resume_from)
        if miner is not None:
            miner.load(extra)
        if tasks is not None:
            tasks.load(extra)
        if accelerator.is_main_process:  # they are those of all ranks
            notes = {name.removeprefix("notes/"): value for name, value in extra.items() if name.startswith("notes/")}
    return Loop(setting, accelerator, model, optimizer, stream, state, total, per_epoch, notes, tasks=tasks)


def train_stream(recipe: Recipe, samples: Sequence[Sample], ranks: int) -> Stream:
    """The order in which a run sees its samples."""
    options = recipe.train
    size, accumulate, ratio = options.batch_size, options.accumulate, recipe.data.corner_ratio
    lengths = None
    if options.similar_length and recipe.data.views == "named":
        lengths = shown_lengths(samples, reading_of("hf_vlm", recipe.data))
    return Stream(samples, recipe.seed, ratio, size, accumulate, ranks, options.similar_length, lengths)


def total_steps(recipe: Recipe, stream: Stream) -> int:
    """Optimizer steps of the whole run."""
    if recipe.train.steps is not None:
        return recipe.train.steps
    return max(1, math.ceil(recipe.train.epochs * stream.windows_per_epoch))


# --- validation -----------------------------------------------------------------------------------------------------


def _validate(loop: Loop) -> None:
    state = loop.state
    if not loop.setting.validation:
        return
    loss = validation_loss(loop)
    if not math.isfinite(loss):
        raise RunError(f"the validation loss is {loss} after step {state.step}")
    state.validated = state.step
    if state.best is None or loss < state.best:
        state.best, state.best_step = loss, state.step
    record: dict[str, Any] = {"step": state.step, "validation_loss": loss}
    record |= {"best": state.best, "best_step": state.best_step}
    layers = {name: layer for name, layer in mixtures(loop.setting.student.model).items() if layer.experts_learn}
    if layers:
        record["expert_distance"] = {name: round(expert_distance(layer), 5) for name, layer in layers.items()}
    loop.setting.log(record)


def validation_loss(loop: Loop) -> float:
    """Cross-entropy per supervised token (or as `train.reduction` counts) over the validation split, in nats; or the match
    stage's own loss.

    Every rank runs the same number of forwards, as FSDP2 demands; a rank that has run out repeats a sample unweighted.
    """
    options, accelerator = loop.setting.recipe.train, loop.accelerator
    chosen = loop.setting.validation
    ranks, rank = accelerator.num_processes, accelerator.process_index
    matching = isinstance(loop.setting.objective, VisionMatch)
    objective: Objective = loop.setting.objective if matching else Answers(options.reduction, fused=options.fused)
    sums = torch.zeros(2, dtype=torch.float64)
    loop.model.eval()
    with torch.no_grad():
        for start_of_round in range(0, len(chosen), options.batch_size * ranks):
            first = start_of_round + rank * options.batch_size
            mine = chosen[first : first + options.batch_size]
            batch = collate(mine or chosen[:1], loop.setting.preparations).to(accelerator.device)
            with accelerator.autocast():
                signal = ask_teacher(loop, batch, loop.moment) if matching else None
                rows = loop.model(batch, objective.wants)
            if mine:
                total = float(objective(rows, signal, batch, Moment(), Plan()).terms[0].total)
                sums += torch.tensor([total, objective.count(batch)], dtype=torch.float64)
    loop.model.train()
    total, number = sum_over_ranks(sums, accelerator).tolist()
    return float(total / number)


# --- data and log -----------------------------------------------------------------------------------------------------


def _windows(loop: Loop) -> Iterator[list[Batch]]:
    """This rank's windows, from the step at which the run stands."""
    setting, data = loop.setting, loop.setting.recipe.data
    loader: DataLoader[Batch] = DataLoader(
        SampleList(setting.train),
        batch_sampler=MicroBatches(loop.stream, loop.state.step, loop.accelerator.process_index),
        collate_fn=partial(collate, preparations=setting.preparations),
        num_workers=data.workers,
        prefetch_factor=data.prefetch if data.workers else None,
        worker_init_fn=leave_group,
        generator=torch.Generator(),  # or starting the loader would draw from the generator that dropout uses
    )
    batches = iter(loader)
    while True:
        yield [next(batches) for _ in range(loop.stream.accumulate)]
