"""One prediction with everything that a test does not care about filled in, runs of them, and one METEOR for all tests."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest

from drivedistill.evaluate.captions import measures
from drivedistill.evaluate.captions.java import Meteor
from drivedistill.evaluate.same_questions import Answers
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


@pytest.fixture
def answers(make):
    """The answers of a run: one question in each of `n` scenes, of which `right` are right."""

    def of(model, right, *, n=40, file="", **fields):
        rows = [
            make(id=f"q{i:02d}", scene=f"s{i:02d}", model=model, reference=f"It is {i} m.",
                 prediction=f"It is {i if i < right else 99} m.", **fields)
            for i in range(n)
        ]  # fmt: skip
        return Answers(file or f"{model}.jsonl", rows)

    return of


@pytest.fixture(scope="session")
def meteor() -> Iterator[Meteor]:
    """METEOR's process, started on a machine whose Java speaks German and Latin-1."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LC_ALL", "C")
        patch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=de -Duser.country=DE -Dfile.encoding=ISO-8859-1")
        process = Meteor()
    with process:
        yield process


@pytest.fixture(scope="module")
def quick_meteor(meteor: Meteor) -> Iterator[None]:
    """Scoring takes the process that is there: a new one needs some six seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measures, "Meteor", lambda: nullcontext(meteor))
        yield
