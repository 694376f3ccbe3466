"""What is in a data set, what is wrong with it, and how far one gets without looking at the pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np

from drivedistill.data.images import image_problem, image_size
from drivedistill.data.prior import Template, judge, templates
from drivedistill.data.splits import shared_scenes
from drivedistill.problems import InputError, Problem
from drivedistill.records import Sample

FEW_ANSWERS, EASY = 12, 0.6
"""A template with at most so many answers is closed, and too easy from this share on."""
ENOUGH, HARDLY_ENOUGH = 50, 20
"""With so many questions examined this is a finding, or worth a hint."""
QUANTILES = {"min": 0.0, "median": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}


@dataclass(frozen=True)
class SplitReport:
    """The figures of one split."""

    questions: int
    scenes: int
    frames: int
    pictures: int
    views: dict[str, int]
    """Number of cameras of a question -> questions."""
    tasks: dict[str, dict[str, int]]
    """Regime -> task -> questions."""
    capabilities: dict[str, int]
    tags: dict[str, int]
    unanswered: int
    """Questions for which the data set publishes no answer."""
    blank: list[str]
    """Ids of answers without a word."""
    frames_without_answers: int
    answer_words: dict[str, float]
    """Quantiles and mean of the answers' lengths in words."""
    majority_answer: str
    majority_share: float
    """Share of the answered questions that have the most frequent answer."""
    prior_accuracy: float | None
    """Share of the answered questions that a learner gets right which sees no picture (`prior.judge`): taught by
    `train`; on `train` itself, and where there is no `train`, by the other scenes. None with one scene only."""
    duplicates: list[str]
    """Ids of questions that repeat an earlier one: same pictures, same region, same words."""


@dataclass(frozen=True)
class Report:
    """Everything that `drivedistill data check` says; `dataclasses.asdict` gives JSON."""

    splits: dict[str, SplitReport]
    regular: int
    corner: int
    prior_from: str
    """The split whose answers make the prior: `train`, or `itself` where there is none."""
    templates: list[Template]
    """Of the split `train`, or of all samples; the most frequent first. The learner is examined on the other splits,
    or on what there is."""
    images: Literal["none", "exist", "decode"]
    checked_images: int
    bad_images: list[Problem]
    outside_regions: list[Problem]
    repeated_ids: list[str]
    shared_scenes: list[str]
    """`dataset scene: splits`"""

    @property
    def easy_templates(self) -> list[Template]:
        """Templates with few answers of which a learner without pictures, or the commonest answer, gets too much."""
        return [row for row in self._easy if row.examined >= ENOUGH]

    @property
    def perhaps_easy_templates(self) -> list[Template]:
        """The same, of which too few questions were examined to tell."""
        return [row for row in self._easy if HARDLY_ENOUGH <= row.examined < ENOUGH]

    @property
    def _easy(self) -> list[Template]:
        return [row for row in self.templates if row.answers <= FEW_ANSWERS and max(row.text_only, row.share) > EASY]

    @property
    def problems(self) -> list[Problem]:
        """What must be mended before training: bad pictures, regions outside them, repeated ids, shared scenes."""
        remedy = "split by scene, or choose files that share no scene"
        return [
            *self.bad_images,
            *self.outside_regions,
            *(
                Problem("data", id, "an id that occurs once", "it occurs again", "rename it")
                for id in self.repeated_ids
            ),
            *(Problem("data", scene, "a scene in one split", "several", remedy) for scene in self.shared_scenes),
        ]


def check(
    splits: Mapping[str, Sequence[Sample]],
    *,
    images: Literal["none", "exist", "decode"] = "exist",
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Count, and look for what would spoil a run.

    Args:
        splits: Split name -> samples.
        images: `none` opens no picture, `exist` reads the headers, `decode` decodes every pixel (several threads).
        progress: Called with (pictures done, pictures in all).
    """
    everything = [sample for samples in splits.values() for sample in samples]
    verdicts = _verdicts(splits)
    paths = list(dict.fromkeys(path for sample in everything for path in sample.images.values()))
    bad = _bad_images(paths, images == "decode", progress) if images != "none" else {}
    ids = Counter(sample.id for sample in everything)
    corner = sum(sample.regime == "corner" for sample in everything)
    return Report(
        splits={name: _split_report(samples, verdicts[name]) for name, samples in splits.items()},
        regular=len(everything) - corner,
        corner=corner,
        prior_from="train" if "train" in splits else "itself",
        templates=_templates(splits, verdicts),
        images=images,
        checked_images=len(paths) if images != "none" else 0,
        bad_images=list(bad.values()),
        outside_regions=_outside_regions(everything, bad) if images != "none" else [],
        repeated_ids=[id for id, count in ids.items() if count > 1],
        shared_scenes=[f"{data} {scene}: {', '.join(names)}" for (data, scene), names in shared_scenes(splits).items()],
    )


def _verdicts(splits: Mapping[str, Sequence[Sample]]) -> dict[str, list[bool | None]]:
    """Per split what a learner gets right that sees no picture; `train` teaches the others."""
    train = splits.get("train")
    return {
        name: judge(samples) if train is None or name == "train" else judge(train, samples)
        for name, samples in splits.items()
    }


def _templates(splits: Mapping[str, Sequence[Sample]], verdicts: Mapping[str, Sequence[bool | None]]) -> list[Template]:
    """The templates of `train`, or of all splits; examined on the others, or on what there is."""
    counted = ["train"] if "train" in splits else list(splits)
    examined = [name for name in splits if name != "train"] or list(splits)
    return templates(
        [sample for name in counted for sample in splits[name]],
        [sample for name in examined for sample in splits[name]],
        [verdict for name in examined for verdict in verdicts[name]],
    )


def _split_report(samples: Sequence[Sample], verdicts: Sequence[bool | None]) -> SplitReport:
    answered = [sample for sample in samples if sample.answer is not None]
    answers = Counter(_answer(sample) for sample in answered)
    majority, most = answers.most_common(1)[0] if answers else ("", 0)
    examined = len(verdicts) - verdicts.count(None)
    frames = {(sample.dataset, sample.scene, sample.frame) for sample in samples}
    known = {(sample.dataset, sample.scene, sample.frame) for sample in answered}
    regimes = sorted({sample.regime for sample in samples}, reverse=True)
    return SplitReport(
        questions=len(samples),
        scenes=len({(sample.dataset, sample.scene) for sample in samples}),
        frames=len(frames),
        pictures=len({path for sample in samples for path in sample.images.values()}),
        views=_counts(str(len(sample.images)) for sample in samples),
        tasks={regime: _counts(sample.task for sample in samples if sample.regime == regime) for regime in regimes},
        capabilities=_counts(sample.capability for sample in samples),
        tags=_counts(str(tag) for sample in samples for tag in sample.tags),
        unanswered=len(samples) - len(answered),
        blank=[sample.id for sample in answered if not _answer(sample)],
        frames_without_answers=len(frames - known),
        answer_words=_words(answered),
        majority_answer=majority,
        majority_share=most / max(1, len(answered)),
        prior_accuracy=verdicts.count(True) / examined if examined else None,
        duplicates=_duplicates(samples),
    )


def _answer(sample: Sample) -> str:
    return (sample.answer or "").strip()


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _words(answered: Sequence[Sample]) -> dict[str, float]:
    lengths = [len(_answer(sample).split()) for sample in answered]
    if not lengths:
        return {}
    values = {name: float(np.quantile(lengths, share)) for name, share in QUANTILES.items()}
    return values | {"mean": float(np.mean(lengths))}


def _duplicates(samples: Sequence[Sample]) -> list[str]:
    seen: set[tuple[object, ...]] = set()
    repeated = []
    for sample in samples:
        key = (tuple(sample.images.values()), sample.region, sample.question)
        if key in seen:
            repeated.append(sample.id)
        seen.add(key)
    return repeated


def _bad_images(paths: Sequence[str], decode: bool, progress: Callable[[int, int], None] | None) -> dict[str, Problem]:
    bad: dict[str, Problem] = {}
    with ThreadPoolExecutor() as pool:
        problems = pool.map(lambda path: image_problem(path, decode=decode), paths)
        for done, (path, problem) in enumerate(zip(paths, problems, strict=True), start=1):
            if problem is not None:
                bad[path] = problem
            if progress is not None:
                progress(done, len(paths))
    return bad


def _outside_regions(samples: Sequence[Sample], bad: Mapping[str, Problem]) -> list[Problem]:
    """Regions that do not touch their picture, or name a camera that the sample lacks."""
    problems = []
    for sample in samples:
        if sample.region is None:
            continue
        path = sample.images.get(sample.region.camera)
        if path is None:
            found, expected = sample.region.camera, f"one of the sample's cameras: {', '.join(sample.images)}"
            problems.append(Problem("data", f"{sample.id}, region", expected, found, "correct the region's camera"))
        elif path not in bad:
            try:
                width, height = image_size(path)
            except InputError as error:
                problems += error.problems
                continue
            x, y, w, h = sample.region.box
            if x >= width or y >= height or x + w <= 0 or y + h <= 0:
                expected = f"a box that touches the picture of {width} x {height} pixels"
                found = f"x {x:g}, y {y:g}, width {w:g}, height {h:g}"
                problems.append(Problem(path, f"{sample.id}, region", expected, found, "restore the published box"))
    return problems
