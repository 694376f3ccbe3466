"""Somebody else's answers in the forms of DriveLM's challenge: `output.json` and `submission.json`.

    output.json      [{"id": "SCENE_FRAME_0", "question": "<image>\\n...", "gt_answer": "...", "answer": "..."}, ...]
    submission.json  {"method": "...", "team": "...", ..., "results": [{"id": ..., "question": ..., "answer": ...}, ...]}

`gt_answer` is not read: references come from the reference file alone, as in the official evaluation.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from drivedistill.problems import InputError, Problem, missing_file
from drivedistill.records import Prediction, Sample

ASKED = "asked"
"""Key of `Prediction.extra` for the submitted question, where it differs from the reference's."""

_FORM = "a list of {id, question, answer}, or an object with such a list under `results`"


def read_submission(path: Path, reference: Sequence[Sample]) -> list[Prediction]:
    """Read an `output.json` or `submission.json` against the samples that it answers.

    A question that differs from the reference's is kept in `extra["asked"]` and counted by the score: DriveLM draws
    its options without a seed, so a letter may have meant another option.

    Args:
        path: The file.
        reference: All samples that must be answered, with questions, answers and tags.

    Returns:
        One prediction for each sample, in the order of `reference`.

    Raises:
        InputError: The file is not of either form, or ids are unknown, missing or repeated; all are listed.
    """
    method, rows = _read_rows(path)
    by_id = {sample.id: sample for sample in reference}
    answers: dict[str, dict[str, Any]] = {}
    problems: list[Problem] = []
    for number, row in enumerate(rows):
        problem = _check_row(row, by_id, answers)
        if problem is None:
            answers[row["id"]] = row
        else:
            problems.append(Problem(str(path), f"results[{number}]", *problem))
    problems.extend(_missing(path, by_id, answers))
    if problems:
        raise InputError(problems)
    return [_prediction(sample, answers[sample.id], method) for sample in by_id.values()]


def _read_rows(path: Path) -> tuple[str, list[Any]]:
    if not path.is_file():
        raise InputError(missing_file(path, "a DriveLM submission", "check the path"))
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(Problem(str(path), "", "a JSON file", str(error), "write the file again")) from None
    method = path.stem
    if isinstance(value, dict):
        method = str(value.get("method") or method)
        value = value.get("results")
    if not isinstance(value, list):
        raise InputError(Problem(str(path), "", _FORM, f"a JSON {type(value).__name__}", "use either form"))
    return method, value


def _check_row(row: Any, samples: dict[str, Sample], seen: dict[str, dict[str, Any]]) -> tuple[str, str, str] | None:
    """Expected, found and remedy of a bad row."""
    if not isinstance(row, dict) or not isinstance(row.get("id"), str) or not isinstance(row.get("answer"), str):
        return "an object with the texts `id` and `answer`", _short(row), "correct the entry"
    if row["id"] not in samples:
        return "an id of the reference", f"unknown id {row['id']}", "check the split, or remove the entry"
    if row["id"] in seen:
        return "one answer for each id", f"id {row['id']} again", "remove one of the answers"
    return None


def _missing(path: Path, samples: dict[str, Sample], answers: dict[str, Any]) -> Iterable[Problem]:
    for identifier in samples.keys() - answers.keys():
        remedy = "answer every question; an empty answer is allowed"
        yield Problem(str(path), identifier, "an answer for each question of the reference", "none", remedy)


def _prediction(sample: Sample, row: dict[str, Any], method: str) -> Prediction:
    asked = row.get("question")
    asked = asked.replace("<image>\n", "").strip() if isinstance(asked, str) else sample.question.strip()
    return Prediction(
        id=sample.id,
        dataset=sample.dataset,
        scene=sample.scene,
        frame=sample.frame,
        split=sample.split,
        regime=sample.regime,
        task=sample.task,
        question=sample.question,
        reference=sample.answer,
        prediction=row["answer"],
        tags=sample.tags,
        model=method,
        decode="unknown",
        extra={ASKED: asked} if asked != sample.question.strip() else {},
    )


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:117]}..."
