"""Several sources become one training set: read, split, limited, concatenated, and drawn from in a fixed order."""

from __future__ import annotations

import hashlib
import logging
import random
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Literal, TypeVar

from drivedistill.data import READERS
from drivedistill.data.prior import template_name
from drivedistill.data.splits import refuse_leakage, shared_scenes, split_by_question, split_by_scene
from drivedistill.problems import InputError, Problem
from drivedistill.records import Sample
from drivedistill.sections import Source

log = logging.getLogger(__name__)

T = TypeVar("T")


def load_mixture(sources: Sequence[Source]) -> dict[str, list[Sample]]:
    """Read and split every source and join them.

    Returns:
        Split name -> samples, in the order of the sources. `train` is there and not empty.

    Raises:
        InputError: With everything that was found: files that cannot be read, an empty split, an id that occurs twice,
            a scene shared between splits (sources with `split_by: question` are exempt, and the log says so).
    """
    problems: list[Problem] = []
    loaded: list[tuple[Source, dict[str, list[Sample]]]] = []
    for source in sources:
        try:
            loaded.append((source, load_source(source)))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    problems += _repeated(loaded)
    try:
        refuse_leakage(_join([splits for source, splits in loaded if source.split_by != "question"]))
    except InputError as error:
        problems += error.problems
    joined = _join([splits for _, splits in loaded])
    if not joined.get("train"):
        remedy = "name a split `train` in `fractions` or `files`"
        problems.append(Problem("recipe", "data.sources", "samples in the split `train`", "none", remedy))
    if problems:
        raise InputError(problems)
    return joined


def load_source(source: Source) -> dict[str, list[Sample]]:
    """Read one source and split it; only `source.capabilities` and `source.templates` without `source.without`, thinned by
    `source.every`, at most `source.limit` per split.

    Raises:
        InputError: The files cannot be read, a split is empty, or there is no question of a kind that is asked for.
    """
    if source.split_by == "file":
        splits = _by_file(source)
    else:
        split = split_by_scene if source.split_by == "scene" else split_by_question
        samples = list(READERS[source.format](source.root, source.file, regime=source.regime))
        splits = split(samples, source.fractions, source.seed)
        if source.split_by == "question" and (shared := len(shared_scenes(splits))):
            log.warning(
                "source %s is split by question: %d scenes are shared between splits, so its scores are optimistic",
                source.name,
                shared,
            )
    if source.capabilities:
        splits = _capable(source, splits)
    if source.templates:
        splits = _chosen(source, "templates", splits)
    if source.without:
        splits = _chosen(source, "without", splits)
    if source.every:
        splits = _thinned(source, splits)
    return {name: samples[: source.limit] for name, samples in splits.items()}


def _capable(source: Source, splits: dict[str, list[Sample]]) -> dict[str, list[Sample]]:
    """Only questions of the capabilities that are named; the training split must have some of each."""
    here = Counter(sample.capability for sample in splits.get("train", []))
    if unknown := [name for name in source.capabilities if not here[name]]:
        expected = f"capabilities of the questions in train: {', '.join(here) or 'there are none'}"
        place, remedy = f"source {source.name}, capabilities", "remove them, or choose another file"
        raise InputError(Problem("recipe", place, expected, ", ".join(unknown), remedy))
    return {
        name: [item for item in samples if item.capability in source.capabilities] for name, samples in splits.items()
    }


def _chosen(
    source: Source, field: Literal["templates", "without"], splits: dict[str, list[Sample]]
) -> dict[str, list[Sample]]:
    """Only the kinds of questions that `templates` names, or all but those of `without`; every kind must be there."""
    named: list[str] = getattr(source, field)
    _refuse_unknown(source, field, named, splits)
    return {
        name: [item for item in samples if (template_name(item) in named) == (field == "templates")]
        for name, samples in splits.items()
    }


def _thinned(source: Source, splits: dict[str, list[Sample]]) -> dict[str, list[Sample]]:
    """The kinds of questions in `source.every` on every n-th key frame of `train` only; what is left out is logged."""
    _refuse_unknown(source, "every", source.every, splits)
    before = splits.get("train", [])
    kept = [sample for sample in before if _turn(sample) % source.every.get(template_name(sample), 1) == 0]
    asked, left = (Counter(template_name(sample) for sample in samples) for samples in (before, kept))
    counts = ", ".join(f"{left[name]} of {asked[name]} of {name}" for name in source.every)
    log.warning("source %s: `every` keeps fewer questions in train: %s", source.name, counts)
    return splits | {"train": kept} if "train" in splits else splits


def _turn(sample: Sample) -> int:
    """A number that a key frame's name gives it, whatever else is read and in which order."""
    return int.from_bytes(hashlib.sha256(f"{sample.dataset} {sample.scene} {sample.frame}".encode()).digest())


def _refuse_unknown(source: Source, field: str, named: Collection[str], splits: dict[str, list[Sample]]) -> None:
    counts = Counter(template_name(sample) for samples in splits.values() for sample in samples)
    unknown = [name for name in named if not counts[name]]
    if unknown and counts:  # without any question, nothing is known about the kinds
        commonest = ", ".join(repr(name) for name, _ in counts.most_common(8))
        expected = f"kinds of questions of this source, as `data check` names them, e.g. {commonest}"
        remedy = "correct the names, or remove them"
        raise InputError(Problem("recipe", f"source {source.name}, {field}", expected, ", ".join(unknown), remedy))


def regime_ratio(samples: Sequence[Sample]) -> tuple[int, int]:
    """Number of regular and of corner questions (CLKD's training set: 17 to 1)."""
    corner = sum(sample.regime == "corner" for sample in samples)
    return len(samples) - corner, corner


def corner_draws(regular: int, corner: int, corner_ratio: float | None) -> int:
    """How many corner questions an epoch draws under a ratio; 0 where there is no ratio to keep."""
    if corner_ratio is None or not regular or not corner:
        return 0
    return max(1, round(regular / corner_ratio))


def draw(samples: Sequence[Sample], limit: int | None, seed: int) -> list[Sample]:
    """At most `limit` samples, the same ones every time: of each regime its share, at least one, spread over the set."""
    if limit is None or len(samples) <= limit:
        return list(samples)
    chosen: set[str] = set()
    for regime in ("corner", "regular"):
        ids = sorted(sample.id for sample in samples if sample.regime == regime)
        share = max(1, round(limit * len(ids) / len(samples)))
        chosen |= set(_shuffled(ids, f"draw {seed}")[: min(share, limit - len(chosen))])
    return [sample for sample in samples if sample.id in chosen]


def epoch_order(samples: Sequence[Sample], seed: int, epoch: int, corner_ratio: float | None) -> list[int]:
    """The order in which one epoch visits the samples; a pure function of its arguments.

    Args:
        samples: The training set, n samples.
        seed: Another seed, another order.
        epoch: Counted from 0.
        corner_ratio: None visits every sample once. A ratio r visits every regular sample once and `n_regular / r`
            corner ones (rounded, at least one), taken from an endless row of permutations of the corner set, so that
            over the epochs no corner sample is used more than once more than another. Without samples of both
            regimes there is no ratio to keep, and every sample is visited once.

    Returns:
        Indices into `samples`; without a ratio a permutation of `range(n)`.
    """
    order = list(range(len(samples)))
    corner = [index for index in order if samples[index].regime == "corner"]
    regular = [index for index in order if samples[index].regime != "corner"]
    if count := corner_draws(len(regular), len(corner), corner_ratio):
        start = epoch * count
        first, last = start // len(corner), (start + count - 1) // len(corner)
        row = [index for turn in range(first, last + 1) for index in _shuffled(corner, f"corner {seed} {turn}")]
        order = regular + row[start - first * len(corner) :][:count]
    return _shuffled(order, f"epoch {seed} {epoch}")


def _shuffled(items: list[T], seed: str) -> list[T]:
    result = list(items)
    random.Random(seed).shuffle(result)
    return result


def _by_file(source: Source) -> dict[str, list[Sample]]:
    splits: dict[str, list[Sample]] = {}
    problems: list[Problem] = []
    for name, file in source.files.items():
        try:
            samples = list(READERS[source.format](source.root, file, regime=source.regime))
        except InputError as error:
            problems += error.problems
            continue
        if not samples:
            found = "none (an empty split)"
            problems.append(Problem(str(source.root), file, f"samples for `{name}`", found, "name another file"))
        splits[name] = [sample.model_copy(update={"split": name}) for sample in samples]
    if problems:
        raise InputError(problems)
    return splits


def _join(parts: list[dict[str, list[Sample]]]) -> dict[str, list[Sample]]:
    names = dict.fromkeys(name for splits in parts for name in splits)
    return {name: [sample for splits in parts for sample in splits.get(name, [])] for name in names}


def _repeated(loaded: list[tuple[Source, dict[str, list[Sample]]]]) -> list[Problem]:
    """Ids that occur more than once, as one problem: a source named twice repeats all of its ids."""
    counts: Counter[str] = Counter()
    owners: dict[str, dict[str, None]] = {}
    for source, splits in loaded:
        for samples in splits.values():
            for sample in samples:
                counts[sample.id] += 1
                owners.setdefault(sample.id, {})[source.name] = None
    repeated = [id for id, count in counts.items() if count > 1]
    if not repeated:
        return []
    names = dict.fromkeys(name for id in repeated for name in owners[id])
    found = f"{len(repeated)} ids more than once, first {', '.join(repeated[:5])}"
    remedy = f"remove the overlap within or between the sources {', '.join(names)}"
    return [Problem("recipe", "data.sources", "every id once", found, remedy)]
