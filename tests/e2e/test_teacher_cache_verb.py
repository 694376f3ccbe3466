"""`drivedistill cache` for a teacher's words as a user types it: killed at random moments, two at once, and trained on."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import tiny
from drivedistill.data.samples import write_samples
from drivedistill.recipe import save_recipe
from drivedistill.records import Region
from drivedistill.subject import save_subject
from typed import typed

PATIENCE_S = 120
ANSWERS = 408
LEFT_OVER = 100  # answers that the last kill finds undone, however fast the machine


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """`recipe.yaml` with a teacher that is sure of its words; 400 questions with regions of their own, and the plain eight."""
    folder = tmp_path_factory.mktemp("place")
    root = folder / "drawn"
    root.mkdir()
    plain = tiny.samples(tiny.pictures(root))
    boxes = [Region(camera="CAM_FRONT", box=(i % 20, i // 20, 40, 30)) for i in range(400)]
    regional = [plain[0].model_copy(update={"id": f"r{i}", "region": box}) for i, box in enumerate(boxes)]
    write_samples(root / "train.jsonl", [*plain, *regional], root)
    subject = tiny.subject("driving_t5", folder, seed=7)
    with torch.no_grad():
        subject.model.language_model.decoder.final_layer_norm.weight.mul_(60.0)
    save_subject(subject, subject.model, folder / "teacher", "card")
    recipe = tiny.recipe(
        folder,
        fractions={"train": 1.0},
        teacher={"path": str(folder / "teacher")},
        distill__teacher_cache=str(folder / "cache"),
    )
    save_recipe(recipe, folder / "recipe.yaml")
    return folder


def rows(folder: Path) -> list[str]:
    """Whole lines of a cache's index."""
    found = list(folder.glob("teacher-*/tokens/index.jsonl"))
    return found[0].read_text().split("\n")[:-1] if found else []


def begin(place: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "drivedistill.cli", "cache", str(place / "recipe.yaml"), "--out", str(out)]
    return subprocess.Popen(
        [*command, "train.batch_size=3", *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(ready, builder: subprocess.Popen[str]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not ready():
        assert builder.poll() is None, builder.communicate()[1]
        assert time.monotonic() < end, "the process does not get there"
        time.sleep(0.002)


def contents(folder: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: content for name, content in found.items() if not name.endswith("pictures.jsonl")}


def survive(place: Path, folder: Path, kills: int) -> None:
    """Kill a builder so many times, at moments spread over its work and drawn at random; then compare with a whole one."""
    chance, out, card = random.Random(kills), folder / "killed", str(place / "recipe.yaml")
    for number in range(kills):
        there = len(rows(out))
        goal = there + chance.randint(0, max(0, (ANSWERS - LEFT_OVER - there) // (kills - number)))
        builder = begin(place, out)
        wait_until(lambda goal=goal: (out / "lock").exists() and len(rows(out)) >= goal, builder)
        time.sleep(chance.uniform(0, 0.03))
        builder.send_signal(signal.SIGSTOP)  # alive, and slow enough for us
        if number == 0:
            assert typed("cache", card, "train.batch_size=3", "--out", str(out)) == 2
        builder.send_signal(signal.SIGKILL)
        builder.communicate()
        assert len(rows(out)) >= there, "a kill costs no answer that counted"
    assert 0 < len(rows(out)) < ANSWERS, "kills should hit the work"
    for name in ("killed", "whole"):
        assert typed("cache", card, "train.batch_size=3", "--out", str(folder / name)) == 0
    assert contents(out) == contents(folder / "whole")


def test_a_cache_that_was_killed_twice_ends_as_an_undisturbed_one(place, tmp_path, capsys):
    survive(place, tmp_path, kills=2)
    printed = capsys.readouterr()
    assert "another is writing it" in printed.err
    assert f"\n{ANSWERS} computed" in printed.out
    assert re.search(r"\ncaptured probability: (0\.\d+|1\.0+) of corner tokens", printed.out)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_cache_that_was_killed_twenty_times_ends_as_an_undisturbed_one(place, tmp_path):
    survive(place, tmp_path, kills=20)


@pytest.mark.long
def test_of_two_at_once_one_writes_and_the_other_waits(place, tmp_path):
    out = tmp_path / "cache"
    first = begin(place, out)
    wait_until(lambda: len(rows(out)) >= 3, first)
    first.send_signal(signal.SIGSTOP)
    second = begin(place, out, "--wait")
    time.sleep(1)
    first.send_signal(signal.SIGCONT)
    assert f"\n{ANSWERS} computed" in first.communicate(timeout=PATIENCE_S)[0]
    assert "\n0 computed" in second.communicate(timeout=PATIENCE_S)[0]


def losses(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_training_on_the_cache_is_training_with_the_teacher(place, tmp_path, capsys):
    card, cache = str(place / "recipe.yaml"), place / "cache"
    assert typed("distill", card, "--out", str(tmp_path / "early")) == 2
    assert "run `drivedistill cache RECIPE`" in capsys.readouterr().err
    assert typed("cache", card, "--dry-run") == 0
    assert f"{ANSWERS} to compute; k = 64, 260 bytes a token" in capsys.readouterr().out
    assert not cache.exists()
    assert typed("cache", card) == 0
    assert f"train with distill.teacher_cache={cache}" in capsys.readouterr().out
    assert typed("distill", card, "--dry-run") == 0
    assert (
        f"teacher cache   {next(cache.glob('teacher-*'))}; the teacher's weights are not loaded"
        in capsys.readouterr().out
    )
    for name, changes in {"live": "distill.teacher_cache=null", "cached": "data.workers=0"}.items():
        assert typed("distill", card, changes, "--out", str(tmp_path / name)) == 0
    said = capsys.readouterr().out.splitlines()
    assert ["the teacher's words from" in line for line in said] == [False, True]
    live, cached = losses(tmp_path / "live"), losses(tmp_path / "cached")
    assert len(live) == len(cached) == 6
    for ours, theirs in zip(cached, live, strict=True):
        assert ours["forward_kl"] == pytest.approx(theirs["forward_kl"], rel=0.02)
        assert ours["ce"] == pytest.approx(theirs["ce"], rel=1e-3)
    facts = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("live", "cached")]
    assert facts[0]["teacher_cache"] is None
    assert facts[1]["teacher_cache"]["folder"] == str(next(cache.glob("teacher-*")))
    assert facts[1]["teacher_seconds"] < facts[0]["teacher_seconds"] / 2


def test_pictures_and_words_share_a_folder(place, tmp_path, capsys):
    """The teacher reads the features that were made a moment ago."""
    out = str(tmp_path / "both")
    frozen = [r"model.frozen=['^vision\.']", "model.allow_random=true"]
    card = [str(place / "recipe.yaml"), *frozen, f"data.vision_cache={out}", f"distill.teacher_cache={out}"]
    assert typed("cache", *card, "--dry-run") == 0
    assert not Path(out).exists()
    assert typed("cache", *card) == 0
    said = capsys.readouterr().out
    assert "student: 406 views of 6 pictures" in said
    assert f"{ANSWERS} answers of {ANSWERS} questions, all there" in said
    kinds = {path.name.partition("-")[0] for path in Path(out).iterdir() if path.is_dir()}
    assert kinds == {"vision", "teacher"}
    assert typed("distill", *card, "--dry-run") == 0
    assert f"vision cache    {out}, read by student\n" in capsys.readouterr().out


def test_usage_is_checked_before_anything_is_written(place, tmp_path, capsys):
    card = str(place / "recipe.yaml")
    assert typed("cache", card, "--out", str(tmp_path / "c"), "--top-k", "many") == 2
    assert "a number of tokens, or `auto`" in capsys.readouterr().err
    assert typed("cache", card, "distill.loss=reverse_kl", "--out", str(tmp_path / "c")) == 2
    assert "forward_kl" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
