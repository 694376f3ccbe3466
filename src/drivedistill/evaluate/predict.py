"""A model answers: samples in, `predictions.jsonl` out, one object per sample, resumable.

How an answer is made is named in every row:

    greedy, beam-4     `generate` on the model's own logits. Sampling settings and penalties that a published model
                       carries in its `generation_config.json` (Qwen2.5-VL: temperature, repetition penalty) do not apply.
    teacher_forced     argmax of every position given the true answer before it, positions after an end token included.
                       EM-VLM4AD's published way (eval.py); its scores look better than what the model would write by
                       itself, and it needs the reference.
    endpoint           whatever an OpenAI-compatible server does at temperature 0
    text_only          what a learner guesses from the question alone (`data/prior.py`)

`confidence` is the mean probability of the tokens that were written (not with beams). `extra` of a row holds `category` (of
the sample's region), `clip`, and `cut: true` where the model had not finished when it reached the limit. `latency_ms` stays
empty: answers made in batches have no latency of their own (`drivedistill bench` asks one at a time).
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from drivedistill.evaluate.endpoint import Answer, Answerer
from drivedistill.problems import InputError, Problem, RunError
from drivedistill.progress import Progress
from drivedistill.records import CLEAN, Prediction, Sample, lock, read_jsonl
from drivedistill.subject import model_folder

_FIRST_KEY = b'{"id":'
"""How a row begins that was written here."""


class How(NamedTuple):
    """Who answered in what way, for the rows of a file."""

    model: str
    decode: str
    condition: str = CLEAN

    def __str__(self) -> str:
        return f"{self.model} ({self.decode}{'' if self.condition == CLEAN else f', {self.condition} pictures'})"


def predict(
    samples: Sequence[Sample],
    answer: Answerer,
    out: Path,
    *,
    how: How,
    batch_size: int,
    since: float | None = None,
    limit: int | None = None,
) -> int:
    """Answer every sample that `out` does not hold yet; returns the number of new answers.

    Answers are appended in the order of `samples`, so an interrupted call and its repetition leave the file of an
    uninterrupted one. A batch is on the disk before the next one starts; a killed process loses at most one batch, and
    its half-written last line is removed.

    Args:
        samples: What to answer. Rows of other samples (a smaller `--limit`, another data set) stay in the file.
        answer: Answers a batch of samples.
        out: The JSONL file; locked, so that a second process that writes it is refused.
        how: Who answers in what way, for the rows.
        batch_size: Samples per batch.
        since: When the model was written (seconds since 1970, see `written_at`); older answers are refused.
        limit: Tokens of the longest answer; answers that were made with another one are refused.

    Raises:
        InputError: Ids occur twice, or `out` is in use, damaged, older than the model, or holds answers of another model,
            decoding or length or to other questions.
        RunError: A server failed. Answers so far are kept.
    """
    _refuse_repeated(samples)
    with out.open("ab") as file:
        lock(file, out)
        done = _done(samples, out, how, since, limit)
        todo = [sample for sample in samples if sample.id not in done]
        with Progress(len(samples), len(samples) - len(todo), word="answer") as progress:
            for start in range(0, len(todo), batch_size):
                batch = todo[start : start + batch_size]
                try:
                    answers = answer(batch)
                except RunError as error:
                    raise RunError(f"{error}; answers so far are kept in {out}, run again to go on") from error
                rows = [row_of(*pair, how) for pair in zip(batch, answers, strict=True)]
                file.write("".join(row.model_dump_json() + "\n" for row in rows).encode())
                file.flush()
                os.fsync(file.fileno())
                for _ in rows:
                    progress.advance()
    return len(todo)


def written_at(name: str) -> float | None:
    """When a model's weights were written, in seconds since 1970; None for a hub id."""
    files = list(Path(model_folder(name)).glob("*.safetensors"))
    return max(file.stat().st_mtime for file in files) if files else None


def row_of(sample: Sample, answer: Answer, how: How) -> Prediction:
    """The row of one answer."""
    shared: dict[str, Any] = {name: getattr(sample, name) for name in _SHARED}
    extra: dict[str, Any] = {"category": sample.region.category} if sample.region else {}
    extra |= {"clip": sample.extra["clip"]} if "clip" in sample.extra else {}
    return Prediction(
        **shared,
        reference=sample.answer,
        prediction=answer.text.encode("utf-8", "replace").decode(),  # a server may send lone surrogates
        **how._asdict(),
        tokens=answer.tokens,
        # Beyond some digits it depends on who else was in the batch.
        confidence=None if answer.confidence is None else round(min(answer.confidence, 1.0), 4),
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


def _done(samples: Sequence[Sample], out: Path, how: How, since: float | None, limit: int | None) -> set[str]:
    """Ids answered already, after removing a torn last line."""
    again = "remove the file, or choose another --out"
    if since is not None and out.stat().st_size and (changed := out.stat().st_mtime) < since:
        expected = f"answers of the model written {_clock(since)}"
        remedy = f"{again}; or `touch` it if the model is the same"
        raise InputError(Problem(str(out), "", expected, f"answers from {_clock(changed)}", remedy))
    _mend_last_line(out)
    rows = read_jsonl(out, Prediction)
    others = {How(row.model, row.decode, row.condition) for row in rows} - {how}
    if others:
        found = ", ".join(str(other) for other in sorted(others))
        raise InputError(Problem(str(out), "", f"answers of {how}", f"answers of {found}", again))
    lengths = sorted({row.tokens for row in rows if row.tokens is not None and _made_with_another(limit, row)})
    if lengths:
        found = f"answers of {', '.join(map(str, lengths[:5]))} tokens, made with another limit"
        raise InputError(Problem(str(out), "", f"answers of at most {limit} tokens, none cut before", found, again))
    asked = {sample.id: (sample.dataset, sample.question, sample.answer) for sample in samples}
    differ = [row.id for row in rows if asked.get(row.id, _asked(row)) != _asked(row)]
    if differ:
        found = f"{len(differ)} with another question, reference or data set, first {', '.join(differ[:5])}"
        raise InputError(Problem(str(out), "", "answers to these questions", found, again))
    return {row.id for row in rows}


def _asked(row: Prediction) -> tuple[str, str, str | None]:
    return row.dataset, row.question, row.reference


def _made_with_another(limit: int | None, row: Prediction) -> bool:
    """Whether an answer shows that another limit was set; one that ended by itself within this one would be the same."""
    # Teacher-forced answers are as long as their references; a server counts as it likes and may have limits of its own.
    if limit is None or row.tokens is None or row.decode in ("teacher_forced", "endpoint"):
        return False
    return row.tokens > limit or (bool(row.extra.get("cut")) and row.tokens != limit)


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
