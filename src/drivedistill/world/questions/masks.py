"""Instance masks in numbers: how many pixels of whom lie where, how they stand out, and what hides them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from drivedistill.world.catalogue import KINDS
from drivedistill.world.rig import Camera, camera, project
from drivedistill.world.scene import HEAD_IDS, Drive
from drivedistill.world.track import Floats
from drivedistill.world.views import Views

RING = 3
"""Pixels around a box with which its content is compared."""
NEARER_M = 0.3
"""What hides something is nearer to the camera by at least this much."""


class Patch(NamedTuple):
    """What one camera sees of one instance."""

    pixels: int
    box: tuple[int, int, int, int]
    """x0, y0, x1, y1; x1 and y1 are the first column and row after it"""


class Appearance(NamedTuple):
    """How an instance looks, in grey levels (0-255)."""

    contrast: float
    """Largest difference of the mean colours of it and its surroundings over the channels, plus half of its own
    largest deviation"""
    body: float
    """By how much its middling pixel differs from the surroundings: small where only lamps are seen"""
    brightness: float
    """Of its middling pixel"""


def measure(views: Views) -> dict[int, dict[str, Patch]]:
    """Instance id -> camera -> its patch, for every instance with at least one pixel; ids ascending."""
    found: dict[int, dict[str, Patch]] = {}
    for name, instances in views.instances.items():
        rows, columns = np.nonzero(instances)
        ids = instances[rows, columns]
        order = np.argsort(ids, kind="stable")
        ids, rows, columns = ids[order], rows[order], columns[order]
        unique, starts, counts = np.unique(ids, return_index=True, return_counts=True)
        if not len(unique):
            continue
        boxes = [ufunc.reduceat(values, starts) for ufunc in (np.minimum, np.maximum) for values in (columns, rows)]
        for index, instance in enumerate(unique.tolist()):
            x0, y0, x1, y1 = (int(box[index]) for box in boxes)
            found.setdefault(instance, {})[name] = Patch(int(counts[index]), (x0, y0, x1 + 1, y1 + 1))
    return dict(sorted(found.items()))


def appearance(views: Views, name: str, instance: int, patch: Patch) -> Appearance:
    """How an instance stands out from the ring around it; as clear as can be without a picture."""
    clear = Appearance(float("inf"), float("inf"), 255.0)
    if name not in views.pictures:
        return clear
    x0, y0, x1, y1 = patch.box
    window = np.s_[max(0, y0 - RING) : y1 + RING, max(0, x0 - RING) : x1 + RING]
    colours, own = views.pictures[name][window].astype(np.float64), views.instances[name][window] == instance
    inside, around = colours[own], colours[~own]
    if not len(around):
        return clear
    mean, ring = inside.sum(0) / len(inside), around.sum(0) / len(around)
    deviation = np.sqrt(np.maximum((inside**2).sum(0) / len(inside) - mean**2, 0))
    return Appearance(
        float(np.abs(mean - ring).max() + 0.5 * deviation.max()),
        _median(np.abs(inside - ring).max(1)),
        _median(inside.max(1)),
    )


def _median(values: Floats) -> float:
    """The upper median; numpy's costs ten times as much for so few values."""
    return float(np.sort(values)[len(values) // 2])


def hidden(drive: Drive, step: int, views: Views, name: str, actor: int) -> tuple[float, int]:
    """The share of an actor that nearer actors hide in one picture, and who hides most of it (0: nobody).

    The actor's shape is taken to be its box: rays through the pixels are cut with it. What buildings, trees or the
    border of the picture hide does not count.
    """
    instances = views.instances[name]
    height, width = instances.shape
    view = camera(name, drive.poses[0, step], width, height)
    window = _window(view, drive, step, actor)
    if window is None:
        return 0.0, 0
    around = instances[window]
    others = (around != actor) & (around > 0) & (around < HEAD_IDS)
    if not others.any():
        return 0.0, 0
    rows, columns = np.nonzero(np.ones_like(around))
    depths = _depths(view, columns + window[1].start, rows + window[0].start, drive, step, actor)
    inside = np.isfinite(depths)
    covering, total = inside & others[rows, columns], int(inside.sum())
    best, shares = 0, {0: 0}
    for other in np.unique(around[rows[covering], columns[covering]]).tolist():
        where = covering & (around[rows, columns] == other)
        nearer = _depths(view, columns[where] + window[1].start, rows[where] + window[0].start, drive, step, other)
        nearer = nearer[np.isfinite(nearer)]
        if len(nearer) and np.median(nearer) < np.median(depths[where]) - NEARER_M:
            shares[other] = int(where.sum())
            best = other if shares[other] > shares[best] else best
    return sum(shares.values()) / max(total, 1), best


def _window(view: Camera, drive: Drive, step: int, actor: int) -> tuple[slice, slice] | None:
    """Rows and columns of the picture that can show the actor's box; None if the camera looks elsewhere."""
    length, wide, high = KINDS[drive.scene.actors[actor - 1].kind].size
    x, y, yaw = drive.poses[actor, step]
    corners = np.array([(a, b, c) for a in (-length / 2, length / 2) for b in (-wide / 2, wide / 2) for c in (0, high)])
    cos, sin = np.cos(yaw), np.sin(yaw)
    turned = corners @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]) + (x, y, 0)
    pixels, depths = project(view, turned)
    if (depths < 0.1).any():  # partly beside or behind the camera: anywhere
        return slice(0, view.height), slice(0, view.width)
    low = np.clip(np.floor(pixels.min(0)), 0, (view.width, view.height)).astype(int)
    top = np.clip(np.ceil(pixels.max(0)), 0, (view.width, view.height)).astype(int)
    if (low >= top).any():
        return None
    return slice(int(low[1]), int(top[1])), slice(int(low[0]), int(top[0]))


def _depths(
    view: Camera, columns: NDArray[np.int64], rows: NDArray[np.int64], drive: Drive, step: int, actor: int
) -> Floats:
    """float[n]: depth at which the rays through the middles of n pixels enter the actor's box; infinite: not at all."""
    length, wide, high = KINDS[drive.scene.actors[actor - 1].kind].size
    x, y, yaw = drive.poses[actor, step]
    on_sensor = np.stack(
        [
            (columns + 0.5 - view.width / 2) / view.fx,
            (rows + 0.5 - view.height / 2) / view.fy,
            np.ones(len(columns)),
        ],
        axis=1,
    )
    cos, sin = np.cos(yaw), np.sin(yaw)
    into_box = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
    rays = on_sensor @ view.axes @ into_box.T
    start = into_box @ (view.position - (x, y, 0.0))
    rays = np.where(np.abs(rays) < 1e-9, 1e-9, rays)
    first = (np.array([-length / 2, -wide / 2, 0.0]) - start) / rays
    second = (np.array([length / 2, wide / 2, high]) - start) / rays
    enter, leave = np.minimum(first, second).max(1), np.maximum(first, second).min(1)
    return np.where((enter < leave) & (leave > 0), np.maximum(enter, 0.0), np.inf)
