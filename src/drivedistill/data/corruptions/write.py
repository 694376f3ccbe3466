"""Corrupted pictures as files, in the layout of DriveBench's data, with a sheet to look at."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw

from drivedistill.data.corruptions import CORRUPTIONS, corruption
from drivedistill.data.images import Change, load_image
from drivedistill.problems import InputError, Problem
from drivedistill.progress import Progress
from drivedistill.records import CLEAN, Sample

SHEET = "sheet.png"
COLUMNS = 4
TILE_WIDTH = 320
CAPTION_PX = 14


def write_corrupted(
    samples: Sequence[Sample], out: Path, chosen: Sequence[tuple[str, int]], seed: int, limit: int | None = None
) -> int:
    """Write `OUT/PUBLISHED_NAME/CAMERA/FILE` for every picture and `OUT/sheet.png`; all of them or none.

    JPEG pictures are saved with quality 95, others without loss.

    Args:
        samples: Questions with the pictures; a picture that several share is written once.
        out: A folder that is empty or not there.
        chosen: Corruptions with their severities. The folder of another severity than DriveBench's has it in its name:
            `Fog-3`.
        seed: See `corruption`.
        limit: Only the first so many frames are written; they look as they do among all.

    Returns:
        The number of pictures written.

    Raises:
        InputError: The folder has files, two pictures of a camera have one name, or see `corruption`.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        remedy = "choose another --out, or empty it"
        raise InputError(Problem(str(out), "", "a new or empty folder", "files", remedy))
    frames = set(list(dict.fromkeys((sample.scene, sample.frame) for sample in samples))[:limit])
    files = _files([sample for sample in samples if (sample.scene, sample.frame) in frames])
    changes = {_folder(*condition): corruption(*condition, samples, seed) for condition in chosen}
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        with Progress(len(files) * len(changes), word="picture") as progress:
            for folder, change in changes.items():
                for place, path in files.items():
                    _save(change(path, load_image(path, None)), temporary / folder / place)
                    progress.advance()
        labels = [f"{name}:{severity}" for name, severity in chosen]
        _save(sheet(samples, dict(zip(labels, changes.values(), strict=True))), temporary / SHEET)
        temporary.replace(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return len(files) * len(changes)


def _save(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lossy = Image.registered_extensions().get(path.suffix.lower()) == "JPEG"
    picture.save(path, **({"quality": 95} if lossy else {}))


def sheet(samples: Sequence[Sample], changes: dict[str, Change]) -> Image.Image:
    """The first frame, clean and changed, four to a row and captioned.

    A tile shows the first view that a change touches: of a lost camera the black picture. Squeezed pictures, as the embedded
    world's, are stretched back to 16:9.

    Args:
        samples: The first one's frame is shown.
        changes: Caption -> what is done.
    """
    pictures = {camera: (path, load_image(path, None)) for camera, path in samples[0].images.items()}
    front, clean = next((camera, image) for camera, (_, image) in pictures.items())
    height = round(TILE_WIDTH * (clean.height / clean.width if clean.width != clean.height else 9 / 16))
    tiles = [(f"{CLEAN} {front}", clean)]
    for caption, change in changes.items():
        shown = [(camera, image, change(path, image)) for camera, (path, image) in pictures.items()]
        touched = [item for item in shown if ImageChops.difference(*item[1:]).getbbox()]
        camera, _, changed = (touched or shown)[0]
        tiles.append((f"{caption} {camera}", changed))
    rows = -(-len(tiles) // COLUMNS)
    whole = Image.new("RGB", (min(len(tiles), COLUMNS) * TILE_WIDTH, rows * (height + CAPTION_PX)), (20, 20, 20))
    draw = ImageDraw.Draw(whole)
    for index, (caption, picture) in enumerate(tiles):
        left, top = index % COLUMNS * TILE_WIDTH, index // COLUMNS * (height + CAPTION_PX)
        draw.text((left + 3, top + 1), caption, fill=(255, 255, 255))
        whole.paste(picture.resize((TILE_WIDTH, height), Image.Resampling.BICUBIC), (left, top + CAPTION_PX))
    return whole


def _folder(name: str, severity: int) -> str:
    known = CORRUPTIONS[name]
    return known.published if severity == known.drivebench else f"{known.published}-{severity}"


def _files(samples: Sequence[Sample]) -> dict[str, str]:
    """`CAMERA/FILE` -> path; the first sample that names a picture says what it shows."""
    files: dict[str, str] = {}
    seen: set[str] = set()
    problems = []
    for sample in samples:
        for camera, path in sample.images.items():
            place = f"{camera}/{Path(path).name}"
            if path in seen:
                continue
            seen.add(path)
            if files.setdefault(place, path) != path:
                found, remedy = (
                    f"{files[place]} as well",
                    "rename one of them, or write the files of the data set apart",
                )
                problems.append(
                    Problem(path, place, "a file name of its own among the camera's pictures", found, remedy)
                )
    if problems:
        raise InputError(problems)
    return files
