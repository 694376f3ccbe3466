"""A processor's tensors of one sample, made longer by an answer and put side by side with those of others.

Some run along the sequence of tokens, `[1, T]`; others (pictures, patches, grids) do not, and stay as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def extend(key: str, value: Tensor, answer: Tensor, length: int) -> Tensor:
    """Append the answer to the tensors that run along the sequence; pictures stay as they are."""
    if value.ndim != 2 or value.shape != (1, length):
        return value
    tail = {"input_ids": answer, "attention_mask": torch.ones_like(answer)}.get(key, torch.zeros_like(answer))
    return torch.cat([value, tail[None].to(value.dtype)], dim=1)


def join(sequences: list[dict[str, Tensor]], pad: int, *, left: bool) -> dict[str, Tensor]:
    """Pad what runs along the sequence, concatenate the rest (pictures, patches, grids) along its first axis."""
    joined: dict[str, Tensor] = {}
    for key in sequences[0]:
        values = [sequence[key] for sequence in sequences]
        if all(v.shape == s["input_ids"].shape for v, s in zip(values, sequences, strict=True)):
            filler = pad if key == "input_ids" else 0
            side = "left" if left else "right"
            joined[key] = pad_sequence([v[0] for v in values], True, padding_value=filler, padding_side=side)
        else:
            joined[key] = torch.cat(values)
    return joined
