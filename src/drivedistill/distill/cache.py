"""The cache of frozen vision features: what a vision tower that never changes makes of a picture is computed once.

    FOLDER/vision-0123456789abcdef/   one tower with one way of preparing pictures; see cache_folder.py
               cache.json          what its rows are made from, in words
               rows.bin, index.jsonl   (row_store.py) one row `float[P, D_v]` per view

A row is a tower's output for one view, before camera embedding, fusion and adapter, so whatever learns is still computed.
Its key is a digest of the picture's bytes and of the region drawn into it: a picture that many questions share lies
there once. The fingerprint covers weights and configuration of the tower, preprocessing, decoder, precision and type.
Device, kernels and torch's version only change rounding; they are noted and not part of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, get_args

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedConfig

from drivedistill.data.collate import Preparation, Reading, views
from drivedistill.data.images import Drawing
from drivedistill.distill.cache_folder import (
    BUILD,
    CARD,
    Precision,
    cards_of,
    decoding,
    file_digests,
    fingerprint,
    made_otherwise,
    require_cache,
)
from drivedistill.distill.file_digests import FileDigests
from drivedistill.distill.row_store import DType, RowStore
from drivedistill.models.student import bare
from drivedistill.models.vision import VisionEncoder
from drivedistill.problems import InputError, Problem
from drivedistill.records import Region, Sample

VERSION = 1
"""Of what our own code makes of a picture (`VisionEncoder`, drawing of regions); raise it when that changes."""


class Reads(Protocol):
    """A model and what turns samples into its tensors (a `Subject`)."""

    model: Any
    preparation: Preparation


@dataclass(frozen=True)
class Tower:
    """A frozen vision tower and how pictures are prepared for it."""

    vision: VisionEncoder
    preparation: Preparation
    precision: Precision

    def made_from(self, dtype: DType) -> dict[str, Any]:
        """All that decides the features of a given picture, as JSON."""
        config = self.vision.model.config.to_dict()
        general = PreTrainedConfig().to_dict().keys() - {"model_type"}  # names of labels, of files; not the network
        reading, processor = self.preparation.reading, self.preparation.processor
        tree = {
            "backbone": {
                "config": {key: value for key, value in config.items() if key not in general},
                "blocks": self.vision.blocks,
                "weights": self._weights,
                "dtype": str(next(self.vision.model.parameters()).dtype).removeprefix("torch."),
            },
            "precision": self.precision,
            "preprocessing": {
                "image_size": reading.image_size,
                "resize": "Pillow's bilinear with antialiasing, to a square",
                "processor": processor.to_dict(),
                "transformers": transformers.__version__,
            },
            "decoder": decoding()
            # Left out where it is `full`, so that features of earlier versions stay good.
            | ({} if reading.jpeg_scale == "full" else {"jpeg_scale": reading.jpeg_scale}),
            "dtype": dtype,
            "version": VERSION,
        }
        return json.loads(json.dumps(tree))

    @cached_property
    def _weights(self) -> str:
        """sha256 of the weights that run, with their names, types and shapes."""
        tensors = (self.vision.model if self.vision.blocks else self.vision.model.embeddings).state_dict()
        digest = hashlib.sha256()
        for name, tensor in sorted(tensors.items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def store(self, folder: Path, dtype: DType) -> RowStore:
        """Where a cache keeps the tower's features."""
        shape = (self.vision.tokens, self.vision.width)
        return RowStore(folder / f"vision-{fingerprint(self.made_from(dtype))}", shape, dtype)


@dataclass(frozen=True)
class View:
    """A picture as a tower sees it."""

    path: str
    region: Region | None


@dataclass(frozen=True)
class CachedFeatures:
    """Reads features instead of pictures; a `FeatureReader`. Loading processes open the files themselves."""

    store: RowStore
    digests: FileDigests

    @property
    def shape(self) -> tuple[int, int]:
        """P and D_v."""
        tokens, width = self.store.shape
        return tokens, width

    def key(self, path: str, region: Region | None, drawing: Drawing) -> str:
        """Under which name the features of a view lie."""
        overlay = None if region is None else {"box": region.box, "drawing": drawing}
        asked = {"picture": self.digests.of(path), "region": overlay, "corruption": None}
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    def read(self, path: str, region: Region | None, drawing: Drawing) -> Tensor:
        """`float[P, D_v]` of a view.

        Raises:
            InputError: There is none: the picture was changed after the run had begun.
        """
        key = self.key(path, region, drawing)
        if key not in self.store:
            found = "a picture that was changed since the run began"
            raise InputError(Problem(path, "", f"a picture with features in {self.store.folder}", found, BUILD))
        return torch.from_numpy(self.store.read(key)[0])


def frozen_towers(roles: Mapping[str, Reads], precision: Precision) -> dict[str, Tower]:
    """By role, the vision towers whose features can be kept.

    Raises:
        InputError: There is none; for every role the reason.
    """
    towers: dict[str, Tower] = {}
    problems: list[Problem] = []
    for role, subject in roles.items():
        family = subject.preparation.reading.family
        if family != "driving_t5":
            found, remedy = f"a model of family {family}, which is not supported yet", "remove data.vision_cache"
        elif any(parameter.requires_grad for parameter in bare(subject.model).vision.parameters()):
            found, remedy = "one that trains", r"freeze it (model.frozen: ['^vision\.']), or remove data.vision_cache"
        else:
            towers[role] = Tower(bare(subject.model).vision, subject.preparation, precision)
            continue
        problems.append(Problem("recipe", role, "a frozen vision tower; there is nothing to cache", found, remedy))
    if not towers:
        raise InputError(problems)
    return towers


def views_of(samples: Iterable[Sample], reading: Reading | None = None) -> list[View]:
    """Every view of some samples, or those that come with their questions, each once, in the order of the samples."""
    found: dict[tuple[str, object], View] = {}
    for sample in samples:
        for _, path, region in views(sample, reading):
            found.setdefault((path, region and region.box), View(path, region))
    return list(found.values())


def wanted(features: CachedFeatures, chosen: Sequence[View], drawing: Drawing) -> dict[str, View]:
    """By key, the views that need a row; views that look alike share one."""
    found: dict[str, View] = {}
    for view in chosen:
        found.setdefault(features.key(view.path, view.region, drawing), view)
    return found


def open_cache(
    folder: Path, roles: Mapping[str, Reads], samples: Sequence[Sample], precision: Precision
) -> dict[str, CachedFeatures]:
    """By role, the features that training reads instead of pictures; roles whose tower trains are left out.

    Args:
        folder: The recipe's `data.vision_cache`.
        roles: `student` and perhaps `teacher`.
        samples: Everything that training will read.
        precision: The recipe's `train.precision`.

    Raises:
        InputError: No tower is frozen, the folder is no cache, or it holds features of other towers or lacks some.
    """
    towers = frozen_towers(roles, precision)
    require_cache(folder, "data.vision_cache")
    digests, chosen = file_digests(folder), views_of(samples)
    for _ in digests.look({view.path for view in chosen}):
        pass
    found: dict[str, CachedFeatures] = {}
    problems: list[Problem] = []
    for role, tower in towers.items():
        stores = [tower.store(folder, dtype) for dtype in get_args(DType)]
        readers = [CachedFeatures(store, digests) for store in stores if (store.folder / CARD).is_file()]
        if not readers:
            problems.append(_other_tower(folder, role, tower))
            continue
        keys = wanted(readers[0], chosen, tower.preparation.reading.region_drawing)
        missing = {reader: [view for key, view in keys.items() if key not in reader.store] for reader in readers}
        reader, lacking = min(missing.items(), key=lambda item: len(item[1]))
        found[role] = reader
        if lacking:
            place = f"{reader.store.folder.name}, for the {role}"
            expected = f"features of {len(keys):,} views"
            shown = f"{len(lacking):,} are missing, first {lacking[0].path}"
            problems.append(Problem(str(folder), place, expected, shown, BUILD))
    if problems:
        raise InputError(problems)
    return found


def _other_tower(folder: Path, role: str, tower: Tower) -> Problem:
    """Says in what the nearest features differ from those that are needed."""
    cards = cards_of(folder, "vision").values()
    found = made_otherwise(cards, lambda theirs: tower.made_from(theirs["dtype"]))
    if found != "none":
        found = f"features that were made otherwise: {found}"
    return Problem(str(folder), f"for the {role}", "features of the recipe's vision tower and pictures", found, BUILD)
