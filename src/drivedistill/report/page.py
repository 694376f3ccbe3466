"""The page: sections in order, one file, nothing loaded from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from drivedistill.records import write_text
from drivedistill.report.controls import controls
from drivedistill.report.evidence import Evidence, gather
from drivedistill.report.experts import experts
from drivedistill.report.gallery import gallery
from drivedistill.report.markup import Html, Section, el, join
from drivedistill.report.origin import origin
from drivedistill.report.realtime import latency, rsdr
from drivedistill.report.roles import Roles, roles_of, shown_rows
from drivedistill.report.scores import scores
from drivedistill.report.summary import lead, summary
from drivedistill.report.training import mined, training

DRAWN = 7
"""Rows in a chart of curves; more cannot be told apart."""


def write_report(folders: Sequence[Path], out: Path, *, most: int = 36, seed: int = 0) -> int:
    """Make the report of some folders; the same files give the same page.

    Args:
        folders: Runs, tables of runs, folders with benches, probes, experts.
        out: The HTML file.
        most: Questions in the gallery.
        seed: Of their choice.

    Returns:
        Its size in bytes.

    Raises:
        InputError: A folder holds nothing of a report, or a file in it cannot be read.
    """
    text = page(gather(folders), most=most, seed=seed)
    write_text(out, text)
    return len(text.encode())


def page(evidence: Evidence, *, most: int = 36, seed: int = 0) -> str:
    """The whole file; see `write_report`."""
    roles = roles_of(evidence.rows)
    body = _body(evidence, _sections(evidence, roles, most, seed))
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", f"Report: {evidence.title}"),
        el("style", _file("style.css")),
    )
    return f"<!doctype html>\n{el('html', head, body, lang='en')}\n"


def _sections(evidence: Evidence, roles: Roles, most: int, seed: int) -> list[Section]:
    drawn = shown_rows(evidence.rows, roles, DRAWN)
    return [
        summary(evidence, roles),
        scores(evidence, roles),
        latency(evidence),
        training(drawn, roles.teacher, len(evidence.rows) - len(drawn)),
        mined(evidence.rows, roles),
        experts(evidence, drawn),
        rsdr(evidence),
        controls(evidence),
        gallery(evidence, roles, most=most, seed=seed),
        origin(evidence),
    ]


def _body(evidence: Evidence, sections: Sequence[Section]) -> Html:
    links = [el("li", el("a", section.title, href=f"#{section.id}")) for section in sections]
    parts = [
        el("section", el("h2", section.title), section.body, id=section.id, aria_label=section.title)
        for section in sections
    ]
    return el(
        "body",
        el("a", "Skip to the report", href="#summary", class_="skip"),
        el("header", el("h1", evidence.title), lead(evidence), el("nav", el("ol", *links), aria_label="Sections")),
        el("main", join(parts, "\n")),
        el("script", _file("filter.js")),
    )


def _file(name: str) -> Html:
    """A file of this folder, as it is."""
    return Html((files("drivedistill.report") / name).read_text("utf-8"))
