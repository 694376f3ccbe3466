"""The cache of where a teacher's text looks at pictures: Drive-KD's text-to-vision maps of chosen layers, without the teacher.

    FOLDER/maps-0123456789abcdef/   one teacher with one way of reading; see cache_folder.py
               cache.json               what its rows are made from
               maps/rows.bin            float16: an answer's map of a layer, Q queries times K keys, row after row
                    index.jsonl         key of the answer (teacher_cache.py), a colon, the layer

An answer of 300 text tokens about 1,536 image tokens takes 0.9 MB a layer, so this pays for teachers that do not fit beside
their student; its full map would take seven times as much, for every layer, and is never kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drivedistill.batch import Batch, Map, RoleInputs, Signal, Tap
from drivedistill.distill.answer_rows import fill, lacks, looked_at
from drivedistill.distill.cache_folder import (
    BUILD,
    begin_part,
    cards_of,
    claimed,
    file_digests,
    fingerprint,
    made_otherwise,
    require_cache,
)
from drivedistill.distill.file_digests import FileDigests
from drivedistill.distill.row_store import RowStore
from drivedistill.distill.teacher import LOGITS, Identity, LiveTeacher, Needs
from drivedistill.distill.teacher_cache import FIELD, Speaker, answer_key
from drivedistill.distill.teacher_cache_build import device_of
from drivedistill.problems import InputError, Problem, RunError
from drivedistill.progress import counted
from drivedistill.records import Sample
from drivedistill.signals import Signals

WORDS_ONLY = ("k", "temperature", "vocabulary")
"""What a teacher's words are made from and its maps are not."""

Places = Callable[[RoleInputs], tuple[Tensor, Tensor]]


class CachedMaps:
    """What a model looked at before, read from a cache.

    Args:
        store: The maps.
        keys: Sample id -> the key of its answer.
        places: From a model's inputs to the positions of text and of image tokens, `int64[B, Q]` and `int64[B, K]`.
        identity: The model's.
        role: Whose inputs it was given.
    """

    provides: Needs = frozenset({"taps"})

    def __init__(
        self, store: RowStore, keys: Mapping[str, str], places: Places, identity: Identity | None, role: str
    ) -> None:
        self.store, self.keys, self.places, self.identity, self.role = store, keys, places, identity, role

    def signal(self, batch: Batch, needs: Needs = LOGITS) -> Signal:
        """The maps of a batch, on its device.

        Raises:
            InputError: Rows were damaged after they had been written.
            ValueError: An answer has another number of tokens than when it was kept.
        """
        queries, keys = self.places(batch.role(self.role))
        shapes = list(zip((queries >= 0).sum(dim=1).tolist(), (keys >= 0).sum(dim=1).tolist(), strict=True))
        taps = {}
        for tap in needs:
            assert isinstance(tap, Tap)
            values = torch.zeros(len(shapes), queries.shape[1], keys.shape[1])
            for b, (sample, (rows, columns)) in enumerate(zip(batch.ids, shapes, strict=True)):
                if not rows * columns:
                    continue
                kept = self.store.read(f"{self.keys[sample]}:{tap.layer}")
                if kept.size != rows * columns:
                    raise ValueError(f"sample {sample} has {rows} x {columns} pairs, the cache {kept.size}.")
                values[b, :rows, :columns] = torch.from_numpy(kept.reshape(rows, columns).astype(np.float32))
            taps[tap] = Map(values.to(batch.gold.device), queries, keys)
        return Signal(taps=taps)

    def close(self) -> None:
        """Nothing is held but mapped files."""


@dataclass(frozen=True)
class Maps:
    """The maps of one teacher that a recipe needs."""

    speaker: Speaker
    part: Path
    store: RowStore
    keys: dict[str, str]
    answers: list[Sample]
    """One sample for each key."""
    layers: tuple[int, ...]

    @property
    def parts(self) -> tuple[str, ...]:
        """What is appended to a key, by layer."""
        return tuple(f":{layer}" for layer in self.layers)

    @property
    def missing(self) -> list[Sample]:
        """Answers of which some layer is not there."""
        return [s for s in self.answers if lacks(self.store, self.keys[s.id], self.parts)]

    def __str__(self) -> str:
        there = sum(
            self.store.rows_of(key + part)
            for key in set(self.keys.values())
            for part in self.parts
            if key + part in self.store
        )
        missing = f"{len(self.missing):,} to compute" if self.missing else "all there"
        return (
            f"maps of {self.speaker.name}, layers {', '.join(map(str, self.layers))}: {counted(len(self.answers), 'answer')}, "
            f"{missing}; {there * self.store.row_bytes / 1e6:,.1f} MB there in {self.part}"
        )


def plan(
    folder: Path, speaker: Speaker, samples: Sequence[Sample], layers: Iterable[int], digests: FileDigests
) -> Maps:
    """What a cache would have to hold."""
    keys = {sample.id: answer_key(sample, speaker.preparation.reading, digests) for sample in samples}
    first: dict[str, Sample] = {}
    for sample in samples:
        first.setdefault(keys[sample.id], sample)
    part = folder / f"maps-{fingerprint(_made_from(speaker, digests))}"
    store = RowStore(part / "maps", (), "float16")
    return Maps(speaker, part, store, keys, list(first.values()), tuple(sorted(set(layers))))


def build(
    folder: Path,
    speaker: Speaker,
    teacher: LiveTeacher,
    samples: Sequence[Sample],
    layers: Iterable[int],
    *,
    batch_size: int,
    workers: int = 0,
    verify: bool = False,
    wait: bool = False,
) -> tuple[Maps, int]:
    """Look at what has not been looked at yet; see `teacher_cache_build.build`, whose rules hold here, too.

    Returns:
        The maps, and of how many answers they were computed.
    """
    with Signals() as signals, claimed(folder, FIELD, signals if wait else None):
        digests = looked_at(folder, speaker, samples, signals, keep=True)
        maps = plan(folder, speaker, samples, layers, digests)
        card = {
            "holds": "where a teacher's text looks at pictures: head-averaged maps of chosen layers",
            "rows": "maps/rows.bin: float16, little-endian; an answer's queries times keys",
            "keys": "maps/index.jsonl: sha256 of question, answer and pictures, a colon, the layer",
            "made_from": _made_from(speaker, digests),
        }
        begin_part(maps.part, card)
        maps.store.folder.mkdir(exist_ok=True)
        maps.store.mend(verify=verify)
        computed = maps.missing
        batches = [maps.answers[start : start + batch_size] for start in range(0, len(maps.answers), batch_size)]
        ask, device = partial(_records, speaker, teacher, maps.layers), device_of(teacher)
        fill(maps.store, speaker, maps.keys, batches, maps.parts, ask, device, workers, signals, digests)
        return maps, len(computed)


@torch.inference_mode()
def _records(
    speaker: Speaker, teacher: LiveTeacher, layers: Sequence[int], batch: Batch
) -> list[dict[str, NDArray[Any]]]:
    taps = {Tap(layer, block="text_to_vision"): layer for layer in layers}
    with torch.autocast(batch.gold.device.type, torch.bfloat16, enabled=speaker.precision == "bf16"):
        found = teacher.signal(batch, frozenset(taps)).taps
    made: list[dict[str, NDArray[Any]]] = [{} for _ in batch.ids]
    for tap, layer in taps.items():
        shown = found[tap]
        if not shown.values.isfinite().all():
            raise RunError(f"the teacher's maps are not finite for one of the samples {', '.join(batch.ids)}")
        rows, columns = (shown.queries >= 0).sum(dim=1).tolist(), (shown.keys >= 0).sum(dim=1).tolist()
        for b, values in enumerate(shown.values.cpu()):
            made[b][f":{layer}"] = values[: rows[b], : columns[b]].flatten().half().numpy()
    return made


def open_map_cache(
    folder: Path, speaker: Speaker, samples: Sequence[Sample], layers: Iterable[int], places: Places, role: str
) -> CachedMaps:
    """The maps that a folder holds of a teacher.

    Raises:
        InputError: The folder is no cache, holds the maps of other teachers, or lacks some.
    """
    require_cache(folder, FIELD)
    digests = file_digests(folder)
    for _ in digests.look({path for sample in samples for path in sample.images.values()}):
        pass
    maps = plan(folder, speaker, samples, layers, digests)
    cards = cards_of(folder, "maps")
    if maps.part not in cards:
        found = made_otherwise(cards.values(), lambda theirs: _made_from(speaker, digests))
        found = found if found == "none" else f"maps that were made otherwise: {found}"
        expected = f"where {speaker.name} looks, with the recipe's tokenizer, pictures and precision"
        raise InputError(Problem(str(folder), "for the teacher's maps", expected, found, BUILD))
    if missing := maps.missing:
        expected = f"layers {', '.join(map(str, maps.layers))} of {len(maps.answers):,} answers"
        shown = f"{len(missing):,} are missing, first that of sample {missing[0].id}"
        raise InputError(Problem(str(folder), maps.part.name, expected, shown, BUILD))
    return CachedMaps(maps.store, maps.keys, places, speaker.identity, role)


def _made_from(speaker: Speaker, digests: FileDigests) -> dict[str, Any]:
    tree = {key: value for key, value in speaker.made_from(0, digests).items() if key not in WORDS_ONLY}
    return dict(json.loads(json.dumps(tree | {"holds": "text_to_vision maps"})))
