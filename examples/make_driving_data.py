"""Write a small driving data set in the layouts of DriveLM and CODA-LM.

    python examples/make_driving_data.py OUT --scenes 12 --frames 4 --corner 24 --size 320x180 --seed 0

`OUT/regular` holds DriveLM v1.1 questions and six pictures per frame, `OUT/corner` CODA-LM annotations of rare objects.
The pictures are drawn, and every answer follows from them: colours, counts, sides, lit lamps (red: stopped, orange:
turning), legs apart (walking), the bend of the road (steering) and the number of lane marks (speed).
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from driving_pictures import (
    BENDS,
    COLOURS,
    RARE,
    SKIES,
    SLOTS,
    SPEEDS,
    Frame,
    Size,
    Thing,
    draw_rare,
    draw_road,
    draw_view,
)
from driving_questions import DIRECTIONS, LIGHTS, STATES, drivelm_frame

SIZES = {"car": (0.24, 0.24), "truck": (0.24, 0.40), "bus": (0.30, 0.36), "pedestrian": (0.07, 0.30)}
"""Width and height as shares of the picture."""
LISTS = (
    "vehicles",
    "vulnerable_road_users",
    "traffic signs",
    "traffic lights",
    "traffic cones",
    "barriers",
    "other objects",
)


def make(out: Path, *, scenes: int, frames: int, corner: int, size: Size, seed: int) -> None:
    """Write both data sets below `out`.

    Args:
        out: Created if it is missing; files of the same names are replaced.
        scenes: DriveLM scenes.
        frames: Key frames per scene.
        corner: CODA-LM pictures; a quarter of them, at least one, is the Val split.
        size: Width and height of a picture in pixels.
        seed: The same seed gives the same questions and pixels.
    """
    regular = {}
    for scene in range(scenes):
        token = _token(f"{seed} scene {scene}")
        sky = SKIES[scene % len(SKIES)]
        key_frames = {}
        for index in range(frames):
            rng = np.random.default_rng([seed, 0, scene, index])
            frame = _imagine(rng, size)
            name = _token(f"{seed} frame {scene} {index}")
            paths = {camera: f"nuscenes/samples/{camera}/made__{camera}__{name}.jpg" for camera in DIRECTIONS}
            for camera, path in paths.items():
                _save(draw_view(frame, camera, size, sky, rng), out / "regular" / path)
            key_frames[name] = drivelm_frame(frame, size) | {"image_paths": {c: f"../{p}" for c, p in paths.items()}}
        regular[token] = {"scene_description": f"A drawn scene of {frames} frames.", "key_frames": key_frames}
    _write(regular, out / "regular" / "QA_dataset_nus" / "v1_1_train_nus.json")
    for index in range(corner):
        folder, split = ("test", "Val") if index < max(1, corner // 4) else ("val", "Train")
        rng = np.random.default_rng([seed, 1, index])
        picture, annotation = _corner_case(rng, size)
        _save(picture, out / "corner" / folder / "images" / f"{index + 1:04d}.jpg")
        _write(annotation, out / "corner" / "CODA-LM" / split / f"{folder}_{index + 1:04d}.json")


def _imagine(rng: np.random.Generator, size: Size) -> Frame:
    things = []
    for camera in DIRECTIONS:
        free = ["left", "right"] if camera == "CAM_FRONT" and rng.random() < 0.6 else list(SLOTS)
        count = int(rng.integers(1, 3)) if camera == "CAM_FRONT" else int(rng.integers(0, 3))
        for place, slot in enumerate(sorted(rng.permutation(free)[:count])):
            kind = "car" if camera == "CAM_FRONT" and place == 0 else str(rng.choice(list(SIZES)))
            states = ["Going ahead.", "Stopped."] if kind == "pedestrian" else list(STATES)
            width, height = (round(share * side) for share, side in zip(SIZES[kind], size, strict=True))
            left = round(SLOTS[slot] * size[0]) - width // 2
            bottom = round(size[1] * rng.uniform(0.78, 0.95))
            box = (left, bottom - height, left + width, bottom)
            things.append(Thing(kind, str(rng.choice(list(COLOURS))), str(rng.choice(states)), camera, str(slot), box))
    light = str(rng.choice(list(LIGHTS))) if rng.random() < 0.6 else None
    return Frame(things, light, str(rng.choice(list(BENDS))), str(rng.choice(list(SPEEDS))))


def _corner_case(rng: np.random.Generator, size: Size) -> tuple[Image.Image, dict[str, Any]]:
    """A front picture with one to three rare objects, and its CODA-LM annotation."""
    width, height = size
    image = draw_road(size, SKIES[int(rng.integers(len(SKIES)))], 0.0, SPEEDS["driving slowly"], rng)
    lists: dict[str, list[dict[str, str]]] = {name: [] for name in LISTS}
    regions: dict[str, Any] = {}
    advice = []
    categories, slots = rng.permutation(list(RARE)), rng.permutation(list(SLOTS))
    for number in range(1, int(rng.integers(1, 4)) + 1):
        category, slot, near = str(categories[number - 1]), str(slots[number - 1]), bool(rng.random() < 0.5)
        side = round((0.34 if near else 0.2) * height)
        left, bottom = round(SLOTS[slot] * width) - side // 2, round((0.95 if near else 0.7) * height)
        draw_rare(ImageDraw.Draw(image), category, (left, bottom - side, left + side, bottom))
        name, _, group = RARE[category]
        where = f"{'directly ahead' if slot == 'ahead' else f'on the {slot}'}, {'near' if near else 'far away'}"
        text = f"There is a {name} {where}."
        reason = "It is beside the lane, so the ego car should keep its distance."
        if slot == "ahead":
            reason = f"It blocks the lane, so the ego car must {'stop' if near else 'slow down'}."
        lists[group].append({"description": text, "explanation": reason})
        box = [float(left), float(bottom - side), float(side), float(side)]
        regions[str(number)] = {
            "description and explanation": f"{text} {reason}",
            "box": box,
            "category_name": category,
        }
        advice.append((slot == "ahead", near, name, slot))
    general = " ".join(region["description and explanation"] for region in regions.values())
    annotation = {
        "general_perception": {**lists, "description and explanation": general},
        "region_perception": regions,
        "driving_suggestion": _suggestion(advice),
    }
    return image, annotation


def _suggestion(advice: list[tuple[bool, bool, str, str]]) -> str:
    sentences = []
    for ahead, near, name, slot in advice:
        if ahead:
            sentences.append(f"{'Stop' if near else 'Slow down'} because of the {name} ahead.")
        else:
            sentences.append(f"Keep away from the {name} on the {slot}.")
    return " ".join(sentences)


def _token(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=90)


def _write(value: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write a small drawn data set in the layouts of DriveLM and CODA-LM.")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--scenes", type=int, default=12)
    parser.add_argument("--frames", type=int, default=4, help="key frames per scene")
    parser.add_argument("--corner", type=int, default=24, help="CODA-LM pictures")
    parser.add_argument("--size", default="320x180", help="WIDTHxHEIGHT in pixels")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    width, _, height = chosen.size.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) >= 64 and int(height) >= 36):
        parser.error(f"--size must be WIDTHxHEIGHT, at least 64x36, not {chosen.size!r}")
    size = (int(width), int(height))
    make(chosen.out, scenes=chosen.scenes, frames=chosen.frames, corner=chosen.corner, size=size, seed=chosen.seed)
    frames = chosen.scenes * chosen.frames
    print(f"Wrote {frames} frames to {chosen.out / 'regular'} and {chosen.corner} pictures to {chosen.out / 'corner'}")


if __name__ == "__main__":
    main()
