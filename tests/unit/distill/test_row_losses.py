"""Losses of rows chunk by chunk: properties, then the plain formula, for every teacher, divergence and head."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from drivedistill.batch import Head, Signal, TopK
from drivedistill.distill import losses
from drivedistill.distill.row_losses import even_size, pays, row_losses, rows_of
from fakes import likeliest

N, V, D, REAL = 7, 13, 4, 11
HEADS = {
    "plain": {},
    "bias": {"bias": True},
    "scaled": {"scale": D**-0.5},
    "capped": {"softcap": 3.0, "bias": True},
}
TEACHERS = ("logits", "hidden", "wide", "top")
CASES = [(t, d) for t in TEACHERS for d in losses.DIVERGENCES if t != "top" or d == "forward_kl"]


def draw(*shape, seed, dtype=torch.float64):
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 1.5).to(dtype)


def a_head(bias=False, dtype=torch.float64, learns=True, width=V, seed=1, **options):
    weight = draw(width, D, seed=seed, dtype=dtype).requires_grad_(learns)
    return Head(weight, draw(width, seed=seed + 1, dtype=dtype).requires_grad_(learns) if bias else None, **options)


def a_signal(kind, gold, temperature=1.0, dtype=torch.float64, k=4):
    if kind == "hidden":
        return Signal(hidden=draw(N, D, seed=8, dtype=dtype), head=a_head(True, dtype, learns=False, seed=5))
    logits = draw(N, V + 3 if kind == "wide" else V, seed=9, dtype=dtype)
    return Signal(top=likeliest(logits, k, temperature, gold)) if kind == "top" else Signal(logits)


def plain(hidden, head, gold, signal, divergence="forward_kl", temperature=1.0):
    """The formulas of `losses.py`, in the type of the input (they themselves always use float32)."""
    logits = head(hidden)
    ce = -logits.log_softmax(-1).gather(1, gold[:, None])[:, 0]
    if signal is None:
        return ce, None
    if signal.top is not None:
        top = signal.top
        log_q = (logits / temperature).log_softmax(-1)
        others = torch.ones_like(log_q).scatter(1, top.ids, 0.0)
        tail = (log_q.exp() * others).sum(-1)
        kl = (top.log_probs.exp() * (top.log_probs - log_q.gather(1, top.ids))).sum(-1)
        return ce, temperature**2 * (kl + top.log_tail.exp() * (top.log_tail - tail.log()))
    theirs = signal.dense()
    if theirs.shape != logits.shape:
        logits, theirs = logits[:, :REAL], theirs[:, :REAL]
    p, q = (theirs / temperature).softmax(-1), (logits / temperature).softmax(-1)
    m = (p + q) / 2
    value = {
        "forward_kl": lambda: p * (p / q).log(),
        "reverse_kl": lambda: q * (q / p).log(),
        "jensen_shannon": lambda: (p * (p / m).log() + q * (q / m).log()) / 2,
    }[divergence]()
    return ce, temperature**2 * value.sum(-1)


def gradients(way, hidden, head, gold, signal, a, b, **options):
    """Values, and gradients of their weighted sum with respect to input, weight and bias."""
    hidden = hidden.clone().requires_grad_()
    ce, kl = way(hidden, head, gold, signal, **options)
    total = (a * ce).sum() if kl is None else (a * ce).sum() + (b * kl).sum()
    inputs = [t for t in (hidden, head.weight, head.bias) if t is not None and t.requires_grad]
    return [ce.detach(), *([] if kl is None else [kl.detach()]), *torch.autograd.grad(total, inputs)]


@pytest.fixture
def rows():
    """Input of the head, gold tokens, and what backward brings (some rows were not mined)."""
    gold = torch.randint(REAL, (N,), generator=torch.Generator().manual_seed(3))
    a = draw(N, seed=11).abs() * torch.tensor([1.0, 0, 1, 0, 1, 1, 0], dtype=torch.float64)
    return draw(N, D, seed=0), gold, a, draw(N, seed=12).abs()


WAYS = {"known": True, "unknown": True, "wrong": True, "frozen": False, "frozen_known": False}
"""Of backward's weights, and whether the head learns."""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("teacher", "divergence"), CASES)
def test_values_and_gradients_are_those_of_the_plain_formula(rows, teacher, divergence, head, way):
    hidden, gold, a, b = rows
    guess = {"wrong": (b, a), "unknown": None, "frozen": None}.get(way, (3 * a, 3 * b))
    for temperature in (1.0, 2.5):
        signal = a_signal(teacher, gold, temperature)
        ours = a_head(**HEADS[head], learns=WAYS[way])
        options = {"divergence": divergence, "temperature": temperature}
        expected = gradients(plain, hidden, ours, gold, signal, a, b, **options)
        found = gradients(
            row_losses, hidden, ours, gold, signal, a, b, **options, vocabulary=REAL, weights=guess, chunk=3
        )
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("teacher", "divergence"), CASES)
def test_in_single_precision_it_equals_the_losses_that_everybody_uses(rows, teacher, divergence, head):
    hidden, gold, a, b = (t.float() if t.is_floating_point() else t for t in rows)
    signal = a_signal(teacher, gold, 2.0, torch.float32)
    ours = a_head(**HEADS[head], dtype=torch.float32)

    def separately(hidden, head, gold, signal):
        logits = head(hidden)
        if signal.top is not None:
            return losses.cross_entropy(logits, gold), losses.forward_kl_top(logits, signal.top)
        width = V if teacher != "wide" else REAL
        values = losses.DIVERGENCES[divergence](logits[:, :width], signal.dense()[:, :width], 2.0)
        return losses.cross_entropy(logits, gold), values

    expected = gradients(separately, hidden, ours, gold, signal, a, b)
    options = {"divergence": divergence, "temperature": 2.0, "vocabulary": REAL, "chunk": 4}
    for one, other in zip(gradients(row_losses, hidden, ours, gold, signal, a, b, **options), expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("guessed", [True, False])
@pytest.mark.parametrize(("teacher", "divergence"), CASES)
def test_gradcheck(rows, teacher, divergence, guessed):
    hidden, gold, a, b = rows
    signal = a_signal(teacher, gold, 2.0)

    def losses_of(hidden, weight, bias):
        return row_losses(
            hidden, Head(weight, bias, softcap=4.0), gold, signal, divergence=divergence, temperature=2.0,
            vocabulary=REAL, weights=(a, b) if guessed else None, chunk=3,
        )  # fmt: skip

    inputs = [t.clone().requires_grad_() for t in (hidden, draw(V, D, seed=1), draw(V, seed=2))]
    assert torch.autograd.gradcheck(losses_of, inputs)


@pytest.mark.parametrize(
    ("rows", "chunk", "size"), [(512, 112, 103), (130, 128, 65), (7, 100, 7), (7, 3, 3), (0, 3, 1)]
)
def test_chunks_are_even(rows, chunk, size):
    assert even_size(rows, chunk) == size


@pytest.mark.parametrize("chunk", [1, 2, 7, 100])
@pytest.mark.parametrize("teacher", [None, *TEACHERS])
def test_the_chunk_changes_nothing_and_rows_stay_in_their_places(rows, teacher, chunk):
    hidden, gold, a, b = rows
    head = a_head(bias=True)
    signal = teacher and a_signal(teacher, gold)
    options = {"vocabulary": REAL}
    whole = gradients(row_losses, hidden, head, gold, signal, a, b, **options)
    parts = gradients(row_losses, hidden, head, gold, signal, a, b, chunk=chunk, **options)
    for one, other in zip(parts, whole, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(chunk))
    shuffled = gradients(
        row_losses,
        hidden[order],
        head,
        gold[order],
        signal and rows_of(signal, order),
        a[order],
        b[order],
        chunk=3,
        **options,
    )
    per_row = 2 if signal is None else 3  # values and the gradient of the input
    for one, other in zip(shuffled[:per_row], whole[:per_row], strict=True):
        torch.testing.assert_close(one, other[order], atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize(("teacher", "divergence"), CASES)
def test_a_student_that_says_the_same_is_at_zero_and_stays_there(rows, teacher, divergence):
    hidden, gold, _, b = rows
    head = a_head(bias=True, learns=False)
    signal = {
        "hidden": lambda: Signal(hidden=hidden, head=head),
        "top": lambda: Signal(top=likeliest(head(hidden), 4, 1.0, gold)),
    }.get(teacher, lambda: Signal(head(hidden)))()
    _, kl, gradient = gradients(row_losses, hidden, head, gold, signal, torch.zeros(N), b, divergence=divergence)
    torch.testing.assert_close(kl, torch.zeros_like(kl), atol=1e-12, rtol=0)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)


def test_padding_of_either_vocabulary_counts_for_nothing(rows):
    hidden, gold, _, b = rows
    narrow = a_head(learns=False)
    wide = Head(torch.cat([narrow.weight[:REAL], 9 * torch.ones(6, D, dtype=torch.float64)]))
    cut = Head(narrow.weight[:REAL])
    signal = a_signal("wide", gold)
    exact = Signal(signal.logits[:, :REAL])
    (_, one, _), (_, other, _) = (
        gradients(row_losses, hidden, head, gold, s, torch.zeros(N), b, vocabulary=REAL)
        for head, s in ((wide, signal), (cut, exact))
    )
    torch.testing.assert_close(one, other)


def test_merging_classes_never_adds_to_the_divergence(rows):
    hidden, gold, *_ = rows
    head, dense = a_head(), draw(N, V, seed=9)
    logits = head(hidden).detach()
    whole = plain(hidden, head, gold, Signal(dense))[1]
    values = [losses.forward_kl_top(logits, likeliest(dense, k, 1.0, gold)).double() for k in (1, 3, 6, V)]
    for few, more in zip(values, [*values[1:], whole], strict=True):
        assert (few <= more + 1e-6).all() and (few >= -1e-6).all()
    torch.testing.assert_close(values[-1], whole, atol=1e-6, rtol=1e-5)


def test_a_teacher_kept_whole_has_no_tail_and_finite_gradients(rows):
    hidden, gold, a, b = rows
    head, dense = a_head(), draw(N, V, seed=9)
    top = likeliest(dense, V, 1.0, gold)
    assert torch.isinf(top.log_tail).all()
    expected = gradients(plain, hidden, head, gold, Signal(dense), a, b)
    for one, other in zip(gradients(row_losses, hidden, head, gold, Signal(top=top), a, b), expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)
    logits = head(hidden).detach().requires_grad_()
    losses.forward_kl_top(logits, top).sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_a_tail_far_below_one_keeps_its_digits(rows):
    """1 - the sum of the others would be 0 here, in single precision."""
    _, gold, *_ = rows
    logits = torch.full((N, V), -20.0)
    logits[:, :2] = 0.0
    top = TopK(
        torch.tensor([[0, 1]] * N),
        torch.full((N, 2), math.log(0.45)),
        torch.full((N,), math.log(0.1)),
        torch.ones(N),
        1.0,
    )
    _, kl = row_losses(logits, Head(torch.eye(V)), gold, Signal(top=top))
    q_tail = (V - 2) * math.exp(-20) / (2 + (V - 2) * math.exp(-20))
    torch.testing.assert_close(
        kl, torch.full((N,), 0.9 * math.log(0.9) + 0.1 * math.log(0.1 / q_tail)), rtol=1e-5, atol=0
    )
    torch.testing.assert_close(kl, losses.forward_kl_top(logits, top))


def test_half_precision_is_summed_in_single():
    gold = torch.zeros(N, dtype=torch.long)
    hidden = draw(N, D, seed=0, dtype=torch.float32)
    head = a_head(dtype=torch.float32)
    halved = replace(head, dtype=torch.bfloat16)  # as under autocast
    a = torch.ones(N)
    found = gradients(row_losses, hidden, halved, gold, a_signal("hidden", gold, dtype=torch.bfloat16), a, a, chunk=2)
    assert [t.dtype for t in found] == [torch.float32] * 4
    expected = gradients(row_losses, hidden, head, gold, a_signal("hidden", gold, dtype=torch.float32), a, a)
    for one, other in zip(found, expected, strict=True):
        assert float((one - other).norm() / other.norm()) < 0.02


def test_without_gradient_only_values_are_made(rows):
    hidden, gold, *_ = rows
    head, signal = a_head(bias=True), a_signal("hidden", gold)
    with torch.no_grad():
        found = row_losses(hidden, head, gold, signal)
    for one, other in zip(found, plain(hidden, head, gold, signal), strict=True):
        assert not one.requires_grad
        torch.testing.assert_close(one, other.detach(), atol=1e-10, rtol=1e-10)
    assert row_losses(hidden, head, gold)[1] is None


@pytest.mark.parametrize("known", [True, False])
def test_no_rows_no_losses(known):
    head, none = a_head(), torch.zeros(0, dtype=torch.float64)
    hidden, gold = none.reshape(0, D).clone().requires_grad_(), none.long()
    ce, kl = row_losses(hidden, head, gold, Signal(none.reshape(0, V)), weights=(none, none) if known else None)
    (ce.sum() + kl.sum()).backward()
    assert ce.shape == kl.shape == (0,) and not head.weight.grad.any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"divergence": "reverse_kl"}, "reverse_kl needs all of the teacher's logits"),
        ({"divergence": "jensen_shannon"}, "jensen_shannon needs all"),
        ({"temperature": 2.0}, "kept at temperature 1 and cannot be compared at 2"),
        ({"temperature": 0.0}, "must be positive|cannot be compared"),
    ],
)
def test_what_the_likeliest_tokens_cannot_say_is_refused(rows, options, words):
    hidden, gold, *_ = rows
    with pytest.raises(ValueError, match=words):
        row_losses(hidden, a_head(), gold, a_signal("top", gold), **options)


def test_padded_heads_need_the_number_of_real_tokens(rows):
    hidden, gold, *_ = rows
    with pytest.raises(ValueError, match="which of 13 and 16 tokens are real"):
        row_losses(hidden, a_head(), gold, a_signal("wide", gold))


def test_fusing_pays_for_frozen_heads_and_many_rows():
    assert pays(a_head(learns=False), 1)
    assert pays(a_head(), 2 * D) and not pays(a_head(), 2 * D - 1)
