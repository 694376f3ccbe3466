"""What would happen if the ego vehicle did something else: simple actions against the true, logged future of the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivedistill.world.action import later
from drivedistill.world.catalogue import KINDS
from drivedistill.world.scene import EGO_SIZE, LANE_M, STEP_S, STEPS, Drive
from drivedistill.world.track import Floats

HORIZON_S = 3.5
CHANGE_S = 2.5
"""Duration of a change of lane."""
NEAR_M = 0.5
"""Two footprints are close if they would overlap, were the ego's larger by this much on each side."""
WAY_STEPS = 3
"""Every which step the others are looked at for the strip before the ego vehicle."""
ROLLING = 3.0
"""m/s from which an ego vehicle can change lanes."""
IN_LANE_M = 0.6
"""Distance from the middle of a lane within which the ego vehicle drives in it."""


@dataclass(frozen=True)
class Primitive:
    """A simple action: a constant acceleration, and perhaps a change of lane."""

    words: str
    acceleration: float
    """m/s^2"""
    lanes: int = 0
    """to the left"""


KEEP, ACCELERATE = 0, 1
PRIMITIVES = (
    Primitive("keep going at the same speed", 0.0),
    Primitive("accelerate and go straight", 2.0),
    Primitive("brake gently", -2.0),
    Primitive("brake suddenly", -6.0),
    Primitive("change to the left lane", 0.0, 1),
    Primitive("change to the right lane", 0.0, -1),
)


@dataclass(frozen=True)
class WhatIf:
    """Outcome of P primitives against A actors; column i belongs to the actor with id i, column 0 is empty."""

    touch: Floats
    """float[P, A + 1]: seconds until the footprints touch; infinite: never within the horizon"""
    near: Floats
    """float[P, A + 1]: seconds until they come close"""
    on_way: tuple[NDArray[np.bool_], NDArray[np.bool_]]
    """bool[A + 1] twice: somebody is on the strip that the ego vehicle drives over when it goes on and accelerates, or
    comes there within the horizon; and the same for a strip with a margin"""
    possible: NDArray[np.bool_]
    """bool[P]: there is a lane to change to"""
    lawful: tuple[bool | None, ...]
    """Per primitive: it stays in lanes of its direction and stops where it must; None: hard to say."""

    def collides(self, primitive: int, actor: int) -> bool | None:
        """Does it? None: it is close."""
        if np.isfinite(self.touch[primitive, actor]):
            return True
        return None if np.isfinite(self.near[primitive, actor]) else False

    def in_path(self, actor: int) -> bool | None:
        """Is it on the ego vehicle's way, now or within the horizon? None: it is close."""
        surely, perhaps = (bool(strip[actor]) for strip in self.on_way)
        return True if surely else None if perhaps else False

    def colliding(self, actor: int) -> list[int] | None:
        """The possible primitives that lead to a collision; None if one of them is close."""
        outcomes = [(index, self.collides(index, actor)) for index in np.flatnonzero(self.possible).tolist()]
        if any(outcome is None for _, outcome in outcomes):
            return None
        return [index for index, outcome in outcomes if outcome]


def what_if(drive: Drive, step: int) -> WhatIf | None:
    """Roll every primitive out; None in or before a turn and between lanes, where "straight on" means nothing.

    Vehicles that follow the ego vehicle are taken to react to it: only a change of lane can make them collide.
    """
    if is_turning(drive, step):
        return None
    turned = bool(np.any(drive.turning[:step]))
    offset = float(drive.offsets[step])
    lane = round(-offset / LANE_M - 0.5)
    in_lane = 0 <= lane < drive.scene.road.lanes and abs(offset - drive.scene.road.lane(lane)) < IN_LANE_M
    if not in_lane and not turned:
        return None
    travelled = _travelled(float(drive.speeds[0, step]))
    path = _logged_path(drive, step, travelled) if turned else _lane_path(drive, step, travelled)
    neighbours = _neighbours(drive, step, lane, turned)
    touch, near = _first_contacts(drive, step, path)
    return WhatIf(
        touch,
        near,
        _on_way(drive, step, path[ACCELERATE]),
        np.array([not item.lanes or neighbours[item.lanes] is not None for item in PRIMITIVES]),
        tuple(
            _lawful(drive, step, far, neighbours[item.lanes] if item.lanes else True)
            for item, far in zip(PRIMITIVES, travelled[:, -1].tolist(), strict=True)
        ),
    )


def is_turning(drive: Drive, step: int) -> bool:
    """Is the ego vehicle in a turn at a junction, or about to start one?"""
    return bool(np.any(drive.turning[step : later(step, HORIZON_S) + 1]))


def _travelled(speed: float) -> Floats:
    """float[P, T]: metres along the path after each step of the horizon."""
    times = np.arange(round(HORIZON_S / STEP_S) + 1) * STEP_S
    accelerations = np.array([item.acceleration for item in PRIMITIVES])[:, None]
    until = np.where(accelerations < 0, speed / np.maximum(-accelerations, 1e-9), np.inf)
    moving = np.minimum(times, until)
    return speed * moving + accelerations / 2 * moving**2


def _lane_path(drive: Drive, step: int, travelled: Floats) -> Floats:
    """float[P, T, 3]: poses along the lane, with the changes of lane."""
    times = np.arange(travelled.shape[1]) * STEP_S
    lanes = np.array([item.lanes for item in PRIMITIVES])[:, None]
    s, d = drive.scene.road.track.project(*drive.poses[0, step, :2])
    part = np.clip(times / CHANGE_S, 0, 1)
    sideways = lanes * LANE_M / CHANGE_S * (part < 1)
    yaw = np.arctan2(sideways, max(float(drive.speeds[0, step]), ROLLING))
    return np.stack(drive.scene.road.track.world(s + travelled, d + lanes * LANE_M * part, yaw), axis=-1)


def _logged_path(drive: Drive, step: int, travelled: Floats) -> Floats:
    """float[P, T, 3]: poses along the way that the ego vehicle took; after its end straight on."""
    poses = drive.poses[0, step:]
    lengths = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(poses[:, :2], axis=0).T))])
    x, y, yaw = (np.interp(travelled, lengths, values) for values in poses.T)
    beyond = np.maximum(travelled - lengths[-1], 0.0)
    return np.stack([x + np.cos(yaw) * beyond, y + np.sin(yaw) * beyond, yaw], axis=-1)


def _neighbours(drive: Drive, step: int, lane: int, turned: bool) -> dict[int, bool | None]:
    """Lanes to the left (1) and right (-1): True of its own direction, False of the other one, None: there is none."""
    if turned or drive.speeds[0, step] < ROLLING:
        return {1: None, -1: None}
    road = drive.scene.road
    left: bool | None = True if lane > 0 else False if road.opposite else None
    return {1: left, -1: True if lane + 1 < road.lanes else None}


def _first_contacts(drive: Drive, step: int, path: Floats) -> tuple[Floats, Floats]:
    """Seconds until rectangles overlap, without and with a margin around the ego's: float[P, A + 1] twice."""
    steps = np.minimum(step + np.arange(path.shape[1]), STEPS - 1)
    others, halves = drive.poses[:, steps], _halves(drive)
    offsets = others[None, :, :, :2] - path[:, None, :, :2]
    close = (offsets**2).sum(-1) < _reach(halves)[None, :, None] ** 2
    close[:, 0] = False
    followers = [actor.id for actor in drive.scene.actors if _follows(drive, step, actor.id)]
    straight = [index for index, item in enumerate(PRIMITIVES) if not item.lanes]
    close[np.ix_(straight, followers)] = False
    primitive, actor, time = np.nonzero(close)
    contacts = []
    for margin in (0.0, NEAR_M):
        overlap = _overlap(
            offsets[primitive, actor, time],
            path[primitive, time, 2],
            others[actor, time, 2],
            halves[0] + margin,
            halves[actor],
        )
        contact = np.full((len(PRIMITIVES), len(halves)), np.inf)
        np.minimum.at(contact, (primitive[overlap], actor[overlap]), time[overlap] * STEP_S)
        contacts.append(contact)
    return contacts[0], contacts[1]


def _on_way(drive: Drive, step: int, path: Floats) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Who overlaps the strip along `path` float[T, 3] at some time of the horizon, without and with a margin."""
    steps = np.minimum(step + np.arange(0, len(path), WAY_STEPS), STEPS - 1)
    others, halves = drive.poses[:, steps], _halves(drive)
    offsets = others[None, :, :, :2] - path[:, None, None, :2]
    close = (offsets**2).sum(-1) < _reach(halves)[None, :, None] ** 2
    close[:, [0, *(actor.id for actor in drive.scene.actors if _follows(drive, step, actor.id))]] = False
    place, actor, time = np.nonzero(close)
    strips = []
    for margin in (0.0, NEAR_M):
        overlap = _overlap(
            offsets[place, actor, time], path[place, 2], others[actor, time, 2], halves[0] + margin, halves[actor]
        )
        strips.append(np.bincount(actor[overlap], minlength=len(halves)) > 0)
    return strips[0], strips[1]


def _halves(drive: Drive) -> Floats:
    """Half lengths and widths, the ego's first: float[A + 1, 2]."""
    return np.array([EGO_SIZE, *(KINDS[actor.kind].size for actor in drive.scene.actors)])[:, :2] / 2


def _reach(halves: Floats) -> Floats:
    """Distance of the middles below which footprints may come close to the ego's: float[A + 1]."""
    return np.asarray(np.hypot(*(halves[0] + NEAR_M)) + np.hypot(*halves.T))


def _follows(drive: Drive, step: int, actor: int) -> bool:
    """Is it behind the ego vehicle, with the same heading?"""
    x, _, yaw = drive.seen_from_ego(actor, step)
    return x < -EGO_SIZE[0] / 2 and abs(yaw) < np.pi / 4


def _overlap(offset: Floats, yaw: Floats, other_yaw: Floats, half: Floats, other_half: Floats) -> NDArray[np.bool_]:
    """bool[n]: do rectangles overlap? Two do unless their shadows on one of their four axes are apart."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    other_cos, other_sin = np.cos(other_yaw), np.sin(other_yaw)
    aligned, crossed = np.abs(np.cos(other_yaw - yaw)), np.abs(np.sin(other_yaw - yaw))
    x, y = offset.T
    length, width = half
    other_length, other_width = other_half.T
    return np.asarray(
        (np.abs(cos * x + sin * y) < length + other_length * aligned + other_width * crossed)
        & (np.abs(cos * y - sin * x) < width + other_length * crossed + other_width * aligned)
        & (np.abs(other_cos * x + other_sin * y) < other_length + length * aligned + width * crossed)
        & (np.abs(other_cos * y - other_sin * x) < other_width + length * crossed + width * aligned)
    )


def _lawful(drive: Drive, step: int, travelled: float, own_direction: bool | None) -> bool | None:
    """Stays in its direction's lanes, and does not pass a red light or stop sign."""
    if not own_direction:
        return False
    line, junction = drive.scene.road.stop_line, drive.scene.road.junction
    s = float(drive.scene.road.track.project(*drive.poses[0, step, :2])[0])
    front = s + EGO_SIZE[0] / 2
    if line is None or junction is None or is_past(drive, step) or junction.control == "priority road":
        return True
    over = front + travelled - line
    if over < -1.0:
        return True
    if junction.control == "stop sign":
        return False if over > 1.0 and front < line - 3.0 else None
    signals = set(drive.signals[step : later(step, HORIZON_S) + 1])
    if signals == {"green"}:
        return True
    return False if over > 1.0 and signals == {"red"} else None


def is_past(drive: Drive, step: int) -> bool:
    """Has the front of the ego vehicle passed the stop line of the junction, or is there none?"""
    line = drive.scene.road.stop_line
    s = float(drive.scene.road.track.project(*drive.poses[0, step, :2])[0])
    return line is None or bool(np.any(drive.turning[: step + 1])) or s + EGO_SIZE[0] / 2 > line + 1.0
