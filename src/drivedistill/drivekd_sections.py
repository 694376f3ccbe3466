"""Drive-KD's sections of a recipe: what each capability's teacher shows, and how the gradients are put together.

Source: Drive-KD (arXiv 2601.21288) and its released code (Colamentos2023/Drive-KD, commit 7589a0c7).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from drivedistill.problems import Problem
from drivedistill.records import Capability, refuse_together
from drivedistill.section import NotNegative, Positive, Section, Share

Layer = Annotated[int, Field(strict=True)]
Layers = (
    Literal["first", "penultimate", "last", "intermediate"] | Annotated[list[Layer], Field(min_length=2, max_length=2)]
)
"""`first` is index 0, `penultimate` -2, `last` -1, `intermediate` the range [0, -2]: all but the last. Two numbers are a range
from the first to the second, both inclusive; negative ones count from the end, in teacher and student alike."""


class Lesson(Section):
    """What a student imitates of a teacher for one capability, beside its words."""

    signal: Literal["attention", "hidden"] = "attention"
    """Head-averaged attention maps, or hidden states (through a learned projection to the teacher's width, which is dropped
    after training)."""
    block: Literal["text_to_vision", "full"] = "full"
    """Of a map: text tokens looking at image tokens (of a T5 student: cross-attention), or every token at every token."""
    layers: Layers = "intermediate"
    """Of several, each student layer follows the mean of a window of teacher layers (see `attention_loss.layer_groups`)."""
    distance: Literal["mse", "cosine"] = "mse"
    """`cosine`: 1 - cos of the rows of a map (or of hidden states), averaged over rows."""
    denominator: Literal["all", "causal"] = "all"
    """What a squared error is averaged over: all pairs of the block (released code), or those that a causal map can fill."""
    weight: NotNegative = 1.0

    @model_validator(mode="after")
    def _heard(self) -> Lesson:
        refuse_together(self._unheard())
        return self

    def _unheard(self) -> Iterator[Problem]:
        """Fields that would change nothing."""
        if self.signal == "hidden":
            for name in sorted({"block", "denominator"} & self.model_fields_set):
                expected = "nothing; hidden states have neither text-to-vision blocks nor empty pairs"
                yield Problem("", name, expected, str(getattr(self, name)), "remove it")
        elif self.distance == "cosine" and "denominator" in self.model_fields_set:
            yield Problem("", "denominator", "nothing; cosines are averaged over rows", self.denominator, "remove it")


class Projection(Section):
    """How the gradients of anchor and capabilities become one (Drive-KD's asymmetric gradient projection, and its rivals)."""

    kind: Literal["agp", "stage1", "stage2", "sum", "pcgrad", "cagrad", "upgrad"] = "agp"
    """`agp`: both stages; `stage1`: a follower against the anchor only; `stage2`: merged vectors against each other only;
    `sum`: separate gradients, added up without projection; the others through torchjd."""
    per: Literal["sample", "window"] = "sample"
    """Project each sample's gradients and then add them up (released code; needs `train.batch_size: 1`), or add up the
    window's and project once."""
    supervised: Literal["each", "once"] = "each"
    """Of AGP's kinds (`agp`, `stage1`, `stage2`): the anchor is counted once per capability (released code), or once. All
    others count it once."""


class Reweighting(Section):
    """Online loss weights: every task's gradient is to have its share of the sum of norms (after GradNorm)."""

    learning_rate: Positive = 3e-4
    alpha: NotNegative = 0.0
    """How strongly slow tasks are favoured; 0: shares are those of the recipe's weights."""
    least: Positive = 1e-6
    most: Positive = 1e6
    least_supervised: NotNegative = 0.6
    """The anchor's weight never falls below."""

    @model_validator(mode="after")
    def _ordered(self) -> Reweighting:
        if self.least > self.most:
            found, remedy = f"{self.least:g}", "lower it, or raise `most`"
            refuse_together([Problem("", "least", f"not more than `most` = {self.most:g}", found, remedy)])
        return self


Mixing = dict[Capability, dict[Capability, Share]]

SOFT: Mixing = {
    mine: {other: 0.8 if other == mine else 0.1 for other in ("perception", "reasoning", "planning")}
    for mine in ("perception", "reasoning", "planning")
}
"""How much of each capability's lesson a sample of a capability listens to (released default)."""


class DriveKD(Section):
    """Lessons by capability, on top of the supervised loss and of the teacher's words (`distill.weight`, 0 for none)."""

    lessons: Annotated[dict[Capability, Lesson], Field(min_length=1)] = {
        "perception": Lesson(block="text_to_vision", layers="first"),
        "reasoning": Lesson(block="full", layers="intermediate"),
        "planning": Lesson(block="text_to_vision", layers="penultimate"),
    }
    mixing: Mixing = SOFT
    """Row: the sample's capability; column: the lesson. Rows are divided by their sums; what is not named weighs nothing."""
    kl: Literal["anchor", "follower"] = "anchor"
    """Whether the divergence from the teacher's words belongs to what is never altered, or is projected as the lessons are."""
    projection: Projection | None = None
    """Null: one backward pass of the sum of all terms."""
    reweighting: Reweighting | None = None
    in_turn: bool = False
    """Teachers are loaded one after the other, for a whole window each; for teachers that do not fit into memory together."""

    @model_validator(mode="after")
    def _fits_together(self) -> DriveKD:
        refuse_together(self._misfits())
        return self

    def _misfits(self) -> Iterator[Problem]:
        if self.reweighting and self.projection is None:
            expected = "a section `projection`, which keeps the gradients apart whose norms are balanced"
            yield Problem("", "reweighting", expected, "none", "add projection: {kind: sum}, or remove reweighting")
        if self.kl == "follower" and self.projection is None:
            expected = "anchor; without `projection` all terms are simply added up"
            yield Problem("", "kl", expected, "follower", "add a projection, or remove kl")
