"""Behind everything: the sky, its clouds, the glow around the sun, and the skyline; and the fog in front of it."""

from __future__ import annotations

from math import sqrt

from drivedistill.world.kernel import kernel
from drivedistill.world.pictures.look import Colour, Look
from drivedistill.world.pictures.noise import clamped, smooth_noise

SKYLINE_M = 450.0


@kernel
def mixed(one: Colour, other: Colour, part: float) -> Colour:
    """`part` of the other colour, the rest of the one."""
    return (
        one[0] + (other[0] - one[0]) * part,
        one[1] + (other[1] - one[1]) * part,
        one[2] + (other[2] - one[2]) * part,
    )


@kernel
def clarity(fog: float, distance: float) -> float:
    """The part of the light that comes through: like exp(-fog * distance), without a library's exp."""
    depth = fog * distance
    return 1.0 / (1.0 + depth * (1.0 + depth * (0.5 + depth * (0.16667 + depth * 0.041667))))


@kernel
def dome(look: Look, up: float) -> Colour:
    """The cloudless sky in a direction with the vertical part `up`; fog in front of things has its colour too."""
    return mixed(look.horizon, look.zenith, sqrt(clamped(up * 2.2, 0.0, 1.0)))


@kernel
def background(look: Look, x: float, y: float, z: float) -> Colour:
    """What is seen in the direction (x, y, z), of length 1, where nothing stands."""
    azimuth = x / (abs(x) + abs(y) + 1e-9)
    azimuth = azimuth if y > 0.0 else 2.0 - azimuth
    skyline = 0.012 + 0.05 * smooth_noise(azimuth * 9.0, 3.5, look.seed + 7)
    if z < skyline + 0.02:
        skyline += 0.02 * smooth_noise(azimuth * 37.0, 1.5, look.seed + 8)
        if z < skyline:
            hill = (0.16 * look.ambient[0], 0.20 * look.ambient[1], 0.18 * look.ambient[2])
            return mixed(dome(look, z), hill, clarity(look.fog, SKYLINE_M))
    red, green, blue = dome(look, z)
    if z > 0.01 and look.clouds > 0.0:
        red, green, blue = mixed((red, green, blue), *_clouds(look, x, y, z))
    toward = x * look.sun[0] + y * look.sun[1] + z * look.sun[2]
    if toward > 0.9 and look.sun_shadows > 0.0:
        glow = (toward - 0.9) * 10.0
        glow = glow * glow
        glow = glow * glow * (1.0 - 0.8 * look.clouds)
        red += 0.5 * glow * look.sunlight[0]
        green += 0.45 * glow * look.sunlight[1]
        blue += 0.35 * glow * look.sunlight[2]
    return red, green, blue


@kernel
def _clouds(look: Look, x: float, y: float, z: float) -> tuple[Colour, float]:
    """Their colour, and how much they cover."""
    scale = 3.0 / (z + 0.12)
    u, v = x * scale, y * scale
    bumps = 0.6 * smooth_noise(u, v, look.seed) + 0.4 * smooth_noise(u * 2.3, v * 2.3, look.seed + 1)
    cover = clamped((bumps - 0.62 + look.clouds * 0.45) * 3.0, 0.0, 1.0) * min(1.0, z * 6.0)
    shade = 0.41 + 0.14 * bumps
    white = (
        (look.sunlight[0] + 1.5 * look.ambient[0]) * shade,
        (look.sunlight[1] + 1.5 * look.ambient[1]) * shade,
        (look.sunlight[2] + 1.5 * look.ambient[2]) * shade,
    )
    return mixed(white, look.horizon, 0.35), cover * clarity(look.fog, SKYLINE_M)
