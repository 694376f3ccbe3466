"""Small drives for tests: a straight road along x, everybody at constant speed, and pictures of boxes."""

from dataclasses import dataclass, replace

import numpy as np

from drivedistill.records import CAMERAS
from drivedistill.world.catalogue import KINDS
from drivedistill.world.rig import camera
from drivedistill.world.scene import (
    STEP_S,
    STEPS,
    Actor,
    Conditions,
    Decision,
    Drive,
    Head,
    Junction,
    Road,
    Scene,
    Sign,
)
from drivedistill.world.track import lay
from drivedistill.world.views import Views

LANE = -1.75
"""d of the ego's lane: the left one of two."""


@dataclass(frozen=True)
class Made:
    """An actor of a made drive: at (x, d) in step 0, with constant speed and heading."""

    kind: str
    x: float
    d: float
    speed: float = 0.0
    yaw: float = 0.0
    role: str = "traffic"
    colour: str = "red"
    indicator: int = 0
    acceleration: float = 0.0
    """As logged (for brake lights); the speed stays constant."""
    hazard: bool = False


def straight_drive(
    actors: list[Made],
    *,
    speed: float = 10.0,
    d: float = LANE,
    seed: int = 0,
    weather: str = "clear",
    light: str = "day",
    heads: tuple[Head, ...] = (),
    signs: tuple[Sign, ...] = (),
    signal: str | None = None,
    junction: Junction | None = None,
    decision: Decision = Decision("free"),  # noqa: B008
    opposite: int = 2,
) -> Drive:
    """The ego drives along x with constant speed on a straight road with two lanes in each direction."""
    road = Road("urban", lay([(600.0, 0.0)], start=-200.0), 2, opposite, 13.0, junction)
    named = tuple(
        Actor(number, made.kind, made.colour, number, made.role, made.hazard)
        for number, made in enumerate(actors, start=1)
    )
    scene = Scene(
        "follow", "follow", seed, False, Conditions(weather, light, True), road, named, heads=heads, signs=signs
    )
    everybody = [Made("sedan", 0.0, d, speed), *actors]

    def constant(values: list[float]) -> np.ndarray:
        return np.repeat(np.array(values)[:, None], STEPS, axis=1)

    return Drive(
        scene=scene,
        poses=np.array([_poses(made) for made in everybody]),
        speeds=constant([made.speed for made in everybody]),
        accelerations=constant([made.acceleration for made in everybody]),
        indicators=constant([made.indicator for made in everybody]).astype(np.int8),
        offsets=np.full(STEPS, d),
        turning=np.zeros(STEPS, np.int8),
        signals=(signal,) * STEPS,
        decisions=(decision,) * STEPS,
    )


def _poses(made: Made) -> np.ndarray:
    """float[STEPS, 3] of somebody at constant speed."""
    gone = made.speed * np.arange(STEPS) * STEP_S
    x, y = made.x + np.cos(made.yaw) * gone, made.d + np.sin(made.yaw) * gone
    return np.stack([x, y, np.full(STEPS, made.yaw)], axis=1)


def boxes(drive: Drive, step: int = 0, size: int = 64) -> Views:
    """Pictures in which every actor is its box, and every head or sign a board, in a grey of its own on black."""
    names = np.arange(size) + 0.5
    columns, rows = np.meshgrid(names, names)
    pictures, instances = {}, {}
    solids = [(actor.id, *drive.poses[actor.id, step], 0.0, KINDS[actor.kind].size) for actor in drive.scene.actors] + [
        (item.id, item.x, item.y, item.facing, item.z, (0.1, 0.7, 1.2))
        for item in (*drive.scene.heads, *drive.scene.signs)
    ]
    for name in CAMERAS:
        view = camera(name, drive.poses[0, step], size, size)
        on_sensor = np.stack([(columns - size / 2) / view.fx, (rows - size / 2) / view.fy, np.ones_like(columns)], -1)
        rays = on_sensor @ view.axes
        nearest, ids = np.full((size, size), np.inf), np.zeros((size, size), np.int32)
        for number, x, y, yaw, z, extent in solids:
            depth = _enter(rays, view.position - (x, y, z), yaw, extent)
            ids = np.where(depth < nearest, number, ids)
            nearest = np.minimum(nearest, depth)
        instances[name] = ids.astype(np.int32)
        grey = np.where(ids > 0, 100 + ids % 100, 0).astype(np.uint8)
        pictures[name] = np.repeat(grey[..., None], 3, axis=2)
    return Views(pictures, instances)


def dimmed(views: Views, instance: int, grey: int) -> Views:
    """The same views with one instance painted in another grey."""
    pictures = {name: picture.copy() for name, picture in views.pictures.items()}
    for name, picture in pictures.items():
        picture[views.instances[name] == instance] = grey
    return replace(views, pictures=pictures)


def _enter(rays: np.ndarray, start: np.ndarray, yaw: float, extent: tuple[float, float, float]) -> np.ndarray:
    cos, sin = np.cos(yaw), np.sin(yaw)
    turn = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    rays, start = rays @ turn.T, turn @ start
    low = np.array([-extent[0] / 2, -extent[1] / 2, 0.0])
    high = np.array([extent[0] / 2, extent[1] / 2, extent[2]])
    with np.errstate(divide="ignore", invalid="ignore"):
        first, second = (low - start) / rays, (high - start) / rays
    enter, leave = np.minimum(first, second).max(-1), np.maximum(first, second).min(-1)
    return np.where((enter < leave) & (enter > 0.1), enter, np.inf)
