"""What is read off the tower while it is pre-trained, and how wrong it is.

    views shown -> tower -+-> grid, at the object's place -> one linear layer: all heads of objects, and three measures
                          +-> tokens of all views + speed -> one linear layer: all heads of frames

Legend: M pictures shown, B frames, C cameras, D width of a token, H heads. Linear layers leave the seeing to the tower.
A tower without a token of the whole view (a ViT's class token is none: nothing downstream reads it) gets one here, linear in
its grid; it is thrown away too. A head is a slice of its layer's outputs; the loss is the sum over kinds of the mean
cross-entropy of a kind's labels, plus the smooth L1 distance of the measures, so a kind of question weighs the same however
often and in how many wordings it is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedConfig, PreTrainedModel

from drivedistill.models.pyramid import features_at, view_token_count
from drivedistill.pretrain.lessons import Head, Lessons
from drivedistill.records import CAMERAS

MEASURES = 3
MEASURES_WEIGHT = 2.0
SQUEEZED = 16
"""Channels per place from which a view's token is made, for a tower that has none."""


@dataclass(frozen=True)
class Shown:
    """Frames as the tower is shown them."""

    pictures: Tensor
    """`float[M, 3, H, W]`, normalised."""
    picture_of: Tensor
    """`int64[B, C]`: which of the M; -1 where a view is not shown."""
    frames: Tensor
    """`int64[B]`: which of the split's frames."""
    moved: Tensor | None = None
    """`float[M, 2]`: how far what was at a place of a picture is to the right and below, as shares of it; None: nowhere."""


@dataclass(frozen=True)
class Said:
    """The labels of the frames shown, and what the heads made of them."""

    head: Tensor
    """`int64[N]`"""
    target: Tensor
    """`int64[N]`, a column of `logits`; -1 for an answer that no head can give."""
    logits: Tensor
    """`float[N, all classes]`, minus infinity outside the label's head."""


class Summary(nn.Module):
    """One token for a whole view, linear in its grid; it keeps places apart, which a mean would not.

    Args:
        config: Of a tower whose tokens are a class token and a grid.
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        rows, columns = (side // patch for side, patch in zip(config.image_size, config.patch_size, strict=True))
        self.squeeze = nn.Linear(config.hidden_size, SQUEEZED)
        self.join = nn.Linear(rows * columns * SQUEEZED, config.hidden_size)

    def forward(self, grid: Tensor) -> Tensor:
        """`float[M, P, D]` to `float[M, D]`."""
        joined: Tensor = self.join(self.squeeze(grid).flatten(1))
        return joined


class Readout(nn.Module):
    """A tower with the linear layers that are thrown away afterwards.

    Args:
        tower: What is to be pre-trained.
        heads: What is read off it.
    """

    def __init__(self, tower: PreTrainedModel, heads: Sequence[Head]) -> None:
        super().__init__()
        self.tower = tower
        self.summary = None if view_token_count(tower.config) else Summary(tower.config)
        self.kinds = sorted({head.kind for head in heads})
        sizes = torch.tensor([len(head.answers) for head in heads], dtype=torch.int64)
        start, placed = torch.zeros_like(sizes), torch.tensor([head.placed for head in heads], dtype=torch.bool)
        for group in (placed, ~placed):
            start[group] = sizes[group].cumsum(0) - sizes[group]
        width = tower.config.hidden_size
        at_places, of_frames = (max(1, int(sizes[group].sum())) for group in (placed, ~placed))
        self.at_places = nn.Linear(width, at_places)
        self.of_frames = nn.Linear(len(CAMERAS) * width + 1, of_frames)
        self.measures = nn.Linear(width, MEASURES)
        self.register_buffer("start", start, persistent=False)
        self.register_buffer("size", sizes, persistent=False)
        self.register_buffer("kind", torch.tensor([self.kinds.index(h.kind) for h in heads]).long(), persistent=False)

    def forward(self, shown: Shown, lessons: Lessons, *, bf16: bool = False) -> tuple[list[Said], Tensor, Tensor]:
        """What is said about the frames shown.

        Args:
            shown: Frames and the views of them that are seen; nothing is asked about places in other views.
            lessons: Of the frames' split.
            bf16: Run the tower in bfloat16 where autocast thinks it safe.

        Returns:
            Labels at places and labels of frames, measures `float[K', 3]` and what they should be (NaN: not known).
        """
        device = shown.pictures.device
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            tokens = self.tower(shown.pictures).last_hidden_state
        grid, view = self._grid_and_view(tokens.float())
        slot = torch.full((len(lessons.speed),), -1, device=device)
        slot[shown.frames] = torch.arange(len(shown.frames), device=device)
        places, measured, wanted = self._at_places(grid, shown, lessons, slot)
        return [places, self._of_frames(view, shown, lessons, slot)], measured, wanted

    def _grid_and_view(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """`float[M, P, D]` and `float[M, D]`."""
        if self.summary is None:
            return tokens[:, :-1], tokens[:, -1]
        return tokens[:, 1:], self.summary(tokens[:, 1:])

    def _at_places(self, grid: Tensor, shown: Shown, lessons: Lessons, slot: Tensor) -> tuple[Said, Tensor, Tensor]:
        frame = slot[lessons.place_frame]
        picture = shown.picture_of[frame, lessons.place_view].where(frame >= 0, -1)
        here = (picture >= 0).nonzero().squeeze(1)
        place = lessons.place[here] if shown.moved is None else lessons.place[here] + shown.moved[picture[here]]
        features = features_at(grid, picture[here], place[:, 0], place[:, 1])
        row = torch.full_like(picture, -1)
        row[here] = torch.arange(len(here), device=row.device)
        labels = lessons.place_labels[row[lessons.place_labels[:, 0]] >= 0]
        said = self._said(self.at_places(features)[row[labels[:, 0]]], labels[:, 1], labels[:, 2])
        return said, self.measures(features), lessons.measures[here]

    def _of_frames(self, tokens: Tensor, shown: Shown, lessons: Lessons, slot: Tensor) -> Said:
        frame = slot[lessons.frame_labels[:, 0]]
        view = lessons.frame_labels[:, 3]
        seen = (view < 0) | (shown.picture_of[frame, view.clamp(min=0)] >= 0)
        chosen = (frame >= 0) & seen
        labels = lessons.frame_labels[chosen]
        views = torch.cat([tokens, tokens.new_zeros(1, tokens.shape[1])])[shown.picture_of]  # -1: the zeros
        logits = self.of_frames(torch.cat([views.flatten(1), lessons.speed[shown.frames, None]], dim=1))
        return self._said(logits[frame[chosen]], labels[:, 1], labels[:, 2])

    def _said(self, logits: Tensor, head: Tensor, answer: Tensor) -> Said:
        start, column = self.start[head, None], torch.arange(logits.shape[1], device=logits.device)
        outside = (column < start) | (column >= start + self.size[head, None])
        target = torch.where(answer >= 0, self.start[head] + answer, -1)
        return Said(head, target, logits.masked_fill(outside, -torch.inf))

    def loss(self, shown: Shown, lessons: Lessons, *, bf16: bool = False) -> Tensor:
        """The loss of the module's description, a scalar."""
        answered, measured, wanted = self(shown, lessons, bf16=bf16)
        total = torch.zeros(len(self.kinds), device=measured.device)
        count = torch.zeros_like(total)
        for said in answered:
            known = said.target >= 0
            kind = self.kind[said.head[known]]
            wrong = functional.cross_entropy(said.logits[known], said.target[known], reduction="none")
            total = total.index_add(0, kind, wrong)
            count = count.index_add(0, kind, torch.ones_like(wrong))
        known = ~wanted.isnan()
        distance = functional.smooth_l1_loss(measured[known], wanted[known], reduction="sum") / max(1, int(known.sum()))
        return (total / count.clamp(min=1)).sum() + MEASURES_WEIGHT * distance
