"""Paths as a page shows them. A page is handed on, and where somebody's folders lie is nobody else's business."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

_END = r"""\s"',;\]})|<>"""
_PIECE = rf"(?:[^:{_END}]|:(?![/\\]))"
_WORD = rf"[^:/\\{_END}]+"
_ABSOLUTE = re.compile(
    rf"""
    (?P<url> (?<![\w+.-])(?!file:)[A-Za-z][\w+.-]*://(?!/)[^{_END}]* )  # `https://host/page` stays
    |
    (?P<before> (?<!\S)-[A-Za-z](?=/) | (?<![\w.~/\\)\]}}*+%$-]) )     # `-o/home/jo`; no part of `a/b`, `./b`, `$X/b`
    (?P<alone> (?<![^=:"']) )?                                         # or behind `root=`: its folders may have spaces
    (?: file:(?://[\w.-]*)?(?=/) )?
    (?P<path>
        (?: /?[A-Z]:[\\/] | /+(?=[\w.@~]) | [a-z]:\\ | \\\\(?=\w) ) {_PIECE}*
        (?(alone) (?: [ ]+(?=(?:{_WORD}[ ]+)*{_WORD}[/\\]) {_PIECE}+ )* )
    )
    """,
    re.VERBOSE,
)
"""A path from the root on, wherever it stands: a whole text, behind `root=`, in a list, between words."""


def shown_path(path: str, roots: Sequence[Path]) -> str:
    """A path relative to the outermost root that holds it; of any other absolute path its name alone.

    Args:
        path: As somebody wrote it down; a relative one stays as it is.
        roots: The folders in which those lie that the page is about.
    """
    pure: PurePath = Path(path)
    if not pure.is_absolute():
        pure = PureWindowsPath(path)  # a page may be made on another machine than the run
        return (pure.name or path) if pure.is_absolute() else path
    holding = [root for root in roots if pure.is_relative_to(root)]
    if holding:
        return pure.relative_to(min(holding, key=lambda root: len(root.parts))).as_posix()
    return pure.name or path


def shown_text(text: str, roots: Sequence[Path]) -> str:
    """A text with every absolute path in it, `file://` ones too, as `shown_path` has it; addresses elsewhere stay."""
    return _ABSOLUTE.sub(lambda found: found["url"] or found["before"] + shown_path(found["path"], roots), text)


def shown_command(text: str, roots: Sequence[Path]) -> str:
    """A command line as one types it: the program's own path is this package's, other paths are as `shown_text` has them.

    Args:
        text: Words as `shlex.join` wrote them, or with a space between each two.
        roots: See `shown_path`.
    """
    try:
        words = shlex.split(text)
        quoted = shlex.join(words) == text
    except ValueError:  # a quotation mark that is none
        quoted = False
    if not quoted:
        words = text.split(" ")
    words = ["drivedistill", *(shown_text(word, roots) for word in words[1:])]
    return shlex.join(words) if quoted else " ".join(words)


def shown_tree(value: Any, roots: Sequence[Path]) -> Any:
    """Nested dicts and lists with every text in them as `shown_text` has it."""
    if isinstance(value, dict):
        return {key: shown_tree(item, roots) for key, item in value.items()}
    if isinstance(value, list):
        return [shown_tree(item, roots) for item in value]
    return shown_text(value, roots) if isinstance(value, str) else value
