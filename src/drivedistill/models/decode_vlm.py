"""One step of a published decoder-only model, for `decode.py`: the model's own layers on caches of fixed room.

The prompt is read by the model itself, up to its last token, which the first step takes. Prompts are padded on the left,
so all samples of a batch stand at the same place of the caches; positions are counted from each one's own first token.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import DynamicCache

from drivedistill.models.decode import BLOCK, Memory, choose


class VlmStep(nn.Module):
    """Makes one token of every sample; see `decode.Step`.

    Args:
        model: InternVL, Qwen2.5-VL or LLaVA, as Hugging Face ships it.
        ends: Tokens that end an answer.
    """

    ends: Tensor

    def __init__(self, model: Any, ends: list[int]) -> None:
        super().__init__()
        self.thins, self.block = True, BLOCK
        self.model = model
        self.register_buffer("ends", torch.tensor(ends, device=model.device), persistent=False)

    def begin(self, inputs: dict[str, Tensor], room: int) -> tuple[Tensor, int, Memory]:
        """Read the prompts without their last token, which is returned with its position."""
        shape, mask = inputs["input_ids"].shape, inputs["attention_mask"]
        prompt = {name: value[:, :-1] if value.shape == shape else value for name, value in inputs.items()}
        cache = DynamicCache()
        inner = self.model.model
        inner(**prompt, position_ids=self._positions(prompt), past_key_values=cache, use_cache=True)
        last = shape[1] - 1
        more = (0, 0, 0, -(-(last + room) // BLOCK) * BLOCK - last)
        keys, values = (
            [functional.pad(part, more) for part in parts]
            for parts in ([layer.keys for layer in cache.layers], [layer.values for layer in cache.layers])
        )
        first = mask.long().argmax(dim=1, keepdim=True)
        turned = getattr(inner, "rope_deltas", None)  # M-RoPE: a picture takes fewer positions than it has tokens
        shift = first if turned is None else first - turned.to(first.device)
        return inputs["input_ids"][:, -1], last, Memory(keys, values, [first, shift])

    def grown(self, memory: Memory) -> Memory:
        """See `decode.Step`."""
        return memory.doubled()

    def _positions(self, prompt: dict[str, Tensor]) -> Tensor | None:
        """Counted from each sample's first token, as `generate` does; M-RoPE's are the model's own business."""
        if hasattr(self.model.model, "rope_deltas"):
            return None
        return (prompt["attention_mask"].long().cumsum(dim=1) - 1).clamp_min(0)

    def reading_parts(self) -> list[nn.Module]:
        """None: what Hugging Face's prefill asks of its masks would be compiled anew for every prompt."""
        return []

    def forward(self, token: Tensor, position: Tensor, early: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """See `decode.Step`."""
        first, shift = memory.fixed
        place = torch.arange(memory.room, device=token.device)
        seen = (place >= first) & (place <= position)
        hidden = self.model.get_input_embeddings()(token)[:, None]
        mask = torch.zeros(seen.shape, dtype=hidden.dtype, device=hidden.device)
        mask = mask.masked_fill(~seen, torch.finfo(hidden.dtype).min)[:, None, None]
        output = self.model.model.language_model(
            inputs_embeds=hidden,
            attention_mask=mask,
            position_ids=position - shift,
            past_key_values=_Caches(memory, position),
            use_cache=True,
        )
        return choose(self.model.lm_head(output.last_hidden_state[:, -1]), self.ends, early)


class _Caches:
    """What Hugging Face's attention layers ask of a cache, on tensors of fixed room.

    Args:
        memory: Whose tensors they are.
        position: Where the new keys and values are put, `int64[1]`.
    """

    is_compileable = True

    def __init__(self, memory: Memory, position: Tensor) -> None:
        self.memory, self.position = memory, position

    def update(self, key: Tensor, value: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Put `float[B, H, 1, d_k]` into a layer's tensors, and return them."""
        keys, values = self.memory.keys[layer], self.memory.values[layer]
        return keys.index_copy_(2, self.position, key), values.index_copy_(2, self.position, value)
