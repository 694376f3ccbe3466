"""What is in a data set, what is wrong with it, and how far one gets without looking at the pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np

from drivedistill.data.images import image_problem, image_size
from drivedistill.data.prior import Template, template, templates
from drivedistill.data.splits import shared_scenes
from drivedistill.problems import InputError, Problem
from drivedistill.records import Sample

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
    prior_accuracy: float
    """Share that is right when every question gets the most frequent answer of its template (`Report.prior_from`)."""
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
    """Of the split `train`, or of all samples; the most frequent first."""
    images: Literal["none", "exist", "decode"]
    checked_images: int
    bad_images: list[Problem]
    outside_regions: list[Problem]
    repeated_ids: list[str]
    shared_scenes: list[str]
    """`dataset scene: splits`"""

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
    fitted = {row.question: row.answer for row in templates(splits["train"])} if "train" in splits else None
    paths = list(dict.fromkeys(path for sample in everything for path in sample.images.values()))
    bad = _bad_images(paths, images == "decode", progress) if images != "none" else {}
    ids = Counter(sample.id for sample in everything)
    corner = sum(sample.regime == "corner" for sample in everything)
    return Report(
        splits={name: _split_report(samples, fitted) for name, samples in splits.items()},
        regular=len(everything) - corner,
        corner=corner,
        prior_from="train" if fitted is not None else "itself",
        templates=templates(splits.get("train", everything)),
        images=images,
        checked_images=len(paths) if images != "none" else 0,
        bad_images=list(bad.values()),
        outside_regions=_outside_regions(everything, bad) if images != "none" else [],
        repeated_ids=[id for id, count in ids.items() if count > 1],
        shared_scenes=[f"{data} {scene}: {', '.join(names)}" for (data, scene), names in shared_scenes(splits).items()],
    )


def _split_report(samples: Sequence[Sample], fitted: Mapping[str, str] | None) -> SplitReport:
    majorities = fitted if fitted is not None else {row.question: row.answer for row in templates(samples)}
    answered = [sample for sample in samples if sample.answer is not None]
    answers = Counter(_answer(sample) for sample in answered)
    majority, most = answers.most_common(1)[0] if answers else ("", 0)
    right = sum(majorities.get(template(sample.question)) == _answer(sample) for sample in answered)
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
        prior_accuracy=right / max(1, len(answered)),
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


def format_report(report: Report) -> str:
    """The report as plain text, at most 100 columns wide."""
    return "\n\n".join(filter(None, [_split_table(report), _template_table(report), _findings(report)]))


def _split_table(report: Report) -> str:
    columns = {name: _cells(split, report) for name, split in report.splits.items()}
    names = next(iter(columns.values()), {})
    table = [["", *columns], *([name, *(cells[name] for cells in columns.values())] for name in names)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    )


def _cells(split: SplitReport, report: Report) -> dict[str, str]:
    """The rows of one column; every split has the same rows, in the same order."""
    everywhere = report.splits.values()
    pairs = sorted({(regime, task) for other in everywhere for regime in other.tasks for task in other.tasks[regime]})
    tags = sorted({tag for other in everywhere for tag in other.tags})
    views = sorted({views for other in everywhere for views in other.views}, key=int)
    counts: dict[str, int] = {
        "questions": split.questions,
        "scenes": split.scenes,
        "frames": split.frames,
        "pictures": split.pictures,
        **{f"with {number} pictures": split.views.get(number, 0) for number in views},
        **{f"{regime} {task}": split.tasks.get(regime, {}).get(task, 0) for regime, task in pairs},
        **{f"capability {name}": split.capabilities.get(name, 0) for name in ("perception", "reasoning", "planning")},
        **{f"challenge tag {tag}": split.tags.get(tag, 0) for tag in tags},
        "without an answer": split.unanswered,
        "blank answers": len(split.blank),
        "frames without answers": split.frames_without_answers,
        "repeated questions": len(split.duplicates),
    }
    return {
        **{name: f"{count:,}" for name, count in counts.items()},
        **{f"answer words {name}": f"{split.answer_words.get(name, 0):.4g}" for name in (*QUANTILES, "mean")},
        "majority answer": _short(split.majority_answer, 16) or "-",
        "majority share": f"{split.majority_share:.1%}",
        "text-only prior": f"{split.prior_accuracy:.1%}",
    }


def _template_table(report: Report, most: int = 12) -> str:
    if not report.templates:
        return ""
    head = (
        f"Question templates ({len(report.templates):,}; answers of {report.prior_from}), share of the commonest answer"
    )
    lines = [
        f"{row.count:>8,}  {row.share:>6.1%}  {_short(row.question, 56):<56}  {_short(row.answer, 22)}"
        for row in report.templates[:most]
    ]
    return "\n".join([head, *lines])


def _findings(report: Report) -> str:
    ratio = f"{report.regular / report.corner:.3g} to 1" if report.corner else "no corner questions"
    lines = [f"Regular to corner: {report.regular:,} to {report.corner:,} questions ({ratio}; CLKD: 17 to 1)"]
    if report.images == "none":
        lines.append("Pictures: not opened")
    else:
        how = "decoded" if report.images == "decode" else "opened"
        lines.append(f"Pictures: {report.checked_images:,} {how}, {len(report.bad_images):,} missing or broken")
    findings: list[tuple[str, list[str]]] = [
        ("", [str(problem) for problem in report.bad_images]),
        ("Regions outside their pictures", [str(problem) for problem in report.outside_regions]),
        ("Ids that occur twice", report.repeated_ids),
        ("Scenes shared between splits", report.shared_scenes),
        ("Blank answers", [id for split in report.splits.values() for id in split.blank]),
        ("Repeated questions", [id for split in report.splits.values() for id in split.duplicates]),
    ]
    for name, items in findings:
        if items and name:
            lines.append(f"{name}: {len(items):,}")
        lines += [f"  {item}" for item in items[:5]]
        if len(items) > 5:
            lines.append(f"  ... and {len(items) - 5:,} more")
    return "\n".join(lines)


def _short(text: str, width: int) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= width else f"{flat[: width - 3]}..."
