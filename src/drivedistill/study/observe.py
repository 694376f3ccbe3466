r"""What passes through the layers of a model while it reads questions and answers: a few numbers per question and layer.

    seen = observe(subject, samples)        # teacher-forced passes; see `curves.py` for what becomes of it

Legend: n questions, L layers, S positions, d width, G cells of a map's side, B samples of a batch. State l enters layer l, from
0 as in recipes; state 0 are the embeddings, state L is what the last layer returns, before any final norm. Tokens are the real
ones: of a decoder-only model the whole sequence with its image tokens, of a T5 reader the answer that its decoder writes.

Nothing grows with questions x tokens, nor with questions x d: mean pairwise cosines are made of sums of unit vectors,

.. math:: \frac{1}{n(n-1)} \sum_{i \ne j} \cos(x_i, x_j) = \frac{\|\sum_i u_i\|^2 - n}{n(n-1)}, \qquad u_i = x_i / \|x_i\|

which are kept per bundle of scenes, so that an interval can be had.

Source: the pre-study of Drive-KD (arXiv 2601.21288; four panels, no formulas), in our reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from drivedistill.batch import Batch, Map, Rows, Tap
from drivedistill.data.collate import collate, refuse_long, refuse_unlabelled
from drivedistill.evaluate.measure import Floats
from drivedistill.models import attention
from drivedistill.models.fusion import IMAGE, TEXT
from drivedistill.models.student import Student, bare
from drivedistill.progress import Progress
from drivedistill.records import Sample
from drivedistill.subject import Subject

BINS = 10
"""Equal parts of an answer."""
GRID = 16
"""G: maps of all sizes are averaged down, or spread out, to so many rows and columns."""
BUNDLES = 64
"""Scenes are dealt into at most so many bundles, each of which is drawn as a whole; what is kept does not grow further."""

SIGNALS: dict[str, Tap] = {
    "hidden": Tap(0, "hidden"),
    "full": Tap(0),
    "text_to_vision": Tap(0, block="text_to_vision"),
}
"""What is compared between questions."""


@dataclass
class Directions:
    """Unit vectors of one signal, added up by capability and bundle of scenes."""

    sums: dict[tuple[str, int], Floats] = field(default_factory=dict)
    """`float64[L, d]`"""
    members: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    """The numbers of the questions in it."""

    def add(self, capability: str, bundle: int, question: int, vectors: Floats) -> None:
        """One question's vectors `float64[L, d]`; one that is all zero in some layer has no direction and is left out."""
        lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
        if (lengths > 0).all():
            key = (capability, bundle)
            self.sums[key] = self.sums.get(key, np.zeros_like(vectors)) + vectors / lengths
            self.members.setdefault(key, []).append(question)


@dataclass(frozen=True)
class Seen:
    """What is kept of n questions."""

    samples: list[Sample]
    bundles: list[int]
    """Of every question."""
    change: Floats
    """`float64[n, L]`: mean over the tokens of cos(state l, state l + 1)."""
    alignment: Floats | None
    """`float64[n, L + 1]`: cos(mean of the image tokens, mean of the text tokens) of every state.
    None: the layers see no image tokens (a T5 decoder)."""
    margins: Floats
    """`float64[n, 2 BINS]`: sums of p1 - p2 over the answer's tokens of each part, then their numbers."""
    directions: dict[str, Directions]
    """By signal."""

    @property
    def layers(self) -> int:
        """L."""
        return self.change.shape[1]


def observe(subject: Subject, samples: Sequence[Sample], *, batch_size: int = 4, temperature: float = 1.0) -> Seen:
    """Ask all questions under teacher forcing and keep what the curves are made of.

    Args:
        subject: A model whose layers can be tapped; it is moved to an accelerator if there is one.
        samples: Questions with answers.
        batch_size: Questions at once; changes nothing but time and memory, in which all full maps of a batch lie.
        temperature: What logits are divided by before the margin is taken.

    Raises:
        InputError: The model cannot be tapped, or a question has no answer or is too long for the model.
    """
    depth = attention.depth(bare(subject.model))
    refuse_unlabelled(samples)
    refuse_long(samples, subject.preparation)
    subject.model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    device = next(subject.model.parameters()).device
    bundles, directions = bundles_of([sample.scene for sample in samples]), {name: Directions() for name in SIGNALS}
    parts: list[tuple[Floats, Floats | None, Floats]] = []
    with Progress(len(samples), word="question") as progress:
        for start in range(0, len(samples), batch_size):
            batch = collate(samples[start : start + batch_size], {"student": subject.preparation}).to(device)
            part, vectors = _shown(subject.model, depth, batch, temperature)
            parts.append(part)
            for number, capability in enumerate(batch.capabilities, start):
                for name, found in vectors.items():
                    directions[name].add(capability, bundles[number], number, found[number - start])
                progress.advance()
    changes, alignments, margins = zip(*parts, strict=True)
    seen = [alignment for alignment in alignments if alignment is not None]
    aligned = np.concatenate(seen) if seen else None
    return Seen(list(samples), bundles, np.concatenate(changes), aligned, np.concatenate(margins), directions)


@torch.inference_mode()
def _shown(
    model: Any, depth: int, batch: Batch, temperature: float
) -> tuple[tuple[Floats, Floats | None, Floats], dict[str, Floats]]:
    """Of the questions of a batch: change, alignment and margins; and by signal their vectors `float64[B, L, d]`."""
    taps = {Tap(layer, tap.signal, tap.block) for layer in range(depth) for tap in SIGNALS.values()}
    with attention.entering(bare(model)) as given:
        rows = Student(model)(batch, {"logits"} | taps)
    states = [given[0], *(rows.taps[Tap(layer, "hidden")].values for layer in range(depth))]
    real, kinds = at(rows.taps[Tap(0, "hidden")].queries, states[0].shape[1]), batch.role("student").token_kind
    aligned = None if kinds is None else alignment(states, kinds)
    return (change(states, real), aligned, _margins(rows, batch, temperature)), _vectors(rows, states, real)


def bundles_of(scenes: Sequence[str]) -> list[int]:
    """The bundle of every question; of few scenes each is its own."""
    numbers = {scene: number % BUNDLES for number, scene in enumerate(sorted(set(scenes)))}
    return [numbers[scene] for scene in scenes]


def at(queries: Tensor, length: int) -> Tensor:
    """Positions `int64[B, Q]`, -1 behind the last, to a mask `bool[B, length]`."""
    marked = torch.zeros(len(queries), length + 1, dtype=torch.bool, device=queries.device)
    return marked.scatter_(1, torch.where(queries < 0, length, queries), True)[:, :length]


# --- states -----------------------------------------------------------------------------------------------------------


def mean_state(state: Tensor, mask: Tensor) -> Tensor:
    """`float32[B, d]`: mean of `float[B, S, d]` over the chosen tokens, `bool[B, S]`."""
    return state.float().masked_fill(~mask[..., None], 0).sum(dim=1) / mask.sum(dim=1, keepdim=True)


def change(states: Sequence[Tensor], real: Tensor) -> Floats:
    """How alike what enters and what leaves a layer are, `float64[B, L]`: cosine of each real token, mean over tokens."""
    columns = [
        torch.nn.functional.cosine_similarity(before.float(), after.float(), dim=-1).masked_fill(~real, 0).sum(dim=1)
        for before, after in pairwise(states)
    ]
    return _kept(torch.stack(columns, dim=1) / real.sum(dim=1, keepdim=True))


def alignment(states: Sequence[Tensor], kinds: Tensor) -> Floats:
    """How near image and text tokens are on the mean, `float64[B, L + 1]`; every question shows a picture.

    Args:
        states: L + 1 times `float[B, S, d]`.
        kinds: `int8[B, S]`: text, image or padding.
    """
    image, text = kinds == IMAGE, kinds == TEXT
    columns = [torch.cosine_similarity(mean_state(state, image), mean_state(state, text)) for state in states]
    return _kept(torch.stack(columns, dim=1))


# --- what is compared between questions -------------------------------------------------------------------------------


def _vectors(rows: Rows, states: Sequence[Tensor], real: Tensor) -> dict[str, Floats]:
    """By signal, `float64[B, L, d]`: mean states, and maps on a grid."""
    found = {"hidden": _kept(torch.stack([mean_state(state, real) for state in states[1:]], dim=1))}
    for name in ("full", "text_to_vision"):
        maps = [rows.taps[Tap(layer, block=SIGNALS[name].block)] for layer in range(len(states) - 1)]
        found[name] = _kept(torch.stack([on_grid(seen) for seen in maps], dim=1))
    return found


def on_grid(seen: Map) -> Tensor:
    """A map on G x G cells, `float32[B, G * G]`.

    Maps of different questions differ in size. Rows and columns are stretched to [0, 1] each and averaged over the area of
    every cell, so cell (g, h) of two maps means the same parts of their sequences (of the text, of the images).
    """
    return torch.einsum("bgq,bqk,bhk->bgh", cells(seen.queries), seen.values, cells(seen.keys)).flatten(1)


def cells(positions: Tensor) -> Tensor:
    """Which share of a cell each of m positions covers, `float32[B, G, M]`, of `int64[B, M]` with -1 behind the m-th."""
    width = (positions >= 0).sum(dim=1)[:, None, None]  # in units of 1 / (G m) all is whole, so no share is rounded
    place = torch.arange(positions.shape[1], device=positions.device)[None, None]
    cell = torch.arange(GRID, device=positions.device)[None, :, None]
    overlap = torch.minimum((place + 1) * GRID, (cell + 1) * width) - torch.maximum(place * GRID, cell * width)
    return overlap.clamp_min(0).float() / width


# --- words ------------------------------------------------------------------------------------------------------------


def _margins(rows: Rows, batch: Batch, temperature: float) -> Floats:
    """`float64[B, 2 BINS]`, see `Seen.margins`."""
    probabilities = torch.softmax(rows.dense().float() / temperature, dim=-1)
    first, second = probabilities.topk(2, dim=-1).values.unbind(dim=-1)
    lengths = batch.tokens_per_sample()
    number = torch.arange(batch.num_tokens, device=lengths.device) - (lengths.cumsum(0) - lengths)[batch.sample_of_row]
    cell = batch.sample_of_row * BINS + number * BINS // lengths[batch.sample_of_row]
    sums = torch.zeros(2, batch.num_samples * BINS, device=lengths.device)
    sums[0].index_add_(0, cell, first - second)
    sums[1].index_add_(0, cell, torch.ones_like(first))
    return _kept(sums.reshape(2, batch.num_samples, BINS).transpose(0, 1).flatten(1))


def _kept(values: Tensor) -> Floats:
    return np.asarray(values.double().cpu().numpy())
