"""`kill -9` a real training process, at random and in the middle of a save: no more than the unsaved steps are lost."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import tiny
from drivedistill.checkpoint import last_checkpoint
from drivedistill.recipe import save_recipe
from drivedistill.runs import run

SAVE_EVERY = 2
PATIENCE_S = 120
"""For one start and its share of steps, on a machine that is busy."""


def card(folder: Path, steps: int) -> Path:
    """CLKD with everything that a run must remember, saved every other step.

    Dropout (random generators), a bank of running losses, a decaying teacher that is let go on the way, experts.
    """
    run(tiny.recipe(folder, train__steps=2, train__validate_every=2), folder / "teacher")
    text = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.1}
    recipe = tiny.recipe(
        folder,
        teacher={"path": str(folder / "teacher")},
        model__ffn_experts={"experts": 2, "k": 1, "init_noise": 0.1},
        mining={"pool": "bank", "anneal": 0.3},
        distill__release={"end": 0.01, "below": 0.2},
        train__steps=steps,
        train__save_every=SAVE_EVERY,
        train__validate_every=5,
        train__accumulate=2,
    )
    overrides = {**recipe.model.overrides, "text": text}
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"overrides": overrides})})
    save_recipe(recipe, folder / "card.yaml")
    return folder / "card.yaml"


class Training:
    """`drivedistill distill --resume` as a process of its own."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.folder = folder
        command = [sys.executable, "-m", "drivedistill.cli", "distill", str(path), "--out", str(folder), "--resume"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.errors = folder.with_name(f"{folder.name}.stderr").open("w+")
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=self.errors, env=environment)

    def wait_until(self, ready) -> None:
        """Poll often; a save takes milliseconds."""
        end = time.monotonic() + PATIENCE_S
        while not ready() and self.process.poll() is None:
            assert time.monotonic() < end, "the process does not get there"
            time.sleep(0.001)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE_S)
        self.errors.close()

    def finish(self) -> None:
        code = self.process.wait(PATIENCE_S)
        self.errors.seek(0)
        assert code == 0, self.errors.read()
        self.errors.close()


def logged(folder: Path) -> list[dict]:
    """Whole lines of the log."""
    path = folder / "metrics.jsonl"
    lines = path.read_text("utf-8").split("\n")[:-1] if path.is_file() else []
    return [json.loads(line) for line in lines]


def last_step(folder: Path) -> int:
    """Last step in the log."""
    return max((line["step"] for line in logged(folder) if "loss" in line), default=0)


def saved_step(folder: Path) -> int:
    newest = last_checkpoint(folder / "checkpoints")
    return int(newest.name.removeprefix("step-")) if newest else 0


def saving(folder: Path) -> bool:
    """Whether a checkpoint is being written at this moment."""
    return any((folder / "checkpoints").glob(".writing-step-*"))


def check_what_is_left(folder: Path) -> None:
    """The newest checkpoint is whole, and the log is ahead of it by the steps of one save at most."""
    newest = last_checkpoint(folder / "checkpoints")
    if newest is not None:
        for name in ("model", "optimizer", "random", "extra"):
            assert load_file(newest / f"{name}.safetensors")
        assert json.loads((newest / "state.json").read_text())["step"] == saved_step(folder)
    assert last_step(folder) - saved_step(folder) <= SAVE_EVERY


def survive(folder: Path, kills: int, steps: int) -> int:
    """Kill a training `kills` times, every other time inside a save, beside one that nobody disturbs.

    Returns:
        How many kills hit a save.
    """
    chance = random.Random(kills)
    path, killed = card(folder, steps), folder / "killed"
    undisturbed = Training(path, folder / "whole")
    hits = 0
    for number in range(kills):
        training = Training(path, killed)
        start = saved_step(killed)
        goal = start + chance.randint(1, max(1, (steps - start) // (kills - number + 1)))
        if number % 2 == 0:
            training.wait_until(lambda goal=goal: saved_step(killed) >= goal - SAVE_EVERY and saving(killed))
            time.sleep(chance.uniform(0, 0.002))
        else:
            training.wait_until(lambda goal=goal: last_step(killed) >= goal)
            time.sleep(chance.uniform(0, 0.03))
        assert training.process.poll() is None, "the run was over before it was killed; give it more steps"
        training.kill()
        hits += saving(killed)
        check_what_is_left(killed)
    Training(path, killed).finish()
    undisturbed.finish()
    return hits


def check_like_uninterrupted(folder: Path, steps: int) -> None:
    """Weights, moments, mining bank, model and log of the killed run are those of a run that nobody disturbed."""
    whole, killed = folder / "whole", folder / "killed"
    for file in (f"checkpoints/step-{steps:06d}/model.safetensors", f"checkpoints/step-{steps:06d}/optimizer.safetensors",
                 f"checkpoints/step-{steps:06d}/random.safetensors", f"checkpoints/step-{steps:06d}/extra.safetensors",
                 "model/model.safetensors"):  # fmt: skip
        ours, theirs = load_file(killed / file), load_file(whole / file)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours), file
    timeless = [[{k: v for k, v in line.items() if k != "seconds"} for line in logged(one)] for one in (killed, whole)]
    assert timeless[0] == timeless[1]
    assert [line["step"] for line in timeless[0] if "loss" in line] == list(range(1, steps + 1))
    for link in ("last", "best"):
        assert os.readlink(killed / "checkpoints" / link) == os.readlink(whole / "checkpoints" / link)
    listings = [sorted(str(path.relative_to(one)) for path in one.rglob("*")) for one in (killed, whole)]
    assert listings[0] == listings[1]


@pytest.mark.timeout(600)
def test_training_survives_two_kills(tmp_path):
    survive(tmp_path, kills=2, steps=30)
    check_like_uninterrupted(tmp_path, 30)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_training_survives_twenty_kills(tmp_path):
    hits = survive(tmp_path, kills=20, steps=400)
    assert hits >= 3, "kills should hit saves"
    check_like_uninterrupted(tmp_path, 400)
