"""The stages in their order. All but the first and the last are ordinary command lines, in processes of their own."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from drivedistill.ablate.board import ProgressList, job_of
from drivedistill.ablate.card import CACHE, Table
from drivedistill.ablate.jobs import Job, run_jobs
from drivedistill.ablate.plan import CLI, PlannedRun, answering, cache_command, learning
from drivedistill.ablate.results import tabulate
from drivedistill.ablate.table import write_table
from drivedistill.problems import RunError
from drivedistill.quickstart.budget import Budget
from drivedistill.quickstart.origin import sha256
from drivedistill.quickstart.plan import BEST, PLAIN, SIZE, SMALL, TEACHER, Call
from drivedistill.quickstart.record import Record
from drivedistill.signals import Interrupted
from drivedistill.world.dataset.folder import Settings, finished
from drivedistill.world.dataset.write import Stopped, write_world

GOES_ON = "; the same command goes on"


@dataclass(frozen=True)
class Instrument:
    """A measurement of finished runs by a command line."""

    name: str
    arguments: list[str]
    """After `drivedistill`."""
    runs: tuple[Path, ...]
    """Whose models it measures."""
    result: Path
    """The file that is written last; its folder holds nothing else."""

    def digest(self) -> str:
        """Of all that the result depends on: what is asked, and the weights."""
        weights = [sha256(run / "model" / "model.safetensors") for run in self.runs]
        return hashlib.sha256(json.dumps([self.arguments, weights]).encode()).hexdigest()


@dataclass
class Work:
    """Everything that the stages need to know."""

    call: Call
    budget: Budget
    table: Table
    runs: list[PlannedRun]
    record: Record
    descriptor: int
    """Of the folder's lock, for processes to inherit."""
    seconds: dict[str, int] = field(init=False)
    """About how long every stage takes."""

    def __post_init__(self) -> None:
        self.seconds = self.budget.seconds(self.call.jobs)

    def run_of(self, row: str) -> PlannedRun:
        """The run of a row."""
        return next(run for run in self.runs if run.row == row)

    def to_learn(self) -> list[PlannedRun]:
        """The runs of the rows below the teacher's."""
        return [run for run in self.runs if run.row != TEACHER]


@dataclass(frozen=True)
class Stage:
    """One heading, one bar."""

    name: str
    title: str
    there: Callable[[], bool]
    """Whether it has been done, and with what is here now."""
    work: Callable[[], None]
    commands: Callable[[], list[list[str]]]
    """Its command lines, of `drivedistill`."""


def stages(work: Work) -> list[Stage]:
    """All stages."""
    controls, bench = _controls(work), [_bench(work)]
    return [
        Stage("data", "the driving world: pictures and questions", lambda: _world_there(work), lambda: _world(work),
              lambda: [_world_command(work)]),
        Stage("teacher", "the teacher, and what its frozen vision makes of every picture", lambda: _taught(work),
              lambda: _teacher(work), lambda: _teacher_commands(work)),
        Stage("students", f"{len(work.to_learn())} students: learn, answer, score", lambda: _tabulated(work),
              lambda: _students(work), lambda: [line for run in work.runs for line in _student_commands(work, run)]),
        Stage("controls", "do they look? black pictures, the text alone; which experts are used",
              lambda: _measured(work, controls), lambda: _measure(work, "controls", controls, work.call.jobs),
              lambda: [[*CLI, *item.arguments] for item in controls]),
        Stage("bench", "how fast? one question at a time, from the pictures on disk to the last word",
              lambda: _measured(work, bench), lambda: _measure(work, "bench", bench, 1),
              lambda: [[*CLI, *item.arguments] for item in bench]),
        Stage("report", "the report", lambda: _reported(work), lambda: _report(work),
              lambda: [[*CLI, "report", *map(str, _folders(work)), "--out", str(report_file(work.call))]]),
    ]  # fmt: skip


# --- data ----------------------------------------------------------------------------------------------------------


def _world_settings(work: Work) -> Settings:
    return Settings(work.budget.keyframes, work.call.seed, SIZE)


def _world_command(work: Work) -> list[str]:
    asked = _world_settings(work)
    numbers = ["--keyframes", str(asked.keyframes), "--seed", str(asked.seed), "--size", str(asked.size)]
    return [*CLI, "world", str(work.call.world), *numbers, "--workers", str(work.call.jobs)]


def _world_there(work: Work) -> bool:
    manifest = finished(work.call.world, _world_settings(work))
    if manifest is not None:
        work.record.require_data(manifest["data_hash"])
    return manifest is not None


def _world(work: Work) -> None:
    try:
        manifest = write_world(work.call.world, _world_settings(work), workers=work.call.jobs)
    except Stopped as stop:
        raise Interrupted(stop.number, f"after saving finished parts{GOES_ON}") from None
    work.record.require_data(manifest["data_hash"])


# --- the table -----------------------------------------------------------------------------------------------------


def _taught(work: Work) -> bool:
    cached = (work.call.table / CACHE).is_dir() or all(run.learnt for run in work.to_learn())
    return work.run_of(TEACHER).learnt and cached


def _teacher_commands(work: Work) -> list[list[str]]:
    run = work.run_of(TEACHER)
    return [_features_command(run), *learning(run)]


def _features_command(run: PlannedRun) -> list[str]:
    """In half precision: they are mapped into the memory of every process."""
    return [*cache_command(run), "--dtype", "float16"]


def _teacher(work: Work) -> None:
    job = job_of(work.run_of(TEACHER), lambda: _teacher_commands(work))
    _run(work, "teacher", [_timed(job, work.seconds["teacher"])], 1)


def _tabulated(work: Work) -> bool:
    return all(run.state(work.table.score) == "done" for run in work.runs) and (work.call.table / "table.md").is_file()


def _student_commands(work: Work, run: PlannedRun) -> list[list[str]]:
    """Learn and answer; the teacher only answers. Features are cached; those of the half tower come first."""
    own = [_features_command(run)] if run.row == SMALL and not run.learnt else []
    return [*own, *(learning(run) if run.row != TEACHER else []), *answering(run, work.table.score)]


def _students(work: Work) -> None:
    todo = [run for run in work.runs if run.state(work.table.score) != "done"]
    # The teacher has learnt, so nobody waits; with little to do it comes last and fills the gap.
    todo.sort(key=lambda run: run.row == TEACHER)
    jobs = [replace(job_of(run, partial(_student_commands, work, run)), needs=frozenset()) for run in todo]
    _run(work, "students", jobs, work.call.jobs)
    write_table(tabulate(work.table, work.runs, {}), work.call.table)


# --- instruments ---------------------------------------------------------------------------------------------------


def _controls(work: Work) -> list[Instrument]:
    """Black pictures and the text-only prior for the teacher and the student with all parts; its experts."""
    limit = ["--split", work.table.score.splits[0], "--limit-per-set", str(work.budget.probed)]
    found = []
    for row in (TEACHER, BEST):
        run = work.run_of(row).folder
        asked = ["probe", str(run), "--conditions", "black,prior", *limit, "--no-captions", "--batch-size", "64"]
        asked += ["--max-new-tokens", str(work.table.score.max_new_tokens)]
        found.append(Instrument(f"{row}: black pictures", asked, (run,), run / "probe" / "probe.json"))
    asked = ["experts", str(run), *limit]
    folder = run / "experts" / work.table.score.splits[0]
    return [*found, Instrument(f"{BEST}: experts", asked, (run,), folder / "experts.json")]


def _bench(work: Work) -> Instrument:
    runs = tuple(run.folder for run in work.runs if run.row in (TEACHER, PLAIN, BEST, SMALL))
    out = work.call.out / "bench"
    asked = ["bench", *map(str, runs), "--split", work.table.score.splits[0], "--limit", str(work.budget.benched)]
    # One thread: threads of a tiny model wait for one another, and on a busy machine for everybody else.
    asked += ["--threads", "1", "--max-new-tokens", str(work.table.score.max_new_tokens), "--out", str(out)]
    return Instrument("bench", asked, runs, out / "bench.json")


def _is_there(work: Work, item: Instrument) -> bool:
    return item.result.is_file() and work.record.made_from.get(item.name) == item.digest()


def _measured(work: Work, items: Sequence[Instrument]) -> bool:
    return all(_is_there(work, item) for item in items)


def _measure(work: Work, stage: str, items: Sequence[Instrument], at_once: int) -> None:
    """Run the instruments whose results are not there; what an interrupted one left is removed."""
    todo = [item for item in items if not _is_there(work, item)]
    for item in todo:
        shutil.rmtree(item.result.parent, ignore_errors=True)
    logs = work.call.out / "logs"
    jobs = [
        Job(item.name, frozenset(), partial(lambda item: [[*CLI, *item.arguments]], item), logs / _log_name(item))
        for item in todo
    ]
    try:
        _run(work, stage, [_timed(job, work.seconds[stage]) for job in jobs], at_once)
    finally:
        made = [item for item in todo if item.result.is_file()]
        work.record.made_from |= {item.name: item.digest() for item in made}


def _log_name(item: Instrument) -> str:
    return f"{item.name.replace(': ', '-').replace(' ', '-')}.txt"


# --- the report ----------------------------------------------------------------------------------------------------


def report_file(call: Call) -> Path:
    """Where the report is written."""
    return call.out / "report.html"


def _folders(work: Work) -> list[Path]:
    return [work.call.table, work.call.out / "bench"]


def _report_digest(work: Work) -> str:
    results = [item.result for item in (*_controls(work), _bench(work))]
    digests = [sha256(path) for path in [work.call.table / "table.json", *results] if path.is_file()]
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


def _reported(work: Work) -> bool:
    page = report_file(work.call)
    if not page.is_file():
        return False
    made = work.record.made_from
    return made.get("report") == _report_digest(work) and made.get(page.name) == sha256(page)


def _report(work: Work) -> None:
    from drivedistill.report import write_report

    page = report_file(work.call)
    write_report(_folders(work), page)
    work.record.made_from |= {"report": _report_digest(work), page.name: sha256(page)}


# --- jobs ----------------------------------------------------------------------------------------------------------


def _run(work: Work, stage: str, jobs: Sequence[Job], at_once: int) -> None:
    """Run jobs under one bar.

    Raises:
        RunError: One of them failed.
        Interrupted: A signal came.
    """
    with ProgressList(len(jobs)) as board:
        endings = run_jobs(jobs, work.call.out, work.descriptor, at_once, board)
    logs = {job.name: job.log for job in jobs}
    failed = [f"{name} (see {logs[name]})" for name, ending in endings.items() if ending.code]
    if failed:
        raise RunError(f"stage {stage}: {', '.join(failed)} failed. Mend it{GOES_ON}")


def _timed(job: Job, expected_s: float) -> Job:
    """A job that says nothing about how far it is: its bar follows the time that it is expected to take."""
    started: list[float] = []

    def begin() -> list[list[str]]:
        started.append(time.monotonic())
        return job.commands()

    def share() -> float:
        passed = (time.monotonic() - started[0]) / expected_s if started else 0.0
        return min(0.95, passed)

    return Job(job.name, job.needs, begin, job.log, share)
