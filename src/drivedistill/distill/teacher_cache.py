"""The cache of a teacher's words: what it says of an answer is computed once, and training needs no teacher in memory.

    FOLDER/teacher-0123456789abcdef/   one teacher with one way of reading; see cache_folder.py
               cache.json          what its rows are made from, in words, and which parts it has
               captured.json       the probability that the kept tokens hold, by regime
               tokens/rows.bin, index.jsonl   (row_store.py) a row per token of an answer, see likeliest.py

The key of an answer is a digest of question and answer as they are read, of the pictures' bytes with their regions, and of the
places that the question names: questions that read the same share rows, and a changed picture is not found. The
fingerprint covers weights and configuration of the teacher, tokenizer, template, reading, processor, decoder, precision, k
and temperature. Nothing that a teacher is given is drawn at random, so its words are those of every epoch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import transformers
from transformers import PreTrainedConfig

from drivedistill.data.collate import Preparation, Reading, views, written
from drivedistill.data.paths import load_json
from drivedistill.data.points import named_points
from drivedistill.distill.cache_folder import (
    BUILD,
    Precision,
    cards_of,
    decoding,
    file_digests,
    fingerprint,
    made_otherwise,
    require_cache,
)
from drivedistill.distill.file_digests import FileDigests
from drivedistill.distill.likeliest import token_type
from drivedistill.distill.row_store import RowStore
from drivedistill.distill.teacher import CachedTeacher, Identity
from drivedistill.problems import InputError, Problem
from drivedistill.records import Sample

VERSION = 1
"""Of the format and of what our own code makes of a teacher's inputs; raise it when that changes."""

FIELD = "distill.teacher_cache"
"""Names the folder in a recipe."""

CAPTURED = "captured.json"
ENOUGH = 0.98
"""Probability that the kept tokens must hold in the mean of a regime; below it the gradient is another one."""


@dataclass(frozen=True)
class Speaker:
    """All that decides what a teacher says of a given answer; known without its weights in memory."""

    name: str
    config: Mapping[str, Any]
    """As it lies beside the weights."""
    weights: Sequence[Path]
    """Its safetensors."""
    loading: Mapping[str, Any]
    """How a recipe changes the weights: `dtype`, `quantize`."""
    preparation: Preparation
    identity: Identity
    precision: Precision
    temperature: float

    @property
    def vocabulary(self) -> int:
        """Tokens of the tokenizer; a head's further columns are padding, which is left out."""
        return len(self.preparation.tokenizer)

    def made_from(self, k: int, digests: FileDigests) -> dict[str, Any]:
        """The fingerprint in words, as JSON."""
        general = PreTrainedConfig().to_dict().keys() - {"model_type"}  # names of labels, of files; not the network
        left_out = {"max_question_tokens", "max_answer_tokens"}  # longer texts are refused, so that they change nothing
        if self.preparation.reading.views == "all":
            left_out.add("views")  # so that what earlier versions kept stays good
        tree = {
            "teacher": {
                "weights": [digests.of(str(path)) for path in self.weights],
                "config": {key: value for key, value in self.config.items() if key not in general},
                **self.loading,
            },
            "tokenizer": self._tokenizer,
            "template": self.identity.template,
            "image_tokens": self.identity.image_tokens,
            "reading": self.preparation.reading.model_dump(exclude=left_out),
            "processor": self.preparation.processor.to_dict(),
            "transformers": transformers.__version__,
            "decoder": decoding(),
            "precision": self.precision,
            "temperature": self.temperature,
            "k": k,
            "vocabulary": self.vocabulary,
            "version": VERSION,
        }
        return dict(json.loads(json.dumps(tree, default=str)))

    @cached_property
    def _tokenizer(self) -> str:
        own = self.identity
        text = json.dumps([own.vocabulary, own.probe, own.special], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def part(self, folder: Path, k: int, digests: FileDigests) -> Path:
        """The subfolder of a cache that holds its words."""
        return folder / f"teacher-{fingerprint(self.made_from(k, digests))}"

    def store(self, part: Path, k: int) -> RowStore:
        """The tokens in that subfolder."""
        return RowStore(part / "tokens", (), token_type(k, self.vocabulary))


def answer_key(sample: Sample, reading: Reading, digests: FileDigests) -> str:
    """Under which name an answer's rows lie."""
    question, answer = written(sample, reading)
    seen = [(camera, digests.of(path), region and region.box) for camera, path, region in views(sample, reading)]
    places = named_points(sample) if reading.points else None
    asked = {"question": question, "answer": answer, "views": seen, "points": places}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def open_teacher_cache(folder: Path, speaker: Speaker, samples: Sequence[Sample]) -> CachedTeacher:
    """The teacher that a folder holds the words of.

    Args:
        folder: The recipe's `distill.teacher_cache`.
        speaker: The teacher.
        samples: All answers that it will be asked for.

    Raises:
        InputError: The folder is no cache, holds the words of other teachers, lacks some, or keeps too little of them.
    """
    require_cache(folder, FIELD)
    digests = file_digests(folder)
    for _ in digests.look({path for sample in samples for path in sample.images.values()}):
        pass
    cards = cards_of(folder, "teacher")
    sizes = {part: int(card["made_from"]["k"]) for part, card in cards.items()}
    fitting = [part for part, k in sizes.items() if part == speaker.part(folder, k, digests)]
    if not fitting:
        found = made_otherwise(cards.values(), lambda theirs: speaker.made_from(theirs["k"], digests))
        found = found if found == "none" else f"words that were made otherwise: {found}"
        expected = f"what {speaker.name} says, with the recipe's tokenizer, pictures, precision and temperature"
        raise InputError(Problem(str(folder), "for the teacher", expected, found, BUILD))
    keys = {sample.id: answer_key(sample, speaker.preparation.reading, digests) for sample in samples}
    stores = {part: speaker.store(part, sizes[part]) for part in fitting}
    lacking = {part: [name for name, key in keys.items() if key not in store] for part, store in stores.items()}
    part = min(fitting, key=lambda part: (len(lacking[part]), -sizes[part]))
    if missing := lacking[part]:
        expected, shown = f"{len(keys):,} answers", f"{len(missing):,} are missing, first that of sample {missing[0]}"
        raise InputError(Problem(str(folder), part.name, expected, shown, BUILD))
    if problem := captured_problem(part, sizes[part]):
        raise InputError(problem)
    return CachedTeacher(stores[part], keys, speaker.temperature, speaker.identity)


def captured_problem(part: Path, k: int) -> Problem | None:
    """What is wrong with the probability that the kept tokens hold."""
    expected = f"{ENOUGH:g} or more of the probability in the mean of every regime"
    if not (part / CAPTURED).is_file():
        return Problem(str(part), "captured mass", expected, "a cache that was not finished", BUILD)
    regimes = load_json(part / CAPTURED, "captured mass")["regimes"]
    low = {name: found["mean"] for name, found in regimes.items() if found["mean"] < ENOUGH}
    if not low:
        return None
    shown = ", ".join(f"{mean:.4f} of {name} answers" for name, mean in low.items())
    return Problem(str(part), f"captured mass with k = {k}", expected, shown, more_tokens(k))


def more_tokens(k: int) -> str:
    """What to do when k tokens hold too little."""
    return (
        f"repeat `drivedistill cache` with --top-k {2 * k}, or with --top-k auto, which doubles it until it is enough"
    )
