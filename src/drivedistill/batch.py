"""The tensors that flow between the rooms: `Batch` (data to model), `Rows` (student), `Signal` (teacher).

Legend: B samples, T target positions, S input positions, N supervised rows, V vocabulary, C cameras.

A row is one supervised position: one token that the model must predict. Only rows exist from the student on; losses see
`[N, ...]` and never a mask, an ignore index or padding. Rows are ordered by sample, then by position, in every role,
so row n of the student and row n of the teacher predict the same token.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.export
from torch import Tensor

IGNORE = -100
"""Marks unsupervised positions in `targets`."""


@dataclass
class RoleInputs:
    """What one model (student or teacher) is given for a batch. Made by `data/collate.py` alone."""

    model: dict[str, Tensor]
    """Keyword arguments of the model's forward. Never `labels`: a Hugging Face model would shift them again."""
    targets: Tensor
    """`int64[B, T]`: the token that position t must predict, `IGNORE` elsewhere. Already shifted."""
    rows: Tensor
    """`int64[N]`: flat indices into `B * T` of the supervised positions."""
    token_kind: Tensor | None = None
    """Decoder-only: `int8[B, T]`, 0 text, 1 image, 2 padding. An encoder-decoder lays its sequence out itself; ask it."""


@dataclass
class Batch:
    """Some samples, ready for every model of a run."""

    ids: list[str]
    regimes: list[str]
    capabilities: list[str]
    gold: Tensor
    """`int64[N]`: the token of each row."""
    sample_of_row: Tensor
    """`int64[N]`: which of the B samples the row belongs to."""
    inputs: dict[str, RoleInputs]
    """By role: `student`, and `teacher` where it needs inputs of its own (otherwise it is given the student's)."""

    def role(self, name: str) -> RoleInputs:
        """The inputs of a role; the student's where the role has none of its own."""
        return self.inputs.get(name, self.inputs["student"])

    @property
    def num_tokens(self) -> int:
        """Number of supervised rows N."""
        return self.gold.shape[0]

    @property
    def num_samples(self) -> int:
        """Number of samples B."""
        return len(self.ids)

    def tokens_per_sample(self) -> Tensor:
        """`int64[B]`: the supervised tokens of every sample."""
        return torch.bincount(self.sample_of_row, minlength=self.num_samples)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with every tensor on `device`."""
        return _move(self, torch.device(device))


def _move(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: _move(item, device) for key, item in value.items()}
    if isinstance(value, Batch | RoleInputs):
        return replace(value, **{item.name: _move(getattr(value, item.name), device) for item in fields(value)})
    return value


@dataclass
class Rows:
    """What a student returns for the N supervised rows of a batch."""

    logits: Tensor
    """`float[N, V]`"""


# FSDP2 finds the tensors of an output through the pytree registry; without this its backward hooks would not fire.
torch.export.register_dataclass(Rows, serialized_type_name="drivedistill.Rows")


@dataclass
class Signal:
    """What a teacher says about the N supervised rows of a batch; without gradient."""

    logits: Tensor
    """`float[N, V]`: dense rows, before any temperature."""
