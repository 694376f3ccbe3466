"""Boxes on a road, drawn and hashed: `python box_world.py` prints the hash of their pictures and masks."""

import hashlib

import numpy as np

from drivedistill.records import CAMERAS
from drivedistill.world.materials import Draw, Material
from drivedistill.world.meshes.shape import Mesh
from drivedistill.world.pictures.look import look
from drivedistill.world.pictures.snapshot import Model, snapshot
from drivedistill.world.pictures.triangles import BLOCK, bound, from_mesh, joined
from drivedistill.world.scene import Conditions

FLAT = int(Draw.GROUND | Draw.TWO_SIDED | Draw.NO_SHADOW)
STILL = np.zeros(3)
"""The ego in the origin, looking along x."""
FACES = [[0, 1, 3, 2], [4, 5, 7, 6], [0, 1, 5, 4], [2, 3, 7, 6], [0, 2, 6, 4], [1, 3, 7, 5]]


def quads(corners, material, colour, flags, uv=((0, 0), (1, 0), (1, 1), (0, 1))):
    """A mesh of quadrilaterals float[n, 4, 3]."""
    halves = [[0, 1, 2], [0, 2, 3]]
    points = np.asarray(corners, float)[:, halves].reshape(-1, 3, 3)
    count = len(points)
    return Mesh(
        points,
        np.tile(np.asarray(uv, float)[halves], (count // 2, 1, 1)),
        np.full(count, flags, np.int64),
        np.full(count, material, np.int64),
        np.tile(np.asarray(colour, float), (count, 1)),
    )


def flat(x, y, material=Material.ASPHALT, colour=(0.1, 0.1, 0.1)):
    """A rectangle on the ground, with texture coordinates in metres."""
    corners = [[(x[0], y[0], 0), (x[1], y[0], 0), (x[1], y[1], 0), (x[0], y[1], 0)]]
    return quads(corners, material, colour, FLAT, np.array(corners[0])[:, :2])


def corners(x, y, z):
    """The eight corners float[8, 3] of a box."""
    return np.array([(a, b, c) for a in x for b in y for c in z], float)


def box(x, y, z, material=Material.MATT, colour=(0.5, 0.1, 0.1), flags=Draw.TWO_SIDED):
    """A box between two values of x, y and z each."""
    return quads(corners(x, y, z)[FACES], material, colour, int(flags))


def model(boxes=(), ground=(), lamps=(), glows=()):
    """Ground, and boxes with the instance ids 1, 2, ..., all of which may move."""
    floor = flat((-300.0, 300.0), (-300.0, 300.0), Material.GRASS, (0.08, 0.12, 0.04))
    below = [from_mesh(mesh) for mesh in (floor, *ground)]
    above = [from_mesh(mesh, number, number) for number, mesh in enumerate(boxes, start=1)]
    triangles = joined([*below, *above])
    rows, first = len(triangles.flags), sum(len(part.flags) for part in below)
    spheres = np.zeros((rows // BLOCK + 1, 4), np.float32)
    bound(triangles.points, 0, rows, spheres)
    lamps, glows = np.array(lamps, float).reshape(-1, 7), np.array(glows, float).reshape(-1, 10)
    atlas = np.full((4, 4, 4), 255, np.uint8)
    return Model(triangles, spheres, first, first, rows, lamps, glows, atlas)


def street():
    """A road, houses, boxes of several materials, a brake light and a street lamp."""
    road = flat((-100.0, 200.0), (-7.0, 7.0))
    line = flat((-60.0, 90.0), (-0.1, 0.1), Material.PAINT, (0.78, 0.78, 0.76))
    house = box((-20.0, 60.0), (12.0, 20.0), (0.0, 12.0), Material.FACADE, (0.4, 0.3, 0.25))
    cars = [
        box((x - 2.3, x + 2.3), (y - 0.9, y + 0.9), (0.2, 1.5), material, colour)
        for x, y, material, colour in (
            (12.0, -2.0, Material.CAR, (0.55, 0.03, 0.03)),
            (25.0, 2.0, Material.GLASS, (0.03, 0.05, 0.06)),
            (8.0, 5.0, Material.BARRIER, (0.75, 0.3, 0.05)),
            (-9.0, -3.0, Material.WOOD, (0.3, 0.2, 0.1)),
            (4.0, -6.0, Material.TEXTURE, (1.0, 0.9, 0.8)),
        )
    ]
    lamps = [(20.0, 5.0, 6.8, 1.0, 0.74, 0.42, 7.0)]
    glows = [(9.6, -2.5, 0.8, 1.0, 0.05, 0.03, 0.17, 0.9, -1.0, 0.0), (20.0, 5.0, 7.0, 1.0, 0.7, 0.4, 0.35, 0.75, 0, 0)]
    return model([house, *cars], [road, line], lamps, glows)


def fingerprint(views):
    """SHA-256 of all pixels and masks."""
    digest = hashlib.sha256()
    for camera in CAMERAS:
        digest.update(views.pictures[camera].tobytes())
        digest.update(views.instances[camera].astype("<i4").tobytes())
    return digest.hexdigest()


def weathers():
    """One fingerprint for the street under several skies."""
    digest = hashlib.sha256()
    for weather, light in (("clear", "day"), ("rain", "night"), ("snow", "dusk"), ("fog", "day")):
        views = snapshot(street(), STILL, look(Conditions(weather, light, True), 5), 64, 48, seed=3)
        digest.update(fingerprint(views).encode())
    return digest.hexdigest()


if __name__ == "__main__":
    print(weathers())
