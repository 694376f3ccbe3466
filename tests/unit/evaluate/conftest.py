"""One prediction, with everything that a test does not care about filled in."""

from collections.abc import Callable
from typing import Any

import pytest

from drivedistill.records import Prediction


def make_prediction(**fields: Any) -> Prediction:
    defaults = {
        "id": "s_f_0",
        "dataset": "drivelm",
        "scene": "s",
        "frame": "f",
        "split": "challenge",
        "regime": "regular",
        "task": "perception",
        "question": "What is ahead?",
        "reference": "A car.",
        "prediction": "A car.",
        "model": "student",
        "decode": "greedy",
    }
    return Prediction(**(defaults | fields))


@pytest.fixture(scope="session")
def make() -> Callable[..., Prediction]:
    return make_prediction
