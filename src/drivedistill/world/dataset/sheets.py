"""One contact sheet per kind of scene, and all front pictures on one, large enough for people to look at."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from drivedistill.world.action import action
from drivedistill.world.dataset.plan import moments
from drivedistill.world.driving.drive import drive_scene
from drivedistill.world.driving.kinds import CORNER, REGULAR
from drivedistill.world.pictures.render import Renderer
from drivedistill.world.pictures.sheet import sheet
from drivedistill.world.scene import Drive

WIDTH = 480
COLUMNS = 6
"""Of the overview, whose tiles are half as wide."""
WELL_IN_VIEW = 0.04
"""Share of the front picture."""


def write_sheets(folder: Path, seed: int, *, width: int = WIDTH) -> Iterator[Path]:
    """Write `KIND.png` for every kind: a scene of the seed, at a moment that shows what the kind is about.

    The last file is `overview.png`: the front pictures of all kinds.

    Args:
        folder: Created if it is missing.
        seed: Of the scenes.
        width: Of each of the six pictures, in pixels; they are 16:9.

    Yields:
        Each file as it is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fronts = {}
    for kind in REGULAR + CORNER:
        drive = next(filter(None, (drive_scene(kind, seed + number) for number in count())))
        renderer = Renderer(drive)
        step = _telling(drive, renderer)
        views = renderer.views(step, width, width * 9 // 16)
        fronts[kind] = Image.fromarray(views.pictures["CAM_FRONT"])
        sheet(views, _caption(drive, step), width=width).save(folder / f"{kind}.png")
        yield folder / f"{kind}.png"
    _overview(fronts, width // 2).save(folder / "overview.png")
    yield folder / "overview.png"


def _overview(pictures: dict[str, Image.Image], width: int) -> Image.Image:
    """A table of pictures with their names."""
    height = width * 9 // 16
    whole = Image.new("RGB", (COLUMNS * width, -(-len(pictures) // COLUMNS) * height))
    for number, (name, picture) in enumerate(pictures.items()):
        corner = (number % COLUMNS * width, number // COLUMNS * height)
        whole.paste(picture.resize((width, height), Image.Resampling.LANCZOS), corner)
        write = ImageDraw.Draw(whole)
        write.text(
            (corner[0] + 5, corner[1] + 3), name.replace("_", " "), (255, 255, 255), stroke_width=2, stroke_fill=0
        )
    return whole


def _telling(drive: Drive, renderer: Renderer) -> int:
    """The step that shows most: what the scene is about in front and well in view, or the middle of a manoeuvre."""
    steps, scene = moments(drive), drive.scene
    turned = [step for step in steps if action(drive, step).lateral != "go straight"]
    subjects = [actor.id for actor in scene.actors if actor.hazard]
    if scene.kind == "obscured_sign":
        subjects = [sign.id for sign in scene.signs]
    if not subjects or (turned and not scene.corner):
        return (turned or steps)[len(turned or steps) // 2]
    small = {step: renderer.views(step, 96, 54, pictures=False).instances["CAM_FRONT"] for step in steps}
    return min(steps, key=lambda step: abs(float(np.isin(small[step], subjects).mean()) - WELL_IN_VIEW))


def _caption(drive: Drive, step: int) -> str:
    scene, done = drive.scene, action(drive, step)
    conditions = f"{scene.conditions.weather}, {scene.conditions.light}"
    return (
        f"{scene.kind}: {scene.road.type}, {conditions}; {drive.speeds[0, step]:.0f} m/s; {done.lateral}, "
        f"{done.longitudinal} ({drive.decisions[step].reason}); seed {scene.seed}"
    )
