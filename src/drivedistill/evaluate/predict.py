"""A model answers: samples in, `predictions.jsonl` out, one object per sample, resumable.

How an answer is made is named in every row:

    greedy, beam-4     `generate` on the model's own logits. Sampling settings and penalties that a published model
                       carries in its `generation_config.json` (Qwen2.5-VL: temperature, repetition penalty) do not apply.
    teacher_forced     argmax of every position given the true answer before it, positions after an end token included.
                       EM-VLM4AD's published way (eval.py); its scores look better than what the model would write by
                       itself, and it needs the reference.
    endpoint           whatever an OpenAI-compatible server does at temperature 0

`extra` of a row holds `category` (of the sample's region) and `cut: true` where the model had not finished when it
reached the limit. `latency_ms` stays empty: answers made in batches have no latency of their own.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from drivedistill.data.collate import collate, picture_size, questions, refuse_long, refuse_unlabelled
from drivedistill.data.images import PictureCache
from drivedistill.data.prompt import POINT, decode, to_pixels
from drivedistill.evaluate.decoding import Decoding
from drivedistill.evaluate.endpoint import Answer, Answerer
from drivedistill.models.student import Student
from drivedistill.problems import InputError, Problem, RunError
from drivedistill.progress import Progress
from drivedistill.records import Prediction, Sample, lock, read_jsonl
from drivedistill.subject import Subject, load_subject, model_folder

_FIRST_KEY = b'{"id":'
"""How a row begins that was written here."""


def predict(
    samples: Sequence[Sample],
    answer: Answerer,
    out: Path,
    *,
    model: str,
    decode: str,
    batch_size: int,
    since: float | None = None,
) -> int:
    """Answer every sample that `out` does not hold yet; returns the number of new answers.

    Answers are appended in the order of `samples`, so an interrupted call and its repetition leave the file of an
    uninterrupted one. A batch is on the disk before the next one starts; a killed process loses at most one batch, and
    its half-written last line is removed.

    Args:
        samples: What to answer. Rows of other samples (a smaller `--limit`, another data set) stay in the file.
        answer: Answers a batch of samples.
        out: The JSONL file; locked, so that a second process that writes it is refused.
        model: Name for the rows.
        decode: Name for the rows.
        batch_size: Samples per batch.
        since: When the model was written (seconds since 1970, see `written_at`); older answers are refused.

    Raises:
        InputError: Ids occur twice, or `out` is in use, damaged, older than the model, or holds answers of another model
            or decoding or to other questions.
        RunError: A server failed. Answers so far are kept.
    """
    _refuse_repeated(samples)
    with out.open("ab") as file:
        lock(file, out)
        done = _done(samples, out, model, decode, since)
        todo = [sample for sample in samples if sample.id not in done]
        with Progress(len(samples), len(samples) - len(todo), word="answer") as progress:
            for start in range(0, len(todo), batch_size):
                batch = todo[start : start + batch_size]
                try:
                    answers = answer(batch)
                except RunError as error:
                    raise RunError(f"{error}; answers so far are kept in {out}, run again to go on") from error
                rows = [_row(*pair, model, decode) for pair in zip(batch, answers, strict=True)]
                file.write("".join(row.model_dump_json() + "\n" for row in rows).encode())
                file.flush()
                os.fsync(file.fileno())
                for _ in rows:
                    progress.advance()
    return len(todo)


def local_answerer(name: str, decoding: Decoding, samples: Sequence[Sample], *, cache_mb: int = 512) -> Answerer:
    """Answers by a run, a directory or a hub id.

    Args:
        name: The run, directory or hub id.
        decoding: How answers are made.
        samples: What will be asked: checked now, not at question 30,000.
        cache_mb: Bound on decoded pictures kept in memory, in megabytes.

    Raises:
        InputError: The model cannot be loaded, texts are too long for it, or answers are missing that `teacher_forced`
            needs; all of them listed.
    """
    if decoding.teacher_forced:
        refuse_unlabelled(samples)
    subject = load_subject(name, PictureCache(cache_mb))
    given = samples if decoding.teacher_forced else [sample.model_copy(update={"answer": None}) for sample in samples]
    refuse_long(given, subject.preparation)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    subject.model.eval().to(device)
    if decoding.teacher_forced:
        return partial(_teacher_forced, subject, device)
    return partial(_generated, subject, _settings(subject, decoding), device)


def written_at(name: str) -> float | None:
    """When a model's weights were written, in seconds since 1970; None for a hub id."""
    files = list(Path(model_folder(name)).glob("*.safetensors"))
    return max(file.stat().st_mtime for file in files) if files else None


# --- answers ----------------------------------------------------------------------------------------------------------


def _settings(subject: Subject, decoding: Decoding) -> GenerationConfig:
    """Nothing of the model's own settings but its special tokens."""
    own, tokenizer = subject.model.generation_config, subject.preparation.tokenizer
    ends = own.eos_token_id if isinstance(own.eos_token_id, list) else [own.eos_token_id]
    return GenerationConfig(
        max_new_tokens=decoding.max_new_tokens,
        num_beams=decoding.beams,
        do_sample=False,
        use_cache=True,
        # Training ends an answer with the tokenizer's end token, whatever the published model did.
        eos_token_id=sorted({end for end in [*ends, tokenizer.eos_token_id] if end is not None}),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=own.bos_token_id,
        decoder_start_token_id=own.decoder_start_token_id,
    )


def _generated(
    subject: Subject, settings: GenerationConfig, device: torch.device, batch: Sequence[Sample]
) -> list[Answer]:
    preparation = subject.preparation
    inputs = {key: value.to(device) for key, value in questions(batch, preparation).items()}
    prompt_length = 1 if preparation.reading.family == "driving_t5" else inputs["input_ids"].shape[1]
    # `generate` fills gaps of a given configuration from the model's own, so the model's own is replaced.
    subject.model.generation_config = settings
    with torch.inference_mode():
        written = subject.model.generate(**inputs).cpu()
    ends = torch.tensor(settings.eos_token_id)
    answers = []
    for sample, ids in zip(batch, written[:, prompt_length:], strict=True):
        end = torch.isin(ids, ends).nonzero()
        length = int(end[0]) + 1 if len(end) else len(ids)
        answers.append(Answer(_text(subject, sample, ids[:length]), length, cut=not len(end)))
    return answers


def _teacher_forced(subject: Subject, device: torch.device, batch: Sequence[Sample]) -> list[Answer]:
    prepared = collate(batch, {"student": subject.preparation}).to(device)
    with torch.inference_mode():
        best = Student(subject.model)(prepared).logits.argmax(dim=-1)
    parts = [best[prepared.sample_of_row == b] for b in range(len(batch))]
    return [Answer(_text(subject, sample, ids), len(ids)) for sample, ids in zip(batch, parts, strict=True)]


def _text(subject: Subject, sample: Sample, ids: Tensor) -> str:
    """Words of token ids, points in pixels; a point in a camera that the sample lacks stays as it is."""
    text = decode(subject.preparation.tokenizer, ids).strip()
    if subject.preparation.reading.coordinates == "pixel":
        return text
    size = partial(picture_size, sample)
    return POINT.sub(lambda m: to_pixels(m[0], size) if m[2] in sample.images else m[0], text)


def _row(sample: Sample, answer: Answer, model: str, decode: str) -> Prediction:
    shared: dict[str, Any] = {name: getattr(sample, name) for name in _SHARED}
    extra: dict[str, Any] = {"category": sample.region.category} if sample.region else {}
    return Prediction(
        **shared,
        reference=sample.answer,
        prediction=answer.text.encode("utf-8", "replace").decode(),  # a server may send lone surrogates
        model=model,
        decode=decode,
        tokens=answer.tokens,
        extra=extra | ({"cut": True} if answer.cut else {}),
    )


_SHARED = (Prediction.model_fields.keys() & Sample.model_fields.keys()) - {"extra"}


# --- the file -----------------------------------------------------------------------------------------------------


def _refuse_repeated(samples: Sequence[Sample]) -> None:
    counts = Counter(sample.id for sample in samples)
    repeated = [id for id, count in counts.items() if count > 1]
    if repeated:
        found = f"{len(repeated)} ids more than once, first {', '.join(repeated[:5])}"
        remedy = "give every sample its own id: answers are found by it"
        raise InputError(Problem(samples[0].dataset, "id", "every id once", found, remedy))


def _done(samples: Sequence[Sample], out: Path, model: str, decode: str, since: float | None) -> set[str]:
    """Ids answered already, after removing a torn last line."""
    again = "remove the file, or choose another --out"
    if since is not None and out.stat().st_size and (changed := out.stat().st_mtime) < since:
        expected = f"answers of the model written {_clock(since)}"
        remedy = f"{again}; or `touch` it if the model is the same"
        raise InputError(Problem(str(out), "", expected, f"answers from {_clock(changed)}", remedy))
    _mend_last_line(out)
    rows = read_jsonl(out, Prediction)
    others = {(row.model, row.decode) for row in rows} - {(model, decode)}
    if others:
        found = ", ".join(f"{m} ({d})" for m, d in sorted(others))
        raise InputError(Problem(str(out), "", f"answers of {model} ({decode})", f"answers of {found}", again))
    asked = {sample.id: (sample.dataset, sample.question, sample.answer) for sample in samples}
    differ = [row.id for row in rows if asked.get(row.id, _asked(row)) != _asked(row)]
    if differ:
        found = f"{len(differ)} with another question, reference or data set, first {', '.join(differ[:5])}"
        raise InputError(Problem(str(out), "", "answers to these questions", found, again))
    return {row.id for row in rows}


def _asked(row: Prediction) -> tuple[str, str, str | None]:
    return row.dataset, row.question, row.reference


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).isoformat(" ", "seconds")


def _mend_last_line(out: Path) -> None:
    """Remove a row of ours that a killed process left half-written; what others wrote is left for the reader to judge."""
    content = out.read_bytes()
    tail = content[content.rfind(b"\n") + 1 :]
    if _is_json(tail):
        with out.open("ab") as file:
            file.write(b"\n")
    elif tail and (tail.startswith(_FIRST_KEY) or _FIRST_KEY.startswith(tail)):
        os.truncate(out, len(content) - len(tail))


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
