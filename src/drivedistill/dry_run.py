"""`--dry-run`: what a recipe would do, before it does it."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from drivedistill.batch import Batch
from drivedistill.cost import Cost
from drivedistill.data.collate import collate
from drivedistill.data.mixture import corner_draws, regime_ratio
from drivedistill.distill.cache import Tower, views_of
from drivedistill.distill.lessons import Course, Lessons
from drivedistill.distill.likeliest import token_type
from drivedistill.distill.miner import Plan
from drivedistill.distill.objective import Moment
from drivedistill.distill.teacher import CachedTeacher, LiveTeacher
from drivedistill.distill.teachers import speaker
from drivedistill.machine import kept_bytes
from drivedistill.models.parameters import count_parameters
from drivedistill.preflight import frozen_towers, measure
from drivedistill.recipe import Recipe
from drivedistill.runs import Parts, assemble
from drivedistill.subject import method
from drivedistill.train import total_steps, train_stream


def describe(recipe: Recipe) -> str:
    """Counts, shapes, one sample with its supervised tokens in brackets, memory and time, as text."""
    parts = assemble(recipe)
    train = parts.splits["train"]
    batch = collate(train[: recipe.train.batch_size], parts.setting.preparations)
    sections = [
        _counts(recipe, parts),
        _shapes(batch),
        _sample(parts, collate(train[:1], parts.setting.preparations)),
        _memory(recipe, parts, batch),
    ]
    if recipe.train.steps != 0:
        cost = measure(recipe, parts)  # comes last: it may close a teacher that the run closes on its way
        sections += [_peak(cost), _time(cost), *_caches(recipe, parts, cost)]
    return "\n\n".join(sections)


def _counts(recipe: Recipe, parts: Parts) -> str:
    regular, corner = regime_ratio(parts.splits["train"])
    ratio = f"{regular / corner:.1f}:1" if corner else "no corner cases"
    if drawn := corner_draws(regular, corner, recipe.data.corner_ratio):
        ratio += f"; {drawn:,} corner questions drawn per epoch, {regular / drawn:.1f}:1"
    student = count_parameters(parts.student.model)
    lines = [
        f"recipe          {recipe.name}",
        *(f"questions       {len(samples):>10,}  {name}" for name, samples in parts.splits.items()),
        f"regular:corner  {regular:,}:{corner:,} ({ratio})",
        f"student         {student['total']:>13,} parameters, {student['trainable']:,} trainable",
    ]
    if student["activated"] < student["total"]:
        lines.append(f"  for a token   {student['activated']:>13,} of them, since not all experts run")
    for role, subject in parts.faculty.subjects.items():
        total = count_parameters(subject.model)["total"]
        lines.append(f"{role:15} {total:>13,} parameters ({subject.name})")
    steps = total_steps(recipe, train_stream(recipe, parts.splits["train"], 1))
    lines.append(f"steps           {steps:>10,}  (one process)")
    first, *others = method(recipe)
    lines += [f"method          {first}", *(f"                {words}" for words in others)]
    if isinstance(parts.setting.objective, Lessons):
        lines += [_lesson(name, found, parts) for name, found in parts.setting.objective.courses.items()]
    if isinstance(said := speaker(parts.setting.teacher), CachedTeacher):
        absent = next(parts.faculty.subjects["teacher"].model.parameters()).is_meta
        loaded = "the teacher's weights are not loaded" if absent else "its full maps and hidden states are live"
        lines.append(f"teacher cache   {said.store.folder.parent}; {loaded}")
    if recipe.data.vision_cache is not None:
        roles = {"student": parts.student, "teacher": parts.teacher}
        readers = [role for role, subject in roles.items() if subject and subject.preparation.features is not None]
        lines.append(f"vision cache    {recipe.data.vision_cache}, read by {' and '.join(readers)}")
    return "\n".join(lines)


def _lesson(name: str, found: Course, parts: Parts) -> str:
    """What a capability's lesson is, and which layer follows which."""
    what = "hidden states" if found.lesson.signal == "hidden" else f"{found.lesson.block.replace('_', ' ')} maps"
    pairs = [(ours, group[0], group[-1]) for ours, group in found.groups.items()]
    shown = [f"{ours} after {first}" + (f"-{last}" if last > first else "") for ours, first, last in pairs]
    shown = shown if len(shown) < 4 else [shown[0], shown[1], "...", shown[-1]]
    return f"lesson          {name}: {what}, layers {', '.join(shown)} of {parts.faculty.roles[name]}"


def _shapes(batch: Batch) -> str:
    lines = [f"first micro-batch: {batch.num_samples} samples, {batch.num_tokens} supervised tokens"]
    for role, inputs in batch.inputs.items():
        lines += [f"  {role}.{name:24} {tuple(value.shape)!s:24} {value.dtype}" for name, value in inputs.model.items()]
        lines.append(f"  {role}.{'targets':24} {tuple(inputs.targets.shape)!s:24} {inputs.targets.dtype}")
    return "\n".join(lines)


def _memory(recipe: Recipe, parts: Parts, batch: Batch) -> str:
    """Weights, gradients and moments are counted; activations are what autograd keeps of one real forward."""
    student = parts.setting.student
    trainable = [p for p in student.parameters() if p.requires_grad]
    bytes_of = {
        "weights": sum(p.numel() * p.element_size() for p in student.parameters()),
        "gradients": _sets_of_gradients(recipe, parts) * sum(p.numel() * p.element_size() for p in trainable),
        "optimizer": 2 * sum(p.numel() * p.element_size() for p in trainable),
        "activations": _activations(parts, batch),
    }
    for role, subject in parts.faculty.subjects.items():
        if not next(subject.model.parameters()).is_meta:
            bytes_of[role] = sum(p.numel() * p.element_size() for p in subject.model.parameters())
    loaders = max(1, recipe.data.workers)
    bytes_of[f"pictures ({loaders} cache{'s' if loaders > 1 else ''})"] = (
        loaders * recipe.data.image_cache_mb * 1_000_000
    )
    total = sum(bytes_of.values())
    lines = [f"  {name:26} {value / 1e6:>10,.1f} MB" for name, value in bytes_of.items()]
    return "\n".join(["memory per process (estimate)", *lines, f"  {'sum':26} {total / 1e6:>10,.1f} MB"])


def _sets_of_gradients(recipe: Recipe, parts: Parts) -> int:
    """One; with projection one per task, and one more for what samples add up to."""
    drivekd = recipe.distill.drivekd
    if drivekd is None or drivekd.projection is None:
        return 1
    return 1 + len(parts.setting.objective.followers) + (drivekd.projection.per == "sample")


def _activations(parts: Parts, batch: Batch) -> int:
    """Bytes that autograd keeps for the backward pass of one micro-batch."""
    setting, moment = parts.setting, Moment(total=1, alpha=parts.setting.recipe.distill.weight)
    student, objective = setting.student.train(), setting.objective
    needs = objective.asks(batch, moment)
    signal = setting.teacher.signal(batch, needs) if setting.teacher and needs else None
    return kept_bytes(student, lambda: objective(student(batch, objective.wants), signal, batch, moment, Plan()))


def _peak(cost: Cost) -> str:
    where = "allocated on the GPU" if torch.cuda.is_available() else "resident, with Python and its libraries"
    beside = f"; {cost.workers} workers come on top" if cost.workers else ""
    return f"memory at its peak (measured)  {1000 * cost.peak_gb:,.1f} MB {where}{beside}"


def _time(cost: Cost) -> str:
    """Seconds of a step with its parts, of the first epoch and of all steps."""
    epoch = max(1.0, cost.per_epoch)
    low, high = cost.spread
    parts = {
        "pictures and text": cost.preparing(epoch) / epoch,
        "teacher": cost.accumulate * cost.mean("teacher"),
        "student": cost.accumulate * cost.mean("student"),
        "optimizer": cost.mean("update"),
    }
    lines = [f"time ({len(cost.probes)} micro-batches tried; without validation and saving)"]
    lines += [f"  {name:26} {1000 * seconds:>10,.1f} ms" for name, seconds in parts.items()]
    beside = ", pictures and text beside it" if cost.workers else ""
    lines += [
        f"  {'step':26} {1000 * cost.seconds(epoch) / epoch:>10,.1f} ms  ({low:+.0%} to {high:+.0%} by size{beside})",
        f"  {'first epoch':26} {cost.seconds(cost.per_epoch):>10,.1f} s   {cost.per_epoch:,.1f} steps",
        f"  {'all steps':26} {cost.seconds(cost.total):>10,.1f} s   {cost.total:,}",
    ]
    return "\n".join(lines)


def _caches(recipe: Recipe, parts: Parts, cost: Cost) -> list[str]:
    """What is computed again and again although it never changes."""
    lines = []
    read = [*parts.splits["train"], *parts.splits.get("val", [])]
    if towers := frozen_towers(parts):
        subjects = {"student": parts.student, "teacher": parts.teacher}
        stores = {
            Tower(tower, subject.preparation, recipe.train.precision).store(Path(), "float32")
            for role, tower in towers.items()
            if (subject := subjects[role]) is not None
        }  # roles with the same tower share its rows
        count = len(views_of(read))
        megabytes = count * sum(store.row_bytes for store in stores) / 1e6
        built = cost.building_vision(count) * len(stores) / len(towers)
        what = f"vision of {' and '.join(towers)} (data.vision_cache)"
        lines.append(_saving(what, cost.saved_by_vision_cache(), megabytes, built))
    if isinstance(parts.setting.teacher, LiveTeacher) and recipe.distill.signal == "answers":
        train = len(parts.splits["train"])
        row = token_type(64, len(parts.student.preparation.tokenizer)).itemsize
        megabytes = train * cost.tokens_of_a_sample * row / 1e6
        saved, built = cost.saved_by_teacher_cache(), cost.building_teacher(train)
        lines.append(_saving("answers of the teacher (distill.teacher_cache)", saved, megabytes, built))
    return ["\n".join(["caches would save", *lines])] if lines else []


def _saving(what: str, seconds: float, megabytes: float, built: float) -> str:
    return f"  {what}: {seconds:,.1f} s of the first epoch; {megabytes:,.1f} MB, built in about {built:,.1f} s"


def _sample(parts: Parts, batch: Batch) -> str:
    """One sample as the student sees it: supervised tokens in brackets, a run of image tokens as one word."""
    preparation = parts.student.preparation
    inputs, tokenizer = batch.role("student"), preparation.tokenizer
    read = inputs.model["input_ids"][0].tolist()
    lines = [f"sample {batch.ids[0]}", f"  pictures    {', '.join(parts.splits['train'][0].images)}"]
    if preparation.reading.family == "driving_t5":
        learnt = "".join(f"[{_visible(tokenizer, token)}]" for token in batch.gold.tolist())
        return "\n".join([*lines, f"  reads       {tokenizer.decode(read)}", f"  supervised  {learnt}"])
    supervised = {int(row) + 1 for row in inputs.rows}  # a row predicts the token after it
    words: list[str] = []
    for image, run in groupby(enumerate(read), key=lambda item: item[1] == preparation.processor.image_token_id):
        tokens = list(run)
        if image:
            words.append(f"{_visible(tokenizer, tokens[0][1])} x {len(tokens)}")
        else:
            shown = ((_visible(tokenizer, token), position in supervised) for position, token in tokens)
            words.append("".join(f"[{text}]" if marked else text for text, marked in shown))
    return "\n".join([*lines, f"  reads, [supervised]  {''.join(words)}"])


def _visible(tokenizer: Any, token: int) -> str:
    return str(tokenizer.decode([token])).replace("\n", "\\n")
