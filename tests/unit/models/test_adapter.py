"""The visual adapter: CLKD's mixture (equations 1 and 2) against a loop, conversion of dense models, saving."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tiny
from drivedistill import sections as cards
from drivedistill.data.collate import collate
from drivedistill.models.adapter import MixtureAdapter, convert_adapter
from drivedistill.models.driving_t5 import DrivingT5
from drivedistill.models.mixture import expert_distance
from drivedistill.models.presets import build_config
from drivedistill.problems import InputError
from drivedistill.subject import load_subject, save_subject

KINDS = ("linear", "mlp")
ROUTERS = ("dense", "sample", "top_k", "top_p")
WIDTH, HIDDEN, OUT = 12, 7, 5


def dense_layers(kind: str, bias: bool = True) -> list[nn.Module]:
    if kind == "linear":
        return [nn.Linear(WIDTH, OUT, bias=bias)]
    return [nn.Linear(WIDTH, HIDDEN, bias=bias), nn.GELU(), nn.Linear(HIDDEN, OUT, bias=bias)]


def mixture(kind: str, bias: bool = True, **options: Any) -> MixtureAdapter:
    torch.manual_seed(0)
    spec = cards.AdapterExperts(**{"experts": 4, **options})
    return MixtureAdapter(dense_layers(kind, bias), spec).double()


def tokens() -> Tensor:
    return torch.randn(3, 6, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)


def loop(adapter: MixtureAdapter, x: Tensor) -> Tensor:
    """Equation 2 as it is printed: one expert after the other, weighted and added."""
    weights, count = adapter.router(x).weights, adapter.num_experts
    total = torch.zeros(*x.shape[:-1], OUT, dtype=x.dtype)
    for e in range(count):
        y = x @ adapter.expert_up[e].T
        if adapter.expert_up_bias is not None:
            y = y + adapter.expert_up_bias.view(count, -1)[e]
        if adapter.expert_down is not None:
            y = nn.functional.gelu(y) @ adapter.expert_down[e]
            if adapter.expert_down_bias is not None:
                y = y + adapter.expert_down_bias.view(count, -1)[e]
        total = total + weights[..., e, None] * y
    return total


# --- the layer --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_all_experts_at_once_equal_a_loop_in_values_and_gradients(kind: str, bias: bool, router: str) -> None:
    adapter, x = mixture(kind, bias, router=router), tokens()
    inputs = [x, *adapter.parameters()]
    weight = torch.randn(3, 6, OUT, dtype=torch.float64)
    packed, naive = adapter(x), loop(adapter, x)
    torch.testing.assert_close(packed, naive)
    for ours, theirs in zip(
        torch.autograd.grad((packed * weight).sum(), inputs),
        torch.autograd.grad((naive * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("router", ["dense", "sample"])
def test_dense_weights_sum_to_one_and_every_expert_counts(router: str) -> None:
    adapter = mixture("linear", router=router)
    adapter.recording = True
    adapter(tokens())
    assert adapter.last is not None
    torch.testing.assert_close(adapter.last.weights.sum(-1), torch.ones(3, 6))
    assert (adapter.last.weights > 0).all()


def test_tokens_of_a_sample_share_their_weights_in_sample_mode_only() -> None:
    for router, shared in (("sample", True), ("dense", False)):
        weights = mixture("linear", router=router).router(tokens()).weights
        assert torch.equal(weights, weights[:, :1].expand_as(weights)) == shared
        assert not torch.allclose(weights[0], weights[1]), "another sample, other weights"


@pytest.mark.parametrize("kind", KINDS)
def test_absent_tokens_do_not_change_what_the_others_share(kind: str) -> None:
    adapter, x = mixture(kind, router="sample"), tokens()
    mask = torch.ones(3, 6, dtype=torch.bool)
    mask[:, 4:] = False
    torch.testing.assert_close(adapter(x, mask)[:, :4], adapter(x[:, :4]))


@pytest.mark.parametrize("kind", KINDS)
def test_one_expert_is_the_plain_adapter(kind: str) -> None:
    dense = [layer.double() for layer in dense_layers(kind)]
    adapter = MixtureAdapter(dense, cards.AdapterExperts(experts=1))
    adapter.copy_dense(dense, noise=0.0)
    torch.testing.assert_close(adapter(tokens()), nn.Sequential(*dense)(tokens()))


@pytest.mark.parametrize("kind", KINDS)
def test_with_equal_experts_the_router_does_not_matter(kind: str) -> None:
    dense = [layer.double() for layer in dense_layers(kind)]
    adapter = MixtureAdapter(dense, cards.AdapterExperts())
    adapter.copy_dense(dense, noise=0.0)
    before = adapter(tokens())
    nn.init.normal_(adapter.router.linear.weight, std=5.0)
    torch.testing.assert_close(adapter(tokens()), before)
    assert expert_distance(adapter) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_the_experts_does_not_matter(kind: str) -> None:
    adapter, order = mixture(kind), torch.tensor([2, 0, 3, 1])
    before = adapter(tokens())
    with torch.no_grad():
        for part in (*adapter.router.linear.parameters(), *adapter._stacks()):
            stacked = part.view(4, -1)
            stacked.copy_(stacked[order])
    torch.testing.assert_close(adapter(tokens()), before)


@pytest.mark.parametrize(
    ("kind", "size"), [("linear", WIDTH * OUT + OUT), ("mlp", (WIDTH + 1) * HIDDEN + (HIDDEN + 1) * OUT)]
)
def test_experts_are_counted_and_compared_whole(kind: str, size: int) -> None:
    adapter = mixture(kind)
    assert adapter.expert_parameters() == 4 * size
    assert adapter.expert_vectors().shape == (4, size)
    assert 1.2 < expert_distance(adapter) < 1.6, "drawn independently"
    router = (WIDTH + 1) * 4
    assert sum(parameter.numel() for parameter in adapter.parameters()) == 4 * size + router


def test_biases_are_vectors_to_the_optimizer() -> None:
    dimensions = {name: parameter.ndim for name, parameter in mixture("mlp").named_parameters()}
    assert {name for name, ndim in dimensions.items() if ndim == 1} == {n for n in dimensions if "bias" in n}


def test_noise_is_a_share_of_the_deviation_of_the_weights() -> None:
    torch.manual_seed(0)
    dense = nn.Linear(200, 100)
    adapter = MixtureAdapter([dense], cards.AdapterExperts())
    adapter.copy_dense([dense], noise=0.1)
    off = (adapter.expert_up - dense.weight).detach()
    torch.testing.assert_close(off.std(), 0.1 * dense.weight.std(), rtol=0.02, atol=0)
    assert expert_distance(adapter) == pytest.approx(0.1 * 2**0.5, rel=0.02)


def test_a_bfloat16_adapter_stays_bfloat16() -> None:
    adapter = mixture("mlp").bfloat16()
    assert adapter(tokens().bfloat16()).dtype == torch.bfloat16


# --- conversion -------------------------------------------------------------------------------------------------------


def read(subject: Any, folder: Any) -> dict[str, Tensor]:
    """The inputs of three samples with different numbers of views."""
    batch = collate(tiny.samples(tiny.pictures(folder))[:3], {"student": subject.preparation})
    return batch.inputs["student"].model


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_converted_model_is_the_dense_one_and_comes_back_from_disk(family: str, tmp_path: Any) -> None:
    subject = tiny.subject(family, tmp_path)
    model, inputs = subject.model.eval(), read(subject, tmp_path)
    with torch.no_grad():
        before = model(**inputs).logits
        convert_adapter(model, cards.AdapterExperts(experts=3, init_noise=0.0))
        torch.testing.assert_close(model(**inputs).logits, before, atol=1e-5, rtol=0)
        (layer,) = [module for module in model.modules() if isinstance(module, MixtureAdapter)]
        nn.init.normal_(layer.expert_up)
        changed = model(**inputs).logits
        assert (changed - before).abs().max() > 1e-3
        save_subject(subject, model, tmp_path / "saved", "card")
        again = load_subject(str(tmp_path / "saved"), subject.preparation.pictures).model.eval()
        torch.testing.assert_close(again(**inputs).logits, changed, atol=1e-6, rtol=0)
    assert again.config.adapter_experts == cards.AdapterExperts(experts=3, init_noise=0.0).model_dump()


@pytest.mark.parametrize("kind", KINDS)
def test_experts_of_a_configuration_are_those_of_a_conversion(kind: str, tmp_path: Any) -> None:
    """A model built with experts, one converted to them and one loaded have the same tensors."""
    spec = cards.AdapterExperts(experts=2, router="top_k", k=1)
    options = {"adapter": kind, "adapter_hidden": 24 if kind == "mlp" else None}
    torch.manual_seed(0)
    converted = DrivingT5(build_config("tiny", overrides=options))
    convert_adapter(converted, spec)
    built = DrivingT5(build_config("tiny", overrides={**options, "adapter_experts": spec.model_dump()}))
    shapes = [{name: part.shape for name, part in model.named_parameters()} for model in (converted, built)]
    assert shapes[0] == shapes[1]
    assert (built.adapter.router.kind, built.adapter.router.k) == ("top_k", 1)
    assert expert_distance(built.adapter) > 1, "drawn, not copied"
    converted.save_pretrained(tmp_path)
    again = DrivingT5.from_pretrained(tmp_path)
    assert all(torch.equal(part, again.state_dict()[name]) for name, part in converted.state_dict().items())


def test_the_linear_adapter_keeps_its_names() -> None:
    with torch.device("meta"):
        names = [name for name, _ in DrivingT5(build_config("tiny")).named_parameters() if name.startswith("adapter")]
    assert names == ["adapter.weight", "adapter.bias"]


def test_noise_lets_the_router_learn_and_the_experts_part(tmp_path: Any) -> None:
    """Between equal experts there is nothing to choose: without noise the router's gradient is zero for ever."""
    gradients = {}
    for noise in (0.0, 0.02):
        subject = tiny.subject("driving_t5", tmp_path)
        convert_adapter(subject.model, cards.AdapterExperts(init_noise=noise))
        subject.model.eval()(**read(subject, tmp_path)).logits.square().mean().backward()
        gradients[noise] = float(subject.model.adapter.router.linear.weight.grad.norm())
    assert gradients[0.0] < 1e-6 < 1e-5 < gradients[0.02]


def test_absent_views_do_not_sway_a_sample_router(tmp_path: Any) -> None:
    overrides = {"fusion": "concatenation", "tokens_per_view": 4, "adapter_experts": {"router": "sample"}}
    torch.manual_seed(0)
    model = DrivingT5(build_config("tiny", overrides=overrides)).eval()
    inputs = {"input_ids": torch.full((1, 3), 7), "decoder_input_ids": torch.zeros(1, 1).long()}
    pictures = torch.randn(1, 6, 3, 64, 64)
    front = torch.tensor([[True, False, False, False, False, False]])
    logits = model(**inputs, pixel_values=pictures, view_mask=front).logits
    alone = model(**inputs, pixel_values=pictures[:, :1], view_mask=front[:, :1]).logits
    torch.testing.assert_close(logits, alone, atol=1e-5, rtol=0)


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_what_cannot_be_converted_is_refused_and_left_alone(tmp_path: Any) -> None:
    model = tiny.subject("driving_t5", tmp_path).model
    convert_adapter(model, cards.AdapterExperts())
    with pytest.raises(InputError, match="experts already"):
        convert_adapter(model, cards.AdapterExperts())
    none = DrivingT5(build_config("tiny", overrides={"adapter": "none"}))
    with pytest.raises(InputError, match="adapter: none"):
        convert_adapter(none, cards.AdapterExperts())
    assert none.config.adapter_experts is None
    qwen, _ = tiny.qwen2_5_vl()
    with pytest.raises(InputError, match="all pictures of a batch"):
        convert_adapter(qwen, cards.AdapterExperts(router="sample"))
    assert isinstance(qwen.model.visual.merger.mlp, nn.Sequential)


def test_more_experts_are_not_asked_for_than_there_are() -> None:
    with pytest.raises(ValueError, match="3 of 2 experts"):
        cards.AdapterExperts(experts=2, router="top_k", k=3)
