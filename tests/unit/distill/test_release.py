"""The teacher's weight: equation 6, and the rate that reaches a wished end."""

from __future__ import annotations

import pytest

from drivedistill.distill.release import alpha_at, gamma_for


def test_alpha_falls_by_one_factor_per_step():
    assert [alpha_at(t, 1.0, 0.5) for t in range(3)] == [1.0, 0.5, 0.25]


@pytest.mark.parametrize(("start", "end", "steps"), [(1.0, 0.1, 80_000), (5.0, 0.01, 7), (2.0, 2.0, 3)])
def test_gamma_reaches_the_end_after_the_last_step(start, end, steps):
    assert alpha_at(steps, start, gamma_for(start, end, steps)) == pytest.approx(end, rel=1e-9)


def test_the_papers_scale():
    assert gamma_for(1.0, 0.1, 80_000) == pytest.approx(0.99997122, abs=1e-8)


def test_a_constant_weight_is_gamma_one():
    assert alpha_at(10_000, 0.7, 1.0) == 0.7


def test_below_the_threshold_nobody_is_asked():
    assert alpha_at(1, 1.0, 0.5, below=0.5) == 0.5
    assert alpha_at(2, 1.0, 0.5, below=0.5) == 0.0
