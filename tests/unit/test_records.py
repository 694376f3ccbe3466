"""Rows and their files: exact round trip, every bad line listed, all or nothing on disk."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivedistill.problems import InputError, Problem
from drivedistill.records import CAPABILITY, Prediction, Sample, Score, read_jsonl, write_json, write_jsonl, write_text

ODD = [
    "line\u2028separator\u2029",
    "emoji \U0001f6d1\U0001f3fd",
    "a\nb\r\nc\x85d\x0b",
    "\0\x7f",
    "ä ",
    '"\\/',
    "",
    " ",
    "\ufeff",
]


def row(**changes) -> Prediction:
    fields = {
        "id": "a",
        "dataset": "drawn",
        "scene": "s",
        "frame": "f",
        "split": "val",
        "regime": "regular",
        "task": "planning",
        "question": "What now?",
        "reference": "Stop.",
        "prediction": "Go.",
        "model": "m",
        "decode": "greedy",
    }
    return Prediction(**(fields | changes))


@pytest.mark.parametrize("text", ODD)
def test_odd_text_survives_the_file_and_stays_on_one_line(tmp_path, text):
    rows = [row(prediction=text), row(id="b", reference=text, extra={text: [text]})]
    assert write_jsonl(tmp_path / "x.jsonl", rows) == 2
    assert read_jsonl(tmp_path / "x.jsonl", Prediction) == rows
    assert (tmp_path / "x.jsonl").read_bytes().count(b"\n") == 2


@settings(max_examples=50, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_the_file(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("any") / "x.jsonl"
    write_jsonl(path, [row(question=text)])
    assert read_jsonl(path, Prediction)[0].question == text


def test_other_peoples_line_ends_and_escapes_are_read(tmp_path):
    path = tmp_path / "x.jsonl"
    line = json.dumps(row(prediction="\u2028\U0001f6d1").model_dump())
    path.write_bytes(f"\r\n{line}\r\n\n{line}".encode())
    assert [r.prediction for r in read_jsonl(path, Prediction)] == ["\u2028\U0001f6d1"] * 2


def test_an_answer_without_a_reference_has_no_truth():
    assert row(reference="A car.").truth == "A car."
    with pytest.raises(ValueError, match="has no reference"):
        _ = row(reference=None).truth
    assert "truth" not in row().model_dump()


def test_every_bad_line_is_listed_with_its_number(tmp_path):
    good = row().model_dump_json()
    bad_task = good.replace('"planning"', '"flying"')
    lines = [good, "{", good, "[1]", bad_task, "NaN", '{"id": "x"}', "[" * 100_000, good.replace('"id"', '"idd"'), good]
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(InputError) as caught:
        read_jsonl(path, Prediction)
    problems = caught.value.problems
    numbers = {int(problem.record.removeprefix("line ").partition(",")[0]) for problem in problems}
    assert numbers == {2, 4, 5, 6, 7, 8, 9}
    assert all(
        problem.file == str(path) and problem.expected and problem.found and problem.remedy for problem in problems
    )
    seventh = {problem.record for problem in problems if problem.record.startswith("line 7")}
    assert seventh >= {"line 7, question", "line 7, model", "line 7, decode"}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-0.5"])
@pytest.mark.parametrize("key", ["latency_ms", "confidence"])
def test_measured_numbers_are_finite(tmp_path, key, number):
    good = row(**{key: 0.25}).model_dump_json()
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join([good, good.replace(f'"{key}":0.25', f'"{key}":{number}'), good]))
    with pytest.raises(InputError) as caught:
        read_jsonl(path, Prediction)
    assert [problem.record for problem in caught.value.problems] == [f"line 2, {key}"]


@pytest.mark.parametrize("content", [None, b"\xff\xfe{}"], ids=["absent", "binary"])
def test_file_that_cannot_be_read_is_one_problem(tmp_path, content):
    path = tmp_path / "x.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_jsonl(path, Prediction)
    assert len(caught.value.problems) == 1


def test_lone_surrogate_is_refused_when_read(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(row().model_dump() | {"prediction": "\ud83d"}))
    with pytest.raises(InputError, match="surrogates not allowed"):
        read_jsonl(path, Prediction)


def test_failing_iterator_leaves_neither_file_nor_temporary(tmp_path):
    def broken():
        yield row()
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        write_jsonl(tmp_path / "x.jsonl", broken())
    assert list(tmp_path.iterdir()) == []


def test_failing_write_leaves_the_earlier_file_alone(tmp_path):
    path = tmp_path / "x"
    write_text(path, "before")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "after \ud800")
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    with pytest.raises(RuntimeError):
        write_jsonl(path, (_ for _ in [1] if (_raise())))
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def _raise():
    raise RuntimeError


def test_reader_sees_the_old_file_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "x.jsonl"
    write_jsonl(path, [row()])

    def rows():
        for number in range(3):
            assert [r.id for r in read_jsonl(path, Prediction)] == ["a"]
            yield row(id=f"new{number}")

    write_jsonl(path, rows())
    assert [r.id for r in read_jsonl(path, Prediction)] == ["new0", "new1", "new2"]


def test_json_keeps_alphabets_readable(tmp_path):
    write_json(tmp_path / "x.json", {"städte": ["東京"]})
    assert "東京" in (tmp_path / "x.json").read_text("utf-8")


def test_every_task_has_a_capability():
    for task, capability in CAPABILITY.items():
        shared = {k: v for k, v in row(task=task).model_dump().items() if k in Sample.model_fields}
        assert Sample(**shared, images={}).capability == capability


def test_problem_reads_as_four_lines():
    text = str(Problem("data.json", "scene 3", "a list", "a text", "write a list"))
    assert text.splitlines() == [
        "data.json: scene 3",
        "    expected: a list",
        "    found:    a text",
        "    remedy:   write a list",
    ]


def test_messages_call_rows_as_users_do(tmp_path):
    """No class name: `Prediction` or `_Frame` are ours."""
    from drivedistill.data.clips import _Line
    from drivedistill.data.coda_lm import VqaLine
    from drivedistill.distill.file_digests import _Note
    from drivedistill.evaluate.groups import _Frame

    (tmp_path / "list.jsonl").write_text("[1]\n")
    for kind in (Sample, Prediction, Score, VqaLine, _Frame, _Line, _Note):
        for name, start in (("none.jsonl", "a JSONL file of "), ("list.jsonl", "one JSON object per line (")):
            with pytest.raises(InputError) as caught:
                read_jsonl(tmp_path / name, kind)
            expected = caught.value.problems[0].expected
            assert expected.startswith(start)
            assert kind.__name__.strip("_") not in expected and "rows" not in expected
