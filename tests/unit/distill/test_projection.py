"""Asymmetric gradient projection: the published examples, its properties, and the procedure written out on vectors."""

from __future__ import annotations

import itertools
import random
import sys

import pytest
import torch
from torch import Tensor

from drivedistill.distill.projection import CAGRAD_RADIUS, agp, coefficients, require_solver
from drivedistill.drivekd_sections import Projection
from drivedistill.problems import InputError

P, R, PL = 1, 2, 3
ORDERED = [  # three followers, some of which conflict with two others: the order matters
    ([P, R, PL], (5.441558, -1.098701, -1.181818)),
    ([P, PL, R], (5.363636, -1.072727, -0.818182)),
    ([R, P, PL], (5.441558, -0.412987, -1.410390)),
    ([R, PL, P], (5.332468, -0.158442, -0.974026)),
    ([PL, P, R], (5.254545, -0.818182, -0.381818)),
    ([PL, R, P], (5.254545, -0.132468, -0.610390)),
]


def rows(*vectors: tuple[float, ...]) -> Tensor:
    return torch.tensor(vectors, dtype=torch.float64)


def total(vectors: Tensor, order: list[int], **options) -> Tensor:
    return agp(vectors @ vectors.T, order, **options) @ vectors


def explicit(vectors: Tensor, order: list[int], stages=(1, 2), supervised: str = "each") -> Tensor:
    """The released procedure on the gradients themselves."""

    def proj(follower: Tensor, anchor: Tensor) -> Tensor:
        inner, square = follower @ anchor, anchor @ anchor
        return follower - inner / square * anchor if inner < 0 and square > 0 else follower

    sup, present = vectors[0], [c for c in order if vectors[c].any()]
    if not present:
        return sup
    anchor = sup if supervised == "each" else sup / len(present)
    merged = {c: anchor + (proj(vectors[c], sup) if 1 in stages else vectors[c]) for c in present}
    result = torch.zeros_like(sup)
    for ci in present:
        running = merged[ci]
        for cj in present if 2 in stages else []:
            if cj != ci:
                running = proj(running, merged[cj])
        result = result + running
    return result


def trial(draw: random.Random) -> Tensor:
    """Gradients of a random kind: scales, zeros, parallel and opposite vectors."""
    generator = torch.Generator().manual_seed(draw.getrandbits(32))
    vectors = torch.randn(1 + draw.randint(1, 3), draw.randint(2, 40), generator=generator, dtype=torch.float64)
    for row in range(len(vectors)):
        kind = draw.choice(["plain", "plain", "scaled", "zero", "parallel", "opposite"])
        if kind == "scaled":
            vectors[row] *= 10.0 ** draw.uniform(-4, 4)
        elif kind == "zero":
            vectors[row] = 0
        elif kind in ("parallel", "opposite") and row:
            vectors[row] = vectors[draw.randrange(row)] * draw.uniform(0.1, 3) * (1 if kind == "parallel" else -1)
    return vectors


def test_published_example():
    vectors = rows((1, 0), (-1, 1), (-1, -2), (1, 1))
    for order in itertools.permutations([P, R, PL]):
        torch.testing.assert_close(total(vectors, list(order)), rows((4.7, 0.1))[0])
    merged = total(vectors, [P, R, PL], stages=(1,))
    torch.testing.assert_close(merged, rows((1, 1), (1, -2), (2, 1)).sum(dim=0))
    torch.testing.assert_close(vectors.sum(dim=0), rows((0, 0))[0])


@pytest.mark.parametrize(("order", "expected"), ORDERED)
def test_published_example_that_depends_on_the_order(order, expected):
    vectors = rows((1, 0, 0), (0, 3, 0), (0, -3, 2), (-2, -1, -3))
    torch.testing.assert_close(total(vectors, order), rows(expected)[0], atol=5e-7, rtol=0)


def test_one_capability_is_stage_one_and_no_conflict_is_a_sum():
    torch.testing.assert_close(total(rows((1, 0), (-1, 1)), [1]), rows((1, 1))[0])
    vectors = rows((1, 0), (0, 2), (1, 1), (3, 0.5))
    torch.testing.assert_close(total(vectors, [3, 1, 2]), 3 * vectors[0] + vectors[1:].sum(dim=0))
    once = total(vectors, [3, 1, 2], supervised="once")
    torch.testing.assert_close(once, vectors.sum(dim=0))


def test_absent_followers_and_a_zero_anchor():
    vectors = rows((1, 2), (0, 0), (-1, 0), (0, 0))
    assert agp(vectors @ vectors.T, [3, 2, 1])[[1, 3]].tolist() == [0, 0]
    torch.testing.assert_close(total(vectors, [3, 2, 1]), explicit(vectors[[0, 2]], [1]))
    assert agp(torch.diag(rows((4, 0, 0))[0]), [2, 1]).tolist() == [1, 0, 0]
    assert agp(rows((4,)), []).tolist() == [1]
    alone = rows((0, 0), (-1, 1), (-1, -2))
    assert total(alone, [1, 2]).isfinite().all()
    torch.testing.assert_close(total(alone, [1, 2], stages=(1,)), alone.sum(dim=0))


def test_merged_vectors_never_oppose_the_anchor():
    draw = random.Random(1)
    for _ in range(300):
        vectors = trial(draw)
        gram = vectors @ vectors.T
        for row in range(1, len(vectors)):
            if gram[row, row] > 0:
                merged = agp(gram, [row]) @ vectors
                assert merged @ vectors[0] >= gram[0, 0] - 1e-12 * gram[0, 0].sqrt() * merged.norm()


def test_gram_space_equals_the_procedure_on_vectors():
    draw, worst = random.Random(0), 0.0
    for _ in range(2_000):
        vectors = trial(draw)
        order = draw.sample(range(1, len(vectors)), len(vectors) - 1)
        options = {"stages": draw.choice([(1, 2), (1, 2), (1,), (2,)]), "supervised": draw.choice(["each", "once"])}
        expected = explicit(vectors, order, **options)
        scale = max(expected.norm(), vectors.norm())
        worst = max(worst, float((total(vectors, order, **options) - expected).norm() / scale) if scale else 0.0)
    assert worst <= 1e-12


def test_supervised_once_is_longer_followers_divided():
    draw = random.Random(2)
    for _ in range(100):
        vectors = torch.randn(4, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(draw.getrandbits(32)))
        longer = torch.cat([vectors[:1], 3 * vectors[1:]])
        once = total(vectors, [2, 3, 1], supervised="once")
        torch.testing.assert_close(once, total(longer, [2, 3, 1]) / 3)


@pytest.mark.parametrize("kind", ["agp", "stage1", "stage2", "pcgrad", "upgrad", "sum"])
def test_scale_of_all_gradients_together_changes_no_coefficient(kind):
    vectors = torch.randn(4, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    for factor in (1e-12, 1e6):
        scaled = vectors * factor
        found = coefficients(scaled @ scaled.T, Projection(kind=kind), random.Random("x"))
        expected = coefficients(vectors @ vectors.T, Projection(kind=kind), random.Random("x"))
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_rivals_equal_torchjd_on_the_jacobian():
    from torchjd.aggregation import CAGrad, PCGrad, UPGrad

    for seed in range(5):
        jacobian = torch.randn(4, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        jacobian = jacobian / jacobian.norm()
        gram = jacobian @ jacobian.T
        before = torch.get_rng_state()
        found = {k: coefficients(gram, Projection(kind=k), random.Random(seed)) for k in ("pcgrad", "cagrad", "upgrad")}
        assert torch.equal(torch.get_rng_state(), before)  # dropout must not notice
        torch.manual_seed(random.Random(seed).getrandbits(48))
        torch.testing.assert_close(found["pcgrad"] @ jacobian, PCGrad()(jacobian))
        torch.set_rng_state(before)
        torch.testing.assert_close(
            found["cagrad"] @ jacobian / 4, CAGrad(CAGRAD_RADIUS)(jacobian), rtol=1e-5, atol=1e-8
        )
        torch.testing.assert_close(found["upgrad"] @ jacobian / 4, UPGrad()(jacobian), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", ["pcgrad", "cagrad", "upgrad"])
def test_rivals_leave_absent_tasks_alone(kind):
    vectors = rows((1, 0, 0), (0, 0, 0), (-1, 1, 0), (0, 0, 0))
    found = coefficients(vectors @ vectors.T, Projection(kind=kind), random.Random(0))
    fewer = coefficients(vectors[[0, 2]] @ vectors[[0, 2]].T, Projection(kind=kind), random.Random(0))
    torch.testing.assert_close(found[[0, 2]], fewer)
    assert found[[1, 3]].tolist() == [0, 0]
    alone = coefficients(torch.diag(rows((4, 0))[0]), Projection(kind=kind), random.Random(0))
    assert alone.tolist() == [1, 0]


def test_what_is_not_finite_is_not_taken_for_absent():
    gram = torch.eye(3, dtype=torch.float64)
    gram[1] = gram[:, 1] = torch.nan
    for kind in ("agp", "sum", "upgrad"):
        assert coefficients(gram, Projection(kind=kind), random.Random(0)).isnan().all()


def test_missing_package_is_named(monkeypatch):
    require_solver(Projection(kind="pcgrad"))
    monkeypatch.setitem(sys.modules, "torchjd.aggregation", None)
    require_solver(Projection(kind="agp"))
    with pytest.raises(InputError, match="rivals"):
        require_solver(Projection(kind="upgrad"))
