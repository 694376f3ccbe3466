"""The verbs as a user types them: from a data set to a gate, with exit codes, signals and folders that stay as they were."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from drivedistill.records import Prediction, read_jsonl, write_jsonl
from make_driving_data import make
from typed import typed

RECIPES = Path(__file__).parents[2] / "recipes"
SMALL = [
    "data.image_size=32",
    "model.overrides.text={d_model: 32, d_kv: 8, d_ff: 64, num_layers: 1, num_heads: 4}",
    "model.overrides.vision={depths: [1, 1], hidden_sizes: [16, 32], num_stages: 2}",
    "model.overrides.fusion_hidden=8",
    "train.batch_size=4",
    "train.warmup_steps=2",
    "train.log_every=1",
]
QUICK = [*SMALL, "train.steps=4", "train.validate_every=2", "train.validate_limit=8"]
TEACHER = ["train", str(RECIPES / "tiny_teacher.yaml"), *QUICK, "model.tokenizer_size=300"]
STUDENT = ["distill", str(RECIPES / "tiny_dis.yaml"), *QUICK]
APPROXIMATE = ["--no-meteor", "--tokenizer", "approximate"]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "drivedistill.cli", *arguments]


def listing(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """`demo/` in seconds: drawn data, a teacher and its student from the shipped recipes."""
    folder = tmp_path_factory.mktemp("place")
    torch.set_num_threads(1)  # threads of tiny tensors wait for one another; on a busy machine that takes minutes
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make(Path("demo/data"), scenes=5, frames=1, corner=4, size=(96, 64), seed=0)
        assert typed(*TEACHER, "--out", "demo/teacher") == 0
        assert typed(*STUDENT, "--out", "demo/student") == 0
    return folder


@pytest.fixture
def here(place, monkeypatch) -> Path:
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def answers(here) -> Path:
    """Three hundred easy answers of two scenes, one in ten wrong."""
    rows = [
        Prediction(id=f"q{i}", dataset="drivelm", scene=f"s{i % 2}", frame="f", split="val", regime="regular",
                   task="planning", question="Go?", reference="Keep going at the same speed.",
                   prediction="Stop now." if i % 10 == 0 else "Keep going at the same speed.", model="m", decode="greedy")
        for i in range(300)
    ]  # fmt: skip
    write_jsonl(Path("easy.jsonl"), rows)
    return Path("easy.jsonl")


# --- help and usage ---------------------------------------------------------------------------------------------------

VERBS = (["data", "check"], ["cache"], ["train"], ["distill"], ["predict"], ["score"], ["ablate"])


@pytest.mark.parametrize("verb", VERBS, ids="-".join)
def test_every_verb_explains_itself_with_an_example_that_parses(verb, capsys):
    assert typed(*verb, "--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    example = re.search(rf"Example: drivedistill {' '.join(verb)} ", shown)
    assert example, shown


@pytest.mark.parametrize(
    "arguments",
    [["fly"], ["train"], ["train", "x.yaml", "--fast"], ["score"], ["predict", "m", "--batch-size", "0"],
     ["data", "check", "x", "--format", "kitti"], ["score", "x", "--seed", "one"]],
    ids=" ".join,
)  # fmt: skip
def test_usage_errors_end_with_two(arguments, capsys):
    assert typed(*arguments) == 2
    assert "Error" in capsys.readouterr().err


def test_version_is_printed(capsys):
    import drivedistill

    assert typed("--version") == 0
    assert capsys.readouterr().out.strip() == f"drivedistill {drivedistill.__version__}"


def test_installed_command_is_the_same(tmp_path):
    beside = Path(sys.executable).with_name("drivedistill")
    if not beside.exists():
        pytest.skip("the package is on the path without being installed")
    assert subprocess.run([beside, "train", "typo.yaml"], cwd=tmp_path, capture_output=True).returncode == 2


# --- the way from data to numbers ---------------------------------------------------------------------------------------


def test_data_check_counts_a_folder_and_a_recipes_mixture(here, capsys):
    assert typed("data", "check", "demo/data/regular") == 0
    assert re.search(r"questions +\d+", capsys.readouterr().out)
    assert typed("data", "check", "demo/data/corner", "--format", "coda_lm", "--file", "Val", "--regime", "corner") == 0
    capsys.readouterr()
    assert typed("data", "check", str(RECIPES / "tiny_dis.yaml")) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^ +train +val", shown, re.MULTILINE)
    assert re.search(r"Regular to corner: \d+ to [1-9]", shown)


def test_run_folder_holds_what_the_design_says(here):
    for name, kind in (("teacher", "train"), ("student", "distill")):
        folder = here / "demo" / name
        assert {path.name for path in folder.iterdir()} - {"predictions"} == {
            "recipe.yaml", "run.json", "metrics.jsonl", "tokenizer", "checkpoints", "model",
        }  # fmt: skip
        facts = json.loads((folder / "run.json").read_text())
        assert (facts["kind"], facts["steps"]) == (kind, 4)
        assert facts["finished"]
        model = {path.name for path in (folder / "model").iterdir()}
        assert model >= {"config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json", "README.md"}
        assert not [path for path in folder.rglob("*") if path.suffix in (".bin", ".pt", ".pth", ".pkl")]


def test_student_speaks_its_teachers_vocabulary_and_logs_both_terms(here):
    tokenizers = [(here / "demo" / name / "model" / "tokenizer.json").read_text() for name in ("teacher", "student")]
    assert json.loads(tokenizers[0])["model"]["vocab"] == json.loads(tokenizers[1])["model"]["vocab"]
    log = [json.loads(line) for line in (here / "demo/student/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log if "loss" in line] == [1, 2, 3, 4]
    assert all({"ce", "forward_kl"} <= {name.partition("/")[0] for name in line} for line in log if "loss" in line), (
        log[0]
    )


@pytest.mark.parametrize("source", ["own split", "data root"])
def test_predict_answers_every_question_once_and_score_rates_them(here, source, capsys):
    if source == "own split":
        assert typed("predict", "demo/student", "--max-new-tokens", "3") == 0
        path = Path("demo/student/predictions/val-greedy.jsonl")
    else:
        chosen = ["--data", "demo/data/corner", "--format", "coda_lm", "--file", "Val", "--regime", "corner"]
        assert typed("predict", "demo/student", *chosen, "--max-new-tokens", "3") == 0
        path = Path("demo/student/predictions/corner-Val-greedy.jsonl")
    rows = read_jsonl(path, Prediction)
    assert len({row.id for row in rows}) == len(rows) > 0
    before = path.read_bytes()
    again = ["predict", "demo/student", "--max-new-tokens", "3"] + (chosen if source != "own split" else [])
    assert typed(*again) == 0
    assert "0 new answers" in capsys.readouterr().out
    assert path.read_bytes() == before
    assert typed("score", str(path), *APPROXIMATE) == 0
    results = json.loads(path.with_name(f"{path.stem}.results.json").read_text())
    assert {"bleu_4", "rouge_l", "exact_match"} <= {row["name"] for row in results}
    assert str(path.with_name(f"{path.stem}.results.json")) in capsys.readouterr().out


# --- folders ------------------------------------------------------------------------------------------------------------


METHOD = {"train": "method          supervised", "distill": "method          distilled (forward_kl, T=1"}


@pytest.mark.parametrize("arguments", [TEACHER, STUDENT, ["predict", "demo/student"]], ids=lambda words: words[0])
def test_dry_run_shows_much_and_writes_nothing(here, arguments, capsys):
    before = listing(here)
    out = ["--out", "demo/none" if arguments[0] != "predict" else "none.jsonl"]
    assert typed(*arguments, *out, "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "questions" in shown
    if arguments[0] != "predict":
        assert all(
            word in shown for word in ("parameters", "supervised", "MB", "[</s>]", "steps", METHOD[arguments[0]])
        )
    assert listing(here) == before


def test_occupied_folder_is_refused_then_resumed_then_replaced(here, capsys):
    out = ["--out", "demo/again"]
    assert typed(*TEACHER, *out) == 0
    first = listing(Path("demo/again"))
    assert typed(*TEACHER, *out) == 2
    assert listing(Path("demo/again")) == first
    assert typed(*TEACHER, *out, "--resume") == 0  # finished already: nothing to learn, the same model
    weights = "demo/again/model/model.safetensors"
    assert Path(weights).read_bytes() == first[weights]
    Path("demo/again/notes.txt").write_text("mine")
    assert typed(*TEACHER, "seed=1", *out, "--overwrite") == 0
    assert not Path("demo/again/notes.txt").exists()
    assert Path(weights).read_bytes() != first[weights]


def test_default_folder_is_runs_and_the_recipes_name(here):
    assert typed(*TEACHER, "name=by-name", "train.steps=1") == 0
    assert Path("runs/by-name/model/model.safetensors").is_file()


def test_recipe_with_a_teacher_belongs_to_distill(here, capsys):
    assert typed("train", str(RECIPES / "tiny_dis.yaml"), "--out", "demo/none") == 2
    assert "drivedistill distill" in capsys.readouterr().err
    assert typed("train", str(RECIPES / "tiny_dis.yaml"), *QUICK, "teacher=null", "--out", "demo/plain") == 0
    assert json.loads(Path("demo/plain/run.json").read_text())["teacher"] is None


def test_best_checkpoint_is_kept_even_between_two_saves(here, monkeypatch):
    """`save_every` and `validate_every` without a common step before the end; the first look was the best."""
    losses = iter([1.0, 2.0, 3.0])
    monkeypatch.setattr("drivedistill.train.validation_loss", lambda *_: next(losses))
    odd = ["train.steps=7", "train.validate_every=3", "train.save_every=5", "train.keep=1"]
    assert typed(*TEACHER, *odd, "--out", "demo/odd") == 0
    facts = json.loads(Path("demo/odd/run.json").read_text())
    assert facts["best_step"] == 3
    best = Path("demo/odd/checkpoints/best")
    assert json.loads((best / "state.json").read_text())["step"] == facts["best_step"]
    saved, model = load_file(best / "model.safetensors"), load_file("demo/odd/model/model.safetensors")
    assert all(torch.equal(value, saved[f"model.{name}"]) for name, value in model.items())


def test_picture_that_breaks_off_is_named_during_training_and_the_run_goes_on_when_mended(here, capsys):
    """Its header is whole, so nothing shows before it is decoded; `data check` would have found it."""
    picture = next(Path("demo/data/regular").rglob("made__CAM_FRONT__*.jpg"))
    whole = picture.read_bytes()
    picture.write_bytes(whole[: len(whole) // 2])
    try:
        assert typed(*TEACHER, "train.steps=30", "--out", "demo/mended") == 2
    finally:
        picture.write_bytes(whole)
    said = capsys.readouterr().err
    assert picture.name in said
    assert "fetch the picture again" in said
    assert not Path("demo/mended/model").exists()
    assert typed(*TEACHER, "train.steps=30", "--out", "demo/mended", "--resume") == 0


# --- scores and gates -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gates", "code"),
    [
        (["regular.exact_match=0.8"], 0),
        (["exact_match=80"], 0),
        (["exact_match=95"], 3),
        (["exact_match=0.8", "planning.bleu_4=0.999"], 3),
        (["exact_mach=0.8"], 2),
        (["exact_match"], 2),
        (["corner.exact_match=0.1"], 2),
    ],
)
def test_gate_decides_the_exit_code_and_results_are_written_first(answers, gates, code, capsys):
    out = Path("numbers") / f"{'-'.join(gates)}.json"
    options = [word for gate in gates for word in ("--fail-under", gate)]
    assert typed("score", str(answers), *APPROXIMATE, "--out", str(out), *options) == code
    rows = {row["name"]: row["value"] for row in json.loads(out.read_text()) if row["task"] == "all"}
    assert rows["exact_match"] == pytest.approx(0.9)
    said = capsys.readouterr()
    assert "BLEU-4" in said.out
    if code:
        assert gates[-1].partition("=")[0] in said.err


@pytest.mark.parametrize("form", ["output", "submission"])
def test_submission_is_scored_against_its_questions(here, form, capsys):
    from drivedistill.data import READERS

    samples = list(READERS["drivelm"](Path("demo/data/regular"), "train", regime="regular"))
    rows = [{"id": s.id, "question": f"<image>\n{s.question}", "answer": s.answer} for s in samples]
    value = rows if form == "output" else {"method": "copy", "team": "t", "results": rows}
    Path(f"{form}.json").write_text(json.dumps(value))
    chosen = ["--reference", "demo/data/regular", "--file", "train", *APPROXIMATE]
    assert typed("score", f"{form}.json", *chosen, "--fail-under", "exact_match=100") == 0
    results = json.loads(Path(f"{form}.results.json").read_text())
    assert {row["value"] for row in results if row["name"] == "exact_match"} == {1.0}


# --- signals ------------------------------------------------------------------------------------------------------------


def wait_for(process: subprocess.Popen, ready) -> None:
    end = time.monotonic() + 120
    while not ready():
        assert process.poll() is None, "ended early"
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.timeout(600)
def test_signals_stop_after_saving_and_resume_finishes(here):
    """Ctrl-C, then SIGTERM, then to the end; that the weights are those of an undisturbed run is shown in test_kill."""
    card = [*TEACHER[:2], *SMALL, "model.tokenizer_size=300", "train.steps=150", "train.save_every=150"]
    card += ["train.validate_every=1000", "--out"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    reached = 0
    log = Path("demo/stopped/metrics.jsonl")
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        resume = ["--resume"] if reached else []
        process = subprocess.Popen(
            command(*card, "demo/stopped", *resume, "data.workers=1"),
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        wait_for(process, lambda goal=reached + 5: log.is_file() and log.read_bytes().count(b'"loss"') >= goal)
        os.killpg(process.pid, number)  # as a terminal and many schedulers do: the loading process hears it too
        said = process.communicate(timeout=120)[1]
        assert process.returncode == code, said
        assert signal.Signals(number).name in said
        assert "--resume" in said
        assert "Traceback" not in said
        last = json.loads(Path("demo/stopped/checkpoints/last/state.json").read_text())["step"]
        assert reached + 5 <= last < 150
        assert json.loads(log.read_text().splitlines()[-1])["step"] == last  # nothing was lost
        assert not Path("demo/stopped/model").exists()
        reached = last
    assert typed("predict", "demo/stopped", "--dry-run") == 0
    assert typed("predict", "demo/stopped", "--out", "none.jsonl") == 2
    assert not Path("none.jsonl").exists()
    assert typed(*card, "demo/stopped", "--resume") == 0
    steps = [json.loads(line).get("loss") and json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert [step for step in steps if step] == list(range(1, 151))
    assert json.loads(Path("demo/stopped/run.json").read_text())["steps"] == 150


def test_ctrl_c_before_the_first_step_writes_nothing(here):
    # Whoever runs these tests may ignore the signal, and children inherit that.
    process = subprocess.Popen(
        command(*TEACHER, "--out", "demo/early"),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    time.sleep(1.0)  # while libraries load
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=120)[1]
    assert process.returncode in (130, -signal.SIGINT), said
    assert not Path("demo/early").exists()
