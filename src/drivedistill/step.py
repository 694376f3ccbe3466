"""One optimizer window: forward and backward of its micro-batches, one update.

The division. An optimizer window is `accumulate` micro-batches on each of W ranks. Its divisor, the number of supervised
tokens of the whole window over all ranks (or of samples, or the sum of roots, see `train.reduction`), is known before its
first forward. Every term's sum is divided by it once, here; so the accumulated gradient is the same for 1x8 and 8x1
micro-batches and for one or two ranks. Mined terms are weighted so that their pool counts as much as its tokens do; router
losses are averaged, not divided. Followers (a capability's lesson) are always divided by the window's number of samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from drivedistill.batch import Batch, Signal
from drivedistill.data.collate import Preparation
from drivedistill.data.stream import Stream
from drivedistill.distill.miner import Plan
from drivedistill.distill.mining import Selection
from drivedistill.distill.objective import ROUTER_LOSSES, Answers, Moment, Objective, Outcome, Role, Term, regime_sums
from drivedistill.distill.release import alpha_at
from drivedistill.distill.teacher import Teacher
from drivedistill.distill.teachers import TeachersByCapability
from drivedistill.machine import Stopwatch
from drivedistill.models.student import Student
from drivedistill.optimize import learning_rate_factor
from drivedistill.problems import RunError
from drivedistill.ranks import exchange_gradients, sum_over_ranks
from drivedistill.recipe import Recipe
from drivedistill.records import Sample
from drivedistill.task_gradients import TaskGradients


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
    """Lowest validation loss so far, nats per token (or per sample, see `train.reduction`)."""
    best_step: int | None = None
    validated: int = 0
    """The last step after which the validation split was looked at."""
    seconds: float = 0.0
    teacher_seconds: float = 0.0
    """Those of `seconds` in which the teacher read."""
    peak_memory_gb: float = 0.0
    """Of the first rank, in 1e9 bytes; see `machine.peak_memory_gb`."""
    gamma: float = 1.0
    """Decay rate of the teacher's weight; derived once, when the run begins."""
    gamma_corner: float | None = None
    """That of corner samples, where `distill.release.corner_end` gives them another one."""


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
    teaching: Stopwatch = field(default_factory=Stopwatch)
    """Runs while the teacher reads."""
    tasks: TaskGradients | None = None
    """Keeps the gradients of anchor and followers apart, where the recipe projects them."""

    @property
    def moment(self) -> Moment:
        """Where the run stands."""
        distill, state = self.setting.recipe.distill, self.state
        weight = distill.weight if self.setting.teacher is not None else 0.0
        below = distill.release.below if distill.release else None
        corner = None if state.gamma_corner is None else alpha_at(state.step, weight, state.gamma_corner, below)
        return Moment(state.step, self.total, alpha_at(state.step, weight, state.gamma, below), corner)


def step(loop: Loop, window: list[Batch]) -> dict[str, Any]:
    """One optimizer window: forward and backward of its micro-batches, one update; returns what is logged.

    Raises:
        RunError: A loss or the gradient is not finite; no update is made.
    """
    accelerator, options, objective = loop.accelerator, loop.setting.recipe.train, loop.setting.objective
    window = [batch.to(accelerator.device) for batch in window]
    moment = loop.moment
    _release(loop, moment)
    sums, hardness = _passes(loop, window, moment)
    projected = {} if loop.tasks is None else loop.tasks.finish()
    parameters = [parameter for parameter in loop.model.parameters() if parameter.requires_grad]
    norm = nn.utils.clip_grad_norm_(parameters, options.clip or math.inf)
    norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    record = _record(window, sums, set(objective.followers), accelerator)
    record |= {"grad_norm": float(norm), **projected}
    if loop.setting.recipe.teacher is not None:
        record["alpha"] = moment.alpha
        record |= {} if moment.alpha_corner is None else {"alpha_corner": moment.alpha_corner}
    _require_finite(record, window)
    if objective.miner is not None:
        objective.miner.learn(window, hardness)
    if loop.tasks is not None:
        loop.tasks.learn()
    epoch = (loop.state.step + 1) / loop.stream.windows_per_epoch
    return record | {"epoch": round(epoch, 4), "learning_rate": _update(loop)}


def _passes(loop: Loop, window: list[Batch], moment: Moment) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Forward and backward of every micro-batch; returns the sums to log, and the samples' hardness when somebody mines."""
    accelerator, objective, tasks = loop.accelerator, loop.setting.objective, loop.tasks
    divisors = _divisors(window, objective, accelerator)
    # DDP and FSDP2 average over ranks; times W makes it the sum that the divisor belongs to.
    ranks = accelerator.num_processes
    shares = {role: (1 if role == "aux" else ranks) / divisor for role, divisor in divisors.items()}
    # Followers have their place from the start: a rank may see none, and all add up the same table.
    sums = {name: torch.zeros(2, dtype=torch.float64) for name in ("loss", *objective.followers)}
    hardness: list[Tensor] = []
    if tasks is not None:
        tasks.begin(moment.step)
    _prepare_teachers(loop, window, moment)
    for position, (batch, plan) in enumerate(zip(window, _plan(loop, window, moment), strict=True)):
        last = position == len(window) - 1 if tasks is None else tasks.sharded
        with exchange_gradients(loop.model, last=last):
            outcome = micro_batch(loop, batch, moment, plan)
            if tasks is not None:
                tasks.backward(outcome.terms, shares, batch.num_samples)
            else:
                accelerator.backward(torch.stack([t.weight * t.total * shares[t.role] for t in outcome.terms]).sum())
        means = {term.name: _logged(term, divisors, accelerator) for term in outcome.terms}
        _add(sums, means | {"loss": torch.stack([t.weight * means[t.name] for t in outcome.terms]).sum(dim=0)})
        _add(loop.notes, outcome.notes)
        hardness += [] if outcome.hardness is None else [outcome.hardness]
    return sums, hardness


def _update(loop: Loop) -> float:
    """The optimizer's step; returns the learning rate."""
    options = loop.setting.recipe.train
    factor = learning_rate_factor(options, loop.state.step, loop.total, loop.per_epoch)
    for group in loop.optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    loop.optimizer.step()
    loop.optimizer.zero_grad(set_to_none=True)
    return options.learning_rate * factor


def micro_batch(loop: Loop, batch: Batch, moment: Moment, plan: Plan) -> Outcome:
    """The objective of one micro-batch; the teacher speaks just in time and without gradient."""
    objective = loop.setting.objective
    teacher = loop.setting.teacher
    spoken = isinstance(teacher, TeachersByCapability) and teacher.in_turn  # of all rows, before any was mined
    if plan.selection is not None and isinstance(objective, Answers) and objective.only_mined(moment) and not spoken:
        chosen = plan.selection.rows
        batch = batch.keep(chosen)
        kept = Selection(torch.ones_like(chosen[chosen]), plan.selection.weights[chosen])
        plan = Plan(kept, notes=plan.notes)
    with loop.accelerator.autocast():
        with loop.teaching.running():
            signal = ask_teacher(loop, batch, moment)
        rows = loop.model(batch, objective.wants)
    return objective(rows, signal, batch, moment, plan)


def ask_teacher(loop: Loop, batch: Batch, moment: Moment, *, lessons: bool = True) -> Signal | None:
    """What the objective needs of the teacher; None when there is nobody, or nothing to ask."""
    teacher, needs = loop.setting.teacher, loop.setting.objective.asks(batch, moment)
    needs = needs if lessons else frozenset(need for need in needs if isinstance(need, str))
    return teacher.signal(batch, needs) if teacher is not None and needs else None


def _release(loop: Loop, moment: Moment) -> None:
    """Free a teacher that nobody will ask again."""
    release = loop.setting.recipe.distill.release
    if release is not None and release.below is not None and not moment.heard and loop.setting.teacher is not None:
        loop.setting.teacher.close()
        loop.setting.teacher = None


def _prepare_teachers(loop: Loop, window: list[Batch], moment: Moment) -> None:
    """Teachers that take turns speak about a whole window at once."""
    if isinstance(loop.setting.teacher, TeachersByCapability):
        asked = [loop.setting.objective.asks(batch, moment) for batch in window]
        with loop.teaching.running(), loop.accelerator.autocast():
            loop.setting.teacher.prepare(window, asked)


def _plan(loop: Loop, window: list[Batch], moment: Moment) -> list[Plan]:
    """What mining settles before the forwards of a window."""
    objective = loop.setting.objective
    if objective.miner is None or not isinstance(objective, Answers):
        return [Plan() for _ in window]

    words = frozenset(need for need in objective.wants - {"routing"} if isinstance(need, str))

    def score(batch: Batch) -> tuple[Tensor, Tensor]:
        with torch.no_grad(), loop.accelerator.autocast():
            rows = loop.model(batch, words)
            with loop.teaching.running():
                # Only if its losses are compared, and no lesson: those are given once, when the student learns.
                signal = ask_teacher(loop, batch, Moment(moment.step, moment.total), lessons=False)
            losses, _ = objective.losses(rows, batch)
        return losses, objective.measure(losses, signal, batch)

    at = objective.miner.percentages(moment.step, moment.total)
    if at is None or objective.miner.spec.pool != "window":
        return objective.miner.plan(window, at, score)
    loop.model.eval()  # hardness without the noise of dropout
    plans = objective.miner.plan(window, at, score)
    loop.model.train()
    return plans


def _add(sums: dict[str, Tensor], more: dict[str, Tensor]) -> None:
    for name, value in more.items():
        sums[name] = sums[name] + value if name in sums else value


def _divisors(window: list[Batch], objective: Objective, accelerator: Accelerator) -> dict[Role, float]:
    """What terms of each role are divided by: the window's count over all ranks, its samples, and for means micro-batches."""
    counts = [[objective.count(batch), float(batch.num_samples)] for batch in window]
    count, samples = sum_over_ranks(torch.tensor(counts, dtype=torch.float64).sum(dim=0), accelerator).tolist()
    return {"anchor": count, "follower": samples, "aux": float(len(window))}


def _logged(term: Term, divisors: dict[Role, float], accelerator: Accelerator) -> Tensor:
    """`float64[2]` whose sum over regimes, micro-batches and ranks is the term's mean; of `aux` terms all in the first."""
    if term.role == "aux":
        mean = term.total.detach().double().cpu() / (divisors["aux"] * accelerator.num_processes)
        return torch.stack([mean, torch.zeros_like(mean)])
    return term.by_regime.cpu() / divisors[term.role]


def _record(
    window: list[Batch], sums: dict[str, Tensor], followers: set[str], accelerator: Accelerator
) -> dict[str, Any]:
    """What the log says of a window: every term's mean, and the corner regime's share of samples, tokens and terms.

    Followers that no rank has met are left out.
    """
    samples = sum(regime_sums(torch.ones(batch.num_samples), batch) for batch in window)
    tokens = sum(regime_sums(batch.tokens_per_sample().cpu(), batch) for batch in window)
    table = torch.stack([torch.as_tensor(row, dtype=torch.float64).cpu() for row in (samples, tokens, *sums.values())])
    rows = dict(zip(("samples", "tokens", *sums), sum_over_ranks(table, accelerator), strict=True))
    means = {name: float(rows[name].sum()) for name in sums if name not in followers or rows[name].any()}
    share = {
        name: round(float(row[1] / row.sum()), 4) if row.sum() else 0.0
        for name, row in rows.items()
        if name not in ROUTER_LOSSES and name != "loss" and name in means.keys() | {"samples", "tokens"}
    }
    return {**means, "corner_share": share}


def _require_finite(record: dict[str, Any], window: list[Batch]) -> None:
    if bad := [name for name, value in record.items() if isinstance(value, float) and not math.isfinite(value)]:
        ids = ", ".join(sample for batch in window for sample in batch.ids)
        raise RunError(f"{', '.join(bad)} not finite; no update was made. Samples of this window: {ids}")
