"""`drivedistill compare` as it is typed: two files, several seeds, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from drivedistill.records import Prediction, write_jsonl
from typed import typed

QUICK = ("--tokenizer", "approximate", "--no-meteor")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """A folder with the answers of two seeds of a good and of a bad model, in forty scenes."""
    monkeypatch.chdir(tmp_path)
    for model, right in (("good-0", 38), ("good-1", 36), ("bad-0", 9), ("bad-1", 12)):
        write_jsonl(Path(f"{model}.jsonl"), answers(model, right))
    return tmp_path


def answers(model: str, right: int, n: int = 40) -> list[Prediction]:
    return [
        Prediction(id=f"q{i}", dataset="drivelm", scene=f"s{i}", frame="f", split="test", regime="regular",
                   task="planning", question="How far?", reference=f"It is {i} m.", model=model, decode="greedy",
                   prediction=f"It is {i if i < right else 99} m.")
        for i in range(n)
    ]  # fmt: skip


def test_two_files_are_compared(capsys):
    assert (
        typed("compare", "good-0.jsonl", "bad-0.jsonl", *QUICK, "--columns", "exact_match,bleu_4", "--out", "c.json")
        == 0
    )
    shown = capsys.readouterr().out
    assert "regular drivelm test: 40 questions\n  A  good-0 (greedy, clean)\n  B  bad-0 (greedy, clean)" in shown
    [row] = [line.split() for line in shown.splitlines() if line.startswith("  Exact match")]
    assert row[2:5] == ["95.00", "22.50", "+72.50"]
    assert row[-1] == "better"
    assert "all numbers: c.json" in shown
    [found] = json.loads(Path("c.json").read_text())["sets"]
    lines = {line["name"]: line["difference"] for line in found["lines"]}
    assert list(lines) == ["bleu_4", "exact_match"]
    assert lines["exact_match"]["low"] < 0.725 < lines["exact_match"]["high"]
    assert lines["exact_match"]["num_runs"] == [1, 1]


def test_seeds_are_compared_and_the_bad_model_is_worse(capsys):
    seeds = ("--b", "good-0.jsonl", "--b", "good-1.jsonl", "--a", "bad-0.jsonl", "--a", "bad-1.jsonl")
    assert typed("compare", *seeds, "--paired", *QUICK) == 0
    shown = capsys.readouterr().out
    assert "40 questions, runs in pairs" in shown
    assert "2 runs: bad-0, bad-1" in shown
    # Differences of -72.5 and -60: two seeds tell next to nothing of other seeds.
    [row] = [line for line in shown.splitlines() if line.startswith("  Exact match  ")]
    assert "-66.25" in row
    assert typed("compare", "bad-0.jsonl", "good-0.jsonl", "--a", "bad-1.jsonl", *QUICK) == 0
    assert "runs not in pairs" in capsys.readouterr().out


def test_missing_answers_need_common(capsys):
    write_jsonl(Path("short.jsonl"), answers("short", 9, n=33))
    assert typed("compare", "good-0.jsonl", "short.jsonl", *QUICK, "--out", "c.json") == 2
    assert "33 of them; 7 missing: q33, q34, q35 and 4 more" in capsys.readouterr().err
    assert not Path("c.json").exists()
    assert typed("compare", "good-0.jsonl", "short.jsonl", *QUICK, "--common") == 0
    assert "did not answer them: 7 questions of A, 0 of B" in capsys.readouterr().out


def test_the_sets_of_a_run_may_be_in_files_of_their_own(capsys):
    for model in ("good-0", "bad-0"):
        corner = [row.model_copy(update={"regime": "corner"}) for row in answers(model, 20)]
        write_jsonl(Path(f"{model}-corner.jsonl"), corner)
    files = ("good-0.jsonl", "bad-0.jsonl", "--a", "good-0-corner.jsonl")
    assert typed("compare", *files, "--b", "bad-0-corner.jsonl", *QUICK) == 0
    shown = capsys.readouterr().out
    assert "regular drivelm test: 40 questions\n  A  good-0" in shown
    assert "corner drivelm test: 40 questions\n  A  good-0" in shown
    more = ("--a", "good-1.jsonl", "--b", "bad-1.jsonl")
    assert typed("compare", *files, "--b", "bad-0-corner.jsonl", *more, *QUICK, "--paired") == 2
    assert "good-1.jsonl: corner drivelm test" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed_in", "said"),
    [
        (("good-0.jsonl",), "two files, or none and --a and --b"),
        ((), "at least one file"),
        (("good-0.jsonl", "bad-0.jsonl", "--a", "./good-0.jsonl"), "a copy is no other seed"),
        (("good-0.jsonl", "nowhere.jsonl"), "nowhere.jsonl"),
        (("good-0.jsonl", "empty.jsonl"), "an empty file"),
        (("good-0.jsonl", "bad-0.jsonl", "--columns", "blue_4"), "a metric, such as bleu_4, "),
        (("good-0.jsonl", "bad-0.jsonl", "--columns", "bleu_4,auroc,latency_p50"), "auroc, latency_p50"),
        (
            ("good-0.jsonl", "bad-0.jsonl", "--columns", "auroc"),
            "percentiles, areas and judges' ratings are not compared",
        ),
        (("good-0.jsonl", "bad-0.jsonl", "--a", "good-1.jsonl", "--paired"), "2 and 1"),
    ],
)
def test_what_cannot_be_compared_is_refused(typed_in, said, capsys):
    Path("empty.jsonl").touch()
    assert typed("compare", *typed_in, *QUICK) == 2
    heard = capsys.readouterr()
    assert said in heard.err
    assert max(map(len, heard.err.splitlines())) <= 160 and not heard.out
