"""Use of experts: sums that do not depend on batches, known routers, random routers, a difference that was planted."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import tiny
from drivedistill import sections as cards
from drivedistill.build import build_student
from drivedistill.cli import app
from drivedistill.data.collate import collate
from drivedistill.data.images import PictureCache
from drivedistill.data.samples import write_samples
from drivedistill.distill.diagnostics import EFFECTIVE, expert_notes
from drivedistill.evaluate.rows import ALL
from drivedistill.experts.observe import CONTROLS, TOKENS, Layer, Use, observe
from drivedistill.experts.report import (
    READINGS,
    Group,
    RegimeComparison,
    compare_regimes,
    dead,
    load,
    reading,
    verdict,
    weights,
)
from drivedistill.experts.table import sentences
from drivedistill.models.adapter import convert_adapter
from drivedistill.models.student import Student, mixtures
from drivedistill.models.upcycle import convert_ffn
from drivedistill.problems import InputError
from drivedistill.records import Sample
from drivedistill.subject import Subject, save_subject

E = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("experts")


@pytest.fixture(scope="module")
def samples(folder: Path) -> list[Sample]:
    return tiny.samples(tiny.pictures(folder))


def with_experts(family: str, folder: Path, router: str = "top_k") -> Subject:
    """Experts in the adapter (dense) and in every feed-forward layer (`router`); routers that have an opinion."""
    subject = tiny.subject(family, folder)
    torch.manual_seed(1)
    convert_adapter(subject.model, cards.AdapterExperts(experts=E))
    convert_ffn(subject.model, cards.FfnExperts(experts=E, router=router, layers="all"))  # type: ignore[arg-type]
    with torch.no_grad():
        for layer in mixtures(subject.model).values():
            layer.router.linear.weight.mul_(8)
    return subject


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def subject(request: pytest.FixtureRequest, folder: Path) -> Subject:
    return with_experts(request.param, folder)


@pytest.fixture(scope="module")
def use(subject: Subject, samples: list[Sample]) -> Use:
    return observe(subject, samples, batch_size=8, draws=2)


def test_batches_do_not_matter(subject: Subject, samples: list[Sample], use: Use) -> None:
    alone = observe(subject, samples, batch_size=1, draws=2)
    for one, other in zip(alone.layers, use.layers, strict=True):
        assert (one.name, one.tokens) == (other.name, other.tokens)
        assert (one.sums[:, TOKENS] == other.sums[:, TOKENS]).all()
        np.testing.assert_allclose(one.sums, other.sums, rtol=1e-4, atol=1e-3)
        for control in CONTROLS:
            np.testing.assert_allclose(one.controls[control], other.controls[control], rtol=1e-4, atol=1e-3)


def test_sums_are_those_of_the_training_log(subject: Subject, samples: list[Sample], use: Use) -> None:
    batch = collate(samples, {"student": subject.preparation})
    with torch.no_grad():
        routing = Student(subject.model)(batch, {"logits", "routing"}).routing
    corner = np.array([sample.regime == "corner" for sample in samples])
    assert {layer.name for layer in use.layers} == routing.keys()
    for layer in use.layers:
        if layer.tokens == "all":
            notes = expert_notes(routing[layer.name], batch).numpy()
            ours = np.stack([layer.sums[~corner].sum(axis=0), layer.sums[corner].sum(axis=0)])
            ran = ours[:, -E:]
            np.testing.assert_allclose(
                np.concatenate([ours[:, : 1 + len(EFFECTIVE)], ran], axis=1), notes, rtol=1e-5, atol=1e-4
            )


@pytest.mark.parametrize("apart", [True, False])
def test_a_model_decodes_afterwards_as_it_did_before(folder: Path, samples: list[Sample], apart: bool) -> None:
    model = with_experts("driving_t5", folder)
    model.model.apart = apart
    observe(model, samples[:2], draws=1)
    assert model.model.apart is apart


def test_text_and_image_tokens_are_all_tokens(use: Use) -> None:
    layers: dict[str, dict[str, Layer]] = {}
    for layer in use.layers:
        layers.setdefault(layer.name, {})[layer.tokens] = layer
    mixed = [kinds for kinds in layers.values() if len(kinds) == 3]
    assert mixed
    for kinds in mixed:
        np.testing.assert_allclose(kinds["text"].sums + kinds["image"].sums, kinds["all"].sums, rtol=1e-9)
        assert (kinds["image"].sums[:, TOKENS] > 0).all()
        for control in CONTROLS:
            both = kinds["text"].controls[control] + kinds["image"].controls[control]
            np.testing.assert_allclose(both, kinds["all"].controls[control], rtol=1e-9)
    adapter = next(kinds["all"] for kinds in layers.values() if kinds["all"].place == "adapter")
    image = mixed[0]["image"].sums[:, TOKENS]
    assert (adapter.sums[:, TOKENS] == image).all()


def test_cells_of_the_controls_have_the_tokens_of_their_questions(use: Use) -> None:
    for layer in use.layers:
        for number, cell in enumerate(use.cells):
            own = [i for i, sample in enumerate(use.samples) if (sample.dataset, sample.regime, sample.task) == cell]
            tokens = layer.sums[own, TOKENS].sum()
            for control in CONTROLS:
                assert (layer.controls[control][:, number, TOKENS] == tokens).all()


def test_random_routers_are_a_function_of_their_number_and_differ(folder: Path, samples: list[Sample]) -> None:
    subject = with_experts("driving_t5", folder)
    first, again = (observe(subject, samples, draws=3) for _ in range(2))
    for one, other in zip(first.layers, again.layers, strict=True):
        for control in CONTROLS:
            assert (one.controls[control] == other.controls[control]).all()
            columns = [weights(draw.sum(axis=0), E).tolist() for draw in one.controls[control]]
            assert len({tuple(column) for column in columns}) == 3
    assert all(not layer.router._forward_hooks for layer in mixtures(subject.model).values())


@pytest.mark.parametrize("router", ["dense", "top_k", "top_p"])
def test_loads_add_up(folder: Path, samples: list[Sample], router: str) -> None:
    use = observe(with_experts("driving_t5", folder, router), samples, draws=1)
    for layer in use.layers:
        total = layer.sums.sum(axis=0)
        assert weights(total, E).sum() == pytest.approx(1)
        active = float(reading("active", total, E))
        if layer.router == "dense":
            assert load(total, E, layer.router).sum() == pytest.approx(1)
            assert active == E
        else:
            assert load(total, E, layer.router).sum() == pytest.approx(active)
            assert active == 2 if layer.router == "top_k" else 1 <= active < E


def test_a_gate_that_decides_for_pictures_counts_pictures(folder: Path, samples: list[Sample]) -> None:
    data = cards.Data(
        sources=[cards.Source(name="drawn", format="jsonl", root=folder, regime="regular")], image_size=32
    )
    text = {"d_model": 32, "d_kv": 4, "d_ff": 64, "num_layers": 1, "num_heads": 8, "dropout_rate": 0.0}
    vision = {"depths": [1, 1], "hidden_sizes": [16, 32], "num_stages": 2}
    overrides = {"text": text, "vision": vision, "fusion": "feature_experts", "fusion_hidden": 8, "fusion_experts": 3}
    card = cards.Model(preset="tiny", overrides=overrides, tokenizer_size=300, allow_random=True)
    (gate,) = observe(build_student(card, data, PictureCache(50), samples), samples, batch_size=3, draws=1).layers
    assert (gate.place, gate.experts) == ("fusion", 3)
    assert gate.sums[:, TOKENS].tolist() == [len(sample.images) for sample in samples]


def set_routers(subject: Subject, weight: float, bias: list[float]) -> None:
    with torch.no_grad():
        for layer in mixtures(subject.model).values():
            layer.router.linear.weight.mul_(weight)
            layer.router.linear.bias.copy_(torch.tensor(bias))


def test_an_undecided_router_uses_all_experts(folder: Path, samples: list[Sample]) -> None:
    subject = with_experts("driving_t5", folder, "dense")
    set_routers(subject, 0, [0.0] * E)
    for layer in observe(subject, samples, draws=1).layers:
        total = layer.sums.sum(axis=0)
        found = {name: float(reading(name, total, E)) for name in READINGS}
        expected = {
            "exp_entropy": 4,
            "above_uniform": 0,
            "for_half": 2,
            "for_nine_tenths": 4,
            "active": 4,
            "of_mean": 4,
        }
        assert found == pytest.approx(expected)
        assert dead(total, E, layer.router) == []


def test_a_decided_router_uses_one_expert_and_the_others_are_dead(folder: Path, samples: list[Sample]) -> None:
    subject = with_experts("driving_t5", folder, "dense")
    set_routers(subject, 0, [0.0, 100.0, 0.0, 0.0])
    for layer in observe(subject, samples, draws=1).layers:
        total = layer.sums.sum(axis=0)
        for name in ("exp_entropy", "above_uniform", "for_half", "for_nine_tenths", "of_mean"):
            assert reading(name, total, E) == pytest.approx(1)
        assert dead(total, E, layer.router) == [0, 2, 3]


def test_groups_are_listed_once_and_hold_their_questions(use: Use) -> None:
    found = compare_regimes(use)
    groups = [item.group for item in found if item.layer is use.layers[0]]
    assert groups[0] == Group(ALL, ALL)
    assert set(groups) == {Group(ALL, task) for task in (ALL, "perception", "prediction", "planning", "behavior")}
    tokens = {item.group.task: sum(part.tokens for part in item.parts.values()) for item in found[: len(groups)]}
    assert tokens[ALL] == sum(count for task, count in tokens.items() if task != ALL)


# --- a planted difference ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Subject, list[Sample]]:
    """Bright corner cases, dark regular ones, and an adapter whose router is undecided about the bright ones only."""
    folder = tmp_path_factory.mktemp("planted")
    generator = np.random.default_rng(0)
    made = []
    for number in range(70):
        bright = number % 2
        picture = generator.integers(0, 60, (32, 32, 3)) + 190 * bright
        path = folder / f"{number}.png"
        Image.fromarray(picture.astype(np.uint8)).save(path)
        made.append(
            Sample(
                id=f"p{number}",
                dataset="drawn",
                scene=f"scene{number}",
                frame="f",
                split="train",
                task="planning",
                regime="corner" if bright else "regular",
                question="What now?",
                answer="Stop.",
                images={"CAM_FRONT": str(path)},
            )
        )
    subject = tiny.subject("driving_t5", folder)
    convert_adapter(subject.model, cards.AdapterExperts(experts=E))
    router = subject.model.adapter.router
    inputs: list[torch.Tensor] = []
    hook = router.register_forward_hook(lambda _module, given, _output: inputs.append(given[0].detach()))
    observe(subject, made, batch_size=70, draws=1)
    hook.remove()
    tokens = inputs[0].flatten(1)
    corner = torch.tensor([sample.regime == "corner" for sample in made])
    middles = [inputs[0][chosen].flatten(0, 1).mean(dim=0) for chosen in (~corner, corner)]
    assert tokens.std() > 0
    away = middles[0] - middles[1]
    with torch.no_grad():  # logit of expert 0: about 0 for corner cases, about 6 for regular ones
        router.linear.weight.zero_()
        router.linear.bias.zero_()
        router.linear.weight[0] = 6 * away / away.dot(away)
        router.linear.bias[0] = -6 * middles[1].dot(away) / away.dot(away)
    return subject, made


def whole(comparisons: list[RegimeComparison]) -> RegimeComparison:
    return next(item for item in comparisons if item.group == Group(ALL, ALL) and item.layer.tokens == "all")


def test_a_planted_difference_is_found_and_random_routers_do_not_show_it(planted: Any) -> None:
    subject, samples = planted
    found = whole(compare_regimes(observe(subject, samples, draws=5)))
    value, low, high = found.differences["exp_entropy"]
    assert low is not None and high is not None
    assert 2 < low < value < high < 3
    assert verdict(found) == "more"
    for control in CONTROLS:
        draws = found.controls["exp_entropy"][control]
        assert len(draws) == 5
        assert max(map(abs, draws)) < 0.5 * value
    (sentence,) = sentences([found])
    assert f"corner cases use {value:.3f} [{low:.3f}, {high:.3f}] more effective experts" in sentence
    assert "none of 10 random routers shows as much" in sentence


def test_a_router_drawn_again_shows_no_such_difference(planted: Any) -> None:
    subject, samples = planted
    trained = {name: value.clone() for name, value in subject.model.state_dict().items()}
    subject.model.adapter.router.reset_parameters(torch.Generator().manual_seed(99))
    found = whole(compare_regimes(observe(subject, samples, draws=5)))
    subject.model.load_state_dict(trained)
    assert abs(found.differences["exp_entropy"].value) < 0.5
    assert "none of 10 random routers" not in next(sentences([found]))


# --- the verb ---------------------------------------------------------------------------------------------------------


def test_the_verb_writes_numbers_report_and_figure(folder: Path, tmp_path: Path) -> None:
    subject = with_experts("driving_t5", folder, "top_p")
    save_subject(subject, subject.model, tmp_path / "model", "")
    root = tmp_path / "data"
    root.mkdir()
    write_samples(root / "train.jsonl", tiny.samples(tiny.pictures(root)), root)
    asked = ["experts", str(tmp_path / "model"), "--data", str(root), "--format", "jsonl", "--draws", "2"]
    done = CliRunner().invoke(app, [*asked, "--out", str(tmp_path / "out")], catch_exceptions=False)
    assert done.exit_code == 0
    assert "too few scenes for a verdict" in done.stdout
    assert (tmp_path / "out" / "experts.md").read_text("utf-8") in done.stdout
    found = json.loads((tmp_path / "out" / "experts.json").read_text("utf-8"))
    assert found["questions"] == 8
    assert {row["tokens"] for row in found["comparisons"]} == {"all", "text", "image"}
    adapter = found["comparisons"][0]
    assert sum(weight["value"] for weight in adapter["regimes"]["corner"]["weights"]) == pytest.approx(1)
    assert set(adapter["differences"]["exp_entropy"]) == {"value", "low", "high", "verdict", *CONTROLS}
    ET.parse(tmp_path / "out" / "experts.svg")


def test_a_model_without_experts_is_refused(folder: Path, samples: list[Sample]) -> None:
    with pytest.raises(InputError, match="a dense model"):
        observe(tiny.subject("driving_t5", folder), samples)


def test_questions_without_answers_are_refused(folder: Path, samples: list[Sample]) -> None:
    unanswered = [sample.model_copy(update={"answer": None}) for sample in samples]
    with pytest.raises(InputError) as caught:
        observe(with_experts("driving_t5", folder), unanswered)
    assert len(caught.value.problems) == 8
