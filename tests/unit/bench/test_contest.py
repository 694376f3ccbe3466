"""Models take turns question by question, answer as `predict` does, and what comes of it is arithmetic."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import tiny
from drivedistill.bench import contest
from drivedistill.bench import report as reporting
from drivedistill.bench.contest import PRESETS, WAYS, Rules, enter, hold, short_names, turns
from drivedistill.bench.figures import curves, figures, predictions, ratios
from drivedistill.bench.memory import Memory, memory_here, own_process_memory
from drivedistill.bench.report import bench, choose
from drivedistill.bench.rsdr_svg import rsdr_svg
from drivedistill.bench.stages import Stages
from drivedistill.bench.training import training_costs
from drivedistill.cli import app
from drivedistill.data.samples import write_samples
from drivedistill.evaluate.answering import local_answerer
from drivedistill.evaluate.decoding import decoding
from drivedistill.evaluate.endpoint import Answer
from drivedistill.evaluate.score import score
from drivedistill.problems import InputError
from drivedistill.records import Prediction, read_jsonl

SHORT = Rules(max_new_tokens=4, warmup=1)
MEMORY = Memory(0.5, "guessed")


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_answers_are_those_of_predict(family, saved, drawn):
    contestant = enter("m", saved(family), SHORT, drawn)
    hold([contestant], drawn, SHORT)
    answer = local_answerer(saved(family), decoding("greedy", 4), drawn)
    expected = [answer([sample])[0] for sample in drawn]
    found = [contestant.answers[sample.id] for sample in drawn]
    assert [(a.text, a.tokens, a.cut) for a in found] == [(a.text, a.tokens, a.cut) for a in expected]
    assert [row.prediction for row in predictions(contestant, drawn)] == [a.text for a in expected]


def test_every_question_is_asked_of_all_models_in_both_ways_before_the_next_comes():
    order = list(turns(3, 20, 2, seed=0))
    assert [question for question, _ in order] == [*range(20), *range(20)]
    everybody = Counter((model, way) for model in range(3) for way in WAYS)
    assert all(Counter(turn) == everybody for _, turn in order)
    assert len({tuple(turn) for _, turn in order}) > 20
    first = Counter(turn[0] for _, turn in turns(3, 600, 1, seed=0))
    assert min(first.values()) > 60  # 100 each, if fair
    assert order == list(turns(3, 20, 2, seed=0)) != list(turns(3, 20, 2, seed=1))


def test_the_contest_keeps_to_its_turns(saved, drawn, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "drivedistill.bench.contest.ask",
        lambda contestant, sample, way, note=True: asked.append((contestant.name, sample.id, way, note)),
    )
    contestants = [enter(name, saved("driving_t5"), SHORT, drawn) for name in ("a", "b")]
    rules = Rules(warmup=2, rounds=2)
    hold(contestants, drawn, rules)
    assert [note for *_, note in asked] == [False] * 8 + [True] * 64
    assert [sample for _, sample, _, _ in asked[8:]] == [s.id for _ in range(2) for s in drawn for _ in range(4)]
    assert Counter(asked[8:]) == Counter(
        (name, s.id, way, True) for _ in range(2) for s in drawn for name in ("a", "b") for way in WAYS
    )


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["runs/teacher", "runs/clkd"], ["teacher", "clkd"]),
        (["t/teacher/seed-0", "t/clkd/seed-0"], ["teacher", "clkd"]),
        (["t/clkd/seed-0", "t/clkd/seed-1"], ["seed-0", "seed-1"]),
        (["t/clkd/seed-0"], ["clkd-seed-0"]),
        (["runs/a", "runs/a"], ["runs-a", "runs-a-2"]),
        (["runs/a", "OpenGVLab/InternVL3-1B-hf"], ["runs-a", "OpenGVLab-InternVL3-1B-hf"]),
        (["runs/a", "runs/a/model"], ["a", "model"]),
        (["/", "/x"], ["model", "x"]),
    ],
)
def test_short_names_are_what_differs(paths, names):
    assert short_names(paths) == names


# --- choice of questions ----------------------------------------------------------------------------------------------


def test_choice_is_bounded_and_always_the_same(drawn):
    chosen = choose(drawn, Rules(limit=5))
    assert len(chosen) == 5
    assert chosen == choose(drawn, Rules(limit=5)) == sorted(chosen, key=drawn.index)


def test_choice_by_number_of_pictures(drawn):
    chosen = choose(drawn, PRESETS["drivekd"])
    assert [len(sample.images) for sample in chosen] == [6]
    with pytest.raises(InputError, match="questions with 1, 6"):
        choose(drawn, Rules(views=3))


def test_clips_are_asked_whole(drawn):
    frames = [s.model_copy(update={"scene": "x", "extra": {"clip": str(i // 3)}}) for i, s in enumerate(drawn)]
    chosen = choose(frames, Rules(limit=4))
    assert Counter(s.extra["clip"] for s in chosen) in (
        {"0": 3},
        {"1": 3},
        {"2": 2},
        {"2": 2, "0": 3},
        {"2": 2, "1": 3},
    )
    assert 0 < len(chosen) <= 4
    assert choose(frames, Rules(limit=None)) == frames


# --- figures ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def timed(saved, drawn):
    """Two contestants with known times: 10 ms per stage for `slow`, 5 ms for `fast`, right every second time."""
    contestants = []
    for name, ms in (("slow", 10.0), ("fast", 5.0)):
        contestant = enter(name, saved("driving_t5"), SHORT, drawn)
        for i, sample in enumerate(drawn):
            answer = sample.answer if i % 2 else "nothing of the kind"
            contestant.answers[sample.id] = Answer(answer, tokens=11)
            contestant.stages[sample.id] = [Stages(*[ms * (i + 1)] * 6), Stages(*[ms * (i + 1)] * 6)]
            contestant.resident_ms[sample.id] = [4 * ms * (i + 1)]
        contestants.append(contestant)
    return contestants


def test_figures_are_arithmetic_of_the_times(timed, drawn):
    row = figures(timed[0], drawn, SHORT, MEMORY)  # wholes: 60, 120, ..., 480 ms
    assert (row["latency_p50_ms"], row["latency_p90_ms"], row["latency_p99_ms"]) == (240, 480, 480)
    assert row["latency_mean_ms"] == 270
    assert row["fps_disk"] == pytest.approx(1000 / 270, abs=1e-4)
    assert row["fps_resident"] == pytest.approx(1000 / 180, abs=1e-4)
    assert row["tokens_per_s"] == pytest.approx(1000 * 10 / 45, abs=1e-3)
    assert row["first_token_ms"] == 5 * 45
    assert row["first_token_resident_ms"] == 3 * 45
    assert row["watching_cost"] == 0
    assert sum(row["stages_mean_ms"].values()) == pytest.approx(row["latency_mean_ms"])
    assert (row["device"], row["threads"] > 0, row["precision"], row["engine"]) == (
        "cpu",
        True,
        "float32",
        "eager",
    )
    assert row["params_total"] == sum(p.numel() for p in timed[0].subject.model.parameters())
    assert row["params_total_2p20"] * 2**20 == pytest.approx(row["params_total_1e6"] * 1e6)
    assert (row["memory_gb"], row["memory_method"]) == MEMORY


def test_ratio_to_the_first_is_paired(timed, drawn):
    row = ratios(timed[1], timed[0], drawn)
    assert row["against"] == "slow"
    assert row["speed_disk"] == {"value": 2, "low": 2, "high": 2}  # twice as fast at every question: no doubt at all
    assert row["speed_resident"]["value"] == 2


def test_rsdr_of_the_bench_is_that_of_score(timed, drawn):
    row = figures(timed[1], drawn, SHORT, MEMORY)  # wholes: 30, 60, ..., 240 ms; the second, fourth ... are right
    assert (row["rsdr_80"]["value"], row["in_time_80"]["value"], row["right"]) == (1 / 8, 2 / 8, 4 / 8)
    scores = score(predictions(timed[1], drawn), meteor=False, tokenizer="approximate")
    places = [(s.value * s.n, s.n) for s in scores if s.name == "rsdr_80" and s.task == "all"]
    assert tuple(np.sum(places, axis=0)) == (1, 8)
    curve = curves({one.name: predictions(one, drawn) for one in timed})
    assert curve["rsdr"]["fast"][curve["thresholds_ms"].index(80)] == 1 / 8
    assert curve["rsdr"]["fast"][-1] == curve["rsdr"]["slow"][-1] == 4 / 8


def test_without_references_there_is_no_rsdr(timed, drawn):
    blank = [sample.model_copy(update={"answer": None}) for sample in drawn]
    row = figures(timed[0], blank, SHORT, MEMORY)
    assert row["references"] == 0
    assert "rsdr_80" not in row
    assert curves({"slow": predictions(timed[0], blank)}) == {}


def test_picture_of_the_curves_is_svg_with_every_model():
    svg = rsdr_svg([40.0, 80.0, 100.0, 1500.0], {"a<b>": [0.0, 0.1, 0.2, 0.7], "c": [0.1, 0.1, 0.1, 0.1]})
    root = ElementTree.fromstring(svg)
    texts = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"80 ms", "100 ms", "a<b> (right, however late: 70.0 %)"} <= set(texts)
    assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) == 2
    ticks = [text for text in texts if text and text.isdigit() and int(text) >= 50]
    assert {"50", "200", "500", "1000"} <= set(ticks)


def test_training_costs_of_finished_runs(tmp_path):
    facts = {"finished": "now", "kind": "distill", "steps": 9, "seconds": 1800.0, "device": "cpu", "threads": 1}
    for name, more in {"old": {}, "new": {"teacher_share": 0.4, "epochs": 2.0}, "open": {"finished": None}}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps(facts | more))
    rows = training_costs({name: str(tmp_path / name) for name in ("old", "new", "open", "none")})
    assert [(row["name"], row["hours"], row["teacher_share"]) for row in rows] == [
        ("old", 0.5, None),
        ("new", 0.5, 0.4),
    ]


# --- the whole --------------------------------------------------------------------------------------------------------


def test_memory_is_growth_while_answering(saved, drawn, monkeypatch):
    prepare = contest.model_inputs

    def greedy_for_memory(*args):
        assert len(np.ones(25_000_000)) > 0  # 0.2 GB for a moment
        return prepare(*args)

    monkeypatch.setattr(contest, "model_inputs", greedy_for_memory)
    memory = memory_here(saved("driving_t5"), SHORT, drawn[:2], torch.get_num_threads())
    assert 0.15 < memory.gb < 1
    assert memory.method.startswith("growth of a fresh process")


@pytest.mark.long
def test_a_process_of_its_own_measures_memory(saved, drawn):
    memory = own_process_memory(saved("driving_t5"), SHORT, drawn, threads=1)
    assert 0.001 < memory.gb < 2
    assert memory.method.startswith("growth of a fresh process")


@pytest.fixture
def quick(monkeypatch):
    """No process for the memory: one test has seen it."""
    monkeypatch.setattr(reporting, "own_process_memory", lambda *_: MEMORY)


def test_bench_writes_report_picture_and_answers(saved, drawn, tmp_path, quick):
    paths, said = [saved("driving_t5"), saved("internvl")], []
    report = bench(paths, drawn, SHORT, tmp_path / "b", say=said.append)
    names = [row["name"] for row in report["models"]]
    assert {path.name for path in (tmp_path / "b").iterdir()} == {
        "bench.json", "bench.md", "rsdr.svg", *(f"{name}.jsonl" for name in names),
    }  # fmt: skip
    assert json.loads((tmp_path / "b" / "bench.json").read_text()) == report
    rows = read_jsonl(tmp_path / "b" / f"{names[1]}.jsonl", Prediction)
    assert [row.id for row in rows] == [sample.id for sample in drawn]
    assert all(row.latency_ms and row.model == paths[1] for row in rows)
    assert report["models"][1]["against"] == names[0]
    assert said[-1] == "2 models, 8 questions, 1 round, 2 ways ..."
    text = (tmp_path / "b" / "bench.md").read_text()
    assert all(name in text for name in [*names, "float32", "eager", "RSDR at 80 ms", "vision, median ms"])
    assert all(len(line) <= 120 for line in text.splitlines() if not line.startswith("|"))


def test_drivekd_preset_forces_length_precision_and_rounds(saved, drawn, tmp_path, quick):
    rules = PRESETS["drivekd"]
    assert (rules.warmup, rules.rounds, rules.max_new_tokens, rules.min_new_tokens) == (3, 10, 128, 128)
    rules = replace(rules, rounds=3, max_new_tokens=9, min_new_tokens=9)
    report = bench([saved("qwen2_5_vl")], choose(drawn, rules), rules, tmp_path / "b", preset="drivekd", say=str)
    (row,) = report["models"]
    assert (row["questions"], row["answer_tokens_mean"], row["precision"]) == (1, 9, "bfloat16")
    assert (row["references"], report["curve"]) == (0, {})  # answers of a forced length are not judged
    assert "first token, s" in (tmp_path / "b" / "bench.md").read_text()


# --- command line -----------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path):
    """A data root with the eight questions in our own format."""
    folder = tmp_path / "set"
    folder.mkdir()
    write_samples(folder / "train.jsonl", tiny.samples(tiny.pictures(folder)), folder)
    return folder


def call(*words):
    return CliRunner().invoke(app, ["bench", *map(str, words)])


def test_command_measures_and_prints(saved, root, tmp_path, quick):
    given = ("--data", root, "--format", "jsonl", "--limit", 3, "--max-new-tokens", 3, "--threads", 1)
    found = call(saved("driving_t5"), saved("llava"), *given, "--out", tmp_path / "b")
    assert found.exit_code == 0, found.output
    assert "3 questions" in found.output
    setting = json.loads((tmp_path / "b" / "bench.json").read_text())["setting"]
    assert (setting["rules"]["max_new_tokens"], setting["questions"], setting["preset"]) == (3, 3, "default")
    again = call(saved("driving_t5"), *given, "--out", tmp_path / "b")
    assert isinstance(again.exception, InputError)
    assert "one with files in it" in str(again.exception)


def test_dry_run_writes_nothing(saved, root, tmp_path):
    found = call(
        saved("driving_t5"), "--data", root, "--format", "jsonl", "--preset", "drivekd", "--max-new-tokens", 16,
        "--out", tmp_path / "b", "--dry-run",
    )  # fmt: skip
    assert found.exit_code == 0
    assert (
        "1 model would be asked 1 question (rules drivekd, but other max_new_tokens, min_new_tokens: " in found.output
    )
    assert "exactly 16 tokens, bfloat16, eager, warm-up 3, 10 rounds, seed 0)" in found.output
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("broken", ["run", "recipe", "picture"])
def test_bad_input_is_refused_before_anything_is_loaded(saved, root, tmp_path, broken):
    words = {
        "run": ["runs/none", "runs/neither", "--data", root, "--format", "jsonl"],
        "recipe": [saved("driving_t5")],
        "picture": [saved("driving_t5"), "--data", root, "--format", "jsonl"],
    }[broken]
    if broken == "picture":
        (root / "CAM_BACK.png").unlink()
    found = call(*words, "--out", tmp_path / "b")
    assert isinstance(found.exception, InputError)
    assert len(found.exception.problems) == (2 if broken == "run" else 1)
    assert not (tmp_path / "b").exists()


def test_every_model_is_looked_up_before_the_first_is_measured(saved, root, tmp_path, monkeypatch):
    def measured(*_):
        raise AssertionError("measured")

    monkeypatch.setattr("drivedistill.bench.report.own_process_memory", measured)
    (tmp_path / "empty").mkdir()
    words = (saved("driving_t5"), "nosuch", tmp_path / "empty", "--data", root, "--format", "jsonl")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = call(*words, "--out", tmp_path / "b")
    assert isinstance(found.exception, InputError)
    assert [problem.file for problem in found.exception.problems] == ["nosuch", str(tmp_path / "empty")]
    assert not (tmp_path / "b").exists()


def test_out_that_is_a_file_is_called_one(saved, root, tmp_path):
    (tmp_path / "b").touch()
    found = call(saved("driving_t5"), "--data", root, "--format", "jsonl", "--out", tmp_path / "b")
    assert found.exception.problems[0].found == "a file"
