"""The loop: supervised training and distillation, on one process, DDP or FSDP2.

The division. An optimizer window is `accumulate` micro-batches on each of W ranks. Its divisor, the number of supervised
tokens (or samples) of the whole window over all ranks, is known before its first forward. Every term's sum is divided
by it once, here; so the accumulated gradient is the same for 1x8 and 8x1 micro-batches and for one or two ranks. Mined
terms are weighted so that their pool counts as much as its tokens do; router losses are averaged, not divided.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader

from drivedistill.batch import Batch, Signal
from drivedistill.checkpoint import load_checkpoint, load_extra, save_checkpoint
from drivedistill.data.collate import Preparation, collate
from drivedistill.data.stream import MicroBatches, SampleList, Stream
from drivedistill.distill.diagnostics import report
from drivedistill.distill.losses import cross_entropy
from drivedistill.distill.miner import Plan
from drivedistill.distill.mining import Selection
from drivedistill.distill.objective import (
    ROUTER_LOSSES,
    Answers,
    Moment,
    Objective,
    Outcome,
    Term,
    VisionMatch,
    regime_sums,
)
from drivedistill.distill.release import alpha_at, gamma_for
from drivedistill.distill.teacher import Teacher
from drivedistill.models.mixture import expert_distance
from drivedistill.models.student import Student, mixtures
from drivedistill.optimize import learning_rate_factor, parameter_groups, shard
from drivedistill.problems import InputError, RunError
from drivedistill.progress import Progress
from drivedistill.recipe import Recipe
from drivedistill.records import Sample
from drivedistill.signals import Interrupted, Signals, leave_group


@dataclass
class Setting:
    """Everything the loop needs, built by `runs.assemble`."""

    recipe: Recipe
    student: Student
    preparations: dict[str, Preparation]
    objective: Objective
    teacher: Teacher | None
    train: Sequence[Sample]
    validation: Sequence[Sample]
    run: Path = Path()
    resume_from: Path | None = None
    log: Callable[[dict[str, Any]], None] = field(default=lambda record: None)


@dataclass
class State:
    """Where a run stands; saved with every checkpoint."""

    step: int = 0
    best: float | None = None
    """Lowest validation loss so far, nats per token (or per sample)."""
    best_step: int | None = None
    validated: int = 0
    """The last step after which the validation split was looked at."""
    seconds: float = 0.0
    gamma: float = 1.0
    """Decay rate of the teacher's weight; derived once, when the run begins."""


@dataclass
class Loop:
    """A run in progress: the setting on its devices."""

    setting: Setting
    accelerator: Accelerator
    model: nn.Module
    """The student, wrapped for its ranks."""
    optimizer: torch.optim.Optimizer
    stream: Stream
    state: State
    total: int
    """Optimizer steps of the whole run."""
    per_epoch: int
    """Optimizer steps of one epoch, rounded up."""
    notes: dict[str, Tensor] = field(default_factory=dict)
    """Diagnostics since they were logged last, summed over this rank's micro-batches."""

    @property
    def moment(self) -> Moment:
        """Where the run stands."""
        distill, alpha = self.setting.recipe.distill, 0.0
        if self.setting.teacher is not None:
            below = distill.release.below if distill.release else None
            alpha = alpha_at(self.state.step, distill.weight, self.state.gamma, below)
        return Moment(self.state.step, self.total, alpha)


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
        while state.step < total:
            started = time.monotonic()
            record = step(loop, next(windows))
            state.step += 1
            state.seconds += time.monotonic() - started
            progress.advance(record["loss"])
            last = state.step == total
            asked = 0 if last else _any_rank(signals.number, accelerator)
            if not asked and (state.step % validate_every == 0 or last):
                _validate(loop)
            if state.step % options.log_every == 0 or last:
                notes, loop.notes = report(_sum_notes(loop.notes, accelerator)), {}
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
    folder, keep = loop.setting.run / "checkpoints", loop.setting.recipe.train.keep
    miner = loop.setting.objective.miner
    extra = miner.state() if miner else {}
    save_checkpoint(folder, loop.model, loop.optimizer, asdict(loop.state), keep=keep, extra=extra)


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
    release = recipe.distill.release
    state = State(gamma=gamma_for(recipe.distill.weight, release.end, total) if release else 1.0)
    miner = setting.objective.miner
    if miner is not None:
        miner.gather, miner.rank = partial(_gather, accelerator=accelerator), accelerator.process_index
    if setting.resume_from is not None:
        saved = load_checkpoint(setting.resume_from, model, optimizer)
        state = State(**{name: saved.get(name, value) for name, value in asdict(state).items()})
        if miner is not None:
            miner.load(load_extra(setting.resume_from))
    return Loop(setting, accelerator, model, optimizer, stream, state, total, per_epoch)


def train_stream(recipe: Recipe, samples: Sequence[Sample], ranks: int) -> Stream:
    """The order in which a run sees its samples."""
    options = recipe.train
    return Stream(samples, recipe.seed, recipe.data.corner_ratio, options.batch_size, options.accumulate, ranks)


def total_steps(recipe: Recipe, stream: Stream) -> int:
    """Optimizer steps of the whole run."""
    if recipe.train.steps is not None:
        return recipe.train.steps
    return max(1, math.ceil(recipe.train.epochs * stream.windows_per_epoch))


# --- one step -------------------------------------------------------------------------------------------------------


def step(loop: Loop, window: list[Batch]) -> dict[str, Any]:
    """One optimizer window: forward and backward of its micro-batches, one update; returns what is logged.

    Raises:
        RunError: A loss or the gradient is not finite; no update is made.
    """
    accelerator, options, objective = loop.accelerator, loop.setting.recipe.train, loop.setting.objective
    window = [batch.to(accelerator.device) for batch in window]
    divisor = float(_sum(torch.tensor([sum(objective.count(batch) for batch in window)]), accelerator))
    moment = loop.moment
    _release(loop, moment)
    plans = _plan(loop, window, moment)
    sums: dict[str, Tensor] = {}
    outcome = Outcome([])
    hardness: list[Tensor] = []
    for position, (batch, plan) in enumerate(zip(window, plans, strict=True)):
        with _exchange_gradients(loop.model, last=position == len(window) - 1):
            outcome = micro_batch(loop, batch, moment, plan)
            # DDP and FSDP2 average over ranks; times W makes it the sum that the divisor belongs to.
            scale = {"aux": 1 / len(window)}
            shared = accelerator.num_processes / divisor
            loss = torch.stack([t.weight * t.total * scale.get(t.role, shared) for t in outcome.terms]).sum()
            accelerator.backward(loss)
        _add(sums, {term.name: _logged(term, divisor, accelerator, window) for term in outcome.terms})
        _add(loop.notes, outcome.notes)
        hardness += [] if outcome.hardness is None else [outcome.hardness]
    parameters = [parameter for parameter in loop.model.parameters() if parameter.requires_grad]
    norm = nn.utils.clip_grad_norm_(parameters, options.clip or math.inf)
    norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    record = _record(window, sums, {term.name: term.weight for term in outcome.terms}, accelerator)
    record["grad_norm"] = float(norm)
    if loop.setting.recipe.teacher is not None:
        record["alpha"] = moment.alpha
    _require_finite(record, window)
    if objective.miner is not None:
        objective.miner.learn(window, hardness)
    factor = learning_rate_factor(options, loop.state.step, loop.total, loop.per_epoch)
    for group in loop.optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    loop.optimizer.step()
    loop.optimizer.zero_grad(set_to_none=True)
    epoch = (loop.state.step + 1) / loop.stream.windows_per_epoch
    return record | {"epoch": round(epoch, 4), "learning_rate": options.learning_rate * factor}


def micro_batch(loop: Loop, batch: Batch, moment: Moment, plan: Plan) -> Outcome:
    """The objective of one micro-batch; the teacher speaks just in time and without gradient."""
    objective = loop.setting.objective
    if plan.selection is not None and isinstance(objective, Answers) and objective.only_mined(moment):
        chosen = plan.selection.rows
        batch = batch.keep(chosen)
        kept = Selection(torch.ones_like(chosen[chosen]), plan.selection.weights[chosen])
        plan = Plan(kept, notes=plan.notes)
    with loop.accelerator.autocast():
        signal = _signal(loop, batch)
        rows = loop.model(batch, objective.wants)
    return objective(rows, signal, batch, moment, plan)


def _signal(loop: Loop, batch: Batch) -> Signal | None:
    teacher, needs = loop.setting.teacher, loop.setting.objective.needs
    return teacher.signal(batch, needs) if teacher is not None and needs else None


def _release(loop: Loop, moment: Moment) -> None:
    """Free a teacher that nobody will ask again."""
    release = loop.setting.recipe.distill.release
    if release is not None and release.below is not None and moment.alpha == 0 and loop.setting.teacher is not None:
        loop.setting.teacher.close()
        loop.setting.teacher = None


def _plan(loop: Loop, window: list[Batch], moment: Moment) -> list[Plan]:
    """What mining settles before the forwards of a window."""
    objective = loop.setting.objective
    if objective.miner is None or not isinstance(objective, Answers):
        return [Plan() for _ in window]

    def score(batch: Batch) -> Tensor:
        with torch.no_grad(), loop.accelerator.autocast():
            rows = loop.model(batch)
            signal = _signal(loop, batch) if objective.miner and objective.miner.spec.measure != "loss" else None
        assert rows.logits is not None
        return objective.measure(cross_entropy(rows.logits, batch.gold), signal, batch)

    at = objective.miner.percentages(moment.step, moment.total)
    scored = at is not None and objective.miner.spec.pool == "window"
    loop.model.train(not scored)  # hardness without the noise of dropout
    plans = objective.miner.plan(window, at, score)
    loop.model.train()
    return plans


def _add(sums: dict[str, Tensor], more: dict[str, Tensor]) -> None:
    for name, value in more.items():
        sums[name] = sums[name] + value if name in sums else value


def _logged(term: Term, divisor: float, accelerator: Accelerator, window: list[Batch]) -> Tensor:
    """`float64[2]` whose sum over regimes, micro-batches and ranks is the term's mean; of `aux` terms all in the first."""
    if term.role == "aux":
        mean = term.total.detach().double().cpu() / (len(window) * accelerator.num_processes)
        return torch.stack([mean, torch.zeros_like(mean)])
    return term.by_regime.cpu() / divisor


def _record(
    window: list[Batch], sums: dict[str, Tensor], weights: dict[str, float], accelerator: Accelerator
) -> dict[str, Any]:
    """What the log says of a window: every term's mean, and the corner regime's share of samples, tokens and terms."""
    samples = sum(regime_sums(torch.ones(batch.num_samples), batch) for batch in window)
    tokens = sum(regime_sums(batch.tokens_per_sample().cpu(), batch) for batch in window)
    table = torch.stack([torch.as_tensor(row, dtype=torch.float64).cpu() for row in (samples, tokens, *sums.values())])
    rows = dict(zip(("samples", "tokens", *sums), _sum(table, accelerator), strict=True))
    means = {name: float(rows[name].sum()) for name in sums}
    share = {
        name: round(float(row[1] / row.sum()), 4) if row.sum() else 0.0
        for name, row in rows.items()
        if name not in ROUTER_LOSSES
    }
    loss = sum(weights[name] * mean for name, mean in means.items())
    return {"loss": loss, **means, "corner_share": share}


def _require_finite(record: dict[str, Any], window: list[Batch]) -> None:
    if bad := [name for name, value in record.items() if isinstance(value, float) and not math.isfinite(value)]:
        ids = ", ".join(sample for batch in window for sample in batch.ids)
        raise RunError(f"{', '.join(bad)} not finite; no update was made. Samples of this window: {ids}")


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
    if layers := mixtures(loop.setting.student.model):
        record["expert_distance"] = {name: round(expert_distance(layer), 5) for name, layer in layers.items()}
    loop.setting.log(record)


def validation_loss(loop: Loop) -> float:
    """Cross-entropy per supervised token (or sample) over the validation split, in nats; of the match stage its own loss.

    Every rank runs the same number of forwards, as FSDP2 demands; a rank that has run out repeats a sample unweighted.
    """
    options, accelerator = loop.setting.recipe.train, loop.accelerator
    chosen = loop.setting.validation
    ranks, rank = accelerator.num_processes, accelerator.process_index
    matching = isinstance(loop.setting.objective, VisionMatch)
    objective: Objective = loop.setting.objective if matching else Answers(options.reduction)
    sums = torch.zeros(2, dtype=torch.float64)
    loop.model.eval()
    with torch.no_grad():
        for start_of_round in range(0, len(chosen), options.batch_size * ranks):
            first = start_of_round + rank * options.batch_size
            mine = chosen[first : first + options.batch_size]
            batch = collate(mine or chosen[:1], loop.setting.preparations).to(accelerator.device)
            with accelerator.autocast():
                signal = _signal(loop, batch) if matching else None
                rows = loop.model(batch, objective.wants)
            if mine:
                total = float(objective(rows, signal, batch, Moment(), Plan()).terms[0].total)
                sums += torch.tensor([total, objective.count(batch)], dtype=torch.float64)
    loop.model.train()
    total, number = _sum(sums, accelerator).tolist()
    return float(total / number)


# --- data and ranks -------------------------------------------------------------------------------------------------


def _windows(loop: Loop) -> Iterator[list[Batch]]:
    """This rank's windows, from the step at which the run stands."""
    setting, workers = loop.setting, loop.setting.recipe.data.workers
    loader: DataLoader[Batch] = DataLoader(
        SampleList(setting.train),
        batch_sampler=MicroBatches(loop.stream, loop.state.step, loop.accelerator.process_index),
        collate_fn=partial(collate, preparations=setting.preparations),
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        worker_init_fn=leave_group,
        generator=torch.Generator(),  # or starting the loader would draw from the generator that dropout uses
    )
    batches = iter(loader)
    while True:
        yield [next(batches) for _ in range(loop.stream.accumulate)]


def _exchange_gradients(model: Any, *, last: bool) -> AbstractContextManager[Any]:
    """Exchange gradients between ranks only in the window's last backward."""
    if hasattr(model, "set_requires_gradient_sync"):  # FSDP2
        model.set_requires_gradient_sync(last)
        return nullcontext()
    if last or not hasattr(model, "no_sync"):
        return nullcontext()
    return model.no_sync()  # DDP


def _sum(values: Tensor, accelerator: Accelerator) -> Tensor:
    """Sum over ranks, on the CPU."""
    if accelerator.num_processes == 1:
        return values
    values = values.to(accelerator.device)
    dist.all_reduce(values)
    return values.cpu()


def _gather(values: Tensor, accelerator: Accelerator) -> list[Tensor]:
    """A tensor of the same shape on every rank: those of all ranks, on the CPU."""
    if accelerator.num_processes == 1:
        return [values.cpu()]
    values = values.to(accelerator.device)
    everyone = [torch.empty_like(values) for _ in range(accelerator.num_processes)]
    dist.all_gather(everyone, values)
    return [value.cpu() for value in everyone]


def _sum_notes(notes: dict[str, Tensor], accelerator: Accelerator) -> dict[str, Tensor]:
    return {name: _sum(value, accelerator) for name, value in notes.items()}


def _any_rank(number: int, accelerator: Accelerator) -> int:
    """The signal that any rank has received (0: none), so that all stop at the same step."""
    if accelerator.num_processes == 1:
        return number
    asked = torch.tensor([number], device=accelerator.device)
    dist.all_reduce(asked, op=dist.ReduceOp.MAX)
    return int(asked)


def write_metrics(path: Path) -> Callable[[dict[str, Any]], None]:
    """A log function that appends one JSON object per line."""

    def log(record: dict[str, Any]) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    return log
