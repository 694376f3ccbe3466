"""`train.fused_loss`: the same gradients and the same run, whichever way the losses are computed."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

import tiny
from drivedistill.batch import Signal
from drivedistill.data.collate import collate
from drivedistill.distill.losses import cross_entropy
from drivedistill.distill.miner import Plan
from drivedistill.distill.objective import Moment
from drivedistill.distill.row_losses import gold_loss
from drivedistill.distill.teacher import LOGITS, LiveTeacher
from drivedistill.models.student import Student, head_of
from drivedistill.problems import InputError
from drivedistill.runs import assemble, run
from fakes import FunctionTeacher, likeliest
from loops import logged, one_update, relative_difference, weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fused")


class KeptTeacher(FunctionTeacher):
    """The likeliest tokens of the same logits, nothing else."""

    def signal(self, batch, needs=LOGITS):
        return Signal(top=likeliest(super().signal(batch).logits, 12, 1.0, batch.gold))


def live(setting):
    """The student itself before it learnt something else."""
    model = copy.deepcopy(setting.student.model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return LiveTeacher(Student(model))


TEACHERS = {
    "none": lambda setting: None,
    "dense": lambda setting: FunctionTeacher(len(setting.preparations["student"].tokenizer)),
    "kept": lambda setting: KeptTeacher(len(setting.preparations["student"].tokenizer)),
    "live": live,
}


def gradients(folder, fused, teacher="live", learns=True, objective=None, measure="loss", **changes):
    """Of one window; with the name of the way that was taken."""

    def change(setting):
        setting.teacher = TEACHERS[teacher](setting)
        given = {"taught": setting.teacher is not None, **(objective or {})}
        setting.objective = replace(setting.objective, **given)
        if measure != "loss":  # a recipe that names no teacher may not ask for it
            setting.objective.miner.spec = setting.objective.miner.spec.model_copy(update={"measure": measure})
        if not learns:
            setting.student.model.language_model.lm_head.weight.requires_grad_(False)

    sizes = {"train__batch_size": 4, "train__accumulate": 2, "train__clip": None}
    recipe = tiny.recipe(folder, {"train": 1.0}, **{**sizes, "train__fused_loss": fused, **changes})
    return one_update(recipe, change)


MINED = {"samples": 50, "tokens": 50}
CASES = {
    "supervised": {"teacher": "none"},
    "dense": {"teacher": "dense", "objective": {"loss": "jensen_shannon", "temperature": 2.0}},
    "kept, frozen head": {"teacher": "kept", "learns": False, "objective": {"supervised_weight": 0.0}},
    "micro": {"mining": MINED},
    "micro, frozen head": {"mining": MINED, "learns": False, "train__reduction": "samples"},
    "excess of kept": {"teacher": "kept", "mining": MINED, "measure": "excess"},
    "excess of live": {
        "mining": MINED,
        "measure": "excess_regular",
        "objective": {"loss": "reverse_kl", "on": "mined"},
    },
    "only the mined, window": {"teacher": "none", "mining": {**MINED, "pool": "window"}, "train__reduction": "sqrt"},
    "trusted, window": {"mining": {**MINED, "pool": "window"}, "objective": {"on": "trusted", "trust": 6.0}},
}


@pytest.mark.parametrize("case", CASES)
def test_the_gradients_of_a_step_are_those_of_the_plain_way(folder, case):
    fused, plain = (gradients(folder, way, **CASES[case]) for way in ("on", "off"))
    assert relative_difference(fused, plain) < 1e-6


def test_corner_samples_keep_their_own_alpha(folder, monkeypatch):
    monkeypatch.setattr(
        "drivedistill.step.Loop.moment", property(lambda loop: Moment(0, loop.total, alpha=0.7, alpha_corner=0.2))
    )
    fused, plain = (gradients(folder, way) for way in ("on", "off"))
    assert relative_difference(fused, plain) < 1e-6


def test_a_run_ends_with_the_same_weights_and_says_how_it_got_there(folder):
    def ran(way, **changes):
        run(tiny.recipe(folder, train__fused_loss=way, **changes), folder / f"{way}{len(changes)}")
        records = [r for r in logged(folder / f"{way}{len(changes)}") if "loss" in r]
        return weights(folder / f"{way}{len(changes)}"), [r.get("fused_loss") for r in records]

    (fused, said), (plain, nothing) = ran("on"), ran("off")
    assert said == [1.0] * 6 and nothing == [None] * 6
    assert relative_difference(fused, plain) < 1e-5  # AdamW also moves weights whose gradient is rounding alone


def test_auto_looks_at_head_and_rows(folder):
    setting = setting_of(folder)
    batch, head = collate(setting.train[:4], setting.preparations), setting.student.model.language_model.lm_head.weight
    rows = setting.student(batch, setting.objective.wants)
    assert len(rows.hidden) < 64 and not setting.objective.fuses(rows), "few rows, and a head that learns"
    rows.hidden = rows.hidden.repeat(64, 1)
    assert setting.objective.fuses(rows)
    rows.hidden = rows.hidden[:1]
    head.requires_grad_(False)
    assert setting.objective.fuses(rows)


def setting_of(folder, **changes):
    return assemble(tiny.recipe(folder, **changes)).setting


def test_a_student_returns_its_head_where_it_is_one_product(folder):
    setting = setting_of(folder)
    batch = collate(setting.train[:2], setting.preparations)
    whole, parts = setting.student.eval()(batch), setting.student(batch, {"logits", "hidden"})
    assert parts.logits is None
    torch.testing.assert_close(parts.dense(), whole.logits)
    assert parts.head.weight is setting.student.model.language_model.lm_head.weight
    adapted = {"r": 2, "dropout": 0.0, "targets": r".*lm_head", "also_train": ["fusion"]}
    lora = setting_of(folder, model__lora=adapted, train__fused_loss="auto", model__allow_random=True)
    rows = lora.student(batch, lora.objective.wants)
    assert rows.head is None and rows.logits.shape == whole.logits.shape
    assert not lora.objective.fuses(rows)


@pytest.mark.parametrize("kind", tiny.VLMS)
def test_decoder_only_families_describe_their_heads(tmp_path, kind):
    tiny.pictures(tmp_path)
    recipe = tiny.recipe(tmp_path, model={"path": str(tiny.save_vlm(kind, tmp_path / "model"))})
    setting = assemble(recipe).setting
    batch = collate(setting.train[:2], setting.preparations)
    student = setting.student.eval()
    torch.testing.assert_close(student(batch, setting.objective.wants).dense(), student(batch).logits)


def test_autocast_reaches_the_head(folder):
    setting = setting_of(folder)
    batch = collate(setting.train[:2], setting.preparations)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        whole, parts = setting.student.eval()(batch).logits, setting.student(batch, {"hidden"})
    assert parts.head.dtype == whole.dtype == torch.bfloat16
    assert torch.equal(parts.dense(), whole)
    losses, _ = replace(setting.objective, fused="on").losses(parts, batch)
    torch.testing.assert_close(losses, cross_entropy(whole, batch.gold), atol=1e-5, rtol=1e-5)


def test_every_teacher_tells_its_loss_on_the_true_answer(folder):
    setting = setting_of(folder)
    batch = collate(setting.train[:2], setting.preparations)
    teacher = live(setting)
    dense, parts = teacher.signal(batch), teacher.signal(batch, setting.objective._answers())
    assert parts.logits is None and parts.hidden is not None
    kept = Signal(top=likeliest(dense.logits, 3, 1.0, batch.gold))
    expected = cross_entropy(dense.logits, batch.gold)
    for signal in (dense, parts, kept):
        torch.testing.assert_close(gold_loss(signal, batch.gold), expected)


def test_a_teacher_who_kept_its_likeliest_tokens_is_not_asked_for_more(folder):
    setting = setting_of(folder)
    batch = collate(setting.train[:2], setting.preparations)
    signal = KeptTeacher(300).signal(batch)
    for way in ("on", "off"):
        objective = replace(setting.objective, taught=True, loss="reverse_kl", fused=way)
        with pytest.raises(ValueError, match="reverse_kl needs all"):
            objective(setting.student(batch, objective.wants), signal, batch, Moment(alpha=1.0), Plan())


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"train__sharding": "fsdp2"}, "a sharded head is whole inside the forward only"),
        ({"distill__signal": "vision", "teacher": {"path": "x"}}, "vision has no rows"),
    ],
)
def test_on_is_refused_where_it_cannot_be(folder, changes, why):
    with pytest.raises(ValueError, match=why):
        tiny.recipe(folder, train__fused_loss="on", **changes)


def test_on_is_refused_for_a_head_with_lora(folder):
    adapted = {"r": 2, "dropout": 0.0, "targets": r".*lm_head", "also_train": ["fusion"]}
    with pytest.raises(InputError, match="one product"):
        setting_of(folder, model__lora=adapted, train__fused_loss="on", model__allow_random=True)


def test_a_sharded_run_takes_the_plain_way(folder):
    assert setting_of(folder, train__sharding="fsdp2").objective.wants == LOGITS


def test_the_head_of_t5_is_scaled(folder):
    setting = setting_of(folder)
    head = head_of(setting.student.model)
    assert head.scale == (32**-0.5 if setting.student.model.config.text.scale_decoder_outputs else 1.0)
