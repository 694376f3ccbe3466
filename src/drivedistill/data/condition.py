"""What a model is shown: the pictures as they are, other ones, worse ones, or none.

    clean      as the data set has them
    black      every pixel 0; a region's red rectangle is part of the question and stays
    none       no picture at all: the places for pictures are left out of the model's input
    shuffled   every frame gets the pictures of a frame of another scene
    fog:3      a corruption and its severity; without a number the severity of DriveBench

Controls (`black`, `none`, `shuffled`) ask whether a model looks: what it still knows then, it knows from the text.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image

from drivedistill.data.corruptions import CORRUPTIONS, corruption
from drivedistill.data.images import Change
from drivedistill.problems import InputError, Problem
from drivedistill.records import CLEAN, Sample

CONTROLS = ("black", "none", "shuffled")


@dataclass(frozen=True)
class Shown:
    """The samples under a condition, and what else has to be done to their pictures."""

    samples: list[Sample]
    change: Change | None = None
    blind: bool = False
    """No picture is shown."""

    def only(self, asked: Sequence[Sample]) -> Shown:
        """Some of the samples, in their order; what they show stays as it was drawn for all."""
        ids = {sample.id for sample in asked}
        return replace(self, samples=[sample for sample in self.samples if sample.id in ids])


def condition_name(text: str, option: str = "condition", also: Sequence[str] = (CLEAN, *CONTROLS)) -> str:
    """A condition in its one spelling: `fog` becomes `fog:5`, DriveBench's severity.

    Args:
        text: As it was typed.
        option: Where, for the message.
        also: What the option takes beside corruptions.

    Raises:
        InputError: There is no such condition or severity.
    """
    if text in also:
        return text
    name, colon, severity = text.partition(":")
    known = CORRUPTIONS.get(name)
    if known is None or (colon and severity not in map(str, known.severities)):
        expected = f"one of {', '.join([*also, *CORRUPTIONS])}"
        if known is not None:
            expected = f"{name}:SEVERITY with a severity of {', '.join(map(str, known.severities))}"
        raise InputError(Problem("command line", option, expected, repr(text), "correct the name"))
    return f"{name}:{severity or known.drivebench}"


def show(samples: Sequence[Sample], condition: str, seed: int = 0) -> Shown:
    """Put samples under a condition.

    Args:
        samples: All samples of the data set, whether they are asked or not: what is lost, whose pictures are shown, and which
            frames make a film depend on all of them.
        condition: See the module.
        seed: The same seed shows the same pictures.

    Raises:
        InputError: There is no such condition, or nothing to shuffle.
    """
    name = condition_name(condition)
    if name == CLEAN:
        return Shown(list(samples))
    if name == "none":
        return Shown(list(samples), blind=True)
    if name == "black":
        return Shown(list(samples), change=_black)
    if name == "shuffled":
        return Shown(_shuffled(samples, seed))
    kind, _, severity = name.partition(":")
    return Shown(list(samples), change=corruption(kind, int(severity), samples, seed))


def _black(path: str, image: Image.Image) -> Image.Image:
    return Image.new("RGB", image.size)


def _shuffled(samples: Sequence[Sample], seed: int) -> list[Sample]:
    """Every frame with the pictures of a frame of another scene of the same data set and with the same cameras."""
    frames: dict[tuple[str, tuple[str, ...]], dict[tuple[str, str], dict[str, str]]] = {}
    for sample in samples:
        group = frames.setdefault((sample.dataset, tuple(sorted(sample.images))), {})
        group.setdefault((sample.scene, sample.frame), sample.images)
    given: dict[tuple[str, tuple[str, ...], str, str], dict[str, str]] = {}
    for (dataset, cameras), group in frames.items():
        order = sorted(group)
        if len({scene for scene, _ in order}) < 2:
            found = f"{len(order)} frames with {', '.join(cameras)} of one scene"
            remedy = "ask about more scenes"
            raise InputError(Problem(dataset, "shuffled", "frames of at least two scenes", found, remedy))
        for frame, other in zip(order, _other_scenes(order, seed), strict=True):
            given[dataset, cameras, *frame] = group[other]

    def others(sample: Sample) -> dict[str, str]:
        return given[sample.dataset, tuple(sorted(sample.images)), sample.scene, sample.frame]

    return [sample.model_copy(update={"images": others(sample)}) for sample in samples]


def _other_scenes(order: Sequence[tuple[str, str]], seed: int) -> list[tuple[str, str]]:
    """For every (scene, frame) a random one of another scene."""
    generator = random.Random(f"shuffled {seed}")
    found = []
    for scene, _ in order:
        other = scene
        while other == scene:
            other, frame = generator.choice(order)
        found.append((other, frame))
    return found
