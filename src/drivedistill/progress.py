"""A progress bar with the time left, silent where nobody looks; and counts in words."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


def counted(number: int, word: str) -> str:
    """`1 model`, `2 models`."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


class Progress:
    """`with Progress(total, done) as progress: progress.advance(loss)`.

    Args:
        total: Steps in all.
        done: Steps done before (a resumed run).
        visible: False on all ranks but the first. A bar also needs a terminal.
        word: What is counted.
    """

    def __init__(self, total: int, done: int = 0, visible: bool = True, word: str = "step") -> None:
        console = Console(stderr=True)
        columns = (TextColumn(word), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"))
        self._bar = Bar(
            *columns,
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not (visible and sys.stderr.isatty()),
        )
        self._task = self._bar.add_task(word, total=total, completed=done, note="")

    def advance(self, loss: float | None = None) -> None:
        """One step more."""
        self._bar.update(self._task, advance=1, note="" if loss is None else f"loss {loss:.4f}")

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
