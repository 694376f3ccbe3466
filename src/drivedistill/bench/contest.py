"""The contest: several models answer the same questions, one at a time, in turns.

A machine is never equally fast for long: others use it, it grows warm, its frequency changes. So the models do not run
one after the other; every question is asked of all of them before the next one comes, in an order that is drawn anew.
What disturbs one model's answer disturbs the others' as well, and the ratios of their times hold.

Every model answers a question in two ways: from the pictures on disk, with stages, which is what a car has to wait for;
and from tensors that lie on the device already, without stages, which is how papers read "images per second".
"""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from drivedistill.bench.clock import Clock, device_clock
from drivedistill.bench.stages import Stages, TimedPictures, Watch
from drivedistill.data.collate import refuse_long
from drivedistill.evaluate.answering import model_inputs, read_answers
from drivedistill.evaluate.decoding import Decoding
from drivedistill.evaluate.endpoint import Answer
from drivedistill.evaluate.writing import Engine, Writer, writer
from drivedistill.progress import Progress, counted
from drivedistill.records import Sample
from drivedistill.subject import Subject, load_subject

Way = Literal["disk", "resident"]
WAYS: tuple[Way, ...] = ("disk", "resident")


@dataclass(frozen=True)
class Rules:
    """How the contest is held."""

    limit: int | None = 50
    """Questions."""
    views: int | None = None
    """Only questions with so many pictures."""
    warmup: int = 3
    """Questions that every model answers in both ways before the clock counts."""
    rounds: int = 1
    """How often a question is asked; its time is the median."""
    max_new_tokens: int = 256
    min_new_tokens: int | None = None
    """Makes every model write so many tokens, whatever it has to say."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    engine: Engine = "eager"
    """See `evaluate/writing.py`."""
    seed: int = 0
    """Of the choice of the questions and the order of the models."""

    def __str__(self) -> str:
        length = f"exactly {self.min_new_tokens}" if self.min_new_tokens else f"at most {self.max_new_tokens}"
        how = f"{length} tokens, {self.dtype}, {self.engine}"
        return f"{how}, warm-up {self.warmup}, {counted(self.rounds, 'round')}, seed {self.seed}"


PRESETS: dict[str, Rules] = {
    "default": Rules(),
    "drivekd": Rules(limit=1, views=6, warmup=3, rounds=10, max_new_tokens=128, min_new_tokens=128, dtype="bfloat16"),
}
"""`drivekd`: Drive-KD's efficiency columns (memory, tokens per second, first token). The paper does not say how they were
measured; this is our reading: one prompt with six pictures, bfloat16, batch 1, 128 tokens, greedy, median of ten."""


@dataclass
class Contestant:
    """A model that is ready to answer."""

    name: str
    """Short, its own: of its file and its column."""
    path: str
    subject: Subject
    decoding: Decoding
    write: Writer
    device: torch.device
    clock: Clock
    watch: Watch
    stages: dict[str, list[Stages]] = field(default_factory=dict)
    """By question's id: every time it was answered from disk."""
    resident_ms: dict[str, list[float]] = field(default_factory=dict)
    """Likewise, from tensors on the device."""
    answers: dict[str, Answer] = field(default_factory=dict)
    """The first of each question; greedy ones are the same every time."""
    peak_bytes: int = 0
    """On a GPU: the most that its answers needed beside what lay there before."""


def enter(name: str, path: str, rules: Rules, samples: Sequence[Sample], clock: Clock | None = None) -> Contestant:
    """Load a model for the contest.

    Args:
        name: Short name.
        path: Run, directory or hub id.
        rules: How the contest is held.
        samples: What will be asked.
        clock: Another clock, for tests.

    Raises:
        InputError: It cannot be loaded, or a question is too long for it.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    clock = clock or device_clock(device)
    pictures = TimedPictures(clock)
    subject = load_subject(path, pictures, dtype=rules.dtype)
    refuse_long([sample.model_copy(update={"answer": None}) for sample in samples], subject.preparation)
    subject.model.eval().to(device)
    decoding = Decoding(max_new_tokens=rules.max_new_tokens, min_new_tokens=rules.min_new_tokens or 0)
    write = writer(subject, decoding, rules.engine)
    return Contestant(name, path, subject, decoding, write, device, clock, Watch(subject.model, clock, pictures))


def short_names(paths: Sequence[str]) -> list[str]:
    """Names for files and columns: the parts of the paths in which they differ; of a single path its last two parts."""
    parts = [Path(path).parts for path in paths]
    if len(set(parts)) > 1:
        shortest = min(map(len, parts))
        front = next((i for i in range(shortest) if len({p[i] for p in parts}) > 1), shortest)
        back = next((i for i in range(shortest - front) if len({p[-1 - i] for p in parts}) > 1), shortest - front)
        parts = [p[front : len(p) - back] or p[-1:] for p in parts]
    else:
        parts = [p[-2:] for p in parts]
    names = ["-".join(part for part in p if part not in ("/", "..")) or "model" for p in parts]
    return [name if names.index(name) == i else f"{name}-{names[:i].count(name) + 1}" for i, name in enumerate(names)]


def turns(models: int, questions: int, rounds: int, seed: int) -> Iterator[tuple[int, list[tuple[int, Way]]]]:
    """Question after question, round after round: its number, and who answers it in which way, in a drawn order."""
    for turn in range(rounds):
        for question in range(questions):
            everybody = [(model, way) for model in range(models) for way in WAYS]
            random.Random(f"turns {seed} {turn} {question}").shuffle(everybody)
            yield question, everybody


def hold(contestants: Sequence[Contestant], samples: Sequence[Sample], rules: Rules) -> None:
    """Ask every question of every model; what came of it lies in the contestants."""
    warm = [samples[i % len(samples)] for i in range(rules.warmup)]
    each = len(contestants) * len(WAYS)
    with Progress((len(warm) + rules.rounds * len(samples)) * each, word="answer") as progress, _no_litter():
        for sample in warm:
            for contestant in contestants:
                for way in WAYS:
                    ask(contestant, sample, way, note=False)
                    progress.advance()
        for question, everybody in turns(len(contestants), len(samples), rules.rounds, rules.seed):
            for model, way in everybody:
                ask(contestants[model], samples[question], way)
                progress.advance()


def ask(contestant: Contestant, sample: Sample, way: Way, *, note: bool = True) -> None:
    """One model answers one question in one way.

    Args:
        contestant: The model.
        sample: The question.
        way: `disk` counts everything, by stages; `resident` counts the model alone.
        note: False to warm up.
    """
    batch, subject = [sample.model_copy(update={"answer": None})], contestant.subject
    before = _allocated(contestant.device)
    if way == "disk":
        with torch.inference_mode(), contestant.watch.answer():
            inputs = model_inputs(subject, contestant.device, batch)
            contestant.watch.prepared()
            written = contestant.write(inputs, contestant.watch.note)
        if note:
            contestant.stages.setdefault(sample.id, []).append(contestant.watch.stages)
            (answer,) = read_answers(subject, contestant.decoding, batch, written)
            contestant.answers.setdefault(sample.id, answer)
    else:
        with torch.inference_mode():
            inputs = model_inputs(subject, contestant.device, batch)
            started = contestant.clock.begin()
            contestant.write(inputs, None).tokens.cpu()
            passed = 1000 * (contestant.clock.finish() - started)
        if note:
            contestant.resident_ms.setdefault(sample.id, []).append(passed)
    if contestant.device.type == "cuda":
        contestant.peak_bytes = max(contestant.peak_bytes, torch.cuda.max_memory_allocated() - before)


def _allocated(device: torch.device) -> int:
    """Bytes on the GPU now; the peak is counted from here."""
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


@contextmanager
def _no_litter() -> Iterator[None]:
    """Objects that were there before are not searched for litter in the middle of an answer."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
