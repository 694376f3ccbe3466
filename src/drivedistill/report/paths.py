"""Paths as a page shows them. A page is handed on, and where somebody's folders lie is nobody else's business."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

_ABSOLUTE = re.compile(r"(?<![\w.:/~-])(?:/|[A-Za-z]:[\\/])[^\"',\]}]*")
"""A path from the root on, as a word or within one: behind `root=`, in a list; but not in `https://host/page`."""


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


def shown_command(text: str, roots: Sequence[Path]) -> str:
    """A command line as one types it: the program's own path is this package's, other paths are as `shown_path` has them.

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
    words = ["drivedistill", *(_ABSOLUTE.sub(lambda found: shown_path(found[0], roots), word) for word in words[1:])]
    return shlex.join(words) if quoted else " ".join(words)


def shown_tree(value: Any, roots: Sequence[Path]) -> Any:
    """Nested dicts and lists with every text in them as `shown_path` has it."""
    if isinstance(value, dict):
        return {key: shown_tree(item, roots) for key, item in value.items()}
    if isinstance(value, list):
        return [shown_tree(item, roots) for item in value]
    return shown_path(value, roots) if isinstance(value, str) else value
