"""The places that a question names, as shares of the pictures: where a model is to look.

A question about `<c1,CAM_BACK,1088.3,497.5>` is about one spot of one picture. A model that reads the tag as text has to
learn what the digits mean; with `data.points: true` it is given the place itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from drivedistill.data.images import image_size
from drivedistill.data.prior import OPTIONS
from drivedistill.data.prompt import POINT
from drivedistill.problems import InputError, Problem
from drivedistill.records import CAMERAS, Sample

MAX_POINTS = 8
"""Places of a question that a model is given; those named after them are left to the text."""


def points(samples: Sequence[Sample]) -> Tensor:
    """The places that questions name, `float32[B, R, 3]`: camera (index in `CAMERAS`), x and y in 0 to 1.

    R is the most that one of the samples names, and may be 0; the rest of a row is padding, with camera -1.
    """
    named = [named_points(sample) for sample in samples]
    table = torch.zeros(len(samples), max(map(len, named), default=0), 3)
    table[:, :, 0] = -1
    for row, places in zip(table, named, strict=True):
        if places:
            row[: len(places)] = torch.tensor(places)
    return table


def named_points(sample: Sample) -> list[tuple[int, float, float]]:
    """Camera, x and y of every tag of the question, in order of mention; the first `MAX_POINTS` of them.

    The options of a multiple-choice question are no places that it asks about. A tag in a camera of which the sample
    has no picture gives nothing, since there is nothing to look at; a place outside the picture is moved to its edge.

    Raises:
        InputError: A picture cannot be read.
    """
    places = []
    for _, camera, x, y in POINT.findall(OPTIONS.sub("", sample.question)):
        if camera in CAMERAS and camera in sample.images:
            width, height = picture_size(sample, camera)
            places.append((CAMERAS.index(camera), _share(x, width), _share(y, height)))
    return places[:MAX_POINTS]


def picture_size(sample: Sample, camera: str) -> tuple[int, int]:
    """(width, height) in pixels of a sample's picture.

    Raises:
        InputError: The text names a camera of which the sample has no picture, or the picture cannot be read.
    """
    if camera not in sample.images:
        found = f"a point in {camera}, but pictures of {', '.join(sample.images)}"
        remedy = "add the picture, or use `coordinates: pixel`"
        raise InputError(Problem(sample.dataset, f"sample {sample.id}", "points in known pictures", found, remedy))
    return _size_on_disk(sample.images[camera])


_size_on_disk = lru_cache(maxsize=100_000)(image_size)


def _share(value: str, side: int) -> float:
    return min(max(float(value) / side, 0.0), 1.0)
