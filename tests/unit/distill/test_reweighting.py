"""Online weights: the published step by hand, its bounds, and a resumed state that goes on as if nothing had happened."""

from __future__ import annotations

import math

import pytest
import torch

from drivedistill.distill.reweighting import Reweighter, imbalance
from drivedistill.drivekd_sections import Reweighting

ONES = torch.ones(4, dtype=torch.float64)
NORMS = torch.tensor([2.0, 1.0, 0.5, 0.5], dtype=torch.float64)


def learnt(spec: Reweighting, norms: torch.Tensor, steps: int = 1) -> Reweighter:
    reweighter = Reweighter(spec, len(norms))
    for _ in range(steps):
        reweighter.learn(torch.ones_like(norms), norms, torch.ones_like(norms))
    return reweighter


def test_published_step():
    assert float(imbalance(ONES, NORMS, ONES, ONES, 0.0)) == 2.0
    # p lies on its target exactly; its sign there is rounding, so its norm is moved to the side on which it counts as 0 or +.
    norms = NORMS * torch.tensor([1, 1.01, 1, 1])
    reweighter = Reweighter(Reweighting(), 4)
    torch.testing.assert_close(reweighter.weights(ONES), ONES)
    reweighter.learn(ONES, norms, ONES)
    expected = torch.tensor([0.99981036, 0.99981036, 1.00018964, 1.00018964], dtype=torch.float64)
    torch.testing.assert_close(reweighter.weights(ONES), expected, atol=2e-8, rtol=0)
    assert float(reweighter.weights(ONES).sum()) == pytest.approx(4, abs=1e-6)


def test_gradient_flows_through_the_target():
    weights = ONES.clone().requires_grad_()
    imbalance(weights, NORMS, ONES, ONES, 0.0).backward()
    # d/dw_i of sum_j |w_j n_j - S/4|: n_i (sign_i - sum_j sign_j / 4), with signs +, 0, -, -
    assert weights.grad.tolist() == [2 * 1.25, 0.25, 0.5 * -0.75, 0.5 * -0.75]


def test_weights_move_towards_equal_shares_of_the_norm_within_their_bounds():
    spec = Reweighting(learning_rate=0.02)
    late = learnt(spec, torch.tensor([1.0, 4.0, 0.5, 1.0], dtype=torch.float64), 400).weights(ONES)
    shares = late * torch.tensor([1.0, 4.0, 0.5, 1.0])
    assert float(shares.max() / shares.min()) < 1.3
    floored = learnt(spec, torch.tensor([50.0, 1.0, 1.0, 1.0], dtype=torch.float64), 300).weights(ONES)
    assert float(floored[0]) == pytest.approx(0.6)
    capped = learnt(Reweighting(learning_rate=0.1, most=1.5), torch.tensor([9.0, 9.0, 9.0, 0.01]), 100).weights(ONES)
    assert float(capped.max()) == pytest.approx(1.5)


def test_slow_tasks_are_favoured_with_alpha():
    def weight_of_the_slow(alpha: float) -> float:
        reweighter = Reweighter(Reweighting(alpha=alpha), 3)
        for step in range(20):
            losses = torch.tensor([1.0, 1.0, math.exp(-0.2 * step)], dtype=torch.float64)
            reweighter.learn(losses, torch.ones(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64))
        return float(reweighter.weights(torch.ones(3))[1])

    assert weight_of_the_slow(1.0) > weight_of_the_slow(0.0) + 1e-3


def test_tasks_join_with_their_static_weight_and_a_missing_one_is_left():
    reweighter = Reweighter(Reweighting(), 3)
    static = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
    reweighter.learn(static, torch.tensor([1.0, 3.0, 0.0], dtype=torch.float64), static)
    first = reweighter.weights(torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64))
    assert first[2] == 2.0
    assert float(first[:2].sum()) == pytest.approx(1.5, abs=1e-6)
    assert float(first[1]) < 0.5
    reweighter.learn(static, torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64), torch.tensor([1.0, 0.0, 0.0]).double())
    assert torch.isfinite(reweighter.weights(static)).all()


def test_resumed_state_goes_on_exactly():
    spec, norms = Reweighting(learning_rate=0.01, alpha=0.5), NORMS
    whole, broken = Reweighter(spec, 4), Reweighter(spec, 4)
    for reweighter in (whole, broken):
        reweighter.learn(ONES * 3, norms, ONES)
        reweighter.learn(ONES * 2, norms, ONES)
    resumed = Reweighter(spec, 4)
    resumed.load(broken.state())
    for reweighter in (whole, resumed):
        reweighter.learn(norms, norms.flip(0), ONES)
    assert torch.equal(whole.weights(ONES), resumed.weights(ONES))
    assert not torch.equal(whole.weights(ONES), broken.weights(ONES))
    fresh = Reweighter(spec, 4)
    fresh.load(Reweighter(spec, 4).state())  # a checkpoint of the beginning
    fresh.learn(ONES, norms, ONES)
