"""Our own format: one `Sample` per line of a JSONL file, picture paths relative to the data root.

Any data set can be brought here by a script, and any mixture can be written down exactly as it was trained on.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from drivedistill.data.paths import find, under
from drivedistill.problems import InputError, Problem
from drivedistill.records import CAMERAS, Regime, Sample, read_jsonl, write_jsonl


def read(root: Path, file: str, *, regime: Regime) -> Iterator[Sample]:
    """Read `ROOT/{file}.jsonl`; see `read_samples`. Rows that name no regime or split get `regime` and `file`."""
    yield from read_samples(root, file, regime=regime)


def read_samples(root: Path, file: str, *, regime: Regime | None = None) -> list[Sample]:
    """Read a JSONL file of samples.

    Args:
        root: The folder to which the file and its picture paths are relative.
        file: The file's path, or that path without `.jsonl`.
        regime: For rows that do not say.

    Returns:
        The samples, their picture paths absolute.

    Raises:
        InputError: The file is missing, a line is no valid `Sample`, a camera is unknown, or a picture lies outside
            the data root; all findings at once.
    """
    name = file if file.endswith((".jsonl", ".json")) else f"{file}.jsonl"
    path = find(root, [name], "a JSONL file of samples")
    defaults: dict[str, Any] = {"split": Path(file).stem} | ({"regime": regime} if regime else {})
    samples = read_jsonl(path, Sample, prepare=lambda row: defaults | row)
    problems: list[Problem] = []
    resolved = []
    for sample in samples:
        images = {camera: under(root, image) for camera, image in sample.images.items()}
        problems += _image_problems(str(path), sample.id, images, sample.images)
        resolved.append(sample.model_copy(update={"images": {camera: str(image) for camera, image in images.items()}}))
    if problems:
        raise InputError(problems)
    return resolved


def write_samples(path: Path, samples: Iterable[Sample], root: Path) -> int:
    """Write samples to a JSONL file, completely or not at all, picture paths relative to `root` with slashes.

    Returns:
        The number of samples.

    Raises:
        InputError: A picture lies outside `root`; nothing is written.
    """
    base = os.path.abspath(root)
    rows: list[Sample] = []
    problems: list[Problem] = []
    for sample in samples:
        inside = {camera: under(root, image) for camera, image in sample.images.items()}
        problems += _image_problems(str(path), sample.id, inside, sample.images)
        relative = {camera: image.relative_to(base).as_posix() for camera, image in inside.items() if image is not None}
        rows.append(sample.model_copy(update={"images": relative}))
    if problems:
        raise InputError(problems)
    return write_jsonl(path, rows)


def _image_problems(file: str, record: str, inside: dict[str, Path | None], given: dict[str, str]) -> Iterator[Problem]:
    for camera, path in inside.items():
        if camera not in CAMERAS:
            expected = f"one of {', '.join(CAMERAS)}"
            yield Problem(file, f"{record}, images.{camera}", expected, camera, "correct the camera's name")
        if path is None:
            remedy = "move the picture below the data root, or choose a root above it"
            yield Problem(file, f"{record}, images.{camera}", "a path inside the data root", given[camera], remedy)
    if not inside:
        yield Problem(file, f"{record}, images", "at least one camera", "none", "name the pictures")
