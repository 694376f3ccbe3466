"""The labelled frames of videos, as pictures: models read picture files, and decode each of them once.

PyAV (FFmpeg) decodes, from the first frame on: seeking lands on another frame in some files, counting never does. Needs
the extra `video`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from drivedistill.data.clip_folder import Clip
from drivedistill.data.clips import Label, open_clips, read_labels
from drivedistill.problems import InputError, Problem
from drivedistill.progress import Progress

if TYPE_CHECKING:
    from PIL import Image

FORMATS = "mov,mp4,matroska,webm,avi"
"""Containers that are opened, whatever a file is called: others may refer to other files or to servers."""
HALF_MS = 0.0005
"""Times are to the millisecond."""


class Extracted(NamedTuple):
    """What was done."""

    written: int
    there: int
    """Pictures that were there already, and not older than their video."""
    videos: int
    """Videos with a labelled frame."""
    bytes: int
    """Size of all these pictures."""


def extract_frames(root: Path, file: str, quality: int = 95) -> Extracted:
    """Write the labelled frames of all videos to `ROOT/CLIP/CAMERA/`; `000012.jpg` is frame 12, `3.500s.jpg` a time.

    Each picture appears whole or not at all, so an interrupted call goes on when it is repeated. A picture that is older
    than its video is written again.

    Args:
        root: The folder of the clips.
        file: The file of labels, see `clips.read`.
        quality: Of the JPEG files, 1 to 100; colours are kept at full resolution.

    Raises:
        InputError: PyAV is not installed; everything that is wrong with labels, clips and videos, once all other frames
            are written: a video that cannot be decoded, a frame beyond its end.
    """
    _require_av()
    path, labels, problems = read_labels(root, file)
    wanted = _wanted(open_clips(root, path, labels, problems), labels, path, problems)
    targets = [target for of_video in wanted.values() for target in of_video]
    todo = {video: {t: label for t, label in ls.items() if not _is_fresh(t, video)} for video, ls in wanted.items()}
    count = sum(map(len, todo.values()))
    with Progress(len(targets), len(targets) - count, word="frames") as progress:
        for video, left in todo.items():
            try:
                for target, picture in _pictures(video, left):
                    _save(picture, target, quality)
                    progress.advance()
            except InputError as error:
                problems += error.problems
    if problems:
        raise InputError(problems)
    size = sum(target.stat().st_size for target in targets)
    return Extracted(count, len(targets) - count, len(wanted), size)


def _require_av() -> None:
    if find_spec("av") is None:
        remedy = 'pip install "drivedistill[video]", or extract the frames with another program'
        raise InputError(Problem("data frames", "", "PyAV, which decodes videos", "it is not installed", remedy))


def _wanted(
    clips: Mapping[str, Clip], labels: Iterable[tuple[int, Label]], path: Path, problems: list[Problem]
) -> dict[Path, dict[Path, Label]]:
    """Video -> picture that will show one of its moments -> the moment."""
    wanted: dict[Path, dict[Path, Label]] = {}
    for number, label in labels:
        clip = clips.get(label.clip)
        if clip is None or not clip.videos:
            continue
        if label.frame is not None and not label.frame.isdecimal():
            where, expected = f"row {number}, {label.clip}", "the number of a frame in its video (from 0), or a `time`"
            problems.append(Problem(str(path), where, expected, repr(label.frame), "correct the frame"))
            continue
        for camera, video in clip.videos.items():
            wanted.setdefault(video, {})[clip.folder / camera / f"{label.moment.zfill(6)}.jpg"] = label
    return wanted


def _is_fresh(target: Path, video: Path) -> bool:
    return target.is_file() and target.stat().st_mtime >= video.stat().st_mtime


def _save(picture: Image.Image, target: Path, quality: int) -> None:
    """Write a JPEG, completely or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        picture.save(temporary, "JPEG", quality=quality, subsampling=0)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _pictures(video: Path, wanted: Mapping[Path, Label]) -> Iterator[tuple[Path, Image.Image]]:
    """Decode a video up to the last wanted moment.

    Raises:
        InputError: It cannot be decoded, or moments lie beyond its end.
    """
    left, count, end = dict(wanted), 0, 0.0
    for frame, start, end in _decode(video) if left else ():
        for target in [target for target, label in left.items() if _is_shown(label, count, start, end)]:
            del left[target]
            yield target, frame.to_image().rotate(frame.rotation, expand=True)
        count += 1
        if not left:
            return
    expected, remedy = f"moments of a video of {count} frames, {end:.3f} s", "correct the labels"
    if left:
        raise InputError(
            Problem(str(video), label.moment, expected, "beyond its end", remedy) for label in left.values()
        )


def _is_shown(label: Label, index: int, start: float, end: float) -> bool:
    if label.time is None:
        return label.frame == str(index)
    return start - HALF_MS <= label.time < end - HALF_MS


def _decode(video: Path) -> Iterator[tuple[Any, float, float]]:
    """Frames in the order in which they are shown, each with the seconds from when and until when it is shown.

    Raises:
        InputError: The file is no video, or is damaged.
    """
    import av

    options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
    try:
        with av.open(str(video), options=options) as container:
            if not container.streams.video:
                raise av.error.InvalidDataError(0, "no pictures in it")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            last, first, start = None, 0.0, 0.0
            for frame in container.decode(stream):
                now = float("nan") if frame.time is None else frame.time
                if last is None:
                    first = now
                else:
                    yield last, start, now - first
                last, start = frame, now - first
            if last is not None:
                yield last, start, start + float(1 / (stream.average_rate or 10))  # nothing comes after it
    except av.error.FFmpegError as error:
        remedy = "convert it, e.g. `ffmpeg -i VIDEO -c:v libx264 NEW.mp4`, or record it again"
        raise InputError(Problem(str(video), "", "a video that can be decoded", str(error), remedy)) from error
