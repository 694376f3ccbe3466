"""The objective of equation 7: which rows listen to whom, and what the log may say of it."""

from __future__ import annotations

import pytest
import torch

from drivedistill.batch import ROW_KINDS, Routing, Rows, Signal
from drivedistill.distill.diagnostics import effective_experts, report
from drivedistill.distill.losses import cross_entropy, forward_kl
from drivedistill.distill.miner import Miner, Plan
from drivedistill.distill.objective import Answers, Moment, router_terms
from drivedistill.sections import Mining
from fakes import bare_batch as batch

NOW = Moment(step=5, total=10, alpha=0.5)


@pytest.fixture
def pair():
    """Two regular samples and a corner case; what student and teacher say about their nine tokens."""
    generator = torch.Generator().manual_seed(0)
    b = batch([3, 2, 4], regimes=["regular", "regular", "corner"], kinds=[0, 2, 5, 0, 5, 0, 0, 1, 5])
    return b, Rows(torch.randn(9, 11, generator=generator)), Signal(torch.randn(9, 11, generator=generator))


def terms(objective, pair, moment=NOW):
    b, rows, signal = pair
    return {term.name: term for term in objective(rows, signal, b, moment, Plan()).terms}


def miner(**fields):
    return Miner(Mining(**fields), "tokens", [])


@pytest.mark.parametrize("on", ["all", "regular", "mined"])
def test_rows_that_listen(pair, on):
    b, rows, signal = pair
    divergence = forward_kl(rows.logits, signal.logits)
    objective = Answers("tokens", 11, taught=True, on=on, miner=miner(samples=34, tokens=50))
    got = terms(objective, pair)["forward_kl"]
    losses = cross_entropy(rows.logits, b.gold)
    chosen = objective.miner.select(losses, b, (34, 50), Plan())
    weights = {"all": torch.ones(9), "regular": (b.sample_of_row != 2).float(), "mined": chosen.weights}[on]
    torch.testing.assert_close(got.total, (weights * divergence).sum())
    assert got.weight == 0.5
    if on == "regular":
        assert float(got.by_regime[1]) == 0.0


def test_a_teacher_is_trusted_with_the_samples_whose_answers_it_expects(pair):
    b, rows, signal = pair
    theirs = signal.logits.clone()
    theirs[3:5, 0] += 9.0  # the gold token of every row is 0: the second sample is understood
    theirs[5, 0] += 9.0  # one word of the corner case is, its mean is not
    objective = Answers("tokens", 11, taught=True, on="trusted", trust=1.0)
    outcome = objective(rows, Signal(theirs), b, NOW, Plan())
    divergence = forward_kl(rows.logits, theirs)
    torch.testing.assert_close(outcome.terms[1].total, divergence[3:5].sum())  # divided by all nine, as for `regular`
    assert report(outcome.notes) == {"trusted": {"regular": 0.5, "corner": 0.0}}


def test_the_mean_over_the_answer_decides_up_to_the_threshold(pair):
    b, _, signal = pair
    means = torch.stack([part.mean() for part in cross_entropy(signal.logits, b.gold).split([3, 2, 4])])
    for threshold in means.tolist():
        objective = Answers("tokens", 11, taught=True, on="trusted", trust=threshold)
        assert torch.equal(objective.listening(signal, b), means <= threshold)


def gradient(objective, pair, moment):
    b, rows, signal = pair
    logits = rows.logits.clone().requires_grad_(True)
    found = terms(objective, (b, Rows(logits), signal), moment)
    loss = sum(term.weight * term.total for term in found.values())
    loss.backward()
    return loss.detach(), logits.grad


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("reduction", ["tokens", "samples", "sqrt"])
def test_boundless_trust_is_all_and_none_is_no_teacher(pair, reduction):
    def trusting(trust):
        return gradient(Answers(reduction, 11, taught=True, on="trusted", trust=trust), pair, NOW)

    everyone = gradient(Answers(reduction, 11, taught=True), pair, NOW)
    nobody = gradient(Answers(reduction, 11), pair, NOW)
    assert same(trusting(float("inf")), everyone) and same(trusting(0.0), nobody)
    assert not same(everyone, nobody)


def test_corner_samples_have_an_alpha_of_their_own(pair):
    b, rows, signal = pair
    objective = Answers("tokens", 11, taught=True)
    divergence, corner = forward_kl(rows.logits, signal.logits), b.sample_of_row == 2
    found = terms(objective, pair, Moment(alpha=0.5, alpha_corner=0.2))
    weighed = {name: (term.weight, float(term.total)) for name, term in found.items() if name != "ce"}
    assert weighed["forward_kl"] == (0.5, pytest.approx(float(divergence[~corner].sum()), rel=1e-5))
    assert weighed["forward_kl_corner"] == (0.2, pytest.approx(float(divergence[corner].sum()), rel=1e-5))
    one, other = (gradient(objective, pair, Moment(alpha=0.5, alpha_corner=end)) for end in (None, 0.5))
    torch.testing.assert_close(one, other)


def test_the_teacher_is_asked_while_one_regime_listens(pair):
    objective = Answers("tokens", 11, taught=True, miner=miner(pool="window"))
    moments = [Moment(alpha=0.0, alpha_corner=0.2), Moment(alpha=0.2, alpha_corner=0.0), Moment(alpha_corner=0.0)]
    assert [bool(objective.asks(pair[0], moment)) for moment in moments] == [True, True, False]
    assert [objective.only_mined(moment) for moment in moments] == [False, False, True]
    assert [set(terms(objective, pair, moment)) for moment in moments] == [
        {"h2g", "forward_kl_corner"},
        {"h2g", "forward_kl"},
        {"h2g"},
    ]


def test_a_teacher_of_weight_zero_leaves_no_term(pair):
    assert terms(Answers("tokens", 11, taught=True), pair, Moment(alpha=0.0)).keys() == {"ce"}


def test_a_student_that_is_the_teacher_has_no_divergence(pair):
    b, rows, _ = pair
    found = terms(Answers("tokens", 11, taught=True), (b, rows, Signal(rows.logits.clone())))
    assert float(found["forward_kl"].total) == pytest.approx(0, abs=1e-5)


def test_the_teacher_is_asked_while_it_is_heard_or_compared(pair):
    b = pair[0]
    heard, silent = Moment(alpha=0.1), Moment(alpha=0.0)
    plain = Answers("tokens", 11, taught=True, miner=miner())
    compared = Answers("tokens", 11, taught=True, miner=miner(measure="excess"))
    assert [bool(o.asks(b, m)) for o in (plain, compared) for m in (heard, silent)] == [True, False, True, True]
    assert not Answers("tokens", 11).asks(b, heard)


def test_mined_rows_share_mean_and_kinds_in_the_log(pair):
    b, rows, signal = pair
    objective = Answers("tokens", 11, miner=miner(samples=34, tokens=50, exclude=["coordinate", "end"]))
    outcome = objective(rows, signal, b, NOW, Plan())
    said = report(outcome.notes)["mined"]
    losses = cross_entropy(rows.logits, b.gold)
    chosen = objective.miner.select(losses, b, (34, 50), Plan()).rows
    assert said["tokens"] == int(chosen.sum()) and said["of_tokens"] == 9
    assert said["of_samples"] == 3 and said["corner_share"][1] == pytest.approx(1 / 3, abs=1e-4)
    assert said["kinds"]["coordinate"] == [0.0, pytest.approx(1 / 9, abs=1e-4)]
    assert said["mean_loss"] == [
        pytest.approx(float(losses[chosen].mean()), abs=1e-4),
        pytest.approx(float(losses.mean()), abs=1e-4),
    ]
    assert sum(said["loss_bins"][0]) == pytest.approx(1, abs=1e-3)
    assert set(said["kinds"]) == set(ROW_KINDS)


def test_kept_kinds_come_first_and_cost_others_their_place(pair):
    b, rows, _ = pair
    losses = cross_entropy(rows.logits, b.gold)
    plain, kept = (
        miner(samples=100, tokens=50, keep=keep).select(losses, b, (100, 50), Plan()) for keep in ([], ["end"])
    )
    end = b.row_kind == ROW_KINDS.index("end")
    assert kept.rows[end].all() and not plain.rows[end].all()
    assert kept.rows.sum() == plain.rows.sum()


@pytest.mark.parametrize("measure", ["loss", "excess", "excess_regular"])
def test_measures_of_hardness(pair, measure):
    b, rows, signal = pair
    ours, theirs = cross_entropy(rows.logits, b.gold), cross_entropy(signal.logits, b.gold)
    objective = Answers("tokens", 11, taught=True, miner=miner(measure=measure))
    corner = b.sample_of_row == 2
    expected = {"loss": ours, "excess": ours - theirs, "excess_regular": torch.where(corner, ours, ours - theirs)}
    torch.testing.assert_close(objective.measure(ours, signal, b), expected[measure])


def test_router_losses_are_summed_over_layers_and_absent_at_weight_zero():
    even = torch.full((6, 3), 1 / 3)
    routing = Routing(even.log(), even, torch.eye(3, dtype=torch.bool).repeat(2, 1), torch.zeros(6, dtype=torch.long))
    found = router_terms({"a": routing, "b": routing}, {"balance": 0.01, "z": 0.0, "entropy": 1e-4})
    assert {t.name: pytest.approx(float(t.total)) for t in found} == {"balance": 2.0, "entropy": 2 * 1.0986123}
    assert all(t.role == "aux" for t in found)


def test_effective_numbers_of_experts():
    p = torch.tensor([[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0], [0.6, 0.35, 0.05, 0.0]])
    exp_entropy, above, half, most = effective_experts(p).T.tolist()
    assert exp_entropy[:2] == pytest.approx([4, 1])
    assert above == [0, 1, 2]
    assert half == [2, 1, 1]
    assert most == [4, 1, 2]
