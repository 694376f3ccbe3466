"""The cache of frozen vision features: what a vision tower that never changes makes of a picture is computed once.

    FOLDER/cache.json              what this folder is
           lock                    held by the process that builds
           pictures.jsonl          digests of the pictures (picture_digests.py)
           vision-0123456789abcdef/   one tower with one way of preparing pictures; the name is their fingerprint
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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import PIL
import torch
import transformers
from PIL import features as pillow
from torch import Tensor
from transformers import PreTrainedConfig

from drivedistill.data.collate import Preparation, views
from drivedistill.data.images import Drawing
from drivedistill.data.paths import load_json
from drivedistill.distill.picture_digests import PictureDigests
from drivedistill.distill.row_store import DType, RowStore
from drivedistill.models.student import bare
from drivedistill.models.vision import VisionEncoder
from drivedistill.problems import InputError, Problem, missing_file
from drivedistill.records import Region, Sample

Precision = Literal["no", "bf16"]

VERSION = 1
"""Of what our own code makes of a picture (`VisionEncoder`, drawing of regions); raise it when that changes."""

CARD = "cache.json"
HOLDS = "caches of drivedistill: one subfolder per frozen vision tower, digests of the pictures that were read"


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
            "decoder": {"pillow": PIL.__version__, "libjpeg_turbo": pillow.version_feature("libjpeg_turbo")}
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
        text = json.dumps(self.made_from(dtype), sort_keys=True)
        shape = (self.vision.tokens, self.vision.width)
        return RowStore(folder / f"vision-{hashlib.sha256(text.encode()).hexdigest()[:16]}", shape, dtype)


@dataclass(frozen=True)
class View:
    """A picture as a tower sees it."""

    path: str
    region: Region | None


@dataclass(frozen=True)
class CachedFeatures:
    """Reads features instead of pictures; a `FeatureReader`. Loading processes open the files themselves."""

    store: RowStore
    digests: PictureDigests

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
            raise InputError(Problem(path, "", f"a picture with features in {self.store.folder}", found, _BUILD))
        return torch.from_numpy(self.store.read(key))


_BUILD = "run `drivedistill cache RECIPE`"


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


def views_of(samples: Iterable[Sample]) -> list[View]:
    """Every view of some samples, each once, in the order of the samples."""
    found: dict[tuple[str, object], View] = {}
    for sample in samples:
        for _, path, region in views(sample):
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
    require_cache(folder)
    digests, chosen = PictureDigests(folder / "pictures.jsonl"), views_of(samples)
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
            problems.append(Problem(str(folder), place, expected, shown, _BUILD))
    if problems:
        raise InputError(problems)
    return found


def require_cache(folder: Path) -> None:
    """Refuse a folder that is no cache.

    Raises:
        InputError: It is missing, a file, or something else.
    """
    what = "a cache of vision features"
    if not folder.exists():
        raise InputError(missing_file(folder, what, f"{_BUILD}, or remove data.vision_cache"))
    if not folder.is_dir() or not (folder / CARD).is_file() or load_json(folder / CARD, what).get("holds") != HOLDS:
        found = "something else (no cache.json of ours)"
        raise InputError(Problem(str(folder), "", what, found, "name another folder in data.vision_cache"))


def _other_tower(folder: Path, role: str, tower: Tower) -> Problem:
    """Says in what the nearest features differ from those that are needed."""
    cards = [load_json(path, "a card of vision features") for path in sorted(folder.glob(f"vision-*/{CARD}"))]
    differences = [list(_differences(tower.made_from(card["dtype"]), card["made_from"])) for card in cards]
    found = "none"
    if differences:
        nearest = min(differences, key=len)
        shown = "; ".join(nearest[:5]) + (f"; and {len(nearest) - 5} more" if len(nearest) > 5 else "")
        found = f"features that were made otherwise: {shown}"
    return Problem(str(folder), f"for the {role}", "features of the recipe's vision tower and pictures", found, _BUILD)


def _differences(ours: Any, theirs: Any, name: str = "") -> Iterator[str]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted(ours.keys() | theirs.keys()):
            yield from _differences(ours.get(key), theirs.get(key), f"{name}.{key}" if name else key)
    elif ours != theirs:
        yield f"{name} {str(theirs)[:40]} instead of {str(ours)[:40]}"
