"""`drivedistill probe` as a user types it: conditions side by side, gone on with, refused when asked in another way."""

import json
from pathlib import Path

import pytest

import tiny
from drivedistill.data.samples import write_samples
from drivedistill.recipe import save_recipe
from drivedistill.records import Prediction, read_jsonl
from drivedistill.subject import save_subject
from typed import typed


@pytest.fixture
def probe(tmp_path) -> list[str]:
    """The command for a tiny model and sixteen questions of a few scenes, taught on the same ones."""
    root = tmp_path / "drawn"
    root.mkdir()
    one = tiny.samples(tiny.pictures(root))
    other = [s.model_copy(update={"id": f"{s.id} b", "scene": "other", "frame": f"{s.frame} b"}) for s in one]
    write_samples(root / "train.jsonl", [*one, *other], root)
    subject = tiny.subject("driving_t5", tmp_path)
    save_subject(subject, subject.model, tmp_path / "model", "")
    save_recipe(tiny.recipe(tmp_path), tmp_path / "recipe.yaml")
    where = ["--data", str(root), "--format", "jsonl", "--out", str(tmp_path / "probe"), "--max-new-tokens", "3"]
    return ["probe", str(tmp_path / "model"), *where, "--prior", str(tmp_path / "recipe.yaml"), "--no-captions"]


def test_conditions_are_asked_side_by_side_and_gone_on_with(probe, tmp_path, capsys):
    assert typed(*probe, "--conditions", "black,none,prior,fog") == 0
    printed, said = capsys.readouterr()
    assert [line for line in said.splitlines() if " of 5)" in line] == [
        f"{name} ({number} of 5)" for number, name in enumerate(["clean", "black", "none", "prior", "fog:5"], start=1)
    ]
    folder = Path(tmp_path / "probe")
    for name, condition in {"clean": "clean", "black": "black", "none": "none", "fog-5": "fog:5"}.items():
        rows = read_jsonl(folder / f"{name}.jsonl", Prediction)
        assert len(rows) == 16 and {row.condition for row in rows} == {condition}
    assert {row.decode for row in read_jsonl(folder / "prior.jsonl", Prediction)} == {"text_only"}
    assert "fog:5" in printed and "too few scenes (5) for a verdict" in printed
    rows = json.loads((folder / "probe.json").read_text())
    prior = next(row for row in rows if row["condition"] == "text-only prior" and row["metric"] == "exact_match")
    assert prior["value"] > 0  # it was taught these very questions
    before = {path.name: path.read_bytes() for path in folder.glob("*.jsonl")}
    assert typed(*probe, "--conditions", "black,none,prior,fog") == 0
    assert {path.name: path.read_bytes() for path in folder.glob("*.jsonl")} == before


def test_answers_of_another_way_of_asking_are_not_mixed_in(probe, capsys):
    assert typed(*probe, "--conditions", "black") == 0
    capsys.readouterr()
    assert typed(*probe, "--conditions", "black", "--seed", "1") == 2
    printed = capsys.readouterr().err
    assert "settings.json: seed" in printed and "choose another --out" in printed


@pytest.mark.parametrize("conditions", ["fogg", "fog:9,rain:0"])
def test_unknown_conditions_are_refused(probe, tmp_path, conditions, capsys):
    assert typed(*probe, "--conditions", conditions) == 2
    assert f"{conditions.count(',') + 1} problem" in capsys.readouterr().err
    assert not (tmp_path / "probe").exists()


def test_a_prior_is_asked_for_later_and_damaged_settings_are_named(probe, tmp_path, capsys):
    assert typed(*probe[:-3], "--no-captions", "--conditions", "black") == 0  # a model without a recipe of its own
    assert typed(*probe, "--conditions", "black,prior") == 0
    (tmp_path / "probe" / "settings.json").write_text("{")
    capsys.readouterr()
    assert typed(*probe, "--conditions", "black") == 2
    assert "settings.json" in capsys.readouterr().err
