"""H2G's selection: the paper's equations on numbers that can be checked by hand, then properties."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from drivedistill.batch import ROW_KINDS
from drivedistill.distill import mining
from drivedistill.distill.losses import cross_entropy
from drivedistill.distill.mining import everything, hardest_samples, hardest_tokens, pool_size, sample_hardness, weigh
from fakes import bare_batch as batch


def all_of(b):
    return torch.ones(b.num_tokens, dtype=torch.bool)


def size(rows, b, reduction):
    return pool_size(mining.mineable_tokens(b, rows), b, reduction)


def h2g(losses, b, m, n, reduction="tokens", allowed=None):
    """Selected rows and the term's mean over the batch's own count."""
    allowed = all_of(b) if allowed is None else allowed
    rows = hardest_tokens(losses, b, n, allowed)
    rows &= hardest_samples(sample_hardness(losses, b, allowed), m)[b.sample_of_row]
    selection = weigh(rows, b, reduction, size(rows, b, reduction))
    count = {"tokens": b.num_tokens, "samples": b.num_samples}.get(reduction) or b.tokens_per_sample().sqrt().sum()
    return rows, float((selection.weights * losses).sum() / count)


def test_one_sample_half_of_its_tokens():
    rows, loss = h2g(torch.tensor([4.0, 1.0, 3.0, 2.0]), batch([4]), 100, 50)
    assert rows.nonzero().flatten().tolist() == [0, 2]
    assert loss == 3.5


def test_four_samples_the_harder_half():
    hardness = torch.tensor([1.0, 5.0, 2.0, 4.0])
    assert hardest_samples(hardness, 50).nonzero().flatten().tolist() == [1, 3]


@pytest.mark.parametrize("reduction", ["tokens", "samples", "sqrt"])
def test_m_and_n_of_100_are_plain_cross_entropy_to_the_bit(reduction):
    b = batch([3, 1, 5])
    logits = torch.randn(9, 7, requires_grad=True)
    losses = cross_entropy(logits, b.gold)
    rows = hardest_tokens(losses.detach(), b, 100, all_of(b))
    rows &= hardest_samples(sample_hardness(losses.detach(), b, all_of(b)), 100)[b.sample_of_row]
    assert rows.all()
    mined, plain = weigh(rows, b, reduction, size(rows, b, reduction)), everything(b, reduction)
    assert torch.equal(mined.weights, plain.weights)
    if reduction == "tokens":
        assert torch.equal((mined.weights * losses).sum() / 9, losses.sum() / 9)


def test_unselected_tokens_have_no_gradient_at_all():
    b = batch([4, 4])
    logits = torch.randn(8, 5, requires_grad=True)
    losses = cross_entropy(logits, b.gold)
    rows, _ = h2g(losses.detach(), b, 50, 50)
    (weigh(rows, b, "tokens", size(rows, b, "tokens")).weights * losses).sum().backward()
    assert (logits.grad[~rows] == 0).all()
    assert (logits.grad[rows].abs().sum(dim=1) > 0).all()
    assert int(rows.sum()) == 2


def test_mean_over_selected_tokens_and_mean_of_sample_means():
    losses = torch.tensor([9.0, 1.0, 4.0, 4.0, 4.0, 1.0])
    b = batch([2, 4])
    assert h2g(losses, b, 100, 75)[1] == pytest.approx((9 + 1 + 4 + 4 + 4) / 5)  # ceil(1.5) = 2 and 3
    assert h2g(losses, b, 100, 75, "samples")[1] == pytest.approx(((9 + 1) / 2 + 4) / 2)
    roots = (2**0.5, 3**0.5)
    assert h2g(losses, b, 100, 75, "sqrt")[1] == pytest.approx((roots[0] * 5 + roots[1] * 4) / sum(roots))


def test_the_root_of_a_length_lies_between_tokens_and_samples():
    b, losses = batch([1, 4]), torch.tensor([4.0, 1.0, 1.0, 1.0, 1.0])
    means = {}
    for reduction in ("tokens", "sqrt", "samples"):
        divisor = float(mining.counts(b.tokens_per_sample(), reduction).sum())
        means[reduction] = float((everything(b, reduction).weights * losses).sum()) / divisor
    assert means == pytest.approx({"tokens": (4 + 4) / 5, "sqrt": (4 + 2) / 3, "samples": (4 + 1) / 2})


def test_excluded_kinds_are_never_mined_and_do_not_make_a_sample_hard():
    word, point = ROW_KINDS.index("word"), ROW_KINDS.index("coordinate")
    b = batch([2, 2], kinds=[point, word, word, word])
    losses = torch.tensor([9.0, 1.0, 2.0, 2.0])
    allowed = b.row_kind != point
    assert sample_hardness(losses, b, allowed).tolist() == [1.0, 2.0]
    rows, _ = h2g(losses, b, 50, 100, allowed=allowed)
    assert rows.tolist() == [False, False, True, True]
    rows, _ = h2g(losses, b, 100, 100, allowed=allowed)
    assert rows.tolist() == [False, True, True, True]


def test_a_sample_of_excluded_tokens_only_is_no_candidate():
    b = batch([1, 1], kinds=[2, 0])
    allowed = b.row_kind == 0
    rows, loss = h2g(torch.tensor([5.0, 3.0]), b, 100, 100, allowed=allowed)
    assert rows.tolist() == [False, True] and loss == 3.0
    nothing = torch.zeros(2, dtype=torch.bool)
    rows, loss = h2g(torch.tensor([5.0, 3.0]), b, 50, 50, allowed=nothing)
    assert not rows.any() and loss == 0.0


def test_ties_go_to_the_lower_position():
    assert hardest_samples(torch.tensor([2.0, 2.0, 2.0]), 34).tolist() == [True, True, False]
    rows = hardest_tokens(torch.tensor([1.0, 1.0, 1.0]), batch([3]), 34, torch.ones(3, dtype=torch.bool))
    assert rows.tolist() == [True, True, False]


def test_within_groups_the_hardest_of_each_kind_comes_before_a_hard_kind():
    hardness = torch.tensor([9.0, 8.0, 7.0, 2.0, 1.0, 0.5])
    groups = torch.tensor([0, 0, 0, 1, 1, 1])
    assert hardest_samples(hardness, 34).nonzero().flatten().tolist() == [0, 1, 2]
    assert hardest_samples(hardness, 33, groups).nonzero().flatten().tolist() == [0, 3]


def test_standing_is_a_mid_rank_within_the_group():
    values, groups = torch.tensor([1.0, 2.0, 3.0, 7.0]), torch.tensor([0, 0, 0, 1])
    assert mining.standing_in_group(values, groups).tolist() == pytest.approx([1 / 6, 0.5, 5 / 6, 0.5])


lengths = st.lists(st.integers(1, 6), min_size=1, max_size=7)
percents = st.floats(1, 100)


@given(lengths, percents, percents, st.integers(0, 10**6))
def test_counts_are_the_ceilings_of_the_percentages(lengths, m, n, seed):
    import math

    b = batch(lengths)
    losses = torch.rand(b.num_tokens, generator=torch.Generator().manual_seed(seed))
    rows, _ = h2g(losses, b, m, n)
    per_sample = mining.mineable_tokens(b, rows)
    chosen = per_sample > 0
    assert int(chosen.sum()) == max(1, math.ceil(m * len(lengths) / 100 - 1e-9))
    for length, count in zip(lengths, per_sample.tolist(), strict=True):
        assert count in (0, max(1, math.ceil(n * length / 100 - 1e-9)))
    means = sample_hardness(losses, b, all_of(b))
    if not chosen.all():
        assert means[chosen].min() >= means[~chosen].max()
    for sample in range(len(lengths)):
        mine = b.sample_of_row == sample
        if chosen[sample] and not rows[mine].all():
            assert losses[mine & rows].min() >= losses[mine & ~rows].max()


@given(lengths, percents, percents, st.integers(0, 10**6))
def test_reordering_samples_reorders_the_selection(lengths, m, n, seed):
    generator = torch.Generator().manual_seed(seed)
    b = batch(lengths)
    losses = torch.rand(b.num_tokens, generator=generator)
    order = torch.randperm(len(lengths), generator=generator)
    parts = losses.split(lengths)
    shuffled = batch([lengths[i] for i in order.tolist()])
    rows, loss = h2g(losses, b, m, n)
    others, same = h2g(torch.cat([parts[i] for i in order.tolist()]), shuffled, m, n)
    expected = torch.cat([rows.split(lengths)[i] for i in order.tolist()])
    assert torch.equal(others, expected)
    assert same == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("reduction", ["tokens", "samples", "sqrt"])
def test_a_pool_counts_as_much_as_its_tokens_do_however_few_are_mined(reduction):
    b = batch([4, 4])
    losses = torch.ones(8)
    for m, n in ((50, 25), (50, 100), (100, 25)):
        assert h2g(losses, b, m, n, reduction)[1] == pytest.approx(1.0)
