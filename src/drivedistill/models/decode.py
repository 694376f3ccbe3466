"""Greedy answers, token by token, without the machinery of `generate`.

    step = step_of(model)
    written = write(step, inputs, Limits(most=32), ends=[1], pad=0)    # the tokens that `generate` would write

A step makes one token of every sample. Its shapes do not depend on the data: caches have a fixed room (doubled when it is
full), what lies beyond the position is masked, the likeliest token is chosen inside. So the same step runs eagerly, under
`torch.compile` and in CUDA graphs, and can be exported. Samples that have ended leave the batch, so that one long answer
does not make all the others wait.

Legend: B samples, R room of the caches, H heads, T tokens of the longest answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

ROOM = 32
"""Positions of the first caches."""

BLOCK = 64
"""Positions to whose multiples questions are padded where every shape has its price."""

GLANCE = 8
"""On a GPU the host looks every so many tokens whether all have ended, since every look waits for the device."""


class Limits(NamedTuple):
    """How many tokens an answer may have, and must have."""

    most: int
    least: int = 0


class Written(NamedTuple):
    """What was written for B samples."""

    tokens: Tensor
    """`int64[B, T]`: without what stood before; padding behind the end."""
    probabilities: Tensor | None
    """`float32[B, T]`: how likely each token was; None where nobody knows, as with beams."""


@dataclass
class Memory:
    """What a decoder remembers of B samples: with the last token, all that its next step depends on."""

    keys: list[Tensor]
    """Of every layer, `[B, H, R, d_k]`."""
    values: list[Tensor]
    """Likewise."""
    fixed: list[Tensor]
    """What a step reads and never writes, `[B, ...]`; its meaning is the family's own."""
    table: Tensor | None = None
    """Likewise, of all samples, for this room."""

    @property
    def tensors(self) -> list[Tensor]:
        """All of them."""
        return [*self.keys, *self.values, *self.fixed, *([] if self.table is None else [self.table])]

    @property
    def shapes(self) -> tuple[torch.Size, ...]:
        """Of all tensors."""
        return tuple(part.shape for part in self.tensors)

    @property
    def room(self) -> int:
        """R."""
        return self.keys[0].shape[2]

    def select(self, samples: Tensor) -> Memory:
        """The memory of some samples, `int64[B']`."""
        keys, values, fixed = ([part[samples] for part in parts] for parts in (self.keys, self.values, self.fixed))
        return Memory(keys, values, fixed, self.table)

    def doubled(self) -> Memory:
        """The same with twice the room, without a table."""
        more = (0, 0, 0, self.room)
        keys, values = ([functional.pad(part, more) for part in parts] for parts in (self.keys, self.values))
        return Memory(keys, values, self.fixed)


class Step(Protocol):
    """Makes one token of every sample; a `torch.nn.Module`."""

    thins: bool
    """Samples that have ended may leave the batch; not where every new shape costs a compilation."""
    block: int
    """What stands in the caches from the beginning is padded to a multiple of so many positions."""

    def begin(self, inputs: dict[str, Tensor], room: int) -> tuple[Tensor, int, Memory]:
        """Read the questions: the token before the first of the answer, its position, and the memory.

        Args:
            inputs: Of B questions.
            room: For so many tokens of the answer, at least.
        """

    def grown(self, memory: Memory) -> Memory:
        """The same memory with twice the room."""

    def reading_parts(self) -> Sequence[nn.Module]:
        """Modules that do most of `begin`'s work, for a compiler."""

    def __call__(self, token: Tensor, position: Tensor, early: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """The next token of every sample `int64[B]`, and its probability `float32[B]`.

        Args:
            token: The last one, `int64[B]`.
            position: Where it stands, `int64[1]`; the caches are written there.
            early: `bool[1]`: answers must not end yet.
            memory: Of the samples.
        """


OnToken = Callable[[Tensor], None]
"""Is given the token of every sample, `int64[B]`, when it has reached the host; padding for samples that have ended."""


@torch.inference_mode()
def write(
    step: Step,
    inputs: dict[str, Tensor],
    limits: Limits,
    *,
    ends: Sequence[int],
    pad: int,
    on_token: OnToken | None = None,
) -> Written:
    """Greedy answers to B questions; the tokens that `generate(do_sample=False)` writes.

    Args:
        step: Of the model.
        inputs: What the model is given, without any answer.
        limits: Of the answers' lengths.
        ends: Tokens that end an answer; each is written before the answer ends.
        pad: What stands behind the end.
        on_token: See `OnToken`.
    """
    token, start, memory = step.begin(inputs, ROOM if step.thins else _power_of_two(limits.most))
    device, count = token.device, len(token)
    last = torch.tensor(ends, device=device)
    tokens = torch.full((count, limits.most), pad, device=device)
    probabilities = torch.zeros(count, limits.most, device=device)
    running = torch.arange(count, device=device)
    ended = torch.zeros(count, dtype=torch.bool, device=device)
    glance = 1 if device.type == "cpu" else GLANCE
    for t in range(limits.most):
        if start + t == memory.room:
            memory = step.grown(memory)
        position = torch.full((1,), start + t, device=device)
        early = torch.full((1,), t < limits.least, device=device)
        token, probability = step(token, position, early, memory)
        tokens[running, t] = token.masked_fill(ended, pad)
        probabilities[running, t] = probability.masked_fill(ended, 0)
        if on_token is not None:
            on_token(tokens[:, t].cpu())
        ended = ended | torch.isin(token, last)
        if (t + 1) % glance == 0:
            left = int((~ended).sum())
            if left == 0:
                break
            if step.thins and 2 * left <= len(running):
                alive = (~ended).nonzero()[:, 0]
                memory, token, running, ended = memory.select(alive), token[alive], running[alive], ended[alive]
    return _cut(tokens, probabilities)


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


def _cut(tokens: Tensor, probabilities: Tensor) -> Written:
    """Without the steps at which nobody was writing any more."""
    length = int((probabilities > 0).any(dim=0).sum())
    return Written(tokens[:, :length], probabilities[:, :length])


def choose(logits: Tensor, ends: Tensor, early: Tensor) -> tuple[Tensor, Tensor]:
    """The likeliest token of `float[B, V]` and its probability; none of `ends` while it is early."""
    logits = logits.float()
    logits = logits.index_copy(1, ends, logits[:, ends].masked_fill(early, -torch.inf))
    best, token = logits.max(dim=-1)
    return token, (best - logits.logsumexp(dim=-1)).exp()


def fixed_shapes(step: Step) -> Step:
    """The same step with fewer different shapes, for whoever prepares something for each of them."""
    step.thins, step.block = False, BLOCK
    return step
