"""CLKD in the loop: pools, release, resume. What the pieces do alone is in tests/unit/distill."""

from __future__ import annotations

import json
import signal

import pytest
import torch
from accelerate import Accelerator

import tiny
from drivedistill.distill.miner import group_numbers
from drivedistill.problems import InputError
from drivedistill.recipe import Recipe
from drivedistill.runs import assemble, run
from drivedistill.signals import Interrupted
from drivedistill.train import fit
from loops import logged, one_update, relative_difference, stop_in, weights

HALF = {"samples": 50, "tokens": 50}


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A folder with a trained teacher: recipe changes that name it as the teacher."""
    folder = tmp_path_factory.mktemp("clkd")
    run(tiny.recipe(folder), folder / "teacher")
    return folder, {"teacher": {"path": str(folder / "teacher")}}


# --- pools ----------------------------------------------------------------------------------------------------------


def cut(folder, batch_size, accumulate, reduction="tokens", **mining):
    changes = {"train__batch_size": batch_size, "train__accumulate": accumulate, "train__clip": None}
    changes["train__reduction"] = reduction
    return tiny.recipe(folder, {"train": 1.0}, **changes, mining={**HALF, **mining})


def kind_of_question(sample):
    """Two kinds; the two hardest samples, by loss as well as in the bank below, are of the first."""
    return "first" if sample.id in ("s0", "s1", "s3", "s7") else "second"


def a_bank(setting):
    """As if all had been seen: the lower the id, the harder."""
    miner = setting.objective.miner
    hard = torch.zeros(len(miner.place), dtype=torch.float64)
    kinds = [""] * len(miner.place)
    for sample in setting.train:
        if sample.id in miner.place:
            hard[miner.place[sample.id]] = 8 - int(sample.id[1:])
            kinds[miner.place[sample.id]] = kind_of_question(sample)
    return torch.stack([hard, group_numbers(kinds).double()], dim=1)


@pytest.mark.parametrize("pool", ["window", "bank"])
@pytest.mark.parametrize(("within", "reduction"), [(False, "sqrt"), (True, "tokens")])
def test_pools_that_span_the_window_do_not_depend_on_how_it_is_cut(tmp_path, monkeypatch, pool, within, reduction):
    monkeypatch.setattr("drivedistill.data.collate.family", kind_of_question)

    def seen_before(setting):
        setting.objective.miner.bank = a_bank(setting)

    whole, *parts = [
        one_update(cut(tmp_path, b, a, reduction, samples=25, pool=pool, within_template=within), seen_before)
        for b, a in [(8, 1), (1, 8), (2, 4)]
    ]
    for part in parts:
        assert relative_difference(part, whole) < 1e-6
    other = one_update(cut(tmp_path, 8, 1, reduction, samples=25, pool=pool, within_template=not within), seen_before)
    assert relative_difference(other, whole) > 0.01, "templates matter"
    assert relative_difference(one_update(cut(tmp_path, 8, 1, samples=100, tokens=100)), whole) > 0.1


def test_micro_pools_do(tmp_path):
    whole, part = (one_update(cut(tmp_path, b, a)) for b, a in [(8, 1), (2, 4)])
    assert relative_difference(part, whole) > 1e-3


def test_mining_everything_is_plain_training_to_the_bit(tmp_path):
    for pool in ("micro", "ranks", "window", "bank"):
        mined = tiny.recipe(tmp_path, mining={"samples": 100, "tokens": 100, "pool": pool})
        run(mined, tmp_path / pool, overwrite=(tmp_path / pool).exists())
    run(tiny.recipe(tmp_path), tmp_path / "plain")
    plain = weights(tmp_path / "plain")
    for pool in ("micro", "ranks", "window", "bank"):
        assert all(torch.equal(plain[name], value) for name, value in weights(tmp_path / pool).items()), pool


def test_a_window_pool_computes_the_head_for_mined_rows_only(tmp_path, monkeypatch):
    from drivedistill.models.student import Student

    seen = []
    original = Student.forward

    def counted(student, batch, needs):
        rows = original(student, batch, needs)
        seen.append((torch.is_grad_enabled(), len(rows.dense())))
        assert student.training == torch.is_grad_enabled(), "rows are scored without dropout, and learnt from with it"
        return rows

    monkeypatch.setattr(Student, "forward", counted)
    one_update(cut(tmp_path, 4, 2, pool="window"))
    scored, learnt = sum(n for grad, n in seen if not grad), sum(n for grad, n in seen if grad)
    assert 0 < learnt <= scored / 2


@pytest.mark.parametrize(("pool", "accumulate"), [("micro", 4), ("window", 1), ("ranks", 3)])
def test_a_pool_of_one_sample_is_refused(tmp_path, pool, accumulate):
    sizes = {"train__batch_size": 1, "train__accumulate": accumulate}
    with pytest.raises((ValueError, InputError), match=r"one sample|pool of one"):
        one_update(tiny.recipe(tmp_path, **sizes, mining={"pool": pool}))
    one_update(tiny.recipe(tmp_path, **sizes, mining={"pool": pool, "samples": 100}))


def test_the_hardest_of_every_template_is_mined_however_rare_it_is(tmp_path, monkeypatch):
    from drivedistill.data.collate import collate

    monkeypatch.setattr("drivedistill.data.collate.family", lambda s: "rare" if s.id == "s7" else "common")
    setting = assemble(cut(tmp_path, 8, 1, pool="bank", samples=25, within_template=True)).setting
    batch = collate(setting.train, setting.preparations)
    miner = setting.objective.miner
    miner.learn([batch], [torch.tensor([-torch.inf if name == "s0" else float(name[1:]) for name in batch.ids])])
    chosen = miner.plan([batch], (25, 50), None)[0].samples
    assert {name for name, flag in zip(batch.ids, chosen, strict=True) if flag} == {"s5", "s6", "s7"}


def test_a_bank_of_other_samples_is_refused(tmp_path):
    miner = assemble(cut(tmp_path, 8, 1, pool="bank")).setting.objective.miner
    state = miner.state()
    miner.load(state)
    del miner.place["s0"]
    with pytest.raises(InputError, match="samples of the train split"):
        miner.load(state)


def test_the_bank_chooses_the_unseen_and_the_hard(tmp_path):
    setting = assemble(cut(tmp_path, 8, 1, pool="bank")).setting
    miner = setting.objective.miner
    from drivedistill.data.collate import collate

    batch = collate(setting.train, setting.preparations)
    assert miner.plan([batch], (50, 50), None)[0].samples.all(), "nobody was seen"
    miner.learn([batch], [torch.arange(8.0)])
    places = torch.tensor([miner.place[name] for name in batch.ids])
    assert miner.bank[places, 0].tolist() == list(range(8))
    assert miner.plan([batch], (50, 50), None)[0].samples.tolist() == [False] * 4 + [True] * 4
    miner.learn([batch], [torch.zeros(8)])
    assert miner.bank[places, 0].tolist() == [value / 2 for value in range(8)], "momentum 0.5"


def test_warm_up_then_annealing_from_everything(tmp_path):
    card = tiny.recipe(tmp_path, mining={"samples": 50, "tokens": 20, "warmup": 0.25, "anneal": 0.5})
    miner = assemble(card).setting.objective.miner
    assert miner.percentages(0, 100) is miner.percentages(24, 100) is None
    assert [miner.percentages(s, 100) for s in (25, 50, 75, 99)] == [(100, 100), (75, 60), (50, 20), (50, 20)]


def test_router_losses_are_averaged_over_micro_batches_whatever_their_number(tmp_path):
    experts = {"experts": 4, "k": 1, "layers": "all", "init_noise": 0.1}
    balance = {"train__router_balance": 1.0, "train__router_z": 1.0, "train__clip": None}

    def gradient(accumulate):
        card = tiny.recipe(tmp_path, {"train": 1.0}, train__batch_size=4, **balance, model__ffn_experts=experts)
        card = card.model_copy(update={"train": card.train.model_copy(update={"accumulate": accumulate})})
        return one_update(card, again=True)

    assert relative_difference(gradient(3), gradient(1)) < 1e-6
    card = tiny.recipe(
        tmp_path, {"train": 1.0}, train__batch_size=4, train__router_balance=0.0, model__ffn_experts=experts
    )
    assert relative_difference(one_update(card, again=True), gradient(1)) > 1e-3, "they count"


# --- release --------------------------------------------------------------------------------------------------------


def test_alpha_falls_geometrically_and_gamma_is_kept_by_a_resumed_run(taught, tmp_path, monkeypatch):
    folder, teacher = taught
    release = {"distill__release": {"end": 0.1, "corner_end": 0.2}}
    with monkeypatch.context() as patch:
        stop_in(patch, 2)
        with pytest.raises(Interrupted):
            run(tiny.recipe(folder, **teacher, **release), tmp_path / "run")
    state = json.loads((tmp_path / "run" / "checkpoints" / "last" / "state.json").read_text("utf-8"))
    assert (state["gamma"], state["gamma_corner"]) == pytest.approx((0.1 ** (1 / 6), 0.2 ** (1 / 6)))
    path = tmp_path / "run" / "checkpoints" / "last" / "state.json"
    path.write_text(json.dumps(state | {"gamma": 0.5, "gamma_corner": 0.25}), "utf-8")
    run(tiny.recipe(folder, **teacher, **release), tmp_path / "run", resume=True)
    before = state["step"]
    for name, end, rate in (("alpha", 0.1, 0.5), ("alpha_corner", 0.2, 0.25)):
        alphas = [record[name] for record in logged(tmp_path / "run") if name in record]
        assert alphas == pytest.approx([end ** (t / 6) for t in range(before)] + [rate**t for t in range(before, 6)])


def test_a_released_teacher_is_not_asked_and_its_memory_is_free(taught):
    folder, teacher = taught
    card = tiny.recipe(folder, **teacher, distill__release={"end": 0.01, "below": 0.3})
    parts = assemble(card)
    parts.setting.run = folder / "released"
    asked = []
    live = parts.setting.teacher
    original = live.signal
    live.signal = lambda *given: asked.append(1) or original(*given)
    records = []
    parts.setting.log = records.append
    fit(parts.setting, Accelerator(cpu=True))
    alphas = [record["alpha"] for record in records if "alpha" in record]
    assert len(asked) == sum(alpha > 0 for alpha in alphas) == 2
    assert parts.setting.teacher is None
    assert all(p.is_meta for p in parts.teacher.model.parameters())
    assert ["forward_kl" in r for r in records if "loss" in r] == [True, True, False, False, False, False]


def test_corner_samples_are_released_at_a_rate_of_their_own(taught):
    folder, teacher = taught

    def records(release):
        parts = assemble(tiny.recipe(folder, **teacher, distill__release=release))
        parts.setting.run = folder / "by_regime"
        found = []
        parts.setting.log = found.append
        state = fit(parts.setting, Accelerator(cpu=True))
        return state, [record for record in found if "loss" in record], parts.setting.teacher

    plain, own, apart = (records({"end": 0.1} | more) for more in ({}, {"corner_end": 0.1}, {"corner_end": 0.01}))
    assert [record["loss"] for record in own[1]] == [record["loss"] for record in plain[1]]
    assert own[0].gamma_corner is None and "alpha_corner" not in own[1][0]
    alphas = [[record[name] for record in apart[1]] for name in ("alpha", "alpha_corner")]
    assert alphas == [pytest.approx([end ** (t / 6) for t in range(6)]) for end in (0.1, 0.01)]
    assert all("forward_kl_corner" in record for record in apart[1])
    assert [record["loss"] for record in apart[1]][1:] != [record["loss"] for record in plain[1]][1:]
    _, let_go, teacher_left = records({"end": 0.01, "corner_end": 0.1, "below": 0.3})  # over after 2 and 4 steps
    assert [{"forward_kl", "forward_kl_corner"} & record.keys() for record in let_go] == [
        *[{"forward_kl", "forward_kl_corner"}] * 2,
        *[{"forward_kl_corner"}] * 2,
        *[set()] * 2,
    ]
    assert teacher_left is None and [record["alpha_corner"] > 0 for record in let_go] == [True] * 4 + [False] * 2


def test_what_the_teacher_understands_is_logged_and_not_every_recipe_may_ask(taught):
    folder, teacher = taught
    parts = assemble(tiny.recipe(folder, **teacher, distill={"on": "trusted", "trust": 50.0}))
    parts.setting.run, found = folder / "trusting", []
    parts.setting.log = found.append
    fit(parts.setting, Accelerator(cpu=True))
    assert next(record["trusted"] for record in found if "loss" in record) == {"regular": 1.0, "corner": 1.0}
    with pytest.raises(ValueError, match="trusted` reads it"):
        tiny.recipe(folder, **teacher, distill__trust=2.0)
    with pytest.raises(ValueError, match="a recipe with a teacher"):
        tiny.recipe(folder, distill__on="trusted")
    with pytest.raises(ValueError, match="no corner sample listens"):
        tiny.recipe(folder, **teacher, distill={"on": "regular", "release": {"end": 0.1, "corner_end": 0.2}})


def test_a_release_that_would_not_happen_is_refused(taught):
    folder, teacher = taught
    for release in (
        {"end": 0.1, "below": 0.1},
        {"end": 0.1, "below": 2.0},
        {"end": 2.0},
        {"end": 0.1, "corner_end": 2.0},
        {"end": 0.3, "corner_end": 0.2, "below": 0.2},
    ):
        with pytest.raises(ValueError, match=r"a value in"):
            tiny.recipe(folder, **teacher, distill__release=release)
    with pytest.raises(ValueError, match="have no meaning"):
        tiny.recipe(folder, **teacher, distill={"signal": "vision", "release": {"end": 0.1}})
    with pytest.raises(ValueError, match="exceed"):
        tiny.recipe(folder, mining={"warmup": 0.8, "anneal": 0.8})


def test_an_excess_needs_its_teacher_to_the_end(taught):
    folder, teacher = taught
    with pytest.raises(ValueError, match="to the end"):
        tiny.recipe(folder, **teacher, mining={"measure": "excess"}, distill__release={"end": 0.01, "below": 0.3})
    with pytest.raises(ValueError, match="needs a teacher"):
        tiny.recipe(folder, mining={"measure": "excess"})


# --- resume ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [1, 4])
@pytest.mark.parametrize("pool", ["micro", "bank"])
def test_resumed_clkd_reaches_the_uninterrupted_weights_and_bank_bit_for_bit(taught, tmp_path, monkeypatch, pool, stop):
    from safetensors.torch import load_file

    folder, teacher = taught
    experts = {"experts": 2, "k": 1, "layers": "all", "init_noise": 0.1}
    card = tiny.recipe(
        folder,
        **teacher,
        train__accumulate=2,
        train__log_every=3,
        mining={**HALF, "pool": pool, "anneal": 0.5},
        distill__release={"end": 0.01, "below": 0.3},
        model__ffn_experts=experts,
    )
    run(card, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_in(patch, stop, signal.SIGINT)
        with pytest.raises(Interrupted):
            run(card, tmp_path / "broken")
    run(card, tmp_path / "broken", resume=True)
    whole, broken = weights(tmp_path / "whole"), weights(tmp_path / "broken")
    assert whole.keys() == broken.keys()
    assert all(torch.equal(whole[name], broken[name]) for name in whole)
    if pool == "bank":
        banks = [
            load_file(tmp_path / name / "checkpoints/last/extra.safetensors")["bank"] for name in ("whole", "broken")
        ]
        assert torch.equal(*banks) and not banks[0].isnan().any()
    for ours, theirs in zip(logged(tmp_path / "whole"), logged(tmp_path / "broken"), strict=True):
        assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}


def test_clkd_trains_in_bfloat16_too(taught, tmp_path):
    folder, teacher = taught
    card = tiny.recipe(
        folder,
        **teacher,
        train__precision="bf16",
        train__accumulate=2,
        mining={**HALF, "pool": "window"},
        distill__release={"end": 0.1},
        model__ffn_experts={"experts": 2, "layers": "all", "init_noise": 0.1},
        model__adapter_experts={"experts": 2},
    )
    run(card, tmp_path / "run")
    losses = [record["validation_loss"] for record in logged(tmp_path / "run") if "validation_loss" in record]
    assert losses[-1] < losses[0]
    shown = [record["expert_distance"] for record in logged(tmp_path / "run") if "expert_distance" in record]
    assert all(0 < distance < 1 for record in shown for distance in record.values())


def test_equal_experts_that_do_not_learn_are_refused(tmp_path):
    lora = {"r": 4, "alpha": 8, "dropout": 0.0, "targets": r".*\.(q|v)"}
    run(tiny.recipe(tmp_path), tmp_path / "dense")
    tree = tiny.recipe(tmp_path).model_dump(mode="json")

    def card(**experts):
        extra = experts.pop("also", {})
        model = {"path": str(tmp_path / "dense"), "lora": lora | extra, "ffn_experts": experts}
        return Recipe.model_validate(tree | {"model": model})

    with pytest.raises(InputError, match="learn or differ"):
        assemble(card())
    assemble(card(init_noise=0.01))
    assemble(card(kind="lora"))
    assemble(card(also={"also_train": ["router", "expert_"]}))


# --- the match stage ------------------------------------------------------------------------------------------------


def test_a_cut_tower_is_matched_before_it_may_be_frozen(tmp_path):
    vision = {"depths": [2, 2], "hidden_sizes": [16, 32], "num_stages": 2, "layer_scale_init_value": 1.0}
    deep = tiny.recipe(tmp_path)
    overrides = {**deep.model.overrides, "vision": vision}
    run(tiny.recipe(tmp_path, model__overrides=overrides), tmp_path / "teacher")
    tree = deep.model_dump(mode="json") | {"teacher": {"path": str(tmp_path / "teacher")}}
    cut = {"path": str(tmp_path / "teacher"), "shrink": {"vision": [1, 1]}}

    def recipe(**changes):
        return Recipe.model_validate(tree | changes)

    with pytest.raises(InputError, match=r"(?s)trained since.*distill.signal=vision"):
        assemble(recipe(model=cut | {"frozen": [r"^vision\."]}))
    match = recipe(model=cut, distill={"signal": "vision"}, train=tree["train"] | {"steps": 12, "learning_rate": 3e-3})
    run(match, tmp_path / "matched")
    records = logged(tmp_path / "matched")
    losses = [record["validation_loss"] for record in records if "validation_loss" in record]
    assert losses[-1] < losses[0]
    assert {"vision"} == {name for record in records for name in record if name in ("ce", "h2g", "vision")}
    before, after = (
        assemble(match).student.model,
        assemble(recipe(model={"path": str(tmp_path / "matched")})).student.model,
    )
    changed = {
        n for (n, p), q in zip(before.named_parameters(), after.parameters(), strict=True) if not torch.equal(p, q)
    }
    assert changed and all(name.startswith("vision.") for name in changed)
    parts = assemble(recipe(model={"path": str(tmp_path / "matched"), "frozen": [r"^vision\."]}))
    assert parts.student.model.config.vision_state == "matched"


def test_towers_of_other_shapes_cannot_be_matched(taught, tmp_path):
    folder, teacher = taught
    wide = {"depths": [1, 1], "hidden_sizes": [16, 48], "num_stages": 2}
    overrides = {**tiny.recipe(folder).model.overrides, "vision": wide}
    with pytest.raises(InputError, match="features of one shape"):
        assemble(tiny.recipe(folder, **teacher, model__overrides=overrides, distill__signal="vision"))
    with pytest.raises(ValueError, match="a recipe with a teacher"):
        tiny.recipe(folder, distill__signal="vision")
