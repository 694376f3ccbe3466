"""Properties of the losses first, then parity with the plain formula."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from drivedistill.distill.losses import DIVERGENCES, cross_entropy, forward_kl, jensen_shannon, reverse_kl

SEEDS = st.integers(0, 10_000)
TEMPERATURES = st.sampled_from([0.5, 1.0, 2.0, 4.0])


def logits(seed: int, rows: int = 5, vocabulary: int = 11) -> torch.Tensor:
    return torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * 3


@pytest.mark.parametrize("name", DIVERGENCES)
@given(seed=SEEDS, temperature=TEMPERATURES)
def test_divergence_of_identical_distributions_is_zero(name, seed, temperature):
    p = logits(seed)
    torch.testing.assert_close(DIVERGENCES[name](p, p, temperature), torch.zeros(5), atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", DIVERGENCES)
@given(seed=SEEDS, temperature=TEMPERATURES)
def test_divergences_are_not_negative_and_have_one_value_per_row(name, seed, temperature):
    value = DIVERGENCES[name](logits(seed), logits(seed + 1), temperature)
    assert value.shape == (5,)
    assert (value > 0).all()


@pytest.mark.parametrize("name", DIVERGENCES)
def test_divergences_ignore_a_constant_added_to_all_logits(name):
    p, q = logits(1), logits(2)
    torch.testing.assert_close(DIVERGENCES[name](p, q), DIVERGENCES[name](p + 7, q - 3), atol=1e-5, rtol=1e-5)


def test_forward_kl_equals_the_plain_formula():
    student, teacher = logits(3).double().float(), logits(4)
    p = (teacher / 2).softmax(-1)
    expected = 4 * (p * (p.log() - (student / 2).softmax(-1).log())).sum(-1)
    torch.testing.assert_close(forward_kl(student, teacher, 2.0), expected)


def test_reverse_kl_is_forward_kl_with_the_roles_exchanged():
    torch.testing.assert_close(reverse_kl(logits(5), logits(6)), forward_kl(logits(6), logits(5)))


def test_jensen_shannon_is_symmetric_and_bounded_by_log_two():
    p, q = logits(7) * 10, logits(8) * 10
    torch.testing.assert_close(jensen_shannon(p, q), jensen_shannon(q, p))
    assert (jensen_shannon(p, q) <= math.log(2) + 1e-6).all()


def test_forward_kl_and_cross_entropy_to_soft_labels_have_the_same_gradient():
    """LLaVA-MoD's loss differs from the divergence by the teacher's entropy only."""
    student, teacher = logits(9).requires_grad_(), logits(10)
    (ours,) = torch.autograd.grad(forward_kl(student, teacher).sum(), student)
    soft = -(teacher.softmax(-1) * student.log_softmax(-1)).sum()
    (theirs,) = torch.autograd.grad(soft, student)
    torch.testing.assert_close(ours, theirs)


@given(seed=SEEDS)
def test_squared_temperature_keeps_the_size_of_small_gradients(seed):
    """Hinton et al. 2015: for small zero-mean logits the gradient of T^2 KL is (z - v) / V at every high temperature."""
    student, teacher = logits(seed) * 0.01, logits(seed + 1) * 0.01
    student = (student - student.mean(-1, keepdim=True)).requires_grad_()
    teacher = teacher - teacher.mean(-1, keepdim=True)
    (gradient,) = torch.autograd.grad(forward_kl(student, teacher, 8.0).sum(), student)
    torch.testing.assert_close(gradient, (student.detach() - teacher) / 11, atol=2e-5, rtol=0.02)


def test_half_precision_logits_are_compared_in_float32():
    p, q = logits(11).bfloat16(), logits(12).bfloat16()
    assert forward_kl(p, q).dtype == torch.float32
    assert cross_entropy(p, torch.zeros(5, dtype=torch.long)).dtype == torch.float32


def test_cross_entropy_of_a_uniform_model_is_the_log_of_the_vocabulary():
    value = cross_entropy(torch.zeros(3, 11), torch.tensor([0, 5, 10]))
    torch.testing.assert_close(value, torch.full((3,), math.log(11)))


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_temperature_must_be_positive(temperature):
    with pytest.raises(ValueError, match="`temperature` must be positive"):
        forward_kl(logits(1), logits(2), temperature)
