"""Before a run: a few of its micro-batches are trained on in memory, so that `cost.py` can reckon the rest.

They are spread evenly over an epoch, sorted by size, and over the run, whose teacher may fall silent on the way. The optimizer
works with a learning rate of zero, so the weights stay as they are, and nothing is written.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from statistics import fmean
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from drivedistill.batch import Batch
from drivedistill.cost import Cost, Decodes, Probe
from drivedistill.data.collate import Preparation, Reading, collate, views
from drivedistill.data.images import PictureCache, image_size
from drivedistill.data.stream import LETTERS_OF_A_VIEW, MicroBatches, Stream
from drivedistill.distill.teacher import LiveTeacher
from drivedistill.distill.teachers import TeacherByTurns, speaker
from drivedistill.machine import Stopwatch, peak_memory_gb
from drivedistill.models.student import bare
from drivedistill.ranks import sum_over_ranks
from drivedistill.recipe import Recipe
from drivedistill.records import Sample
from drivedistill.runs import Parts
from drivedistill.step import Loop, step
from drivedistill.train import start

SECONDS = 15.0
"""For how long micro-batches are tried, about; the first ones, which warm up, come on top."""

FEWEST, MOST = 6, 40
"""Micro-batches that are tried at least and at most."""

SOME_PICTURES = 1_000
"""Enough to tell the mean size of a data set's pictures."""


def measure(recipe: Recipe, parts: Parts) -> Cost:
    """Try some micro-batches of a run.

    Raises:
        RunError: A loss is not finite.
    """
    loop = _begin(recipe, parts)
    largest, chosen = _spread(replace(loop.stream, accumulate=1, ranks=1))
    with _watched(loop, frozen_towers(parts)) as watches:
        _probe(loop, largest, 0.0, watches)  # allocators and kernels warm up
        begun = time.perf_counter()
        _probe(loop, chosen[0], 0.0, watches)
        warm = torch.tensor([time.perf_counter() - begun])
        each = float(sum_over_ranks(warm, loop.accelerator)) / loop.accelerator.num_processes
        number = int(min(len(chosen), max(FEWEST, SECONDS / each)))
        tried = _every(chosen, number)
        probes = [_probe(loop, indices, (n + 0.5) / len(tried), watches) for n, indices in enumerate(tried)]
    decodes, kept = _decodes(loop)
    peak = peak_memory_gb() + (0.0 if recipe.data.workers or torch.cuda.is_available() else kept / 1e9)
    per_epoch, accumulate = loop.stream.windows_per_epoch, recipe.train.accumulate
    return Cost(probes, per_epoch, loop.total, accumulate, recipe.data.workers, decodes, peak)


def frozen_towers(parts: Parts) -> dict[str, nn.Module]:
    """By role, the vision towers that run although what they make of a picture never changes."""
    said = speaker(parts.setting.teacher)
    live = isinstance(said, LiveTeacher) and not isinstance(said, TeacherByTurns)
    subjects = {"student": parts.student} | ({"teacher": parts.teacher} if parts.teacher and live else {})
    towers = {
        role: bare(subject.model).vision
        for role, subject in subjects.items()
        if subject.preparation.reading.family == "driving_t5" and subject.preparation.features is None
    }
    return {role: tower for role, tower in towers.items() if not any(p.requires_grad for p in tower.parameters())}


# --- trying ---------------------------------------------------------------------------------------------------------


def _begin(recipe: Recipe, parts: Parts) -> Loop:
    """The run as `train` would begin it, but for its learning rate."""
    AcceleratorState._reset_state()
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=recipe.train.precision)
    loop = start(parts.setting, accelerator)
    for group in loop.optimizer.param_groups:
        group["initial_lr"] = 0.0
    return loop


def _spread(stream: Stream) -> tuple[list[int], list[list[int]]]:
    """The largest micro-batch of an epoch, and some that stand for all: of every size, in random order."""
    weights = [_size(sample) for sample in stream.samples]
    number = math.ceil(stream.windows_per_epoch)
    batches = sorted(islice(MicroBatches(stream, 0, 0), number), key=lambda batch: _weight(batch, weights))
    chosen = _every(batches, max(MOST, 2))
    random.Random(stream.seed).shuffle(chosen)
    return batches[-1], chosen


def _size(sample: Sample) -> tuple[int, int, int]:
    return len(sample.question), len(sample.answer or ""), LETTERS_OF_A_VIEW * len(sample.images)


def _weight(batch: Sequence[int], sizes: Sequence[tuple[int, int, int]]) -> int:
    """Letters of a micro-batch with its padding and its views."""
    questions, answers, pictures = zip(*(sizes[index] for index in batch), strict=True)
    return len(batch) * (max(questions) + max(answers)) + sum(pictures)


def _every(items: Sequence[list[int]], number: int) -> list[list[int]]:
    """So many items, evenly spread; an item comes again where there are fewer."""
    return [items[int((n + 0.5) / number * len(items))] for n in range(number)]


@contextmanager
def _watched(loop: Loop, towers: Mapping[str, nn.Module]) -> Iterator[dict[str, Stopwatch]]:
    """Stopwatches that run while a tower looks, and while the optimizer works (`update`)."""
    watches = {name: Stopwatch() for name in (*towers, "update")}
    running: list[Any] = []

    def begin(name: str) -> None:
        running.append(watches[name].running())
        running[-1].__enter__()

    def end() -> None:
        running.pop().__exit__(None, None, None)

    handles: list[Any] = []
    for role, tower in towers.items():
        handles.append(tower.register_forward_pre_hook(lambda *_, role=role: begin(role)))
        handles.append(tower.register_forward_hook(lambda *_: end()))
    handles.append(loop.optimizer.register_step_pre_hook(lambda *_: begin("update")))
    handles.append(loop.optimizer.register_step_post_hook(lambda *_: end()))
    try:
        yield watches
    finally:
        for handle in handles:
            handle.remove()


def _probe(loop: Loop, indices: Sequence[int], done: float, watches: Mapping[str, Stopwatch]) -> Probe:
    """Train on a micro-batch as if so much of the run were done."""
    samples = [loop.setting.train[index] for index in indices]
    preparations = _forgetful(loop.setting.preparations)
    first, _ = _prepared(samples, preparations)
    text, batch = _prepared(samples, preparations)
    loop.state.step = int(done * loop.total)
    for watch in (loop.teaching, *watches.values()):
        watch.take()
    learning = _clock()
    step(loop, [batch])
    learning = _clock() - learning
    teacher, update = loop.teaching.take(), watches["update"].take()
    return Probe(
        samples=len(samples),
        tokens=batch.num_tokens,
        views=sum(1 for sample in samples for _ in views(sample, preparations["student"].reading)),
        pictures=len(_pictures(samples, preparations)),
        decoding=first - text,
        text=text,
        teacher=teacher,
        student=learning - teacher - update,
        vision={role: watch.take() for role, watch in watches.items() if role != "update"},
        update=update,
    )


def _clock() -> float:
    """Seconds, with nothing left to do on the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _prepared(samples: Sequence[Sample], preparations: dict[str, Preparation]) -> tuple[float, Batch]:
    begun = time.perf_counter()
    batch = collate(samples, preparations)
    return time.perf_counter() - begun, batch


def _forgetful(preparations: Mapping[str, Preparation]) -> dict[str, Preparation]:
    """The same with an empty cache of pictures, which the roles share as in the run."""
    pictures = PictureCache(10_000, next(iter(preparations.values())).pictures.change)
    return {role: replace(preparation, pictures=pictures) for role, preparation in preparations.items()}


# --- counting -------------------------------------------------------------------------------------------------------


def _pictures(samples: Sequence[Sample], preparations: Mapping[str, Preparation]) -> set[tuple[object, ...]]:
    """The pictures that a `PictureCache` would remember of some samples, as it tells them apart."""
    return {
        (path, region.box if region else None, _side(reading), reading.region_drawing, reading.jpeg_scale)
        for reading in _readings(preparations)
        for sample in samples
        for _, path, region in views(sample, reading)
    }


def _readings(preparations: Mapping[str, Preparation]) -> list[Reading]:
    """Ways of reading that lead to different pictures, of the roles that read any."""
    readings = (p.reading for p in preparations.values() if p.features is None)
    ways = {(_side(r), r.region_drawing, r.jpeg_scale, r.views): r for r in readings}
    return list(ways.values())


def _side(reading: Reading) -> int:
    """Of the square to which pictures are scaled; 0: they stay as they lie on disk."""
    return reading.image_size if reading.tiles == "one" else 0


def _bytes(path: str, side: int) -> int:
    """Of a decoded picture, scaled to a square or (0) as it lies on disk."""
    width, height = (side, side) if side else image_size(path)
    return 3 * width * height


def _decodes(loop: Loop) -> tuple[Decodes, int]:
    """How often an epoch decodes, and the bytes that its pictures take in memory once all that fit are remembered."""
    samples, preparations = loop.setting.train, loop.setting.preparations
    different = _pictures(samples, preparations)
    if not different:
        return Decodes(0.0, 0, 0), 0
    uses = sum(1 for reading in _readings(preparations) for sample in samples for _ in views(sample, reading))
    per_epoch = uses * loop.stream.epoch_size / len(samples)
    each = fmean(_bytes(str(key[0]), int(str(key[2]))) for key in islice(different, SOME_PICTURES))
    kept = int(loop.setting.recipe.data.image_cache_mb * 1e6 / each)
    seen = min(
        kept, int(Decodes(per_epoch, len(different), kept).first(min(1.0, loop.total / loop.stream.windows_per_epoch)))
    )
    return Decodes(per_epoch, len(different), kept), int(min(seen, len(different)) * each)
