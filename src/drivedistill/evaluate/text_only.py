"""The text-only prior as a model among models: it answers, and is scored and compared like any other."""

from __future__ import annotations

from collections.abc import Sequence

from drivedistill.data.prior import TextReader
from drivedistill.evaluate.endpoint import Answer, Answerer
from drivedistill.records import Sample


def prior_answerer(fit: Sequence[Sample]) -> Answerer:
    """Answers by a learner that sees no picture; see `data/prior.py`.

    Args:
        fit: What it learns from: the train split.
    """
    reader = TextReader(fit)
    return lambda samples: [Answer(reader.answer(sample)) for sample in samples]
