"""What is wrong with the user's input, and what to do about it.

Everything that reads files or recipes collects its findings as `Problem`s and raises one `InputError` with all of
them, so that a user mends a data set in one round. The command line prints them and exits with code 2.
A run that fails for another reason (a loss that is not finite, a full disk) raises `RunError`: exit code 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding: where it is, what was expected, what was found and the remedy."""

    file: str
    """Path of the file, or `recipe`, or `command line`."""
    record: str
    """Where in the file: `scene abc, frame def, perception[3]`, `line 17`, `train.lr`; empty for the whole file."""
    expected: str
    found: str
    remedy: str

    def __str__(self) -> str:
        where = f"{self.file}: {self.record}" if self.record else self.file
        return f"{where}\n    expected: {self.expected}\n    found:    {self.found}\n    remedy:   {self.remedy}"


class InputError(Exception):
    """The input cannot be used; `problems` says why, completely. Exit code 2."""

    def __init__(self, problems: Problem | Iterable[Problem] | str) -> None:
        if isinstance(problems, str):  # torch hands an error of a loading process on as its text
            problems = Problem("data", "", "samples that can be read", problems, "see the problem inside the text")
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class RunError(Exception):
    """A run that started well could not be finished. Exit code 1."""


def missing_file(path: Path, what: str, remedy: str) -> Problem:
    """The finding for a file or folder that is not there."""
    return Problem(str(path), "", what, "no such file or folder", remedy)


def unavailable(name: str, what: str, error: Exception) -> Problem:
    """The finding for a directory or hub id that Hugging Face cannot load."""
    remedy = "give a directory, or download first with `hf download ID --local-dir DIR`"
    if Path(name).exists():
        remedy = "the directory must hold what `save_pretrained` writes; weights in safetensors only"
    found = " ".join(str(error).split())[:200]
    if "deserializing header" in found:
        found = f"weights that are no safetensors file (a pickle, or cut off): {found}"
    return Problem(name, "", what, found, remedy)
