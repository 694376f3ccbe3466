"""One contact sheet per kind of scene, large enough for people to look at."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

from drivedistill.world.action import action
from drivedistill.world.dataset.plan import moments
from drivedistill.world.driving.drive import drive_scene
from drivedistill.world.driving.kinds import CORNER, REGULAR
from drivedistill.world.pictures.render import Renderer
from drivedistill.world.pictures.sheet import sheet
from drivedistill.world.scene import Drive

WIDTH = 480


def write_sheets(folder: Path, seed: int, *, width: int = WIDTH) -> Iterator[Path]:
    """Write `KIND.png` for every kind: a scene of the seed, at a moment that shows what the kind is about.

    Args:
        folder: Created if it is missing.
        seed: Of the scenes.
        width: Of each of the six pictures, in pixels; they are 16:9.

    Yields:
        Each file as it is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for kind in REGULAR + CORNER:
        drive = next(filter(None, (drive_scene(kind, seed + number) for number in count())))
        step = _telling(drive)
        views = Renderer(drive).views(step, width, width * 9 // 16)
        path = folder / f"{kind}.png"
        sheet(views, _caption(drive, step), width=width).save(path)
        yield path


def _telling(drive: Drive) -> int:
    """The step that shows most: the hazard well in view, or the middle of what is not straight on."""
    steps = moments(drive)
    hazards = [actor.id for actor in drive.scene.actors if actor.hazard]
    if drive.scene.corner and hazards:
        return min(steps, key=lambda step: abs(min(drive.seen_from_ego(hazard, step)[0] for hazard in hazards) - 14.0))
    turned = [step for step in steps if action(drive, step).lateral != "go straight"] or steps
    return turned[len(turned) // 2]


def _caption(drive: Drive, step: int) -> str:
    scene, done = drive.scene, action(drive, step)
    conditions = f"{scene.conditions.weather}, {scene.conditions.light}"
    return (
        f"{scene.kind}: {scene.road.type}, {conditions}; {drive.speeds[0, step]:.0f} m/s; {done.lateral}, "
        f"{done.longitudinal} ({drive.decisions[step].reason}); seed {scene.seed}"
    )
