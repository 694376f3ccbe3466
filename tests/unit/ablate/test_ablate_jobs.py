"""Jobs: needs, room, failures, signals and the lock, with real processes that do little."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from drivedistill.ablate import jobs as module
from drivedistill.ablate.board import ProgressList, share_done
from drivedistill.ablate.jobs import Ending, Job, locked
from drivedistill.problems import InputError
from drivedistill.signals import Interrupted

PATIENCE_S = 30
SAVE_ON_A_SIGNAL = """
import pathlib, signal, sys, time
heard = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: heard.append(number))
pathlib.Path("ready").touch()
while not heard:
    time.sleep(0.01)
time.sleep(0.2)
pathlib.Path("saved").write_text(str(heard))
sys.exit(128 + heard[0])
"""


class Notes:
    """A board that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.most = 0

    def started(self, job):
        self.lines.append(f"+{job.name}")

    def ended(self, job, ending):
        self.lines.append(f"-{job.name}")

    def tick(self, running):
        self.most = max(self.most, len(running))


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "POLL_S", 0.01)


def job(name: str, *programs: str, needs: tuple[str, ...] = ()) -> Job:
    programs = programs or ("pass",)
    return Job(
        name,
        frozenset(needs),
        lambda: [[sys.executable, "-c", program] for program in programs],
        Path(name) / "log.txt",
    )


def run_jobs(jobs, out: Path, at_once: int, board) -> dict[str, Ending]:
    """As a call does: with the folder locked."""
    with locked(out) as descriptor:
        return module.run_jobs(jobs, out, descriptor, at_once, board)


def test_a_job_starts_after_those_that_it_needs():
    notes = Notes()
    endings = run_jobs([job("a"), job("b", needs=("a",)), job("c", needs=("b", "done long ago"))], Path(), 3, notes)
    assert notes.lines == ["+a", "-a", "+b", "-b", "+c", "-c"]
    assert {name: ending.code for name, ending in endings.items()} == {"a": 0, "b": 0, "c": 0}


@pytest.mark.parametrize("at_once", [1, 2])
def test_no_more_jobs_run_than_there_is_room_for(at_once):
    notes = Notes()
    run_jobs([job(name, "import time; time.sleep(0.1)") for name in "abc"], Path(), at_once, notes)
    assert notes.most == at_once


def test_a_failure_stops_only_those_that_need_it():
    notes = Notes()
    todo = [job("bad", "raise SystemExit(3)", "open('never', 'w')"), job("after", needs=("bad",)),
            job("later", needs=("after",)), job("other")]  # fmt: skip
    endings = run_jobs(todo, Path(), 1, notes)
    assert {name: (ending.code, ending.waited_for) for name, ending in endings.items()} == {
        "bad": (3, ""), "after": (3, "bad"), "later": (3, "after"), "other": (0, ""),
    }  # fmt: skip
    assert not Path("never").exists()
    assert "+after" not in notes.lines


def test_log_takes_everything_and_keeps_what_was_there():
    Path("a").mkdir()
    Path("a/log.txt").write_text("before\n")
    run_jobs([job("a", "print('one')", "import sys; print('two', file=sys.stderr)")], Path(), 1, Notes())
    lines = Path("a/log.txt").read_text().splitlines()
    assert lines[0] == "before"
    assert [line for line in lines if line in ("one", "two")] == ["one", "two"]
    assert sum("exit code 0" in line for line in lines) == 2


@pytest.mark.parametrize(("given", "expected"), [(None, 2), ("7", 7)])
def test_cores_are_shared_unless_the_environment_says_otherwise(monkeypatch, given, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(5)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    run_jobs([job("a", "import os; print('threads', os.environ['OMP_NUM_THREADS'])")], Path(), 2, Notes())
    assert f"threads {expected}\n" in Path("a/log.txt").read_text()


@pytest.mark.parametrize("others", [["b"], []], ids=["others_wait", "the_last_job"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_handed_on_once_and_nothing_new_starts(number, others):
    def ask() -> None:
        end = time.monotonic() + PATIENCE_S
        while not Path("ready").exists() and time.monotonic() < end:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=ask)
    thread.start()
    todo = [job("a", SAVE_ON_A_SIGNAL, "open('second', 'w')"), *(job(name, "open('started', 'w')") for name in others)]
    with pytest.raises(Interrupted, match="repeat the call") as caught:
        run_jobs(todo, Path(), 1, Notes())
    thread.join()
    assert caught.value.number == number
    assert Path("saved").read_text() == f"[{int(number)}]"
    assert not Path("started").exists()
    assert not Path("second").exists()


def test_the_folder_stays_locked_while_a_job_lives_though_its_caller_was_killed():
    Path("out").mkdir()
    caller = f"""
import sys
from pathlib import Path
sys.path[:0] = {sys.path!r}
from test_ablate_jobs import Notes, job, run_jobs
run_jobs([job("a", "import pathlib, time\\npathlib.Path('ready').touch()\\n"
                   "while not pathlib.Path('leave').exists(): time.sleep(0.01)")], Path("out"), 1, Notes())
"""
    process = subprocess.Popen(
        [sys.executable, "-c", caller], env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    )
    end = time.monotonic() + PATIENCE_S
    while not Path("ready").exists():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)
    process.kill()
    process.wait()
    with pytest.raises(InputError, match="another is writing it"):
        run_jobs([job("b")], Path("out"), 1, Notes())
    Path("leave").touch()
    while True:
        assert time.monotonic() < end
        try:
            assert run_jobs([job("b")], Path("out"), 1, Notes())["b"].code == 0
            break
        except InputError:
            time.sleep(0.01)


def test_board_prints_a_line_for_every_job_that_ended(capsys):
    with ProgressList(3) as board:
        run_jobs([job("a"), job("b", "raise SystemExit(2)"), job("c", needs=("b",))], Path(), 1, board)
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("a: done in")
    assert said[1:] == ["b: failed with exit code 2: see b/log.txt", "c: not run: b failed"]


FINDING = "cards: x\n    expected: one\n    found:    two\n    of them\n    remedy:   mend it\n"


@pytest.mark.parametrize(
    ("program", "shown"),
    [
        (f"print('4 of 9 steps'); print({FINDING!r}, end=''); print('\\n1 problem to mend')", FINDING.splitlines()),
        (f"print({FINDING * 6!r})", [*(FINDING * 4).splitlines(), "and 2 more"]),
        ("print('a', 'b', '', 'c', 'd', 'the run failed: e', sep='\\n')", ["b", "c", "d", "the run failed: e"]),
    ],
)
def test_board_says_why_a_job_failed(program, shown, capsys):
    with ProgressList(1) as board:
        run_jobs([job("a", "print('answers')", f"{program}; raise SystemExit(2)")], Path(), 1, board)
    first, *rest = capsys.readouterr().err.splitlines()
    assert first == "a: failed with exit code 2: see a/log.txt"
    assert rest == [f"    {line}" for line in shown]


def test_share_done_is_read_from_the_last_whole_line_of_training(tmp_path):
    assert share_done(tmp_path) == 0
    lines = ['{"step": 2, "of": 4, "loss": 1}', '{"step": 2, "validation_loss": 1}', '{"step": 3, "o']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert share_done(tmp_path) == pytest.approx(0.85 / 2)
