r"""The objective: rows, signal and batch in, named terms out.

.. math:: \text{Loss} = \text{Loss}_{H2G} + \alpha(t)\, \text{KL} + c \cdot \text{router losses}

(CLKD equation 7; router losses are not in the paper, c = 0 is the letter.) Without mining the first term is the plain
cross-entropy, with alpha = 0 it stands alone: supervised training, plain distillation (`Dis.`), and CLKD are one function
with other fields.

A term is a sum; `step.py` divides it by the count of the whole optimizer window. Reduction `tokens`: the sum runs over
supervised rows. Reduction `samples`: it runs over samples, each one the mean over its rows; so a sample counts the same
whether its answer has two words or a hundred. Reduction `sqrt`: in between, a sample counts the root of its number of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, Protocol

import torch
from torch import Tensor

from drivedistill.batch import Batch, Routing, Rows, Signal
from drivedistill.distill.diagnostics import expert_notes, mining_notes, trust_notes
from drivedistill.distill.losses import DIVERGENCES, cross_entropy, forward_kl_top, require_same_question
from drivedistill.distill.miner import Miner, Plan
from drivedistill.distill.mining import Reduction, Selection, counts, everything, sample_hardness
from drivedistill.distill.row_losses import Weights, gold_loss, pays, row_losses
from drivedistill.distill.teacher import IN_PLACE, LOGITS, Needs
from drivedistill.models.mixture import balance_loss, entropy, z_loss

Role = Literal["anchor", "follower", "aux"]


@dataclass
class Term:
    """One named part of the loss: `weight * total / (count of the window)`."""

    name: str
    total: Tensor
    """A scalar: the sum over rows or samples, before any division. Of an `aux` term: a mean, which is not divided but
    averaged over micro-batches and ranks."""
    weight: float
    role: Role
    by_regime: Tensor
    """`float64[2]`: the same sum over regular and over corner samples, without gradient; zeros for `aux`."""
    mixed: float = 1.0
    """Of a lesson: how much the micro-batch's samples listen to it, on average; 0: nobody does, the term is not there. Online
    weights balance what its gradient would be without it."""


@dataclass(frozen=True)
class Moment:
    """Where the run stands."""

    step: int = 0
    """Optimizer steps made."""
    total: int = 1
    """Optimizer steps of the whole run."""
    alpha: float = 0.0
    """The teacher's weight now; 0 when it is not asked."""
    alpha_corner: float | None = None
    """Its weight on corner samples, where these are released at a rate of their own; None: the same."""

    @property
    def heard(self) -> bool:
        """The teacher weighs something, in one regime at least."""
        return max(self.alpha, self.alpha_corner or 0.0) > 0


@dataclass
class Outcome:
    """What an objective makes of a micro-batch."""

    terms: list[Term]
    notes: dict[str, Tensor] = field(default_factory=dict)
    """Diagnostics as sums, to be added up over micro-batches and ranks; see `diagnostics.report`."""
    hardness: Tensor | None = None
    """`float[B]`, of the samples, when somebody mines."""


class Objective(Protocol):
    """Rows, signal and batch in; terms out."""

    miner: Miner | None

    @property
    def needs(self) -> Needs:
        """What the teacher must provide when it is asked; empty when there is none."""

    @property
    def wants(self) -> Needs:
        """What the student must return."""

    @property
    def followers(self) -> tuple[str, ...]:
        """Names of all terms of this role that any rank may ever see."""

    def count(self, batch: Batch) -> float:
        """What this batch adds to the window's divisor; known before any forward."""

    def asks(self, batch: Batch, moment: Moment) -> Needs:
        """What the teacher is asked for now; empty: nothing."""

    def __call__(self, rows: Rows, signal: Signal | None, batch: Batch, moment: Moment, plan: Plan) -> Outcome:
        """The terms of one micro-batch."""


@dataclass
class Answers:
    """Learns to answer: from the gold tokens (all, or the mined ones), from the teacher's words, with balanced routers."""

    reduction: Reduction
    vocabulary: int = 0
    """Number of real tokens. Families pad their heads to different widths (Qwen: 151,936 and 152,064); heads of
    different widths are compared on the real tokens only."""
    taught: bool = False
    """There is a teacher; `moment.alpha` is its weight."""
    loss: str = "forward_kl"
    """A key of `losses.DIVERGENCES`."""
    temperature: float = 1.0
    role: Literal["anchor", "follower"] = "anchor"
    """Of the divergence; as a follower it is the sum over samples of each one's mean, whatever `reduction` says."""
    on: Literal["all", "regular", "trusted", "mined"] = "all"
    """Rows that listen to the teacher."""
    trust: float = 1.0
    """For `on: trusted`, the highest mean cross-entropy of the teacher on a sample's answer, nats per token."""
    supervised_weight: float = 1.0
    miner: Miner | None = None
    router_weights: dict[str, float] = field(default_factory=dict)
    """Weights of `balance`, `z` and `entropy`."""
    sparse: frozenset[str] = frozenset()
    """Layers of experts whose routing may lose its balance; a dense mixture cannot."""
    mixtures: bool = False
    """The student has layers of experts."""
    fused: Literal["auto", "on", "off"] = "off"
    """See `sections.Train.fused_loss`."""

    @property
    def needs(self) -> Needs:
        """The teacher's logits, or what they are made of."""
        return self._answers() if self.taught else frozenset()

    @property
    def wants(self) -> Needs:
        """Logits, or what they are made of, and how experts were chosen."""
        return self._answers() | {"routing"} if self.mixtures else self._answers()

    @property
    def followers(self) -> tuple[str, ...]:
        """The divergence, where it is one."""
        return (self.loss, f"{self.loss}_corner") if self.taught and self.role == "follower" else ()

    def _answers(self) -> Needs:
        return LOGITS if self.fused == "off" else LOGITS | IN_PLACE

    def count(self, batch: Batch) -> float:
        """Supervised tokens, samples, or the sum of the roots of the samples' numbers of tokens."""
        return float(counts(batch.tokens_per_sample(), self.reduction).sum())

    def asks(self, batch: Batch, moment: Moment) -> Needs:
        """Its words, while they weigh something or tell how hard a row is."""
        compared = self.miner is not None and self.miner.spec.measure != "loss"
        return self._answers() if self.taught and (moment.heard or compared) else frozenset()

    def only_mined(self, moment: Moment) -> bool:
        """Nothing but the mined rows is looked at, so that the others need no head."""
        return not moment.heard or self.on == "mined"

    def measure(self, losses: Tensor, signal: Signal | None, batch: Batch) -> Tensor:
        """How hard every row is, `float[N]`, from its detached loss; see `sections.Mining.measure`."""
        measure = self.miner.spec.measure if self.miner else "loss"
        if measure == "loss":
            return losses
        assert signal is not None
        excess = losses - gold_loss(signal, batch.gold)
        return excess if measure == "excess" else torch.where(batch.corner()[batch.sample_of_row], losses, excess)

    def __call__(self, rows: Rows, signal: Signal | None, batch: Batch, moment: Moment, plan: Plan) -> Outcome:
        """Terms `ce` or `h2g`, the divergence under its name, `balance`, `z`, `entropy`.

        Where corner samples have an alpha of their own, their divergence is a term of its own (`..._corner`).
        """
        outcome, taught = Outcome([]), moment.heard and self.taught
        if taught and signal is None:
            raise ValueError("soft-label distillation needs a teacher's signal.")
        listening = self.listening(signal, batch) if taught and signal is not None else None
        settled = self.settled(batch, moment, plan)
        if self.role == "follower" and listening is not None:
            settled = None  # two backward passes, and each multiplies the rows of one loss alone
        weights = None if settled is None else self._row_weights(settled, listening, batch, moment)
        losses, divergences = self.losses(rows, batch, signal if taught else None, weights)
        selection = everything(batch, self.reduction)
        if self.miner is not None:
            measures = self.measure(losses.detach(), signal, batch)
            selection = self.miner.select(measures, batch, self.miner.percentages(moment.step, moment.total), plan)
            outcome.hardness = self.miner.hardness(measures, batch)
            notes = plan.notes
            outcome.notes["mined"] = mining_notes(losses.detach(), selection, batch) if notes is None else notes
        name = "ce" if self.miner is None else "h2g"
        outcome.terms.append(_term(name, losses, selection.weights, self.supervised_weight, batch))
        if listening is not None and divergences is not None:
            lessons = self._heard_terms(selection, listening, batch, moment)
            outcome.terms += [_term(name, divergences, own, alpha, batch, self.role) for name, alpha, own in lessons]
            if self.on == "trusted":
                outcome.notes["trusted"] = trust_notes(listening, batch)
        sparse = {layer: routing for layer, routing in rows.routing.items() if layer in self.sparse}
        outcome.terms += router_terms(sparse, self.router_weights)
        outcome.notes |= {f"experts/{layer}": expert_notes(routing, batch) for layer, routing in rows.routing.items()}
        if self.fused != "off":
            outcome.notes["fused"] = torch.tensor([self.fuses(rows), 1.0], dtype=torch.float64)
        return outcome

    def fuses(self, rows: Rows) -> bool:
        """Whether these rows' losses are computed chunk by chunk."""
        if rows.hidden is None or rows.head is None:
            return False
        return self.fused == "on" or pays(rows.head, len(rows.hidden))

    def losses(
        self, rows: Rows, batch: Batch, signal: Signal | None = None, weights: Weights | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Cross-entropy of every row, `float[N]`, and its divergence from a teacher.

        Args:
            rows: The student's.
            batch: Their gold tokens.
            signal: The teacher's rows, where it is heard.
            weights: What the rows are going to be multiplied with, where that is known; see `row_losses`.
        """
        if self.fuses(rows):
            assert rows.hidden is not None and rows.head is not None
            asked = partial(row_losses, divergence=self.loss, temperature=self.temperature, vocabulary=self.vocabulary)
            return asked(rows.hidden, rows.head, batch.gold, signal, weights=weights)
        ours = rows.dense()
        losses = cross_entropy(ours, batch.gold)
        if signal is None:
            return losses, None
        if signal.top is not None:
            require_same_question(signal.top, self.loss, self.temperature)
            return losses, forward_kl_top(ours, signal.top)
        theirs = signal.dense()
        if ours.shape[1] != theirs.shape[1]:
            ours, theirs = ours[:, : self.vocabulary], theirs[:, : self.vocabulary]
        return losses, DIVERGENCES[self.loss](ours, theirs, self.temperature)

    def settled(self, batch: Batch, moment: Moment, plan: Plan) -> Selection | None:
        """The rows that learn, where that does not depend on their losses."""
        if self.miner is None or self.miner.percentages(moment.step, moment.total) is None:
            return everything(batch, self.reduction)
        return plan.selection

    def listening(self, signal: Signal, batch: Batch) -> Tensor:
        """The samples on which the teacher is heard, `bool[B]`."""
        if self.on == "regular":
            return ~batch.corner()
        if self.on == "trusted":
            losses = gold_loss(signal, batch.gold)
            return sample_hardness(losses, batch, torch.ones_like(losses, dtype=torch.bool)) <= self.trust
        return torch.ones(batch.num_samples, dtype=torch.bool, device=batch.gold.device)

    def _heard_terms(
        self, selection: Selection, listening: Tensor, batch: Batch, moment: Moment
    ) -> list[tuple[str, float, Tensor]]:
        """Name, alpha and the rows' weights of every term in which the teacher is heard."""
        reduction = self.reduction if self.role == "anchor" else "samples"
        weights = selection.weights if self.on == "mined" else everything(batch, reduction).weights
        # The others keep their place in the divisor, so that a row that listens learns as much as if all listened.
        weights = weights * listening[batch.sample_of_row]
        if moment.alpha_corner is None:
            return [(self.loss, moment.alpha, weights)]
        corner = batch.corner()[batch.sample_of_row]
        parts = (self.loss, moment.alpha, ~corner), (f"{self.loss}_corner", moment.alpha_corner, corner)
        return [(name, alpha, weights * rows) for name, alpha, rows in parts if alpha > 0]

    def _row_weights(self, selection: Selection, listening: Tensor | None, batch: Batch, moment: Moment) -> Weights:
        """What backward multiplies the rows' losses with, up to the window's divisor."""
        supervised = selection.weights * self.supervised_weight
        if listening is None:
            return supervised, None
        lessons = self._heard_terms(selection, listening, batch, moment)
        return supervised, torch.stack([alpha * weights for _, alpha, weights in lessons]).sum(dim=0)


ROUTER_LOSSES: dict[str, Callable[[Routing], Tensor]] = {
    "balance": lambda routing: balance_loss(routing.probabilities, routing.selected),
    "z": lambda routing: z_loss(routing.logits),
    "entropy": lambda routing: entropy(routing.probabilities).mean(),
}


def router_terms(routing: dict[str, Routing], weights: dict[str, float]) -> list[Term]:
    """Balance, z and entropy losses, each summed over layers (as LLaVA-MoD does); only those with a weight.

    Products of means over the real tokens of a micro-batch, so they depend on how a window is cut.
    """
    zeros = torch.zeros(2, dtype=torch.float64)
    return [
        Term(name, torch.stack([ROUTER_LOSSES[name](layer) for layer in routing.values()]).sum(), weight, "aux", zeros)
        for name, weight in weights.items()
        if weight and routing
    ]


def _term(name: str, values: Tensor, row_weights: Tensor, weight: float, batch: Batch, role: Role = "anchor") -> Term:
    weighted = values * row_weights
    per_sample = weighted.detach().new_zeros(batch.num_samples).index_add(0, batch.sample_of_row, weighted.detach())
    return Term(name, weighted.sum(), weight, role, regime_sums(per_sample, batch))


def regime_sums(per_sample: Tensor, batch: Batch) -> Tensor:
    """`float[B]` to `float64[2]`: the sum over regular and the sum over corner samples."""
    corner = batch.corner().to(per_sample.device)
    return torch.stack([per_sample[~corner].sum(), per_sample[corner].sum()]).double()
