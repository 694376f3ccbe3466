"""Options that choose questions and places: pairs that make no sense, and results that could not be written."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny
from drivedistill.data.samples import write_samples
from drivedistill.recipe import save_recipe
from drivedistill.records import Prediction, read_jsonl, write_jsonl
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
VERBS = ("predict", "probe", "experts", "study", "bench")


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


@pytest.fixture
def predictions(here) -> str:
    rows = [
        Prediction(id=f"q{i}", dataset="drivelm", scene=f"s{i}", frame="f", split="val", regime="regular", task="planning",
                   question="Go?", reference="Go on.", prediction="Go on.", model="m", decode="greedy")
        for i in range(4)
    ]  # fmt: skip
    write_jsonl(Path("answers.jsonl"), rows)
    write_jsonl(Path("others.jsonl"), [row.model_copy(update={"model": "other"}) for row in rows])
    return "answers.jsonl"


WRITING = {
    "predict": ["predict", "run", *DATA],
    "prior": ["predict", "prior:run", *DATA],
    "probe": ["probe", "run", *DATA],
    "experts": ["experts", "run", *DATA],
    "study": ["study", "run", *DATA],
    "bench": ["bench", "run", *DATA],
    "score": ["score", "answers.jsonl"],
    "compare": ["compare", "answers.jsonl", "others.jsonl"],
    "corrupt": ["data", "corrupt", "drawn", "--format", "jsonl", "--corrupt", "fog"],
}


@pytest.mark.parametrize("out", ["answers.jsonl/below/it", "/proc/nothing/it", "/proc/it"])
@pytest.mark.parametrize("verb", WRITING)
def test_a_place_that_cannot_be_written_is_found_before_the_work(verb, out, predictions, monkeypatch, capsys):
    def work(*_: object, **__: object) -> None:
        raise AssertionError("the work began")

    for name in ("evaluate.predict.predict", "evaluate.score.score", "evaluate.compare.compare", "bench.report.bench",
                 "subject.load_subject", "data.corruptions.write.write_corrupted"):  # fmt: skip
        monkeypatch.setattr(f"drivedistill.{name}", work)
    assert typed(*WRITING[verb], "--out", out) == 2
    said = capsys.readouterr().err
    assert str(Path(out).parent) in said and "a folder that can be written" in said and "choose another --out" in said


@pytest.mark.parametrize("verb", ["predict", "score", "compare"])
def test_a_folder_is_no_file_for_results(verb, predictions, capsys):
    assert typed(*WRITING[verb], "--out", "drawn") == 2
    assert "a file for the results" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["predict", "probe", "experts", "study", "bench", "score"])
def test_a_dry_run_makes_no_folder(verb, predictions):
    assert typed(*WRITING[verb], "--out", "not/there", "--dry-run") == 0
    assert not Path("not").exists()


@pytest.mark.parametrize("verb", [*WRITING, "clips"])
def test_ctrl_c_is_answered(verb, predictions, tmp_path, monkeypatch, capsys):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for name in ("evaluate.answering.local_answerer", "evaluate.text_only.prior_answerer", "evaluate.score.score",
                 "evaluate.compare.compare", "bench.report.bench", "subject.load_subject", "world.dataset.clips.write_clips",
                 "data.corruptions.write.write_corrupted"):  # fmt: skip
        monkeypatch.setattr(f"drivedistill.{name}", interrupted)
    command = [*WRITING[verb], "--out", str(tmp_path / "x")] if verb in WRITING else ["world", "x", "--clips", "2"]
    assert typed(*command) == 130
    said = capsys.readouterr().err
    assert "interrupted; answers so far" in said if verb == "probe" else "stopped by SIGINT before the end" in said
    assert "again" in said and "Traceback" not in said


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["predict", "prior:no.yaml", *DATA, "--out", "p"], ["no.yaml", "a run or a recipe file", "no such", "name one"]),
        (["predict", "prior:drawn", *DATA, "--out", "p"], ["drawn", "a folder without recipe.yaml"]),
        (["predict", "prior:run", *DATA], ["prior:run", "a prior, which is no run", "add --out FILE.jsonl"]),
        (["predict", "prior:run", *DATA, "--out", "p", "--decode", "beam-2"], ["none: a prior looks its answer up"]),
        (["predict", "http://h/v1", *DATA, "--out", "p", "--decode", "beam-2"], ["none: a server decides itself"]),
        (["probe", "http://h/v1", *DATA, "--out", "p"], ["a run, directory or hub id: probe", "drivedistill predict http"]),
        (["probe", "prior:run", *DATA, "--out", "p"], ["a run, directory or hub id: probe", "a prior"]),
        (["study", "http://h/v1", *DATA, "--out", "p"], ["a run, directory or hub id: study"]),
        (["bench", "run", "https://h/v1", *DATA, "--out", "p"], ["https://h/v1", "bench loads its models itself"]),
        (["probe", "run/model", *DATA, "--out", "p"], ["run/model", "add --prior RUN"]),
        (["predict", "run", *DATA, "--corrupt", "fogg"], ["--corrupt", "'fogg'", "one of brightness"]),
        (["predict", "run", *DATA, "--corrupt", "black"], ["--corrupt", "'black'", "one of brightness"]),
        (["predict", "run", *DATA, "--corrupt", "fog:9"], ["--corrupt", "a severity of 1, 2"]),
        (["probe", "run", *DATA, "--conditions", "fogg"], ["--conditions", "shuffled, prior, corruptions, brightness"]),
        (["data", "corrupt", "drawn", "--format", "jsonl", "--corrupt", "none", "--out", "p"], ["--corrupt", "'none'"]),
    ],
    ids=lambda value: "-".join(value[:2]) if value[0] in ("predict", "probe", "study", "bench", "data") else "",
)  # fmt: skip
def test_what_cannot_be_asked_is_said_in_words(command, words, capsys):
    assert typed(*command) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words), said
    assert not Path("p").exists()


def test_one_is_no_plural(predictions, capsys):
    write_jsonl(Path("one.jsonl"), read_jsonl(Path(predictions), Prediction)[:1])
    one = {
        "score": ["score", "one.jsonl", "--dry-run"],
        "predict": ["predict", "run", *DATA, "--limit", "1", "--dry-run"],
        "probe": ["probe", "run", *DATA, "--limit-per-set", "1", "--dry-run"],
        "experts": ["experts", "run", *DATA, "--limit-per-set", "1", "--dry-run"],
        "study": ["study", "run", *DATA, "--limit-per-set", "1", "--dry-run"],
        "world": ["world", "clips", "--clips", "1", "--dry-run"],
    }
    for verb, command in one.items():
        assert typed(*command) == 0
        first, word = capsys.readouterr().out.split()[:2]
        assert word.endswith("s") == (first != "1"), verb  # one of each regime are two
