"""Tables whose columns are straight, as plain text and as Markdown, and a number with its interval in one cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def plain(lines: Sequence[Sequence[str]]) -> list[str]:
    """One text per line: the first column set to the left, the others to the right.

    Args:
        lines: Cells, equally many in every line.
    """
    return ["  ".join(line).rstrip() for line in _padded(lines, 1)]


def markdown(lines: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table that also reads well in a terminal; the first line is the head.

    Args:
        lines: Cells, equally many in every line.
        left: So many columns are set to the left, the others to the right.
    """
    widths = _widths(lines)
    rule = ["-" * width for width in widths[:left]] + ["-" * (width - 1) + ":" for width in widths[left:]]
    head, *rest = _padded(lines, left)
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *rest))


def with_interval(value: float, low: float | None, high: float | None, form: str) -> str:
    """`1.2 [0.9, 1.5]`; the value alone where there is no interval.

    Args:
        value: The number.
        low: Where its interval begins.
        high: Where its interval ends.
        form: How Python formats all three, such as `+.2f`.
    """
    text = format(value, form)
    return text if low is None or high is None else f"{text} [{format(low, form)}, {format(high, form)}]"


def _padded(lines: Sequence[Sequence[str]], left: int) -> Iterator[list[str]]:
    """The cells, as wide as their columns."""
    widths = _widths(lines)
    for line in lines:
        yield [
            cell.ljust(width) if number < left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*lines, strict=True)]
