"""Layers in 8 bits: rounding, gradients, LoftQ, memory, checkpoints, what is saved, and that a student distils over them."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

import tiny
from drivedistill.build import build_student
from drivedistill.data.collate import collate
from drivedistill.data.images import PictureCache
from drivedistill.models.driving_t5 import DrivingT5
from drivedistill.models.int8 import Int8Linear, dequantize, is_quantized, loftq, quantize, round_rows, weight_bytes
from drivedistill.models.parameters import count_parameters
from drivedistill.models.presets import build_config
from drivedistill.models.student import Student
from drivedistill.runs import run
from drivedistill.signals import Interrupted
from drivedistill.subject import load_subject, save_subject
from loops import stop_in, weights

EIGHT = {"lora": {"r": 4, "alpha": 2, "dropout": 0.0, "init": "loftq"}, "quantize": "int8", "allow_random": True}


def layer(width: int = 16, out: int = 24, bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(width, out, bias=bias)


def eight_bit(folder: Path, **changes):
    """A tiny student over an 8-bit base, from the recipe's model section."""
    card = tiny.recipe(folder)
    model = card.model.model_copy(
        update=type(card.model).model_validate({**card.model.model_dump(), **EIGHT, **changes}).__dict__
    )
    torch.manual_seed(0)
    return build_student(model, card.data, PictureCache(1), tiny.samples(tiny.pictures(folder)))


# --- a layer ----------------------------------------------------------------------------------------------------------


def test_no_weight_moves_by_more_than_half_a_step_and_the_largest_not_at_all():
    weight = torch.randn(24, 16) * torch.logspace(-3, 3, 24)[:, None]
    rows, scale = round_rows(weight)
    error = (weight - rows * scale[:, None]).abs()
    assert (error <= scale[:, None] * 0.5001).all()
    assert error.gather(1, weight.abs().argmax(1, keepdim=True)).max() <= scale.max() * 1e-4
    assert round_rows(torch.zeros(2, 3))[0].tolist() == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("bias", [True, False])
def test_layer_computes_with_the_rounded_weights_and_their_gradient(bias):
    plain = layer(bias=bias)
    rounded, wide = Int8Linear(plain), nn.Linear(16, 24, bias=bias)
    wide.load_state_dict({**plain.state_dict(), "weight": rounded.float_weight()})
    ours, theirs = (torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in "ab")
    assert torch.allclose(rounded(ours), wide(theirs), atol=1e-6)
    rounded(ours).square().sum().backward()
    wide(theirs).square().sum().backward()
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-5) and rounded.weight.grad is None


def test_backward_keeps_the_8_bit_weights_and_not_wide_ones():
    rounded, kept = Int8Linear(layer(256, 256, bias=False)), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.nbytes) or t, lambda t: t):
        rounded(torch.randn(2, 256, requires_grad=True)).sum()
    assert sum(kept) < 256 * 256 * 1.1


def test_autocast_computes_in_its_own_precision():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert Int8Linear(layer())(torch.randn(2, 16)).dtype == torch.bfloat16


def test_gradient_is_right_in_double():
    rounded = Int8Linear(layer()).double()
    assert torch.autograd.gradcheck(rounded, torch.randn(2, 16, dtype=torch.double, requires_grad=True))


# --- LoftQ ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaling", [0.5, 1.0, 2.0])
def test_adapters_bring_the_weights_closer_than_rounding_alone(scaling):
    weight = torch.randn(64, 48, generator=torch.Generator().manual_seed(0))
    rows, scale = round_rows(weight)
    alone = float((weight - rows * scale[:, None]).norm())
    errors = []
    for rounds in (1, 5):
        (rows, scale), a, b = loftq(weight, 16, scaling, rounds)
        errors.append(float((weight - rows * scale[:, None] - scaling * b @ a).norm()))
    assert a.shape == (16, 48) and b.shape == (64, 16)
    assert errors[1] < errors[0] < 0.8 * alone


def test_one_round_is_the_best_that_its_rank_can_do():
    weight = torch.randn(32, 32, generator=torch.Generator().manual_seed(0))
    (rows, scale), a, b = loftq(weight, 8, 0.5, rounds=1)
    residual = weight - rows * scale[:, None]
    rest = torch.linalg.svdvals(residual)[8:].norm()
    assert torch.allclose((residual - 0.5 * b @ a).norm(), rest, rtol=1e-4)
    whole = loftq(weight, 32, 0.5, rounds=1)
    assert torch.allclose(whole[0][0] * whole[0][1][:, None] + 0.5 * whole[2] @ whole[1], weight, atol=1e-5)


# --- a model ----------------------------------------------------------------------------------------------------------


def test_only_frozen_linear_layers_of_the_language_model_are_stored_in_8_bits(tmp_path):
    model = eight_bit(tmp_path).model.get_base_model()
    stored = {name for name, module in model.named_modules() if isinstance(module, Int8Linear)}
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    assert stored and all(name.startswith("language_model.") for name in stored)
    assert {name.rpartition(".")[2] for name in stored} == {"base_layer", "k", "o", "wi", "wo"}
    assert all(
        "lora_" in name or not name.startswith("language_model.") for name in linear - {"language_model.lm_head"}
    )
    assert model.language_model.shared.weight.dtype == torch.float32


def test_loftq_start_is_closer_to_the_unrounded_model_than_the_default_start(tmp_path):
    reference = eight_bit(tmp_path, quantize=None, lora={"r": 4, "alpha": 2, "dropout": 0.0})
    batch = collate(tiny.samples(tiny.pictures(tmp_path))[:4], {"student": reference.preparation})
    names = [name for name, module in reference.model.named_modules() if hasattr(module, "lora_A")]
    whole = {name: reference.model.get_submodule(name).base_layer.weight for name in names}
    distances = {}
    for init in ("loftq", "default"):
        model = eight_bit(tmp_path, lora={"r": 4, "alpha": 2, "dropout": 0.0, "init": init}).model
        layers = {name: model.get_submodule(name) for name in names}
        sums = [
            (whole[name] - part.base_layer.float_weight() - part.get_delta_weight("default")).square().sum()
            for name, part in layers.items()
        ]
        distances[init] = float(torch.stack(sums).sum().sqrt().detach())
        with torch.no_grad():
            logits = Student(model).eval()(batch).logits
            apart = (logits - Student(reference.model).eval()(batch).logits).norm() / logits.norm()
        assert apart < 0.05
    assert distances["loftq"] < 0.9 * distances["default"]


def test_memory_of_the_base_falls_to_about_a_quarter_and_counts_stay():
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {"language_model": T5ForConditionalGeneration(T5Config(d_model=128, d_ff=512, vocab_size=64))}
    )
    model.requires_grad_(False)
    before, parameters = weight_bytes(model), count_parameters(model)["total"]
    assert before == 4 * parameters
    assert quantize(model) == 6 * 6 + 6 * 10
    assert weight_bytes(model) / before < 0.28
    assert count_parameters(model)["total"] == parameters


def test_t5_large_in_8_bits_weighs_what_the_documentation_says():
    with torch.device("meta"):
        model = DrivingT5(build_config("em_vlm4ad_qlarge", overrides={"vision_stored": "used"})).language_model
        whole = weight_bytes(model)
        holder = nn.ModuleDict({"language_model": model.requires_grad_(False)})
        assert quantize(holder) == 24 * 6 + 24 * 10
    assert (whole, weight_bytes(holder)) == (2_950_672_384, 838_905_856)


def test_turned_back_it_computes_the_same(tmp_path):
    subject = eight_bit(tmp_path)
    batch = collate(tiny.samples(tiny.pictures(tmp_path))[:4], {"student": subject.preparation})
    back = copy.deepcopy(subject.model)
    dequantize(back)
    assert is_quantized(subject.model) and not is_quantized(back)
    ours, theirs = (Student(model).eval()(batch).logits for model in (subject.model, back))
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_saved_model_is_an_ordinary_one_that_answers_alike(tmp_path):
    subject = eight_bit(tmp_path)
    with torch.no_grad():
        for name, parameter in subject.model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.1)
    save_subject(subject, subject.model, tmp_path / "model", "card")
    loaded = load_subject(str(tmp_path / "model"), PictureCache(1))
    assert not is_quantized(loaded.model) and is_quantized(subject.model)
    assert {value.dtype for value in loaded.model.state_dict().values()} == {torch.float32}
    batch = collate(tiny.samples(tiny.pictures(tmp_path))[:4], {"student": subject.preparation})
    ours, theirs = (Student(model).eval()(batch).logits for model in (subject.model, loaded.model))
    assert torch.allclose(ours, theirs, atol=1e-4)


# --- runs -------------------------------------------------------------------------------------------------------------


def test_it_distils_over_8_bits_and_a_resumed_run_ends_alike(tmp_path, monkeypatch):
    run(tiny.recipe(tmp_path, train__steps=1), tmp_path / "teacher")
    teacher = {"path": str(tmp_path / "teacher"), "quantize": "int8"}
    model = {"path": str(tmp_path / "teacher"), **EIGHT}
    card = tiny.recipe(tmp_path, model=model, teacher=teacher, train__steps=3, train__save_every=1)
    run(card, tmp_path / "whole")
    whole = weights(tmp_path / "whole")
    assert {str(value.dtype) for value in whole.values()} == {"torch.float32", "torch.int8"}
    first, last = (tmp_path / "whole" / "checkpoints" / name for name in ("step-000002", "step-000003"))
    assert first.is_dir() and last.is_dir()
    stop_in(monkeypatch, 1)
    with pytest.raises(Interrupted):
        run(card, tmp_path / "stopped")
    monkeypatch.undo()
    run(card, tmp_path / "stopped", resume=True)
    resumed = weights(tmp_path / "stopped")
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert not is_quantized(load_subject(str(tmp_path / "stopped"), PictureCache(1)).model)


@pytest.mark.parametrize("family", sorted(tiny.VLMS))
def test_decoder_only_models_are_stored_in_8_bits_too(family, tmp_path):
    subject = tiny.subject(family, tmp_path, lora=True)
    model = subject.model.get_base_model()
    before = weight_bytes(model)
    assert quantize(model) == 2 * 7
    assert weight_bytes(model) < before
    assert isinstance(model.lm_head, nn.Linear)
    batch = collate(tiny.samples(tiny.pictures(tmp_path))[:2], {"student": subject.preparation})
    Student(subject.model)(batch).logits.sum().backward()
    assert any(p.grad is not None for name, p in model.named_parameters() if "lora_B" in name)
