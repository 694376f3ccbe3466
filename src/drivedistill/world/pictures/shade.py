"""The light that every pixel receives: its samples' triangles, shaded by material and weather."""

from __future__ import annotations

from math import sqrt

import numpy as np
from numpy.typing import NDArray

from drivedistill.world.kernel import kernel
from drivedistill.world.materials import Material
from drivedistill.world.pictures.light import beam, daylight, lamplight, lamps_in_sight
from drivedistill.world.pictures.look import Colour, Look
from drivedistill.world.pictures.raster import Frame
from drivedistill.world.pictures.sky import background, clarity, dome, mixed
from drivedistill.world.pictures.surface import Spot, Surface, has_texture, snowed, surface
from drivedistill.world.pictures.triangles import Single, Triangles
from drivedistill.world.rig import Camera
from drivedistill.world.track import Floats

_ASPHALT, _TEXTURE = int(Material.ASPHALT), int(Material.TEXTURE)
BRIGHTEST = 3.0
"""A sample counts as at most this much, so that a lamp's edge is not jagged."""


@kernel
def shade(
    buffers: Frame,
    view: Camera,
    smooth: int,
    triangles: Triangles,
    look: Look,
    lamps: Floats,
    ego: Floats,
    atlas: NDArray[np.uint8],
    near_lamps: Floats,
    picture: Single,
) -> None:
    """Fill the picture float[height, width, 3] with linear radiance.

    A pixel is shaded once for every triangle it shows, in the middle of the samples that show it.

    Args:
        buffers: What the samples show; smooth x smooth of them per pixel.
        view: The camera.
        smooth: Samples per pixel along each axis.
        triangles: All triangles.
        look: Weather and light.
        lamps: float[n, 7]: x, y, z, red, green, blue, strength.
        ego: x, y of the ego, cosine and sine of its heading.
        atlas: uint8[h, w, 4].
        near_lamps: Like `lamps`; room for those that light something in the picture.
        picture: Written.
    """
    lit = lamps_in_sight(lamps, view, near_lamps)
    samples = smooth * smooth
    for y in range(view.height):
        for x in range(view.width):
            for channel in range(3):
                picture[y, x, channel] = 0.0
            done, sample = 0, 0
            for line in range(y * smooth, (y + 1) * smooth):
                for column in range(x * smooth, (x + 1) * smooth):
                    if (done >> sample) & 1 == 0:
                        done, count, nearness, right, down = _alike(buffers, line, column, x, y, smooth, done)
                        ray_x = ((right + 0.5) / smooth - 0.5 * view.width) / view.fx
                        ray_y = ((down + 0.5) / smooth - 0.5 * view.height) / view.fy
                        row, shaded = buffers.triangle[line, column], buffers.shadow[line, column] > 0
                        colour = _radiance(
                            row, shaded, nearness, ray_x, ray_y, view, triangles, look, near_lamps, lit, ego, atlas
                        )
                        part = count / samples
                        for channel in range(3):
                            picture[y, x, channel] += part * min(colour[channel], BRIGHTEST)
                    sample += 1


@kernel
def _alike(
    buffers: Frame, line: int, column: int, x: int, y: int, smooth: int, done: int
) -> tuple[int, int, float, float, float]:
    """The samples of a pixel that show what the sample at (line, column) shows.

    Returns:
        The bits of `done` with theirs set, how many they are, and their mean nearness, column and line.
    """
    row, shadow = buffers.triangle[line, column], buffers.shadow[line, column]
    count, nearness, right, down, sample = 0, 0.0, 0, 0, 1
    for other in range(y * smooth, (y + 1) * smooth):
        for beside in range(x * smooth, (x + 1) * smooth):
            if buffers.triangle[other, beside] == row and buffers.shadow[other, beside] == shadow:
                done |= sample
                count += 1
                nearness += buffers.nearness[other, beside]
                right, down = right + beside, down + other
            sample <<= 1
    return done, count, nearness / count, right / count, down / count


@kernel
def _radiance(
    row: int,
    shaded: bool,
    nearness: float,
    ray_x: float,
    ray_y: float,
    view: Camera,
    triangles: Triangles,
    look: Look,
    lamps: Floats,
    lit: int,
    ego: Floats,
    atlas: NDArray[np.uint8],
) -> Colour:
    """The light that comes along a ray (right, down and 1 ahead) from the triangle `row`."""
    axes = view.axes
    x = axes[0, 0] * ray_x + axes[1, 0] * ray_y + axes[2, 0]
    y = axes[0, 1] * ray_x + axes[1, 1] * ray_y + axes[2, 1]
    z = axes[0, 2] * ray_x + axes[1, 2] * ray_y + axes[2, 2]
    length = sqrt(ray_x * ray_x + ray_y * ray_y + 1.0)
    gaze = (x / length, y / length, z / length)
    if row < 0:
        return background(look, gaze[0], gaze[1], gaze[2])
    depth = 1.0 / nearness
    at = (view.position[0] + x * depth, view.position[1] + y * depth, view.position[2] + z * depth)
    material, distance = triangles.materials[row], length * depth
    normal, facing = _normal(triangles, row, gaze)
    u, v = _texture_place(triangles, row, at) if has_texture(material) else (0.0, 0.0)
    spot = Spot(at[0], at[1], at[2], distance, u, v, triangles.seeds[row])
    colours = triangles.colours
    plain = Surface(
        np.float64(colours[row, 0]), np.float64(colours[row, 1]), np.float64(colours[row, 2]), 0.0, 0.0, 0.0
    )
    seen = surface(material, plain, spot, facing, look, atlas)
    if look.snow > 0.0 and seen.glow == 0.0 and normal[2] > 0.35:
        seen = snowed(material, seen, spot, normal[2], look)
    colour = _lit(seen, spot, normal, shaded, material == _TEXTURE, look, lamps, lit, ego)
    if seen.mirror > 0.0:
        colour = _mirrored(colour, seen, gaze, normal, facing, material == _ASPHALT, look)
    # Fog takes the colour of the sky behind, or towers would stand out bright against a dark zenith.
    return mixed(dome(look, gaze[2]), colour, clarity(look.fog, distance))


@kernel
def _normal(triangles: Triangles, row: int, gaze: Colour) -> tuple[Colour, float]:
    """The normal of the side that is seen, and how squarely it is seen, from 0 to 1."""
    normals = triangles.normals
    x, y, z = np.float64(normals[row, 0]), np.float64(normals[row, 1]), np.float64(normals[row, 2])
    facing = -(x * gaze[0] + y * gaze[1] + z * gaze[2])
    return ((x, y, z), facing) if facing >= 0.0 else ((-x, -y, -z), -facing)


@kernel
def _texture_place(triangles: Triangles, row: int, at: Colour) -> tuple[float, float]:
    """Texture coordinates of the world point `at` on the triangle."""
    points, uv = triangles.points, triangles.uv
    bb, bc, cc, pb, pc = 0.0, 0.0, 0.0, 0.0, 0.0
    for axis in range(3):
        origin = np.float64(points[row, 0, axis])
        b, c, p = points[row, 1, axis] - origin, points[row, 2, axis] - origin, at[axis] - origin
        bb, bc, cc, pb, pc = bb + b * b, bc + b * c, cc + c * c, pb + p * b, pc + p * c
    inverse = 1.0 / (bb * cc - bc * bc + 1e-18)
    b, c = (cc * pb - bc * pc) * inverse, (bb * pc - bc * pb) * inverse
    u = uv[row, 0, 0] + b * (uv[row, 1, 0] - uv[row, 0, 0]) + c * (uv[row, 2, 0] - uv[row, 0, 0])
    v = uv[row, 0, 1] + b * (uv[row, 1, 1] - uv[row, 0, 1]) + c * (uv[row, 2, 1] - uv[row, 0, 1])
    return u, v


@kernel
def _lit(
    seen: Surface,
    spot: Spot,
    normal: Colour,
    shaded: bool,
    foliage: bool,
    look: Look,
    lamps: Floats,
    lit: int,
    ego: Floats,
) -> Colour:
    """The surface in the light that falls on it, and its own light."""
    if seen.glow >= 1.0:
        return seen.red, seen.green, seen.blue
    red, green, blue = daylight(look, normal, spot.z, shaded, foliage)
    if look.night > 0.05:
        own = beam(look.beam, ego, spot, normal) if look.beam > 0.0 else 0.0
        others = lamplight(lamps, lit, spot, normal)
        red, green, blue = red + own + others[0], green + 0.95 * own + others[1], blue + 0.82 * own + others[2]
    matt = 1.0 - seen.glow
    return (
        seen.red * (red * matt + seen.glow),
        seen.green * (green * matt + seen.glow),
        seen.blue * (blue * matt + seen.glow),
    )


@kernel
def _mirrored(
    colour: Colour, seen: Surface, gaze: Colour, normal: Colour, facing: float, asphalt: bool, look: Look
) -> Colour:
    """The sky and the sun as the surface mirrors them, more at grazing angles."""
    x, y = gaze[0] + 2.0 * facing * normal[0], gaze[1] + 2.0 * facing * normal[1]
    z = gaze[2] + 2.0 * facing * normal[2]
    grazing = (1.0 - facing) * (1.0 - facing)
    roughness = 0.10 + 0.6 * look.wet if asphalt else 0.35
    part = min(seen.mirror + (1.0 - seen.mirror) * grazing * grazing * (1.0 - facing) * roughness, 0.9)
    sky = dome(look, z)
    if z <= 0.0:  # the mirror shows the ground, which is darker
        sky = (0.35 * sky[0], 0.35 * sky[1], 0.35 * sky[2])
    red, green, blue = mixed(colour, sky, part)
    toward = max(0.0, x * look.sun[0] + y * look.sun[1] + z * look.sun[2])
    toward = toward * toward * toward * toward
    toward = toward * toward * toward * toward * seen.gloss
    return red + toward * look.sunlight[0], green + toward * look.sunlight[1], blue + toward * look.sunlight[2]
