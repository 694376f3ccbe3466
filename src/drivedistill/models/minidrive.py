"""MiniDrive's two modules: experts that turn a feature map into tokens, and tokens that listen to the question.

A re-implementation: MiniDrive (arXiv 2409.07267) published no code. What its text leaves open is named below.

Legend: B samples, C cameras, P = h * w tokens of a view, D_v vision width, E experts, K tokens that a view becomes,
L question tokens, d width of T5.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from drivedistill.models.mixture import Mixture, Router

HEADS = 8
"""Attention heads of the instruction adapter."""


class FeatureExperts(Mixture):
    r"""FE-MoE: every view's feature map through E small up-sampling experts, weighted by one gate per picture.

    .. math:: V = \sum_e w_e \, \mathrm{Conv}_e(\mathrm{ReLU}(\mathrm{Deconv}_e(F))), \quad
              w = \mathrm{softmax}(\mathrm{Linear}(\mathrm{MaxPool}(\mathrm{Conv}(F))))

    F is `D_v x h x w`; an expert doubles the sides and leaves K channels. A channel is a token: K tokens of width 4 h w.
    All experts run, and nothing balances them, as in the paper. Left open there and chosen here: Deconv is 2 x 2 with
    stride 2, Conv 3 x 3; the gate's convolution is 3 x 3 to K channels and its pooling global.

    Args:
        grid: h and w.
        width: D_v.
        tokens_per_view: K (16 in MiniDrive).
        hidden: Channels between an expert's two convolutions.
        experts: E (4 in MiniDrive).
    """

    def __init__(self, grid: tuple[int, int], width: int, tokens_per_view: int, hidden: int, experts: int) -> None:
        super().__init__()
        self.grid, self.tokens_per_view = grid, tokens_per_view
        self.gate = nn.Conv2d(width, tokens_per_view, 3, padding=1)
        self.router = Router(tokens_per_view, experts)
        # All experts at once: they share their input, so the first layers are one, and the second layers are its groups.
        self.deconv = nn.ConvTranspose2d(width, experts * hidden, 2, stride=2)
        self.conv = nn.Conv2d(experts * hidden, experts * tokens_per_view, 3, padding=1, groups=experts)

    def forward(self, views: Tensor, view_mask: Tensor | None = None) -> Tensor:
        """Turn `float[B, C, P, D_v]` under `bool[B, C]` (None: all views exist) into `float[B, C * K, 4 * P]`.

        The decision that `recording` keeps has a leading `[B, C]`: a gate decides for a picture, not for a token.
        """
        batch, cameras = views.shape[:2]
        maps = views.flatten(0, 1).transpose(1, 2).unflatten(2, self.grid)
        decision = self.remember(self.router(self.gate(maps).amax(dim=(2, 3)).unflatten(0, (batch, cameras))))
        outputs = self.conv(functional.relu(self.deconv(maps)))
        outputs = outputs.unflatten(0, (batch, cameras)).unflatten(2, (self.num_experts, self.tokens_per_view))
        tokens = torch.einsum("bce,bcekhw->bckhw", decision.weights.to(outputs.dtype), outputs)
        return tokens.flatten(3).flatten(1, 2)

    def token_mask(self, view_mask: Tensor) -> Tensor:
        """Which image tokens exist, `bool[B, C * K]`: those of the present views."""
        return view_mask.repeat_interleave(self.tokens_per_view, dim=1)

    def expert_vectors(self) -> Tensor:
        """Every expert's weights in a row, `float[E, X]`, without gradient."""
        # A transposed convolution has its outputs in the second dimension, all others in the first.
        parts = [self.deconv.weight.transpose(0, 1), self.deconv.bias, self.conv.weight, self.conv.bias]
        return torch.cat([part.detach().reshape(self.num_experts, -1) for part in parts if part is not None], dim=1)

    def expert_parameters(self) -> int:
        """Number of parameters of all experts together."""
        return sum(parameter.numel() for layer in (self.deconv, self.conv) for parameter in layer.parameters())


class InstructionAdapter(nn.Module):
    r"""DI-Adapter: image tokens that change with the question, :math:`V' = V + \mathrm{CrossAttention}(V, T, T)`.

    Left open by the paper and chosen here: one layer of 8 heads, with biases, without norms.

    Args:
        width: d; a multiple of 8.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, HEADS, batch_first=True)

    def forward(self, image: Tensor, text: Tensor, text_mask: Tensor | None = None) -> Tensor:
        """Adapt `float[B, C * K, d]` to `float[B, L, d]` under `[B, L]`, 1 for question tokens (None: all)."""
        padding = None if text_mask is None else ~text_mask.bool()
        return image + self.attention(image, text, text, key_padding_mask=padding, need_weights=False)[0]
