"""`drivedistill cache` as a user types it: built, killed, stopped, gone on with, and trained on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tiny
from drivedistill.data.samples import write_samples
from drivedistill.recipe import save_recipe
from drivedistill.records import Region
from typed import typed

PATIENCE_S = 120


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """`recipe.yaml` with a frozen tower and a cache to be; 80 samples whose regions differ, and the plain eight."""
    folder = tmp_path_factory.mktemp("place")
    root = folder / "drawn"
    root.mkdir()
    plain = tiny.samples(tiny.pictures(root))
    one = plain[0]
    regional = [
        one.model_copy(
            update={
                "id": f"r{i}",
                "scene": f"scene{i % 4}",
                "region": Region(camera="CAM_FRONT", box=(i % 100, i // 100, 40, 30)),
            }
        )
        for i in range(80)
    ]
    write_samples(root / "train.jsonl", [*plain, *regional], root)
    recipe = tiny.recipe(
        folder, model__frozen=[r"^vision\."], model__allow_random=True, data__vision_cache=str(folder / "cache")
    )
    save_recipe(recipe, folder / "recipe.yaml")
    return folder


def rows(folder: Path) -> list[str]:
    """Whole lines of a cache's index."""
    found = list(folder.glob("vision-*/index.jsonl"))
    return found[0].read_text().split("\n")[:-1] if found else []


def begin(place: Path, out: Path, more: int) -> subprocess.Popen[str]:
    """Build a cache in a process of its own, and wait until it holds so many rows more."""
    done = len(rows(out))
    command = [sys.executable, "-m", "drivedistill.cli", "cache", str(place / "recipe.yaml"), "--out", str(out)]
    builder = subprocess.Popen(
        [*command, "--batch-size", "1"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + PATIENCE_S
    while len(rows(out)) < done + more:
        assert builder.poll() is None, builder.communicate()[1]
        assert time.monotonic() < end, "the process does not get there"
        time.sleep(0.003)
    return builder


def test_a_cache_that_was_killed_and_stopped_is_gone_on_with_to_the_same_rows(place, tmp_path, capsys):
    out, card = tmp_path / "cache", str(place / "recipe.yaml")
    killed = begin(place, out, more=10)
    killed.send_signal(signal.SIGSTOP)  # alive, and slow enough for us
    assert typed("cache", card, "--out", str(out)) == 2
    assert "another is writing it" in capsys.readouterr().err
    killed.kill()
    killed.communicate()
    assert 10 <= len(rows(out)) < 86

    stopped = begin(place, out, more=10)
    stopped.send_signal(signal.SIGTERM)
    said = stopped.communicate(timeout=PATIENCE_S)[1]
    assert stopped.returncode == 128 + signal.SIGTERM, said
    assert "the same command goes on" in said
    there = len(rows(out))
    assert 20 <= there < 86

    assert typed("cache", card, "--out", str(out), "--batch-size", "1") == 0
    assert f"{86 - there} computed" in capsys.readouterr().out
    assert typed("cache", card, "--out", str(tmp_path / "whole"), "--batch-size", "1") == 0
    for name in ("rows.bin", "index.jsonl"):
        ours, theirs = (next(folder.glob(f"vision-*/{name}")) for folder in (out, tmp_path / "whole"))
        assert ours.read_bytes() == theirs.read_bytes()


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line.get("loss", line.get("validation_loss")) for line in lines]


def test_training_on_the_cache_is_training_on_the_pictures(place, tmp_path, capsys):
    card = str(place / "recipe.yaml")
    assert typed("train", card, "--out", str(tmp_path / "early")) == 2
    assert "run `drivedistill cache RECIPE`" in capsys.readouterr().err
    assert typed("cache", card, "--dry-run") == 0
    assert "86 to compute" in capsys.readouterr().out
    assert not (place / "cache").exists()
    assert typed("cache", card) == 0
    said = capsys.readouterr().out
    assert "all there" in said and "\n86 computed" in said
    assert typed("train", card, "--dry-run") == 0
    assert f"vision cache    {place / 'cache'}, read by student\n" in capsys.readouterr().out
    assert typed("cache", card) == 0
    assert "\n0 computed" in capsys.readouterr().out
    for name, changes in {
        "live": "data.vision_cache=null",
        "cached": "data.workers=0",
        "loaded": "data.workers=2",
    }.items():
        assert typed("train", card, changes, "--out", str(tmp_path / name)) == 0
    live, cached, loaded = (losses(tmp_path / name) for name in ("live", "cached", "loaded"))
    assert len(live) == 8
    assert cached == pytest.approx(live, rel=1e-5)
    assert loaded == cached


def test_usage_is_checked_before_anything_is_written(place, tmp_path, capsys):
    card = str(place / "recipe.yaml")
    assert typed("cache", card, "data.vision_cache=null") == 2
    assert "add --out FOLDER" in capsys.readouterr().err
    assert typed("cache", card, "--out", str(tmp_path / "c"), "--splits", "challenge") == 2
    assert "one of train, val" in capsys.readouterr().err
    assert typed("cache", card, "model.frozen=[]", "--out", str(tmp_path / "c")) == 2
    assert "one that trains" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
