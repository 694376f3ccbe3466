"""Jobs that wait for one another, each a few command lines in processes of their own, some at once.

A signal is handed on once to every running process, which saves and leaves; nothing new is started. While a job's
process lives, also after this process was killed, OUT stays `locked`: the lock is inherited.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Protocol

from drivedistill.records import lock
from drivedistill.signals import Interrupted, Signals

POLL_S = 0.2


@dataclass(frozen=True)
class Job:
    """Command lines that are run one after the other, in a folder of their own."""

    name: str
    needs: frozenset[str]
    """Jobs that must have ended well."""
    commands: Callable[[], list[list[str]]]
    """Asked when the job starts."""
    log: Path
    """Takes what the processes print, after what earlier calls printed."""
    share_done: Callable[[], float] = lambda: 0.0
    """0 to 1, for the progress bar."""


@dataclass(frozen=True)
class Ending:
    """How a job ended."""

    code: int
    """Exit code of the last command; 0: all went well."""
    seconds: float = 0.0
    stopped: bool = False
    """By a signal that was handed on."""
    waited_for: str = ""
    """The job whose failure kept this one from starting; then the code is that job's."""


class Board(Protocol):
    """Shows how jobs get on."""

    def started(self, job: Job) -> None:
        """A job's first process is about to start."""

    def ended(self, job: Job, ending: Ending) -> None:
        """A job has ended, or will never start."""

    def tick(self, running: Sequence[Job]) -> None:
        """Called several times a second."""


@contextmanager
def locked(out: Path) -> Iterator[int]:
    """The descriptor of a lock on the folder, for its processes to inherit.

    Raises:
        InputError: Another process holds it.
    """
    with (out / ".lock").open("ab") as file:
        lock(file, out)
        yield file.fileno()


def run_jobs(jobs: Sequence[Job], out: Path, descriptor: int, at_once: int, board: Board) -> dict[str, Ending]:
    """Run jobs; one that fails stops only those that need it.

    Args:
        jobs: Each after those that it needs; a need that is not among them counts as done.
        out: Folder of the table, for the message.
        descriptor: Of its lock.
        at_once: How many jobs run at the same time; each gets its share of the cores (`OMP_NUM_THREADS`), unless the
            environment says another number.
        board: Is told what happens.

    Returns:
        Job -> ending, for every job.

    Raises:
        Interrupted: SIGINT or SIGTERM came, and the processes that ran have left.
    """
    with Signals() as signals:
        queue = _Queue(list(jobs), at_once, descriptor, board)
        try:
            while queue.waiting or queue.running:
                if signals.number:
                    queue.hand_on(signals.number)
                else:
                    queue.start_ready()
                queue.advance()
                if signals.number and not queue.running:
                    raise Interrupted(signals.number, f"after saving what was done; repeat the call to go on: {out}")
                board.tick([item.job for item in queue.running])
                time.sleep(POLL_S if queue.running else 0)
        finally:  # a second signal, or an error of ours
            queue.kill()
    return queue.endings


@dataclass
class _Running:
    job: Job
    todo: list[list[str]]
    log: IO[bytes]
    process: subprocess.Popen[bytes] | None = None
    started: float = field(default_factory=time.monotonic)


@dataclass
class _Queue:
    """Who waits, who runs, who has ended."""

    waiting: list[Job]
    at_once: int
    descriptor: int
    board: Board
    running: list[_Running] = field(default_factory=list)
    endings: dict[str, Ending] = field(default_factory=dict)
    stopping: bool = False

    def start_ready(self) -> None:
        """Start what waits for nobody, as far as there is room; give up what waits for a job that failed."""
        unfinished = {job.name for job in self.waiting} | {item.job.name for item in self.running}
        for job in list(self.waiting):
            failed = [name for name in sorted(job.needs & self.endings.keys()) if self.endings[name].code]
            if failed:
                self.waiting.remove(job)
                self._end(job, Ending(self.endings[failed[0]].code, waited_for=failed[0]))
            elif len(self.running) < self.at_once and not job.needs & unfinished:
                self.waiting.remove(job)
                self.board.started(job)
                job.log.parent.mkdir(parents=True, exist_ok=True)
                self.running.append(_Running(job, job.commands(), job.log.open("ab", buffering=0)))

    def advance(self) -> None:
        """Look at every process, start the next one of its job, or end the job."""
        for item in list(self.running):
            code = self._next(item)
            if code is not None:
                self.running.remove(item)
                item.log.close()
                seconds = round(time.monotonic() - item.started, 1)
                self._end(item.job, Ending(code, seconds, stopped=self.stopping and code != 0))

    def hand_on(self, number: int) -> None:
        """Give every process the signal, once."""
        if not self.stopping:
            self.stopping = True
            for item in self.running:
                if item.process is not None:
                    item.process.send_signal(number)

    def kill(self) -> None:
        """End what still runs, at once."""
        for item in self.running:
            if item.process is not None:
                item.process.kill()
                item.process.wait()
            item.log.close()

    def _end(self, job: Job, ending: Ending) -> None:
        self.endings[job.name] = ending
        self.board.ended(job, ending)

    def _next(self, item: _Running) -> int | None:
        """The exit code of a job that is over."""
        if item.process is not None:
            code = item.process.poll()
            if code is None:
                return None
            item.process = None
            _note(item.log, f"exit code {code}")
            if code or not item.todo:
                return code
        if self.stopping:
            return 1  # between two commands
        if not item.todo:
            return 0
        command = item.todo.pop(0)
        _note(item.log, shlex.join(command))
        threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, len(os.sched_getaffinity(0)) // self.at_once))
        item.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=item.log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": threads},
            start_new_session=True,  # Ctrl-C reaches this process alone, which hands it on once
            pass_fds=(self.descriptor,),
        )
        return None


def _note(log: IO[bytes], text: str) -> None:
    log.write(f"--- {datetime.now().isoformat(' ', 'seconds')} {text}\n".encode())
