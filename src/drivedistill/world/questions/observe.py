"""What the cameras see: which actors, lights and signs, where in the pictures, how far away, and what they do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from drivedistill.world.action import later
from drivedistill.world.catalogue import KINDS, name
from drivedistill.world.pictures.lamps import has_headlights_on
from drivedistill.world.questions.masks import Appearance, Patch, appearance, hidden, measure
from drivedistill.world.questions.motion import AHEAD_S, future, moves, status
from drivedistill.world.rig import RIG
from drivedistill.world.scene import Actor, Drive, Head, Sign
from drivedistill.world.views import Views

REFERENCE = 224 * 224
MIN_PIXELS, MIN_PIXELS_AT_REFERENCE = 6, 24
"""A smaller patch is not seen; the second number counts after scaling to 224 x 224."""
MIN_CONTRAST = 9.0
"""Grey levels: what stands out less is lost in fog or darkness."""
KIND_PIXELS = 100
"""Pixels at 224 x 224 from which a sedan can be told from a hatchback."""
COLOUR_CONTRAST, COLOUR_BRIGHTNESS = 14.0, 35.0
"""Grey levels of the middling pixel from which paint has a colour."""
DAZZLING = Appearance(float("inf"), 0.0, 255.0)
DAZZLES_WITHIN = 0.8
"""Cosine of the angle between a vehicle's direction and the line from its headlights to the camera that they dazzle."""
MIN_HEAD_HEIGHT, MIN_SIGN_HEIGHT = 6, 8
"""Pixels"""

SECTORS = ("front", "front left", "left", "back left", "back", "back right", "right", "front right")
"""Counter-clockwise, 45 degrees each, the first one around straight ahead."""
ALIKE = {
    "sedan": "car",
    "SUV": "car",
    "hatchback": "car",
    "taxi": "car",
    "police car": "car",
    "child": "pedestrian",
    "construction worker": "pedestrian",
}
"""Kinds that look alike from afar, and what they are called then."""
FAMILY_NAMES = {
    "vehicle": "vehicle",
    "cyclist": "two-wheeler",
    "person": "person",
    "animal": "animal",
    "debris": "object",
    "works": "object",
}
"""What can be said when little more than lamps or a shade is seen."""
SIGN_NAMES = {
    "stop": "stop sign",
    "dirty stop": "dirty stop sign",
    "speed 30": "speed limit sign",
    "speed 50": "speed limit sign",
    "speed 80": "speed limit sign",
    "works": "road works sign",
    "crosswalk": "crosswalk sign",
    "yield": "yield sign",
    "merge": "merge sign",
}


class Place(NamedTuple):
    """Where something is: metres and radians in the ego's frame, metres on the main track."""

    x: float
    y: float
    yaw: float
    s: float
    d: float


@dataclass(frozen=True)
class Seen:
    """Something that can be seen well enough to be asked about."""

    id: int
    kind: str
    """A key of `catalogue.KINDS`, `traffic light`, or the kind of a sign."""
    name: str
    """What people call it, as far as it can be made out: "red sedan", "red car", "sedan", "vehicle", "green light"."""
    colour: str
    """Of its paint; empty if it is not painted, or too dark, faint or small to tell."""
    camera: str
    """The camera that shows most of it."""
    box: tuple[float, float, float, float]
    """x0, y0, x1, y1 in pixels of that camera's picture"""
    pixels: Mapping[str, int]
    """Camera -> pixels, at least one"""
    place: Place
    distance: float
    """Metres from the middle of the ego vehicle to the nearest point of its footprint."""
    speed: float = 0.0
    """m/s"""
    moving: bool | None = None
    """None: too slow to tell, or no actor."""
    status: str | None = None
    """Moving status, e.g. `Going ahead.`; None: not to be told, or no actor."""
    future: str | None = None
    """What it does within three seconds; None: not to be foreseen, or no actor."""
    hidden: float = 0.0
    """Share of its shape that nearer actors hide"""
    hidden_by: int = 0
    """Id of the actor that hides most of it; 0: none"""

    @property
    def is_actor(self) -> bool:
        """A traffic light or sign is none."""
        return self.kind in KINDS

    @property
    def family(self) -> str:
        """Family of its kind, or `traffic element`, as DriveLM calls lights and signs."""
        return KINDS[self.kind].family if self.is_actor else "traffic element"

    @property
    def middle(self) -> tuple[float, float]:
        """Middle of its box: the point that names it."""
        x0, y0, x1, y1 = self.box
        return (x0 + x1) / 2, (y0 + y1) / 2

    @property
    def sector(self) -> str:
        """Where it is, seen from the ego vehicle."""
        return SECTORS[round(self._angle / 45) % 8]

    @property
    def off_front(self) -> float:
        """Degrees between straight ahead and the direction to it, at most 180."""
        return abs(self._angle)

    @property
    def _angle(self) -> float:
        return float(np.degrees(np.arctan2(self.place.y, self.place.x)))


def observe(
    drive: Drive, step: int, views: Views, patches: Mapping[int, Mapping[str, Patch]] | None = None
) -> list[Seen]:
    """Everything that can be seen in one step, by id.

    Args:
        drive: The drive.
        step: When.
        views: What the cameras show; without pictures, everything large enough counts as seen.
        patches: `measure(views)`, if it is known.
    """
    patches = measure(views) if patches is None else patches
    elements: dict[int, Head | Sign] = {item.id: item for item in drive.scene.heads}
    elements |= {item.id: item for item in drive.scene.signs}
    largest = {instance: max(where, key=lambda camera: where[camera].pixels) for instance, where in patches.items()}
    looks = {
        instance: appearance(views, camera, instance, patches[instance][camera])
        for instance, camera in largest.items()
        if _large_enough(patches[instance][camera], elements.get(instance), views.size)
    }
    visible = [instance for instance, look in looks.items() if look.contrast >= MIN_CONTRAST]
    places, shifts = _places(drive, step, visible, elements)
    seen = []
    for instance in visible:
        camera, place = largest[instance], places[instance]
        x0, y0, x1, y1 = map(float, patches[instance][camera].box)
        pixels = {other: item.pixels for other, item in patches[instance].items()}
        kind, called = _called(drive, step, instance, elements.get(instance))
        away = float(np.hypot(place.x, place.y))
        item = Seen(instance, kind, called, "", camera, (x0, y0, x1, y1), pixels, place, away)
        seen.append(
            _with_motion(drive, step, views, item, looks[instance], shifts[instance]) if item.is_actor else item
        )
    return seen


def _with_motion(drive: Drive, step: int, views: Views, item: Seen, look: Appearance, shift: float) -> Seen:
    """An actor with all that is known about it; `shift` as in `motion.future`."""
    actor = drive.scene.actors[item.id - 1]
    size = item.pixels[item.camera] * REFERENCE / (views.size[0] * views.size[1])
    look = DAZZLING if _dazzles(drive, actor, item.camera, item.place) else look
    noun, colour = called_as(actor.kind, actor.colour, look, size)
    share, occluder = hidden(drive, step, views, item.camera, item.id)
    return replace(
        item,
        name=noun,
        colour=colour,
        distance=_distance(item.place, KINDS[actor.kind].size),
        speed=float(drive.speeds[item.id, step]),
        moving=moves(drive, item.id, step),
        status=status(drive, item.id, step, size),
        future=future(drive, item.id, step, shift),
        hidden=share,
        hidden_by=occluder,
    )


def _large_enough(patch: Patch, element: Head | Sign | None, size: tuple[int, int]) -> bool:
    """Lights and signs must be high enough to be read, everything else large enough to be recognised."""
    height = patch.box[3] - patch.box[1]
    if isinstance(element, Head):
        return height >= MIN_HEAD_HEIGHT
    if isinstance(element, Sign):
        return height >= MIN_SIGN_HEIGHT
    return patch.pixels >= MIN_PIXELS and patch.pixels * REFERENCE / (size[0] * size[1]) >= MIN_PIXELS_AT_REFERENCE


def _dazzles(drive: Drive, actor: Actor, camera: str, place: Place) -> bool:
    """At night, headlights that shine into the camera hide what is behind them."""
    if drive.scene.conditions.light != "night" or not has_headlights_on(drive, actor):
        return False
    cos, sin, half = np.cos(place.yaw), np.sin(place.yaw), KINDS[actor.kind].size[0] / 2
    dx, dy = RIG[camera].x - place.x - cos * half, RIG[camera].y - place.y - sin * half
    return bool(cos * dx + sin * dy > DAZZLES_WITHIN * np.hypot(dx, dy))


def called_as(kind: str, colour: str, look: Appearance, pixels: float) -> tuple[str, str]:
    """Name and colour of an actor, as far as they can be made out.

    Args:
        kind: A key of `catalogue.KINDS`.
        colour: Of its paint.
        look: How it stands out.
        pixels: How large it is, scaled to a picture of 224 x 224.
    """
    if look.body < MIN_CONTRAST:
        return FAMILY_NAMES[KINDS[kind].family], ""
    noun = kind if pixels >= KIND_PIXELS else ALIKE.get(kind, kind)
    shows = look.body >= COLOUR_CONTRAST and look.brightness >= COLOUR_BRIGHTNESS
    return (f"{colour} {noun}", colour) if KINDS[kind].painted and shows else (noun, "")


def _called(drive: Drive, step: int, instance: int, element: Head | Sign | None) -> tuple[str, str]:
    """Kind, and name as far as the log knows it."""
    if isinstance(element, Head):
        return "traffic light", f"{drive.signals[step] or 'dark'} light"
    if isinstance(element, Sign):
        return element.kind, SIGN_NAMES[element.kind]
    actor = drive.scene.actors[instance - 1]
    return actor.kind, name(actor.kind, actor.colour)


def _places(
    drive: Drive, step: int, instances: list[int], elements: Mapping[int, Head | Sign]
) -> tuple[dict[int, Place], dict[int, float]]:
    """Where everybody is, and by how much an actor moves to the left of the main track within three seconds."""
    poses = np.array(
        [
            (elements[instance].x, elements[instance].y, elements[instance].facing)
            if instance in elements
            else drive.poses[instance, step]
            for instance in instances
        ]
    ).reshape(-1, 3)
    after = np.array(
        [
            pose[:2] if instance in elements else drive.poses[instance, later(step, AHEAD_S), :2]
            for instance, pose in zip(instances, poses, strict=True)
        ]
    ).reshape(-1, 2)
    s, d = drive.scene.road.track.project(np.stack([poses[:, 0], after[:, 0]]), np.stack([poses[:, 1], after[:, 1]]))
    ego = drive.poses[0, step]
    cos, sin = np.cos(ego[2]), np.sin(ego[2])
    dx, dy = poses[:, 0] - ego[0], poses[:, 1] - ego[1]
    yaws = np.pi - (np.pi - (poses[:, 2] - ego[2])) % (2 * np.pi)
    columns = zip(cos * dx + sin * dy, cos * dy - sin * dx, yaws, s[0], d[0], strict=True)
    places = {instance: Place(*map(float, row)) for instance, row in zip(instances, columns, strict=True)}
    return places, dict(zip(instances, (d[1] - d[0]).tolist(), strict=True))


def _distance(place: Place, size: tuple[float, float, float]) -> float:
    """From the middle of the ego vehicle to the nearest point of a footprint."""
    cos, sin = np.cos(place.yaw), np.sin(place.yaw)
    along, beside = abs(cos * place.x + sin * place.y), abs(cos * place.y - sin * place.x)
    return float(np.hypot(max(0.0, along - size[0] / 2), max(0.0, beside - size[1] / 2)))
