"""Filling a store with what a teacher makes of answers, whatever that is: words (teacher_cache) or maps (map_cache).

The batches are the same in every call, whatever is there already: a teacher's numbers depend in their last places on the
batch in which they are computed, and an interrupted call is to end with the same bytes as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from drivedistill.batch import Batch
from drivedistill.data.collate import collate
from drivedistill.distill.cache_folder import file_digests, look_at, stop_if_asked
from drivedistill.distill.file_digests import FileDigests
from drivedistill.distill.row_store import RowStore
from drivedistill.distill.teacher_cache import Speaker, answer_key
from drivedistill.problems import RunError
from drivedistill.progress import Progress
from drivedistill.records import Sample
from drivedistill.signals import Signals, leave_group


def looked_at(
    folder: Path, speaker: Speaker, samples: Iterable[Sample], signals: Signals, *, keep: bool
) -> FileDigests:
    """The digests of a speaker's weights and of all pictures; `keep` writes them into the folder."""
    digests = file_digests(folder)
    pictures = (path for sample in samples for path in sample.images.values())
    look_at([*map(str, speaker.weights), *pictures], folder, digests, signals, keep=keep)
    return digests


def lacks(store: RowStore, key: str, parts: Sequence[str]) -> bool:
    """Whether some part of an answer is not there."""
    return any(key + part not in store for part in parts)


def fill(
    store: RowStore,
    speaker: Speaker,
    keys: Mapping[str, str],
    batches: Sequence[list[Sample]],
    parts: Sequence[str],
    ask: Callable[[Batch], list[dict[str, NDArray[Any]]]],
    device: torch.device,
    workers: int,
    signals: Signals,
    digests: FileDigests,
) -> None:
    """Compute what is missing; a batch of which some is there is computed whole, and what was missing is kept.

    Args:
        store: Where rows go; the caller holds the folder's lock and has called `mend`.
        speaker: How the teacher reads.
        keys: By sample id.
        batches: One sample for each key, in portions whose members never change.
        parts: What is appended to an answer's key for everything that is kept of it; `("",)`: one thing, under the key.
        ask: The rows of every sample of a batch, by part.
        device: Where the batch goes.
        workers: Processes that prepare batches.
        signals: Looked at between two batches.
        digests: Of the pictures, as they were when the keys were made.

    Raises:
        RunError: A picture was changed on the way.
        Interrupted: SIGINT or SIGTERM; what was computed is kept.
    """
    todo = [batch for batch in batches if any(lacks(store, keys[sample.id], parts) for sample in batch)]
    loader: DataLoader[Batch] = DataLoader(
        todo,  # a list is a data set, of batches here
        batch_size=None,
        collate_fn=partial(collate, preparations={"student": speaker.preparation}),
        num_workers=workers,
        worker_init_fn=leave_group,
        generator=torch.Generator(),  # as in training: draw nothing from the generator of others
    )
    answers = [sample for batch in batches for sample in batch]
    missing = sum(lacks(store, keys[sample.id], parts) for sample in answers)
    with Progress(len(answers), len(answers) - missing, word="answer") as progress:
        for samples, batch in zip(todo, loader, strict=True):
            made = zip(samples, ask(batch.to(device)), strict=True)
            fresh = {keys[sample.id]: rows for sample, rows in made if lacks(store, keys[sample.id], parts)}
            # A picture may have been replaced since its digest; what is kept would be another one's.
            for sample in samples:
                if answer_key(sample, speaker.preparation.reading, digests) != keys[sample.id]:
                    raise RunError(f"a picture of sample {sample.id} was changed while it was read; repeat the command")
            rows = {key + part: made for key, found in fresh.items() for part, made in found.items()}
            store.append({key: made for key, made in rows.items() if key not in store})
            for _ in fresh:
                progress.advance()
            stop_if_asked(signals, store.folder.parent)
