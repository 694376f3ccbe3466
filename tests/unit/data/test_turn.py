"""What a decoder-only model is given and what of it is supervised: tiles, headers and closings."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import tiny
from drivedistill import sections as cards
from drivedistill.batch import IGNORE, ROW_KINDS
from drivedistill.data.collate import collate, questions
from drivedistill.data.images import PictureCache
from drivedistill.data.turn import tile_settings, turn_of
from drivedistill.distill.teacher import first_difference
from drivedistill.evaluate.answering import teacher_forced
from drivedistill.models.hf_vlm import load_processor
from drivedistill.problems import InputError
from drivedistill.subject import load_subject, save_subject

CHATTING = ("internvl", "qwen2_5_vl")
HEADER, END, REST = "<|im_start|>assistant\n", "<|im_end|>", "\n"
TEMPLATE = ROW_KINDS.index("template")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("turn")
    for kind in tiny.VLMS:
        tiny.save_vlm(kind, found / kind)
    return found


@pytest.fixture(scope="module")
def samples(folder):
    return tiny.samples(tiny.pictures(folder))


def data(folder, **changes):
    source = cards.Source(name="drawn", format="jsonl", root=folder, regime="regular")
    return cards.Data(sources=[source], image_size=28, **changes)


def subject(folder, kind, own=False, name="", **changes):
    return load_subject(str(folder / (name or kind)), PictureCache(10), data=data(folder, **changes), own=own)


# --- what is supervised ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CHATTING)
def test_a_turn_is_supervised_from_its_header_to_its_last_line_break(kind, folder, samples):
    made = subject(folder, kind, supervise="turn")
    tokenizer = made.preparation.tokenizer
    batch = collate(samples, {"student": made.preparation})
    for b, sample in enumerate(samples):
        assert tokenizer.decode(batch.gold[batch.sample_of_row == b]) == HEADER + sample.answer + END + REST


@pytest.mark.parametrize("kind", CHATTING)
def test_every_supervised_position_predicts_the_next_input(kind, folder, samples):
    made = subject(folder, kind, supervise="turn")
    inputs = collate(samples, {"student": made.preparation}).role("student")
    ids = inputs.model["input_ids"]
    for b in range(len(samples)):
        places = (inputs.targets[b] != IGNORE).nonzero().squeeze(1)
        assert torch.equal(places, torch.arange(int(places[0]), int(places[-1]) + 1))
        assert torch.equal(inputs.targets[b, places], ids[b, places + 1])
        assert int(places[-1]) + 2 == int(inputs.model["attention_mask"][b].sum()), "to the end of the sequence"


@pytest.mark.parametrize("kind", CHATTING)
def test_kinds_of_rows_stay_with_their_tokens(kind, folder, samples):
    plain, whole = (
        collate(samples, {"student": subject(folder, kind, supervise=what).preparation}) for what in ("answer", "turn")
    )
    words = whole.row_kind != TEMPLATE
    assert not (plain.row_kind == TEMPLATE).any()
    for name in ("gold", "row_kind", "sample_of_row"):
        assert torch.equal(getattr(whole, name)[words], getattr(plain, name)), name
    kept = whole.keep(words)
    assert torch.equal(kept.role("student").targets.flatten()[kept.role("student").rows], plain.gold)


@pytest.mark.parametrize("kind", CHATTING)
def test_questions_and_answers_are_written_as_before(kind, folder, samples):
    plain, whole = (subject(folder, kind, supervise=what) for what in ("answer", "turn"))
    for sample in samples[:2]:
        asked = [questions([sample], item.preparation) for item in (plain, whole)]
        assert all(torch.equal(asked[0][key], asked[1][key]) for key in asked[0])
        answers = [teacher_forced(item, torch.device("cpu"), [sample])[0] for item in (plain, whole)]
        assert answers[0].text == answers[1].text
        assert answers[0].tokens == answers[1].tokens


def test_without_pictures_a_turn_is_the_same(folder, samples):
    made = subject(folder, "internvl", supervise="turn")
    blind = replace(made.preparation, blind=True)
    assert torch.equal(collate(samples, {"student": blind}).gold, collate(samples, {"student": made.preparation}).gold)


def test_a_template_without_an_end_token_is_refused(folder):
    with pytest.raises(InputError, match=r"data\.supervise"):
        subject(folder, "llava", supervise="turn")
    assert subject(folder, "llava").identity.supervise == "answer"


def test_an_answer_that_the_template_changes_is_refused():
    processor = tiny.internvl()[1]
    processor.chat_template = processor.chat_template.replace("{{ c['text'] }}", "{{ c['text'] | upper }}")
    with pytest.raises(InputError, match="KEEP LANE"):
        turn_of(processor)


def test_an_encoder_decoder_has_neither_tiles_nor_a_turn(tmp_path):
    from drivedistill.build import build_student

    card = tiny.recipe(tmp_path, data__tiles="dynamic", data__supervise="turn")
    with pytest.raises(InputError) as caught:
        build_student(card.model, card.data, PictureCache(1), tiny.samples(tiny.pictures(tmp_path)))
    assert [problem.record for problem in caught.value.problems] == ["data.tiles", "data.supervise"]


# --- tiles ----------------------------------------------------------------------------------------------------------


def image_tokens(made, sample):
    ids = questions([sample], made.preparation)["input_ids"]
    return int((ids == made.preparation.processor.image_token_id).sum()) // len(sample.images)


def test_internvl_makes_one_tile_or_as_many_as_the_shape_wants(folder, samples):
    """Pictures of 160 x 90 pixels, at most twelve tiles of 28: 4 x 2 is nearest to their shape, and a thumbnail."""
    one, many = (subject(folder, "internvl", tiles=tiles) for tiles in ("one", "dynamic"))
    assert image_tokens(one, samples[1]) == 4
    assert image_tokens(many, samples[1]) == 4 * (4 * 2 + 1)
    assert questions([samples[1]], one.preparation)["pixel_values"].shape == (6, 3, 28, 28)


def test_a_picture_of_several_tiles_is_one_tile_when_asked(folder, samples):
    made = load_subject(
        str(folder / "internvl"), PictureCache(10), data=data(folder).model_copy(update={"image_size": 112})
    )
    assert image_tokens(made, samples[1]) == 4


@pytest.mark.parametrize("side", [28, 56, 112, 448])
def test_qwen_takes_the_pixels_of_the_square_whatever_its_processor_says(side, folder):
    processor = load_processor(str(folder / "qwen2_5_vl"))
    blank = torch.zeros(3, side, side, dtype=torch.uint8)
    for limits in (
        {"shortest_edge": 28 * 28, "longest_edge": 56 * 56},
        {"shortest_edge": 224**2, "longest_edge": 10**7},
    ):
        processor.image_processor.size = limits
        settings = tile_settings(processor, "one", side)
        ids = processor(text=[processor.image_token], images=[[blank]], return_tensors="pt", **settings).input_ids
        assert int((ids == processor.image_token_id).sum()) == (side // 28) ** 2


def test_qwen_keeps_a_pictures_shape_when_asked(folder, samples):
    """160 x 90 pixels are 6 x 3 cells of 28, more than the processor's 8: scaled to 3 x 2."""
    assert image_tokens(subject(folder, "qwen2_5_vl", tiles="dynamic"), samples[1]) == 6
    assert image_tokens(subject(folder, "qwen2_5_vl"), samples[1]) == 1


def test_a_model_without_tiles_is_refused_by_name(folder):
    with pytest.raises(InputError, match=r"(?s)data\.tiles.*llava"):
        subject(folder, "llava", tiles="dynamic")


def test_the_way_of_reading_is_saved_beside_the_model(folder, tmp_path):
    made = subject(folder, "internvl", tiles="dynamic", supervise="turn")
    save_subject(made, made.model, tmp_path / "model", "")
    reading = load_subject(str(tmp_path / "model"), PictureCache(1)).preparation.reading
    assert (reading.tiles, reading.supervise) == ("dynamic", "turn")


# --- teacher and student --------------------------------------------------------------------------------------------


def difference(folder, kind, teacher, student):
    return first_difference(subject(folder, kind, **teacher).identity, subject(folder, kind, **student).identity)


def resaved(folder, kind, name, change):
    """The same model with a processor that was changed."""
    processor = load_processor(str(folder / kind))
    change(processor)
    tiny.save_vlm(kind, folder / name)
    processor.save_pretrained(folder / name)
    return name


def test_other_supervised_tokens_are_the_first_difference(folder):
    found = difference(folder, "internvl", {"supervise": "turn"}, {"supervise": "answer"})
    assert found == "the turn is supervised for the teacher, the answer for the student"


def test_other_tiles_are_the_first_difference(folder):
    found = difference(folder, "qwen2_5_vl", {"tiles": "one"}, {"tiles": "dynamic"})
    assert found == "pictures in their own shape for the student (tiles: dynamic), as one tile for the teacher"


@pytest.mark.parametrize(
    ("kind", "setting", "value"),
    [
        ("internvl", "max_patches", 6),
        ("qwen2_5_vl", "size", {"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 4}),
        ("qwen2_5_vl", "size", {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 8}),
    ],
)
def test_processors_that_differ_matter_for_pictures_in_their_own_shape_only(kind, setting, value, folder):
    other = resaved(
        folder, kind, f"{kind}-{value}".replace(" ", ""), lambda p: setattr(p.image_processor, setting, value)
    )
    for tiles, differs in (("one", False), ("dynamic", True)):
        found = difference(folder, kind, {"name": other, "tiles": tiles}, {"tiles": tiles})
        assert (found is not None) == differs
        assert not differs or found.startswith(setting) or "image tokens per picture" in found


@pytest.mark.parametrize("kind", CHATTING)
def test_another_chat_template_is_the_first_difference(kind, folder):
    def speak(processor):
        processor.chat_template = processor.chat_template.replace("user", "driver") + "{# other #}"

    other = resaved(folder, kind, f"{kind}-other", speak)
    assert "other" in str(difference(folder, kind, {"name": other}, {}))


def test_a_pair_that_differs_is_refused_before_training(folder, tmp_path):
    from drivedistill.runs import assemble

    taught = subject(folder, "internvl", supervise="turn")
    save_subject(taught, taught.model, tmp_path / "teacher", "")
    paths = {"model": {"path": str(folder / "internvl")}, "teacher": {"path": str(tmp_path / "teacher")}}
    card = tiny.recipe(tmp_path, data__image_size=28, **paths)
    with pytest.raises(InputError, match="the turn is supervised for the teacher"):
        assemble(card)
    assert assemble(card.model_copy(update={"data": card.data.model_copy(update={"supervise": "turn"})}))
