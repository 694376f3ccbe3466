"""The ways in which a model answers, by name."""

from __future__ import annotations

from dataclasses import dataclass

from drivedistill.problems import InputError, Problem


@dataclass(frozen=True)
class Decoding:
    """How answers are made."""

    teacher_forced: bool = False
    beams: int = 1
    max_new_tokens: int = 256
    min_new_tokens: int = 0

    @property
    def name(self) -> str:
        """`greedy`, `beam-4` or `teacher_forced`."""
        if self.teacher_forced:
            return "teacher_forced"
        return "greedy" if self.beams == 1 else f"beam-{self.beams}"


def decoding(name: str, max_new_tokens: int) -> Decoding:
    """The decoding with a name.

    Raises:
        InputError: There is none.
    """
    if name in ("greedy", "teacher_forced"):
        return Decoding(name == "teacher_forced", 1, max_new_tokens)
    beams = name.removeprefix("beam-")
    if not (name.startswith("beam-") and beams.isdigit() and int(beams) > 1):
        expected = "greedy, beam-N (N > 1) or teacher_forced"
        raise InputError(Problem("command line", "--decode", expected, repr(name), "correct the name"))
    return Decoding(False, int(beams), max_new_tokens)
