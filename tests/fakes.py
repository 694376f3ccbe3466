"""Teachers that are functions and batches without inputs: nothing here is a model."""

from __future__ import annotations

import torch

from drivedistill.batch import Batch, Signal, TopK
from drivedistill.distill.teacher import LOGITS, Identity


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
