"""The places that a question names, as a model is given them."""

from dataclasses import replace

import pytest
import torch

import tiny
from drivedistill.data.collate import collate, questions
from drivedistill.data.points import MAX_POINTS, named_points, points
from drivedistill.records import CAMERAS

WIDTH, HEIGHT = 160, 90
BACK, FRONT = CAMERAS.index("CAM_BACK"), CAMERAS.index("CAM_FRONT")
NONE = torch.tensor([-1.0, 0.0, 0.0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("points")


@pytest.fixture(scope="module")
def sample(folder):
    return tiny.samples(tiny.pictures(folder, (WIDTH, HEIGHT)))[1]


@pytest.fixture(scope="module")
def preparation(folder):
    plain = tiny.subject("driving_t5", folder).preparation
    return replace(plain, reading=plain.reading.model_copy(update={"points": True}))


def asking(sample, question, **changes):
    return sample.model_copy(update={"question": question, **changes})


@pytest.fixture(scope="module")
def asked(sample):
    """Two places, none, one."""
    return [
        asking(sample, "Is <c1,CAM_BACK,40.0,45.0> behind <c2,CAM_FRONT,160.0,22.5>?", id="two"),
        asking(sample, "Is it raining?", id="none"),
        asking(sample, "What is <c7,CAM_FRONT,16.0,81.0>?", id="one"),
    ]


def test_places_are_shares_of_the_picture_in_order_of_mention(asked, preparation):
    found = questions(asked, preparation)["points"]
    two = [[BACK, 0.25, 0.5], [FRONT, 1.0, 0.25]]
    one = [[FRONT, 0.1, 0.9], NONE.tolist()]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.tensor([two, [NONE.tolist()] * 2, one]))


def test_order_of_mention_and_not_of_cameras_or_names(sample):
    tags = ["<c2,CAM_FRONT,16.0,9.0>", "<c1,CAM_BACK,32.0,9.0>"]
    there, back = (named_points(asking(sample, " and ".join(order))) for order in (tags, tags[::-1]))
    assert there == back[::-1]
    assert [camera for camera, _, _ in there] == [FRONT, BACK]


def test_a_place_named_twice_counts_twice(sample):
    assert len(named_points(asking(sample, "<c1,CAM_BACK,1.0,2.0> or <c1,CAM_BACK,1.0,2.0>?"))) == 2


def test_other_samples_only_pad(asked, preparation):
    together = questions(asked, preparation)["points"]
    for row, sample in zip(together, asked, strict=True):
        alone = questions([sample], preparation)["points"][0]
        assert torch.equal(row[: len(alone)], alone)
        assert torch.equal(row[len(alone) :], NONE.expand(len(row) - len(alone), 3))


def test_permuted_samples_have_permuted_places(asked):
    assert torch.equal(points([asked[i] for i in (2, 0, 1)]), points(asked)[[2, 0, 1]])


def test_unit_coordinates_in_the_text_are_the_same_places(asked, preparation):
    unit = replace(preparation, reading=preparation.reading.model_copy(update={"coordinates": "unit"}))
    ours, theirs = questions(asked, preparation), questions(asked, unit)
    assert not torch.equal(ours["input_ids"], theirs["input_ids"])
    assert torch.equal(ours["points"], theirs["points"])


def test_training_sees_the_places_of_generation(asked, preparation):
    learnt = collate(asked, {"student": preparation}).role("student").model
    assert torch.equal(learnt["points"], questions(asked, preparation)["points"])


def test_the_answer_gives_no_place(sample, preparation):
    silent = asking(sample, "What now?", answer="Mind <c1,CAM_BACK,1.0,2.0>.")
    assert collate([silent], {"student": preparation}).role("student").model["points"].shape == (1, 0, 3)


def test_a_batch_that_names_no_place_has_none(asked, preparation):
    assert questions([asked[1]] * 2, preparation)["points"].shape == (2, 0, 3)


def test_a_blind_model_gets_no_place_and_opens_no_picture(asked, preparation):
    gone = [sample.model_copy(update={"images": dict.fromkeys(CAMERAS, "/nowhere.png")}) for sample in asked]
    assert questions(gone, replace(preparation, blind=True))["points"].shape == (3, 0, 3)


def test_a_reading_without_points_gives_none(asked, preparation):
    plain = replace(preparation, reading=preparation.reading.model_copy(update={"points": False}))
    assert "points" not in questions(asked, plain)


def test_places_without_a_picture_give_nothing(sample):
    front = {"CAM_FRONT": sample.images["CAM_FRONT"]}
    question = "<c1,CAM_BACK,1.0,2.0> <c2,CAM_FRONT,80.0,45.0> <c3,CAM_ROOF,1.0,2.0>"
    assert named_points(asking(sample, question, images=front)) == [(FRONT, 0.5, 0.5)]


def test_places_outside_are_moved_to_the_edge(sample):
    assert named_points(asking(sample, "<c1,CAM_BACK,-3.0,400.0>")) == [(BACK, 0.0, 1.0)]


def test_options_are_not_asked_about(sample):
    proper = "What is at <c1,CAM_BACK,40.0,45.0>?"
    choice = " Please select the correct answer from the following options: A. <c2,CAM_FRONT,1.0,2.0>. B. Nothing."
    assert named_points(asking(sample, proper + choice)) == named_points(asking(sample, proper)) == [(BACK, 0.25, 0.5)]


def test_the_first_places_are_kept_of_a_long_list(sample):
    tags = [f"<c{i},CAM_FRONT,{16 * i}.0,9.0>" for i in range(10)]
    found = named_points(asking(sample, " ".join(tags)))
    assert [x for _, x, _ in found] == pytest.approx([i / 10 for i in range(MAX_POINTS)])
