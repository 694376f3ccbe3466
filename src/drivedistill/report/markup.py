"""HTML and SVG from Python: text is escaped unless it is `Html` already, so nobody can forget it.

>>> el("p", "a < b ", el("b", "& c"), class_="note")
'<p class="note">a &lt; b <b>&amp; c</b></p>'
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

EMPTY = ("img", "meta", "br", "input")
"""Elements that HTML does not close; those of SVG it does."""


class Html(str):
    """Markup; every other text is escaped."""

    __slots__ = ()


class Section(NamedTuple):
    """A part of the page."""

    id: str
    title: str
    body: Html


def el(name: str, /, *children: str, **attributes: str | float | bool | None) -> Html:
    """An element.

    Args:
        name: Of the element.
        children: Text, which is escaped, or `Html`.
        attributes: `class_`, `for_` and `data_task` stand for `class`, `for` and `data-task`; None and False are left out.
    """
    opening = "".join([f"<{name}", *(_attribute(key, value) for key, value in attributes.items()), ">"])
    return Html(opening if name in EMPTY else f"{opening}{join(children)}</{name}>")


def _attribute(key: str, value: str | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return f" {name}" if value is True else f' {name}="{escape(text)}"'


def join(parts: Iterable[str], between: str = "") -> Html:
    """Parts one after the other; text is escaped."""
    return Html(between.join(part if isinstance(part, Html) else escape(part, quote=False) for part in parts))


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str, *, left: int = 1) -> Html:
    """A table in a box of its own, in which it scrolls where the screen is narrow.

    Args:
        head: Names of the columns.
        rows: Cells; the first of every row is its name.
        caption: What is in it.
        left: So many columns are set to the left, the others to the right.
    """
    names = join(el("th", name, scope="col", class_=None if i < left else "number") for i, name in enumerate(head))
    lines = []
    for first, *others in rows:
        cells = (el("td", cell, class_=None if i < left else "number") for i, cell in enumerate(others, start=1))
        lines.append(el("tr", el("th", first, scope="row"), *cells))
    whole = el("table", el("caption", el("span", caption)), el("thead", el("tr", names)), el("tbody", *lines))
    return el("div", whole, class_="wide", tabindex="0", role="region", aria_label=caption)


def figure(drawing: Html, caption: str) -> Html:
    """A chart with what it shows."""
    return el("figure", drawing, el("figcaption", caption), class_="chart")


def paragraph(*parts: str) -> Html:
    """A paragraph."""
    return el("p", *parts)


def missing(what: str, command: str) -> Html:
    """One sentence instead of an empty box: what is not there, and the command that makes it."""
    return el("p", f"{what} ", el("code", command), " makes it.", class_="missing")
