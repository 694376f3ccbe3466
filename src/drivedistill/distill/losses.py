"""Losses of rows: logits in, one number per row out. No mask, no reduction, no configuration.

Legend: N supervised rows, V vocabulary. Values are nats. Softmax runs in float32 whatever comes in.

All divergences are taken between softmax(logits / T) and multiplied by T^2, so that their gradient with respect to the
logits keeps its size when T changes (Hinton et al. 2015, section 2; CLKD leaves T open, default 1).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from drivedistill.batch import TopK


def cross_entropy(student: Tensor, targets: Tensor) -> Tensor:
    """`-log p_student(target)`, `float[N]`.

    Args:
        student: Logits `float[N, V]`.
        targets: Token ids `int64[N]`.
    """
    return functional.cross_entropy(student.float(), targets, reduction="none")


def forward_kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """`T^2 * KL(teacher || student)`, `float[N]`: the student must cover all that the teacher holds possible.

    CLKD equation 7's Loss_KD. LLaVA-MoD computes the cross-entropy to the teacher's soft labels instead
    (align_trainer.py:503-528), which differs by the teacher's entropy, a constant without gradient.

    >>> p = torch.tensor([[1.0, 2.0, 3.0]])
    >>> float(forward_kl(p, p))
    0.0
    """
    log_p = _log_softmax(teacher, temperature)
    log_q = _log_softmax(student, temperature)
    return _kl(log_p, log_q) * temperature**2


def reverse_kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """`T^2 * KL(student || teacher)`, `float[N]`: the student must not hold possible what the teacher excludes."""
    log_p = _log_softmax(teacher, temperature)
    log_q = _log_softmax(student, temperature)
    return _kl(log_q, log_p) * temperature**2


def jensen_shannon(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """`T^2 * (KL(teacher || m) + KL(student || m)) / 2` with m the mean of both; symmetric, at most `T^2 log 2`."""
    log_p = _log_softmax(teacher, temperature)
    log_q = _log_softmax(student, temperature)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    return (_kl(log_p, log_m) + _kl(log_q, log_m)) / 2 * temperature**2


def forward_kl_top(student: Tensor, top: TopK) -> Tensor:
    """`T^2 * KL(teacher || student)` over k + 1 classes, `float[N]`: the teacher's likeliest tokens, and all others as one.

    Never more than `forward_kl`, since classes are only merged, and equal to it where the student shares the tail out as
    the teacher does. Leaving the tail out instead, or spreading its mass over the k tokens, would teach a student to
    exclude what is in it.

    Args:
        student: Logits `float[N, V]`.
        top: The teacher's, at its own temperature T.
    """
    log_q = _log_softmax(student, top.temperature)
    chosen = log_q.gather(1, top.ids)
    tail = log_q.scatter(1, top.ids, -torch.inf).logsumexp(dim=-1)
    there = torch.isfinite(top.log_tail)
    # Both branches of a `where` have a gradient: the one not taken must be finite.
    excess = torch.where(there, top.log_tail, 0.0) - torch.where(there, tail, 0.0)
    value = (top.log_probs.exp() * (top.log_probs - chosen)).sum(dim=-1) + top.log_tail.exp() * excess
    return value * top.temperature**2


def require_same_question(top: TopK, divergence: str, temperature: float) -> None:
    """What the likeliest tokens of a teacher can answer.

    Raises:
        ValueError: Another divergence than forward KL, or another temperature than theirs.
    """
    if divergence != "forward_kl":
        raise ValueError(
            f"{divergence} needs all of the teacher's logits; of its likeliest tokens only forward_kl is known."
        )
    if temperature != top.temperature:
        made = f"the teacher's likeliest tokens were kept at temperature {top.temperature:g}"
        raise ValueError(f"{made} and cannot be compared at {temperature:g}.")


def _log_softmax(logits: Tensor, temperature: float) -> Tensor:
    if temperature <= 0:
        raise ValueError(f"`temperature` must be positive, got {temperature}.")
    return functional.log_softmax(logits.float() / temperature, dim=-1)


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    return functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=-1)


DIVERGENCES = {"forward_kl": forward_kl, "reverse_kl": reverse_kl, "jensen_shannon": jensen_shannon}
