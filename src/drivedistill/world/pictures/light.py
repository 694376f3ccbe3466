"""Light that falls on a point: sun and sky, the ego's headlights, lamps."""

from __future__ import annotations

from math import sqrt

from drivedistill.world.kernel import kernel
from drivedistill.world.pictures.look import Colour, Look
from drivedistill.world.pictures.surface import Spot
from drivedistill.world.rig import Camera
from drivedistill.world.track import Floats

REACH_M = 30.0
"""A lamp's light ends here."""
BEAM_HEIGHT_M = 0.65
SHADED_SUN, SHADED_SKY = 0.15, 0.72
"""What reaches a point in the shade."""


@kernel
def daylight(look: Look, normal: Colour, height: float, shaded: bool, foliage: bool) -> Colour:
    """Sun and sky at a point; darker low down on what stands, as the ground takes a part of its sky away."""
    sun = max(0.0, normal[0] * look.sun[0] + normal[1] * look.sun[1] + normal[2] * look.sun[2])
    sky = 0.62 + 0.38 * normal[2]
    if foliage and normal[2] < 0.5:
        sun = 0.35 + 0.4 * sun
    if normal[2] < 0.5 and height < 0.6:
        sky *= 0.70 + 0.5 * max(0.0, height)
    if shaded:
        sun, sky = sun * SHADED_SUN, sky * SHADED_SKY
    return (
        look.sunlight[0] * sun + look.ambient[0] * sky,
        look.sunlight[1] * sun + look.ambient[1] * sky,
        look.sunlight[2] * sun + look.ambient[2] * sky,
    )


@kernel
def beam(strength: float, ego: Floats, spot: Spot, normal: Colour) -> float:
    """Light of the ego's headlights; `ego` is x, y and the direction's cosine and sine."""
    x, y, z = spot.x - ego[0], spot.y - ego[1], spot.z - BEAM_HEIGHT_M
    ahead, left = x * ego[2] + y * ego[3], y * ego[2] - x * ego[3]
    if ahead < 0.5:
        return 0.0
    aside = left / (0.42 * ahead + 1.2)
    inside = 1.0 - aside * aside
    below = 1.0 - max(0.0, (z - 0.07 * ahead) / (0.10 * ahead + 0.6))
    if inside <= 0.0 or below <= 0.0:
        return 0.0
    square = ahead * ahead + left * left + z * z
    incidence = max(0.12, -(normal[0] * x + normal[1] * y + normal[2] * z) / sqrt(square))
    if normal[2] > 0.9:  # a low beam grazes the road, which would stay black; lift it as the eye does
        incidence *= 3.0
    return strength * 260.0 * inside * below * incidence / (square + 160.0)


@kernel
def lamplight(lamps: Floats, count: int, spot: Spot, normal: Colour) -> Colour:
    """Light of the first `count` lamps, each x, y, z, red, green, blue, strength."""
    red, green, blue = 0.0, 0.0, 0.0
    for lamp in range(count):
        x, y, z = lamps[lamp, 0] - spot.x, lamps[lamp, 1] - spot.y, lamps[lamp, 2] - spot.z
        square = x * x + y * y + z * z
        if square < REACH_M * REACH_M:
            incidence = max(0.15, (normal[0] * x + normal[1] * y + normal[2] * z) / (sqrt(square) + 1e-6))
            light = lamps[lamp, 6] * incidence / (square + 4.0) * (1.0 - square / (REACH_M * REACH_M))
            red += light * lamps[lamp, 3]
            green += light * lamps[lamp, 4]
            blue += light * lamps[lamp, 5]
    return red, green, blue


@kernel
def lamps_in_sight(lamps: Floats, view: Camera, found: Floats) -> int:
    """Copy the lamps that can light something in the picture to the front of `found`; returns how many they are."""
    count = 0
    half_width = 0.5 * view.width
    slope = sqrt(view.fx * view.fx + half_width * half_width)
    for lamp in range(lamps.shape[0]):
        x, y = lamps[lamp, 0] - view.position[0], lamps[lamp, 1] - view.position[1]
        z = lamps[lamp, 2] - view.position[2]
        ahead = view.axes[2, 0] * x + view.axes[2, 1] * y + view.axes[2, 2] * z
        right = view.axes[0, 0] * x + view.axes[0, 1] * y + view.axes[0, 2] * z
        if ahead > -REACH_M and abs(right) * view.fx - ahead * half_width < REACH_M * slope:
            for entry in range(lamps.shape[1]):
                found[count, entry] = lamps[lamp, entry]
            count += 1
    return count
