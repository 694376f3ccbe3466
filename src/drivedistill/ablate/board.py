"""The list of a table's runs while they run: a bar for each, what is left, and a line for each that has ended."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from drivedistill.ablate.jobs import Ending, Job
from drivedistill.ablate.plan import PlannedRun
from drivedistill.metrics_file import read_metrics

LEARNING = 0.85
"""Share of a run's time that goes into training; the rest answers and scores."""

PROBLEM = re.compile(r"^\S[^\n]*\n    expected: .*?\n    found: .*?\n    remedy: [^\n]*", re.MULTILINE | re.DOTALL)
"""A `problems.Problem` as the command line prints it."""

SHOWN = 4
"""Problems, or lines of another error, that are shown of a failed run."""


class ProgressList:
    """`with ProgressList(total) as board: run_jobs(..., board)`.

    Bars need a terminal; the lines of runs that have ended are printed in any case.

    Args:
        total: Runs of this call.
    """

    def __init__(self, total: int) -> None:
        console = Console(stderr=True, highlight=False)
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            speed_estimate_period=600,
        )
        self._total = total
        self._ended = 0
        self._all = self._bars.add_task(f"0 of {total} runs", total=total)
        self._tasks: dict[str, TaskID] = {}

    def started(self, job: Job) -> None:
        """Begin a bar."""
        self._tasks[job.name] = self._bars.add_task(job.name, total=1.0)

    def ended(self, job: Job, ending: Ending) -> None:
        """Replace the bar by a line."""
        self._ended += 1
        if job.name in self._tasks:
            self._bars.remove_task(self._tasks.pop(job.name))
        said = f"done in {ending.seconds:g} s"
        if ending.waited_for:
            said = f"not run: {ending.waited_for} failed"
        elif ending.stopped:
            said = f"stopped after {ending.seconds:g} s"
        elif ending.code:
            said = "\n".join([f"failed with exit code {ending.code}: see {job.log}", *last_words(job.log)])
        self._console.print(f"{job.name}: {said}", markup=False, soft_wrap=True)

    def tick(self, running: Sequence[Job]) -> None:
        """Move the bars."""
        if self._bars.disable:
            return
        shares = {job.name: job.share_done() for job in running}
        for name, share in shares.items():
            self._bars.update(self._tasks[name], completed=share)
        done = f"{self._ended} of {self._total} runs"
        self._bars.update(self._all, completed=self._ended + sum(shares.values()), description=done)

    def __enter__(self) -> ProgressList:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()


def job_of(run: PlannedRun, commands: Callable[[], list[list[str]]]) -> Job:
    """The job that makes a run by these command lines; it notes what the run is made from before it begins."""

    def begin() -> list[list[str]]:
        run.remember_needs()
        return commands()

    return Job(run.name, frozenset(run.needs), begin, run.folder / "log.txt", lambda: share_done(run.folder))


def last_words(log: Path) -> list[str]:
    """Why the last command in a log failed: the problems that it named, or its last lines; indented."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 20_000))
        text = file.read().decode("utf-8", "replace")
    *_, printed, _ = re.split(r"^--- .*\n", text, flags=re.MULTILINE)  # command, what it printed, exit code
    problems = PROBLEM.findall(printed)
    lines = "\n".join(problems[:SHOWN]).splitlines() or [line for line in printed.splitlines() if line.strip()][-SHOWN:]
    if len(problems) > SHOWN:
        lines.append(f"and {len(problems) - SHOWN} more")
    return [f"    {line}" for line in lines]


def share_done(folder: Path) -> float:
    """How far a run has come, 0 to 1, from the last line of its `metrics.jsonl`."""
    for record in reversed(read_metrics(folder / "metrics.jsonl", last_bytes=20_000)):
        if "of" in record:  # others are of the validation
            return LEARNING * float(record["step"] / record["of"])
    return 0.0
