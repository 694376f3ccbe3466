"""Several teachers at once: one for the words, and one for the lessons of each capability (Drive-KD).

Who teaches several things is asked once per batch. Teachers that do not fit into memory together take turns: each is loaded,
asked about a whole window, and forgotten before the next one comes.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from drivedistill.batch import Batch, Signal, Tap
from drivedistill.distill.teacher import LOGITS, Identity, LiveTeacher, Needs, Teacher
from drivedistill.models.student import Student


class TeacherByTurns(LiveTeacher):
    """A model that is in memory only between `wake` and `sleep`.

    Args:
        load: Builds it.
        identity: What it must share with its student.
        provides: What it can say.
    """

    def __init__(self, load: Callable[[], Student], identity: Identity | None, provides: Needs) -> None:
        self.load, self.identity, self.provides = load, identity, provides

    def wake(self) -> None:
        """Load the weights."""
        self.model = self.load().eval().requires_grad_(False)

    def sleep(self) -> None:
        """Free them."""
        if self.awake:
            del self.model
            gc.collect()

    @property
    def awake(self) -> bool:
        """Its weights are in memory."""
        return hasattr(self, "model")

    def signal(self, batch: Batch, needs: Needs = LOGITS) -> Signal:
        """As `LiveTeacher` does; who is asleep wakes for this one batch."""
        if self.awake:
            return super().signal(batch, needs)
        self.wake()
        try:
            return super().signal(batch, needs)
        finally:
            self.sleep()

    def close(self) -> None:
        """Nobody will ask again."""
        self.sleep()


class TeachersByCapability:
    """One teacher to the objective: words come from `words`, lessons from the capability's own.

    Args:
        words: Who is asked for logits; None: nobody.
        lessons: By capability; the same object may teach several, and speak.
    """

    def __init__(self, words: Teacher | None, lessons: dict[str, Teacher]) -> None:
        self.words, self.lessons = words, lessons
        self.identity = next(teacher.identity for teacher in (words, *lessons.values()) if teacher is not None)
        taught = frozenset(f"lesson/{name}" for name, teacher in lessons.items() if "taps" in teacher.provides)
        self.provides: Needs = (words.provides if words else frozenset()) | taught
        self.in_turn = any(isinstance(teacher, TeacherByTurns) for teacher in self.everyone())
        self._ready: dict[int, Signal] = {}

    def everyone(self) -> list[Teacher]:
        """Each teacher once, in the order in which they are asked."""
        return list({id(teacher): teacher for teacher in (self.words, *self.lessons.values()) if teacher}.values())

    def prepare(self, window: Sequence[Batch], needs: Sequence[Needs]) -> None:
        """Ask those who take turns about a whole window; `signal` then hands out what they said."""
        self._ready = {}
        if not self.in_turn:
            return
        signals = [Signal() for _ in window]
        for teacher in self.everyone():
            asked = [self._share(teacher, wanted) for wanted in needs]
            if not any(asked):
                continue
            if isinstance(teacher, TeacherByTurns):
                teacher.wake()
            try:
                for position, (batch, wanted) in enumerate(zip(window, asked, strict=True)):
                    if wanted:
                        signals[position] = self._joined(signals[position], teacher, batch, wanted, needs[position])
            finally:
                if isinstance(teacher, TeacherByTurns):
                    teacher.sleep()
        self._ready = {id(batch): signal for batch, signal in zip(window, signals, strict=True)}

    def signal(self, batch: Batch, needs: Needs = LOGITS) -> Signal:
        """Words and lessons of a batch; only teachers of whom something is needed are asked."""
        if id(batch) in self._ready:
            return self._ready[id(batch)]
        signal = Signal()
        for teacher in self.everyone():
            if wanted := self._share(teacher, needs):
                signal = self._joined(signal, teacher, batch, wanted, needs)
        return signal

    def _share(self, teacher: Teacher, needs: Needs) -> Needs:
        """What one teacher is asked for: words, where it is the speaker, and the taps of its capabilities."""
        words = {need for need in needs if isinstance(need, str)} if teacher is self.words else set()
        taps = {tap for capability, tap in _lessons(needs) if self.lessons.get(capability) is teacher}
        return frozenset(words | taps)

    def _joined(self, signal: Signal, teacher: Teacher, batch: Batch, wanted: Needs, needs: Needs) -> Signal:
        said = teacher.signal(batch, wanted)
        mine = [(name, tap) for name, tap in _lessons(needs) if self.lessons.get(name) is teacher]
        lessons = signal.lessons | {
            name: {tap: said.taps[tap] for owner, tap in mine if owner == name} for name, _ in mine
        }
        return replace(said if teacher is self.words else signal, taps={}, lessons=lessons)

    def close(self) -> None:
        """Nobody will ask again: free the memory."""
        for teacher in self.everyone():
            teacher.close()


def speaker(teacher: Teacher | None) -> Teacher | None:
    """Who is asked for words."""
    return teacher.words if isinstance(teacher, TeachersByCapability) else teacher


def _lessons(needs: Iterable[object]) -> list[tuple[str, Tap]]:
    return [need for need in needs if isinstance(need, tuple)]
