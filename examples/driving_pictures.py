"""The drawn pictures of `make_driving_data.py`: what the answers are about, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Size = tuple[int, int]
Box = tuple[int, int, int, int]
"""left, top, right, bottom in pixels"""

COLOURS: dict[str, Colour] = {
    "red": (205, 35, 40),
    "blue": (40, 80, 210),
    "white": (240, 240, 240),
    "black": (25, 25, 30),
    "green": (30, 150, 60),
    "yellow": (235, 205, 40),
}
SKIES: list[Colour] = [(150, 195, 235), (200, 205, 210), (90, 90, 130)]
ROAD, GRASS, LAMP_RED, LAMP_ORANGE, DARK = (95, 95, 100), (95, 130, 80), (255, 40, 30), (255, 150, 0), (45, 45, 50)
SLOTS = {"left": 0.2, "ahead": 0.5, "right": 0.8}
SPEEDS = {"driving slowly": 2, "driving with normal speed": 4, "driving fast": 7}
"""Speed -> number of lane marks in the front picture."""
BENDS = {"going straight": 0.0, "steering to the left": -0.3, "steering to the right": 0.3}
"""Steering -> shift of the vanishing point, as a share of the width."""
RARE: dict[str, tuple[str, Colour, str]] = {
    "dog": ("brown dog", (120, 75, 40), "other objects"),
    "traffic_cone": ("orange traffic cone", (245, 120, 20), "traffic cones"),
    "tire": ("black tire", (20, 20, 20), "other objects"),
    "barrier": ("red and white barrier", (215, 40, 40), "barriers"),
    "carton": ("yellow carton", (205, 165, 90), "other objects"),
    "stroller": ("purple stroller", (140, 60, 160), "vulnerable_road_users"),
}
"""CODA-LM category -> description, colour, list of `general_perception`."""


@dataclass(frozen=True)
class Thing:
    """Something in one picture."""

    kind: str
    colour: str
    state: str
    camera: str
    slot: str
    box: Box

    @property
    def name(self) -> str:
        """Colour and kind: `red car`."""
        return f"{self.colour} {self.kind}"

    def tag(self, number: int) -> str:
        """DriveLM's name of an object: number, camera and centre in pixels."""
        left, top, right, bottom = self.box
        return f"<c{number},{self.camera},{(left + right) / 2:.1f},{(top + bottom) / 2:.1f}>"


@dataclass(frozen=True)
class Frame:
    """One moment: what is around the ego vehicle and what it does."""

    things: list[Thing]
    light: str | None
    bend: str
    speed: str

    @property
    def stops(self) -> bool:
        """A red light, or a pedestrian or a stopped vehicle ahead."""
        ahead = [thing for thing in self.things if thing.camera == "CAM_FRONT" and thing.slot == "ahead"]
        return self.light == "red" or any(thing.state == "Stopped." or thing.kind == "pedestrian" for thing in ahead)


def light_box(size: Size) -> Box:
    """Where the traffic light hangs in the front picture."""
    width, height = size
    return (round(0.62 * width), round(0.04 * height), round(0.67 * width), round(0.28 * height))


def draw_view(frame: Frame, camera: str, size: Size, sky: Colour, rng: np.random.Generator) -> Image.Image:
    """One camera's picture of a frame. Only the front camera shows bend, lane marks and traffic light."""
    front = camera == "CAM_FRONT"
    bend, marks = (BENDS[frame.bend], SPEEDS[frame.speed]) if front else (0.0, 0)
    image = draw_road(size, sky, bend, marks, rng)
    draw = ImageDraw.Draw(image)
    for thing in frame.things:
        if thing.camera == camera:
            (_draw_pedestrian if thing.kind == "pedestrian" else _draw_vehicle)(draw, thing)
    if front and frame.light:
        left, top, right, bottom = light_box(size)
        draw.rectangle((left, top, right, bottom), fill=DARK)
        third = (bottom - top) / 3
        row = top + third * ("red", "yellow", "green").index(frame.light)
        draw.ellipse((left + 1, row + 1, right - 1, row + third - 1), fill=COLOURS[frame.light])
    return image


def draw_road(size: Size, sky: Colour, bend: float, marks: int, rng: np.random.Generator) -> Image.Image:
    """Sky, grass and a road towards a vanishing point that `bend` shifts, with `marks` lane marks."""
    width, height = size
    image = Image.new("RGB", size, sky)
    draw = ImageDraw.Draw(image)
    horizon, goal = round(0.4 * height), width * (0.5 + bend)
    draw.rectangle((0, horizon, width, height), fill=GRASS)
    draw.polygon(
        [(0, height), (goal - 0.05 * width, horizon), (goal + 0.05 * width, horizon), (width, height)], fill=ROAD
    )
    for mark in range(marks):
        start, end = ((mark + share) / marks for share in (0.2, 0.6))
        points = [(width / 2 + (goal - width / 2) * at, height - (height - horizon) * at) for at in (start, end)]
        draw.line(points, fill=(255, 255, 255), width=max(1, width // 80))
    noise = rng.integers(-6, 7, (height, width, 1))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


def _draw_vehicle(draw: ImageDraw.ImageDraw, thing: Thing) -> None:
    left, top, right, bottom = thing.box
    w, h = right - left, bottom - top
    draw.rectangle((left, top, right, bottom - h // 8), fill=COLOURS[thing.colour], outline=DARK)
    draw.rectangle((left + w // 6, top + h // 8, right - w // 6, top + h // 3), fill=(120, 150, 170))
    for x in (left + w // 8, right - w // 4):
        draw.ellipse((x, bottom - h // 4, x + w // 8, bottom), fill=(10, 10, 10))
    lit = {"Stopped.": (LAMP_RED, LAMP_RED), "Turn left.": (LAMP_ORANGE, DARK), "Turn right.": (DARK, LAMP_ORANGE)}
    lamps = lit.get(thing.state, (DARK, DARK))
    for x, lamp in zip((left + 1, right - 1 - w // 4), lamps, strict=True):
        draw.rectangle((x, top + h // 2, x + w // 4, top + 3 * h // 4), fill=lamp)


def _draw_pedestrian(draw: ImageDraw.ImageDraw, thing: Thing) -> None:
    left, top, right, bottom = thing.box
    w, h, middle = right - left, bottom - top, (left + right) // 2
    draw.ellipse((middle - h // 8, top, middle + h // 8, top + h // 4), fill=(230, 185, 150))
    draw.ellipse((left, top + h // 4, right, top + 3 * h // 4), fill=COLOURS[thing.colour], outline=DARK)
    apart = 0 if thing.state == "Stopped." else w // 2
    for side in (-1, 1):
        draw.line((middle, top + 2 * h // 3, middle + side * apart, bottom), fill=DARK, width=max(1, w // 6))


def draw_rare(draw: ImageDraw.ImageDraw, category: str, box: Box) -> None:
    """A rare object: every category of `RARE` has a shape and a colour of its own."""
    left, top, right, bottom = box
    w, h, colour = right - left, bottom - top, RARE[category][1]
    if category == "traffic_cone":
        draw.polygon([(left, bottom), ((left + right) / 2, top), (right, bottom)], fill=colour)
    elif category == "tire":
        draw.ellipse(box, outline=colour, width=max(2, w // 4))
    elif category == "barrier":
        for stripe in range(6):
            edges = (left + w * stripe // 6, top, left + w * (stripe + 1) // 6, bottom)
            draw.rectangle(edges, fill=colour if stripe % 2 == 0 else (245, 245, 245))
    elif category == "carton":
        draw.rectangle(box, fill=colour, outline=DARK)
        draw.line((left, top, right, bottom), fill=DARK)
    else:
        draw.ellipse((left, top + h // 4, right, bottom - h // 5), fill=colour)
        draw.ellipse((left, top, left + w // 2, top + h // 2), fill=colour)
        for x in (left + w // 6, right - w // 3):
            draw.ellipse((x, bottom - h // 4, x + w // 5, bottom), fill=DARK)
