"""The contracts of a batch: shift, rows, masks. A wrong shift or an unmasked pad must fail here."""

from dataclasses import replace

import pytest
import torch

import tiny
from drivedistill.batch import IGNORE
from drivedistill.data.collate import Reading, collate, questions, refuse_long, refuse_unlabelled, views
from drivedistill.data.drivelm_challenge import CHOOSE
from drivedistill.problems import InputError
from drivedistill.records import CAMERAS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("collate")


@pytest.fixture(scope="module")
def samples(folder):
    return tiny.samples(tiny.pictures(folder))


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def subject(request, folder):
    return tiny.subject(request.param, folder)


def batch_of(samples, subject):
    return collate(samples, {"student": subject.preparation})


def test_rows_spell_the_answers_and_their_end(samples, subject):
    batch = batch_of(samples, subject)
    tokenizer = subject.preparation.tokenizer
    for b, sample in enumerate(samples):
        ids = batch.gold[batch.sample_of_row == b]
        assert tokenizer.decode(ids[:-1]) == sample.answer
        assert ids[-1] == tokenizer.eos_token_id


def test_first_answer_token_is_supervised_at_the_last_position_before_it(samples, subject):
    """The classic silent bug: a mask that is one off skips the token that carries the decision."""
    batch = batch_of(samples, subject)
    inputs = batch.role("student")
    fed = inputs.model.get("decoder_input_ids", inputs.model["input_ids"])
    for b in range(len(samples)):
        positions = (inputs.targets[b] != IGNORE).nonzero().squeeze(1)
        assert torch.equal(positions, torch.arange(int(positions[0]), int(positions[-1]) + 1))
        shifted = inputs.targets[b, positions[:-1]]
        assert torch.equal(fed[b, positions[1:]], shifted), "what a position predicts is fed to the next one"
        first = int(positions[0])
        if "decoder_input_ids" in inputs.model:
            assert first == 0
            assert fed[b, 0] == subject.preparation.tokenizer.pad_token_id
        else:
            prompt = questions([samples[b]], subject.preparation)["input_ids"][0]
            assert first == len(prompt) - 1


def test_no_padding_is_supervised_and_padding_comes_last(samples, subject):
    inputs = batch_of(samples, subject).role("student")
    mask = inputs.model["attention_mask"]
    assert ((mask[:, 1:] <= mask[:, :-1]) | (mask[:, :-1] == 1)).all()
    answer_mask = inputs.model.get("decoder_attention_mask", mask)
    assert (inputs.targets[answer_mask == 0] == IGNORE).all()


def test_batch_never_carries_labels(samples, subject):
    assert "labels" not in batch_of(samples, subject).role("student").model


def test_counts_are_known_before_any_forward(samples, subject):
    batch = batch_of(samples, subject)
    alone = [batch_of([sample], subject).num_tokens for sample in samples]
    assert batch.num_tokens == sum(alone)
    assert batch.num_samples == len(samples)
    assert torch.bincount(batch.sample_of_row).tolist() == alone


def test_generation_inputs_are_the_training_prompt(samples, subject):
    for sample in samples[:3]:
        asked = questions([sample], subject.preparation)["input_ids"][0]
        trained = batch_of([sample], subject).role("student").model["input_ids"][0]
        assert torch.equal(trained[: len(asked)], asked)


def test_one_view_and_six_views_share_a_batch(samples, folder):
    subject = tiny.subject("driving_t5", folder)
    masks = batch_of(samples, subject).role("student").model["view_mask"]
    assert sorted(set(masks.sum(dim=1).tolist())) == [1, 6]


TAGS = "<c1,CAM_BACK,100.0,50.0> and <c2,CAM_FRONT_LEFT,0.1,0.2>"


@pytest.mark.parametrize(
    ("question", "seen"),
    [
        ("What should the ego vehicle do?", list(CAMERAS)),
        (f"Do {TAGS} move in the same direction?", ["CAM_FRONT_LEFT", "CAM_BACK"]),
        ("How many cars are visible in CAM_BACK_RIGHT?", ["CAM_BACK_RIGHT"]),
        ("What is <c1,CAM_NOWHERE,1.0,2.0>?", list(CAMERAS)),
        (f"What hides it?{CHOOSE}A. Left. B. {TAGS}.", list(CAMERAS)),
    ],
)
def test_named_views_are_those_of_the_cameras_that_the_question_names(samples, folder, question, seen):
    asked = samples[1].model_copy(update={"question": question})
    reading = Reading(family="hf_vlm", image_size=28, choices="words", views="named")
    assert [camera for camera, _, _ in views(asked, reading)] == seen, "in nuScenes order; all where none is there"
    assert [camera for camera, _, _ in views(asked, reading.model_copy(update={"views": "all"}))] == list(CAMERAS)
    assert len(list(views(asked))) == 6


@pytest.mark.parametrize("family", ["driving_t5", "internvl"])
def test_models_of_both_families_see_named_views_only(samples, folder, family):
    whole = tiny.subject(family, folder).preparation
    named = replace(whole, reading=whole.reading.model_copy(update={"views": "named"}))
    pair = [samples[1], samples[4]]
    assert [list(sample.images) for sample in pair] == [list(CAMERAS)] * 2 and "CAM_BACK," in pair[0].question
    inputs = collate(pair, {"student": named}).role("student")
    every = collate(pair, {"student": whole}).role("student")
    if family == "driving_t5":
        assert inputs.model["view_mask"].sum(1).tolist() == [1, 6]
        assert inputs.model["view_mask"][0].nonzero().tolist() == [[CAMERAS.index("CAM_BACK")]]
    else:
        assert (inputs.token_kind == 1).sum(1).tolist() == [4, 24]
        back = every.model["pixel_values"][CAMERAS.index("CAM_BACK")]
        assert torch.equal(inputs.model["pixel_values"][0], back)
        assert questions(pair, named)["pixel_values"].shape[0] == 7


def test_image_tokens_are_marked(samples, folder):
    subject = tiny.subject("internvl", folder)
    batch = batch_of(samples[:2], subject)
    kinds = batch.role("student").token_kind
    assert (kinds == 1).sum(dim=1).tolist() == [4, 24]
    assert ((kinds == 2) == (batch.role("student").model["attention_mask"] == 0)).all()


def test_unlabelled_samples_are_refused_with_their_ids(samples):
    silent = [sample.model_copy(update={"answer": None}) for sample in samples[:2]]
    with pytest.raises(InputError) as caught:
        refuse_unlabelled(silent)
    assert [problem.record for problem in caught.value.problems] == ["sample s0", "sample s1"]


def test_long_texts_are_refused_and_never_cut(samples, folder):
    subject = tiny.subject("driving_t5", folder)
    long = samples[0].model_copy(update={"answer": "very " * 600, "question": "why " * 600})
    with pytest.raises(InputError) as caught:
        refuse_long([samples[1], long], subject.preparation)
    assert len(caught.value.problems) == 2
    with pytest.raises(InputError, match="question tokens"):
        batch_of([long], subject)


def test_image_token_inside_a_question_is_refused(samples, folder):
    subject = tiny.subject("internvl", folder)
    with pytest.raises(InputError, match="image token"):
        batch_of([samples[0].model_copy(update={"question": "<IMG_CONTEXT> what?"})], subject)


def test_roles_that_supervise_other_tokens_are_refused(samples, folder):
    student, teacher = tiny.subject("driving_t5", folder), tiny.subject("internvl", folder)
    with pytest.raises(ValueError, match="supervises other tokens"):
        collate(samples, {"student": student.preparation, "teacher": teacher.preparation})


def test_region_outside_unit_coordinates_names_the_missing_camera(samples, folder):
    subject = tiny.subject("driving_t5", folder)
    reading = subject.preparation.reading.model_copy(update={"coordinates": "unit"})
    from dataclasses import replace

    unit = replace(subject.preparation, reading=reading)
    sample = samples[1].model_copy(update={"images": {"CAM_FRONT": samples[1].images["CAM_FRONT"]}})
    with pytest.raises(InputError, match="CAM_BACK"):
        collate([sample], {"student": unit})
    text = collate([samples[1]], {"student": unit})
    assert "0.62500,0.55556" in subject.preparation.tokenizer.decode(text.gold)
