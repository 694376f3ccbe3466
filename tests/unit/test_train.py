"""The loop: one division, one order, exact resume, loud failure."""

from __future__ import annotations

import json
import signal

import pytest
import torch
from accelerate import Accelerator

import tiny
from drivedistill.data.collate import collate
from drivedistill.data.stream import MicroBatches
from drivedistill.distill.miner import Plan
from drivedistill.distill.objective import Answers, Moment
from drivedistill.problems import InputError, RunError
from drivedistill.runs import assemble, run
from drivedistill.signals import Interrupted
from drivedistill.train import fit, total_steps, train_stream
from fakes import FunctionTeacher
from loops import one_update, relative_difference, stop_in, weights


@pytest.mark.parametrize("reduction", ["tokens", "samples", "sqrt"])
@pytest.mark.parametrize("taught", [False, True], ids=["ce", "dis"])
def test_accumulated_gradient_of_one_by_eight_equals_eight_by_one(tmp_path, reduction, taught):
    def teach(setting):
        vocabulary = setting.student.model.config.text.vocab_size
        setting.teacher = FunctionTeacher(vocabulary)
        setting.objective = Answers(reduction, vocabulary, taught=True, temperature=2.0)

    change = teach if taught else None
    sizes = [(8, 1), (1, 8), (2, 4)]
    cards = [
        tiny.recipe(
            tmp_path,
            {"train": 1.0},
            train__batch_size=b,
            train__accumulate=a,
            train__reduction=reduction,
            train__clip=None,
            distill__weight=0.5,
        )
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
    (tokens,) = Answers("tokens")(rows, None, batch, Moment(), Plan()).terms
    (samples,) = Answers("samples")(rows, None, batch, Moment(), Plan()).terms
    torch.testing.assert_close(tokens.total, values.sum())
    means = torch.stack([values[batch.sample_of_row == b].mean() for b in range(batch.num_samples)])
    torch.testing.assert_close(samples.total, means.sum())
    (roots,) = Answers("sqrt")(rows, None, batch, Moment(), Plan()).terms
    torch.testing.assert_close(roots.total, (batch.tokens_per_sample().sqrt() * means).sum())
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


@pytest.mark.parametrize("stop", [1, 2, 4])  # 2: between a step and its validation
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
        shown = [{key: value for key, value in line.items() if key != "seconds"} for line in lines]
        return sorted(shown, key=lambda line: (line["step"], "of" in line))

    assert log(tmp_path / "whole") == log(tmp_path / "broken")


def test_resuming_a_finished_run_says_how_it_ended_and_writes_nothing(tmp_path):
    card = tiny.recipe(tmp_path)
    facts = run(card, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    assert run(card, tmp_path / "run", resume=True) == facts
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


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
        setting.objective = Answers("tokens", vocabulary, taught=True)

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


def test_overwriting_the_own_teacher_or_data_is_refused(tmp_path):
    run(tiny.recipe(tmp_path), tmp_path / "base")
    card = tiny.recipe(tmp_path, teacher={"path": str(tmp_path / "base")})
    with pytest.raises(InputError, match=r"teacher\.path inside it"):
        run(card, tmp_path / "base", overwrite=True)
    with pytest.raises(InputError, match="--resume or --overwrite"):
        run(card, tmp_path / "base", overwrite=True, resume=True)
    assert (tmp_path / "base" / "model" / "model.safetensors").is_file()


def test_random_teacher_is_refused_unless_allowed(tmp_path):
    with pytest.raises(InputError, match="random weights"):
        assemble(tiny.recipe(tmp_path, teacher={"preset": "tiny", "tokenizer_size": 300}))


def test_what_learns_is_kept_in_float32(tmp_path):
    run(tiny.recipe(tmp_path), tmp_path / "base")
    model = {"path": str(tmp_path / "base"), "dtype": "bfloat16", "frozen": [r"^vision\."]}
    card = tiny.recipe(tmp_path, model=model, train__precision="bf16")
    parameters = list(assemble(card).student.model.parameters())
    assert {p.dtype for p in parameters if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in parameters if not p.requires_grad} == {torch.bfloat16}
    run(card, tmp_path / "half")
    with pytest.raises(ValueError, match="precision: bf16"):
        tiny.recipe(tmp_path, model=model)


def test_fields_of_a_preset_beside_a_path_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`tokenizer` belongs to a preset"):
        tiny.recipe(tmp_path, model={"path": "base", "tokenizer": "other"})


def test_model_built_for_another_layout_is_refused(tmp_path):
    run(tiny.recipe(tmp_path, data__layout="padded"), tmp_path / "base")
    with pytest.raises(InputError, match=r"data\.layout"):
        assemble(tiny.recipe(tmp_path, model={"path": str(tmp_path / "base")}))


def test_tokenizer_without_an_end_is_refused(tmp_path):
    from drivedistill.data.prompt import train_tokenizer

    tokenizer = train_tokenizer(["Stop."], 300)
    tokenizer.backend_tokenizer.post_processor = None
    tokenizer.save_pretrained(tmp_path / "endless")
    with pytest.raises(InputError, match="an end token after every text"):
        assemble(tiny.recipe(tmp_path, model__tokenizer=str(tmp_path / "endless")))


def test_special_ids_follow_the_tokenizer(tmp_path):
    card = tiny.recipe(tmp_path)
    run(card, tmp_path / "base")
    text = assemble(card).student.model.config.text
    tokenizer = assemble(card).student.preparation.tokenizer
    assert (text.pad_token_id, text.eos_token_id) == (tokenizer.pad_token_id, tokenizer.eos_token_id)
    assert text.decoder_start_token_id == tokenizer.pad_token_id


def test_missing_tracker_is_refused(tmp_path):
    import importlib.util

    if importlib.util.find_spec("wandb"):
        pytest.skip("wandb is installed")
    with pytest.raises(InputError, match=r"drivedistill\[wandb\]"):
        run(tiny.recipe(tmp_path, train__trackers=["wandb"]), tmp_path / "run")


def test_corner_ratio_without_corner_cases_is_refused(tmp_path):
    card = tiny.recipe(tmp_path)
    lines = (tmp_path / "drawn" / "train.jsonl").read_text().replace('"regime":"corner"', '"regime":"regular"')
    (tmp_path / "drawn" / "train.jsonl").write_text(lines)
    assemble(card)
    with pytest.raises(InputError, match="questions of both regimes"):
        assemble(tiny.recipe(tmp_path, data__corner_ratio=17))


@pytest.mark.parametrize("workers", [0, 1])
def test_picture_that_breaks_in_the_middle_of_a_run_saves_first_and_is_named(tmp_path, workers):
    card = tiny.recipe(tmp_path, data__workers=workers, data__image_cache_mb=0, train__steps=30, train__save_every=100)
    parts = assemble(card)
    path = tmp_path / "drawn" / "CAM_BACK.png"

    def break_picture(record):
        path.write_bytes(path.read_bytes()[:4000])

    parts.setting.log = break_picture
    parts.setting.run = tmp_path / "run"
    with pytest.raises(InputError, match=r"CAM_BACK\.png") as caught:
        fit(parts.setting, Accelerator(cpu=True))
    assert len(caught.value.problems) == 1
    assert (tmp_path / "run" / "checkpoints" / "last" / "state.json").is_file()


def test_validation_sample_holds_every_regime_in_its_share(tmp_path):
    from drivedistill.data.mixture import draw

    everyone = tiny.samples(tiny.pictures(tmp_path)) * 10
    everyone = [s.model_copy(update={"id": f"{i}"}) for i, s in enumerate(everyone)]
    chosen = draw(everyone, 16, 0)
    assert len(chosen) == 16
    assert sum(s.regime == "corner" for s in chosen) == 6
    assert draw(everyone[::-1], 16, 0) == chosen[::-1]
    assert draw(everyone, None, 0) == everyone
