"""A model of ours answers: a batch of samples in, texts out. See `predict` for the ways in which answers are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from drivedistill.batch import ROW_KINDS
from drivedistill.data.choices import asked_openly, letter_of
from drivedistill.data.collate import collate, questions, refuse_long, refuse_unlabelled
from drivedistill.data.images import Change, PictureCache
from drivedistill.data.points import picture_size
from drivedistill.data.prompt import POINT, decode, to_pixels
from drivedistill.evaluate.decoding import Decoding
from drivedistill.evaluate.endpoint import Answer, Answerer
from drivedistill.evaluate.seen_views import SeenViews
from drivedistill.evaluate.writing import Engine, Writer, generation_settings, writer
from drivedistill.models.decode import Written
from drivedistill.models.student import Student, bare
from drivedistill.records import Sample
from drivedistill.subject import Subject, load_subject


def local_answerer(
    name: str,
    decoding: Decoding,
    samples: Sequence[Sample],
    *,
    cache_mb: int = 512,
    change: Change | None = None,
    blind: bool = False,
    engine: Engine = "eager",
) -> Answerer:
    """Answers by a run, a directory or a hub id.

    Args:
        name: The run, directory or hub id.
        decoding: How answers are made.
        samples: What will be asked: checked now, not at question 30,000.
        cache_mb: Bound on decoded pictures kept in memory, in megabytes.
        change: Made to every picture; see `data/condition.py`.
        blind: Show no picture.
        engine: See `writing.py`.

    Raises:
        InputError: The model cannot be loaded, texts are too long for it, or answers are missing that `teacher_forced`
            needs; all of them listed.
    """
    if decoding.teacher_forced:
        refuse_unlabelled(samples)
    subject = load_subject(name, PictureCache(cache_mb, change))
    return subject_answerer(subject, decoding, samples, blind=blind, engine=engine)


def subject_answerer(
    subject: Subject,
    decoding: Decoding,
    samples: Sequence[Sample],
    *,
    blind: bool = False,
    engine: Engine = "eager",
) -> Answerer:
    """As `local_answerer`, by a model that is loaded already; its pictures are those of `subject.preparation`."""
    subject = replace(subject, preparation=replace(subject.preparation, blind=blind))
    given = samples if decoding.teacher_forced else [sample.model_copy(update={"answer": None}) for sample in samples]
    refuse_long(given, subject.preparation)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    subject.model.eval().to(device)
    if decoding.teacher_forced:
        return partial(teacher_forced, subject, device)
    if subject.preparation.features is None and subject.preparation.reading.family == "driving_t5":
        features = SeenViews(bare(subject.model).vision, subject.preparation)
        subject = replace(subject, preparation=replace(subject.preparation, features=features))
    return partial(written, subject, decoding, writer(subject, decoding, engine), device)


def written(
    subject: Subject, decoding: Decoding, write: Writer, device: torch.device, batch: Sequence[Sample]
) -> list[Answer]:
    """Answers as they are written, with the mean probability of their tokens where decoding is greedy."""
    if isinstance(subject.preparation.features, SeenViews) and not subject.preparation.blind:
        subject.preparation.features.look(batch)
    return read_answers(subject, decoding, batch, write(model_inputs(subject, device, batch), None))


def model_inputs(subject: Subject, device: torch.device, batch: Sequence[Sample]) -> dict[str, Tensor]:
    """The tensors of a batch of questions on the model's device, pictures in the precision of its weights.

    Points stay float32: bfloat16 would move them by up to 3 pixels of 1600.
    """
    precision = subject.model.dtype
    return {
        key: value.to(device, precision if value.is_floating_point() and key != "points" else None)
        for key, value in questions(batch, subject.preparation).items()
    }


def read_answers(subject: Subject, decoding: Decoding, batch: Sequence[Sample], written: Written) -> list[Answer]:
    """The answers in what was written for B questions; the decoding says what ends one."""
    tokens = written.tokens.cpu()
    sure = None if written.probabilities is None else written.probabilities.cpu()
    ends = torch.tensor(generation_settings(subject, decoding).eos_token_id)
    answers = []
    for b, (sample, ids) in enumerate(zip(batch, tokens, strict=True)):
        end = torch.isin(ids, ends).nonzero()
        length = int(end[0]) + 1 if len(end) else len(ids)
        confidence = None if sure is None else float(sure[b, :length].mean())
        answers.append(Answer(_text(subject, sample, ids[:length]), length, cut=not len(end), confidence=confidence))
    return answers


def teacher_forced(subject: Subject, device: torch.device, batch: Sequence[Sample]) -> list[Answer]:
    """The likeliest token of every position, given the true answer before it."""
    prepared = collate(batch, {"student": subject.preparation}).to(device)
    with torch.inference_mode():
        sure, best = Student(subject.model)(prepared).logits.float().softmax(dim=-1).max(dim=-1)
    words = prepared.row_kind != ROW_KINDS.index("template")
    rows = [(prepared.sample_of_row == b) & words for b in range(len(batch))]
    return [
        Answer(_text(subject, sample, best[mine]), int(mine.sum()), confidence=float(sure[mine].mean()))
        for sample, mine in zip(batch, rows, strict=True)
    ]


def _text(subject: Subject, sample: Sample, ids: Tensor) -> str:
    """Words of token ids as the data set writes answers: points in pixels, the chosen option as a letter.

    A point in a camera that the sample lacks stays as it is, and so does a text that names no option or that answers a
    question which was read with its options.
    """
    text = decode(subject.preparation.tokenizer, ids).strip()
    reading = subject.preparation.reading
    if reading.coordinates == "unit":
        size = partial(picture_size, sample)
        text = POINT.sub(lambda m: to_pixels(m[0], size) if m[2] in sample.images else m[0], text)
    openly = reading.choices == "words" and asked_openly(sample.question) != sample.question
    return letter_of(sample.question, text) if openly else text
