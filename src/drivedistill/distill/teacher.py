"""Teachers: whoever can say something about the supervised rows of a batch.

A teacher is anything with `provides`, `identity` and `signal(batch)`. A live model, a cache and a test's fake are peers;
an objective meets dense rows (`Signal.logits`) or the likeliest tokens of each (`Signal.top`). A teacher never has a
gradient and never leaves evaluation mode.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from drivedistill.batch import IGNORE, Batch, Signal, Tap, TopK
from drivedistill.data.prompt import PROBE
from drivedistill.distill.likeliest import unpack
from drivedistill.distill.row_store import RowStore
from drivedistill.models.student import Student, bare
from drivedistill.problems import InputError, Problem

Needs = frozenset[str | Tap | tuple[str, Tap]]
"""`logits`, `vision`, ...; taps of a model; of several teachers, the taps of a capability's."""
LOGITS: Needs = frozenset({"logits"})
IN_PLACE: Needs = frozenset({"hidden"})
"""Asked for beside logits and given in their place by who can; nobody must."""


@dataclass(frozen=True)
class Identity:
    """What teacher and student must share so that row n means the same to both."""

    vocabulary: dict[str, int]
    """Token -> id."""
    probe: tuple[int, ...]
    """Token ids of `PROBE`: equal vocabularies may still cut a text differently."""
    special: dict[str, int | None]
    template: str
    """The prompt template, or the chat template."""
    coordinates: str
    """`pixel` or `unit`."""
    choices: str
    """`letter` or `words`."""
    image_tokens: int | None = None
    """Image tokens per picture where the image tokens stand in the language model's own sequence; else None."""
    tiling: dict[str, Any] = field(default_factory=dict)
    """What decides on the image tokens of pictures that keep their shape; empty where each is one square tile."""
    supervise: str = "answer"
    """`answer` or `turn`."""


class Teacher(Protocol):
    """Says something about rows."""

    provides: Needs
    """What `signal` can fill: `logits`, `vision`, `hidden` in the place of logits, `taps` (any of them)."""
    identity: Identity | None
    """None for a teacher that fits every student (a fake)."""

    def signal(self, batch: Batch, needs: Needs = LOGITS) -> Signal:
        """The teacher's view of the batch's N rows, without gradient and on the batch's device."""

    def close(self) -> None:
        """Nobody will ask again: free the memory."""


class LiveTeacher:
    """A model in memory, run for every batch."""

    def __init__(self, student: Student, identity: Identity | None = None) -> None:
        self.model = student.eval().requires_grad_(False)
        self.identity = identity
        sees = hasattr(bare(student.model), "vision")
        self.provides: Needs = LOGITS | IN_PLACE | {"taps"} | ({"vision"} if sees else set())

    def signal(self, batch: Batch, needs: Needs = LOGITS) -> Signal:
        """Dense logits `float[N, V]` of the rows, or the head and its input, or the vision tower's features; and taps.

        The model follows the batch to its device.
        """
        if self.model.training:
            self.model.eval()
        if next(self.model.parameters()).device != batch.gold.device:
            self.model.to(batch.gold.device)
        with torch.no_grad():
            rows = self.model(batch, needs)
        return Signal(rows.logits, vision=rows.vision, hidden=rows.hidden, head=rows.head, taps=rows.taps)

    def close(self) -> None:
        """Weights go to the meta device, whoever else holds the model."""
        self.model.to("meta")


class CachedTeacher:
    """What a model said before, read from a cache; no weights are in memory.

    Args:
        store: A row per token of an answer, see `likeliest.py`.
        keys: Sample id -> the key of its answer.
        temperature: T of the log-probabilities.
        identity: The model's.
    """

    provides = LOGITS

    def __init__(
        self, store: RowStore, keys: Mapping[str, str], temperature: float, identity: Identity | None = None
    ) -> None:
        self.store, self.keys, self.temperature, self.identity = store, keys, temperature, identity

    def signal(self, batch: Batch, needs: Needs = LOGITS) -> Signal:
        """The likeliest tokens of the batch's rows, on its device.

        Raises:
            InputError: Rows were damaged after they had been written.
            ValueError: An answer has another number of tokens than when it was kept.
        """
        records = [self.store.read(self.keys[sample]) for sample in batch.ids]
        top = unpack(np.concatenate(records), self.temperature)
        chosen = None if len(top.ids) == batch.num_tokens else _places(batch, len(top.ids))

        def moved(values: Tensor) -> Tensor:
            values = values.to(batch.gold.device, non_blocking=True)
            return values if chosen is None else values[chosen]

        ids, log_probs, log_tail = moved(top.ids), moved(top.log_probs), moved(top.log_tail)
        return Signal(top=TopK(ids, log_probs, log_tail, moved(top.gold_loss), self.temperature))

    @property
    def facts(self) -> dict[str, Any]:
        """What a run notes down: where the words lie, how many answers were asked for, and bytes per token."""
        part = self.store.folder.parent
        return {"folder": str(part), "answers": len(self.keys), "bytes_per_token": self.store.row_bytes}

    def close(self) -> None:
        """Index and mapped rows are forgotten."""
        self.store, self.keys = replace(self.store), {}


def _places(batch: Batch, total: int) -> Tensor:
    """`int64[N]`: where the rows of a batch that keeps some (`Batch.keep`) stand among all rows of its answers."""
    inputs = batch.role("student")
    supervised = (inputs.targets.flatten() != IGNORE).nonzero().squeeze(1)
    if len(supervised) != total:
        raise ValueError(f"the batch has {len(supervised)} supervised tokens, the cache {total} for the same answers.")
    return torch.searchsorted(supervised, inputs.rows)


def identity_of(
    tokenizer: Any, template: str, coordinates: str, choices: str, image_tokens: int | None = None
) -> Identity:
    """What a model's tokenizer and template demand of its partner."""
    special = {name: getattr(tokenizer, f"{name}_token_id") for name in ("pad", "eos", "bos", "unk")}
    probe = tuple(tokenizer(PROBE, add_special_tokens=False).input_ids)
    return Identity(tokenizer.get_vocab(), probe, special, template, coordinates, choices, image_tokens)


def require_agreement(teacher: Teacher, student: Identity, needs: Needs, capability: str | None = None) -> None:
    """Check a pair before the first step; `capability`: of the teacher that it has of its own.

    Raises:
        InputError: The teacher lacks something needed, or tokenizer, template or image tokens differ; the first
            difference is named.
    """
    remedy = (
        "train both with the same tokenizer, template, coordinates, choices, tiles and supervised tokens; a student that names "
        "neither `tokenizer` nor `text_weights` takes the teacher's tokenizer"
    )
    kinds = {
        need if isinstance(need, str) else "taps" if isinstance(need, Tap) else f"lesson/{need[0]}" for need in needs
    }
    if missing := kinds - teacher.provides - IN_PLACE:
        found = f"a teacher that provides {', '.join(sorted(map(str, teacher.provides))) or 'nothing'}"
        raise InputError(
            Problem(
                "recipe", "teacher", f"{', '.join(sorted(map(str, missing)))}", found, "use another teacher or loss"
            )
        )
    if teacher.identity is None:
        return
    place = "teacher" if capability is None else f"teachers.{capability}"
    if difference := first_difference(teacher.identity, student):
        raise InputError(Problem("recipe", place, "the student's tokenizer and template", difference, remedy))


def first_difference(teacher: Identity, student: Identity) -> str | None:
    """The first thing in which two identities differ, in words; None when they agree."""
    if teacher.vocabulary != student.vocabulary:
        if len(teacher.vocabulary) != len(student.vocabulary):
            return f"{len(teacher.vocabulary)} tokens in the teacher's vocabulary, {len(student.vocabulary)} in the student's"
        ours = student.vocabulary
        token = min((t for t, i in teacher.vocabulary.items() if ours.get(t) != i), key=lambda t: teacher.vocabulary[t])
        return f"token {token!r} is {teacher.vocabulary[token]} for the teacher, {ours.get(token, 'unknown')} for the student"
    for name, value in teacher.special.items():
        if value != student.special[name]:
            return f"{name} token {value} for the teacher, {student.special[name]} for the student"
    if teacher.probe != student.probe:
        return f"{PROBE!r} is {teacher.probe} for the teacher, {student.probe} for the student"
    if teacher.template != student.template:
        return f"template {teacher.template!r} for the teacher, {student.template!r} for the student"
    if teacher.coordinates != student.coordinates:
        return f"points in {teacher.coordinates} coordinates for the teacher, in {student.coordinates} for the student"
    if teacher.choices != student.choices:
        return f"multiple choice answered by {teacher.choices} for the teacher, by {student.choices} for the student"
    if teacher.image_tokens != student.image_tokens:
        return (
            f"{teacher.image_tokens} image tokens per picture for the teacher, {student.image_tokens} for the student"
        )
    if teacher.supervise != student.supervise:
        return f"the {teacher.supervise} is supervised for the teacher, the {student.supervise} for the student"
    return _other_tiles(teacher.tiling, student.tiling)


def _other_tiles(teacher: dict[str, Any], student: dict[str, Any]) -> str | None:
    if bool(teacher) != bool(student):
        many, one = ("teacher", "student") if teacher else ("student", "teacher")
        return f"pictures in their own shape for the {many} (tiles: dynamic), as one tile for the {one}"
    for name in sorted(teacher.keys() | student.keys()):
        theirs, ours = teacher.get(name), student.get(name)
        if theirs != ours:
            return f"{name} {theirs} of the teacher's image processor, {ours} of the student's"
    return None
