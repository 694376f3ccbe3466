"""Predictions to scores: every number of `results.json` that needs only text.

Rows are made for each set (data set, split, regime, way of decoding, condition) and, for the caption metrics, also for
each task. A set is always scored as one. Different ways of decoding are scored apart; different models are refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import get_args

from drivedistill.data.drivelm_challenge import ACCURACY, JUDGE, LANGUAGE, MATCH
from drivedistill.evaluate.captions.measures import Tokenizer, caption_measures
from drivedistill.evaluate.drivelm import (
    RULES,
    Graph,
    challenge_scores,
    graph_filter,
    language_measure,
    letter_correct,
    match_points,
    mean,
)
from drivedistill.evaluate.families import answer_findings, answer_measures
from drivedistill.evaluate.judge import Judge
from drivedistill.evaluate.judged import CODA_LM, CODA_PROMPTS, coda_kind, rate_challenge, rate_coda, region_classes
from drivedistill.evaluate.measure import Measure, draw_scenes
from drivedistill.evaluate.metric import METRICS
from drivedistill.evaluate.rows import ALL, Place, Rows, place_of
from drivedistill.evaluate.submission import ASKED
from drivedistill.problems import InputError, Problem
from drivedistill.records import Prediction, Score, Task

_COUNT = "count"
_LANGUAGE = "challenge language"


def score(
    predictions: list[Prediction],
    *,
    judge: Judge | None = None,
    challenge: bool | None = None,
    meteor: bool = True,
    tokenizer: Tokenizer = "ptb",
    seed: int = 0,
) -> list[Score]:
    """Score predictions: caption metrics, exact match, DriveLM's challenge and judges.

    Args:
        predictions: Of one model; points in pixels. Those without a reference are counted (`unscored`), not scored.
        judge: Rates DriveLM's tags 1 and 3 and CODA-LM's answers; without it no judge's row is made, `match` is the F1
            alone, and the challenge has no final score.
        challenge: Apply DriveLM's challenge rules. None: where predictions carry tags.
        meteor: False saves some seconds, and leaves out `meteor` and `avg`.
        tokenizer: `ptb`, or `approximate` where no Java can be had; see `captions.measures`.
        seed: Of the bootstrap over scenes, which gives every number made of sums over samples its `low` and `high`.

    Returns:
        Rows by place, then in the order of `METRICS`, tasks after `all`.

    Raises:
        InputError: No predictions, several models, repeated ids, `challenge` without tags, a judge with nothing to
            rate, or missing scorers or Java.
        RunError: Java or the judge failed.
    """
    _check(predictions, judge, challenge)
    places: dict[Place, list[Prediction]] = {}
    for item in predictions:
        places.setdefault(place_of(item), []).append(item)
    scored = {place: [item for item in items if item.reference is not None] for place, items in places.items()}
    graphs: dict[Place, Graph] = {}
    for place, items in scored.items():
        tagged = [item for item in items if item.tags]
        if challenge is not False and tagged:
            graphs[place] = graph_filter(tagged)
    captions = _captions(scored, graphs, meteor=meteor, tokenizer=tokenizer)
    rows: list[Score] = []
    for place, items in places.items():
        maker = Rows(place, seed)
        rows += _count_rows(maker, items)
        for task in [ALL, *get_args(Task)]:
            chosen = [item for item in scored[place] if task in (ALL, item.task)]
            if chosen:
                rows += _text_rows(maker, task, chosen, captions[place, task])
        if place in graphs:
            rows += _challenge_rows(maker, graphs[place], captions.get((place, _LANGUAGE)), judge)
        if judge is not None and place.dataset == CODA_LM and scored[place]:
            rows += _coda_rows(maker, scored[place], judge)
    names, tasks, order = list(METRICS), [ALL, *get_args(Task)], list(places)
    return sorted(rows, key=lambda row: (order.index(place_of(row)), tasks.index(row.task), names.index(row.name)))


def _check(predictions: list[Prediction], judge: Judge | None, challenge: bool | None) -> None:
    problems: list[Problem] = []
    if not predictions:
        raise InputError(Problem("predictions", "", "at least one prediction", "none", "run `drivedistill predict`"))
    models = sorted({item.model for item in predictions})
    if len(models) > 1:
        remedy = "score the predictions of each model in a file of their own"
        problems.append(Problem("predictions", "model", "one model", ", ".join(models), remedy))
    counts = Counter((place_of(item), item.model, item.id) for item in predictions)
    repeated = [f"{place.dataset} {id}" for (place, _, id), count in counts.items() if count > 1]
    if repeated:
        found = f"{len(repeated):,} ids more than once, first {', '.join(repeated[:5])}"
        remedy = "remove the repetitions, or name each file once"
        problems.append(Problem("predictions", "id", "one answer to each question", found, remedy))
    tagged = any(item.tags for item in predictions)
    if challenge and not tagged:
        remedy = "predict DriveLM's challenge split, or leave the challenge out"
        problems.append(Problem("predictions", "tags", "DriveLM's tags 0 to 3", "none", remedy))
    if (
        judge is not None
        and not (tagged and challenge is not False)
        and CODA_LM not in {p.dataset for p in predictions}
    ):
        remedy = "leave the judge out: it rates DriveLM's challenge and CODA-LM"
        problems.append(Problem("predictions", "judge", "tagged DriveLM or CODA-LM answers", "neither", remedy))
    if problems:
        raise InputError(problems)


def _captions(
    scored: dict[Place, list[Prediction]], graphs: dict[Place, Graph], *, meteor: bool, tokenizer: Tokenizer
) -> dict[tuple[Place, str], dict[str, Measure]]:
    """Caption metrics of every place: over all, for each task, and of the challenge's language questions."""
    groups: dict[tuple[Place, str], list[tuple[str, str]]] = {}
    for place, items in scored.items():
        kept = graphs[place].kept if place in graphs else []
        named = [(name, item) for item in items for name in (ALL, item.task)]
        named += [(_LANGUAGE, item) for item in kept if LANGUAGE in item.tags]
        for name, item in named:
            groups.setdefault((place, name), []).append((item.truth, item.prediction))
    return caption_measures(groups, meteor=meteor, tokenizer=tokenizer) if groups else {}


def _count_rows(rows: Rows, items: list[Prediction]) -> Iterator[Score]:
    yield rows.row("unscored", sum(item.reference is None for item in items), len(items), _COUNT)
    yield rows.row("empty_answers", sum(not item.prediction.strip() for item in items), len(items), _COUNT)
    # A student that does not stop ruins BLEU-4, which is then a measure of nothing else.
    longest = max((len(item.reference.split()) for item in items if item.reference), default=None)
    if longest is not None:
        running = sum(len(item.prediction.split()) > longest for item in items)
        yield rows.row("run_on_answers", running, len(items), "more words than any reference of the set")
    if differently := sum(ASKED in item.extra for item in items):
        yield rows.row("asked_differently", differently, len(items), _COUNT)


def _text_rows(rows: Rows, task: str, items: list[Prediction], captions: Mapping[str, Measure]) -> Iterator[Score]:
    draws = draw_scenes([item.scene for item in items], rows.seed)
    yield from rows.measured({**captions, **answer_measures(items)}, draws, task=task)
    for name, finding in answer_findings(items).items():
        yield rows.row(name, *finding, task=task)


def _challenge_rows(
    rows: Rows, graph: Graph, captions: Mapping[str, Measure] | None, judge: Judge | None
) -> Iterator[Score]:
    tagged = {tag: [item for item in graph.kept if tag in item.tags] for tag in (ACCURACY, JUDGE, LANGUAGE, MATCH)}
    ratings = None if judge is None else rate_challenge(judge, graph)
    language = None if captions is None else language_measure(captions)
    scores = challenge_scores(graph, language=None if language is None else language.point, ratings=ratings)
    num_asked = len(graph.kept) + len(graph.skipped)
    yield rows.row("skipped_questions", len(graph.skipped), num_asked, RULES)
    if graph.headless:
        yield rows.row("frames_without_first", graph.headless, num_asked, _COUNT)
    exact = f"{RULES}, equality"
    yield from rows.mean("accuracy", tagged[ACCURACY], lambda item: item.prediction == item.reference, exact)
    yield from rows.mean("accuracy_letter", tagged[ACCURACY], letter_correct, "chosen letter, else words; ours")
    yield from rows.mean("match_f1", tagged[MATCH], _f1_percent, f"{RULES}, F1 at 16 px")
    if language is not None:
        draws = draw_scenes([item.scene for item in tagged[LANGUAGE]], rows.seed)
        yield from rows.measured({"language": language}, draws)
    by_judge = f"{RULES}, F1 alone: no judge" if judge is None else f"{RULES}, judge {judge.model}"
    if scores.match is not None:
        yield rows.row("match", scores.match, len(tagged[MATCH]), by_judge)
    if ratings is not None:
        yield from _rating_rows(rows, "judge", tagged[JUDGE], ratings, by_judge)
        yield rows.row("judge_unparsable", _unreadable(ratings), len(ratings), by_judge)
    if scores.final is not None:
        yield rows.row("challenge_final", scores.final, len(graph.kept), by_judge)


def _f1_percent(item: Prediction) -> float:
    return 100 * match_points(item.prediction, item.truth).f1


def _coda_rows(rows: Rows, items: list[Prediction], judge: Judge) -> Iterator[Score]:
    ratings = rate_coda(judge, items)
    label = f"CODA-LM judge {judge.model}"
    means: list[float | None] = []
    for kind in CODA_PROMPTS:
        chosen = [item for item in items if coda_kind(item) == kind]
        yield from _rating_rows(rows, f"judge_{kind}", chosen, ratings, label)
        means.append(mean([value for item in chosen if (value := ratings[item.id]) is not None]))
    classes = region_classes()
    regions = [item for item in items if coda_kind(item) == "region"]
    for group in dict.fromkeys(classes.values()):
        chosen = [item for item in regions if classes.get(str(item.extra.get("category"))) == group]
        yield from _rating_rows(rows, f"judge_region_{group}", chosen, ratings, label)
    of_three = [value for value in means if value is not None]
    if len(of_three) == len(means):
        yield rows.row("judge", sum(of_three) / len(means), len(items), f"{label}, mean of the three tasks")
    yield rows.row("judge_unparsable", _unreadable(ratings), len(ratings), label)


def _rating_rows(
    rows: Rows, name: str, items: list[Prediction], ratings: dict[str, float | None], label: str
) -> Iterator[Score]:
    """The mean of the readable ratings; its n is their number."""
    rated = [(item, value) for item in items if (value := ratings[item.id]) is not None]
    value_of = {item.id: value for item, value in rated}
    yield from rows.mean(name, [item for item, _ in rated], lambda item: value_of[item.id], label)


def _unreadable(ratings: dict[str, float | None]) -> int:
    return sum(value is None for value in ratings.values())
