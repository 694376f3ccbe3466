"""The loop: one division, one order, exact resume, loud failure."""

from __future__ import annotations

import json
import os
import signal

import pytest
import torch
from accelerate import Accelerator

import tiny
from drivedistill.data.collate import collate
from drivedistill.data.stream import MicroBatches
from drivedistill.distill.objective import SoftLabel, Supervised
from drivedistill.problems import InputError, RunError
from drivedistill.runs import assemble, run
from drivedistill.signals import Interrupted
from drivedistill.train import fit, start, step, total_steps, train_stream
from fakes import FunctionTeacher


def one_update(recipe, change=None):
    """Gradients of the first window and weights after its update."""
    setting = assemble(recipe).setting
    if change:
        change(setting)
    loop = start(setting, Accelerator(cpu=True))
    order = iter(MicroBatches(loop.stream, 0, 0))
    window = [
        collate([setting.train[i] for i in next(order)], setting.preparations) for _ in range(recipe.train.accumulate)
    ]
    gradients = {}

    def keep(*_):
        gradients.update({n: p.grad.clone() for n, p in loop.model.named_parameters() if p.grad is not None})

    loop.optimizer.register_step_pre_hook(keep)
    step(loop, window)
    return gradients


def relative_difference(ours, theirs):
    """Norm of the difference of two gradients over the norm of one."""
    assert ours.keys() == theirs.keys()
    ours, theirs = (torch.cat([g[name].flatten() for name in sorted(g)]).double() for g in (ours, theirs))
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("reduction", ["tokens", "samples"])
@pytest.mark.parametrize("taught", [False, True], ids=["ce", "dis"])
def test_accumulated_gradient_of_one_by_six_equals_six_by_one(tmp_path, reduction, taught):
    def teach(setting):
        vocabulary = setting.student.model.config.text.vocab_size
        setting.teacher = FunctionTeacher(vocabulary)
        setting.objective = SoftLabel(reduction, vocabulary, temperature=2.0, weight=0.5, supervised_weight=1.0)

    change = teach if taught else None
    sizes = [(6, 1), (1, 6), (2, 3)]
    cards = [
        tiny.recipe(tmp_path, train__batch_size=b, train__accumulate=a, train__reduction=reduction, train__clip=None)
        for b, a in sizes
    ]
    whole, *parts = [one_update(card, change) for card in cards]
    for part in parts:
        assert relative_difference(part, whole) < 1e-6


def test_samples_reduction_weighs_samples_and_tokens_reduction_weighs_tokens(tmp_path):
    folder = tmp_path
    subject = tiny.subject("driving_t5", folder)
    batch = collate(tiny.samples(tiny.pictures(folder)), {"student": subject.preparation})
    from drivedistill.batch import Rows
    from drivedistill.distill.losses import cross_entropy

    rows = Rows(torch.randn(batch.num_tokens, 300))
    values = cross_entropy(rows.logits, batch.gold)
    (tokens,) = Supervised("tokens")(rows, None, batch)
    (samples,) = Supervised("samples")(rows, None, batch)
    torch.testing.assert_close(tokens.total, values.sum())
    means = torch.stack([values[batch.sample_of_row == b].mean() for b in range(batch.num_samples)])
    torch.testing.assert_close(samples.total, means.sum())
    assert float(samples.by_regime.sum()) == pytest.approx(float(samples.total), rel=1e-5)


def test_window_stream_visits_every_sample_once_per_epoch_without_short_windows(tmp_path):
    card = tiny.recipe(tmp_path, train__batch_size=4)
    train = assemble(card).setting.train
    order = iter(MicroBatches(train_stream(card, train, 1), 0, 0))
    seen = [i for _ in range(3) for i in next(order)]
    assert len(train) == 6
    assert sorted(seen[:6]) == sorted(seen[6:12]) == list(range(6))


def test_ranks_share_the_window_of_one_process(tmp_path):
    whole = tiny.recipe(tmp_path, train__batch_size=4)
    half = tiny.recipe(tmp_path, train__batch_size=2)
    train = assemble(whole).setting.train
    one = next(iter(MicroBatches(train_stream(whole, train, 1), 5, 0)))
    two = [next(iter(MicroBatches(train_stream(half, train, 2), 5, rank))) for rank in range(2)]
    assert one == two[0] + two[1]


def test_number_of_steps_counts_whole_windows(tmp_path):
    card = tiny.recipe(tmp_path, train__steps=None, train__epochs=2, train__batch_size=2, train__accumulate=2)
    stream = train_stream(card, assemble(card).setting.train, 1)
    assert stream.windows_per_epoch == 1.5
    assert total_steps(card, stream) == 3


def weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "checkpoints" / "last" / "model.safetensors")


def stop_in(monkeypatch, at, number=signal.SIGTERM):
    """Send a signal to ourselves in the middle of a step."""
    import drivedistill.train as module

    original = module.step

    def stepping(loop, window):
        if loop.state.step == at:
            os.kill(os.getpid(), number)
        return original(loop, window)

    monkeypatch.setattr(module, "step", stepping)


@pytest.mark.parametrize("stop", [1, 4])
def test_resumed_run_reaches_the_uninterrupted_weights_bit_for_bit(tmp_path, monkeypatch, stop):
    dropout = {"train__accumulate": 2, "train__warmup_steps": 2, "train__schedule": "cosine"}
    card = tiny.recipe(tmp_path, **dropout)
    text = {**card.model.overrides["text"], "dropout_rate": 0.1}
    card = tiny.recipe(tmp_path, **dropout, model__overrides={**card.model.overrides, "text": text})
    run(card, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_in(patch, stop)
        with pytest.raises(Interrupted) as caught:
            run(card, tmp_path / "broken")
    assert caught.value.number == signal.SIGTERM
    assert not (tmp_path / "broken" / "model").exists()
    run(card, tmp_path / "broken", resume=True)
    whole, broken = weights(tmp_path / "whole"), weights(tmp_path / "broken")
    assert all(torch.equal(whole[name], broken[name]) for name in whole)

    def log(folder):
        lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]

    assert log(tmp_path / "whole") == log(tmp_path / "broken")


def test_resume_refuses_another_recipe_and_names_the_field(tmp_path):
    run(tiny.recipe(tmp_path), tmp_path / "run")
    with pytest.raises(InputError) as caught:
        run(tiny.recipe(tmp_path, train__learning_rate=2e-3), tmp_path / "run", resume=True)
    assert [problem.record for problem in caught.value.problems] == ["train.learning_rate"]


def test_loss_that_is_not_finite_stops_with_the_windows_ids(tmp_path):
    setting = assemble(tiny.recipe(tmp_path)).setting
    setting.run = tmp_path / "run"
    with torch.no_grad():
        setting.student.model.language_model.lm_head.weight[5] = float("nan")
    with pytest.raises(RunError, match=r"not finite.*s\d"):
        fit(setting, Accelerator(cpu=True))
    assert not (tmp_path / "run").exists()


def test_no_gradient_reaches_the_teacher_and_it_never_trains(tmp_path):
    from drivedistill.distill.teacher import LiveTeacher
    from drivedistill.models.student import Student

    subject = tiny.subject("driving_t5", tmp_path, seed=3)
    teacher = LiveTeacher(Student(subject.model, role="teacher"), None)
    teacher.model.train()
    before = {name: p.clone() for name, p in teacher.model.named_parameters()}

    def teach(setting):
        vocabulary = setting.student.model.config.text.vocab_size
        setting.teacher = teacher
        setting.objective = SoftLabel("tokens", vocabulary, temperature=1.0, weight=1.0, supervised_weight=1.0)

    card = tiny.recipe(tmp_path)
    one_update(card, teach)
    assert not teacher.model.training
    assert all(p.grad is None and not p.requires_grad for p in teacher.model.parameters())
    assert all(torch.equal(before[name], p) for name, p in teacher.model.named_parameters())


def test_learning_rates_by_group_and_no_decay_on_vectors(tmp_path):
    from drivedistill.optimize import parameter_groups

    card = tiny.recipe(tmp_path, train__learning_rates={r"fusion\.": 5e-3})
    student = assemble(card).setting.student
    groups = parameter_groups(student, card.train)
    fusion = {id(p) for name, p in student.named_parameters() if "fusion." in name}
    for group in groups:
        for parameter in group["params"]:
            assert (group["lr"] == 5e-3) == (id(parameter) in fusion)
            assert (group["weight_decay"] == 0) == (parameter.ndim < 2)
    assert sum(len(group["params"]) for group in groups) == len(list(student.parameters()))


def test_pattern_that_matches_nothing_is_refused(tmp_path):
    card = tiny.recipe(tmp_path, train__learning_rates={"no_such_part": 1e-3})
    with pytest.raises(InputError, match="no_such_part"):
        run(card, tmp_path / "run")
    with pytest.raises(InputError, match="matches nothing"):
        assemble(tiny.recipe(tmp_path, model__frozen=["no_such_part"]))


def test_frozen_random_weights_are_refused_unless_allowed(tmp_path):
    with pytest.raises(InputError, match="frozen tensors with random weights in vision"):
        assemble(tiny.recipe(tmp_path, model__frozen=[r"^vision\."]))
    parts = assemble(tiny.recipe(tmp_path, model__frozen=[r"^vision\."], model__allow_random=True))
    assert not any(p.requires_grad for p in parts.student.model.vision.parameters())


def test_bf16_and_gradient_checkpointing_train(tmp_path):
    facts = run(tiny.recipe(tmp_path, train__precision="bf16", model__gradient_checkpointing=True), tmp_path / "run")
    assert facts["best_validation_loss"] < 7


def test_checkpointed_blocks_give_the_same_gradient(tmp_path):
    plain = one_update(tiny.recipe(tmp_path))
    saving = one_update(tiny.recipe(tmp_path, model__gradient_checkpointing=True))
    for name, gradient in plain.items():
        torch.testing.assert_close(saving[name], gradient, atol=1e-6, rtol=1e-5)


def test_tensorboard_is_written_when_named(tmp_path):
    run(tiny.recipe(tmp_path, train__trackers=["tensorboard"]), tmp_path / "run")
    assert list((tmp_path / "run").rglob("events.out.tfevents*"))


def test_lora_run_saves_a_merged_model_that_needs_no_peft(tmp_path):
    run(tiny.recipe(tmp_path), tmp_path / "base")
    changes = {
        "model__lora": {"r": 4, "alpha": 8, "dropout": 0.0},
        "model__path": str(tmp_path / "base"),
        "model__preset": None,
        "model__overrides": {},
    }
    run(tiny.recipe(tmp_path, **changes), tmp_path / "lora")
    from drivedistill.data.images import PictureCache
    from drivedistill.subject import load_subject

    before = load_subject(str(tmp_path / "base"), PictureCache(10)).model
    after = load_subject(str(tmp_path / "lora"), PictureCache(10)).model
    names = {name for name, _ in after.named_parameters()}
    assert names == {name for name, _ in before.named_parameters()}
    changed = {n for n, p in after.named_parameters() if not torch.equal(p, dict(before.named_parameters())[n])}
    assert any(name.endswith(".q.weight") for name in changed)
    assert not any(name.endswith(".k.weight") for name in changed)


def test_best_checkpoint_is_the_one_with_the_lowest_validation_loss(tmp_path):
    facts = run(tiny.recipe(tmp_path, train__steps=9), tmp_path / "run")
    log = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["validation_loss"] for line in log if "validation_loss" in line}
    assert facts["best_step"] == min(losses, key=losses.get)
    assert (tmp_path / "run" / "checkpoints" / "best").resolve().name == f"step-{facts['best_step']:06d}"
    assert (tmp_path / "run" / "checkpoints" / "last").resolve().name == "step-000009"
