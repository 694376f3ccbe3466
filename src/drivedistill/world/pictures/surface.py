"""What a surface reflects at a point: patterns by material, then snow on top."""

from __future__ import annotations

from math import floor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from drivedistill.world.kernel import kernel
from drivedistill.world.materials import Material
from drivedistill.world.pictures.look import Look
from drivedistill.world.pictures.noise import clamped, hashed, smooth_noise
from drivedistill.world.scene import LANE_M

_MATT, _ASPHALT, _PAINT, _GRASS = int(Material.MATT), int(Material.ASPHALT), int(Material.PAINT), int(Material.GRASS)
_PAVING, _FACADE, _GLASS, _LAMP = int(Material.PAVING), int(Material.FACADE), int(Material.GLASS), int(Material.LAMP)
_TEXTURE, _CAR, _CONE, _WOOD = int(Material.TEXTURE), int(Material.CAR), int(Material.CONE), int(Material.WOOD)
_BARRIER, _DIRT, _BARK = int(Material.BARRIER), int(Material.DIRT), int(Material.BARK)

BRICKS_UP_TO_M, CRACKS_UP_TO_M, JOINTS_UP_TO_M, GRAIN_UP_TO_M = 70.0, 45.0, 40.0, 25.0
RUT_M, RUT_WIDTH_M = 0.75, 0.5
"""From the middle of a lane to the ruts that wheels leave in snow, and half the width of a rut."""


class Spot(NamedTuple):
    """A point on a triangle."""

    x: float
    y: float
    z: float
    distance: float
    """From the camera, metres."""
    u: float
    """Texture coordinates; on roads metres along and across them, so that patterns follow bends."""
    v: float
    seed: int


class Surface(NamedTuple):
    """How a point sends light back."""

    red: float
    green: float
    blue: float
    """Linear reflectance; what it shines with where it glows."""
    mirror: float
    """The part that is reflected as by a mirror when seen head-on."""
    gloss: float
    """Strength of the sun's highlight."""
    glow: float
    """1: shines by itself and takes no light."""


@kernel
def has_texture(material: int) -> bool:
    """Does its pattern depend on texture coordinates?"""
    return material in (_ASPHALT, _PAINT, _PAVING, _FACADE, _TEXTURE, _WOOD, _BARRIER, _BARK)


@kernel
def surface(material: int, plain: Surface, spot: Spot, facing: float, look: Look, atlas: NDArray[np.uint8]) -> Surface:
    """The surface at a point: `plain` is its colour; `facing` is 1 where it is seen head-on and 0 at a grazing angle."""
    if material <= _PAVING or material == _DIRT:
        return _ground(material, plain, spot, look)
    if material == _FACADE:
        return _facade(plain, spot, look)
    if material == _CAR:
        flaws = 0.97 + 0.06 * smooth_noise(spot.x * 3.0, spot.z * 3.0 + spot.y, 91)
        return _scaled(plain, flaws, mirror=0.10 + 0.10 * (1.0 - facing), gloss=0.5)
    if material == _GLASS:
        return _scaled(plain, 1.0, mirror=0.22, gloss=0.8)
    if material == _LAMP:
        return Surface(plain.red, plain.green, plain.blue, 0.0, 0.0, 1.0)
    if material == _TEXTURE:
        return _texture(plain, spot, atlas)
    return _works(material, plain, spot)


@kernel
def _scaled(plain: Surface, factor: float, mirror: float = 0.0, gloss: float = 0.0) -> Surface:
    return Surface(plain.red * factor, plain.green * factor, plain.blue * factor, mirror, gloss, 0.0)


@kernel
def _ground(material: int, plain: Surface, spot: Spot, look: Look) -> Surface:
    """What one drives and walks on, and everything matt."""
    x, y = spot.x, spot.y
    if material == _ASPHALT:
        return _asphalt(plain, spot, look)
    if material == _PAINT:
        worn = max(0.0, smooth_noise(x * 6.0, y * 6.0, 21) - 0.45) / (1.0 + spot.distance * 0.06)
        return _scaled(plain, 1.0 - 0.9 * worn, mirror=look.wet * 0.08)
    if material == _GRASS:
        tufts = smooth_noise(x * 3.1, y * 3.1, 31) - 0.5
        tufts = 0.90 + 0.5 * tufts / (1.0 + spot.distance * 0.06)
        return _scaled(plain, tufts + 0.45 * smooth_noise(x * 0.17, y * 0.17, look.seed + 32))
    if material == _PAVING:
        column, row = floor(spot.u * 1.25), floor(spot.v * 1.25)
        tint = (0.92 + 0.16 * hashed(int(column), int(row), 41)) * (1.0 - 0.25 * look.wet)
        if spot.distance < JOINTS_UP_TO_M and (spot.u * 1.25 - column < 0.06 or spot.v * 1.25 - row < 0.06):
            tint *= 0.75
        return _scaled(plain, tint, mirror=look.wet * 0.06)
    if material == _DIRT:
        clods = smooth_noise(x * 2.5, y * 2.5, 131) * smooth_noise(x * 0.4, y * 0.4, 132)
        return _scaled(plain, 0.7 + 0.9 * clods)
    return plain


@kernel
def _asphalt(plain: Surface, spot: Spot, look: Look) -> Surface:
    x, y = spot.x, spot.y
    shade = 0.28 * (smooth_noise(spot.u * 0.35, spot.v * 1.1, look.seed + 12) - 0.5)
    if spot.distance < GRAIN_UP_TO_M:
        fade = (1.0 - spot.distance / GRAIN_UP_TO_M) / (1.0 + spot.distance * 0.06)
        shade += 0.30 * fade * (smooth_noise(x * 9.0, y * 9.0, 11) - 0.5)
    shade += 0.14 * (smooth_noise(spot.u * 0.08, spot.v * 3.0, 13) - 0.5)
    if spot.distance < CRACKS_UP_TO_M and abs(smooth_noise(x * 0.7, y * 0.7, look.seed + 14) - 0.5) < 0.008:
        shade -= 0.25
    if look.wet == 0.0:
        return _scaled(plain, 1.0 + shade, mirror=0.03)
    puddle = max(0.0, smooth_noise(spot.u * 0.25, spot.v * 0.6, look.seed + 15) - 0.55)
    return _scaled(plain, 0.7 * (1.0 + shade), mirror=0.12 + 0.5 * puddle)


@kernel
def has_shop(seed: int) -> bool:
    """Has the building with this seed shops on its ground floor?"""
    return hashed(seed, 4, 5) < 0.45


@kernel
def _facade(plain: Surface, spot: Spot, look: Look) -> Surface:
    """A wall with storeys of windows, some of them lit at night, and sometimes shops on the ground floor."""
    seed = spot.seed
    storey, bay = 3.2 + 0.6 * hashed(seed, 1, 5), 2.0 + 2.2 * hashed(seed, 2, 5)
    column, floor_number = floor(spot.u / bay), floor(spot.v / storey)
    across, up = spot.u / bay - column, spot.v / storey - floor_number
    shop = floor_number == 0.0 and has_shop(seed)
    pier = 0.12 + 0.22 * hashed(seed, 3, 5)
    if pier < across < 1.0 - pier and (0.08 if shop else 0.28) < up < 0.82:
        frame = across < pier + 0.05 or up > 0.77 or abs(across - 0.5) < 0.02
        return _window(plain, int(column), int(floor_number), seed, frame, look)
    if shop and up >= 0.82:
        sign = int(column) // 2
        red, green = 0.25 + 0.6 * hashed(sign, seed, 51), 0.2 + 0.5 * hashed(sign, seed, 52)
        return Surface(red, green, 0.2 + 0.5 * hashed(sign, seed, 53), 0.0, 0.0, 0.35 * look.night)
    if spot.distance < BRICKS_UP_TO_M and hashed(seed, 9, 5) < 0.45:
        course = floor(spot.v * 5.0)
        brick = floor(spot.u * 2.2 + 0.5 * (course - 2.0 * floor(course * 0.5)))
        shade = 0.86 + 0.26 * hashed(int(brick), int(course), seed)
    else:
        shade = 0.93 + 0.14 * smooth_noise(spot.u * 0.5, spot.v * 0.5, seed)
    if up > 0.96 and hashed(seed, 6, 5) < 0.5:
        shade *= 0.75
    return _scaled(plain, shade * (0.85 + 0.15 * min(1.0, spot.v / 4.0)))


@kernel
def _window(plain: Surface, column: int, storey: int, seed: int, frame: bool, look: Look) -> Surface:
    if frame:
        return Surface(0.5 * plain.red + 0.2, 0.5 * plain.green + 0.2, 0.5 * plain.blue + 0.2, 0.0, 0.0, 0.0)
    lamp = hashed(column, storey, seed + 77)
    if look.night > 0.5 and lamp < 0.38:
        return Surface(1.0, 0.78, 0.45, 0.0, 0.0, 0.4)
    pane = 0.10 + 0.14 * hashed(column, storey, seed + 3)
    curtain = 0.17 if lamp > 0.7 else 0.0
    return Surface(pane * 0.8 + curtain, pane * 0.95 + curtain, pane * 1.15 + 0.9 * curtain, 0.38, 0.0, 0.0)


@kernel
def _texture(plain: Surface, spot: Spot, atlas: NDArray[np.uint8]) -> Surface:
    height, width = atlas.shape[0], atlas.shape[1]
    column = min(max(int(spot.u * width), 0), width - 1)
    row = min(max(int(spot.v * height), 0), height - 1)
    red, green, blue = atlas[row, column, 0] / 255.0, atlas[row, column, 1] / 255.0, atlas[row, column, 2] / 255.0
    return Surface(plain.red * red * red, plain.green * green * green, plain.blue * blue * blue, 0.0, 0.0, 0.0)


@kernel
def _works(material: int, plain: Surface, spot: Spot) -> Surface:
    """Cones, barriers, wood."""
    if material == _CONE and (0.25 < spot.z < 0.40 or 0.50 < spot.z < 0.60):
        return Surface(0.8, 0.8, 0.8, 0.0, 0.0, 0.0)
    if material == _WOOD:
        edge = min(min(spot.u, 1.0 - spot.u), min(spot.v, 1.0 - spot.v))
        shade = 0.8 + 0.4 * smooth_noise(spot.u * 2.0, spot.v * 14.0, spot.seed)
        return _scaled(plain, shade * (0.6 if edge < 0.09 else 1.0))
    if material == _BARRIER:
        stripe = (spot.u + spot.z) * 1.6
        if plain.red > 0.5 and plain.blue < 0.2 and stripe - floor(stripe) < 0.5:
            return Surface(0.8, 0.8, 0.78, 0.0, 0.0, 0.0)
        return _scaled(plain, 0.85 + 0.3 * smooth_noise((spot.x + spot.y) * 2.0, spot.z * 4.0, 121))
    if material == _BARK:
        return _scaled(plain, 0.75 + 0.5 * smooth_noise(spot.u * 20.0, spot.z * 2.0, 141))
    return plain


@kernel
def _rut(along: float, across: float, look: Look) -> float:
    """How far wheels have worn the snow away at a place of the road, from 0 to 1."""
    across += 0.7 * (smooth_noise(along * 0.04, 0.5, look.seed + 16) - 0.5)
    lane = across / LANE_M - floor(across / LANE_M)
    beside = abs(abs(lane - 0.5) * LANE_M - RUT_M) / RUT_WIDTH_M
    worn = 0.35 + 1.1 * smooth_noise(along * 0.3, across * 1.7, look.seed + 18)
    return clamped((1.0 - beside * beside) * worn, 0.0, 1.0)


@kernel
def snowed(material: int, bare: Surface, spot: Spot, up: float, look: Look) -> Surface:
    """The surface with snow on what faces up; `up` is the vertical part of its normal."""
    cover = look.snow
    if material in (_ASPHALT, _PAINT):
        cover *= 0.92 - 0.80 * _rut(spot.u, spot.v, look)
    elif material in (_CAR, _GLASS, _MATT):
        cover *= clamped((up - 0.5) * 1.6, 0.0, 0.8)
    elif material in (_TEXTURE, _BARK):  # a dusting between the leaves
        cover *= 0.5 * clamped((smooth_noise(spot.u * 90.0, spot.v * 90.0, 18) - 0.3) * 2.0, 0.0, 1.0)
    white = 0.74 + 0.1 * smooth_noise(spot.x * 1.3, spot.y * 1.3, 17)
    bright = 1.0 - cover
    return Surface(
        bare.red * bright + white * cover,
        bare.green * bright + white * cover,
        bare.blue * bright + 1.03 * white * cover,
        bare.mirror * bright,
        bare.gloss * bright,
        bare.glow,
    )
