"""Charts: points lie where their numbers say."""

import itertools
import re

import pytest

from drivedistill.report.charts import Axis, Bar, Curve, Point, bars, lines, scatter
from drivedistill.report.markup import Html, el, join

NAMES = {"title": "t", "desc": "d", "x_label": "x", "y_label": "y"}


def test_axis_is_straight_or_logarithmic():
    straight, log = Axis(0, 10, 0, 100), Axis(2, 200, 0, 100, log=True)
    assert [straight.at(value) for value in (0, 5, 10)] == [0, 50, 100]
    assert [log.at(value) for value in (2, 20, 200)] == [0, 50, 100]
    assert Axis(3, 3, 0, 100).at(3) == 50  # a single value lies in the middle


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0.03), (0, 2500), (17, 93), (-4, 4)])
def test_ticks_are_few_round_and_inside(low, high):
    ticks = Axis(low, high, 0, 1).ticks()
    assert 2 <= len(ticks) <= 7
    assert all(low <= tick <= high for tick in ticks)
    assert len({round(b - a, 9) for a, b in itertools.pairwise(ticks)}) <= 1


def test_higher_values_are_drawn_higher():
    drawing = lines([Curve("a", [0, 1, 2], [1, 3, 2], 0)], **NAMES)
    heights = [float(y) for _, y in re.findall(r"([\d.]+) ([\d.]+)(?=L|\")", re.search(r'd="M([^"]+")', drawing)[1])]
    assert heights[1] < heights[2] < heights[0]


def test_bars_are_as_long_as_their_values():
    drawing = bars({"": [Bar("a", 10, "10"), Bar("b", 20, "20")]}, title="t", desc="d")
    first, second = (float(width) for width in re.findall(r'width="([\d.]+)" height="14"', drawing))
    assert second == pytest.approx(2 * first, rel=0.01)


def test_points_have_names_that_do_not_cover_each_other():
    drawing = scatter([Point(10, 50, f"model {i}", i) for i in range(4)], **NAMES)
    places = re.findall(r'<text x="([\d.-]+)" y="([\d.-]+)"[^>]*class="halo"', drawing)
    heights = sorted(float(y) for _, y in places)
    assert len(places) == 4
    assert all(b - a > 12 for a, b in itertools.pairwise(heights))


def test_text_is_escaped_and_markup_is_not():
    assert el("p", "<b>", Html("<i>"), title='"') == '<p title="&quot;">&lt;b&gt;<i></p>'
    assert join(["&", Html("&amp;")]) == "&amp;&amp;"
    assert el("input", hidden=True, value=None, data_x=2.5) == '<input hidden data-x="2.5">'
