"""A pair is checked before the first step; live and fake teachers are interchangeable."""

from dataclasses import replace

import pytest
import torch

import tiny
from drivedistill.data.collate import collate
from drivedistill.distill.miner import Plan
from drivedistill.distill.objective import Answers, Moment
from drivedistill.distill.teacher import LiveTeacher, first_difference, identity_of, require_agreement
from drivedistill.models.student import Student
from drivedistill.problems import InputError
from drivedistill.runs import assemble, run
from fakes import FunctionTeacher, SilentTeacher

NEEDS = frozenset({"logits"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("teacher")


@pytest.fixture(scope="module")
def student(folder):
    return tiny.subject("driving_t5", folder)


def test_equal_identities_agree(student):
    assert first_difference(student.identity, student.identity) is None
    require_agreement(LiveTeacher(Student(student.model), student.identity), student.identity, NEEDS)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda i: replace(i, vocabulary={**i.vocabulary, "new": 9999}), "tokens in the teacher's vocabulary"),
        (lambda i: replace(i, vocabulary={**i.vocabulary, "<pad>": 1, "</s>": 0}), "token '</s>'"),
        (lambda i: replace(i, special={**i.special, "eos": 7}), "eos token 7"),
        (lambda i: replace(i, probe=(1, 2)), r"\(1, 2\) for the teacher"),
        (lambda i: replace(i, template="Q: {question}"), "template 'Q: {question}'"),
        (lambda i: replace(i, coordinates="unit"), "points in unit coordinates"),
        (lambda i: replace(i, choices="words"), "answered by words for the teacher, by letter"),
        (lambda i: replace(i, image_tokens=256), "256 image tokens"),
    ],
)
def test_the_first_difference_is_named(student, change, named):
    teacher = LiveTeacher(Student(student.model), change(student.identity))
    with pytest.raises(InputError, match=named):
        require_agreement(teacher, student.identity, NEEDS)


def test_teacher_that_cannot_provide_what_is_needed_is_refused(student):
    with pytest.raises(InputError, match="logits"):
        require_agreement(SilentTeacher(), student.identity, NEEDS)


def test_fake_and_live_teachers_are_interchangeable(student, folder):
    batch = collate(tiny.samples(tiny.pictures(folder)), {"student": student.preparation})
    vocabulary = student.model.config.text.vocab_size
    objective = Answers("tokens", vocabulary, taught=True)
    rows = Student(student.model)(batch)
    live = LiveTeacher(Student(student.model, role="teacher"), None)
    for teacher, zero in ((live, True), (FunctionTeacher(vocabulary), False)):
        signal = teacher.signal(batch)
        assert signal.logits.shape == rows.logits.shape
        assert not signal.logits.requires_grad
        divergence = objective(rows, signal, batch, Moment(alpha=1.0), Plan()).terms[1].total
        assert (abs(float(divergence)) < 1e-3) == zero


def test_heads_of_different_width_are_compared_on_the_real_tokens(student, folder):
    batch = collate(tiny.samples(tiny.pictures(folder)), {"student": student.preparation})
    rows = Student(student.model)(batch)
    padded = torch.cat([rows.logits.detach(), torch.full((batch.num_tokens, 8), 50.0)], dim=1)
    from drivedistill.batch import Signal

    objective = Answers("tokens", 300, taught=True)
    assert float(objective(rows, Signal(padded), batch, Moment(alpha=1.0), Plan()).terms[1].total) == pytest.approx(
        0, abs=1e-3
    )


def test_image_tokens_count_for_decoder_only_models(folder):
    subject = tiny.subject("internvl", folder)
    assert subject.identity.image_tokens == 4
    assert "<|im_start|>" in subject.identity.template
    assert identity_of(subject.preparation.tokenizer, "t", "pixel", "letter").image_tokens is None


def test_student_takes_the_teachers_tokenizer(tmp_path):
    run(tiny.recipe(tmp_path), tmp_path / "teacher")
    card = tiny.recipe(tmp_path, teacher={"path": str(tmp_path / "teacher")}, model__tokenizer_size=280)
    parts = assemble(card)
    assert parts.student.preparation.tokenizer.get_vocab() == parts.teacher.preparation.tokenizer.get_vocab()
    assert "teacher" not in parts.setting.preparations, "one batch serves both"


def test_teacher_with_larger_pictures_reads_its_own(tmp_path):
    run(tiny.recipe(tmp_path, data__image_size=48), tmp_path / "teacher")
    card = tiny.recipe(tmp_path, teacher={"path": str(tmp_path / "teacher")})
    parts = assemble(card)
    assert parts.setting.preparations["teacher"].reading.image_size == 48
    assert parts.setting.preparations["student"].reading.image_size == 32
    facts = run(card, tmp_path / "student")
    assert facts["kind"] == "distill"


def test_students_distance_to_its_teacher_shrinks(tmp_path):
    """A student that only listens comes closer, on every divergence."""
    run(tiny.recipe(tmp_path, train__steps=40), tmp_path / "teacher")
    import json

    for loss in ("forward_kl", "reverse_kl", "jensen_shannon"):
        changes = {
            "teacher": {"path": str(tmp_path / "teacher")},
            "distill": {"loss": loss, "supervised_weight": 0.0, "temperature": 2.0},
            "train__steps": 40,
            "train__validate_every": 100,
            "train__save_every": 100,
        }
        run(tiny.recipe(tmp_path, **changes), tmp_path / loss)
        lines = [json.loads(line) for line in (tmp_path / loss / "metrics.jsonl").read_text().splitlines()]
        values = [line[loss] for line in lines if loss in line]
        assert sum(values[-5:]) < 0.7 * sum(values[:5])


@pytest.mark.parametrize("kind", tiny.VLMS)
def test_decoder_only_teacher_teaches_decoder_only_student(tmp_path, kind):
    teacher, small = tmp_path / "teacher", tmp_path / "small"
    tiny.save_vlm(kind, teacher, seed=1)
    tiny.save_vlm(kind, small, seed=2)
    changes = {
        "data__image_size": 28,
        "model": {"path": str(small), "lora": {"r": 4, "alpha": 8, "dropout": 0.0, "targets": tiny.LORA[kind]}},
        "teacher": {"path": str(teacher)},
        "train__steps": 3,
        "distill": {"temperature": 2.0},
    }
    facts = run(tiny.recipe(tmp_path, **changes), tmp_path / "run")
    assert facts["kind"] == "distill"
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
