"""Where a picture was taken and what surrounds it: what chance and neighbours a corruption depends on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from drivedistill.problems import InputError, Problem
from drivedistill.records import CAMERAS, Sample


class Place(NamedTuple):
    """A picture's identity; its path is none, since data lie elsewhere on every machine."""

    dataset: str
    scene: str
    frame: str
    camera: str


@dataclass(frozen=True)
class Shot:
    """One picture, as a corruption sees it."""

    corruption: str
    seed: int
    path: str
    place: Place
    views: tuple[str, ...]
    """The cameras of its frame, in the order of `CAMERAS`."""
    rig: tuple[str, ...]
    """The cameras of its data set, in the same order."""
    sequence: tuple[str, ...]
    """The pictures of its camera in its scene, first to last."""

    def random(self, *scope: str) -> np.random.Generator:
        """A generator of its own for this corruption, seed and part of the data.

        Args:
            scope: What shares the draws, `self.place[:3]` for the views of a frame; by default nothing beside this picture.
        """
        key = "\0".join((self.corruption, str(self.seed), *(scope or self.place)))
        return np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "big"))


@dataclass(frozen=True)
class Shots:
    """The pictures of a data set."""

    corruption: str
    seed: int
    places: dict[str, Place]
    """Path -> what it shows."""
    views: dict[tuple[str, str, str], tuple[str, ...]]
    """Data set, scene and frame -> cameras."""
    rigs: dict[str, tuple[str, ...]]
    """Data set -> cameras."""
    sequences: dict[tuple[str, str, str], tuple[str, ...]]
    """Data set, scene and camera -> paths, in the order of the frames."""

    def at(self, path: str) -> Shot:
        """The picture of this path.

        Raises:
            InputError: It is none of the samples'.
        """
        place = self.places.get(path)
        if place is None:
            expected = f"a picture of the samples that {self.corruption} was made for"
            raise InputError(Problem(path, "", expected, "another picture", "name all samples that are shown"))
        views, rig = self.views[place[:3]], self.rigs[place.dataset]
        sequence = self.sequences[place.dataset, place.scene, place.camera]
        return Shot(self.corruption, self.seed, path, place, views, rig, sequence)


def shots_of(samples: Sequence[Sample], corruption: str, seed: int) -> Shots:
    """Look through samples for their pictures; the first to name a picture says what it shows."""
    places: dict[str, Place] = {}
    views: dict[tuple[str, str, str], dict[str, None]] = {}
    rigs: dict[str, dict[str, None]] = {}
    sequences: dict[tuple[str, str, str], dict[str, None]] = {}
    for sample in samples:
        for camera, path in sample.images.items():
            place = places.setdefault(path, Place(sample.dataset, sample.scene, sample.frame, camera))
            views.setdefault(place[:3], {})[place.camera] = None
            rigs.setdefault(place.dataset, {})[place.camera] = None
            sequences.setdefault((place.dataset, place.scene, place.camera), {})[path] = None
    return Shots(
        corruption,
        seed,
        places,
        {key: _in_order(cameras) for key, cameras in views.items()},
        {key: _in_order(cameras) for key, cameras in rigs.items()},
        {key: tuple(paths) for key, paths in sequences.items()},
    )


def _in_order(cameras: Iterable[str]) -> tuple[str, ...]:
    """Those of `CAMERAS` as there, others after them by name."""
    return tuple(sorted(cameras, key=lambda camera: (CAMERAS.index(camera) if camera in CAMERAS else 6, camera)))
