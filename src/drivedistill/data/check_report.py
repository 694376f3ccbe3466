"""What `drivedistill data check` prints."""

from __future__ import annotations

from drivedistill.data.check import EASY, ENOUGH, QUANTILES, Report, SplitReport
from drivedistill.data.prior import Template
from drivedistill.tables import plain


def format_report(report: Report) -> str:
    """The report as plain text, at most 100 columns wide."""
    return "\n\n".join(filter(None, [_split_table(report), _template_table(report), _findings(report)]))


def _split_table(report: Report) -> str:
    columns = {name: _cells(split, report) for name, split in report.splits.items()}
    names = next(iter(columns.values()), {})
    table = [["", *columns], *([name, *(cells[name] for cells in columns.values())] for name in names)]
    return "\n".join(plain(table))


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
        "text-only prior": "-" if split.prior_accuracy is None else f"{split.prior_accuracy:.1%}",
    }


def _template_table(report: Report, most: int = 40) -> str:
    """All templates that a data set names, and the `most` frequent of the others."""
    if not report.templates:
        return ""
    lines = [
        f"Question templates ({len(report.templates):,}; answers of {report.prior_from}): share of the commonest answer, "
        "and what a",
        "learner gets right that sees no picture, on so many questions of scenes it was not taught",
        f"{'n':>8}  {'share':>6}  {'text-only':>9} {'of':<7}  question{' ' * 35}answer",
    ]
    unnamed = [row for row in report.templates if not row.named]
    left_out = set(unnamed[most:])
    lines += [_template_row(row) for row in report.templates if row not in left_out]
    if left_out:
        lines.append(f"     ... and {len(left_out):,} more")
    return "\n".join(lines)


def _template_row(row: Template) -> str:
    learnt = f"{row.text_only:>9.1%} {row.examined:<7,}" if row.examined else f"{'-':>9} {'0':<7}"
    return f"{row.count:>8,}  {row.share:>6.1%}  {learnt}  {_short(row.question, 41):<41}  {_short(row.answer, 19)}"


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
        (
            f"Closed templates of which more than {EASY:.0%} can be guessed",
            [_guessed(row) for row in report.easy_templates],
        ),
        (
            f"Closed templates that look so, with too few questions to tell (fewer than {ENOUGH})",
            [_guessed(row) for row in report.perhaps_easy_templates],
        ),
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


def _guessed(row: Template) -> str:
    return f"{max(row.text_only, row.share):.1%} of {row.examined:,}: {_short(row.question, 76)}"


def _short(text: str, width: int) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= width else f"{flat[: width - 3]}..."
