"""Filling the cache of frozen vision features: what is missing, one batch of pictures after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from drivedistill.data.collate import Preparation, pixels
from drivedistill.data.images import PictureCache
from drivedistill.distill.cache import CachedFeatures, Reads, Tower, View, frozen_towers, views_of, wanted
from drivedistill.distill.cache_folder import (
    Precision,
    begin_part,
    claimed,
    file_digests,
    is_new,
    look_at,
    require_cache,
    stop_if_asked,
)
from drivedistill.distill.row_store import DType
from drivedistill.problems import RunError
from drivedistill.progress import Progress
from drivedistill.records import Sample
from drivedistill.signals import Signals, leave_group

FIELD = "data.vision_cache"
"""Names the folder in a recipe."""


@dataclass(frozen=True)
class Part:
    """The features of one tower: what a recipe needs of them."""

    roles: list[str]
    """Who reads them; two roles with the same tower share them."""
    tower: Tower
    features: CachedFeatures
    views: dict[str, View]
    """By key, all that are needed."""
    dtype: DType
    """Of the numbers on disk."""

    @property
    def missing(self) -> dict[str, View]:
        """By key, those that are not there yet."""
        return {key: view for key, view in self.views.items() if key not in self.features.store}

    def __str__(self) -> str:
        store, pictures = self.features.store, len({view.path for view in self.views.values()})
        missing = f"{len(self.missing):,} to compute" if self.missing else "all there"
        megabytes = len(self.views) * store.row_bytes / 1e6
        return (
            f"{', '.join(self.roles)}: {len(self.views):,} views of {pictures:,} pictures, {missing}; "
            f"{megabytes:,.1f} MB of {self.dtype} {list(store.shape)} in {store.folder}"
        )


def plan(
    folder: Path, roles: Mapping[str, Reads], samples: Sequence[Sample], *, precision: Precision, dtype: DType
) -> list[Part]:
    """What a cache would have to hold. Reads every picture whose digest is not known; writes nothing.

    Raises:
        InputError: No tower is frozen, or the folder holds something else.
    """
    if folder.exists() and not is_new(folder):
        require_cache(folder, FIELD)
    with Signals() as signals:
        return _plan(folder, frozen_towers(roles, precision), samples, dtype, signals, keep=False)


def build(
    folder: Path,
    roles: Mapping[str, Reads],
    samples: Sequence[Sample],
    *,
    precision: Precision,
    dtype: DType,
    batch_size: int = 32,
    workers: int = 0,
    verify: bool = False,
    wait: bool = False,
) -> tuple[list[Part], int]:
    """Compute the features that are missing. A killed call is gone on with by the next one.

    Args:
        folder: The cache; new, empty or a cache.
        roles: `student` and perhaps `teacher`, as the recipe builds them.
        samples: Whose views are kept.
        precision: `bf16` computes under autocast, as a run with `train.precision: bf16` does.
        dtype: Of the numbers on disk.
        batch_size: Views per forward. Every forward has this shape: how a matrix product rounds depends on it.
        workers: Processes that decode pictures.
        verify: Read every row, and compute damaged ones again.
        wait: Wait for another process that writes this cache, then compute what it left out.

    Returns:
        The parts of the cache, and how many features were computed.

    Raises:
        InputError: No tower is frozen, the folder holds something else, another process writes it (without `wait`), or a
            picture cannot be read.
        Interrupted: SIGINT or SIGTERM; what was computed is kept.
    """
    towers = frozen_towers(roles, precision)
    with Signals() as signals, claimed(folder, FIELD, signals if wait else None):
        parts = _plan(folder, towers, samples, dtype, signals, keep=True)
        computed = 0
        for part in parts:
            _begin(part)
            part.features.store.mend(verify=verify)
            computed += len(part.missing)
            _fill(part, batch_size, workers, signals)
        return parts, computed


def _plan(
    folder: Path, towers: Mapping[str, Tower], samples: Sequence[Sample], dtype: DType, signals: Signals, *, keep: bool
) -> list[Part]:
    """What is needed of every tower; `keep` saves the digests of the pictures."""
    digests, chosen = file_digests(folder), views_of(samples)
    look_at((view.path for view in chosen), folder, digests, signals, keep=keep)
    parts: dict[Path, Part] = {}
    for role, tower in towers.items():
        features = CachedFeatures(tower.store(folder, dtype), digests)
        needed = wanted(features, chosen, tower.preparation.reading.region_drawing)
        known = parts.get(features.store.folder)
        if known is None:
            parts[features.store.folder] = Part([role], tower, features, needed, dtype)
        else:
            known.roles.append(role)
            known.views.update(needed)
    return list(parts.values())


def _fill(part: Part, batch_size: int, workers: int, signals: Signals) -> None:
    """Compute what is missing, batch by batch."""
    store, missing = part.features.store, list(part.missing.items())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    part.tower.vision.eval().to(device)
    loader = DataLoader(
        _Pictures([view for _, view in missing], part.tower.preparation),
        batch_size,
        num_workers=workers,
        worker_init_fn=leave_group,
        generator=torch.Generator(),  # as in training: draw nothing from the generator of others
    )
    with Progress(len(part.views), len(part.views) - len(missing), word="view") as progress:
        for number, pictures in enumerate(loader):
            batch = missing[number * batch_size :][: len(pictures)]
            rows = _rows(part.tower, pictures, batch_size, device, part.dtype)
            _require_unchanged(part, batch)
            store.append({key: row[None] for (key, _), row in zip(batch, rows, strict=True)})
            for _ in batch:
                progress.advance()
            stop_if_asked(signals, store.folder)


@torch.inference_mode()
def _rows(
    tower: Tower, pictures: Tensor, batch_size: int, device: torch.device, dtype: DType
) -> NDArray[np.floating[Any]]:
    """`[n, P, D_v]` of n pictures, computed in a batch of full size."""
    count = len(pictures)
    padded = torch.cat([pictures, pictures[:1].expand(batch_size - count, -1, -1, -1)]).to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=tower.precision == "bf16"):
        tokens = tower.vision(padded[:, None])[:count, 0]
    rows = tokens.to(getattr(torch, dtype)).cpu()
    if not rows.isfinite().all():
        advice = "use --dtype float32" if dtype == "float16" else "look at the tower's weights"
        raise RunError(f"the tower makes features that are not finite in {dtype}; {advice}")
    return rows.numpy()


class _Pictures(Dataset[Tensor]):
    """Views as the tower is given them, `float[3, H, W]`."""

    def __init__(self, chosen: Sequence[View], preparation: Preparation) -> None:
        self.chosen = chosen
        # No picture is wanted twice; and one that was remembered might be older than its digest.
        self.preparation = replace(preparation, pictures=PictureCache(0))

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> Tensor:
        view = self.chosen[index]
        return pixels(view.path, view.region, self.preparation)


def _require_unchanged(part: Part, batch: Sequence[tuple[str, View]]) -> None:
    """Between its digest and its decoding a picture may have been replaced; its row would be another picture's."""
    drawing = part.tower.preparation.reading.region_drawing
    for key, view in batch:
        if part.features.key(view.path, view.region, drawing) != key:
            raise RunError(f"{view.path} was changed while it was read; repeat the command")


def _begin(part: Part) -> None:
    """Say what the part's rows are, before the first of them is written."""
    store = part.features.store
    card = {
        "holds": "what a frozen vision tower makes of one view, before camera embedding, fusion and adapter",
        "rows": f"rows.bin: {store.shape[0]} tokens x {store.shape[1]} numbers, {part.dtype}, little-endian, row-major",
        "keys": "index.jsonl: sha256 of the picture's bytes and of the region drawn into it; see distill/cache.py",
        "dtype": part.dtype,
        "made_from": part.tower.made_from(part.dtype),
    }
    begin_part(store.folder, card)
