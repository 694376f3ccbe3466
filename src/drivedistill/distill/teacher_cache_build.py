"""Filling the cache of a teacher's words: what is missing, one batch of answers after the other.

The batches are the same in every call, whatever is there already: a teacher's numbers depend in their last places on the
batch in which they are computed, and an interrupted call is to end with the same bytes as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drivedistill.batch import Batch
from drivedistill.data.collate import collate
from drivedistill.distill.answer_rows import fill, looked_at
from drivedistill.distill.cache_folder import (
    begin_part,
    claimed,
    is_new,
    require_cache,
)
from drivedistill.distill.file_digests import FileDigests
from drivedistill.distill.likeliest import captured_mass, likeliest, pack
from drivedistill.distill.row_store import RowStore
from drivedistill.distill.teacher import LiveTeacher
from drivedistill.distill.teacher_cache import (
    CAPTURED,
    ENOUGH,
    FIELD,
    Speaker,
    answer_key,
    captured_problem,
    more_tokens,
)
from drivedistill.problems import InputError, Problem, RunError
from drivedistill.progress import counted
from drivedistill.records import Sample, write_json
from drivedistill.signals import Signals

PROBED = 64
"""Answers from which k is judged before all are asked for."""


@dataclass(frozen=True)
class Words:
    """The words of one teacher: what a recipe needs of them."""

    speaker: Speaker
    part: Path
    """The subfolder."""
    k: int
    store: RowStore
    keys: dict[str, str]
    """By sample id, those of all answers."""
    answers: list[Sample]
    """One sample for each key."""

    @property
    def missing(self) -> int:
        """Answers that are not there yet."""
        return sum(self.keys[sample.id] not in self.store for sample in self.answers)

    def batches(self, size: int) -> list[list[Sample]]:
        """All answers, in portions whose members never change."""
        return [self.answers[start : start + size] for start in range(0, len(self.answers), size)]

    def __str__(self) -> str:
        there = [self.store.rows_of(key) for key in set(self.keys.values()) if key in self.store]
        missing = f"{self.missing:,} to compute" if self.missing else "all there"
        return (
            f"teacher {self.speaker.name}: {counted(len(self.answers), 'answer')} of {counted(len(self.keys), 'question')}, "
            f"{missing}; k = {self.k}, {self.store.row_bytes} bytes a token, "
            f"{sum(there) * self.store.row_bytes / 1e6:,.1f} MB there in {self.part}"
        )


def plan(folder: Path, speaker: Speaker, samples: Sequence[Sample], k: int) -> Words:
    """What a cache would have to hold. Reads every file whose digest is not known; writes nothing.

    Raises:
        InputError: The folder holds something else.
    """
    if folder.exists() and not is_new(folder):
        require_cache(folder, FIELD)
    with Signals() as signals:
        digests = looked_at(folder, speaker, samples, signals, keep=False)
        return _words(folder, speaker, samples, _keys(speaker, samples, digests), k, digests)


def build(
    folder: Path,
    speaker: Speaker,
    teacher: LiveTeacher,
    samples: Sequence[Sample],
    *,
    k: int | None,
    batch_size: int,
    workers: int = 0,
    verify: bool = False,
    wait: bool = False,
) -> tuple[Words, int, str]:
    """Ask the teacher what it has not said yet. A killed call is gone on with by the next one.

    Two calls never write at the same time: the second is refused, or waits and then finds what the first one wrote.

    Args:
        folder: The cache; new, empty or a cache.
        speaker: Who is asked.
        teacher: The same with its weights in memory.
        samples: Whose answers are kept.
        k: Tokens kept; None doubles it from 64 until a sample of answers is captured well enough.
        batch_size: Answers per forward.
        workers: Processes that prepare batches.
        verify: Read every row, and compute damaged ones again.
        wait: Wait for another process that writes this cache, then compute what it left out.

    Returns:
        The words, how many answers were computed, and what share of the probability is captured, in words.

    Raises:
        InputError: Too little is captured, the folder holds something else, or another process writes it (without `wait`).
        RunError: The teacher's numbers are not finite, or a picture was changed on the way.
        Interrupted: SIGINT or SIGTERM; what was computed is kept.
    """
    with Signals() as signals, claimed(folder, FIELD, signals if wait else None):
        digests = looked_at(folder, speaker, samples, signals, keep=True)
        keys = _keys(speaker, samples, digests)
        if k is None or not _begun(_words(folder, speaker, samples, keys, k, digests)):
            k = _settled(folder, speaker, teacher, samples, k, batch_size)
        words = _words(folder, speaker, samples, keys, k, digests)
        _begin(words, digests)
        words.store.mend(verify=verify)
        computed = words.missing
        ask = partial(_records, words, teacher)
        batches, device = words.batches(batch_size), device_of(teacher)
        fill(words.store, speaker, words.keys, batches, ("",), ask, device, workers, signals, digests)
        masses = {sample.id: captured_mass(words.store.read(words.keys[sample.id])) for sample in samples}
        captured = _by_regime(samples, masses)
        write_json(words.part / CAPTURED, {"holds": "probability of the kept tokens", "regimes": captured})
        if problem := captured_problem(words.part, k):
            raise InputError(problem)
        return words, computed, _shown(captured)


def _keys(speaker: Speaker, samples: Iterable[Sample], digests: FileDigests) -> dict[str, str]:
    return {sample.id: answer_key(sample, speaker.preparation.reading, digests) for sample in samples}


def _words(
    folder: Path, speaker: Speaker, samples: Iterable[Sample], keys: dict[str, str], k: int, digests: FileDigests
) -> Words:
    k = min(k, speaker.vocabulary)
    first: dict[str, Sample] = {}
    for sample in samples:
        first.setdefault(keys[sample.id], sample)
    part = speaker.part(folder, k, digests)
    return Words(speaker, part, k, speaker.store(part, k), keys, list(first.values()))


def _begun(words: Words) -> bool:
    """So much is there that its k was judged before."""
    return len(words.store) >= min(PROBED, len(words.answers))


def _settled(
    folder: Path, speaker: Speaker, teacher: LiveTeacher, samples: Sequence[Sample], k: int | None, batch_size: int
) -> int:
    """The k that captures enough of some answers, spread over all.

    Raises:
        InputError: The k that was asked for does not.
    """
    ladder = [64] if k is None else [k]
    while k is None and ladder[-1] < speaker.vocabulary:
        ladder.append(2 * ladder[-1])
    chosen = samples[:: max(1, len(samples) // PROBED)][:PROBED]
    device = device_of(teacher)
    kept: dict[int, dict[str, NDArray[Any]]] = {size: {} for size in ladder}
    for start in range(0, len(chosen), batch_size):
        batch = collate(chosen[start : start + batch_size], {"student": speaker.preparation}).to(device)
        probabilities = (_logits(speaker, teacher, batch) / speaker.temperature).softmax(dim=-1)
        summed = probabilities.sort(dim=-1, descending=True).values.cumsum(dim=-1)
        for size in ladder:
            mass = summed[:, min(size, summed.shape[1]) - 1].split(batch.tokens_per_sample().tolist())
            kept[size] |= dict(zip(batch.ids, (part.cpu().numpy() for part in mass), strict=True))
    for size in ladder:
        captured = _by_regime(chosen, kept[size])
        if min(found["mean"] for found in captured.values()) >= ENOUGH or size >= speaker.vocabulary:
            return size
    expected = f"{ENOUGH:g} or more of the probability in the mean of every regime"
    found = f"of {counted(len(chosen), 'answer')}, spread over all: {_shown(captured)}"
    raise InputError(Problem(str(folder), f"captured mass with k = {size}", expected, found, more_tokens(size)))


def _begin(words: Words, digests: FileDigests) -> None:
    card = {
        "holds": "what a teacher says of the tokens of answers",
        "parts": {
            "tokens": {
                "rows": f"rows.bin: a record per token, {words.store.row_bytes} bytes, little-endian",
                "fields": [list(map(str, field)) for field in np.dtype(words.store.dtype).descr],
                "keys": "index.jsonl: sha256 of question, answer, pictures and places; see distill/teacher_cache.py",
            }
        },
        "made_from": words.speaker.made_from(words.k, digests),
    }
    begin_part(words.part, card)
    words.store.folder.mkdir(exist_ok=True)


def _records(words: Words, teacher: LiveTeacher, batch: Batch) -> list[dict[str, NDArray[Any]]]:
    """The records of every sample of a batch."""
    logits = _logits(words.speaker, teacher, batch)
    if not logits.isfinite().all():
        raise RunError(f"the teacher's numbers are not finite for one of the samples {', '.join(batch.ids)}")
    top = likeliest(logits, batch.gold, words.k, words.speaker.temperature)
    ends = batch.tokens_per_sample().cumsum(0).tolist()
    return [{"": rows} for rows in np.split(pack(top, words.speaker.vocabulary), ends[:-1])]


@torch.inference_mode()
def _logits(speaker: Speaker, teacher: LiveTeacher, batch: Batch) -> Tensor:
    """`float32[N, V]` of the real tokens, as training would ask for them."""
    with torch.autocast(batch.gold.device.type, torch.bfloat16, enabled=speaker.precision == "bf16"):
        logits = teacher.signal(batch).logits
    assert logits is not None
    return logits[:, : speaker.vocabulary].float()


def device_of(teacher: LiveTeacher) -> torch.device:
    """Where a teacher is asked: it is moved there."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    teacher.model.to(device)
    return device


def _by_regime(samples: Iterable[Sample], masses: Mapping[str, NDArray[Any]]) -> dict[str, dict[str, float]]:
    """Mean and lowest probability of the kept tokens, and the number of tokens, by regime; masses by sample id."""
    groups: dict[str, list[NDArray[Any]]] = {}
    for sample in samples:
        groups.setdefault(sample.regime, []).append(masses[sample.id])
    joined = {regime: np.concatenate(groups[regime]) for regime in sorted(groups)}
    return {
        regime: {"mean": round(float(mass.mean()), 6), "lowest": round(float(mass.min()), 6), "tokens": len(mass)}
        for regime, mass in joined.items()
    }


def _shown(captured: Mapping[str, Mapping[str, float]]) -> str:
    """`captured probability: 0.9991 of regular tokens (lowest 0.71), ...`."""
    parts = (f"{found['mean']:.4f} of {name} tokens (lowest {found['lowest']:.2f})" for name, found in captured.items())
    return f"captured probability: {', '.join(parts)}"
