"""Pre-training from recipe to folder: what `drivedistill pretrain` does.

DIR/recipe.yaml  options.json  pretrain.json  checkpoints/  model/config.json  model/model.safetensors
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, PreTrainedConfig

from drivedistill.folders import write_folder
from drivedistill.models.presets import build_config, image_statistics
from drivedistill.models.vlm_presets import STATISTICS, VLM_PRESETS, build_tower_config
from drivedistill.pretrain.accuracy import examine
from drivedistill.pretrain.facts import Frame, read_frames
from drivedistill.pretrain.lessons import Head, choose_heads, encode
from drivedistill.pretrain.loop import Options, Split, Statistics, fit, portions, show
from drivedistill.pretrain.pictures import decode, megabytes
from drivedistill.pretrain.readout import Readout
from drivedistill.problems import InputError, Problem
from drivedistill.progress import counted
from drivedistill.recipe import Recipe, changed_fields, load_recipe, save_recipe
from drivedistill.records import CAMERAS, write_json


def pretrain(
    recipe: Recipe,
    folder: Path,
    options: Options,
    *,
    resume: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Pre-train the vision tower of a recipe's model on what the recipe's DriveLM sources know about their pictures.

    Args:
        recipe: Its data, its model's vision part and its seed are used.
        folder: Where the results are written; `model/` is for `model.vision_weights`.
        options: How long and how.
        resume: Go on from the last checkpoint in the folder.
        say: Told what is learnt from, before the work begins.

    Returns:
        What `pretrain.json` says.

    Raises:
        InputError: The options cannot train, the recipe's tower is of another kind, its data cannot be used, or the folder
            holds something else.
        Interrupted: By a signal, after a checkpoint.
        RunError: The loss is not finite.
    """
    _require_trainable(options)
    config, statistics = tower_config(recipe)
    _require_own_folder(recipe, folder, options, resume=resume)
    frames = read_frames(recipe.data.sources)
    heads = choose_heads(frames["train"])
    _require_enough(frames["train"], heads, options)
    say(_summary(frames, heads, recipe.data.image_size))
    torch.manual_seed(recipe.seed)
    tower = AutoModel.from_config(config, attn_implementation=recipe.model.attention)
    readout = Readout(tower, heads).to("cuda" if torch.cuda.is_available() else "cpu")
    splits = {name: _in_memory(part, heads, recipe, statistics, readout) for name, part in frames.items() if part}
    _claim(recipe, folder, options)
    state = fit(readout, splits["train"], recipe.seed, options, folder / "checkpoints")
    facts = {
        "recipe": recipe.name,
        "preset": recipe.model.preset,
        "seed": recipe.seed,
        **asdict(options),
        "steps": state.step,
        "seconds": round(state.seconds, 1),
        "frames": {name: len(part) for name, part in frames.items()},
        "pictures": {name: int(split.present.sum()) for name, split in splits.items()},
        "losses": [round(loss, 4) for loss in state.losses],
        "validation": _validate(readout, heads, splits["val"]) if "val" in splits else None,
    }
    with write_folder(folder / "model") as new:
        readout.tower.save_pretrained(new)
    write_json(folder / "pretrain.json", facts)
    return facts


def tower_config(recipe: Recipe) -> tuple[PreTrainedConfig, Statistics]:
    """The configuration of the recipe's vision tower, and the mean and spread of the pictures that it is given.

    Raises:
        InputError: The recipe takes its model from a path, or its vision tower is not of a kind that is trained from
            scratch.
    """
    model, remedy = recipe.model, "name a preset with such a tower, or set model.overrides.vision.model_type to pyramid"
    expected = "a preset whose vision tower is trained from scratch: a `pyramid`, or that of a small VLM"
    if model.preset is None:
        raise InputError(Problem("recipe", "model.path", expected, str(model.path), remedy))
    if model.preset in VLM_PRESETS:
        return build_tower_config(model.preset, recipe.data.image_size, model.overrides), STATISTICS
    config = build_config(model.preset, image_size=recipe.data.image_size, overrides=model.overrides)
    if config.vision.model_type != "pyramid":
        found = f"a tower of the kind `{config.vision.model_type}`, for which published weights can be had"
        raise InputError(Problem("recipe", "model.preset", expected, found, f"use those weights, or {remedy}"))
    return config.vision, image_statistics(config)


def _require_trainable(options: Options) -> None:
    """Refuse options with which no step can be made."""
    problems = []
    if not (math.isfinite(options.learning_rate) and options.learning_rate > 0):
        found, remedy = f"{options.learning_rate:g}", "leave it at its default, or choose another"
        problems.append(Problem("command line", "--learning-rate", "a number above 0", found, remedy))
    if options.batch_size * options.views < 2:
        expected = "at least two pictures per step, whose mean and spread are taken"
        problems.append(Problem("command line", "--batch-size", expected, "one", "raise --batch-size or --views"))
    if problems:
        raise InputError(problems)


def _require_enough(frames: list[Frame], heads: list[Head], options: Options) -> None:
    """Refuse data from which nothing can be learnt."""
    problems = []
    if not heads:
        expected = "key objects with differing attributes, or closed questions asked often enough"
        problems.append(Problem("recipe", "data.sources", expected, "none in the train split", "add data"))
    if len(frames) < options.batch_size:
        expected, found = f"at least {options.batch_size} frames, one step's", counted(len(frames), "frame")
        problems.append(Problem("recipe", "data.sources", expected, found, "lower --batch-size, or add data"))
    if problems:
        raise InputError(problems)


def _summary(frames: dict[str, list[Frame]], heads: list[Head], size: int) -> str:
    facts = sum(len(frame.facts) for frame in frames["train"])
    memory = sum(megabytes(part, size) for part in frames.values())
    kinds = counted(len({head.kind for head in heads}), "kind")
    return (
        f"{counted(len(frames['train']), 'frame')}, {counted(facts, 'fact')}; {counted(len(heads), 'head')} of {kinds}; "
        f"decoded pictures take {memory:,.0f} MB of memory"
    )


def _in_memory(
    frames: list[Frame], heads: list[Head], recipe: Recipe, statistics: Statistics, readout: Readout
) -> Split:
    pictures, present = decode(frames, recipe.data.image_size)
    lessons = encode(frames, heads).to(readout.measures.weight.device)
    return Split(pictures, present, lessons, statistics)


def _validate(readout: Readout, heads: list[Head], split: Split) -> dict[str, Any]:
    every = range(len(CAMERAS))
    shown = (show(split, rows, every, readout) for rows in portions(len(split.present), 32))
    return examine(readout, heads, split.lessons, shown)


def _require_own_folder(recipe: Recipe, folder: Path, options: Options, *, resume: bool) -> None:
    """Refuse a folder that holds anything but this very run to go on with."""
    if folder.exists() and not folder.is_dir():
        raise InputError(Problem(str(folder), "", "a folder for the tower", "a file", "choose another --out"))
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not resume:
        remedy = "choose another --out, or go on with --resume"
        raise InputError(Problem(str(folder), "", "an empty folder", "files of an earlier run", remedy))
    if not (folder / "options.json").is_file():
        found, remedy = "a folder without options.json", "choose another --out"
        raise InputError(Problem(str(folder), "", "an earlier pre-training", found, remedy))
    before = json.loads((folder / "options.json").read_text("utf-8"))
    changed = changed_fields(load_recipe(folder / "recipe.yaml"), recipe) | {
        name: (before.get(name), now) for name, now in asdict(options).items() if before.get(name) != now
    }
    if changed:
        raise InputError(
            Problem(str(folder), name, f"{then!r} as when the run began", repr(now), "use the same recipe and options")
            for name, (then, now) in changed.items()
        )


def _claim(recipe: Recipe, folder: Path, options: Options) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_recipe(recipe, folder / "recipe.yaml")
    write_json(folder / "options.json", asdict(options))
