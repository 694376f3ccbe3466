"""Feed-forward layers made of experts.

Legend: d width, F hidden width of the dense layer, E experts, H hidden width of one expert, r rank, N tokens.

    dense       y = W_out act(W_up x)           gated: y = W_out (act(W_gate x) * (W_up x))
    experts     y = sum_e w_e(x) expert_e(x)    w from the router

    upcycle     every expert is a whole layer, H = F                                       LLaVA-MoD, MoE-LLaVA
    split       expert e is a slice of the layer, H = F / E; a selected slice counts fully
    lora        one dense layer; what enters and leaves its activation gets sum_e w_e B_e A_e on top

Residual, layer norm and outer dropout stay with the block around. Sources: GShard (arXiv 2006.16668), Switch (2101.03961),
LLaVA-MoD (2408.15881), sparse upcycling (2212.05055).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from drivedistill import sections as cards
from drivedistill.models.mixture import Mixture, Router


class Parts(NamedTuple):
    """Names of a dense layer's parts."""

    up: str
    down: str
    act: str
    gate: str | None = None


LAYOUTS = (
    Parts("wi", "wo", "act"),  # T5
    Parts("wi_1", "wo", "act", "wi_0"),  # T5 v1.1, gated
    Parts("up_proj", "down_proj", "act_fn", "gate_proj"),  # Llama, Qwen2, Mistral
)


def parts_of(dense: nn.Module) -> Parts | None:
    """The layout of a dense feed-forward layer; None if it is of no known family."""
    return next((parts for parts in LAYOUTS if all(name is None or hasattr(dense, name) for name in parts)), None)


def experts_like(dense: nn.Module, spec: cards.FfnExperts) -> FeedForwardExperts | LowRankExperts:
    """A layer of experts for a dense one: same device, dtype and mode.

    The stacked weights of `FeedForwardExperts` are not initialised; `models/upcycle.py` fills them.
    """
    kind = LowRankExperts if spec.kind == "lora" else FeedForwardExperts
    return kind(dense, spec).train(dense.training)


def grouped_matmul(tokens: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """Every group of rows times its own matrix: `float[N, a]`, `float[E, a, b]` -> `float[N, b]`.

    Args:
        tokens: Sorted by expert.
        weight: One matrix per expert.
        ends: `int32[E]`: where each expert's rows end.
    """
    device = tokens.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    tokens, weight = tokens.to(dtype), weight.to(dtype)  # autocast does not know grouped_mm
    if _has_grouped_mm(weight):
        return functional.grouped_mm(tokens, weight, offs=ends)
    counts = ends.diff(prepend=ends.new_zeros(1)).tolist()
    # `weight[e]` in the loop would write a gradient as large as the stack for every expert; unbind writes one.
    return torch.cat([rows @ matrix for rows, matrix in zip(tokens.split(counts), weight.unbind(0), strict=True)])


def _has_grouped_mm(weight: Tensor) -> bool:
    """Whether torch has a kernel: from 2.10, no double precision, rows of whole 16 bytes, on CUDA from Ampere on."""
    if not hasattr(functional, "grouped_mm") or weight.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return False
    if any(size * weight.element_size() % 16 for size in weight.shape[1:]):
        return False
    if weight.device.type == "cuda":
        return torch.cuda.get_device_capability(weight.device) >= (8, 0)
    return weight.device.type == "cpu"


class StackedExperts(Mixture):
    """Experts whose parameters are stacked along the first dimension, and named `expert_...`."""

    def expert_vectors(self) -> Tensor:
        """Every expert's parameters in a row, `float[E, X]`, without gradient."""
        return torch.cat([stack.detach().view(self.num_experts, -1) for stack in self._stacks()], dim=1)

    def expert_parameters(self) -> int:
        """Number of parameters of the E experts, without router and shared layer."""
        return sum(stack.numel() for stack in self._stacks())

    def _stacks(self) -> list[nn.Parameter]:
        return [parameter for name, parameter in self.named_parameters() if name.startswith("expert_")]


class FeedForwardExperts(StackedExperts):
    """Experts with weights of their own, stacked.

    A hidden unit is a row in every stack: `expert_up`, `expert_gate` and `expert_down` are `[E, H, d]`. So a slice of the
    dense layer is a reshape, and all experts side by side are one wide dense layer without copying. Biases, if any, lie one
    after the other, so that an optimizer takes them for what they are.

    Sparse routers (top-k, top-p) run the selected experts only, on tokens sorted by expert. Dense routers, `static = True`,
    `torch.compile` and `torch.export` run every expert on every token as one wide layer, with shapes that do not depend on
    the data.

    With `upcycle` and weights that sum to 1 (top-k, dense) the layer equals the dense one right after conversion; with
    top-p they do not sum to 1, so the output is smaller (arXiv 2403.07652 does not renormalise). With `split` the layer is
    the dense one if all slices are active (`k` = E); with fewer, their part of the sum is missing.

    Args:
        dense: The layer that is replaced.
        spec: `upcycle` or `split`; `split` needs F divisible by E.
    """

    expert_gate: nn.Parameter | None
    expert_up_bias: nn.Parameter | None
    expert_gate_bias: nn.Parameter | None
    expert_down_bias: nn.Parameter | None

    def __init__(self, dense: nn.Module, spec: cards.FfnExperts) -> None:
        super().__init__()
        parts = _parts(dense)
        up, down = getattr(dense, parts.up), getattr(dense, parts.down)
        hidden, width = up.weight.shape
        count = spec.experts
        hidden = hidden // count if spec.kind == "split" else hidden
        self.router = _router(up, spec)
        self.act = getattr(dense, parts.act)
        self.dropout = getattr(dense, "dropout", nn.Identity())
        self.static = False

        def stack(*shape: int) -> nn.Parameter:
            return nn.Parameter(up.weight.new_empty(shape))

        gated, biased = parts.gate is not None, up.bias is not None
        self.expert_up, self.expert_down = stack(count, hidden, width), stack(count, hidden, width)
        self.register_parameter("expert_gate", stack(count, hidden, width) if gated else None)
        self.register_parameter("expert_up_bias", stack(count * hidden) if biased else None)
        self.register_parameter("expert_gate_bias", stack(count * hidden) if biased and gated else None)
        self.register_parameter("expert_down_bias", stack(count * width) if down.bias is not None else None)

    def forward(self, tokens: Tensor) -> Tensor:
        """`float[..., d]` to `float[..., d]`."""
        decision = self.remember(self.router(tokens))
        rows, selected, weights = (tensor.flatten(0, -2) for tensor in (tokens, decision.selected, decision.weights))
        if self.static or self.router.kind == "dense" or torch.compiler.is_compiling():
            output = self._all(rows, weights)
        elif len(rows) == 1 and rows.device.type == "cpu" and not torch.is_grad_enabled():
            output = self._one(rows, weights, selected)
        else:
            output = self._selected(rows, weights, selected)
        return output.view(tokens.shape)

    def _all(self, rows: Tensor, weights: Tensor) -> Tensor:
        """Every expert on every token: one wide layer, weighted on its hidden units."""

        def project(weight: Tensor, bias: Tensor | None) -> Tensor:
            return functional.linear(rows, weight.flatten(0, 1), bias)

        hidden = self._hidden(project).unflatten(-1, (self.num_experts, -1))
        weights = weights.to(hidden.dtype)
        output = (hidden * weights[:, :, None]).flatten(1) @ self.expert_down.flatten(0, 1)
        return (
            output
            if self.expert_down_bias is None
            else output + weights @ self.expert_down_bias.view(self.num_experts, -1)
        )

    def _one(self, rows: Tensor, weights: Tensor, selected: Tensor) -> Tensor:
        """A single token, as when an answer is written: what sorts many tokens would take as long as the products."""
        biases = None if self.expert_down_bias is None else self.expert_down_bias.view(self.num_experts, -1)
        outputs = []
        for e in selected[0].nonzero().flatten().tolist():

            def project(weight: Tensor, bias: Tensor | None, e: int = e) -> Tensor:
                return functional.linear(rows, weight[e], None if bias is None else bias.view(self.num_experts, -1)[e])

            output = self._hidden(project) @ self.expert_down[e]
            output = output if biases is None else output + biases[e]
            outputs.append(output * weights[:, e, None].to(output.dtype))
        return outputs[0] if len(outputs) == 1 else torch.stack(outputs).sum(dim=0)

    def _selected(self, rows: Tensor, weights: Tensor, selected: Tensor) -> Tensor:
        """The selected experts only: tokens gathered by expert, grouped products, one scatter."""
        if self.router.kind == "top_k":  # the number of pairs is known, so nobody waits for the device
            pairs = torch.nonzero_static(selected.T, size=len(rows) * self.router.k)
        else:
            pairs = selected.T.nonzero()
        expert, token = pairs.unbind(1)
        ends = selected.sum(dim=0).cumsum(dim=0).int()
        gathered = rows.index_select(0, token)

        def project(weight: Tensor, bias: Tensor | None) -> Tensor:
            projected = grouped_matmul(gathered, weight.transpose(1, 2), ends)
            return projected if bias is None else projected + bias.view(self.num_experts, -1)[expert]

        output = grouped_matmul(self._hidden(project), self.expert_down, ends)
        if self.expert_down_bias is not None:
            output = output + self.expert_down_bias.view(self.num_experts, -1)[expert]
        output = output * weights[token, expert, None].to(output.dtype)
        return output.new_zeros(rows.shape).index_add(0, token, output)

    def _hidden(self, project: Callable[[Tensor, Tensor | None], Tensor]) -> Tensor:
        hidden = project(self.expert_up, self.expert_up_bias)
        if self.expert_gate is None:
            return self.dropout(self.act(hidden))
        return self.dropout(self.act(project(self.expert_gate, self.expert_gate_bias)) * hidden)


class LowRank(nn.Module):
    """`sum_e w_e B_e A_e x`; B = 0 at the start.

    Args:
        linear: The layer to whose output it is added.
        experts: E.
        rank: r.
    """

    def __init__(self, linear: nn.Linear, experts: int, rank: int) -> None:
        super().__init__()
        bound = linear.in_features**-0.5  # as LoRA draws it
        self.a = nn.Parameter(linear.weight.new_empty(experts, rank, linear.in_features).uniform_(-bound, bound))
        self.b = nn.Parameter(linear.weight.new_zeros(experts, rank, linear.out_features))

    def forward(self, tokens: Tensor, weights: Tensor) -> Tensor:
        """`float[..., in]`, `float[..., E]` -> `float[..., out]`; all experts as one product of rank E r."""
        inner = functional.linear(tokens, self.a.flatten(0, 1)).unflatten(-1, self.a.shape[:2])
        return (inner * weights[..., None].to(inner.dtype)).flatten(-2) @ self.b.flatten(0, 1)


class LowRankExperts(StackedExperts):
    """One dense layer, shared, and thin experts on each of its linear layers (`expert_up`, `expert_gate`, `expert_down`).

    Equal to the dense layer at the start, whatever the routing; the experts' A differ from the start, since every one is
    drawn by itself. The experts are so thin that all of them run on every token, weighted by 0 where not selected: shapes
    never depend on the data.

    Args:
        dense: The shared layer; kept as it is.
        spec: Number, rank and router of the experts.
    """

    def __init__(self, dense: nn.Module, spec: cards.FfnExperts) -> None:
        super().__init__()
        self.parts = _parts(dense)
        self.dense = dense
        self.router = _router(getattr(dense, self.parts.up), spec)

        def low_rank(name: str) -> LowRank:
            return LowRank(getattr(dense, name), spec.experts, spec.rank)

        self.expert_up, self.expert_down = low_rank(self.parts.up), low_rank(self.parts.down)
        self.expert_gate = low_rank(self.parts.gate) if self.parts.gate else None

    def expert_vectors(self) -> Tensor:
        """Every expert's B in a row: 0 at the start, when all experts do the same (nothing), however their A differ."""
        stacks = [parameter for name, parameter in self.named_parameters() if name.endswith(".b")]
        return torch.cat([stack.detach().flatten(1) for stack in stacks], dim=1)

    def forward(self, tokens: Tensor) -> Tensor:
        """`float[..., d]` to `float[..., d]`."""
        weights = self.remember(self.router(tokens)).weights
        dense, parts = self.dense, self.parts
        hidden = getattr(dense, parts.up)(tokens) + self.expert_up(tokens, weights)
        if parts.gate is not None and self.expert_gate is not None:
            gate = getattr(dense, parts.gate)(tokens) + self.expert_gate(tokens, weights)
            hidden = getattr(dense, parts.act)(gate) * hidden
        else:
            hidden = getattr(dense, parts.act)(hidden)
        if hasattr(dense, "dropout"):
            hidden = dense.dropout(hidden)
        return getattr(dense, parts.down)(hidden) + self.expert_down(hidden, weights)


def _parts(dense: nn.Module) -> Parts:
    parts = parts_of(dense)
    if parts is None:
        raise TypeError(f"{type(dense).__name__} is no feed-forward layer of a known layout.")
    return parts


def _router(up: nn.Linear, spec: cards.FfnExperts) -> Router:
    """Small weights: routing starts near uniform, without ties."""
    unit = spec.kind == "split"
    width, count, bias = up.in_features, spec.experts, spec.router_bias
    return Router(width, count, spec.router, k=spec.k, p=spec.p, unit=unit, bias=bias, std=0.02).to(up.weight)
