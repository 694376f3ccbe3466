"""Which answers a judge rates, with which prompt: DriveLM's tags 1 and 3, and all of CODA-LM.

Source for CODA-LM: `evaluation/stage{1,2,3}_eval_batch.py`. Its three tasks (general, suggestion, region) are means of
ratings times ten, and its final score is the mean of the three. Deviation: there, replies without a rating drop out
silently; here they are counted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from drivedistill.data.coda_lm import REGION
from drivedistill.data.drivelm_challenge import JUDGE, MATCH
from drivedistill.evaluate.drivelm import Graph
from drivedistill.evaluate.judge import Item, Judge, PromptName, load_prompt, prompt_text
from drivedistill.records import Prediction

CODA_LM = "coda_lm"
CODA_PROMPTS: dict[str, PromptName] = {
    "general": "coda_general",
    "suggestion": "coda_suggestion",
    "region": "coda_region",
}
"""CODA-LM's tasks and the prompts that rate them."""


def rate_challenge(judge: Judge, graph: Graph) -> dict[str, float | None]:
    """Ratings (0 to 100, None where unreadable) of the kept questions with tags 1 and 3, by prediction id."""
    asked = [prediction for prediction in graph.kept if JUDGE in prediction.tags or MATCH in prediction.tags]
    return _rate(judge, "drivelm", asked)


def rate_coda(judge: Judge, predictions: Sequence[Prediction]) -> dict[str, float | None]:
    """Ratings (10 to 100, None where unreadable) of CODA-LM answers by prediction id."""
    ratings: dict[str, float | None] = {}
    for kind, prompt in CODA_PROMPTS.items():
        ratings |= _rate(judge, prompt, [prediction for prediction in predictions if coda_kind(prediction) == kind])
    return ratings


def coda_kind(prediction: Prediction) -> str:
    """CODA-LM's task of an answer: `general`, `suggestion` or `region`."""
    if prediction.question.strip() == REGION or "_region_" in prediction.id:
        return "region"
    return "suggestion" if prediction.task == "planning" else "general"


def region_classes() -> dict[str, str]:
    """CODA-LM's seven groups of object categories: category to group."""
    groups: dict[str, list[str]] = json.loads(prompt_text("coda_region_classes"))
    return {category: group for group, categories in groups.items() for category in categories}


def _rate(judge: Judge, prompt: PromptName, predictions: Sequence[Prediction]) -> dict[str, float | None]:
    items = [Item(item.question, item.truth, item.prediction) for item in predictions]
    verdicts = judge.rate(load_prompt(prompt), items)
    return {item.id: verdict.rating for item, verdict in zip(predictions, verdicts, strict=True)}
