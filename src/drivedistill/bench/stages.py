"""Where the time of one answer goes.

    pictures on disk -image_decode-> RGB -preprocess-> tensors on the device
        -vision-> image tokens -encoder-> hidden states -first_token-> one token -decode-> the last token

    image_decode   file to RGB pixels, all views
    preprocess     scaling, the region's rectangle, normalisation, tokenizer, collating, the way to the device
    vision         vision tower, fusion of the views, adapter or projector
    encoder        encoder-decoder: the rest until the encoder has ended. Decoder-only: the prefill, without vision
    first_token    the decoder's first step; decoder-only: for the prompt's last token (with `generate` its head alone)
    decode         all further tokens

The stages are taken from the ordinary answer, by hooks on the model's sub-modules and by being told every token. They
follow each other without gaps, so their sum is the whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from drivedistill.bench.clock import Clock
from drivedistill.data.images import MAX_PIXELS, PictureCache, Size
from drivedistill.models.student import bare

VISION: dict[str, tuple[str, ...]] = {
    "driving_t5": ("vision", "fusion", "adapter"),
    "internvl": ("model.vision_tower", "model.multi_modal_projector"),
    "qwen2_5_vl": ("model.visual",),
    "llava": ("model.vision_tower", "model.multi_modal_projector"),
}
"""Sub-modules that make image tokens of pictures, by `model_type`; none lies inside another."""

READER: dict[str, str] = {
    "driving_t5": "language_model.encoder",
    "internvl": "model.language_model",
    "qwen2_5_vl": "model.language_model",
    "llava": "model.language_model",
}
"""The sub-module whose first call reads the whole question."""


class Stages(NamedTuple):
    """Milliseconds of one answer, by stage."""

    image_decode: float
    preprocess: float
    vision: float
    encoder: float
    first_token: float
    decode: float

    @property
    def whole(self) -> float:
        """From the pictures on disk to the last token."""
        return sum(self)

    @property
    def resident(self) -> float:
        """From tensors on the device to the last token."""
        return self.vision + self.encoder + self.first_token + self.decode


def median_stages(stages: Sequence[Stages]) -> Stages:
    """The median of every stage; the medians need not add up to a median of the wholes."""
    return Stages(*(float(value) for value in np.median(np.array(stages), axis=0)))


class TimedPictures(PictureCache):
    """Keeps no picture, and notes how long decoding takes."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(0)
        self.seconds = 0.0
        self._clock = clock

    def decode(self, path: str | Path, wanted: Size | None, max_pixels: int = MAX_PIXELS) -> tuple[Image.Image, Size]:
        """As `PictureCache.decode`."""
        opened = self._clock.now()
        decoded = super().decode(path, wanted, max_pixels)
        self.seconds += self._clock.now() - opened
        return decoded


class Watch:
    """Notes the stages of one model's answers.

        with watch.answer():
            inputs = ...            # from `watch.pictures`
            watch.prepared()
            write(inputs, watch.note)
        watch.stages

    Args:
        model: A supported model.
        clock: Of its device.
        pictures: From which its inputs are made.
    """

    stages: Stages
    """Of the last answer."""
    tokens: int
    """Tokens of the last answer."""

    def __init__(self, model: Any, clock: Clock, pictures: TimedPictures) -> None:
        self.clock, self.pictures = clock, pictures
        base = bare(model)
        kind = base.config.model_type
        self._vision = [base.get_submodule(name) for name in VISION[kind]]
        self._reader = base.get_submodule(READER[kind])
        self._ready = 0.0
        self._spans: list[tuple[Any, Any]] = []
        self._opened: Any = None
        self._read: Any = None
        self._chosen: list[float] = []

    @contextmanager
    def answer(self) -> Iterator[None]:
        """One question, from the pictures on disk to the last token."""
        hooks = [module.register_forward_pre_hook(self._enter) for module in self._vision]
        hooks += [module.register_forward_hook(self._leave) for module in self._vision]
        hooks.append(self._reader.register_forward_hook(self._has_read))
        self._spans, self._read, self._chosen, self.pictures.seconds = [], None, [], 0.0
        try:
            asked = self.clock.begin()
            yield
            ended = self.clock.finish()
        finally:
            for hook in hooks:
                hook.remove()
        self.stages, self.tokens = self._settle(asked, ended), len(self._chosen)

    def prepared(self) -> None:
        """The inputs lie on the device."""
        self._ready = self.clock.finish()

    def note(self, token: Tensor) -> None:
        """Called with every token, which lies on the host by then."""
        self._chosen.append(self.clock.now())

    def _enter(self, *_: Any) -> None:
        self._opened = self.clock.mark()

    def _leave(self, *_: Any) -> None:
        self._spans.append((self._opened, self.clock.mark()))

    def _has_read(self, *_: Any) -> None:
        if self._read is None:
            self._read = self.clock.mark()

    def _settle(self, asked: float, ended: float) -> Stages:
        vision = sum(self.clock.at(end) - self.clock.at(start) for start, end in self._spans)
        read, first = self.clock.at(self._read), self._chosen[0]
        seconds = (
            self.pictures.seconds,
            self._ready - asked - self.pictures.seconds,
            vision,
            read - self._ready - vision,
            first - read,
            ended - first,
        )
        return Stages(*(1000 * value for value in seconds))
