"""One chunk of a data set on disk: its pictures, and a file with everything that is known about its key frames."""

from __future__ import annotations

import hashlib
import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from drivedistill.data.paths import load_json
from drivedistill.problems import InputError, Problem
from drivedistill.records import CAMERAS, write_json
from drivedistill.world.dataset.coda import coda_annotation
from drivedistill.world.dataset.plan import Chunk, Pick, pick_key_frames
from drivedistill.world.dataset.senna import senna_records
from drivedistill.world.pictures.render import Renderer
from drivedistill.world.questions.all import frame_questions
from drivedistill.world.questions.frame import Frame, key_object_infos, look
from drivedistill.world.scene import Scene
from drivedistill.world.views import Views

PARTS = "parts"
QUALITY = 90
"""Of the JPEG files; colours are kept at full resolution, since brake lights are a pixel or two."""


def write_chunk(out: Path, chunk: Chunk, seed: int, size: int) -> int:
    """Drive, render and ask; returns the number of key frames.

    The chunk's file is written last, so whoever finds it may rely on the pictures. A chunk that is there is left alone.

    Args:
        out: Root of the data set.
        chunk: Which key frames.
        seed: Of the data set.
        size: Width and height of the pictures in pixels.
    """
    target = out / PARTS / f"{chunk.name}.json"
    if not target.exists():
        frames = [
            frame
            for pick in pick_key_frames(chunk, seed)
            for frame in _key_frames(out / chunk.regime, pick, seed, size)
        ]
        write_json(target, {"frames": frames})
    return chunk.keyframes


def read_chunk(out: Path, chunk: Chunk) -> list[dict[str, Any]]:
    """The records of a chunk's key frames.

    Raises:
        InputError: The file is damaged.
    """
    path = out / PARTS / f"{chunk.name}.json"
    frames = load_json(path, "a finished part of the data set: a JSON object").get("frames")
    if not isinstance(frames, list) or len(frames) != chunk.keyframes:
        found = f"{len(frames)}" if isinstance(frames, list) else "none"
        remedy = "delete this file and repeat the command"
        raise InputError(Problem(str(path), "frames", f"{chunk.keyframes} key frames", found, remedy))
    return frames


def token(seed: int, *names: object) -> str:
    """32 hexadecimal digits, as nuScenes names its scenes and samples."""
    return hashlib.md5(f"world {seed} {' '.join(map(str, names))}".encode(), usedforsecurity=False).hexdigest()


def _key_frames(root: Path, pick: Pick, seed: int, size: int) -> list[dict[str, Any]]:
    """The key frames of one drive; pictures go below `root`."""
    scene = pick.drive.scene
    renderer = Renderer(pick.drive)
    scene_token = token(seed, scene.kind, scene.seed)
    tokens = [token(seed, scene.kind, scene.seed, step) for step in pick.steps]
    neighbours = ["", *tokens, ""]
    frames = []
    for index, step in enumerate(pick.steps):
        views = renderer.views(step, size, size)
        frame = look(pick.drive, step, views)
        images, pixels = _save_pictures(root, tokens[index], views)
        record = _record(frame) | {
            "scene": scene_token,
            "frame": tokens[index],
            "images": images,
            "pixels": pixels,
            "senna": senna_records(
                pick.drive,
                step,
                tokens[index],
                neighbours[index],
                neighbours[index + 2],
                scene_token,
                images,
                visible={item.id for item in frame.seen},
            ),
        }
        frames.append(record)
    return frames


def _record(frame: Frame) -> dict[str, Any]:
    """What the questions are made from, and the questions that could be asked."""
    drive, step = frame.drive, frame.step
    return {
        "truth": truth(drive.scene) | {
            "step": step,
            "speed": round(float(drive.speeds[0, step]), 3),
            "action": frame.action._asdict(),
            "reason": drive.decisions[step].reason,
        },
        "description": describe(drive.scene),
        "key_object_infos": key_object_infos(frame),
        "questions": [asdict(question) for question in frame_questions(frame)],
        "coda": coda_annotation(frame) if drive.scene.corner else None,
    }  # fmt: skip


def truth(scene: Scene) -> dict[str, Any]:
    """What is known about a scene as a whole."""
    return {
        "kind": scene.kind,
        "manoeuvre": scene.manoeuvre,
        "seed": scene.seed,
        "held_out": scene.held_out,
        "road": scene.road.type,
        **asdict(scene.conditions),
    }


def describe(scene: Scene) -> str:
    """DriveLM's `scene_description`: the place and the conditions, not what happens."""
    conditions = scene.conditions
    place = {"urban": "An urban street", "residential": "A residential street", "rural": "A country road"}
    where = place.get(scene.road.type, "A highway")
    return (
        f"{where} with {scene.road.lanes} lane(s) in the direction of travel; {conditions.weather}, {conditions.light}."
    )


def _save_pictures(root: Path, name: str, views: Views) -> tuple[dict[str, str], str]:
    """Camera -> path relative to the root, and the hash of all pixels."""
    pixels = hashlib.sha256()
    paths = {}
    for camera in CAMERAS:
        picture = views.pictures[camera]
        pixels.update(picture.tobytes())
        paths[camera] = f"nuscenes/samples/{camera}/world__{camera}__{name}.jpg"
        save_jpeg(root / paths[camera], picture)
    return paths, pixels.hexdigest()


def save_jpeg(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write uint8[height, width, 3]; folders are made."""
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, "JPEG", quality=QUALITY, subsampling=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded.getvalue())
