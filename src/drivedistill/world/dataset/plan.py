"""Which scenes are driven for which split, and which moments of them become key frames.

Simulating is cheap and rendering is not, so a pool of scenes is driven that is larger than needed, and key frames are
picked from it to a quota per action. Work comes in chunks, each a function of the seed and its own place: that makes a
data set resumable, and the same for any number of workers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from drivedistill.records import Regime
from drivedistill.world.action import Action, action, is_clear
from drivedistill.world.driving.drive import drive_scene
from drivedistill.world.driving.kinds import CORNER, REGULAR
from drivedistill.world.scene import STEP_S, Drive

REGIMES: tuple[Regime, ...] = get_args(Regime)
SPLITS = ("train", "validation", "test-regular", "test-corner")
SHARES = {"validation": 0.1, "test-regular": 0.1, "test-corner": 0.1}
"""Of the key frames; the rest is for training. Half of the validation frames are corner cases."""
CORNER_RATIO = 17
"""Regular to corner questions in the training split, as in CLKD. A corner frame has more questions than a regular one."""
CHUNK = 24
"""Key frames per chunk."""
SCENES = 2**10
"""Seeds of scenes that a chunk has."""
CLIP_CHUNK = 2**20 - 1
"""The last chunk that has seeds; clips use them from here backwards."""
PER_SCENE = 3
APART = round(1.2 / STEP_S)
"""Fewest steps between two key frames of a scene."""
CANDIDATES = range(6, 61, 3)
"""Steps that may become key frames: 0.6 to 6 s, so that the log reaches six seconds beyond."""
POOL = 2.5
"""Scenes that are driven, over the fewest that would do."""
RARE_IN_TRAINING = {"wrong_way": 0.3, "overturned": 0.3, "odd_vehicle": 0.5, "obscured_sign": 0.3, "animal": 0.5}
"""Weights of corner kinds while training; elsewhere all corner kinds are equally frequent."""
HELD_OUT = 0.5
"""Share of test-corner scenes with an object as hazard that show an appearance which training never shows."""

QUOTA: dict[str, float] = {
    "go straight, keep speed": 0.20,
    "go straight, decelerate": 0.17,
    "go straight, accelerate": 0.12,
    "go straight, stop": 0.13,
    "turn left": 0.11,
    "turn right": 0.11,
    "change to the left lane": 0.08,
    "change to the right lane": 0.08,
}
"""Wanted share of key frames per action. What the pool cannot give goes to the others."""


@dataclass(frozen=True)
class Chunk:
    """A piece of work: some key frames of one split and regime."""

    split: str
    regime: Regime
    index: int
    """Of the chunks of its split and regime."""
    keyframes: int

    @property
    def name(self) -> str:
        """File name without extension."""
        return f"{self.split}-{self.regime}-{self.index:05d}"


@dataclass(frozen=True)
class Pick:
    """A drive and the steps of it that become key frames."""

    drive: Drive
    steps: tuple[int, ...]


def parts(keyframes: int) -> dict[tuple[str, Regime], int]:
    """Key frames per split and regime; 20 or more in all."""
    shares = {split: max(1, round(keyframes * share)) for split, share in SHARES.items()}
    validation_corner = max(1, shares["validation"] // 2)
    train = keyframes - sum(shares.values())
    train_corner = max(1, round(train / (CORNER_RATIO + 1)))
    return {
        ("train", "regular"): train - train_corner,
        ("train", "corner"): train_corner,
        ("validation", "regular"): shares["validation"] - validation_corner,
        ("validation", "corner"): validation_corner,
        ("test-regular", "regular"): shares["test-regular"],
        ("test-corner", "corner"): shares["test-corner"],
    }


def chunks(keyframes: int) -> list[Chunk]:
    """All the work for a data set of so many key frames."""
    return [
        Chunk(split, regime, index, min(CHUNK, count - index * CHUNK))
        for (split, regime), count in parts(keyframes).items()
        for index in range(-(-count // CHUNK))
    ]


def pick_key_frames(chunk: Chunk, seed: int) -> list[Pick]:
    """Drive a pool of scenes and pick the chunk's key frames.

    Scenes are driven until the pool is large enough; a rejected scene is replaced by the next one.
    """
    rng = np.random.default_rng([seed, *_place(chunk)])
    wanted_scenes = int(np.ceil(chunk.keyframes / PER_SCENE * POOL)) + 2
    drives: list[Drive] = []
    for number, (kind, held_out) in zip(range(8 * wanted_scenes), _kinds(chunk, rng), strict=False):
        drive = drive_scene(kind, _scene_seed(chunk, seed, number), held_out=held_out)
        if drive is not None:
            drives.append(drive)
        if len(drives) >= wanted_scenes:
            break
    return _fill(drives, chunk.keyframes, rng)


def clip_drives(regime: Regime, seed: int) -> Iterator[Drive]:
    """Drives for clips, all kinds in turn, without end; their scenes are in no data set of fewer than 25 million frames.

    In half of the corner scenes with an object as hazard it has an appearance that training never shows.
    """
    chunk = Chunk(f"test-{regime}", regime, CLIP_CHUNK, 0)
    for number, (kind, held_out) in enumerate(_kinds(chunk, np.random.default_rng([seed, *_place(chunk)]))):
        block = replace(chunk, index=CLIP_CHUNK - number // SCENES)
        drive = drive_scene(kind, _scene_seed(block, seed, number % SCENES), held_out=held_out)
        if drive is not None:
            yield drive


def _place(chunk: Chunk) -> tuple[int, int, int]:
    return SPLITS.index(chunk.split), REGIMES.index(chunk.regime), chunk.index


def _scene_seed(chunk: Chunk, seed: int, number: int) -> int:
    """A seed that no other scene of the data set has, whatever the split."""
    split, regime, index = _place(chunk)
    return (((seed * 4 + split) * 2 + regime) * 2**20 + index) * SCENES + number


def _kinds(chunk: Chunk, rng: np.random.Generator) -> Iterator[tuple[str, bool]]:
    """Scene kinds, and whether they show held-out appearances: all kinds in turn, in a drawn order, again and again."""
    kinds = REGULAR if chunk.regime == "regular" else CORNER
    weights = RARE_IN_TRAINING if chunk.split in ("train", "validation") else {}
    while True:
        for kind in rng.permutation(kinds).tolist():
            if rng.random() < weights.get(kind, 1.0):
                yield kind, chunk.split == "test-corner" and bool(rng.random() < HELD_OUT)


def cell(done: Action) -> str:
    """The quota that an action counts for: speed is told apart on the straight only."""
    return done.lateral if done.lateral != "go straight" else f"{done.lateral}, {done.longitudinal}"


def _fill(drives: Sequence[Drive], wanted: int, rng: np.random.Generator) -> list[Pick]:
    """Pick moments, always one of the action that lacks most, from the scene with the fewest so far."""
    free: dict[str, list[tuple[int, int]]] = {}
    for number, drive in enumerate(drives):
        for step in moments(drive):
            free.setdefault(cell(action(drive, step)), []).append((number, step))
    for found in free.values():
        rng.shuffle(found)
    picked: dict[int, list[int]] = {}
    count: Counter[str] = Counter()
    for _ in range(wanted):
        for name in sorted(QUOTA, key=lambda name: count[name] - QUOTA[name] * wanted):
            moment = _take(free.get(name, []), picked)
            if moment:
                picked.setdefault(moment[0], []).append(moment[1])
                count[name] += 1
                break
    return [Pick(drives[number], tuple(sorted(steps))) for number, steps in sorted(picked.items())]


def _take(moments: list[tuple[int, int]], picked: dict[int, list[int]]) -> tuple[int, int] | None:
    """Remove and return a moment that is far enough from those of its scene, from the scene with the fewest."""
    moments[:] = [
        (number, step)
        for number, step in moments
        if len(picked.get(number, ())) < PER_SCENE
        and all(abs(step - other) >= APART for other in picked.get(number, ()))
    ]
    if not moments:
        return None
    best = min(range(len(moments)), key=lambda index: len(picked.get(moments[index][0], ())))
    return moments.pop(best)


def moments(drive: Drive) -> list[int]:
    """Candidate steps; in a corner scene with a scripted hazard, those at which it lies ahead, if there are any."""
    clear = [step for step in CANDIDATES if is_clear(drive, step)]
    hazards = [actor.id for actor in drive.scene.actors if actor.hazard]
    if not drive.scene.corner or not hazards:
        return clear
    return [step for step in clear if hazard_ahead(drive, step)] or clear


def hazard_ahead(drive: Drive, step: int) -> bool:
    """Is a hazard in the front camera's field of view, near enough to be seen?"""
    places = (drive.seen_from_ego(actor.id, step) for actor in drive.scene.actors if actor.hazard)
    return any(4.0 < x < 45.0 and abs(y) < 0.65 * x for x, y, _ in places)
