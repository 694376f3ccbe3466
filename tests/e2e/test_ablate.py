"""A small table as a user runs it: planned, interrupted, gone on with, printed; then refused when the plan has changed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from drivedistill.ablate.card import load_table
from drivedistill.ablate.jobs import locked
from drivedistill.ablate.plan import plan, write_plan
from make_driving_data import make
from typed import typed

BASE = """
name: base
data:
  image_size: 32
  sources:
    - {name: regular, format: drivelm, root: data/regular, regime: regular, fractions: {train: 0.6, test: 0.4}}
    - {name: corner, format: coda_lm, root: data/corner, regime: corner, split_by: file, files: {train: Train, test: Val}}
model:
  preset: tiny
  tokenizer_size: 300
  overrides:
    text: {d_model: 32, d_kv: 8, d_ff: 64, num_layers: 1, num_heads: 4}
    vision: {depths: [1, 1], hidden_sizes: [16, 32], num_stages: 2}
    fusion_hidden: 8
train: {steps: 6, batch_size: 4, learning_rate: 1e-3, log_every: 1, save_every: 1}
"""
CACHED = ["model.frozen=['^vision[.]']", "model.allow_random=true", "data.vision_cache=nobody/made/it"]
TABLE = {
    "name": "small",
    "about": "A test.",
    "base": "base.yaml",
    "seeds": [0],
    "score": {"limit": 5, "max_new_tokens": 4, "meteor": False, "tokenizer": "approximate"},
    "columns": ["BLEU-4", "ROUGE-L", "Exact match"],
    "rows": [
        {"name": "teacher", "seeds": [0], "published": {"regular": {"BLEU-4": 50.7}}},
        {"name": "student", "set": ["train.steps=40", *CACHED], "uses": {"teacher.path": "teacher"}},
        {"name": "broken", "seeds": [0], "set": ["model.frozen=[nothing_is_called_this]"]},
        {"name": "orphan", "seeds": [0], "uses": {"teacher.path": "broken"}},
    ],
    "differences": [["student", "teacher"]],
}
PATIENCE_S = 120


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Path:
    """Data, base recipe and table recipe."""
    folder = tmp_path_factory.mktemp("table")
    make(folder / "data", scenes=5, frames=1, corner=4, size=(96, 64), seed=0)
    (folder / "base.yaml").write_text(BASE)
    write_table(folder, TABLE)
    return folder


def write_table(folder: Path, tree: dict) -> None:
    (folder / "table.yaml").write_text(yaml.safe_dump(tree))


def interrupt_after(ready: Path) -> int:
    """Start the table, send SIGINT once `ready` holds a line, and return the exit code."""
    process = subprocess.Popen(
        [sys.executable, "-m", "drivedistill.cli", "ablate", "table.yaml", "--out", "out"],
        stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    end = time.monotonic() + PATIENCE_S
    while not (ready.is_file() and ready.read_text()):
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < end, "the run does not begin"
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=PATIENCE_S)[1].decode()
    assert "repeat the call to go on" in said
    return process.returncode


def steps(run: Path) -> list[int]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["step"] for line in lines if "loss" in line]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_table_is_planned_interrupted_finished_and_kept(here, monkeypatch, capsys):
    monkeypatch.chdir(here)
    assert typed("ablate", "table.yaml", "--out", "out", "--dry-run", "--commands") == 0
    shown = capsys.readouterr().out
    assert "(new, after teacher/seed-0): train.steps=40 model" in shown
    assert shown.index("teacher/seed-0 (new)") < shown.index("student/seed-0 (new, after teacher/seed-0)")
    assert "drivedistill cache out/student/seed-0/recipe.yaml --wait" in shown
    assert "drivedistill distill out/student/seed-0/recipe.yaml --out out/student/seed-0 --resume" in shown
    assert not Path("out").exists()

    assert interrupt_after(Path("out/student/seed-0/metrics.jsonl")) == 130
    stopped_at = steps(Path("out/student/seed-0"))[-1]
    assert 0 < stopped_at < 40
    teacher = Path("out/teacher/seed-0/log.txt").read_bytes()

    assert typed("ablate", "table.yaml", "--out", "out", "--jobs", "2") == 1
    printed = capsys.readouterr()
    assert "broken/seed-0 failed; their log.txt says why. Mend it, then repeat the call" in printed.err
    assert "    remedy:   " in printed.err, "the finding, not only the file that has it"
    assert Path("out/cache").is_dir()
    assert "nothing_is_called_this" in Path("out/broken/seed-0/log.txt").read_text()
    assert Path("out/teacher/seed-0/log.txt").read_bytes() == teacher
    assert steps(Path("out/student/seed-0")) == list(range(1, 41))
    assert Path("out/table.md").read_text() in printed.out

    found = json.loads(Path("out/table.json").read_text())
    rows = {row["name"]: row for row in found["rows"]}
    assert {name: row["seeds"] for name, row in rows.items()} == {
        "teacher": [0], "student": [0], "broken": [], "orphan": [],
    }  # fmt: skip
    assert rows["broken"]["runs"][0]["state"] == "failed (exit code 2)"
    assert rows["orphan"]["runs"][0]["state"] == "not run: broken/seed-0 failed"
    assert [(place["regime"], place["dataset"]) for place in rows["student"]["places"]] == [
        ("regular", "drivelm"), ("corner", "coda_lm"),
    ]  # fmt: skip
    assert [place["figures"]["ROUGE-L"]["n"] for place in rows["student"]["places"]] == [5, 4]
    assert [item["seeds"] for item in found["differences"]] == [[0], [0]]
    recipe = yaml.safe_load(Path("out/student/seed-0/recipe.yaml").read_text())
    assert (recipe["seed"], recipe["teacher"]["path"]) == (0, "out/teacher/seed-0")

    before = {path: path.stat().st_mtime_ns for path in Path("out/student").rglob("*")}
    assert typed("ablate", "table.yaml", "--out", "out", "--rows", " student ") == 0
    assert {path: path.stat().st_mtime_ns for path in Path("out/student").rglob("*")} == before
    capsys.readouterr()

    rows = [{**row, "set": ["train.steps=41", *CACHED]} if row["name"] == "student" else row for row in TABLE["rows"]]
    write_table(here, {**TABLE, "rows": rows, "score": {**TABLE["score"], "limit": 4}})
    assert typed("ablate", "table.yaml", "--out", "out") == 2
    said = capsys.readouterr().err
    assert "out/student/seed-0: train.steps" in said
    assert "40 as when the run began" in said
    assert "score.limit" in said
    assert typed("ablate", "table.yaml", "--out", "out", "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "40 as when the run began" in shown
    assert "drivedistill distill" not in shown
    for names in ("student,,teacher", ""):
        assert typed("ablate", "table.yaml", "--out", "out", "--dry-run", "--rows", names) == 2
        assert "found:    ''" in capsys.readouterr().err


def test_a_second_call_changes_nothing_while_the_first_one_works(here, monkeypatch, capsys):
    monkeypatch.chdir(here)
    path, out = Path("working.yaml"), Path("working")
    path.write_text(yaml.safe_dump(TABLE))
    table = load_table(path)
    write_plan(table, plan(table, path, out), out)
    path.write_text(
        yaml.safe_dump({**TABLE, "rows": [{"name": "teacher", "set": ["train.steps=9"]}], "differences": []})
    )
    with locked(out):
        before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
        assert len(before) == 1 + 1 + len(TABLE["rows"]), "lock, table.yaml, recipes"
        assert typed("ablate", str(path), "--out", str(out)) == 2
        assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before
    assert "another is writing it" in capsys.readouterr().err
