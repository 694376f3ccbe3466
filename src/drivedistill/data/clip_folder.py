"""Where a clip's pictures lie: one to six cameras, each a folder of pictures or a video.

ROOT/CLIP/CAM_FRONT/000012.jpg      pictures by their number, or by any other name
ROOT/CLIP/CAM_BACK.mp4              a video; `drivedistill data frames` puts its labelled frames into CLIP/CAM_BACK/
ROOT/CLIP/000012.jpg, ROOT/CLIP.mp4 one camera may do without a folder: it is the front camera
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from drivedistill.data.paths import under
from drivedistill.problems import InputError, Problem
from drivedistill.records import CAMERAS

FRONT = CAMERAS[0]
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm")
VIDEOS = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi")
"""Endings; case does not matter. Files with other endings are left alone."""


@dataclass
class Clip:
    """What lies in the folder of a clip."""

    name: str
    folder: Path
    pictures: dict[str, dict[str, Path]] = field(default_factory=dict)
    """Camera -> name of the frame (see `frame_name`) -> picture."""
    videos: dict[str, Path] = field(default_factory=dict)
    """Camera -> video."""
    problems: list[Problem] = field(default_factory=list)

    @property
    def cameras(self) -> list[str]:
        """In the order in which views always travel."""
        return [camera for camera in CAMERAS if camera in self.pictures or camera in self.videos]


def frame_name(text: str) -> str:
    """One name for a frame, however many zeros stand before its number: `000012` is `12`."""
    return str(int(text)) if text.isdecimal() else text


def time_name(seconds: float) -> str:
    """The name of the frame that is shown at a time: `3.500s`."""
    return f"{seconds:.3f}s"


def is_video(path: Path) -> bool:
    """Is this the name of a video?"""
    return path.suffix.lower() in VIDEOS


def open_clip(root: Path, name: str) -> Clip:
    """Look into the folder of a clip.

    Args:
        root: The folder of all clips.
        name: The clip's folder, relative to the root, which is also the name of its only video without the ending.

    Returns:
        The clip; `problems` holds unknown cameras, a camera that is there twice, a frame with two pictures.

    Raises:
        InputError: The clip lies outside the root, or is not there.
    """
    folder = under(root, name)
    if folder is None or folder == under(root, "."):
        remedy = "name a folder below the data root"
        raise InputError(Problem(str(root), f"clip {name}", "a folder inside the data root", repr(name), remedy))
    clip = Clip(name, folder)
    for video in _beside(folder):
        _add_video(clip, FRONT, video)
    entries = _visible(folder) if folder.is_dir() else []
    for entry in entries:
        if entry.is_dir():
            _add_folder(clip, entry)
        elif is_video(entry):
            _add_video(clip, entry.stem, entry)
    if alone := [entry for entry in entries if entry.is_file() and entry.suffix.lower() in PICTURES]:
        if FRONT in clip.cameras:
            found = f"{alone[0].name} beside another {FRONT}"
            _complain(clip, folder, f"pictures of {FRONT} in one place", found, "move them into one folder")
        else:
            _add_pictures(clip, FRONT, alone)
    if not clip.cameras and not clip.problems:
        expected = "a folder of pictures, or a video of this name (" + ", ".join(VIDEOS) + ")"
        found = "no camera" if folder.is_dir() else "no such clip"
        raise InputError(Problem(str(folder), "", expected, found, "correct the clip's name, or add its pictures"))
    return clip


def _beside(folder: Path) -> list[Path]:
    names = [folder.name + ending for suffix in VIDEOS for ending in (suffix, suffix.upper())]
    found = [folder.with_name(name) for name in names if folder.with_name(name).is_file()]
    return [path for index, path in enumerate(found) if not any(path.samefile(other) for other in found[:index])]


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _add_folder(clip: Clip, folder: Path) -> None:
    if folder.name not in CAMERAS:
        _complain(clip, folder, f"one of {', '.join(CAMERAS)}", folder.name, "rename or remove the folder")
        return
    _add_pictures(clip, folder.name, [path for path in _visible(folder) if path.suffix.lower() in PICTURES])


def _add_pictures(clip: Clip, camera: str, paths: Iterable[Path]) -> None:
    frames = clip.pictures.setdefault(camera, {})
    for path in paths:
        name = frame_name(path.stem)
        if name in frames:
            _complain(clip, path, f"one picture of frame {name}", f"also {frames[name].name}", "remove one of them")
        frames[name] = path


def _add_video(clip: Clip, camera: str, path: Path) -> None:
    if camera not in CAMERAS:
        expected = "a video of one of " + ", ".join(CAMERAS)
        _complain(clip, path, expected, path.name, "rename the video after its camera, or remove it")
    elif camera in clip.videos:
        _complain(clip, path, f"one video of {camera}", f"also {clip.videos[camera].name}", "remove one of them")
    else:
        clip.videos[camera] = path


def _complain(clip: Clip, path: Path, expected: str, found: str, remedy: str) -> None:
    clip.problems.append(Problem(str(path), f"clip {clip.name}", expected, found, remedy))
