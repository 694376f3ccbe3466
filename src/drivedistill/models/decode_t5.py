"""One step of T5's decoder, for `decode.py`.

What `generate` spends beside the matrix products is spent here once per answer, or not at all: queries, keys and values
of a position are one product, the keys and values of all cross attentions are one product, the relative positions are a table.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from drivedistill.models.decode import Memory, choose
from drivedistill.models.int8 import Int8Linear


class T5Step(nn.Module):
    """Makes one token of every sample; see `decode.Step`.

    Packed weights are copies: whoever changes the model makes a new step.

    Args:
        model: A `DrivingT5`.
        ends: Tokens that end an answer.
    """

    ends: Tensor
    packed_cross: Tensor

    def __init__(self, model: Any, ends: list[int]) -> None:
        super().__init__()
        self.thins, self.block = True, 1
        self.model = model
        text, blocks = model.config.text, model.language_model.decoder.block
        self.heads, self.width = text.num_heads, text.d_kv
        self.layers = nn.ModuleList(_Layer(block) for block in blocks)
        cross = [block.layer[1].EncDecAttention for block in blocks]
        weights = [merged_weight(part) for attention in cross for part in (attention.k, attention.v)]
        self.register_buffer("packed_cross", torch.cat(weights), persistent=False)
        self.register_buffer("ends", torch.tensor(ends, device=model.device), persistent=False)

    def begin(self, inputs: dict[str, Tensor], room: int) -> tuple[Tensor, int, Memory]:
        """Encode the questions; the first token is the decoder's start token at position 0."""
        states, mask = self.model.encode(**inputs)
        missing = -states.shape[1] % self.block
        states, mask = functional.pad(states, (0, 0, 0, missing)), functional.pad(mask, (0, missing))
        count, length = states.shape[:2]
        # [B, S, L * 2 * H * d_k] -> L * 2 of [B, H, S, d_k]
        packed = functional.linear(states, self.packed_cross).view(count, length, -1, self.heads, self.width)
        cross = [part.transpose(1, 2).contiguous() for part in packed.unbind(dim=2)]
        closed = torch.zeros(count, 1, 1, length, dtype=states.dtype, device=states.device)
        closed = closed.masked_fill(~mask[:, None, None], torch.finfo(states.dtype).min)
        shape = (count, self.heads, room, self.width)
        keys, values = ([states.new_zeros(shape) for _ in self.layers] for _ in range(2))
        start = torch.full((count,), self.model.generation_config.decoder_start_token_id, device=states.device)
        return start, 0, Memory(keys, values, [closed, *cross], self._table(room, states))

    def grown(self, memory: Memory) -> Memory:
        """See `decode.Step`."""
        memory = memory.doubled()
        memory.table = self._table(memory.room, memory.keys[0])
        return memory

    def reading_parts(self) -> list[nn.Module]:
        """See `decode.Step`."""
        return [self.model.vision.model, self.model.language_model.encoder]

    def forward(self, token: Tensor, position: Tensor, early: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """See `decode.Step`."""
        decoder = self.model.language_model.decoder
        hidden = self.model.get_input_embeddings()(token)
        assert memory.table is not None
        scores = memory.table.index_select(2, position)
        closed, *cross = memory.fixed
        for number, layer in enumerate(self.layers):
            own = memory.keys[number], memory.values[number]
            hidden = layer(hidden, position, scores, own, closed, cross[2 * number : 2 * number + 2])
        hidden = normalized(decoder.final_layer_norm, hidden)
        return choose(self.model.lm_logits(hidden), self.ends, early)

    def _table(self, room: int, like: Tensor) -> Tensor:
        """What T5 adds to the scores of every pair of positions, what is to come masked: `[1, H, R, R]`."""
        attention = self.model.language_model.decoder.block[0].layer[0].SelfAttention
        ahead = torch.ones(room, room, dtype=torch.bool, device=like.device).triu(1)
        bias = attention.compute_bias(room, room, device=like.device).to(like.dtype)
        return bias.masked_fill(ahead, torch.finfo(like.dtype).min)


class _Layer(nn.Module):
    """A block of the decoder, for one position."""

    packed: Tensor

    def __init__(self, block: Any) -> None:
        super().__init__()
        first, second, third = block.layer
        own = first.SelfAttention
        self.heads = own.n_heads
        self.register_buffer("packed", torch.cat([merged_weight(part) for part in (own.q, own.k, own.v)]), False)
        self.norms = nn.ModuleList([first.layer_norm, second.layer_norm, third.layer_norm])
        self.own_out, self.query, self.out = own.o, second.EncDecAttention.q, second.EncDecAttention.o
        self.feed_forward = third.DenseReluDense

    def forward(
        self,
        hidden: Tensor,
        position: Tensor,
        scores: Tensor,
        own: tuple[Tensor, Tensor],
        closed: Tensor,
        cross: list[Tensor],
    ) -> Tensor:
        """`float[B, d]` to `float[B, d]`; writes the position of `own` keys and values."""
        packed = functional.linear(normalized(self.norms[0], hidden), self.packed)
        query, key, value = packed.view(len(hidden), 3, self.heads, 1, -1).unbind(dim=1)
        own[0].index_copy_(2, position, key)
        own[1].index_copy_(2, position, value)
        hidden = hidden + self.own_out(_attend(query, *own, scores))
        query = self.query(normalized(self.norms[1], hidden)).view(len(hidden), self.heads, 1, -1)
        hidden = hidden + self.out(_attend(query, cross[0], cross[1], closed))
        return hidden + self.feed_forward(normalized(self.norms[2], hidden))


def _attend(query: Tensor, keys: Tensor, values: Tensor, scores: Tensor) -> Tensor:
    """`float[B, H, 1, d_k]` looks at `float[B, H, R, d_k]`: `float[B, H * d_k]`; T5 does not scale."""
    return functional.scaled_dot_product_attention(query, keys, values, scores, scale=1.0).flatten(1)


def normalized(norm: Any, hidden: Tensor) -> Tensor:
    """T5's layer norm in one kernel."""
    return functional.rms_norm(hidden, norm.weight.shape, norm.weight, norm.variance_epsilon)


@torch.no_grad()
def merged_weight(layer: Any) -> Tensor:
    """The weight that a linear layer computes with, `float[out, in]`: LoRA added, 8 bits widened."""
    if isinstance(layer, Int8Linear):
        return layer.float_weight().to(layer.dtype)
    if not hasattr(layer, "get_base_layer"):
        return layer.weight.detach()
    weight = merged_weight(layer.get_base_layer())
    if layer.merged:
        return weight
    return weight + sum(layer.get_delta_weight(name).to(weight.dtype) for name in layer.active_adapters)
