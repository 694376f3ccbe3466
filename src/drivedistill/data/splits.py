"""Which scene learns and which scene examines: deterministic splits without leakage.

Scenes (or questions) are ordered by a hash of seed and name and cut at the cumulative fractions, so a split depends
neither on the order of the file nor on the random generator of any library.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from drivedistill.problems import InputError, Problem
from drivedistill.records import Sample


def split_by_scene(samples: Sequence[Sample], fractions: Mapping[str, float], seed: int) -> dict[str, list[Sample]]:
    """Split so that no scene is shared.

    Args:
        samples: Samples of one source.
        fractions: Split name -> share of the scenes (counted in scenes, not in questions); sums to 1.
        seed: Another seed, another split.

    Returns:
        Split name -> its samples in the given order, their `split` set. Every split with a fraction above 0 has at
        least one scene.

    Raises:
        InputError: There are fewer scenes than splits.
    """
    return _split(samples, fractions, seed, "scenes", lambda sample: sample.scene)


def split_by_question(samples: Sequence[Sample], fractions: Mapping[str, float], seed: int) -> dict[str, list[Sample]]:
    """Split by question, as EM-VLM4AD does (90/5/5): scenes, frames and pictures are shared between the splits.

    Scores on such a split are optimistic; it exists to repeat published numbers. Arguments and errors as in
    `split_by_scene`.
    """
    return _split(samples, fractions, seed, "questions", lambda sample: sample.id)


def shared_scenes(splits: Mapping[str, Sequence[Sample]]) -> dict[tuple[str, str], list[str]]:
    """(dataset, scene) -> the splits that share it, for every scene in more than one split."""
    where: dict[tuple[str, str], dict[str, None]] = {}
    for name, samples in splits.items():
        for sample in samples:
            where.setdefault((sample.dataset, sample.scene), {})[name] = None
    return {scene: list(names) for scene, names in where.items() if len(names) > 1}


def refuse_leakage(splits: Mapping[str, Sequence[Sample]]) -> None:
    """Make sure that no scene is in two splits.

    Raises:
        InputError: One problem per shared scene.
    """
    remedy = "split by scene, or choose files that share no scene"
    problems = [
        Problem(dataset, f"scene {scene}", "a scene in one split only", f"in {', '.join(names)}", remedy)
        for (dataset, scene), names in shared_scenes(splits).items()
    ]
    if problems:
        raise InputError(problems)


def _split(
    samples: Sequence[Sample], fractions: Mapping[str, float], seed: int, unit: str, key: Callable[[Sample], str]
) -> dict[str, list[Sample]]:
    keys = sorted({key(sample) for sample in samples}, key=lambda name: (_hash(seed, name), name))
    used = [name for name, fraction in fractions.items() if fraction > 0]
    if len(keys) < len(used):
        dataset = samples[0].dataset if samples else "the source"
        expected = f"at least {len(used)} {unit}, one for each of {', '.join(used)}"
        remedy = "add data, or give the splits that you do not need the fraction 0"
        raise InputError(Problem(dataset, unit, expected, f"{len(keys)} (an empty split)", remedy))
    edges = _edges(len(keys), [fractions[name] for name in used])
    split_of = {
        item: name for name, start, end in zip(used, edges, edges[1:], strict=False) for item in keys[start:end]
    }
    splits: dict[str, list[Sample]] = {name: [] for name in fractions}
    for sample in samples:
        name = split_of[key(sample)]
        splits[name].append(sample.model_copy(update={"split": name}))
    return splits


def _hash(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def _edges(count: int, fractions: list[float]) -> list[int]:
    """Where to cut `count` items: the rounded cumulative fractions, moved apart where a part would be empty."""
    exact = [Fraction(repr(float(fraction))) for fraction in fractions]
    total = sum(exact)
    edges = [0]
    for index in range(1, len(exact)):
        wanted = int(sum(exact[:index]) * count / total + Fraction(1, 2))
        edges.append(min(max(wanted, edges[-1] + 1), count - (len(exact) - index)))
    return [*edges, count]
