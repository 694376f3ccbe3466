"""Every answer token knows whether it is a word, a number, or a part of an object's tag."""

from __future__ import annotations

import pytest

import tiny
from drivedistill.batch import ROW_KINDS
from drivedistill.data.prompt import train_tokenizer
from drivedistill.data.row_kinds import row_kinds

TEXT = "Brake for <c2,CAM_BACK,1088.3,497.5>, 12 m away."


@pytest.fixture(scope="module", params=["t5", *tiny.VLMS])
def tokenizer(request):
    return train_tokenizer([TEXT] * 9, 300) if request.param == "t5" else tiny.VLMS[request.param]()[1].tokenizer


def spelt(tokenizer, text):
    """The text of every kind, put together again."""
    ids = [*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    kinds = row_kinds(text, tokenizer)
    assert len(ids) == len(kinds)
    return {
        name: tokenizer.decode([i for i, k in zip(ids, kinds, strict=True) if k == place])
        for place, name in enumerate(ROW_KINDS)
        if place in kinds
    }


def test_parts_of_a_tag_and_numbers_are_told_apart(tokenizer):
    found = spelt(tokenizer, TEXT)
    assert found.pop("end") == tokenizer.eos_token
    assert found.keys() >= {"word", "number", "coordinate", "id", "camera"}
    assert "Brake" in found["word"] and "1088" not in found["word"]
    assert "1088.3,497.5" in found["coordinate"].replace(" ", "")
    assert "2" in found["id"] and "BACK" in found["camera"]
    assert "12" in found["number"].replace(" ", "")


def test_an_empty_answer_has_its_end(tokenizer):
    assert [ROW_KINDS[kind] for kind in row_kinds("", tokenizer)] == ["end"]


def test_plain_words_hold_no_numbers(tokenizer):
    assert set(spelt(tokenizer, "Slow down.")) == {"word", "end"}
