"""The visual adapter, from vision tokens to the width of the language model: one layer, or a mixture of experts.

    linear    y = W x + b
    mlp       y = W_2 act(W_1 x + b_1) + b_2
    experts   y = sum_e w_e Expert_e(x),  w = softmax(FC(x))     CLKD equations 1 and 2; each expert is one of the above

Legend: T visual tokens, d_in width of the vision tower, d width of the language model, H hidden width, E experts.

All experts run at once. Linear ones: one GEMM to `[T, E, d]`, then a weighted sum; MLPs: one GEMM to `[T, E, H]`, the
weights multiplied onto the hidden units, one GEMM with `E * H` as the inner width that also sums the experts. So the number
of kernels does not grow with E. On one CPU core this takes about as long as a loop over E layers (benchmarks/experts.py has the
cost of four over one). Gating the inputs of linear experts instead (inner width `E * d_in`) takes as long and keeps larger
activations.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import initialization as init

from drivedistill.models.mixture import Router
from drivedistill.models.moe import StackedExperts
from drivedistill.problems import InputError, Problem
from drivedistill.sections import AdapterExperts

if TYPE_CHECKING:
    from drivedistill.models.driving_t5_config import DrivingT5Config


def build_adapter(config: DrivingT5Config) -> nn.Module:
    """The adapter that a `DrivingT5` configuration describes, `float[..., d_in]` to `float[..., d]`."""
    if config.adapter == "none":
        return nn.Identity()
    width, out = config.fused_width, int(config.text.d_model)
    if config.adapter == "linear":
        dense: list[nn.Module] = [nn.Linear(width, out)]
    else:
        hidden = config.adapter_hidden or out
        dense = [nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, out)]
    if config.adapter_experts is not None:
        return MixtureAdapter(dense, AdapterExperts(**config.adapter_experts))
    names = ("linear_1", "act", "linear_2")
    return dense[0] if len(dense) == 1 else nn.Sequential(OrderedDict(zip(names, dense, strict=True)))


def convert_adapter(model: Any, spec: AdapterExperts) -> None:
    """Turn a model's dense visual adapter into experts, in place: copies of it, apart from `spec.init_noise`.

    The configuration remembers it as `adapter_experts`. With noise 0 the model computes what it did before, unless the
    router is `top_p`, which by definition does not renormalise the weights of the experts it selects. A `sample` router
    takes the mean over a sample's image tokens in a `DrivingT5`, over a picture's in InternVL and LLaVA.

    Args:
        model: A `DrivingT5` or a supported Hugging Face vision-language model.
        spec: How many experts, and how they are chosen.

    Raises:
        InputError: The model has no dense adapter, or `sample` routing is asked of a family that cannot tell pictures apart.
    """
    if problem := _not_convertible(model, spec):
        raise InputError(problem)
    dense = _dense_layers(model)
    install_adapter(model, spec).copy_dense(dense, spec.init_noise)


def install_adapter(model: Any, spec: AdapterExperts) -> MixtureAdapter:
    """Put untrained experts where the dense adapter is: the structure alone, for weights that are loaded next.

    InternVL and LLaVA call `linear_1`, `act`, `linear_2` one after the other: the mixture takes the place of the first and
    the others do nothing. Qwen2.5-VL has a module around the three, which is replaced whole.
    """
    mixture = MixtureAdapter(_dense_layers(model), spec)
    kind = model.config.model_type
    if kind == "driving_t5":
        model.adapter = mixture
    elif kind == "qwen2_5_vl":
        model.model.visual.merger.mlp = mixture
    else:
        projector = model.model.multi_modal_projector
        projector.linear_1, projector.act, projector.linear_2 = mixture, nn.Identity(), nn.Identity()
    model.config.adapter_experts = spec.model_dump()
    return mixture


def _dense_layers(model: Any) -> list[nn.Module]:
    """`[linear]` or `[linear, activation, linear]`."""
    kind = model.config.model_type
    if kind == "driving_t5":
        return list(model.adapter) if isinstance(model.adapter, nn.Sequential) else [model.adapter]
    if kind == "qwen2_5_vl":
        return list(model.model.visual.merger.mlp)
    projector = model.model.multi_modal_projector
    return [projector.linear_1, projector.act, projector.linear_2]


def _not_convertible(model: Any, spec: AdapterExperts) -> Problem | None:
    where = ("recipe", "model.adapter_experts")
    if getattr(model.config, "adapter_experts", None) is not None:
        return Problem(*where, "a model with a dense adapter", "experts already", "remove the section")
    if model.config.model_type == "driving_t5" and model.config.adapter == "none":
        return Problem(
            *where, "a model with an adapter", "`adapter: none`", "use `adapter: linear` or remove the section"
        )
    if model.config.model_type == "qwen2_5_vl" and spec.router == "sample":
        found = "`router: sample` for Qwen2.5-VL, which adapts the tokens of all pictures of a batch in one row"
        return Problem(*where, "a router that sees single tokens", found, "use `router: dense`")
    return None


class MixtureAdapter(StackedExperts):
    """A mixture of visual adapters, all of them computed at once; see the module.

    `expert_up` is `[E, H, d_in]` and `expert_down` `[E, H, d]`; linear experts have the first alone, with d for H. Biases lie
    one after the other, so that an optimizer takes them for what they are.

    Args:
        dense: The layer to multiply, `[linear]` or `[linear, activation, linear]`; gives sizes, biases, device and type.
        spec: How many experts, and how they are chosen.
    """

    expert_up: nn.Parameter
    expert_up_bias: nn.Parameter | None
    expert_down: nn.Parameter | None
    expert_down_bias: nn.Parameter | None

    def __init__(self, dense: Sequence[nn.Module], spec: AdapterExperts) -> None:
        super().__init__()
        up, down = dense[0], dense[-1]
        assert isinstance(up, nn.Linear) and isinstance(down, nn.Linear)
        self.router = Router(up.in_features, spec.experts, spec.router, k=spec.k, p=spec.p).to(up.weight)
        self.act = dense[1] if len(dense) == 3 else None

        def stack(*shape: int) -> nn.Parameter:
            return nn.Parameter(up.weight.new_empty(shape))

        count, mlp = spec.experts, self.act is not None
        self.expert_up = stack(count, up.out_features, up.in_features)
        self.register_parameter("expert_up_bias", None if up.bias is None else stack(count * up.out_features))
        self.register_parameter("expert_down", stack(count, *down.weight.T.shape) if mlp else None)
        biased = mlp and down.bias is not None
        self.register_parameter("expert_down_bias", stack(count * down.out_features) if biased else None)
        self.reset_parameters()

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Adapt `float[..., T, d_in]` to `float[..., T, d]`.

        Args:
            tokens: Visual tokens.
            mask: `bool[..., T]`, which of them exist (None: all); `sample` routing leaves the others out of its mean.
        """
        weights = self.remember(self.router(tokens, mask)).weights.to(tokens.dtype)
        stacked = linear(tokens, self.expert_up.flatten(0, 1), self.expert_up_bias)
        if self.act is None or self.expert_down is None:
            return (stacked.unflatten(-1, (self.num_experts, -1)) * weights[..., None]).sum(dim=-2)
        hidden = self.act(stacked).unflatten(-1, (self.num_experts, -1)) * weights[..., None]
        adapted = hidden.flatten(-2) @ self.expert_down.flatten(0, 1)
        if self.expert_down_bias is None:
            return adapted
        return adapted + weights @ self.expert_down_bias.view(self.num_experts, -1)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw every expert as torch draws a linear layer."""
        hidden, width = self.expert_up.shape[1:]
        for parts, inputs in (
            ((self.expert_up, self.expert_up_bias), width),
            ((self.expert_down, self.expert_down_bias), hidden),
        ):
            for part in parts:
                if part is not None:
                    init.uniform_(part, -(inputs**-0.5), inputs**-0.5)

    @torch.no_grad()
    def copy_dense(self, dense: Sequence[nn.Module], noise: float) -> None:
        """Make every expert the dense layer, plus Gaussian noise of a share of each tensor's standard deviation."""
        up, down = dense[0], dense[-1]
        assert isinstance(up, nn.Linear) and isinstance(down, nn.Linear)
        for part, source in (
            (self.expert_up, up.weight),
            (self.expert_up_bias, up.bias),
            (self.expert_down, down.weight.T),
            (self.expert_down_bias, down.bias),
        ):
            if part is not None:
                part.view(self.num_experts, *source.shape).copy_(source.expand(self.num_experts, *source.shape))
                part.add_(torch.randn_like(part) * (noise * source.std(correction=0)))
