"""The texture atlas, drawn with Pillow: foliage, traffic signs and a billboard in sixteen tiles.

Signs follow more than one country on purpose, as do the markings: diamond warnings of America, Europe's round red limits.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from drivedistill.world.track import Floats

TILE = 256
"""Edge of a tile in pixels; the atlas has four by four."""
TILES = (
    "broadleaf tree",
    "conifer",
    "autumn tree",
    "bare tree",
    "bush",
    "leaves",
    "stop",
    "dirty stop",
    "speed 30",
    "speed 50",
    "speed 80",
    "works",
    "crosswalk",
    "yield",
    "merge",
    "billboard",
)
FOLIAGE = {
    "broadleaf tree": (74, 104, 44),
    "conifer": (52, 84, 40),
    "autumn tree": (128, 104, 42),
    "bush": (62, 92, 44),
    "leaves": (186, 190, 170),
}
"""sRGB of leaves; `leaves` is pale, for meshes that tint it."""

RED, WHITE, BLACK = (196, 16, 24, 255), (250, 250, 250, 255), (12, 12, 12, 255)
ORANGE, YELLOW, BARK = (245, 140, 10, 255), (250, 205, 10, 255), (66, 50, 36, 255)


def build() -> NDArray[np.uint8]:
    """The atlas, uint8[1024, 1024, 4]. Transparent pixels have the colour of shade, for meshes drawn without cut-outs."""
    atlas: NDArray[np.uint8] = np.zeros((4 * TILE, 4 * TILE, 4), np.uint8)
    for index, name in enumerate(TILES):
        row, column = divmod(index, 4)
        atlas[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE] = np.asarray(_tile(name, index))
    return atlas


@lru_cache
def uv(name: str) -> Floats:
    """Texture coordinates float[4, 2] of a tile: bottom left, bottom right, top right, top left."""
    row, column = divmod(TILES.index(name), 4)
    left, top, edge = column / 4 + 0.002, row / 4 + 0.002, 0.25 - 0.004
    return np.array([[left, top + edge], [left + edge, top + edge], [left + edge, top], [left, top]])


def _tile(name: str, seed: int) -> Image.Image:
    shade = tuple(value // 2 for value in FOLIAGE.get(name, (0, 0, 0)))
    image = Image.new("RGBA", (TILE, TILE), (*shade, 0))
    draw, rng = ImageDraw.Draw(image), np.random.default_rng(seed)
    if name == "bare tree":
        _branch(draw, rng, (TILE / 2, TILE), np.pi / 2, TILE * 0.28, 11.0, 5)
    elif name in FOLIAGE:
        _foliage(draw, rng, name)
    elif name == "billboard":
        _billboard(draw)
    else:
        _sign(draw, rng, name)
    return image


def _foliage(draw: ImageDraw.ImageDraw, rng: np.random.Generator, name: str) -> None:
    if name.endswith("tree"):
        draw.polygon([(120, TILE), (136, TILE), (132, 128), (124, 128)], fill=BARK)
        for _ in range(6):
            draw.line([(128, rng.uniform(140, 192)), (rng.uniform(64, 192), 90)], fill=BARK, width=4)
    elif name == "conifer":
        draw.rectangle([122, 200, 134, TILE], fill=BARK)
    count = 700 if name == "leaves" else 1500
    across, up = _leaf_places(rng, name, count)
    light = 1.25 - 0.75 * up + 0.16 * rng.normal(size=count) + 0.25 * (across - 0.5)
    if name == "leaves":
        light = 0.75 + 0.15 * rng.normal(size=count)
    for x, y, size, bright in zip(across * TILE, up * TILE, rng.uniform(3, 9, count), light, strict=True):
        colour = tuple(int(np.clip(value * bright, 6, 255)) for value in FOLIAGE[name])
        draw.ellipse([x - size, y - size * 0.8, x + size, y + size * 0.8], fill=(*colour, 255))


def _leaf_places(rng: np.random.Generator, name: str, count: int) -> tuple[Floats, Floats]:
    """Where the leaves of a tile lie, across and down, as parts of the tile."""
    if name == "conifer":
        down = rng.uniform(0, 1, count)
        return 0.5 + np.clip(rng.normal(size=count) * 0.45, -0.95, 0.95) * (0.05 + 0.36 * down), 0.03 + 0.8 * down
    angle = rng.uniform(0, 2 * np.pi, count)
    lobes = 0.09 * np.sin(7 * angle + 1.0) + 0.07 * np.sin(11 * angle)
    radius = np.sqrt(rng.uniform(size=count)) * (0.97 + lobes)
    if name == "leaves":
        return 0.5 + 0.43 * radius * np.cos(angle), 0.5 + 0.43 * radius * np.sin(angle)
    middle, height = (0.62, 0.32) if name == "bush" else (0.38, 0.32)
    return 0.5 + 0.42 * radius * np.cos(angle), middle + height * radius * np.sin(angle)


def _branch(
    draw: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    start: tuple[float, float],
    angle: float,
    length: float,
    width: float,
    forks: int,
) -> None:
    end = (start[0] + length * np.cos(angle), start[1] - length * np.sin(angle))
    draw.line([start, end], fill=(64, 52, 42, 255), width=max(1, int(width)))
    for _ in range(3 if forks else 0):
        turned = angle + 0.5 * rng.normal()
        _branch(draw, rng, end, turned, length * rng.uniform(0.6, 0.85), width * 0.62, forks - 1)


def _sign(draw: ImageDraw.ImageDraw, rng: np.random.Generator, name: str) -> None:
    if name.endswith("stop"):
        for radius, colour in ((122, WHITE), (111, RED)):
            corners = [
                (128 + radius * np.cos(turn), 128 + radius * np.sin(turn)) for turn in np.pi / 8 * np.arange(1, 17, 2)
            ]
            draw.polygon(corners, fill=colour)
        _write(draw, "STOP", 84, 74, WHITE)
        if name == "dirty stop":
            _dirt(draw, rng)
    elif name.startswith("speed"):
        draw.ellipse([8, 8, 248, 248], fill=RED)
        draw.ellipse([38, 38, 218, 218], fill=WHITE)
        _write(draw, name.removeprefix("speed "), 62, 118, BLACK)
    elif name == "yield":
        draw.polygon([(6, 22), (250, 22), (128, 240)], fill=RED)
        draw.polygon([(56, 52), (200, 52), (128, 180)], fill=WHITE)
    else:
        draw.polygon([(128, 6), (250, 128), (128, 250), (6, 128)], fill=BLACK)
        draw.polygon([(128, 18), (238, 128), (128, 238), (18, 128)], fill=ORANGE if name == "works" else YELLOW)
        _merging(draw) if name == "merge" else _walker(draw, digging=name == "works")


def _walker(draw: ImageDraw.ImageDraw, *, digging: bool) -> None:
    draw.ellipse([112, 48, 144, 80], fill=BLACK)
    for line, width in (
        ([(128, 84), (122, 142)], 24),
        ([(122, 138), (96, 196)], 16),
        ([(122, 138), (152, 194)], 16),
        ([(126, 98), (168, 128)], 13),
        ([(124, 98), (92, 130)], 13),
    ):
        draw.line(line, fill=BLACK, width=width)
    if digging:
        draw.line([(168, 96), (150, 186)], fill=BLACK, width=8)
        draw.polygon([(144, 196), (206, 196), (176, 150)], fill=BLACK)


def _merging(draw: ImageDraw.ImageDraw) -> None:
    draw.line([(118, 200), (118, 92)], fill=BLACK, width=20)
    draw.polygon([(118, 50), (88, 100), (148, 100)], fill=BLACK)
    draw.line([(176, 186), (166, 160), (124, 128)], fill=BLACK, width=18)


def _dirt(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    """Moss over the lower half of a sign."""
    for x, y, size, gray in rng.uniform((50, 90, 6, 50), (210, 225, 20, 120), (48, 4)):
        if (x - 128) ** 2 + (y - 128) ** 2 < 98**2:
            moss = (int(gray / 2), int(gray * 0.75), int(gray / 3), 255)
            draw.ellipse([x - size, y - size, x + size, y + size], fill=moss)


def _billboard(draw: ImageDraw.ImageDraw) -> None:
    draw.rectangle([0, 0, TILE, TILE], fill=(30, 92, 150, 255))
    draw.ellipse([20, 96, 140, 216], fill=(240, 196, 60, 255))
    draw.polygon([(120, 240), (190, 120), (256, 240)], fill=(60, 130, 70, 255))
    _write(draw, "LAKE VIEW", 24, 42, WHITE)


def _write(draw: ImageDraw.ImageDraw, text: str, top: float, size: int, colour: tuple[int, int, int, int]) -> None:
    font = ImageFont.load_default(size)
    draw.text((TILE / 2 - draw.textlength(text, font=font) / 2, top), text, font=font, fill=colour)
