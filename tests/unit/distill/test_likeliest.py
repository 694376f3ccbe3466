"""A row cut down to its likeliest tokens: what is kept is the dense row's, to half precision, and still a distribution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from drivedistill.distill.likeliest import captured_mass, likeliest, pack, token_type, unpack


def dense(rows: int, vocabulary: int, sharpness: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, vocabulary, generator=generator) * sharpness
    return logits, torch.randint(vocabulary, (rows,), generator=generator)


def read_back(logits, gold, k, temperature=1.0):
    return unpack(pack(likeliest(logits, gold, k, temperature), logits.shape[1]), temperature)


rows = {
    "vocabulary": st.integers(2, 300),
    "sharpness": st.sampled_from([0.0, 0.1, 1.0, 10.0, 1000.0]),
    "temperature": st.sampled_from([0.25, 1.0, 4.0]),
    "share": st.floats(0.01, 1.0),
    "seed": st.integers(0, 100),
}


@settings(max_examples=25)
@given(**rows)
def test_what_is_read_back_is_a_distribution_and_close_to_the_dense_one(
    vocabulary, sharpness, temperature, share, seed
):
    k = max(1, int(share * vocabulary))
    logits, gold = dense(5, vocabulary, sharpness, seed)
    top = read_back(logits, gold, k, temperature)
    log_p = (logits.double() / temperature).log_softmax(-1)
    total = top.log_probs.double().exp().sum(1) + top.log_tail.double().exp()
    torch.testing.assert_close(total, torch.ones(5, dtype=torch.float64), atol=2e-6, rtol=0)
    kept = log_p.gather(1, top.ids)
    clamped = kept.clamp_min(-65504.0)
    torch.testing.assert_close(top.log_probs.double(), clamped, rtol=1e-3, atol=2e-3)
    assert (kept.min(1).values >= log_p.scatter(1, top.ids, -torch.inf).max(1).values).all()
    tail = log_p.exp().scatter(1, top.ids, 0.0).sum(1)
    torch.testing.assert_close(top.log_tail.double().exp(), tail, rtol=5e-3, atol=1e-6)
    losses = torch.nn.functional.cross_entropy(logits, gold, reduction="none").clamp_max(65504.0)
    torch.testing.assert_close(top.gold_loss, losses, rtol=1e-3, atol=1e-6)


@settings(max_examples=25)
@given(rows["vocabulary"], rows["sharpness"], rows["seed"])
def test_every_token_kept_leaves_no_tail(vocabulary, sharpness, seed):
    logits, gold = dense(4, vocabulary, sharpness, seed)
    records = pack(likeliest(logits, gold, vocabulary, 1.0), vocabulary)
    assert (unpack(records, 1.0).log_tail == -torch.inf).all()
    assert (captured_mass(records) == 1.0).all()
    assert sorted(unpack(records, 1.0).ids[0].tolist()) == list(range(vocabulary))


def test_a_small_tail_keeps_its_size():
    """One minus a sum in float32 would say 0 or 6e-8."""
    logits = torch.tensor([[30.0, 29.0, 0.0, -2.0, -2.0]])
    top = read_back(logits, torch.tensor([0]), 2)
    expected = torch.logsumexp(logits[0, 2:], 0) - torch.logsumexp(logits[0], 0)
    assert float(top.log_tail) == pytest.approx(float(expected), abs=0.02)


def test_the_gold_loss_is_at_temperature_one():
    logits, gold = dense(6, 50, 3.0)
    assert torch.equal(read_back(logits, gold, 8, 2.0).gold_loss, read_back(logits, gold, 8, 1.0).gold_loss)
    assert read_back(logits, gold, 8, 2.0).temperature == 2.0


@pytest.mark.parametrize(
    ("k", "vocabulary", "size"), [(64, 32_128, 260), (64, 65_535, 260), (64, 65_536, 388), (1, 9, 8)]
)
def test_bytes_per_token(k, vocabulary, size):
    assert token_type(k, vocabulary).itemsize == size


@pytest.mark.parametrize("vocabulary", [65_535, 65_536, 151_936])
def test_the_last_id_survives(vocabulary):
    logits = torch.zeros(1, vocabulary)
    logits[0, -1] = 20.0
    assert int(read_back(logits, torch.tensor([0]), 3).ids[0, 0]) == vocabulary - 1


def test_the_mass_is_that_of_the_kept_tokens():
    logits, gold = dense(20, 200, 2.0)
    mass = captured_mass(pack(likeliest(logits, gold, 16, 1.0), 200))
    expected = logits.softmax(-1).topk(16).values.sum(1)
    assert np.allclose(mass, expected, atol=1e-3)
