"""How often the heads are right on frames that the tower did not learn from, beside always giving the commonest answer."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from drivedistill.pretrain.lessons import METRES, Head, Lessons
from drivedistill.pretrain.readout import Readout, Shown


@torch.no_grad()
def examine(readout: Readout, heads: Sequence[Head], lessons: Lessons, shown: Iterable[Shown]) -> dict[str, Any]:
    """Accuracies of heads and kinds.

    Args:
        readout: A trained tower and its heads; left in eval mode.
        heads: What is read off it.
        lessons: What should be said about the split's frames.
        shown: All frames of the split, in portions, with all their views.

    Returns:
        `kinds` and `heads` (`labels`, `accuracy`, `commonest`: the share of training's commonest answer) and
        `metres_off`, the mean errors of the places ahead and to the left.
    """
    readout.eval()
    right: Counter[int] = Counter()
    common: Counter[int] = Counter()
    labels: Counter[int] = Counter()
    errors = []
    for portion in shown:
        answered, measured, wanted = readout(portion, lessons)
        errors.append((measured - wanted)[~wanted.isnan().any(1)])
        for said in answered:
            labels.update(said.head.tolist())
            right.update(said.head[said.logits.argmax(1) == said.target].tolist() if len(said.head) else [])
            common.update(said.head[said.target == readout.start[said.head]].tolist())
    kinds: defaultdict[str, list[int]] = defaultdict(list)
    for index, head in enumerate(heads):
        kinds[head.kind].append(index)

    def shares(members: Sequence[int]) -> dict[str, Any]:
        count = sum(labels[index] for index in members)
        rates = {"accuracy": right, "commonest": common}
        return {"labels": count} | {
            name: round(sum(hits[index] for index in members) / count, 4) if count else None
            for name, hits in rates.items()
        }

    off = torch.cat(errors).abs().mean(0)[1:] * METRES if errors else torch.full((2,), torch.nan)
    return {
        "kinds": {kind: {"heads": len(members), **shares(members)} for kind, members in kinds.items()},
        "heads": [
            {"kind": head.kind, "wording": head.wording, "answers": len(head.answers), **shares([index])}
            for index, head in enumerate(heads)
        ],
        "metres_off": [None if value.isnan() else round(float(value), 3) for value in off],
    }
