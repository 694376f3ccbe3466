"""A model answers: samples in, `predictions.jsonl` out, one object per sample, resumable.

How an answer is made is named in every row:

    greedy, beam-4     `generate`, as a deployed model answers
    teacher_forced     argmax of every position given the true answer before it. EM-VLM4AD's published way (eval.py); its
                       scores look better than what the model would write by itself, and need the reference.
    endpoint           whatever an OpenAI-compatible server does at temperature 0
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from drivedistill.build import Subject, load_subject
from drivedistill.data.collate import collate, picture_size, questions
from drivedistill.data.images import PictureCache
from drivedistill.data.prompt import decode, to_pixels
from drivedistill.models.student import Student
from drivedistill.problems import InputError, Problem
from drivedistill.progress import Progress
from drivedistill.records import Prediction, Sample, read_jsonl

Answer = tuple[str, int | None]
"""Text, and the number of tokens it took."""
Answerer = Callable[[Sequence[Sample]], list[Answer]]


@dataclass(frozen=True)
class Decoding:
    """How answers are made."""

    teacher_forced: bool = False
    beams: int = 1
    max_new_tokens: int = 256

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


def predict(samples: Sequence[Sample], answer: Answerer, out: Path, *, model: str, decode: str, batch_size: int) -> int:
    """Answer every sample that `out` does not hold yet; returns the number of new answers.

    A row is on the disk before the next batch starts, so a killed process loses one batch. Its torn last line is removed.

    Args:
        samples: What to answer.
        answer: Answers a batch of samples.
        out: The JSONL file.
        model: Name for the rows.
        decode: Name for the rows.
        batch_size: Samples per batch.

    Raises:
        InputError: `out` holds answers of another model or decoding, or damaged lines.
    """
    done = _done(out, model, decode)
    todo = [sample for sample in samples if sample.id not in done]
    with out.open("a", encoding="utf-8") as file, Progress(len(samples), len(done), word="answer") as progress:
        for start in range(0, len(todo), batch_size):
            batch = todo[start : start + batch_size]
            for sample, (text, tokens) in zip(batch, answer(batch), strict=True):
                file.write(_row(sample, text, tokens, model, decode).model_dump_json() + "\n")
                progress.advance()
            file.flush()
            os.fsync(file.fileno())
    return len(todo)


def local_answerer(name: str, decoding: Decoding, *, cache_mb: int = 512) -> Answerer:
    """Answers by a run, a directory or a hub id."""
    subject = load_subject(name, PictureCache(cache_mb))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    subject.model.eval().to(device)
    make = _teacher_forced if decoding.teacher_forced else _generated
    return partial(make, subject, decoding, device)


def _generated(subject: Subject, decoding: Decoding, device: torch.device, batch: Sequence[Sample]) -> list[Answer]:
    preparation = subject.preparation
    inputs = {key: value.to(device) for key, value in questions(batch, preparation).items()}
    prompt_length = 1 if preparation.reading.family == "driving_t5" else inputs["input_ids"].shape[1]
    with torch.inference_mode():
        written = subject.model.generate(
            **inputs,
            max_new_tokens=decoding.max_new_tokens,
            num_beams=decoding.beams,
            do_sample=False,
            pad_token_id=preparation.tokenizer.pad_token_id,
        )
    return [_answer(subject, sample, ids[prompt_length:]) for sample, ids in zip(batch, written, strict=True)]


def _teacher_forced(
    subject: Subject, decoding: Decoding, device: torch.device, batch: Sequence[Sample]
) -> list[Answer]:
    prepared = collate(batch, {"student": subject.preparation}).to(device)
    with torch.inference_mode():
        best = Student(subject.model)(prepared).logits.argmax(dim=-1)
    return [_answer(subject, sample, best[prepared.sample_of_row == b]) for b, sample in enumerate(batch)]


def _answer(subject: Subject, sample: Sample, ids: torch.Tensor) -> Answer:
    """Text up to the end token, points in pixels; tokens counted with the end token."""
    tokenizer = subject.preparation.tokenizer
    end = (ids == tokenizer.eos_token_id).nonzero()
    length = int(end[0]) + 1 if len(end) else int((ids != tokenizer.pad_token_id).sum())
    text = decode(tokenizer, ids[:length])
    if subject.preparation.reading.coordinates == "unit":
        text = to_pixels(text, lambda camera: _size_or_unit(sample, camera))
    return text.strip(), length


def _size_or_unit(sample: Sample, camera: str) -> tuple[int, int]:
    """A model may name a camera that the sample lacks; such a point stays as it is."""
    return picture_size(sample, camera) if camera in sample.images else (1, 1)


def _row(sample: Sample, text: str, tokens: int | None, model: str, decode: str) -> Prediction:
    shared = {name: getattr(sample, name) for name in Prediction.model_fields.keys() & Sample.model_fields.keys()}
    shared["extra"] = {"category": sample.region.category} if sample.region else {}
    return Prediction(**shared, reference=sample.answer, prediction=text, model=model, decode=decode, tokens=tokens)


def _done(out: Path, model: str, decode: str) -> set[str]:
    """Ids answered already, after removing a torn last line."""
    if not out.exists():
        return set()
    _drop_torn_line(out)
    rows = read_jsonl(out, Prediction)
    others = {(row.model, row.decode) for row in rows} - {(model, decode)}
    if others:
        found = ", ".join(f"{m} ({d})" for m, d in sorted(others))
        remedy = "choose another --out, or remove the file"
        raise InputError(Problem(str(out), "", f"answers of {model} ({decode})", f"answers of {found}", remedy))
    return {row.id for row in rows}


def _drop_torn_line(out: Path) -> None:
    with out.open("rb+") as file:
        content = file.read()
        end = content.rfind(b"\n") + 1
        tail = content[end:]
        if tail and not _is_json(tail):
            file.truncate(end)
        elif tail:
            file.write(b"\n")


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
