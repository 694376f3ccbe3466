"""Feed-forward experts: all ways of computing them agree, and what they mean."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import relu, silu
from transformers import LlamaConfig, T5Config
from transformers.models.llama.modeling_llama import LlamaMLP
from transformers.models.t5.modeling_t5 import T5DenseActDense, T5DenseGatedActDense

from drivedistill.models import moe
from drivedistill.models.mixture import expert_distance
from drivedistill.models.moe import FeedForwardExperts, LowRankExperts, experts_like
from drivedistill.sections import FfnExperts

ROUTERS = {
    "top_1": {"router": "top_k", "k": 1},
    "top_2": {"router": "top_k", "k": 2},
    "top_p": {"router": "top_p", "p": 0.4},
    "dense": {"router": "dense"},
}


def t5(kind: type = T5DenseActDense) -> nn.Module:
    return kind(T5Config(d_model=16, d_ff=32, dropout_rate=0.0, feed_forward_proj="relu"))


def llama() -> nn.Module:
    return LlamaMLP(LlamaConfig(hidden_size=16, intermediate_size=32, num_attention_heads=4, mlp_bias=True))


DENSE = {"t5": t5, "t5_gated": lambda: t5(T5DenseGatedActDense), "llama": llama}


def layer(dense: str = "t5", kind: str = "upcycle", router: str = "top_2", experts: int = 4) -> nn.Module:
    """A layer of different experts, whose router has an opinion."""
    torch.manual_seed(0)
    built = experts_like(DENSE[dense](), FfnExperts(experts=experts, kind=kind, rank=4, **ROUTERS[router])).eval()
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.3)
    return built


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randn(3, 7, 16, generator=torch.Generator().manual_seed(1))


def one_by_one(built: FeedForwardExperts, tokens: torch.Tensor) -> torch.Tensor:
    """What the module's docstring says, expert after expert."""
    weights, count = built.router(tokens).weights, built.num_experts
    total = 0
    for e in range(count):

        def bias(name: str, e: int = e) -> torch.Tensor | float:
            flat = getattr(built, f"expert_{name}_bias")
            return 0.0 if flat is None else flat.view(count, -1)[e]

        hidden = tokens @ built.expert_up[e].T + bias("up")
        if built.expert_gate is None:
            hidden = relu(hidden)
        else:
            gate = tokens @ built.expert_gate[e].T + bias("gate")
            hidden = (relu(gate) if isinstance(built.act, nn.ReLU) else silu(gate)) * hidden
        total = total + weights[..., e, None] * (hidden @ built.expert_down[e] + bias("down"))
    return total


def value_and_gradients(built: nn.Module, function, tokens: torch.Tensor) -> list[torch.Tensor]:
    """Output, gradient of the tokens, gradients of all parameters."""
    built.zero_grad()
    tokens = tokens.clone().requires_grad_()
    output = function(tokens)
    (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
    return [output.detach(), tokens.grad, *(parameter.grad for parameter in built.parameters())]


# --- all ways agree ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("dense", DENSE)
@pytest.mark.parametrize("kind", ["upcycle", "split"])
def test_sparse_wide_and_one_by_one_are_equal_in_value_and_gradients(dense, kind, router, tokens):
    built = layer(dense, kind, router)
    expected = value_and_gradients(built, lambda x: one_by_one(built, x), tokens)
    for static in (False, True):
        built.static = static
        torch.testing.assert_close(value_and_gradients(built, built, tokens), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_a_grouped_kernel_the_result_is_the_same(dtype, tokens, monkeypatch):
    built, tokens = layer("llama").to(dtype), tokens.to(dtype)
    expected = value_and_gradients(built, lambda x: one_by_one(built, x), tokens)
    monkeypatch.delattr(torch.nn.functional, "grouped_mm", raising=False)
    torch.testing.assert_close(value_and_gradients(built, built, tokens), expected, atol=1e-5, rtol=1e-4)


def test_widths_that_the_grouped_kernel_refuses(monkeypatch):
    torch.manual_seed(0)
    dense = T5DenseActDense(T5Config(d_model=6, d_ff=10, dropout_rate=0.0))
    built = experts_like(dense, FfnExperts()).eval()
    for parameter in built.parameters():
        nn.init.normal_(parameter)
    tokens = torch.randn(5, 6)
    torch.testing.assert_close(built(tokens), one_by_one(built, tokens), atol=1e-4, rtol=1e-4)


def test_the_grouped_kernel_is_used_where_it_exists(tokens, monkeypatch):
    calls = []
    kernel = torch.nn.functional.grouped_mm
    monkeypatch.setattr(moe.functional, "grouped_mm", lambda *a, **k: calls.append(1) or kernel(*a, **k))
    layer("llama")(tokens)
    assert len(calls) == 3


@pytest.mark.parametrize("router", ["top_2", "top_p", "dense"])
@pytest.mark.parametrize("kind", ["upcycle", "split", "lora"])
def test_bfloat16_under_autocast(kind, router, tokens):
    built = layer(kind=kind, router=router)
    exact = built(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        rough = value_and_gradients(built, built, tokens)
    assert rough[0].dtype == torch.bfloat16
    assert all(gradient.dtype == torch.float32 and gradient.isfinite().all() for gradient in rough[1:])
    # a token near the edge of two experts may change sides
    close = (rough[0].float() - exact).abs().amax(-1) < 0.05 * exact.abs().max()
    assert close.float().mean() > 0.85


def test_a_model_in_bfloat16(tokens):
    built = layer("llama").bfloat16()
    output = built(tokens.bfloat16())
    assert output.dtype == torch.bfloat16
    assert output.isfinite().all()


def test_no_tokens():
    assert layer()(torch.zeros(0, 7, 16)).shape == (0, 7, 16)


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("dense", DENSE)
@torch.no_grad()
def test_one_token_alone_is_treated_as_among_others(dense, router, tokens):
    built = layer(dense, router=router)
    alone = torch.stack([built(token[None, None])[0, 0] for token in tokens[0]])
    torch.testing.assert_close(alone, built(tokens)[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("router", ["top_2", "top_p", "dense"])
@pytest.mark.parametrize("kind", ["upcycle", "lora"])
def test_export_has_no_shape_that_depends_on_the_data(kind, router, tokens):
    built = layer("t5_gated", kind, router)
    length = torch.export.Dim("length", min=2, max=64)
    program = torch.export.export(built, (tokens,), dynamic_shapes=({1: length},), strict=False)
    other = torch.randn(3, 11, 16)
    torch.testing.assert_close(program.module()(other), built(other), atol=1e-5, rtol=1e-4)
    assert "nonzero" not in str(program.graph)


# --- what they mean ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("kind", ["upcycle", "split", "lora"])
def test_the_order_of_experts_does_not_matter(kind, router, tokens):
    built = layer("llama", kind, router)
    expected, order = built(tokens), torch.tensor([2, 0, 3, 1])
    shuffled = copy.deepcopy(built)
    with torch.no_grad():
        for name, parameter in shuffled.named_parameters():
            if name.startswith(("expert_", "router.")):
                parameter.copy_(parameter.unflatten(0, (4, -1))[order].flatten(0, 1))
    assert not torch.equal(shuffled.router.linear.weight, built.router.linear.weight)
    torch.testing.assert_close(shuffled(tokens), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("router", ["top_1", "top_2", "dense"])
def test_with_identical_experts_the_router_does_not_matter(router, tokens):
    built = layer("llama", router=router)
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            if name.startswith("expert_"):
                stack = parameter.unflatten(0, (4, -1))
                stack.copy_(stack[:1].expand_as(stack))
        before = built(tokens)
        nn.init.normal_(built.router.linear.weight)
        torch.testing.assert_close(built(tokens), before, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["upcycle", "split"])
def test_gradients_reach_the_selected_experts_and_no_other(kind):
    built = layer(kind=kind, router="top_1")
    tokens = torch.randn(1, 1, 16)
    chosen = int(built.router(tokens).selected.nonzero()[0, -1])
    built(tokens).square().sum().backward()
    for stack in (built.expert_up, built.expert_down):
        touched = stack.grad.flatten(1).abs().sum(1) > 0
        assert touched.tolist() == [e == chosen for e in range(4)]


def test_low_rank_experts_learn_only_where_selected():
    built = layer(kind="lora", router="top_1")
    tokens = torch.randn(1, 1, 16)
    chosen = int(built.router(tokens).selected.nonzero()[0, -1])
    built(tokens).square().sum().backward()
    assert (built.expert_up.b.grad.flatten(1).abs().sum(1) > 0).tolist() == [e == chosen for e in range(4)]
    assert built.dense.wi.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("kind", ["upcycle", "split", "lora"])
def test_the_task_teaches_the_router(kind, router, tokens):
    built = layer(kind=kind, router=router)
    built(tokens).square().sum().backward()
    assert built.router.linear.weight.grad.abs().sum() > 1e-3


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("kind", ["upcycle", "split", "lora"])
def test_a_token_does_not_depend_on_its_neighbours(kind, router, tokens):
    built = layer("llama", kind, router)
    changed = tokens.clone()
    changed[:, 4:] = torch.randn(3, 3, 16) * 5
    torch.testing.assert_close(built(changed)[:, :4], built(tokens)[:, :4], atol=1e-5, rtol=1e-4)


def test_low_rank_experts_add_their_weighted_product(tokens):
    built = layer("t5_gated", "lora", "top_2")
    weights = built.router(tokens).weights

    def plus(linear: nn.Linear, thin: moe.LowRank, x: torch.Tensor) -> torch.Tensor:
        each = torch.stack([x @ thin.a[e].T @ thin.b[e] for e in range(4)], dim=-2)
        return linear(x) + (weights[..., None] * each).sum(-2)

    dense = built.dense
    hidden = relu(plus(dense.wi_0, built.expert_gate, tokens)) * plus(dense.wi_1, built.expert_up, tokens)
    expected = plus(dense.wo, built.expert_down, hidden)
    torch.testing.assert_close(built(tokens), expected, atol=1e-5, rtol=1e-4)


def test_dropout_acts_inside_the_experts(tokens):
    torch.manual_seed(0)
    dense = T5DenseActDense(T5Config(d_model=16, d_ff=32, dropout_rate=0.5)).train()
    for kind in ("upcycle", "lora"):
        built = experts_like(dense, FfnExperts(kind=kind))
        assert built.training, "as the layer that it replaces"
        for parameter in built.parameters():
            nn.init.normal_(parameter)
        assert not torch.equal(built(tokens), built(tokens))
        built.eval()
        assert torch.equal(built(tokens), built(tokens))


@pytest.mark.parametrize(("kind", "shape"), [("upcycle", (32, 16)), ("split", (8, 16))])
def test_what_an_expert_is_made_of(kind, shape):
    built = layer("llama", kind)
    assert built.expert_up.shape == built.expert_gate.shape == built.expert_down.shape == (4, *shape)
    per_expert = 3 * shape[0] * 16 + 2 * shape[0] + 16
    assert built.expert_parameters() == 4 * per_expert
    assert built.expert_vectors().shape == (4, per_expert)
    rows = built.expert_vectors()
    assert torch.equal(rows[1, : shape[0] * 16], built.expert_up[1].detach().flatten()), "a row is one expert"
    assert expert_distance(built) > 1
    assert all(
        parameter.ndim == 3 or name.endswith("bias") for name, parameter in built.named_parameters(recurse=False)
    )


def test_what_a_low_rank_expert_is_made_of():
    built = layer("llama", "lora")
    assert isinstance(built, LowRankExperts)
    assert built.expert_parameters() == 4 * 3 * 4 * (16 + 32)
    assert built.expert_vectors().shape == (4, 4 * (32 + 32 + 16))  # B of up, gate and down


def test_the_decision_is_there_for_whoever_asked(tokens):
    for kind in ("upcycle", "split", "lora"):
        built = layer(kind=kind)
        built.recording = True
        built(tokens)
        assert built.last.weights.shape == (3, 7, 4)
        assert built.last.logits.requires_grad


def test_other_layers_are_refused_by_name():
    with pytest.raises(TypeError, match="Linear"):
        experts_like(nn.Linear(2, 2), FfnExperts())
