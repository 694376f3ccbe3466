r"""Drive-KD's objective: what `Answers` learns, and beside it a lesson per capability.

.. math:: \text{Loss} = \text{Loss}_{answers} + \sum_c w_c \frac1B \sum_b \pi_{c(b), c} \frac1k \sum_s L_c(s, \text{group}(s))

Every sample listens to every lesson, mostly to that of its own capability (`mixing`); each lesson is a term of role
`follower`, divided by the samples of the window, whatever the answers are divided by.

Legend: c capability, b one of B samples, s one of k student layers, w weight, pi mixing.
Source: Drive-KD (arXiv 2601.21288); trainer.py 1134-1394 of its released code (commit 7589a0c7).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from drivedistill.batch import Batch, Map, Rows, Signal, Tap
from drivedistill.distill.attention_loss import hidden_loss, layer_groups, layer_range, map_loss
from drivedistill.distill.miner import Plan
from drivedistill.distill.objective import Answers, Moment, Outcome, Term, regime_sums
from drivedistill.distill.teacher import Needs
from drivedistill.drivekd_sections import SOFT, Lesson, Mixing
from drivedistill.problems import InputError, Problem

NAMED = {"first": (0, 0), "penultimate": (-2, -2), "last": (-1, -1), "intermediate": (0, -2)}


@dataclass(frozen=True)
class Course:
    """A lesson for a pair of models: which student layer follows which teacher layers."""

    lesson: Lesson
    groups: dict[int, list[int]]

    def taps(self, layers: list[int]) -> dict[int, Tap]:
        """What is read off layers of either model."""
        lesson = self.lesson
        block = "full" if lesson.signal == "hidden" else lesson.block
        return {layer: Tap(layer, lesson.signal, block) for layer in layers}

    @property
    def ours(self) -> dict[int, Tap]:
        """The student's taps."""
        return self.taps(list(self.groups))

    @property
    def theirs(self) -> dict[int, Tap]:
        """The teacher's."""
        return self.taps(sorted({layer for group in self.groups.values() for layer in group}))

    def loss(self, seen: dict[Tap, Map], shown: dict[Tap, Map]) -> Tensor:
        """The mean over the student's layers, `float[B]`.

        Raises:
            ValueError: Teacher and student read sequences of different lengths.
        """
        theirs, distance = self.theirs, self.lesson.distance
        losses = []
        for layer, tap in self.ours.items():
            targets = [shown[theirs[other]].values for other in self.groups[layer]]
            target = targets[0] if len(targets) == 1 else torch.stack(targets).mean(dim=0)
            if seen[tap].values.shape != target.shape:
                raise ValueError(
                    f"layer {layer} of the student is {tuple(seen[tap].values.shape)}, the teacher's {tuple(target.shape)}: "
                    "they do not read the same tokens, or a hidden state is not brought to the teacher's width."
                )
            if self.lesson.signal == "hidden":
                losses.append(hidden_loss(seen[tap], target, distance))
            else:
                losses.append(map_loss(seen[tap], target, distance, causal=self.lesson.denominator == "causal"))
        return torch.stack(losses).mean(dim=0)


def course(lesson: Lesson, student: int, teacher: int, capability: str) -> Course:
    """A lesson for a student and a teacher with so many layers.

    Raises:
        InputError: A layer is asked for that one of them does not have.
    """
    start, end = NAMED[lesson.layers] if isinstance(lesson.layers, str) else lesson.layers
    try:
        groups = layer_groups(layer_range(student, start, end), layer_range(teacher, start, end))
    except ValueError as error:
        place = f"distill.drivekd.lessons.{capability}.layers"
        expected = f"layers of a student with {student} and a teacher with {teacher}"
        raise InputError(Problem("recipe", place, expected, str(error), "choose other layers")) from error
    return Course(lesson, groups)


@dataclass
class Lessons(Answers):
    """Learns to answer, and to look where the teachers look."""

    courses: dict[str, Course] = field(default_factory=dict)
    """By capability."""
    mixing: Mixing = field(default_factory=lambda: SOFT)

    @property
    def needs(self) -> Needs:
        """Everything that teachers may ever be asked for."""
        taps = {(name, tap) for name, course in self.courses.items() for tap in course.theirs.values()}
        return super().needs | taps

    @property
    def wants(self) -> Needs:
        """The student's answers and the layers that are compared."""
        return super().wants | {tap for course in self.courses.values() for tap in course.ours.values()}

    @property
    def followers(self) -> tuple[str, ...]:
        """The lessons, and the divergence where it is one."""
        return (*self.courses, *super().followers)

    def asks(self, batch: Batch, moment: Moment) -> Needs:
        """Words while they are heard, and the lessons that a sample of the batch listens to."""
        heard = {name for name in self.courses if self._mixed(name, batch).any()}
        lessons = {need for need in self.needs if isinstance(need, tuple) and need[0] in heard}
        return super().asks(batch, moment) | lessons

    def __call__(self, rows: Rows, signal: Signal | None, batch: Batch, moment: Moment, plan: Plan) -> Outcome:
        """The terms of `Answers`, and one of role `follower` per capability, under its name."""
        outcome = super().__call__(rows, signal, batch, moment, plan)
        shown = signal.lessons if signal is not None else {}
        outcome.terms += [self._term(name, rows, shown.get(name), batch) for name in self.courses]
        return outcome

    def _term(self, name: str, rows: Rows, shown: dict[Tap, Map] | None, batch: Batch) -> Term:
        course, mixed = self.courses[name], self._mixed(name, batch)
        if mixed.any():
            if shown is None:
                raise ValueError(f"the lesson `{name}` needs its teacher's signal.")
            per_sample = mixed * course.loss(rows.taps, shown)
        else:  # nobody listens; what learns for this lesson has a gradient of zero all the same, as other ranks expect
            unused = torch.stack([rows.taps[tap].values.sum() for tap in course.ours.values()]).sum()
            per_sample = mixed + 0 * unused
        sums = regime_sums(per_sample.detach(), batch)
        return Term(name, per_sample.sum(), course.lesson.weight, "follower", sums, mixed=float(mixed.mean()))

    def _mixed(self, name: str, batch: Batch) -> Tensor:
        """How much each sample listens to a lesson, `float[B]`."""
        rows: list[dict[str, float]] = [self.mixing.get(mine, {}) for mine in batch.capabilities]  # type: ignore[call-overload]
        shares = [row.get(name, 0.0) / max(sum(row.values()), 1e-12) for row in rows]
        return torch.tensor(shares, device=batch.gold.device)
