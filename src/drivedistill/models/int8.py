"""Frozen linear layers in 8 bits, so that a large base with LoRA fits where only its adapters learn.

    W ~ s Q        Q int8[out, in],  s_o = max_i |W_oi| / 127, one scale per output row
    y = s (Q x)    the weights are widened for the product and forgotten; backward widens them again

LoftQ (arXiv 2310.08659, algorithm 1) starts the adapters so that they mend the rounding:

    Q_t = round(W - c B_t-1 A_t-1),    c B_t A_t = the r largest singular parts of W - s Q_t,    c = alpha / r

Why not a library: PEFT's LoftQ needs bitsandbytes and an accelerator; over torchao 0.18 LoRA trains, but torchao's tensors
do not go into a safetensors checkpoint and merge only if transformers loaded them. PEFT leaves c out, so at c = 0.5
(EM-VLM4AD: alpha 32, r 64) its adapters mend half of the error.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


class Int8Linear(nn.Module):
    """A frozen linear layer with 8-bit weights; gradients reach its input and never its weights.

    Args:
        layer: The layer that it stands for.
        quantized: `int8[out, in]` and `float32[out]`, as `round_rows` makes them; None: of the layer's own weights.
    """

    scale: Tensor

    def __init__(self, layer: nn.Linear, quantized: tuple[Tensor, Tensor] | None = None) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.dtype = layer.weight.dtype
        weight, scale = quantized or round_rows(layer.weight.detach())
        # A parameter, so that counting finds it; T5 asks its layers for their `weight.dtype` and knows int8.
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.register_buffer("scale", scale)
        self.bias = layer.bias

    def forward(self, inputs: Tensor) -> Tensor:
        """`float[..., in]` to `float[..., out]`."""
        device = inputs.device.type
        if torch.is_autocast_enabled(device):
            inputs = inputs.to(torch.get_autocast_dtype(device))
        outputs = _Product.apply(inputs, self.weight, self.scale)
        return outputs if self.bias is None else outputs + self.bias.to(outputs.dtype)

    def float_weight(self) -> Tensor:
        """The weights that it computes with, `float32[out, in]`."""
        return self.weight * self.scale[:, None]

    def widened(self) -> nn.Linear:
        """An ordinary layer that computes the same."""
        layer = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        layer.weight = nn.Parameter(self.float_weight().to(self.dtype), requires_grad=False)
        layer.bias = self.bias
        return layer


class _Product(torch.autograd.Function):
    """`s (Q x)`; autograd would keep the widened weights of every layer until backward."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(weight, scale)
        return linear(inputs, weight.to(inputs.dtype)) * scale.to(inputs.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        weight, scale = ctx.saved_tensors
        return (gradient * scale.to(gradient.dtype)) @ weight.to(gradient.dtype), None, None


def round_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """`float[out, in]` to `int8[out, in]` and a scale per row, `float32[out]`; no value moves by more than half a scale."""
    weight = weight.float()
    scale = weight.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny) / 127
    return (weight / scale[:, None]).round().to(torch.int8), scale


def loftq(weight: Tensor, rank: int, scaling: float, rounds: int = 5) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
    """Rounded weights and the adapters that mend them.

    Args:
        weight: W, `float[out, in]`.
        rank: r.
        scaling: c.
        rounds: How often rounding and decomposition alternate. At 1024 x 1024 and r = 64 one round leaves 0.89 of the
            rounding error, five leave 0.79.

    Returns:
        `(Q, s)` as `round_rows` has them, A `float32[r, in]` and B `float32[out, r]`.
    """
    weight = weight.float()
    mended = torch.zeros_like(weight)
    for _ in range(rounds):
        rows, scale = round_rows(weight - mended)
        left, values, right = torch.linalg.svd(weight - rows * scale[:, None], full_matrices=False)
        root = (values[:rank] / scaling).sqrt()
        b, a = left[:, :rank] * root, root[:, None] * right[:rank]
        mended = scaling * (b @ a)
    return (rows, scale), a, b


def quantize(model: nn.Module, *, mend: bool = False) -> int:
    """Store the language model's frozen linear layers in 8 bits, in place; embeddings, head and whatever learns stay.

    Args:
        model: Any model whose language model is called `language_model`, with LoRA or without.
        mend: Start the LoRA adapters by `loftq`.

    Returns:
        How many layers were replaced.
    """
    chosen = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and "language_model" in name.split(".")
        and "lm_head" not in name.split(".")
        and not module.weight.requires_grad
    ]
    for name, layer in chosen:
        owner, _, attribute = name.rpartition(".")
        adapted = model.get_submodule(owner)
        quantized = _mend(adapted, layer) if mend and hasattr(adapted, "lora_A") else None
        setattr(adapted, attribute, Int8Linear(layer, quantized))
    return len(chosen)


def is_quantized(model: nn.Module) -> bool:
    """Whether any layer is stored in 8 bits."""
    return any(isinstance(module, Int8Linear) for module in model.modules())


def dequantize(model: nn.Module) -> None:
    """Turn 8-bit layers back into ordinary ones that compute the same, in place."""
    for name, layer in [(name, module) for name, module in model.named_modules() if isinstance(module, Int8Linear)]:
        owner, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(owner), attribute, layer.widened())


def weight_bytes(model: nn.Module) -> int:
    """Memory of parameters and buffers; tied weights count once."""
    return sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))


@torch.no_grad()
def _mend(adapted: Any, layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """Start a LoRA layer's adapters by `loftq`; returns the rounded weights that they belong to."""
    (adapter,) = adapted.lora_A
    lora_a, lora_b = adapted.lora_A[adapter].weight, adapted.lora_B[adapter].weight
    quantized, a, b = loftq(layer.weight, len(lora_a), adapted.scaling[adapter])
    lora_a.copy_(a)
    lora_b.copy_(b)
    return quantized
