"""One look at a picture for all the questions about it: the vision tower runs once per view of a batch, not per question."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from drivedistill.data.collate import Preparation, pixels
from drivedistill.data.images import Drawing
from drivedistill.distill.cache import views_of
from drivedistill.models.vision import VisionEncoder
from drivedistill.records import Region, Sample

Key = tuple[str, tuple[float, ...] | None]
"""A picture and the box of the region that is drawn into it."""


class SeenViews:
    """What a vision tower made of the views of the last questions; a `FeatureReader`.

    Views of the batch before are kept, since the questions of a frame follow each other.

    Args:
        vision: In evaluation mode on its device.
        preparation: How its pictures are prepared.
    """

    def __init__(self, vision: VisionEncoder, preparation: Preparation) -> None:
        self.vision, self.preparation = vision, preparation
        self.looks = 0
        """Views that the tower was given so far."""
        self._rows: dict[Key, Tensor] = {}

    @property
    def shape(self) -> tuple[int, int]:
        """P and D_v."""
        return self.vision.tokens, self.vision.width

    @torch.inference_mode()
    def look(self, samples: Sequence[Sample]) -> None:
        """Let the tower see the views of some samples that it has not seen; the others' are forgotten."""
        wanted = {_key(view.path, view.region): view for view in views_of(samples, self.preparation.reading)}
        new = [key for key in wanted if key not in self._rows]
        rows = {key: self._rows[key] for key in wanted if key in self._rows}
        if new:
            parameter = next(self.vision.parameters())
            pictures = torch.stack([pixels(wanted[key].path, wanted[key].region, self.preparation) for key in new])
            tokens = self.vision(pictures[:, None].to(parameter.device, parameter.dtype))[:, 0]
            rows |= dict(zip(new, tokens.float().cpu(), strict=True))
        self.looks += len(new)
        self._rows = rows

    def read(self, path: str, region: Region | None, drawing: Drawing) -> Tensor:
        """`float[P, D_v]` of a view of the samples that were looked at last."""
        return self._rows[_key(path, region)]


def _key(path: str, region: Region | None) -> Key:
    return path, None if region is None else tuple(region.box)
