"""A model that is given the places of a question looks at them, whatever else is in the batch."""

import pytest
import torch

import tiny
from drivedistill import sections as cards
from drivedistill.build import build_student
from drivedistill.data.collate import collate, questions
from drivedistill.data.images import PictureCache
from drivedistill.evaluate.answering import model_inputs
from drivedistill.models.fusion import IMAGE
from drivedistill.models.student import Student, full_logits
from drivedistill.problems import InputError
from drivedistill.subject import READING, load_subject, save_subject

TOWERS = {
    "convnext": {"depths": [1, 1], "hidden_sizes": [16, 32], "num_stages": 2},
    "pyramid": {"model_type": "pyramid", "width": 16, "view_width": 8},
}
TAGS = ["<c1,CAM_FRONT,20.0,30.0>", "<c2,CAM_FRONT,150.0,80.0>"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("named")


@pytest.fixture(scope="module")
def samples(folder):
    """Two places, none, one, one in a picture that this sample does not have."""
    made = tiny.samples(tiny.pictures(folder))
    asked = [
        f"Is {TAGS[0]} behind {TAGS[1]}?",
        "Is it raining?",
        f"What is {TAGS[1]}?",
        "What is <c1,CAM_BACK,9.0,9.0>?",
    ]
    return [sample.model_copy(update={"question": text}) for sample, text in zip(made[:4], asked, strict=True)]


def build(folder, tower="convnext", more=None, **data):
    torch.manual_seed(0)
    text = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0}
    overrides = {"text": text, "vision": TOWERS[tower], "fusion_hidden": 8} | (more or {})
    card = cards.Model(preset="tiny", overrides=overrides, tokenizer_size=300, allow_random=True)
    subject = build_student(card, section(folder, **{"points": True, **data}), PictureCache(50), SPOKEN)
    subject.model.eval()
    return subject


SPOKEN = [tiny.Sample(**{**tiny.SPOKEN, "question": q, "answer": a}) for q, a in tiny.QUESTIONS]


def section(folder, **fields):
    source = cards.Source(name="drawn", format="jsonl", root=folder, regime="regular")
    return cards.Data(sources=[source], image_size=32, **fields)


@pytest.fixture(
    scope="module", params=[(tower, layout) for tower in TOWERS for layout in ("compact", "padded")], ids=str
)
def subject(request, folder):
    tower, layout = request.param
    return build(folder, tower, layout=layout)


@torch.no_grad()
def logits(subject, samples, change=None):
    batch = collate(samples, {"student": subject.preparation})
    if change:
        change(batch.role("student").model["points"])
    rows = Student(subject.model)(batch).logits
    return [rows[batch.sample_of_row == b] for b in range(len(samples))]


def test_the_answer_depends_on_the_named_place_and_on_no_other_samples(subject, samples):
    def move(points):
        points[0, 1, 1] = 0.1  # the second place of the first sample, to the left

    still, moved = logits(subject, samples), logits(subject, samples, move)
    assert (still[0] - moved[0]).abs().max() > 1e-4
    for before, after in zip(still[1:], moved[1:], strict=True):
        assert torch.equal(before, after)


def test_what_is_seen_there_matters_and_not_only_where_it_is(subject, samples):
    """The same place in another camera's picture; equal camera embeddings leave nothing but the pictures to differ."""
    weight = subject.model.camera_embedding.weight
    own = weight.detach().clone()

    def other_camera(points):
        points[2, 0, 0] = 1

    with torch.no_grad():
        weight.copy_(own[:1].expand_as(own))
        front, left = logits(subject, samples)[2], logits(subject, samples, other_camera)[2]
        weight.copy_(own)
    assert (front - left).abs().max() > 1e-5


def test_places_of_other_samples_only_pad(subject, samples):
    together = logits(subject, samples)
    for sample, rows in zip(samples, together, strict=True):
        if subject.model.config.layout == "compact":
            torch.testing.assert_close(rows, logits(subject, [sample])[0], atol=2e-5, rtol=1e-4)
    for rows, turned in zip(together, reversed(logits(subject, samples[::-1])), strict=True):
        torch.testing.assert_close(rows, turned, atol=2e-5, rtol=1e-4)


def test_rows_equal_the_models_own_logits(subject, samples):
    batch = collate(samples, {"student": subject.preparation})
    ours = Student(subject.model)(batch).logits
    torch.testing.assert_close(ours, full_logits(subject.model, batch.role("student")), atol=1e-5, rtol=1e-5)


def test_every_place_that_can_be_seen_is_one_image_token(subject, samples):
    inputs = questions(samples, subject.preparation)
    names = ("input_ids", "attention_mask", "view_mask")
    with_places, without = (
        (subject.model.token_kind(*(inputs[name] for name in names), points) == IMAGE).sum(dim=1)
        for points in (inputs["points"], None)
    )
    assert (with_places - without).tolist() == [2, 0, 1, 0]
    _, mask = subject.model.encode(**inputs)
    assert mask.sum(dim=1).tolist() == (inputs["attention_mask"].sum(dim=1) + with_places).tolist()


def test_written_answers_are_those_of_the_places_whatever_the_batch(folder, samples):
    subject = build(folder)

    def first_scores(some, move=0.0):
        inputs = questions(some, subject.preparation)
        inputs["points"][:, :, 1:] += move
        options = {"max_new_tokens": 2, "output_scores": True, "return_dict_in_generate": True}
        return subject.model.generate(**inputs, **options).scores[0]

    together = first_scores(samples)
    alone = torch.cat([first_scores([sample]) for sample in samples])
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-4)
    assert [bool(moved) for moved in (together != first_scores(samples, 0.2)).any(dim=1)] == [True, False, True, False]


def test_places_stay_exact_for_a_model_of_low_precision(folder, samples):
    subject = build(folder)
    subject.model.to(torch.bfloat16)
    inputs = model_inputs(subject, torch.device("cpu"), samples)
    assert inputs["pixel_values"].dtype == torch.bfloat16
    assert torch.equal(inputs["points"], questions(samples, subject.preparation)["points"])
    subject.model.generate(**inputs, max_new_tokens=2)


def test_a_built_model_tells_cameras_apart(folder):
    assert build(folder).model.camera_embedding is not None
    assert build(folder, points=False).model.points is None


def test_a_saved_model_wants_what_it_was_built_for(folder):
    cache = PictureCache(50)
    for points in (True, False):
        saved = folder / f"points-{points}"
        subject = build(folder, points=points)
        save_subject(subject, subject.model, saved, "")
        assert load_subject(str(saved), cache).preparation.reading.points == points
        assert load_subject(str(saved), cache, data=section(folder, points=points)).model.config.points == points
        assert load_subject(str(saved), cache, data=section(folder, points=not points), own=True)
        with pytest.raises(InputError, match=rf"data\.points\n +expected: {str(points).lower()}, for which"):
            load_subject(str(saved), cache, data=section(folder, points=not points))
        (saved / READING).unlink()
        assert load_subject(str(saved), cache).preparation.reading.points == points


def test_a_hugging_face_model_is_refused_points(folder):
    path = tiny.save_vlm("llava", folder / "llava")
    with pytest.raises(InputError, match=r"data\.points"):
        load_subject(str(path), PictureCache(50), data=section(folder, points=True))
    assert not load_subject(str(path), PictureCache(50), data=section(folder)).preparation.reading.points


def test_lora_leaves_the_places_learning(folder):
    card = cards.Model(preset="tiny", tokenizer_size=300, allow_random=True, lora=cards.Lora(r=2, alpha=2))
    subject = build_student(card, section(folder, points=True), PictureCache(50), SPOKEN)
    learning = {name for name, parameter in subject.model.named_parameters() if parameter.requires_grad}
    assert any(name.endswith("points.place.weight") for name in learning)


@pytest.mark.parametrize("points", [True, False])
def test_a_model_that_is_to_be_built_otherwise_than_it_is_asked_is_refused(folder, points):
    assert build(folder, more={"points": points}, points=points).model.config.points == points
    with pytest.raises(InputError) as error:
        build(folder, more={"points": not points}, points=points)
    (problem,) = error.value.problems
    assert (problem.record, problem.found) == ("model.overrides.points", str(not points).lower())
