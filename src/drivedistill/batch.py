"""The tensors that flow between the rooms: `Batch` (data to model), `Rows` (student), `Signal` (teacher).

Legend: B samples, T target positions, S input positions, N supervised rows, V vocabulary, C cameras.

A row is one supervised position: one token that the model must predict. Only rows exist from the student on; losses see
`[N, ...]` and never a mask, an ignore index or padding. Rows are ordered by sample, then by position, in every role,
so row n of the student and row n of the teacher predict the same token.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import torch
import torch.export
from torch import Tensor

IGNORE = -100
"""Marks unsupervised positions in `targets`."""

ROW_KINDS = ("word", "number", "coordinate", "id", "camera", "end", "template")
"""What a supervised token belongs to. In `<c1,CAM_BACK,1088.3,497.5>` these are an id, a camera and coordinates, with the
punctuation around them; a `number` stands elsewhere; `end` closes the answer; `template` is what a chat
template writes around answer and end, where that is supervised; everything else is a `word`."""


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
    templates: list[str]
    """What kind of question each sample asks; names that are equal for questions that differ in objects only."""
    gold: Tensor
    """`int64[N]`: the token of each row."""
    sample_of_row: Tensor
    """`int64[N]`: which of the B samples the row belongs to."""
    row_kind: Tensor
    """`int8[N]`: index into `ROW_KINDS` of each row."""
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

    def corner(self) -> Tensor:
        """`bool[B]`: which samples are corner cases."""
        return torch.tensor([regime == "corner" for regime in self.regimes], device=self.gold.device)

    def keep(self, rows: Tensor) -> Batch:
        """The same samples with some of their rows only, `bool[N]`; models then compute the head for these alone."""
        inputs = {name: replace(role, rows=role.rows[rows]) for name, role in self.inputs.items()}
        chosen = {name: getattr(self, name)[rows] for name in ("gold", "sample_of_row", "row_kind")}
        return replace(self, inputs=inputs, **chosen)

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
class Routing:
    """How one layer of experts treated the real tokens (no padding) of a batch. M tokens, E experts."""

    logits: Tensor
    """`float32[M, E]`: the router's, with gradient."""
    probabilities: Tensor
    """`float32[M, E]`: their softmax, with gradient."""
    selected: Tensor
    """`bool[M, E]`: the experts that ran."""
    sample: Tensor
    """`int64[M]`: which of the B samples the token belongs to."""


@dataclass
class Head:
    """A language-model head that is one product, and what may stand around it.

    `logits = cap(scale * hidden @ weight.T + bias)`, with `cap(x) = softcap * tanh(x / softcap)` where there is one.
    """

    weight: Tensor
    """`float[V, d]`"""
    bias: Tensor | None = None
    """`float[V]`"""
    scale: float = 1.0
    """Of the input: d^-0.5 before T5's tied head."""
    softcap: float | None = None
    """Bound of the logits (Gemma 2)."""
    dtype: torch.dtype | None = None
    """What the product is computed in; under autocast its type, None: the input's own."""

    def scaled(self, hidden: Tensor) -> Tensor:
        """What goes into the product, `float[N, d]`."""
        hidden = hidden if self.scale == 1 else hidden * self.scale
        return hidden if self.dtype is None else hidden.to(self.dtype)

    def product(self, inputs: Tensor, out: Tensor | None = None) -> Tensor:
        """Logits `float[N, V]` of what `scaled` returned; written into `out` where no gradient is wanted."""
        weight, bias = self.weight.to(inputs.dtype), None if self.bias is None else self.bias.to(inputs.dtype)
        if out is None:
            logits = torch.nn.functional.linear(inputs, weight, bias)
            return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)
        logits = torch.mm(inputs, weight.T, out=out) if bias is None else torch.addmm(bias, inputs, weight.T, out=out)
        return logits if self.softcap is None else logits.div_(self.softcap).tanh_().mul_(self.softcap)

    def __call__(self, hidden: Tensor) -> Tensor:
        """Logits `float[N, V]` of `float[N, d]`."""
        return self.product(self.scaled(hidden))


@dataclass(frozen=True)
class Tap:
    """Something to be read off one layer of a language model, beside its answers."""

    layer: int
    """From 0."""
    signal: Literal["attention", "hidden"] = "attention"
    block: Literal["text_to_vision", "full"] = "full"
    """Of an attention map; a hidden state is always that of every token."""


@dataclass
class Map:
    """What was read off one layer. Q queries, K keys; `models/attention.py` says what they are."""

    values: Tensor
    """`float[B, Q, K]`: a head-averaged map, zero behind a sample's last query and key. Or hidden states `float[B, S, d]`."""
    queries: Tensor
    """`int64[B, Q]`: positions in the sequence, -1 behind the last."""
    keys: Tensor
    """`int64[B, K]`; none for hidden states."""


@dataclass
class Rows:
    """What a student returns for the N supervised rows of a batch; what was not asked for is empty."""

    logits: Tensor | None = None
    """`float[N, V]`"""
    routing: dict[str, Routing] = field(default_factory=dict)
    """By layer of experts."""
    vision: Tensor | None = None
    """`float[X, P, D_v]`: the vision tower's tokens of the X present views, before fusion and adapter."""
    hidden: Tensor | None = None
    """`float[N, d]`, in the place of logits: what `head` makes them of."""
    head: Head | None = None
    taps: dict[Tap, Map] = field(default_factory=dict)

    def dense(self) -> Tensor:
        """The logits `float[N, V]`, made now where they are not there yet."""
        return _dense(self)


# FSDP2 finds the tensors of an output through the pytree registry; without this its backward hooks would not fire.
torch.export.register_dataclass(Routing, serialized_type_name="drivedistill.Routing")
torch.export.register_dataclass(Map, serialized_type_name="drivedistill.Map")
torch.export.register_dataclass(Rows, serialized_type_name="drivedistill.Rows")


@dataclass
class TopK:
    """The k likeliest tokens of every row: what is kept of a teacher's dense rows on disk."""

    ids: Tensor
    """`int64[N, k]`: the tokens, all different in a row."""
    log_probs: Tensor
    """`float32[N, k]`: of these tokens, under softmax(logits / `temperature`) over the whole vocabulary."""
    log_tail: Tensor
    """`float32[N]`: log of the probability that all other tokens share; -inf where there is none."""
    gold_loss: Tensor
    """`float32[N]`: the teacher's cross-entropy on the row's own token, at temperature 1 whatever `temperature` is."""
    temperature: float


@dataclass
class Signal:
    """What a teacher says about the N supervised rows of a batch; without gradient, what was not asked for is empty.

    A teacher that was asked for `logits` fills `logits`, `hidden` and `head`, or `top`; one of the three.
    """

    logits: Tensor | None = None
    """`float[N, V]`: dense rows, before any temperature."""
    top: TopK | None = None
    """The same cut down to the likeliest tokens, by a teacher that was computed before."""
    vision: Tensor | None = None
    """`float[X, P, D_v]`: as in `Rows`."""
    hidden: Tensor | None = None
    """`float[N, d]`: as in `Rows`."""
    head: Head | None = None
    taps: dict[Tap, Map] = field(default_factory=dict)
    lessons: dict[str, dict[Tap, Map]] = field(default_factory=dict)
    """By capability, what its teacher's taps gave."""

    def width(self) -> int:
        """How many tokens the dense logits are over, padding included."""
        if self.logits is not None:
            return self.logits.shape[1]
        return 0 if self.head is None else self.head.weight.shape[0]

    def dense(self) -> Tensor:
        """The logits `float[N, V]`, made now where they are not there yet.

        Raises:
            ValueError: There are none of all tokens.
        """
        return _dense(self)


def _dense(rows: Rows | Signal) -> Tensor:
    if rows.logits is not None:
        return rows.logits
    if rows.hidden is None or rows.head is None:
        raise ValueError("there are no logits of all tokens.")
    return rows.head(rows.hidden)
