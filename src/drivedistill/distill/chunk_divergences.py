"""Divergences of a chunk of rows with their gradients written out; the plain formulas are in `losses.py`.

Legend: n rows of a chunk, V vocabulary, q the student's and p the teacher's distribution at temperature T. Gradients of
T^2 * divergence with respect to the student's logits:

    forward KL       T (q - p)
    reverse KL       T q (log q/p - KL(q || p))
    Jensen-Shannon   T/2 q (log q/m - KL(q || m)),  m = (p + q) / 2
    top-k + tail     T (q_i - p_i) for the k tokens, T q_j (1 - p_tail / q_tail) for all others
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from drivedistill.batch import Signal, TopK


def divergence_of_chunk(
    name: str,
    logits: Tensor,
    signal: Signal,
    temperature: float,
    vocabulary: int,
    room: tuple[Tensor, Tensor],
    *,
    slopes: bool,
) -> tuple[Tensor, Tensor | None]:
    """T^2 times the divergence, `float[n]`, and, where asked for, its gradient, `float[n, V]` or as wide as was compared.

    Args:
        name: A key of `losses.DIVERGENCES`.
        logits: The student's, `float[n, V]`; never written to.
        signal: The teacher's rows.
        temperature: T.
        vocabulary: Number of real tokens; logits of different widths are compared on these.
        room: Two places for `float[n, V]`, see `place`; the gradient may lie in the first, the second is free again.
        slopes: Make the gradient too.
    """
    if signal.top is not None:
        value, slope = _top(_tempered(logits, temperature), signal.top, room, slopes)
    else:
        width = logits.shape[1] if signal.width() == logits.shape[1] else vocabulary

        def theirs() -> Tensor:
            return _tempered(_teacher_logits(signal, room[1], logits.dtype)[:, :width], temperature)

        value, slope = DENSE[name](_tempered(logits[:, :width], temperature), theirs, room, slopes)
    if slope is not None and temperature != 1:
        slope *= temperature
    return value * temperature**2, slope


def place(room: Tensor, rows: int, width: int) -> Tensor:
    """The beginning of a flat buffer as `float[rows, width]`.

    Buffers are made once: blocks of some megabytes that come and go leave holes that the C library does not give back.
    """
    return room[: rows * width].view(rows, width)


def softmax(logits: Tensor, room: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax, in `room`, and its log-normaliser `float[n]`; `logsumexp` would take the exponentials a second time."""
    top = logits.max(dim=-1, keepdim=True)
    q = torch.softmax(logits, -1, out=place(room, *logits.shape))
    return q, (top.values - q.gather(1, top.indices).log())[:, 0]


def _teacher_logits(signal: Signal, room: Tensor, dtype: torch.dtype) -> Tensor:
    """The teacher's logits of a chunk; in `room` where they are made here in the student's type."""
    if signal.hidden is None or signal.head is None:
        return signal.dense().to(dtype)
    inputs = signal.head.scaled(signal.hidden)
    fits = inputs.dtype == dtype and signal.width() * len(inputs) <= len(room)
    return signal.head.product(inputs, place(room, len(inputs), signal.width()) if fits else None).to(dtype)


def _tempered(logits: Tensor, temperature: float) -> Tensor:
    return logits if temperature == 1 else logits / temperature


Theirs = Callable[[], Tensor]
"""The teacher's logits, made when they are needed, perhaps in the second place of `Room`."""
Room = tuple[Tensor, Tensor]
"""Flat buffers."""


def _forward_kl(ours: Tensor, theirs: Theirs, room: Room, slopes: bool) -> tuple[Tensor, Tensor | None]:
    logits = theirs()
    p, their_normaliser = softmax(logits, room[0])
    value = _dot(p, logits) - their_normaliser - _dot(p, ours)
    q, our_normaliser = softmax(ours, room[1])  # the teacher's logits lay there and are not needed any more
    return value + our_normaliser, torch.sub(q, p, out=p) if slopes else None


def _reverse_kl(ours: Tensor, theirs: Theirs, room: Room, slopes: bool) -> tuple[Tensor, Tensor | None]:
    log_q = ours.log_softmax(dim=-1)
    return _towards(log_q, log_q - theirs().log_softmax(dim=-1), slopes)


def _jensen_shannon(ours: Tensor, theirs: Theirs, room: Room, slopes: bool) -> tuple[Tensor, Tensor | None]:
    log_q, log_p = ours.log_softmax(dim=-1), theirs().log_softmax(dim=-1)
    log_m = torch.logaddexp(log_p, log_q).sub_(math.log(2))
    from_p = _dot(log_p.exp(), log_p - log_m)
    from_q, slope = _towards(log_q, log_q - log_m, slopes)
    return (from_p + from_q) / 2, None if slope is None else slope.div_(2)


def _towards(log_q: Tensor, excess: Tensor, slopes: bool) -> tuple[Tensor, Tensor | None]:
    """`sum q * excess` and `q * (excess - sum)`: the gradient of an expectation under a softmax."""
    q = log_q.exp()
    value = _dot(q, excess)
    return value, q.mul_(excess.sub_(value[:, None])) if slopes else None


def _top(ours: Tensor, top: TopK, room: Room, slopes: bool) -> tuple[Tensor, Tensor | None]:
    """Forward KL over k + 1 classes; the student's tail is summed, since 1 - the others would lose its digits."""
    q, normaliser = softmax(ours, room[0])
    log_q = ours.gather(1, top.ids) - normaliser[:, None]
    q.scatter_(1, top.ids, 0.0)
    value, share, slope = top_gradient(log_q, q.sum(dim=-1), top)
    if not slopes:
        return value, None
    q *= share[:, None]
    return value, q.scatter_(1, top.ids, slope)


def top_gradient(log_q: Tensor, q_tail: Tensor, top: TopK) -> tuple[Tensor, Tensor, Tensor]:
    """Forward KL over k + 1 classes and its gradient at T = 1.

    Args:
        log_q: The student's of the k tokens, `float[n, k]`.
        q_tail: Its probability of all others, `float[n]`.
        top: The teacher's rows.

    Returns:
        The value `float[n]`; the factor of q that is the gradient for the other tokens, `float[n]`; the gradient for the
        k tokens, `float[n, k]`.
    """
    log_p, log_tail = top.log_probs.to(log_q.dtype), top.log_tail.to(log_q.dtype)
    p, p_tail = log_p.exp(), log_tail.exp()
    q_tail = q_tail.clamp_min(torch.finfo(q_tail.dtype).tiny)
    value = (p * (log_p - log_q)).sum(dim=-1) + torch.where(p_tail > 0, p_tail * (log_tail - q_tail.log()), 0.0)
    mass = p.sum(dim=-1) + p_tail
    return value, mass - p_tail / q_tail, log_q.exp() * mass[:, None] - p


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """Row by row, `float[n]`, without the product in between."""
    return torch.bmm(one[:, None], other[:, :, None])[:, 0, 0]


DENSE = {"forward_kl": _forward_kl, "reverse_kl": _reverse_kl, "jensen_shannon": _jensen_shannon}
