"""What all layers of experts share: the router, and how one remembers its decisions.

Legend: `...` any leading shape of tokens, d width, E experts.

    logits = W x + b        probabilities = softmax(logits), in float32
    dense     every expert, weighted by its probability                        CLKD equation 1
    top_k     the k most probable, weights renormalised to 1                   GShard (k = 2), Switch (k = 1)
    top_p     the smallest set whose probabilities exceed p, not renormalised  arXiv 2403.07652
    sample    as dense, but all tokens of a sample share the mean logits       MiniDrive's FE-MoE

With k = 1 the renormalised weight is p / p, a constant; p / p.detach() has the same value and lets the router learn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

RouterKind = Literal["dense", "sample", "top_k", "top_p"]


@dataclass
class Decision:
    """What a router decided for every token."""

    logits: Tensor
    """`float32[..., E]`"""
    probabilities: Tensor
    """`float32[..., E]`"""
    selected: Tensor
    """`bool[..., E]`: the experts that run."""
    weights: Tensor
    """`float32[..., E]`: what their outputs are multiplied with; 0 where not selected."""


class Router(nn.Module):
    """Decides which experts a token sees, and how much of each.

    Args:
        width: d.
        experts: E.
        kind: See the module.
        k: Experts per token (`top_k`).
        p: Mass to exceed (`top_p`).
        unit: Every selected expert counts fully: for experts that are parts of one layer, whose sum is the layer. Gradient as
            for k = 1.
        bias: Of the linear layer.
        std: Weights start as N(0, std), biases as 0; None: as torch draws a linear layer.
    """

    def __init__(
        self,
        width: int,
        experts: int,
        kind: RouterKind = "dense",
        *,
        k: int = 2,
        p: float = 0.4,
        unit: bool = False,
        bias: bool = True,
        std: float | None = None,
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(width, experts, bias=bias)
        self.kind, self.k, self.p, self.unit, self.std = kind, k, p, unit, std
        if std is not None:
            self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the weights as they were drawn before training."""
        if self.std is not None:
            nn.init.normal_(self.linear.weight, std=self.std, generator=generator)
            if self.linear.bias is not None:
                nn.init.zeros_(self.linear.bias)
            return
        bound = self.linear.in_features**-0.5
        for part in self.linear.parameters():
            nn.init.uniform_(part, -bound, bound, generator=generator)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Decision:
        """Decide for `float[..., d]`; in `sample` mode the last dimension before d runs over a sample's tokens.

        `mask`, `bool[...]`, says which tokens exist (None: all); the mean of `sample` mode leaves the others out.
        """
        device = "cpu" if tokens.is_meta else tokens.device.type  # autocast knows no meta device
        with torch.autocast(device, enabled=False):  # bfloat16 logits tie, and ties change who runs
            bias = None if self.linear.bias is None else self.linear.bias.float()
            logits = functional.linear(tokens.float(), self.linear.weight.float(), bias)
        if self.kind == "sample":
            present = logits.new_ones(logits.shape[:-1]) if mask is None else mask.to(logits.dtype)
            share = present / present.sum(dim=-1, keepdim=True)
            logits = (logits * share[..., None]).sum(dim=-2, keepdim=True).expand_as(logits)
        return self.decide(logits)

    def decide(self, logits: Tensor) -> Decision:
        """From logits `float[..., E]` on; the pure part."""
        probabilities = logits.softmax(dim=-1)
        selected = self._selected(probabilities)
        if self.unit or (self.kind == "top_k" and self.k == 1):
            weights = probabilities / probabilities.detach().clamp_min(torch.finfo(torch.float32).tiny)
        elif self.kind == "top_k":
            weights = probabilities / (probabilities * selected).sum(dim=-1, keepdim=True)
        else:
            weights = probabilities
        everyone = self.kind in ("dense", "sample")
        return Decision(logits, probabilities, selected, weights if everyone else weights * selected)

    def _selected(self, probabilities: Tensor) -> Tensor:
        if self.kind in ("dense", "sample"):
            return torch.ones_like(probabilities, dtype=torch.bool)
        if self.kind == "top_k":
            chosen = probabilities.topk(self.k, dim=-1).indices
            return torch.zeros_like(probabilities, dtype=torch.bool).scatter(-1, chosen, True)
        ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
        needed = ordered.cumsum(dim=-1) - ordered <= self.p  # the mass before an expert does not exceed p yet
        needed[..., 0] = True
        return torch.zeros_like(needed).scatter(-1, order, needed)


class Mixture(nn.Module):
    """A layer made of experts. Sub-classes own a `router` and call `remember`.

    `recording` is switched on by whoever wants the decisions of the next forward; they then lie in `last`.
    """

    router: Router

    def __init__(self) -> None:
        super().__init__()
        self.recording = False
        self.last: Decision | None = None

    @property
    def num_experts(self) -> int:
        """E."""
        return self.router.linear.out_features

    @property
    def active_share(self) -> float:
        """Share of the experts' parameters that a token uses; with top-p the most it can use."""
        return self.router.k / self.num_experts if self.router.kind == "top_k" else 1.0

    @property
    def experts_learn(self) -> bool:
        """Whether the experts' own weights are trained (beside LoRA on top of them, they stay as they were)."""
        others = ("router.", "dense.")
        return any(p.requires_grad for name, p in self.named_parameters() if not name.startswith(others))

    def expert_vectors(self) -> Tensor:
        """Every expert's weights in a row, `float[E, X]`, without gradient."""
        raise NotImplementedError

    def expert_parameters(self) -> int:
        """Number of parameters of all experts together, without router and shared layers."""
        raise NotImplementedError

    def remember(self, decision: Decision) -> Decision:
        """Keep a decision if somebody asked for it."""
        if self.recording:
            self.last = decision
        return decision


def expert_distance(mixture: Mixture) -> float:
    """Mean distance of two experts over their mean norm; 0 for copies, about 1.41 for experts drawn independently."""
    vectors = mixture.expert_vectors()
    vectors = (vectors.full_tensor() if hasattr(vectors, "full_tensor") else vectors).double()
    if len(vectors) < 2:
        return 0.0
    return float(torch.pdist(vectors).mean() / vectors.norm(dim=1).mean().clamp_min(1e-30))


def balance_loss(probabilities: Tensor, selected: Tensor) -> Tensor:
    """Switch's balance loss of M tokens: `E * sum_e f_e P_e`; 1 when routing is uniform, E when one expert takes all (k = 1).

    f_e is expert e's share of the selections, P_e its mean probability (arXiv 2101.03961, equations 4-6).

    Args:
        probabilities: `float[M, E]`
        selected: `bool[M, E]`
    """
    counts = selected.float().sum(dim=0)
    return probabilities.shape[1] * (counts / counts.sum().clamp_min(1) * probabilities.mean(dim=0)).sum()


def z_loss(logits: Tensor) -> Tensor:
    """Mean squared log-sum-exp of router logits `float[M, E]`; keeps them small (ST-MoE, arXiv 2202.08906, equation 5)."""
    return logits.logsumexp(dim=-1).square().mean()


def entropy(probabilities: Tensor) -> Tensor:
    """Entropy of each token's probabilities `float[M, E]` in nats, `float[M]`; its exponential is the effective number."""
    return torch.special.entr(probabilities).sum(dim=-1)
