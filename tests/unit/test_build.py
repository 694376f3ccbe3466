"""From a recipe to models: what is looked at before anything is loaded."""

from __future__ import annotations

import pytest

import tiny
from drivedistill.build import build_student
from drivedistill.data.drivelm_challenge import CHOOSE
from drivedistill.data.images import PictureCache
from drivedistill.problems import InputError
from drivedistill.runs import assemble
from drivedistill.subject import load_subject, refuse_missing


def test_every_missing_run_is_named_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    card = tiny.recipe(
        tmp_path,
        data__sources=[{"name": "gone", "format": "jsonl", "root": "gone", "regime": "regular"}],
        model={"preset": "tiny", "tokenizer": "./words", "vision_weights": "runs/tower"},
        teacher={"path": str(tmp_path / "teacher")},
    )
    with pytest.raises(InputError, match="train it first") as caught:
        assemble(card)
    assert [problem.record for problem in caught.value.problems] == [
        "model.vision_weights",
        "model.tokenizer",
        "teacher.path",
    ]


def test_hub_ids_are_left_to_the_hub_and_what_is_there_is_fine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo/teacher").mkdir(parents=True)
    refuse_missing({"a": "google-t5/t5-small", "b": "gpt2", "c": "demo/teacher", "d": str(tmp_path)})
    for name in ("demo/student", "runs/teacher", "../a", "/a", "a/b/c"):
        with pytest.raises(InputError, match="no such file or folder"):
            refuse_missing({"model.path": name})
    with pytest.raises(InputError, match="no such file or folder"):
        load_subject("demo/student", None)


@pytest.mark.parametrize(("choices", "listed"), [("letter", True), ("words", False)])
def test_a_tokenizer_is_trained_on_what_the_model_reads_and_writes(tmp_path, choices, listed):
    asked = f"Whither?{CHOOSE}A. Leftwards. B. Zigzagging."
    fields = {**tiny.SPOKEN, "question": asked, "answer": "A"}
    samples = [tiny.Sample(**{**fields, "id": str(number)}) for number in range(9)]
    card = tiny.recipe(tmp_path, data__choices=choices, model__allow_random=True, model__tokenizer_size=420)
    subject = build_student(card.model, card.data, PictureCache(0), samples)
    tokenize = subject.preparation.tokenizer.tokenize
    assert any("Zigzagging" in token for token in tokenize("It is Zigzagging.")) == listed
    assert tokenize("Whither?")[0] == "Whither"
    assert (tokenize("Leftwards.")[0] == "Leftwards") or listed, "the answer in words"
