"""Which triangle each sample of a picture shows: clipping, projection, and filling with a depth buffer.

A picture of w x h pixels has smooth x smooth samples in every pixel. The ground is painted first, in order; then what
stands on it, nearest first by the depth buffer; then shadows, cast along the sun onto the ground.
"""

from __future__ import annotations

from math import ceil, floor, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from drivedistill.world.kernel import kernel
from drivedistill.world.materials import Draw
from drivedistill.world.pictures.triangles import BLOCK, Numbers, Single, Triangles
from drivedistill.world.rig import Camera
from drivedistill.world.track import Floats

NEAR_M = 0.25
"""Nothing nearer to the camera is drawn."""
PAINT, SOLID, SHADOW = 0, 1, 2
"""What drawing a triangle does: cover what is there; cover what is farther away; darken the ground below."""

_CUT_OUT, _TWO_SIDED, _NO_SHADOW = int(Draw.CUT_OUT), int(Draw.TWO_SIDED), int(Draw.NO_SHADOW)


class Grid(NamedTuple):
    """Sample i of a row or column lies (i * stride + first + 1/2) / smooth pixels from the picture's edge."""

    smooth: int
    stride: int = 1
    first: int = 0


class Frame(NamedTuple):
    """What each sample shows."""

    nearness: Single
    """float[rows, columns]: 1 / distance along the viewing direction; 0 in the sky"""
    triangle: Numbers
    """int[rows, columns]: row in `Triangles`; -1 in the sky"""
    shadow: NDArray[np.uint8]
    """uint8[rows, columns]: 1 on shaded ground"""
    corners: Floats
    """float[3, 5]: room for the triangle at hand"""
    polygon: Floats
    """float[4, 5]: room for what of it is in front of the camera"""


def frame(rows: int, columns: int) -> Frame:
    """Buffers, not yet cleared."""
    shape = (rows, columns)
    return Frame(
        nearness=np.empty(shape, np.float32),
        triangle=np.empty(shape, np.int32),
        shadow=np.empty(shape, np.uint8),
        corners=np.empty((3, 5)),
        polygon=np.empty((4, 5)),
    )


def clear(buffers: Frame) -> None:
    """Sky everywhere."""
    buffers.nearness.fill(0.0)
    buffers.triangle.fill(-1)
    buffers.shadow.fill(0)


@kernel
def identify(buffers: Frame, stride: int, first: int, ids: Numbers, mask: Numbers) -> None:
    """Write into the mask int[h, w] the instance id of every `stride`-th sample, beginning with sample `first`."""
    for line in range(mask.shape[0]):
        for column in range(mask.shape[1]):
            row = buffers.triangle[line * stride + first, column * stride + first]
            mask[line, column] = ids[row] if row >= 0 else 0


@kernel
def draw(
    triangles: Triangles,
    spheres: Single,
    rows: tuple[int, int],
    view: Camera,
    grid: Grid,
    mode: int,
    sun: tuple[float, float, float],
    ground: int,
    atlas: NDArray[np.uint8],
    buffers: Frame,
) -> None:
    """Draw the triangles from row rows[0] to row rows[1].

    Args:
        triangles: All triangles; the first `ground` of them lie on the ground.
        spheres: float[blocks, 4] of `triangles.bound`.
        rows: First row, and the row behind the last one.
        view: The camera.
        grid: Where the samples lie.
        mode: PAINT, SOLID or SHADOW.
        sun: Direction to the sun; used by SHADOW.
        ground: Number of ground triangles; used by SHADOW.
        atlas: uint8[h, w, 4], for cut-outs.
        buffers: What is drawn on.
    """
    corners, polygon = buffers.corners, buffers.polygon
    for block in range(rows[0] // BLOCK, (rows[1] + BLOCK - 1) // BLOCK):
        if _out_of_sight(spheres, block, view, mode, sun):
            continue
        for row in range(max(rows[0], block * BLOCK), min(rows[1], (block + 1) * BLOCK)):
            flags = triangles.flags[row]
            if mode == SHADOW and not _casts_shadow(triangles, row, sun):
                continue
            if not _see(triangles, row, view, mode, sun, corners):
                continue
            count = _clip(corners, polygon)
            _project(polygon, count, view)
            for last in range(2, count):
                _fill(polygon, last, row, flags, grid, mode, ground, atlas, buffers)


@kernel
def _casts_shadow(triangles: Triangles, row: int, sun: tuple[float, float, float]) -> bool:
    flags = triangles.flags[row]
    if flags & _NO_SHADOW:
        return False
    x, y, z = triangles.normals[row, 0], triangles.normals[row, 1], triangles.normals[row, 2]
    return (flags & _TWO_SIDED) != 0 or x * sun[0] + y * sun[1] + z * sun[2] > 0.0


@kernel
def _out_of_sight(spheres: Single, block: int, view: Camera, mode: int, sun: tuple[float, float, float]) -> bool:
    """Is the block, or its shadow, outside the picture altogether?"""
    x, y, z = spheres[block, 0], spheres[block, 1], spheres[block, 2]
    radius = spheres[block, 3]
    if mode == SHADOW:
        slant_x, slant_y = sun[0] / sun[2], sun[1] / sun[2]
        x, y, z = x - slant_x * z, y - slant_y * z, 0.0
        radius *= 1.0 + sqrt(slant_x * slant_x + slant_y * slant_y)
    x, y, z = x - view.position[0], y - view.position[1], z - view.position[2]
    axes = view.axes
    right = axes[0, 0] * x + axes[0, 1] * y + axes[0, 2] * z
    down = axes[1, 0] * x + axes[1, 1] * y + axes[1, 2] * z
    ahead = axes[2, 0] * x + axes[2, 1] * y + axes[2, 2] * z
    if ahead + radius < NEAR_M:
        return True
    half_width, half_height = 0.5 * view.width, 0.5 * view.height
    beyond_side = abs(right) * view.fx - ahead * half_width
    beyond_top = abs(down) * view.fy - ahead * half_height
    return (
        beyond_side > radius * sqrt(view.fx * view.fx + half_width * half_width)
        or beyond_top > radius * sqrt(view.fy * view.fy + half_height * half_height)
    )  # fmt: skip


@kernel
def _see(
    triangles: Triangles, row: int, view: Camera, mode: int, sun: tuple[float, float, float], corners: Floats
) -> bool:
    """Write the corners as (right, down, ahead, u, v); may the triangle, or its shadow, be in the picture?"""
    axes, position = view.axes, view.position
    half_width, half_height = 0.5 * view.width, 0.5 * view.height
    behind, left_of, right_of, above, below = 0, 0, 0, 0, 0
    for corner in range(3):
        x = triangles.points[row, corner, 0]
        y = triangles.points[row, corner, 1]
        z = triangles.points[row, corner, 2]
        if mode == SHADOW:
            x, y, z = x - sun[0] / sun[2] * z, y - sun[1] / sun[2] * z, 0.0
        x, y, z = x - position[0], y - position[1], z - position[2]
        right = axes[0, 0] * x + axes[0, 1] * y + axes[0, 2] * z
        down = axes[1, 0] * x + axes[1, 1] * y + axes[1, 2] * z
        ahead = axes[2, 0] * x + axes[2, 1] * y + axes[2, 2] * z
        corners[corner, 0], corners[corner, 1], corners[corner, 2] = right, down, ahead
        corners[corner, 3], corners[corner, 4] = triangles.uv[row, corner, 0], triangles.uv[row, corner, 1]
        behind += ahead < NEAR_M
        left_of += right * view.fx < -ahead * half_width
        right_of += right * view.fx > ahead * half_width
        above += down * view.fy < -ahead * half_height
        below += down * view.fy > ahead * half_height
    return max(behind, left_of, right_of, above, below) < 3


@kernel
def _clip(corners: Floats, polygon: Floats) -> int:
    """What of the triangle lies beyond the near plane: a polygon of 3 or 4 corners; returns how many."""
    count = 0
    for corner in range(3):
        following = (corner + 1) % 3
        here, there = corners[corner, 2], corners[following, 2]
        if here >= NEAR_M:
            for entry in range(5):
                polygon[count, entry] = corners[corner, entry]
            count += 1
        if (here >= NEAR_M) != (there >= NEAR_M):
            part = (NEAR_M - here) / (there - here)
            for entry in range(5):
                polygon[count, entry] = corners[corner, entry] + part * (
                    corners[following, entry] - corners[corner, entry]
                )
            count += 1
    return count


@kernel
def _project(polygon: Floats, count: int, view: Camera) -> None:
    """Turn (right, down, ahead, u, v) into (x, y, 1 / ahead, u / ahead, v / ahead), which are linear in the picture."""
    for corner in range(count):
        nearness = 1.0 / polygon[corner, 2]
        polygon[corner, 0] = polygon[corner, 0] * view.fx * nearness + 0.5 * view.width
        polygon[corner, 1] = polygon[corner, 1] * view.fy * nearness + 0.5 * view.height
        polygon[corner, 2] = nearness
        polygon[corner, 3] *= nearness
        polygon[corner, 4] *= nearness


@kernel
def _opaque(polygon: Floats, last: int, weight_b: float, weight_c: float, atlas: NDArray[np.uint8]) -> bool:
    weight_a = 1.0 - weight_b - weight_c
    nearness = weight_a * polygon[0, 2] + weight_b * polygon[last - 1, 2] + weight_c * polygon[last, 2]
    u = (weight_a * polygon[0, 3] + weight_b * polygon[last - 1, 3] + weight_c * polygon[last, 3]) / nearness
    v = (weight_a * polygon[0, 4] + weight_b * polygon[last - 1, 4] + weight_c * polygon[last, 4]) / nearness
    height, width = atlas.shape[0], atlas.shape[1]
    return atlas[min(max(int(v * height), 0), height - 1), min(max(int(u * width), 0), width - 1), 3] > 127


@kernel
def _fill(
    polygon: Floats,
    last: int,
    row: int,
    flags: int,
    grid: Grid,
    mode: int,
    ground: int,
    atlas: NDArray[np.uint8],
    buffers: Frame,
) -> None:
    """Draw the corners 0, last - 1 and last of the polygon."""
    ax, ay, near_a = polygon[0, 0], polygon[0, 1], polygon[0, 2]
    bx, by = polygon[last - 1, 0] - ax, polygon[last - 1, 1] - ay
    cx, cy = polygon[last, 0] - ax, polygon[last, 1] - ay
    area = bx * cy - by * cx
    if area == 0.0 or (area > 0.0 and mode != SHADOW and (flags & _TWO_SIDED) == 0):
        return
    scale, begin = grid.smooth / grid.stride, (grid.first + 0.5) / grid.stride
    bottom, right_end = buffers.triangle.shape[0] - 1, buffers.triangle.shape[1] - 1
    top = int(max(ceil((ay + min(0.0, by, cy)) * scale - begin), 0.0))
    bottom = int(min(floor((ay + max(0.0, by, cy)) * scale - begin), float(bottom)))
    left = int(max(ceil((ax + min(0.0, bx, cx)) * scale - begin), 0.0))
    right = int(min(floor((ax + max(0.0, bx, cx)) * scale - begin), float(right_end)))
    if top > bottom or left > right:
        return
    # Weights of the corners b and c grow linearly; the weight of a is the rest. Inside, none is negative.
    inverse = 1.0 / area
    b_right, b_down, c_right, c_down = cy * inverse, -cx * inverse, -by * inverse, bx * inverse
    a_right = -b_right - c_right
    to_b, to_c = polygon[last - 1, 2] - near_a, polygon[last, 2] - near_a
    wide = right - left > 5
    for line in range(top, bottom + 1):
        y = (line * grid.stride + grid.first + 0.5) / grid.smooth - ay
        b_line, c_line = b_down * y, c_down * y
        begin_column, end_column = left, right
        if wide:
            low, high = float(left), float(right)
            low, high = _narrowed(low, high, b_line + b_right * (begin / scale - ax), b_right / scale)
            low, high = _narrowed(low, high, c_line + c_right * (begin / scale - ax), c_right / scale)
            low, high = _narrowed(low, high, 1.0 - b_line - c_line + a_right * (begin / scale - ax), a_right / scale)
            begin_column, end_column = max(left, int(low) - 1), min(right, int(high) + 1)
        for column in range(begin_column, end_column + 1):
            x = (column * grid.stride + grid.first + 0.5) / grid.smooth - ax
            weight_b, weight_c = b_line + b_right * x, c_line + c_right * x
            if weight_b < 0.0 or weight_c < 0.0 or weight_b + weight_c > 1.0:
                continue
            nearness = np.float32(near_a + weight_b * to_b + weight_c * to_c)
            if mode == SHADOW:
                seen = 0 <= buffers.triangle[line, column] < ground
            else:
                seen = mode == PAINT or nearness > buffers.nearness[line, column]
            if not seen or (flags & _CUT_OUT and not _opaque(polygon, last, weight_b, weight_c, atlas)):
                continue
            if mode == SHADOW:
                buffers.shadow[line, column] = 1
            else:
                buffers.nearness[line, column] = nearness
                buffers.triangle[line, column] = row


@kernel
def _narrowed(low: float, high: float, start: float, slope: float) -> tuple[float, float]:
    """The part of [low, high] where start + slope * column may be 0 or more."""
    if slope > 0.0:
        return max(low, min(-start / slope, high + 9.0)), high
    if slope < 0.0:
        return low, min(high, max(-start / slope, low - 9.0))
    return (low, high) if start >= 0.0 else (high + 9.0, high)
