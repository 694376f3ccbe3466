"""The vision tower looks at a picture once, however many questions are asked about it, and sees what it saw alone."""

from __future__ import annotations

import pytest
import torch

import tiny
from drivedistill.data.collate import questions
from drivedistill.evaluate.answering import subject_answerer
from drivedistill.evaluate.decoding import decoding
from drivedistill.evaluate.seen_views import SeenViews
from drivedistill.records import Region


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return tiny.samples(tiny.pictures(tmp_path_factory.mktemp("pictures")))


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    found = tiny.subject("driving_t5", tmp_path_factory.mktemp("model"))
    found.model.eval()
    return found


def test_every_view_is_seen_once_and_remembered_for_the_next_batch(subject, drawn):
    seen = SeenViews(subject.model.vision, subject.preparation)
    seen.look(drawn)  # eight questions, the same six pictures
    assert seen.looks == 6
    seen.look(drawn[:1])  # one picture, which is known
    seen.look(drawn[:2])  # it is still known, the five others were forgotten
    assert seen.looks == 6 + 5


def test_features_are_those_of_every_question_alone(subject, drawn):
    boxed = drawn[0].model_copy(
        update={
            "id": "boxed",
            "region": Region(camera=next(iter(drawn[0].images)), box=(10, 10, 60, 50), category="car"),
        }
    )
    samples = [*drawn, boxed]
    seen = SeenViews(subject.model.vision, subject.preparation)
    seen.look(samples)
    assert seen.looks == 7, "a region is drawn into the picture, which is another one then"
    for sample in samples:
        live = questions([sample], subject.preparation)
        path = next(iter(sample.images.values()))
        expected = subject.model.vision(live["pixel_values"], live["view_mask"])[live["view_mask"]][0]
        assert torch.allclose(seen.read(path, sample.region, "target"), expected, atol=1e-5)


def test_predicting_looks_at_each_picture_once(subject, drawn, monkeypatch):
    given = []
    forward = subject.model.vision.forward
    monkeypatch.setattr(subject.model.vision, "forward", lambda p, m=None: (given.append(len(p)), forward(p, m))[1])
    answers = subject_answerer(subject, decoding("greedy", 6), drawn)(drawn)
    assert given == [6]
    assert len(answers) == len(drawn)
    given.clear()
    subject_answerer(subject, decoding("greedy", 6), drawn, blind=True)(drawn)
    assert given == []
