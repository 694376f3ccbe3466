"""Teachers that are functions and batches without inputs: nothing here is a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from drivedistill.batch import Batch, Signal, TopK
from drivedistill.distill.objective import Answers, Term, regime_sums
from drivedistill.distill.teacher import LOGITS, Identity
from drivedistill.drivekd_sections import DriveKD
from drivedistill.models.student import bare


class FunctionTeacher:
    """Says the same thing for the same gold token: logits drawn from a generator seeded with it."""

    provides = frozenset({"logits"})
    identity: Identity | None = None

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary = vocabulary
        self.closed = False

    def signal(self, batch: Batch, needs: frozenset[str] = LOGITS) -> Signal:
        rows = [
            torch.randn(self.vocabulary, generator=torch.Generator().manual_seed(int(token))) for token in batch.gold
        ]
        return Signal(torch.stack(rows))

    def close(self) -> None:
        self.closed = True


class SilentTeacher:
    """Provides nothing."""

    provides: frozenset[str] = frozenset()
    identity = None

    def signal(self, batch: Batch, needs: frozenset[str] = LOGITS) -> Signal:
        raise AssertionError("nobody may ask")

    def close(self) -> None:
        raise AssertionError("nobody may close")


def likeliest(logits: torch.Tensor, k: int, temperature: float, gold: torch.Tensor) -> TopK:
    """What is kept of dense rows, by the definition."""
    log_p = (logits / temperature).log_softmax(-1)
    chosen = log_p.topk(k)
    tail = log_p.scatter(1, chosen.indices, -torch.inf).logsumexp(-1)
    gold_loss = -logits.log_softmax(-1).gather(1, gold[:, None])[:, 0]
    return TopK(chosen.indices, chosen.values, tail, gold_loss, temperature)


def bare_batch(lengths, regimes=None, kinds=None, templates=None):
    """A batch of answers with so many tokens; nothing else of it matters here."""
    number, tokens = len(lengths), sum(lengths)
    return Batch(
        ids=[f"s{i}" for i in range(number)],
        regimes=regimes or ["regular"] * number,
        capabilities=["perception"] * number,
        templates=templates or ["t"] * number,
        gold=torch.zeros(tokens, dtype=torch.long),
        sample_of_row=torch.repeat_interleave(torch.arange(number), torch.tensor(lengths)),
        row_kind=torch.tensor(kinds if kinds is not None else [0] * tokens, dtype=torch.int8),
        inputs={},
    )


CAPABILITIES = ("perception", "reasoning", "planning")


@dataclass
class Quarrel(Answers):
    """Answers, and three lessons that quarrel; one of them looks at a layer deep inside the model."""

    model: Any = None
    mixing: float = 0.1
    """How much a sample listens to another capability's lesson; its own has 1 minus twice that."""
    only: frozenset[str] = frozenset({"anchor", *CAPABILITIES})
    """Other tasks weigh nothing."""
    sample: str | None = None
    """Other samples' micro-batches weigh nothing."""
    gains: dict[str, float] = field(default_factory=lambda: dict.fromkeys(CAPABILITIES, 1.0))
    tapped: list[torch.Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        names = ("SelfAttention.k", "k_proj")
        words = [(name, part) for name, part in bare(self.model).named_modules() if "language_model" in name]
        blocks = [part for name, part in words if name.endswith(names)]
        blocks[1].register_forward_hook(lambda module, inputs, output: self.tapped.append(output))

    @property
    def followers(self):
        return (*CAPABILITIES, *super().followers)

    def __call__(self, rows, signal, batch, moment, plan):
        outcome = super().__call__(rows, signal, batch, moment, plan)
        inner, logits = self.tapped[-1], rows.dense()
        self.tapped.clear()
        number = batch.num_samples
        per_row = {"reasoning": -logits.log_softmax(-1)[:, 7], "planning": logits[:, :40].square().mean(dim=1)}
        lengths = batch.tokens_per_sample().clamp_min(1)
        losses = {
            name: logits.new_zeros(number).index_add(0, batch.sample_of_row, values) / lengths
            for name, values in per_row.items()
        }
        losses["perception"] = inner[:, :3].square().mean(dim=(1, 2))  # never padding
        for term in outcome.terms:
            term.weight *= term.role == "follower" or "anchor" in self.only
        for name in CAPABILITIES:
            own = 1 - 2 * self.mixing
            mix = torch.tensor([own if task_of(batch, b) == name else self.mixing for b in range(number)])
            if not mix.any():
                continue
            weighted, weight = mix * losses[name], self.gains[name] * (name in self.only)
            mixed = float(mix.mean())
            outcome.terms.append(
                Term(name, weighted.sum(), weight, "follower", regime_sums(weighted.detach(), batch), mixed)
            )
        for term in outcome.terms:
            term.weight *= self.sample is None or self.sample in batch.ids
        return outcome


def untaught(recipe, **section):
    """The recipe with a section `distill.drivekd`, although nobody teaches."""
    return recipe.model_copy(update={"distill": recipe.distill.model_copy(update={"drivekd": DriveKD(**section)})})


def task_of(batch, sample):
    """A capability by the sample's number, so that every small window has all three."""
    return CAPABILITIES[int(batch.ids[sample].removeprefix("s")) % 3]
