"""One stage after the other, in one folder; what is there is kept."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import typer

from drivedistill.ablate.findings import other_plan
from drivedistill.ablate.jobs import locked
from drivedistill.ablate.plan import CLI, write_plan
from drivedistill.precision import fast_precision
from drivedistill.problems import InputError, Problem, RunError
from drivedistill.quickstart.budget import Budget, budget
from drivedistill.quickstart.origin import Teacher, examine
from drivedistill.quickstart.plan import Call, planned, settings
from drivedistill.quickstart.record import NAME, Record
from drivedistill.quickstart.stages import GOES_ON, Stage, Work, report_file, stages

DISK_GB = 1.5
"""What the folder takes for ten minutes, and some room."""


def quickstart(call: Call, *, overwrite: bool = False, say: Callable[[str], None] = print) -> Path:
    """Do everything that is not done yet.

    Args:
        call: What was asked for.
        overwrite: Remove an earlier quickstart in the folder first.
        say: Told the headings and the table.

    Returns:
        The report.

    Raises:
        InputError: The teacher cannot be used, or the folder holds something else or another quickstart.
        RunError: A stage failed, or the disk is full.
        Interrupted: A signal came; the same call goes on.
    """
    call = replace(call, jobs=min(call.jobs, _cores()))
    teacher = examine(call.teacher)
    _require_ours(call.out)
    call.out.mkdir(parents=True, exist_ok=True)
    with locked(call.out) as descriptor, _disk_full_in_words(call.out):
        if overwrite:
            # What cannot be planned is refused before anything is removed; the precision refuses nothing.
            planned(call, budget(call.minutes, call.jobs), teacher, "no")
            _remove(call.out)
        work = _prepared(call, teacher, descriptor)
        _require_room(work)
        work.record.write()
        write_plan(work.table, work.runs, call.table)
        _each(work, say)
    return report_file(call)


def describe(call: Call) -> Iterator[str]:
    """The stages with the command lines that do the same; nothing is written."""
    call = replace(call, jobs=min(call.jobs, _cores()))
    teacher = examine(call.teacher)
    _require_ours(call.out)
    work = _prepared(call, teacher, -1)
    yield f"{work.budget}"
    for number, stage in enumerate(stages(work), start=1):
        yield _heading(number, stage, work)
        for command in stage.commands():
            yield f"    {shlex.join(['drivedistill', *command[len(CLI) :]])}"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _prepared(call: Call, teacher: Teacher, descriptor: int) -> Work:
    """The plan; that of an earlier call goes on with its budget and precision, whatever machine it is on now."""
    record = Record(call.out)
    known = record.settings if record.settings.get("minutes") == call.minutes else {}
    share = Budget(**known["budget"]) if known else budget(call.minutes, call.jobs)
    # bf16 is slower than fp32 where it is emulated. Asking takes torch, which one who only looks again need not wait for.
    precision = known.get("precision") or fast_precision()
    card, runs = planned(call, share, teacher, precision)
    record.require(settings(call, share, teacher, precision, card))
    if problems := other_plan(card, runs, call.table):
        raise InputError(problems)
    return Work(call, share, card, runs, record, descriptor)


def _each(work: Work, say: Callable[[str], None]) -> None:
    """Every stage under its heading."""
    for number, stage in enumerate(stages(work), start=1):
        say("\n" + typer.style(_heading(number, stage, work), bold=True))
        if stage.there():
            say("there already")
            continue
        with work.record.timed(stage.name):
            stage.work()
        say(f"{stage.name}: {work.record.seconds[stage.name]:.0f} s")


def _heading(number: int, stage: Stage, work: Work) -> str:
    return f"{number}/{len(work.seconds)}  {stage.title} (about {work.seconds[stage.name]} s)"


def _require_ours(out: Path) -> None:
    """Refuse a folder of somebody else, and a number of minutes in which nothing can be shown."""
    if out.exists() and not out.is_dir():
        raise InputError(Problem(str(out), "", "a folder for the quickstart", "a file", "choose another --out"))
    if out.is_dir() and not (out / NAME).is_file():
        others = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
        if others:
            found = f"a folder with other things ({', '.join(others[:3])}; no {NAME})"
            raise InputError(
                Problem(str(out), "", "an empty folder, or an earlier quickstart", found, "choose another --out")
            )


def _remove(out: Path) -> None:
    """Remove what an earlier quickstart made; `_require_ours` has seen that it is one."""
    for name in ("data", "table", "bench", "logs"):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in ("report.html", NAME):
        (out / name).unlink(missing_ok=True)


def _require_room(work: Work) -> None:
    """Said before the work: a full disk after eight minutes costs eight minutes."""
    needed = DISK_GB * max(0.3, work.budget.keyframes / 1500)
    free = shutil.disk_usage(work.call.out).free / 1e9
    if free < needed and not work.record.made_from:
        found = f"{free:.1f} GB"
        remedy = "free some, choose another --out, or ask for fewer --minutes"
        raise InputError(Problem(str(work.call.out), "", f"{needed:.1f} GB of free disk", found, remedy))


@contextmanager
def _disk_full_in_words(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(f"the disk of {out} is full; free some space{GOES_ON}") from error
        raise
