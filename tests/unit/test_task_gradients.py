"""Gradients of several tasks in a real step: one backward pass each, projected per sample or per window."""

from __future__ import annotations

import random

import pytest
import torch
from accelerate import Accelerator

import drivedistill.task_gradients as module
import tiny
from drivedistill import teaching
from drivedistill.data.collate import collate
from drivedistill.data.stream import MicroBatches
from drivedistill.distill.projection import STAGES, agp
from drivedistill.distill.reweighting import Reweighter
from drivedistill.drivekd_sections import Reweighting
from drivedistill.problems import RunError
from drivedistill.recipe import Recipe
from drivedistill.runs import assemble, run
from drivedistill.signals import Interrupted
from drivedistill.step import step
from drivedistill.task_gradients import gram_matrix
from drivedistill.train import start
from fakes import CAPABILITIES, FunctionTeacher, Quarrel, untaught
from loops import logged, one_update, relative_difference, stop_in, weights

WINDOW = {"train__batch_size": 1, "train__accumulate": 6, "train__clip": None, "train__reduction": "tokens"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tasks")


@pytest.fixture(autouse=True)
def without_courses(monkeypatch):
    """The lessons here are not a teacher's."""
    monkeypatch.setattr(teaching, "courses_of", lambda *given: {})


def card(folder, projection=None, reweighting=None, **changes) -> Recipe:
    """A window of six samples; without projection it is one backward pass of all terms."""
    recipe = tiny.recipe(folder, **{**WINDOW, **changes})
    return untaught(recipe, projection=projection, reweighting=reweighting) if projection else recipe


def lessons(options=None, **more):
    """Changes a setting's objective."""

    def change(setting):
        fused = setting.objective.fused
        chosen = {"only": frozenset(options)} if options is not None else {}
        setting.objective = Quarrel(
            setting.recipe.train.reduction, model=setting.student.model, fused=fused, **chosen, **more
        )

    return change


def flat(gradients, like) -> torch.Tensor:
    """One vector, zero where a task does not reach."""
    return torch.cat([gradients.get(name, torch.zeros_like(like[name])).flatten() for name in sorted(like)]).double()


def separate(folder, accumulate=6, **more) -> torch.Tensor:
    """The tasks' gradients `float64[4, n]` of a window, each from a run of its own that projects nothing."""
    plain = card(folder, train__accumulate=accumulate)
    everything = one_update(plain, lessons())
    alone = [one_update(plain, lessons([name], **more)) for name in ("anchor", *CAPABILITIES)]
    return torch.stack([flat(gradients, everything) for gradients in alone])


def projected(vectors: torch.Tensor, kind: str, place: str, supervised: str = "each") -> torch.Tensor:
    """What the first window's projection must be."""
    order = random.Random(f"0 0 {place}").sample([1, 2, 3], 3)
    chosen = agp(vectors @ vectors.T, order, stages=STAGES[kind], supervised=supervised)
    assert (chosen - chosen.new_tensor([3 if supervised == "each" else 1, 1, 1, 1])).abs().max() > 1e-3, "no conflict"
    return chosen @ vectors


def window_ids(recipe: Recipe) -> list[str]:
    """The samples of the first window, in their order."""
    setting = assemble(recipe).setting
    order = iter(MicroBatches(start(setting, Accelerator(cpu=True)).stream, 0, 0))
    return [setting.train[next(order)[0]].id for _ in range(recipe.train.accumulate)]


@pytest.mark.parametrize("per", ["window", "sample"])
def test_sum_is_the_gradient_of_all_terms_together(folder, per):
    plain = one_update(card(folder), lessons())
    apart = one_update(card(folder, {"kind": "sum", "per": per}), lessons())
    assert relative_difference(apart, plain) < 1e-6


@pytest.mark.parametrize("kind", ["agp", "stage1", "stage2"])
def test_window_is_projected_as_its_tasks_gradients_say(folder, kind):
    gains = {"perception": 3.0, "reasoning": 0.5, "planning": 2.0}
    expected = projected(separate(folder, gains=gains), kind, "window", "once")
    projection = {"kind": kind, "per": "window", "supervised": "once"}
    found = one_update(card(folder, projection), lessons(gains=gains))
    assert (flat(found, found) - expected).norm() < 1e-5 * expected.norm()


def test_every_sample_is_projected_alone(folder):
    recipe = card(folder, {"kind": "agp", "per": "sample"}, train__accumulate=2)
    ids = window_ids(recipe)
    samples = [projected(separate(folder, 2, sample=name), "agp", str(place)) for place, name in enumerate(ids)]
    found = one_update(recipe, lessons())
    expected = torch.stack(samples).sum(dim=0)
    assert (flat(found, found) - expected).norm() < 1e-5 * expected.norm()
    window = one_update(card(folder, {"kind": "agp", "per": "window"}, train__accumulate=2), lessons())
    assert relative_difference(window, found) > 1e-3


@pytest.mark.parametrize("reduction", ["tokens", "samples"])
def test_window_does_not_depend_on_how_it_is_cut(folder, reduction):
    sizes = [(6, 1), (1, 6), (2, 3)]
    whole, *parts = [
        one_update(
            card(folder, {"per": "window"}, train__batch_size=b, train__accumulate=a, train__reduction=reduction),
            lessons(),
        )
        for b, a in sizes
    ]
    assert all(relative_difference(part, whole) < 1e-5 for part in parts)


def test_followers_are_divided_by_samples_whatever_the_reduction(folder):
    found = [
        one_update(card(folder, train__reduction=reduction), lessons(["planning"]))
        for reduction in ("tokens", "samples")
    ]
    assert relative_difference(*found) < 1e-6


def test_gradient_checkpointing_changes_nothing(folder, tmp_path):
    tiny.recipe(folder)  # writes the pictures
    path = tiny.save_vlm("internvl", tmp_path / "vlm")
    model = {"path": str(path)}
    found = []
    for checkpointing in (False, True):
        changes = {
            "model": {**model, "gradient_checkpointing": checkpointing},
            "data__image_size": 28,
            "train__accumulate": 2,
        }
        found.append(one_update(card(folder, {"per": "sample"}, **changes), lessons()))
    assert relative_difference(*found) < 1e-5


@pytest.mark.parametrize("fused", ["on", "off"])
def test_divergence_as_a_follower_is_the_sum_over_samples_and_its_own_task(folder, fused):
    def found(role, kind="sum", reduction="samples", **more):
        def change(setting):
            vocabulary = len(setting.preparations["student"].tokenizer)
            setting.teacher = FunctionTeacher(vocabulary)
            taught = {"taught": True, "role": role, "fused": fused, "model": setting.student.model}
            setting.objective = Quarrel(reduction, vocabulary, **taught, **more)

        changes = {"train__reduction": reduction, "train__fused_loss": fused, "distill__weight": 0.5}
        return one_update(card(folder, {"kind": kind, "per": "window"}, train__accumulate=3, **changes), change)

    whole = found("follower")
    assert relative_difference(whole, found("anchor")) < 1e-5
    assert relative_difference(found("follower", kind="agp"), whole) > 1e-3
    alone = found("follower", only=frozenset())
    assert relative_difference(found("follower", reduction="tokens", only=frozenset()), alone) < 1e-5


# --- online weights -------------------------------------------------------------------------------------------------------


def two_steps(recipe, **more):
    """The loop after two steps on its first window, and what was logged."""
    setting = assemble(recipe).setting
    lessons(**more)(setting)
    loop = start(setting, Accelerator(cpu=True))
    order = iter(MicroBatches(loop.stream, 0, 0))
    window = [
        collate([setting.train[i] for i in next(order)], setting.preparations) for _ in range(recipe.train.accumulate)
    ]
    loop.setting.recipe = recipe
    records = [step(loop, window), step(loop, window)]
    return loop, records


@pytest.mark.parametrize("per", ["window", "sample"])
def test_online_weights_learn_from_unmixed_norms(folder, per):
    gains = {"perception": 0.5, "reasoning": 1.0, "planning": 2.0}
    recipe = card(folder, {"kind": "sum", "per": per}, {}, train__learning_rate=1e-12, train__accumulate=2)
    loop, (first, second) = two_steps(recipe, mixing=1 / 3, gains=gains)
    assert first["gradients"]["weight"] == {"anchor": 1.0, **gains}
    # With a third for everybody, the gradient of an unmixed lesson is three times as long.
    parts = window_ids(recipe) if per == "sample" else [None]
    vectors = torch.stack([separate(folder, 2, mixing=1 / 3, sample=name) for name in parts])
    norms = vectors.norm(dim=2).sum(dim=0) * torch.tensor([1, 3, 3, 3])
    static = torch.tensor([1.0, *gains.values()], dtype=torch.float64)
    by_hand = Reweighter(Reweighting(), 4)
    by_hand.learn(torch.ones(4, dtype=torch.float64), norms, static)
    assert [*second["gradients"]["weight"].values()] == pytest.approx(by_hand.weights(static).tolist(), abs=2e-6)
    assert second["gradients"]["weight"] != first["gradients"]["weight"]
    assert loop.tasks.norms.tolist() == pytest.approx(
        norms.tolist(), rel=1e-4
    )  # of the second window, which is the first


def test_anchor_weighs_what_the_supervised_loss_weighs(folder):
    changes = {"distill__supervised_weight": 0.25, "distill__weight": 0.5, "train__accumulate": 2}
    changes["teacher"] = {**tiny.recipe(folder).model.model_dump(), "allow_random": True}

    def change(setting):
        vocabulary = len(setting.preparations["student"].tokenizer)
        setting.objective = Quarrel(
            "tokens", vocabulary, taught=True, supervised_weight=0.25, model=setting.student.model
        )

    plain = one_update(card(folder, **changes), change)
    assert relative_difference(one_update(card(folder, {"kind": "sum"}, **changes), change), plain) < 1e-5
    setting = assemble(card(folder, {"kind": "sum"}, {"least_supervised": 0.0}, **changes)).setting
    change(setting)
    loop = start(setting, Accelerator(cpu=True))
    loop.tasks.seen[:, 0] = torch.tensor([loop.tasks.anchor_weight, 1.0, 1.0, 1.0])
    assert loop.tasks._shown()["weight"]["anchor"] == 0.25


def test_online_weights_multiply_the_gradients(folder):
    gains = {"perception": 0.5, "reasoning": 1.0, "planning": 2.0}
    plain = one_update(card(folder, {"kind": "agp"}), lessons(gains=gains))
    online = one_update(card(folder, {"kind": "agp"}, {}), lessons(gains=gains))
    assert relative_difference(online, plain) < 1e-6  # the first window has the static ones


def test_resumed_run_reaches_the_uninterrupted_weights_and_log(tmp_path, monkeypatch):
    monkeypatch.undo()  # a teacher's lessons
    for name, layers in (("student", 2), ("teacher", 3)):
        tiny.save_vlm("internvl", tmp_path / name, seed=layers, num_hidden_layers=layers)
    section = {"projection": {"per": "sample"}, "reweighting": {"learning_rate": 0.01, "alpha": 0.5}}
    changes = {"model": {"path": str(tmp_path / "student")}, "teacher": {"path": str(tmp_path / "teacher")}}
    sizes = {**WINDOW, "train__accumulate": 2, "train__steps": 4, "data__image_size": 28, "distill__weight": 0.0}
    recipe = tiny.recipe(tmp_path, **sizes, **changes, distill__drivekd=section)
    run(recipe, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_in(patch, 2)
        with pytest.raises(Interrupted):
            run(recipe, tmp_path / "broken")
    run(recipe, tmp_path / "broken", resume=True)
    whole, broken = weights(tmp_path / "whole"), weights(tmp_path / "broken")
    assert all(torch.equal(whole[name], broken[name]) for name in whole)
    told = [[r["gradients"] for r in logged(tmp_path / name) if "gradients" in r] for name in ("whole", "broken")]
    assert told[0] == told[1]
    assert told[0][0]["norm_share"].keys() == {"anchor", *CAPABILITIES}
    assert told[0][0]["weight"]["planning"] != told[0][-1]["weight"]["planning"]


# --- what is logged, refused, and computed --------------------------------------------------------------------------------


def test_log_says_how_tasks_stand_to_each_other(folder):
    vectors = separate(folder)
    _, (record, _) = two_steps(card(folder, {"per": "window"}))
    norms = vectors.norm(dim=1)
    cosines = vectors @ vectors.T / norms / norms[:, None]
    told = record["gradients"]
    assert told["cosine"]["anchor/perception"] == pytest.approx(float(cosines[0, 1]), abs=1e-4)
    assert told["cosine"]["reasoning/planning"] == pytest.approx(float(cosines[2, 3]), abs=1e-4)
    assert told["norm_share"]["planning"] == pytest.approx(float(norms[3] / norms.sum()), abs=1e-4)
    assert told["conflicts"] == float((cosines < 0).any())
    assert len(told["cosine"]) == 6
    _, (few, _) = two_steps(card(folder, {"per": "sample"}), mixing=0.0)  # one lesson per sample
    assert set(few["gradients"]["cosine"]) == {"anchor/perception", "anchor/reasoning", "anchor/planning"}


def test_gradient_that_is_not_finite_stops_the_run(folder):
    with pytest.raises(RunError, match="grad_norm"):
        two_steps(card(folder, {"per": "sample"}), gains={"perception": 1.0, "reasoning": 1e300, "planning": 1.0})


def test_gram_matrix_equals_the_flattened_one(monkeypatch):
    monkeypatch.setitem(module.CHUNK, "cpu", 7)
    shapes = [(3, 4), (2,), (20,), (), (5,)]
    tasks = [[torch.randn(shape, generator=torch.Generator().manual_seed(t)) for shape in shapes] for t in range(3)]
    tasks[1][2] = tasks[2][0] = tasks[2][1] = None
    tasks[0][4] = tasks[1][4] = tasks[2][4] = None
    dense = torch.stack(
        [
            torch.cat([torch.zeros(s).flatten() if g is None else g.flatten() for g, s in zip(t, shapes, strict=True)])
            for t in tasks
        ]
    ).double()
    torch.testing.assert_close(gram_matrix(tasks, torch.device("cpu")), dense @ dense.T, rtol=1e-6, atol=1e-6)
    doubles = [[None if g is None else g.double() for g in task] for task in tasks]
    torch.testing.assert_close(gram_matrix(doubles, torch.device("cpu")), dense @ dense.T, rtol=1e-13, atol=1e-13)
    assert not gram_matrix([[None], [None]], torch.device("cpu")).any()


def test_recipe_refuses_what_cannot_be_projected(folder):
    teacher = tiny.recipe(folder).model.model_dump()

    def refused(message, drivekd, **changes):
        with pytest.raises(Exception, match=message) as caught:
            tiny.recipe(folder, teacher=teacher, distill__drivekd=drivekd, **changes)
        return str(caught.value)

    sizes = {"train__batch_size": 2, "train__sharding": "fsdp2", "mining": {"pool": "ranks"}}
    text = refused("single samples", {"projection": {"per": "sample"}}, **sizes)
    assert all(field in text for field in ("train.batch_size", "train.sharding", "mining.pool"))
    tiny.recipe(folder, teacher=teacher, distill__drivekd={"projection": {"per": "window"}}, **sizes)
    follower = {"kl": "follower", "projection": {"per": "window"}}
    refused("mean over samples", follower, distill__on="mined", mining={"pool": "window"})
    refused("takes the place", follower | {"reweighting": {}}, distill__release={})
