"""A checkpoint is a directory that you can `ls`, and that either exists completely or not at all.

    runs/NAME/checkpoints/
        step-000100/model.safetensors       every weight, by name
                    optimizer.safetensors   AdamW's moments, `parameter|moment`
                    random.safetensors      random generators of every rank
                    extra.safetensors       the mining bank, diagnostics not yet logged; only where there are any
                    state.json              step, best validation, versions
        last -> step-000100
        best -> step-000050

Everything is written into a folder with a temporary name, flushed to the disk and renamed. A process that is killed at
any moment leaves the previous checkpoint or the new one, never half of one. Tensors only, no pickle.
The files are the same for one process, DDP and FSDP2, so a run may be resumed with another number of ranks (exactly,
as far as nothing random such as dropout is in the model).
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from drivedistill.folders import WRITING, clear_up, flush_folder, remove_folder, write_folder
from drivedistill.problems import InputError, Problem

_FULL = StateDictOptions(full_state_dict=True, cpu_offload=True)
SERVING = "to_teacher."
"""In the names of weights that learn beside a student and are left behind (see `models/student.py`)."""


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    *,
    keep: int,
    extra: dict[str, Tensor] | None = None,
) -> Path:
    """Write `folder/step-NNNNNN`, point `last` (and `best`, if `state["best_step"]` is this step) to it, drop old ones.

    Every rank must call it; the first one writes.

    Args:
        folder: The run's `checkpoints` folder.
        model: The student, wrapped or not.
        optimizer: Its optimizer.
        state: JSON values; needs `step`, may have `best_step`.
        keep: How many checkpoints stay, besides the best.
        extra: Further tensors to remember, such as a mining bank; see `load_extra`.
    """
    weights = get_model_state_dict(model, options=_FULL)
    moments = get_optimizer_state_dict(model, optimizer, options=_FULL)
    generators = _gather_generators()
    target = folder / f"step-{state['step']:06d}"
    if not dist.is_initialized() or dist.get_rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        clear_up(folder)
        unique, aliases = _without_aliases(weights)
        flat = {f"{name}|{key}": value for name, s in moments["state"].items() for key, value in s.items()}
        with write_folder(target) as new:
            save_file(unique, new / "model.safetensors")
            save_file(
                {key: torch.as_tensor(value).contiguous() for key, value in flat.items()}, new / "optimizer.safetensors"
            )
            save_file(generators, new / "random.safetensors")
            if extra:
                save_file(extra, new / "extra.safetensors")
            (new / "state.json").write_text(json.dumps({**state, "aliases": aliases}, indent=1), "utf-8")
        _point_links(folder, target, state)
        flush_folder(folder)
        _drop_old(folder, keep)
    if dist.is_initialized():
        dist.barrier()
    return target


def load_checkpoint(target: Path, model: nn.Module, optimizer: torch.optim.Optimizer | None) -> dict[str, Any]:
    """Put weights, moments and random generators back; returns the saved state.

    Raises:
        InputError: Files are missing or damaged, or belong to another model.
    """
    state = _state(target)
    weights = _tensors(target / "model.safetensors")
    weights |= {alias: weights[name] for alias, name in state["aliases"].items()}
    names = set(get_model_state_dict(model))
    if optimizer is None:  # training is over: what served it alone stays behind
        weights = {name: value for name, value in weights.items() if name in names or SERVING not in name}
    _require_names(target, set(weights), names)
    set_model_state_dict(model, weights, options=StateDictOptions(full_state_dict=True))
    if optimizer is not None:
        moments: dict[str, dict[str, Tensor]] = {}
        for key, value in _tensors(target / "optimizer.safetensors").items():
            name, _, moment = key.rpartition("|")
            moments.setdefault(name, {})[moment] = value
        groups = get_optimizer_state_dict(model, optimizer)["param_groups"]
        options = StateDictOptions(full_state_dict=True)
        set_optimizer_state_dict(model, optimizer, {"state": moments, "param_groups": groups}, options=options)
        _restore_generators(_tensors(target / "random.safetensors"))
    return state


def load_extra(target: Path) -> dict[str, Tensor]:
    """The further tensors of a checkpoint; empty where none were saved.

    Raises:
        InputError: The file is damaged.
    """
    path = target / "extra.safetensors"
    return _tensors(path) if path.exists() else {}


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint of a run; None when there is none. Needs no `last` link."""
    steps = _checkpoints(folder)
    return steps[-1] if steps else None


def recover(folder: Path) -> None:
    """Remove what a killed process left half-written, and point `last` and `best` where they belong.

    Raises:
        InputError: The newest checkpoint's `state.json` is damaged.
    """
    clear_up(folder)
    if newest := last_checkpoint(folder):
        _point_links(folder, newest, _state(newest))


def _without_aliases(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tied weights once: the unique tensors, and alias -> name."""
    first: dict[tuple[int, tuple[int, ...]], str] = {}
    unique: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    for name, value in weights.items():
        key = (value.data_ptr(), tuple(value.shape))
        if value.numel() and key in first:
            aliases[name] = first[key]
        else:
            first[key] = name
            unique[name] = value.contiguous()
    return unique, aliases


def _gather_generators() -> dict[str, Tensor]:
    """Random generators of every rank, by `rank/name`."""
    version, words, gauss = random.getstate()
    mine = {"torch": torch.get_rng_state(), "python": torch.tensor([version, *words], dtype=torch.int64)}
    if gauss is not None:
        mine["python_gauss"] = torch.tensor([gauss], dtype=torch.float64)
    if torch.cuda.is_available():
        mine["cuda"] = torch.cuda.get_rng_state()
    if not dist.is_initialized():
        return {f"0/{name}": value for name, value in mine.items()}
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, mine)
    return {f"{rank}/{name}": value for rank, theirs in enumerate(everyone) for name, value in theirs.items()}


def _restore_generators(saved: dict[str, Tensor]) -> None:
    rank = dist.get_rank() if dist.is_initialized() else 0
    if f"{rank}/torch" not in saved:  # resumed with more ranks than before: the new ones keep their fresh seed
        return
    torch.set_rng_state(saved[f"{rank}/torch"])
    version, *words = saved[f"{rank}/python"].tolist()
    gauss = saved.get(f"{rank}/python_gauss")
    random.setstate((version, tuple(words), None if gauss is None else float(gauss[0])))
    if torch.cuda.is_available() and f"{rank}/cuda" in saved:
        torch.cuda.set_rng_state(saved[f"{rank}/cuda"])


def _require_names(target: Path, saved: set[str], wanted: set[str]) -> None:
    if saved != wanted:
        lost, extra = sorted(wanted - saved), sorted(saved - wanted)
        found = f"{len(lost)} missing (first: {lost[:1]}), {len(extra)} unknown (first: {extra[:1]})"
        remedy = "resume with the recipe that wrote the checkpoint"
        raise InputError(Problem(str(target), "model.safetensors", "the weights of this model", found, remedy))


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        remedy = "resume from an older checkpoint: delete this folder"
        raise InputError(Problem(str(path), "", "a safetensors file", str(error)[:160], remedy)) from error


def _state(target: Path) -> dict[str, Any]:
    path = target / "state.json"
    try:
        state = json.loads(path.read_text("utf-8"))
        if not (isinstance(state, dict) and isinstance(state.get("step"), int) and isinstance(state["aliases"], dict)):
            raise ValueError("no object with `step` and `aliases`")
    except (OSError, ValueError, KeyError) as error:
        remedy = "resume from an older checkpoint: delete this folder"
        raise InputError(Problem(str(path), "", "the state of a checkpoint", str(error), remedy)) from error
    return state


def _checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, the oldest first."""
    found = {path.name.removeprefix("step-"): path for path in folder.glob("step-*") if (path / "state.json").is_file()}
    return [found[step] for step in sorted(filter(str.isdecimal, found), key=int)]


def _point_links(folder: Path, newest: Path, state: dict[str, Any]) -> None:
    """Point `last` to the newest checkpoint and `best` to the one that its state names."""
    if state.get("best_step") is not None and (best := folder / f"step-{state['best_step']:06d}").is_dir():
        _point(folder / "best", best)
    _point(folder / "last", newest)


def _point(link: Path, target: Path) -> None:
    """Make `link` a relative symbolic link to `target`, in one step."""
    temporary = link.with_name(f"{WRITING}{link.name}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target.name)
    temporary.replace(link)


def _drop_old(folder: Path, keep: int) -> None:
    best = (folder / "best").resolve()
    for old in _checkpoints(folder)[:-keep]:
        if old.resolve() != best:
            remove_folder(old)
