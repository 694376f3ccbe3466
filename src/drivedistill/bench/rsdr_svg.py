"""The RSDR over the threshold as a picture: one staircase per model, with lines at 80 and 100 ms. SVG by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from drivedistill.evaluate.realtime import THRESHOLDS_MS

WIDTH = 760
_LEFT, _TOP, _RIGHT, _BOTTOM = 64, 48, 744, 380
_ENTRY = 20
"""Height of an entry of the legend."""
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito's palette: told apart by everybody."""
_DASHES = ("", "7 4", "2 3", "10 3 2 3")


def rsdr_svg(thresholds_ms: Sequence[float], rsdr: Mapping[str, Sequence[float]]) -> str:
    """Draw the curves.

    Args:
        thresholds_ms: T thresholds, rising and above 0.
        rsdr: Model -> its RSDR at each threshold, T fractions.
    """
    low, high = thresholds_ms[0] / 1.25, thresholds_ms[-1] * 1.25
    top = _top(max(max(values) for values in rsdr.values()))

    def x(ms: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * math.log(ms / low) / math.log(high / low)

    def y(share: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * share / top

    height = _BOTTOM + 64 + _ENTRY * len(rsdr)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        _text(_LEFT, 22, "Answers that are right and in time (RSDR), % of all", size=15),
        _text((_LEFT + _RIGHT) / 2, _BOTTOM + 42, "threshold, ms (logarithmic)", anchor="middle"),
    ]
    for step in range(5):
        share = top * step / 4
        parts += [_line(_LEFT, y(share), _RIGHT, y(share), "#dddddd")]
        parts += [_text(_LEFT - 8, y(share) + 4, f"{100 * share:g}", anchor="end")]
    for ms in _ticks(low, high):
        parts += [_line(x(ms), _BOTTOM, x(ms), _BOTTOM + 5, "#333333")]
        parts += [_text(x(ms), _BOTTOM + 20, f"{ms:g}", anchor="middle")]
    for ms, anchor, shift in zip(THRESHOLDS_MS, ("end", "start"), (-4, 4), strict=True):
        parts += [_line(x(ms), _TOP, x(ms), _BOTTOM, "#888888", "4 4")]
        parts += [_text(x(ms) + shift, _TOP - 6, f"{ms} ms", anchor=anchor, colour="#555555")]
    for i, (name, values) in enumerate(rsdr.items()):
        colour, dash = _COLOURS[i % len(_COLOURS)], _DASHES[i % len(_DASHES)]
        points = f"M{_LEFT},{y(0):.1f}"
        for ms, value in zip(thresholds_ms, values, strict=True):
            points += f"H{x(ms):.1f}V{y(value):.1f}"
        parts.append(
            f'<path d="{points}H{_RIGHT}" fill="none" stroke="{colour}" stroke-width="2.5" stroke-dasharray="{dash}"/>'
        )
        at = _BOTTOM + 64 + _ENTRY * i
        parts += [_line(_LEFT, at, _LEFT + 36, at, colour, dash, 2.5)]
        parts += [_text(_LEFT + 46, at + 4, f"{name} (right, however late: {100 * values[-1]:.1f} %)")]
    return "\n".join([*parts, _line(_LEFT, _BOTTOM, _RIGHT, _BOTTOM, "#333333"), "</svg>", ""])


def _top(highest: float) -> float:
    """Upper end of the share's axis: of round quarters."""
    return next(end for end in (0.04, 0.08, 0.12, 0.2, 0.4, 0.6, 0.8, 1.0) if highest <= end)


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten between the ends."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [step * 10.0**power for power in powers for step in (1, 2, 5) if low <= step * 10.0**power <= high]


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, dash: str = "", width: float = 1) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width:g}" '
        f'stroke-dasharray="{dash}"/>'
    )


def _text(x: float, y: float, text: str, anchor: str = "start", size: int = 13, colour: str = "#222222") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">{escape(text)}</text>'
    )
