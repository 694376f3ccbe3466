"""Words in, words out: nothing that a driving answer says may be lost on the way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from drivedistill.data.prompt import (
    PROBE,
    decode,
    load_tokenizer,
    make_exact,
    prompt,
    to_pixels,
    to_unit,
    train_tokenizer,
)
from drivedistill.problems import InputError

TAG = "<c1,CAM_BACK,1088.3,497.5>"
TEXTS = [f"What is the moving status of object {TAG}?", "Turn left.", "The ego vehicle is going straight."] * 10


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 400)


def test_tag_round_trips_exactly_with_digits_one_by_one(tokenizer):
    ids = tokenizer(TAG).input_ids
    assert decode(tokenizer, ids) == TAG
    pieces = tokenizer.convert_ids_to_tokens(ids)
    assert [piece for piece in pieces if any(c.isdigit() for c in piece)] == list("110883" + "4975")


@given(text=st.text(alphabet=st.characters(codec="utf-8"), max_size=60))
def test_every_text_round_trips(tokenizer, text):
    assert decode(tokenizer, tokenizer(text, split_special_tokens=True).input_ids) == text


def test_special_tokens_are_those_of_t5(tokenizer):
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)
    assert tokenizer("Stop.").input_ids[-1] == 1


def test_saved_tokenizer_is_the_same(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    again = load_tokenizer(str(tmp_path))
    assert again.get_vocab() == tokenizer.get_vocab()
    assert again(TAG).input_ids == tokenizer(TAG).input_ids


def test_training_a_tokenizer_twice_gives_the_same_vocabulary(tokenizer):
    assert train_tokenizer(TEXTS, 400).get_vocab() == tokenizer.get_vocab()


def test_vocabulary_below_the_bytes_is_refused():
    with pytest.raises(InputError, match="at least 259"):
        train_tokenizer(TEXTS, 100)


def sentence_piece_without_angle_bracket() -> PreTrainedTokenizerFast:
    """Like T5's: unigram pieces, blanks as a visible mark, `<` unknown."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(
        [text.replace("<", " ") for text in [*TEXTS, PROBE.replace("{going}", "going")]], trainer
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def test_characters_unknown_to_t5_are_added():
    tokenizer = sentence_piece_without_angle_bracket()
    assert "<" in make_exact(tokenizer, "t5")
    assert decode(tokenizer, tokenizer(f"{TAG} is ahead.").input_ids).replace(" ", "") == f"{TAG}isahead."


def test_missing_tokenizer_is_an_input_error():
    with pytest.raises(InputError, match="a tokenizer"):
        load_tokenizer("no/such-tokenizer")


def test_unit_coordinates_are_shares_of_the_picture():
    assert to_unit(f"at {TAG}.", lambda camera: (1600, 900)) == "at <c1,CAM_BACK,0.68019,0.55278>."


@given(x=st.integers(0, 16000), y=st.integers(0, 9000))
def test_points_come_back_from_unit_coordinates_exactly(x, y):
    text = f"<c1,CAM_FRONT_LEFT,{x / 10:.1f},{y / 10:.1f}>"
    assert to_pixels(to_unit(text, lambda camera: (1600, 900)), lambda camera: (1600, 900)) == text


def test_drivebench_points_of_four_decimals_are_read():
    assert to_pixels("<c1,CAM_BACK,0.6802,0.5528>", lambda camera: (1600, 900)) == "<c1,CAM_BACK,1088.3,497.5>"


def test_text_without_tags_is_left_alone():
    assert to_unit("Going ahead, 1088.3,497.5.", lambda camera: (1, 1)) == "Going ahead, 1088.3,497.5."


def test_prompt_is_that_of_em_vlm4ad():
    assert prompt("What now?") == "Question: What now? Answer:"
