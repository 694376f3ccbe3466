"""`drivedistill quickstart` as a newcomer types it: interrupted, gone on with, kept; a tiny teacher and tiny numbers."""

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
from drivedistill.subject import save_subject
from typed import typed

PATIENCE_S = 240


@pytest.fixture
def typing(tmp_path, monkeypatch) -> list[str]:
    """The command in an empty folder, with a teacher that knows nothing."""
    monkeypatch.chdir(tmp_path)
    subject = tiny.subject("driving_t5", tmp_path / "drawn")
    save_subject(subject, subject.model, Path("teacher"), "")
    fields = ["train.steps=6", "train.batch_size=4", "train.validate_every=3", "train.log_every=1"]
    return ["quickstart", *fields, "--teacher", "teacher", "--minutes", "3"]


def test_the_plan_can_be_seen_before_anything_is_written(typing, capsys):
    assert typed(*typing, "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "1/6  the driving world" in shown and "6/6  the report" in shown
    assert "drivedistill bench quickstart/table/teacher/seed-0 quickstart/table/student/seed-0" in shown
    assert not Path("quickstart").exists()


def test_what_cannot_be_used_is_refused_at_once(typing, capsys):
    Path("quickstart").mkdir()
    Path("quickstart/notes.txt").write_text("mine")
    assert typed(*typing) == 2
    assert "notes.txt; no quickstart.json" in capsys.readouterr().err
    assert typed(*typing, "--out", "notes", "train.stepps=3") == 2
    assert "train.stepps" in capsys.readouterr().err
    assert typed("quickstart", "--teacher", "nobody", "--out", "other") == 2
    assert "nobody/config.json" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.timeout(900)
def test_from_nothing_to_a_report_with_an_interruption(typing, capsys):
    process = subprocess.Popen(
        [sys.executable, "-m", "drivedistill.cli", *typing],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    learning, end = Path("quickstart/table/student/seed-0/metrics.jsonl"), time.monotonic() + PATIENCE_S
    while not learning.is_file():
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < end, "no student begins"
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=PATIENCE_S)[1].decode()
    assert process.returncode == 130, said
    assert "repeat the call to go on" in said

    assert typed(*typing) == 0
    printed = capsys.readouterr().out
    assert printed.count("there already") == 2, "data and teacher"
    assert "#6 CLKD (PR-Dis.)" in printed and "report: quickstart/report.html" in printed
    assert Path("quickstart/report.html").stat().st_size > 10_000
    found = json.loads(Path("quickstart/table/table.json").read_text())
    assert [row["seeds"] for row in found["rows"]] == [[0]] * 6
    assert found["rows"][0]["runs"][0]["steps"] == 0
    assert len(json.loads(Path("quickstart/bench/bench.json").read_text())["models"]) == 3
    notes = json.loads(Path("quickstart/quickstart.json").read_text())
    assert len(notes["data_hash"]) == 64 and all(seconds > 0 for seconds in notes["seconds"].values())

    before = {path: path.stat().st_mtime_ns for path in Path("quickstart").rglob("*.*") if path.suffix != ".yaml"}
    assert typed(*typing) == 0
    assert capsys.readouterr().out.count("there already") == 6
    after = {path: path.stat().st_mtime_ns for path in before if path.name not in ("quickstart.json", ".lock")}
    assert after.items() <= before.items(), "nothing is made again"
