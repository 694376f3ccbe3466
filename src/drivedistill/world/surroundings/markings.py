"""What is painted on the asphalt: lane lines, stop lines, zebra crossings, arrows.

The world lies in no country. It mixes conventions on purpose, as models meet data of many countries: yellow lines divide
directions as in America, and stand beside Europe's zebra crossings and round speed limits (see `meshes.atlas`).
"""

from __future__ import annotations

import numpy as np

from drivedistill.world.materials import Material
from drivedistill.world.meshes.shape import Colour
from drivedistill.world.scene import LANE_M
from drivedistill.world.surroundings.ground import Painter
from drivedistill.world.surroundings.layout import TAPER_M, Layout, Way
from drivedistill.world.track import Floats

WHITE, YELLOW = (0.78, 0.78, 0.76), (0.72, 0.52, 0.06)
SOLID, DASHED, LONG_DASHED, SHORT_DASHED = (0.0, 0.0), (3.0, 6.0), (4.0, 8.0), (2.0, 2.0)
"""Lengths of paint and gap in metres."""
BAR_M, BAR_SPACING_M = 0.5, 1.05
"""Of a zebra crossing."""
NO_LINES_M = 9.0
"""Lane lines end this far from the middle of a junction."""


def lay_markings(painter: Painter, layout: Layout) -> None:
    """Paint all markings of a scene."""
    _main_lines(painter, layout)
    road = layout.scene.road
    if road.merge is not None:
        _acceleration_lane(painter, layout, *road.merge)
    if road.crosswalk is not None:
        _zebra(painter, layout.main, road.crosswalk, 1.5, (layout.main.right + 0.4, layout.main.left - 0.4))
    if layout.cross is not None:
        _junction(painter, layout, layout.cross)


def _line(
    painter: Painter,
    way: Way,
    span: tuple[float, float],
    d: float,
    dashes: tuple[float, float] = SOLID,
    colour: Colour = WHITE,
    width: float = 0.14,
) -> None:
    """A line along the road, left out at junctions by giving its spans one by one."""
    begin, end = np.array([span[0]]), np.array([span[1]])
    if dashes != SOLID:
        begin = np.arange(span[0], span[1] - dashes[0], sum(dashes))
        end = begin + dashes[0]
    if len(begin) and span[1] > span[0]:
        painter.strip(way, (begin, end), (d - width / 2, d + width / 2), Material.PAINT, colour)


def _main_lines(painter: Painter, layout: Layout) -> None:
    road, main = layout.scene.road, layout.main
    spans = [(main.begin, main.end)]
    closed = [side for side in (-1, 1) if not layout.has_arm(side)]
    if road.junction is not None:
        middle = road.junction.s
        spans = [(main.begin, middle - NO_LINES_M), (middle + NO_LINES_M, main.end)]
    dashes = LONG_DASHED if road.type == "highway" else DASHED
    edge = 0.08 if road.type in ("highway", "rural") else 0.0
    for span in spans:
        for index in range(1, road.lanes):
            _line(painter, main, span, -index * LANE_M, dashes)
        for index in range(1, road.opposite):
            _line(painter, main, span, index * LANE_M, dashes)
        _centre_line(painter, layout, span)
    for side, d in ((-1, road.right + edge), (1, road.left - edge)):
        if side < 0 or road.opposite:
            for span in [(main.begin, main.end)] if side in closed else spans:
                for part in _without_merge(layout, span) if side < 0 else [span]:
                    _line(painter, main, part, d)
    if road.type == "highway" and not road.opposite:
        _far_carriageway(painter, layout)


def _without_merge(layout: Layout, span: tuple[float, float]) -> list[tuple[float, float]]:
    """The parts of a span that have no acceleration lane beside them."""
    merge = layout.scene.road.merge
    return [span] if merge is None else [(span[0], merge[0] - TAPER_M), (merge[1], span[1])]


def _centre_line(painter: Painter, layout: Layout, span: tuple[float, float]) -> None:
    road, main = layout.scene.road, layout.main
    if not road.opposite:
        _line(painter, main, span, 0.05, colour=YELLOW, width=0.15)
    elif road.lanes == 1 and layout.scene.seed % 2:
        _line(painter, main, span, 0.0, (3.0, 5.0), YELLOW)
    else:
        for d in (-0.12, 0.12):
            _line(painter, main, span, d, colour=YELLOW)


def _far_carriageway(painter: Painter, layout: Layout) -> None:
    main = layout.main
    span, inner = (main.begin, main.end), main.left - 1.6 - 3 * LANE_M
    _line(painter, main, span, inner, colour=YELLOW)
    _line(painter, main, span, inner + 3 * LANE_M)
    for index in (1, 2):
        _line(painter, main, span, inner + index * LANE_M, LONG_DASHED)


def _acceleration_lane(painter: Painter, layout: Layout, begin: float, end: float) -> None:
    main, road = layout.main, layout.scene.road
    _line(painter, main, (begin, end - 4.0), road.right, SHORT_DASHED, width=0.25)
    s = np.concatenate([np.linspace(begin - TAPER_M, begin, 5), [end - TAPER_M, end]])
    edge = layout.right_edge(s + 1e-6) + road.margin
    painter.strip(
        main,
        (s[:-1], s[1:]),
        (edge[:-1] - 0.07, edge[:-1] + 0.07, edge[1:] - 0.07, edge[1:] + 0.07),
        Material.PAINT,
        WHITE,
    )


def _bars(from_d: float, to_d: float) -> tuple[Floats, Floats]:
    """Right and left edges of the bars of a zebra crossing."""
    right = np.arange(from_d, to_d - BAR_M, BAR_SPACING_M)
    return right, right + BAR_M


def _zebra(painter: Painter, way: Way, s: float, half: float, d: tuple[float, float]) -> None:
    painter.strip(way, (s - half, s + half), _bars(*d), Material.PAINT, WHITE)


def _junction(painter: Painter, layout: Layout, cross: Way) -> None:
    road, main = layout.scene.road, layout.main
    junction = road.junction
    assert junction is not None
    lit, walked = junction.control == "lights", bool(road.pavement)
    if walked:
        for toward in (-7.4, 7.4):
            _zebra(painter, main, junction.s + toward, 1.25, (main.right + 0.4, main.left - 0.4))
    if junction.control != "priority road":
        _bar(painter, main, junction.s - 9.2, (road.right, -0.2))
        if road.opposite:
            _bar(painter, main, junction.s + 8.75, (0.2, road.left))
    for side in (-1, 1):
        if layout.has_arm(side):
            _arm(painter, layout, cross, side, walked=walked)
    if lit or road.lanes > 1:
        for lane in range(road.lanes):
            _arrow(painter, layout, road.lane(lane), lane)


def _bar(painter: Painter, way: Way, s: float, d: tuple[float, float]) -> None:
    painter.strip(way, (s, s + 0.45), d, Material.PAINT, WHITE)


def _arm(painter: Painter, layout: Layout, cross: Way, side: int, *, walked: bool) -> None:
    """Zebra, stop or give-way line, and centre line of one arm of the cross road."""
    edge = layout.main.left if side > 0 else -layout.main.right
    if walked:
        _zebra(painter, cross, side * (edge + 1.6), 1.25, (cross.right + 0.4, cross.left - 0.4))
    stop = side * (edge + (3.4 if walked else 0.6)) - (0.45 if side < 0 else 0.0)
    inner, outer = (0.2, LANE_M) if side > 0 else (-LANE_M, -0.2)
    if layout.scene.road.junction is not None and layout.scene.road.junction.control == "lights":
        _bar(painter, cross, stop, (inner, outer))
    else:
        right = np.arange(inner, outer - 0.4, 0.7)
        painter.strip(cross, (stop, stop + 0.45), (right, right + 0.4), Material.PAINT, WHITE)
    spans = sorted((side * (edge + 5.0), side * 110.0))
    _line(painter, cross, (spans[0], spans[1]), 0.0, (3.0, 5.0), YELLOW)


def _arrow(painter: Painter, layout: Layout, d: float, lane: int) -> None:
    """Straight on; in the outer lanes of several also to the arm beside."""
    road, main = layout.scene.road, layout.main
    tip = (road.stop_line or 0.0) - 4.5
    painter.strip(main, (tip - 3.6, tip - 1.2), (d - 0.09, d + 0.09), Material.PAINT, WHITE)
    painter.strip(main, (tip - 1.2, tip), (d - 0.32, d + 0.32, d, d), Material.PAINT, WHITE)
    side = 1 if lane == 0 else -1
    if lane in (0, road.lanes - 1) and road.lanes > 1 and layout.has_arm(side):
        inner, outer, head = d, d + side * 0.5, d + side * 1.0
        painter.strip(main, (tip - 2.9, tip - 2.7), (min(inner, outer), max(inner, outer)), Material.PAINT, WHITE)
        painter.strip(main, (tip - 3.1, tip - 2.8), (outer, outer, outer, head), Material.PAINT, WHITE)
        painter.strip(main, (tip - 2.8, tip - 2.5), (outer, head, outer, outer), Material.PAINT, WHITE)
