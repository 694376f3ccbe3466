"""All pictures of a split in memory, as bytes: decoded once, normalised in the step."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from drivedistill.data.images import load_image
from drivedistill.pretrain.facts import Frame
from drivedistill.problems import InputError
from drivedistill.progress import Progress
from drivedistill.records import CAMERAS


def megabytes(frames: Sequence[Frame], size: int) -> float:
    """Memory that `decode` takes."""
    return len(frames) * len(CAMERAS) * size * size * 3 / 1e6


def decode(frames: Sequence[Frame], size: int) -> tuple[Tensor, Tensor]:
    """The frames' pictures, scaled as a model is given them.

    Returns:
        `uint8[F, C, H, W, 3]`, zeros where there is no picture, and `bool[F, C]`: where there is one.

    Raises:
        InputError: Pictures that are missing or damaged, all of them listed.
    """
    pictures = torch.zeros(len(frames), len(CAMERAS), size, size, 3, dtype=torch.uint8)
    present = torch.zeros(len(frames), len(CAMERAS), dtype=torch.bool)

    def fill(index: int) -> list[InputError]:
        errors = []
        for view, path in _views(frames[index]):
            try:
                rows = np.asarray(load_image(path, (size, size)))
            except InputError as error:
                errors.append(error)
                continue
            pictures[index, view] = torch.from_numpy(rows.copy())
            present[index, view] = True
        return errors

    errors: list[InputError] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool, Progress(len(frames), word="frame decoded") as progress:
        for found in pool.map(fill, range(len(frames))):
            errors += found
            progress.advance()
    if errors:
        raise InputError(problem for error in errors for problem in error.problems)
    return pictures, present


def _views(frame: Frame) -> Iterator[tuple[int, str]]:
    return ((CAMERAS.index(camera), path) for camera, path in frame.images.items())


def normalise(pictures: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """`[M, H, W, 3]` with values from 0 to 255 as a model is given them: `float[M, 3, H, W]`, see `data.collate.pixels`."""
    middle, spread = (torch.tensor(values, device=pictures.device) for values in (mean, std))
    return ((pictures.float() / 255 - middle) / spread).permute(0, 3, 1, 2)
