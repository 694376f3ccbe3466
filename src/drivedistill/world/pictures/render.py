"""A drive as its six cameras see it: build the place once, move the actors, take pictures."""

from __future__ import annotations

from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from drivedistill.world import meshes
from drivedistill.world.catalogue import KINDS
from drivedistill.world.meshes import atlas
from drivedistill.world.pictures.lamps import (
    has_headlights_on,
    nearest,
    signal_glows,
    signal_lamps,
    vehicle_glows,
    vehicle_lamps,
)
from drivedistill.world.pictures.look import look
from drivedistill.world.pictures.snapshot import Model, masks, snapshot
from drivedistill.world.pictures.triangles import BLOCK, Single, Triangles, bound, empty, from_mesh, joined, place
from drivedistill.world.scene import STANDING, STEP_S, Actor, Drive
from drivedistill.world.surroundings import surroundings
from drivedistill.world.views import Views

FARTHEST_M = 120.0
"""Actors farther away are not drawn."""
STRIDE_M = {"person": 1.4, "animal": 1.6, "cyclist": 4.0}
"""Metres that are covered in one turn of the legs; other families have none."""


class Renderer:
    """Renders steps of one drive."""

    def __init__(self, drive: Drive) -> None:
        scene = drive.scene
        place_around = surroundings(scene)
        ground = from_mesh(place_around.ground, 0, place_around.ground_seeds)
        standing = from_mesh(place_around.standing, place_around.standing_ids, place_around.standing_seeds)
        self._drive, self._look = drive, look(scene.conditions, scene.seed)
        self._ground, self._static = len(ground.flags), joined([ground, standing])
        self._lamps, self._glows = place_around.lamps, place_around.glows
        self._walked = np.cumsum(drive.speeds, axis=1) * STEP_S
        self._triangles, self._spheres = self._static, _spheres(self._static)

    def views(self, step: int, width: int, height: int, *, smooth: int = 2, pictures: bool = True) -> Views:
        """The six cameras at a step.

        Args:
            step: Of the drive's log.
            width: Of the pictures, pixels.
            height: Of the pictures, pixels; a picture that is not 16:9 is squeezed.
            smooth: Samples per pixel along each axis.
            pictures: False gives the same instance masks and no pictures, several times faster.
        """
        ego = self._drive.poses[0, step]
        model = self._model(step)
        if not pictures:
            return masks(model, ego, width, height, smooth=smooth)
        seed = int(np.random.default_rng([self._drive.scene.seed, step, 72]).integers(1 << 30))
        return snapshot(model, ego, self._look, width, height, smooth=smooth, seed=seed)

    def _model(self, step: int) -> Model:
        drive, ego = self._drive, self._drive.poses[0, step]
        near = [actor for actor in drive.scene.actors if self._distance(actor, step) < FARTHEST_M]
        shapes = [self._shape(actor, step) for actor in near]
        discs = signal_lamps(drive.signals[step])
        count = sum(len(shape.flags) for shape in shapes) + len(drive.scene.heads) * len(discs.flags)
        row = actors = len(self._static.flags)
        self._room(count)
        for actor, shape in zip(near, shapes, strict=True):
            x, y, yaw = (float(value) for value in drive.poses[actor.id, step])
            self._place(row, shape, (x, y, 0.0), yaw, actor.id, actor.seed)
            row += len(shape.flags)
        for head in drive.scene.heads:
            self._place(row, discs, (head.x, head.y, head.z), head.facing, head.id, 0)
            row += len(discs.flags)
        bound(self._triangles.points, actors, row, self._spheres)
        lamps = nearest(np.concatenate([self._lamps, vehicle_lamps(drive, step)]), ego)
        glows = np.concatenate([self._glows, vehicle_glows(drive, step), signal_glows(drive, step)])
        return Model(self._triangles, self._spheres, self._ground, actors, row, lamps, glows, _atlas())

    def _distance(self, actor: Actor, step: int) -> float:
        x, y = self._drive.poses[actor.id, step, :2] - self._drive.poses[0, step, :2]
        return float(np.hypot(x, y))

    def _place(
        self, row: int, shape: Triangles, at: tuple[float, float, float], yaw: float, instance: int, seed: int
    ) -> None:
        where = float(at[0]), float(at[1]), float(at[2])
        place(self._triangles, row, shape, where, float(np.cos(yaw)), float(np.sin(yaw)), instance, seed & 0xFFFF)

    def _room(self, count: int) -> None:
        """Make room for this many triangles behind the static ones."""
        if len(self._static.flags) + count > len(self._triangles.flags):
            self._triangles = joined([self._static, empty(count + count // 2)])
            self._spheres = _spheres(self._triangles)

    def _shape(self, actor: Actor, step: int) -> Triangles:
        family = KINDS[actor.kind].family
        stride, phase = STRIDE_M.get(family), 0.0
        if stride and self._drive.speeds[actor.id, step] > STANDING:
            turns = self._walked[actor.id, step] / stride + actor.seed % 7 / 7
            phase = round(float(turns % 1.0) * 2 * np.pi, 1)
        return _shape(
            actor.kind,
            actor.colour,
            # Vehicles of one colour look alike, but for the carter; one seed lets them share a mesh.
            0 if family == "vehicle" and actor.kind != "horse cart" else actor.seed,
            phase,
            self._drive.braking(actor.id, step),
            int(self._drive.indicators[actor.id, step]),
            has_headlights_on(self._drive, actor),
        )


def _spheres(triangles: Triangles) -> Single:
    rows = len(triangles.flags)
    spheres: Single = np.zeros((rows // BLOCK + 1, 4), np.float32)
    bound(triangles.points, 0, rows, spheres)
    return spheres


@lru_cache(maxsize=512)
def _shape(
    kind: str, colour: str, seed: int, phase: float, braking: bool, indicator: int, headlights: bool
) -> Triangles:
    mesh = meshes.make(kind, colour, seed, phase=phase, braking=braking, indicator=indicator, headlights=headlights)
    return from_mesh(mesh)


@cache
def _atlas() -> NDArray[np.uint8]:
    return atlas.build()
