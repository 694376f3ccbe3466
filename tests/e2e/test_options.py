"""Options that choose questions and places: pairs that make no sense, and results that could not be written."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny
from drivedistill.data.samples import write_samples
from drivedistill.recipe import save_recipe
from drivedistill.subject import save_subject
from typed import typed


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """`run`: a folder with a model and a recipe, `drawn`: the recipe's data."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "drawn").mkdir()
    write_samples(folder / "drawn/train.jsonl", tiny.samples(tiny.pictures(folder / "drawn")), folder / "drawn")
    subject = tiny.subject("driving_t5", folder)
    save_subject(subject, subject.model, folder / "run/model", "")
    save_recipe(tiny.recipe(folder), folder / "run/recipe.yaml")
    return folder


@pytest.fixture(autouse=True)
def here(place, monkeypatch) -> Path:
    monkeypatch.chdir(place)
    return place


DATA = ["--data", "drawn", "--format", "jsonl"]
VERBS = ("predict", "probe", "experts", "bench")


@pytest.mark.parametrize("verb", VERBS)
def test_options_of_data_and_of_a_runs_own_mixture_exclude_each_other(verb, capsys):
    assert typed(verb, "run", *DATA, "--split", "test") == 2
    assert "--split test with --data drawn" in capsys.readouterr().err
    assert typed(verb, "run", "--format", "jsonl", "--file", "val", "--regime", "corner") == 2
    said = capsys.readouterr().err
    assert all(f"{words} with no --data" in said for words in ("--format jsonl", "--file val", "--regime corner"))
    assert "3 problems" in said


@pytest.mark.parametrize("verb", VERBS)
def test_the_same_questions_are_chosen_by_every_verb(verb, capsys):
    more = ["--dry-run", *([] if verb != "bench" else ["--out", "bench"])]
    assert typed(verb, "run", *DATA, *more) == 0
    assert "8 questions" in capsys.readouterr().out
    assert typed(verb, "run", "--split", "train", *more) == 0
    assert "8 questions" not in capsys.readouterr().out


def test_clips_have_no_options_of_a_data_set(capsys):
    assert typed("world", "clips", "--clips", "2", "--keyframes", "40", "--workers", "2", "--sheets") == 2
    said = capsys.readouterr().err
    assert all(f"{words} with --clips 2" in said for words in ("--keyframes 40", "--workers 2", "--sheets"))
    assert typed("world", "clips", "--clips", "2", "--dry-run") == 0
    assert not Path("clips").exists()


def test_a_prior_sees_no_picture(capsys):
    for option, value in (("--corrupt", "fog"), ("--control", "black")):
        assert typed("predict", "prior:run", *DATA, option, value, "--out", "p.jsonl") == 2
        assert f"{option} {value} with prior:run" in capsys.readouterr().err
    assert not Path("p.jsonl").exists()
