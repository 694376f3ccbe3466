"""Routers, and what is measured of them."""

import itertools
import math

import pytest
import torch

from drivedistill.models.mixture import Decision, Mixture, Router, balance_loss, entropy, expert_distance, z_loss

LOGITS = torch.randn(200, 6, generator=torch.Generator().manual_seed(0)) * 2


def decide(logits: torch.Tensor = LOGITS, kind: str = "top_k", **options) -> Decision:
    return Router(8, logits.shape[-1], kind, **options).decide(logits)


def test_a_probability_that_underflows_does_no_harm():
    logits = torch.tensor([[0.0, -200.0]], requires_grad=True)
    weights = Router(4, 2, "top_k", k=1).decide(logits).weights
    assert weights.tolist() == [[1.0, 0.0]]
    weights.sum().backward()
    assert logits.grad.isfinite().all()


def test_dense_weights_are_the_probabilities():
    decision = decide(kind="dense")
    assert decision.selected.all()
    assert torch.equal(decision.weights, LOGITS.softmax(-1))


@pytest.mark.parametrize("k", [1, 2, 5, 6])
def test_top_k_takes_the_k_most_probable_and_its_weights_sum_to_one(k):
    decision = decide(k=k)
    assert (decision.selected.sum(-1) == k).all()
    excluded = decision.probabilities.masked_fill(decision.selected, 0).amax(-1)
    included = decision.probabilities.masked_fill(~decision.selected, 1).amin(-1)
    assert (included >= excluded).all()
    assert (decision.weights[~decision.selected] == 0).all()
    torch.testing.assert_close(decision.weights.sum(-1), torch.ones(200))


def test_one_expert_weighs_one_and_still_teaches_the_router():
    logits = LOGITS.clone().requires_grad_()
    decision = decide(logits, k=1)
    assert (decision.weights[decision.selected] == 1).all()
    decision.weights.sum().backward()
    assert (logits.grad.abs().sum(-1) > 0).all()


def test_top_p_is_the_smallest_set_that_exceeds_p():
    for p in (0.2, 0.4, 0.7, 0.95):
        decision = decide(kind="top_p", p=p)
        taken = decision.probabilities * decision.selected
        assert (taken.sum(-1) > p).all()
        smallest = taken.masked_fill(~decision.selected, 2).amin(-1)
        assert (taken.sum(-1) - smallest <= p).all(), "without its least probable member the set does not exceed p"


def test_top_p_takes_one_at_zero_all_at_one_and_more_in_between():
    sets = [decide(kind="top_p", p=p).selected for p in torch.linspace(0, 1, 21).tolist()]
    assert (sets[0].sum(-1) == 1).all()
    assert sets[-1].all()
    assert all((small <= large).all() for small, large in itertools.pairwise(sets)), "monotone in p"
    assert len({int(chosen.sum()) for chosen in sets}) > 10, "p changes something"


def test_top_p_does_not_renormalise():
    decision = decide(kind="top_p", p=0.4)
    assert torch.equal(decision.weights, decision.probabilities * decision.selected)


def test_unit_weights_count_every_selected_part_fully_and_teach_the_router():
    logits = LOGITS.clone().requires_grad_()
    decision = decide(logits, k=3, unit=True)
    assert torch.equal(decision.weights.detach(), decision.selected.float())
    decision.weights[:, 0].sum().backward()
    assert logits.grad.abs().sum() > 0


def test_sample_routing_shares_the_weights_of_a_sample():
    router = Router(8, 4, "sample")
    tokens = torch.randn(3, 5, 8)
    weights = router(tokens).weights
    assert weights.shape == (3, 5, 4)
    assert (weights == weights[:, :1]).all()
    torch.testing.assert_close(weights[:, 0], router.linear(tokens).mean(1).softmax(-1))


def test_absent_tokens_do_not_sway_a_sample():
    router = Router(8, 4, "sample")
    tokens = torch.randn(1, 5, 8)
    mask = torch.tensor([[True, True, True, False, False]])
    torch.testing.assert_close(router(tokens, mask).weights[:, :3], router(tokens[:, :3]).weights)


# --- measures ---------------------------------------------------------------------------------------------------------


def one_hot(experts: torch.Tensor, count: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(experts, count).float()


@pytest.mark.parametrize("count", [2, 4, 7])
def test_balance_is_one_when_uniform_and_the_number_of_experts_when_collapsed(count):
    tokens = torch.arange(count * 5) % count
    uniform = torch.full((count * 5, count), 1 / count)
    assert balance_loss(uniform, one_hot(tokens, count).bool()).item() == pytest.approx(1)
    collapsed = one_hot(torch.zeros(count * 5, dtype=torch.long), count)
    assert balance_loss(collapsed, collapsed.bool()).item() == pytest.approx(count)


def test_balance_does_not_depend_on_how_many_experts_a_token_selects():
    uniform = torch.full((8, 4), 0.25)
    two = one_hot(torch.arange(8) % 4, 4) + one_hot((torch.arange(8) + 1) % 4, 4)
    assert balance_loss(uniform, two.bool()).item() == pytest.approx(1)
    assert balance_loss(uniform, torch.ones(8, 4, dtype=torch.bool)).item() == pytest.approx(1)


def test_balance_moves_probability_away_from_the_crowded_expert():
    logits = torch.zeros(8, 3, requires_grad=True)
    selected = one_hot(torch.tensor([0, 0, 0, 0, 0, 0, 1, 2]), 3).bool()
    balance_loss(logits.softmax(-1), selected).backward()
    assert (logits.grad[:, 0] > 0).all()
    assert (logits.grad[:, 1:] < 0).all()


def test_z_loss_is_the_squared_logarithm_of_the_partition():
    assert z_loss(torch.zeros(3, 4)).item() == pytest.approx(math.log(4) ** 2)
    assert z_loss(torch.full((3, 4), 10.0)) > z_loss(torch.full((3, 4), 1.0))


def test_entropy_tells_how_many_experts_are_in_use():
    probabilities = torch.tensor([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25] * 4])
    torch.testing.assert_close(entropy(probabilities).exp(), torch.tensor([1.0, 2.0, 4.0]))


class Vectors(Mixture):
    def __init__(self, vectors: torch.Tensor) -> None:
        super().__init__()
        self.router, self.vectors = Router(2, len(vectors)), vectors

    def expert_vectors(self) -> torch.Tensor:
        return self.vectors


def test_copies_have_no_distance_and_independent_experts_root_two():
    assert expert_distance(Vectors(torch.ones(4, 50))) == 0
    assert expert_distance(Vectors(torch.ones(1, 50))) == 0
    drawn = torch.randn(4, 20_000, generator=torch.Generator().manual_seed(0))
    assert expert_distance(Vectors(drawn)) == pytest.approx(math.sqrt(2), rel=0.02)
    assert expert_distance(Vectors(3 * drawn)) == pytest.approx(expert_distance(Vectors(drawn)))


@pytest.mark.parametrize(("kind", "share"), [("top_k", 0.5), ("top_p", 1.0), ("dense", 1.0)])
def test_share_of_the_experts_that_a_token_uses(kind, share):
    mixture = Vectors(torch.ones(4, 3))
    mixture.router = Router(2, 4, kind, k=2)
    assert mixture.active_share == share
    assert mixture.num_experts == 4


def test_decisions_are_kept_only_when_asked_for():
    mixture, decision = Vectors(torch.ones(4, 3)), decide()
    assert mixture.remember(decision) is decision
    assert mixture.last is None
    mixture.recording = True
    mixture.remember(decision)
    assert mixture.last is decision
