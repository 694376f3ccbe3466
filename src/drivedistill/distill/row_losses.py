"""Cross-entropy and divergence of rows without ever holding their logits: chunk by chunk, gradients on the way.

    ce, kl = row_losses(hidden, head, gold, signal)      # float[N] each, as from `losses.py`, and with gradient

The plain way holds the logits of all rows, their softmax and what autograd keeps of both, several times N x V; of 512 rows
and 152k tokens that is gigabytes. Here a chunk of rows gets its logits, its values and its gradient with respect to the
head's input, `float[chunk, d]`, and the logits are forgotten.

What backward multiplies the rows with is not always known in forward (mining looks at the values first), so there are
three ways, and all give the same numbers:

    weights given              one gradient of both losses; backward scales it. The quickest.
    unknown, head is frozen    a gradient for each loss; backward weighs the rows of both. One product of N x V x d more,
                               unless the teacher is cut to its likeliest tokens: then both share one, see `_Sweep.sharing`.
    unknown, head learns       nothing is kept; backward computes the logits again. Two products more: keeping dW for each
                               loss and row is impossible.

Legend: N rows, V vocabulary, d width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag

from drivedistill.batch import Head, Signal
from drivedistill.distill.chunk_divergences import divergence_of_chunk, place, softmax, top_gradient
from drivedistill.distill.losses import cross_entropy, require_same_question

CHUNK = 112
"""Rows at a time, at the most. On a CPU 32 rows cost 1.45 times as much, 512 gain nothing."""

Weights = tuple[Tensor, Tensor | None]
"""`float[N]` for the cross-entropy and for the divergence."""


def pays(head: Head, rows: int) -> bool:
    """Whether fusing saves memory worth its trouble.

    A head that learns has a gradient of V x d floats either way; beside it the logits of few rows are small.
    """
    return not torch.is_grad_enabled() or not _learns(head) or rows >= 2 * head.weight.shape[1]


def _learns(head: Head) -> bool:
    return head.weight.requires_grad or (head.bias is not None and head.bias.requires_grad)


def gold_loss(signal: Signal, gold: Tensor) -> Tensor:
    """A teacher's cross-entropy on the rows' own tokens, `float[N]`."""
    if signal.top is not None:
        return signal.top.gold_loss
    if signal.hidden is not None and signal.head is not None:
        return row_losses(signal.hidden, signal.head, gold)[0]
    return cross_entropy(signal.dense(), gold)


def row_losses(
    hidden: Tensor,
    head: Head,
    gold: Tensor,
    signal: Signal | None = None,
    *,
    divergence: str = "forward_kl",
    temperature: float = 1.0,
    vocabulary: int = 0,
    weights: Weights | None = None,
    chunk: int = CHUNK,
) -> tuple[Tensor, Tensor | None]:
    """Cross-entropy and divergence of every row, `float[N]`; equal to `losses.py` on the logits.

    Args:
        hidden: The head's input, `float[N, d]`.
        head: The student's head.
        gold: Token ids `int64[N]`.
        signal: The teacher's rows: `logits`, `hidden` with `head`, or `top`. None: no divergence.
        divergence: A key of `losses.DIVERGENCES`.
        temperature: Of the divergence, which is multiplied by its square.
        vocabulary: Number of real tokens; heads padded to different widths are compared on these only.
        weights: What backward is going to multiply the rows with, up to one common factor, where that is known. A wrong
            guess costs time (everything is computed again) and changes nothing.
        chunk: Rows at a time, at the most.

    Raises:
        ValueError: A teacher cut to its likeliest tokens was asked for another divergence or temperature, or nobody said
            which tokens of vocabularies of different widths are real.
    """
    if signal is not None and signal.top is not None:
        require_same_question(signal.top, divergence, temperature)
    if signal is not None and signal.top is None and signal.width() != len(head.weight) and not vocabulary:
        raise ValueError(f"`vocabulary` must say which of {len(head.weight)} and {signal.width()} tokens are real.")
    if temperature <= 0:
        raise ValueError(f"`temperature` must be positive, got {temperature}.")
    work = _Work(head.softcap, gold, signal, divergence, temperature, vocabulary, weights, chunk)
    inputs = head.scaled(hidden)
    if torch.is_grad_enabled() and (inputs.requires_grad or _learns(head)):
        return _RowLosses.apply(inputs, head.weight, head.bias, work)
    swept = _Sweep(inputs, head.weight, head.bias, work)
    for part in swept.parts():
        swept.values(part)
    return swept.ce, swept.kl


@dataclass(frozen=True)
class _Work:
    """Everything but the tensors that have a gradient; see `row_losses`."""

    softcap: float | None
    gold: Tensor
    signal: Signal | None
    divergence: str
    temperature: float
    vocabulary: int
    weights: Weights | None
    chunk: int


class _RowLosses(torch.autograd.Function):
    """The three ways of the module's description."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, work: _Work) -> Any:
        swept = _Sweep(hidden, weight, bias, work)
        ctx.work = work
        learns = any(ctx.needs_input_grad[1:3])
        made: tuple[Tensor | None, ...] = ()
        if work.weights is not None:
            ctx.way = "scale"
            made = swept.weighted(*work.weights, *ctx.needs_input_grad[1:3])
        elif not learns:
            ctx.way = "weigh"
            made = swept.sharing() if _shares(work) else swept.apart()
        else:
            ctx.way = "again"
            for part in swept.parts():
                swept.values(part)
        ctx.save_for_backward(hidden, weight, bias, *made)
        return swept.ce, swept.kl

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, ce: Tensor, kl: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, *made = ctx.saved_tensors
        if ctx.way == "weigh":
            gradient = ce[:, None].to(hidden.dtype) * made[0]
            if kl is not None:
                gradient += kl[:, None].to(hidden.dtype) * made[1]
            return gradient, None, None, None
        if ctx.way == "scale":
            factor = _common_factor((ce, kl), ctx.work.weights)
            if factor is not None:
                return *(None if m is None else m * factor.to(m.dtype) for m in made), None
        again = _Sweep(hidden, weight, bias, ctx.work)
        return *again.weighted(ce, kl, *ctx.needs_input_grad[1:3]), None


def _common_factor(found: tuple[Tensor, Tensor | None], guessed: Weights) -> Tensor | None:
    """The factor between what backward brings and what forward reckoned with; None where there is none."""
    theirs = torch.cat([part for part in found if part is not None])
    ours = torch.cat([part.to(theirs.dtype) for part in guessed if part is not None])
    if ours.shape != theirs.shape:
        return None
    square = ours.square().sum()
    factor = torch.where(square > 0, (ours * theirs).sum() / square, torch.zeros_like(square))
    wrong = (theirs - factor * ours).norm() > 1e-6 * theirs.norm()
    return None if bool(wrong) else factor


def even_size(rows: int, chunk: int) -> int:
    """Rows of a chunk such that none is much smaller than the others; each reads the whole head."""
    return math.ceil(rows / math.ceil(rows / chunk)) if rows else 1


class _Sweep:
    """One pass over the chunks."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, work: _Work) -> None:
        self.hidden, self.work = hidden.detach(), work
        self.shapes = weight, bias
        self.weight = weight.detach().to(hidden.dtype)
        self.head = Head(self.weight, None if bias is None else bias.detach(), softcap=work.softcap)
        self.exact = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        self.ce = hidden.new_empty(len(hidden), dtype=self.exact)
        self.kl = None if work.signal is None else torch.empty_like(self.ce)
        self.size = even_size(len(hidden), work.chunk)
        place_for = self.size * len(weight)
        self.room = [hidden.new_empty(place_for, dtype=self.exact) for _ in range(2 if work.signal is None else 3)]

    def parts(self) -> list[slice]:
        """The chunks."""
        number = len(self.hidden)
        return [slice(first, min(first + self.size, number)) for first in range(0, number, self.size)]

    def values(self, part: slice, *, slopes: bool = False) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Losses of a chunk; returns its softmax, the divergence's gradient and the cap's, `float[n, V]`."""
        work, logits = self.work, self._logits(part)
        slope = cap = None
        _, *room = self.room
        if work.signal is not None:
            assert self.kl is not None
            theirs = rows_of(work.signal, part)
            self.kl[part], slope = divergence_of_chunk(
                work.divergence, logits, theirs, work.temperature, work.vocabulary, (room[0], room[1]), slopes=slopes
            )
        if work.softcap is not None and slopes:
            cap = 1 - (logits / work.softcap) ** 2
        q, normaliser = softmax(logits, room[-1])
        self.ce[part] = normaliser - logits.gather(1, work.gold[part, None])[:, 0]
        return q, slope, cap

    def _logits(self, part: slice) -> Tensor:
        inputs = self.hidden[part]
        out = place(self.room[0], len(inputs), len(self.weight))
        return self.head.product(inputs, out) if out.dtype == inputs.dtype else out.copy_(self.head.product(inputs))

    def apart(self) -> tuple[Tensor, Tensor | None]:
        """The gradients of both losses with respect to the head's input, `float[N, d]` each."""
        ours = torch.empty_like(self.hidden)
        theirs = None if self.kl is None else torch.empty_like(self.hidden)

        def chunk(part: slice) -> None:  # its buffers are gone before those of the next are made
            q, slope, cap = self.values(part, slopes=True)
            _subtract_gold(q, self.work.gold[part])
            for gradient, out in ((q, ours), (slope, theirs)):
                if gradient is not None and out is not None:
                    capped = gradient if cap is None else gradient.mul_(cap[:, : gradient.shape[1]])
                    torch.mm(capped.to(self.hidden.dtype), self.weight[: gradient.shape[1]], out=out[part])

        for part in self.parts():
            chunk(part)
        return ours, theirs

    def sharing(self) -> tuple[Tensor, Tensor]:
        """`apart` for a teacher cut to k tokens, with one product of V instead of two.

        Over the other tokens both gradients are the student's q, scaled per row; over the k tokens they need k rows of
        the head. The others' product is scaled by p_tail / q_tail, so that it must not hold the k tokens' mass.
        """
        ours, theirs = torch.empty_like(self.hidden), torch.empty_like(self.hidden)

        def chunk(part: slice) -> None:
            assert self.work.signal is not None and self.kl is not None
            top, gold = rows_of(self.work.signal, part).top, self.work.gold[part]
            assert top is not None
            logits = self._logits(part)
            q, normaliser = softmax(logits, self.room[-1])
            self.ce[part] = normaliser - logits.gather(1, gold[:, None])[:, 0]
            log_q = logits.gather(1, top.ids) - normaliser[:, None]
            q.scatter_(1, top.ids, 0.0)
            self.kl[part], share, slope = top_gradient(log_q, q.sum(dim=-1), top)
            others = torch.mm(q.to(self.hidden.dtype), self.weight).to(self.exact)
            kept = torch.cat([log_q.exp(), slope]).to(self.hidden.dtype)
            # A bag sums rows of the head where they lie, without gathering them first.
            rows = embedding_bag(top.ids.repeat(2, 1), self.weight, per_sample_weights=kept, mode="sum")
            likeliest = rows.to(self.exact).view(2, len(top.ids), -1)
            ours[part] = others + likeliest[0] - self.weight[gold]
            theirs[part] = share[:, None] * others + likeliest[1]

        for part in self.parts():
            chunk(part)
        return ours, theirs

    def weighted(
        self, ce: Tensor, kl: Tensor | None, weight_learns: bool, bias_learns: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The gradient of `(ce * losses + kl * divergences).sum()` with respect to input, weight and bias."""
        weight, bias = self.shapes
        out = torch.empty_like(self.hidden)
        to_weight = torch.zeros_like(weight) if weight_learns else None
        to_bias = torch.zeros_like(bias) if bias is not None and bias_learns else None

        def chunk(part: slice) -> None:
            gradient = self._combined(part, ce, kl).to(self.hidden.dtype)
            torch.mm(gradient, self.weight, out=out[part])
            if to_weight is not None:
                _add_product(to_weight, gradient, self.hidden[part])
            if to_bias is not None:
                to_bias.add_(gradient.sum(dim=0))

        for part in self.parts():
            chunk(part)
        return out, to_weight, to_bias

    def _combined(self, part: slice, ce: Tensor, kl: Tensor | None) -> Tensor:
        """The gradient of both losses of a chunk with respect to its logits before the cap, `float[n, V]`."""
        q, slope, cap = self.values(part, slopes=True)
        gold, ours = self.work.gold[part, None], ce[part, None].to(q.dtype)
        gradient = q.mul_(ours).scatter_add_(1, gold, -ours)
        if slope is not None and kl is not None:
            gradient[:, : slope.shape[1]].addcmul_(slope, kl[part, None].to(q.dtype))
        return gradient if cap is None else gradient.mul_(cap)


def _shares(work: _Work) -> bool:
    """Both losses are of the same softmax, and the head is nothing but a product."""
    return work.signal is not None and work.signal.top is not None and work.temperature == 1 and work.softcap is None


def _subtract_gold(q: Tensor, gold: Tensor) -> None:
    q.scatter_add_(1, gold[:, None], q.new_full((len(q), 1), -1.0))


def _add_product(total: Tensor, gradient: Tensor, hidden: Tensor) -> None:
    if total.dtype == hidden.dtype:
        total.addmm_(gradient.T, hidden)
    else:  # autocast: the sum over chunks stays in float32, for the price of one more V x d
        total += gradient.T @ hidden


def rows_of(signal: Signal, part: slice) -> Signal:
    """Some rows of a teacher's signal."""
    top = signal.top
    if top is not None:
        cut = {name: getattr(top, name)[part] for name in ("ids", "log_probs", "log_tail", "gold_loss")}
        return Signal(top=replace(top, **cut))
    if signal.logits is not None:
        return Signal(signal.logits[part])
    assert signal.hidden is not None
    return Signal(hidden=signal.hidden[part], head=signal.head)
