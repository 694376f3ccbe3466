"""The steps of pre-training. The order of the frames is a function of seed and epoch, and so are the views shown of seed and
step: a run that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from drivedistill.checkpoint import last_checkpoint, load_checkpoint, recover, save_checkpoint
from drivedistill.optimize import learning_rate_factor, parameter_groups
from drivedistill.pretrain.augment import changed
from drivedistill.pretrain.lessons import Lessons
from drivedistill.pretrain.pictures import normalise
from drivedistill.pretrain.readout import Readout, Shown
from drivedistill.problems import RunError
from drivedistill.progress import Progress
from drivedistill.records import CAMERAS
from drivedistill.sections import Train
from drivedistill.signals import Interrupted, Signals

SAVE_EVERY = 200
"""Steps between two checkpoints."""
WARMUP = 50
"""Steps in which the learning rate rises, at most a tenth of the run."""
Statistics = tuple[list[float], list[float]]
"""Mean and standard deviation of the channels."""


@dataclass(frozen=True)
class Options:
    """How long and how a tower is pre-trained."""

    epochs: int = 8
    batch_size: int = 16
    """Frames per step."""
    views: int = 3
    """Of a frame in a step: the front one and others, which every step draws anew."""
    learning_rate: float = 3e-3
    precision: Literal["no", "bf16"] = "no"
    augment: bool = True
    """Change every picture a little each time it is shown (`augment.py`)."""


@dataclass(frozen=True)
class Split:
    """A split in memory."""

    pictures: Tensor
    """`uint8[F, C, H, W, 3]`"""
    present: Tensor
    """`bool[F, C]`: where there is a picture."""
    lessons: Lessons
    statistics: Statistics


@dataclass
class State:
    """Where a run stands; every checkpoint has it."""

    step: int = 0
    seconds: float = 0.0
    losses: tuple[float, ...] = ()
    """Means of the finished epochs."""
    unfinished: float = 0.0
    """Sum of the losses of the epoch that is going on."""


def fit(readout: Readout, split: Split, seed: int, options: Options, checkpoints: Path) -> State:
    """Train tower and heads, from the last checkpoint if there is one.

    Args:
        readout: Changed in place.
        split: The train split.
        seed: Of the order of frames and views.
        options: How long and how.
        checkpoints: Folder for the state.

    Raises:
        Interrupted: By a signal, after a checkpoint.
        RunError: The loss is not finite.
    """
    per_epoch = max(1, len(split.present) // options.batch_size)
    total = per_epoch * options.epochs
    warmup = min(WARMUP, total // 10)
    schedule = Train(learning_rate=options.learning_rate, schedule="linear", warmup_steps=warmup, weight_decay=0.05)
    optimizer = torch.optim.AdamW(parameter_groups(readout, schedule))
    state = _restored(checkpoints, readout, optimizer)
    began = time.monotonic() - state.seconds
    readout.train()
    with Signals() as signals, Progress(total, state.step) as progress:
        while state.step < total:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * learning_rate_factor(schedule, state.step, total, per_epoch)
            rows, views = drawn(state.step, len(split.present), seed, options)
            loss = readout.loss(
                show(split, rows, views, readout, _noise(state.step, seed, options)),
                split.lessons,
                bf16=options.precision == "bf16",
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            _count(state, loss, per_epoch)
            state.seconds = time.monotonic() - began
            progress.advance(float(loss.detach()))
            if state.step % SAVE_EVERY == 0 or state.step == total or signals.number:
                save_checkpoint(checkpoints, readout, optimizer, asdict(state), keep=1)
            if signals.number:
                raise Interrupted(signals.number)
    return state


def drawn(step: int, frames: int, seed: int, options: Options) -> tuple[Tensor, list[int]]:
    """Which frames a step sees, `int64[B]`, and which of their views."""
    size = min(options.batch_size, frames)
    epoch, place = divmod(step, max(1, frames // options.batch_size))
    order = torch.randperm(frames, generator=_generator(f"{seed} epoch {epoch}"))
    others = torch.randperm(len(CAMERAS) - 1, generator=_generator(f"{seed} step {step}"))[: options.views - 1] + 1
    return order[place * size : place * size + size], [0, *sorted(others.tolist())]


def show(
    split: Split, rows: Tensor, views: Sequence[int], readout: Readout, noise: torch.Generator | None = None
) -> Shown:
    """Frames as the tower is shown them: the views that are asked for and that exist, changed at random if there is noise."""
    device = readout.measures.weight.device
    asked = torch.zeros(len(CAMERAS), dtype=torch.bool)
    asked[list(views)] = True
    present = split.present[rows] & asked
    row, view = present.nonzero(as_tuple=True)
    picture_of = torch.full(present.shape, -1)
    picture_of[present] = torch.arange(len(row))
    pictures, moved = split.pictures[rows[row], view].to(device), None
    if noise is not None:
        pictures, moved = changed(pictures, noise)
    return Shown(normalise(pictures, *split.statistics), picture_of.to(device), rows.to(device), moved)


def _noise(step: int, seed: int, options: Options) -> torch.Generator | None:
    return _generator(f"{seed} changes of step {step}") if options.augment else None


def _count(state: State, loss: Tensor, per_epoch: int) -> None:
    value = float(loss.detach())
    if not torch.isfinite(loss):
        raise RunError(f"the loss is {value} at step {state.step}; lower --learning-rate and choose a new --out")
    state.step += 1
    state.unfinished += value
    if state.step % per_epoch == 0:
        state.losses, state.unfinished = (*state.losses, state.unfinished / per_epoch), 0.0


def _restored(checkpoints: Path, readout: Readout, optimizer: torch.optim.Optimizer) -> State:
    recover(checkpoints)
    if (target := last_checkpoint(checkpoints)) is None:
        return State()
    saved: dict[str, Any] = load_checkpoint(target, readout, optimizer)
    return State(saved["step"], saved["seconds"], tuple(saved["losses"]), saved["unfinished"])


def portions(frames: int, size: int) -> Iterator[Tensor]:
    """All frames in their order."""
    return iter(torch.arange(frames).split(size))


def _generator(name: str) -> torch.Generator:
    digest = hashlib.sha256(name.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
