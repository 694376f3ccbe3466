"""The recipe: one YAML file that describes one experiment, completely.

Unknown keys are refused, all findings are reported at once, and `key.sub=value` on the command line overrides a field.
Paths are relative to the folder in which the command runs. The resolved recipe is written into the run's folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError, model_validator

from drivedistill.problems import InputError, Problem
from drivedistill.records import validation_problems, write_text
from drivedistill.sections import Data, Distill, Mining, Model, Section, Train
from drivedistill.yaml_tree import flat, read_tree, set_field

FREE_TO_CHANGE = {"log_every", "keep", "trackers", "save_every", "workers", "image_cache_mb", "vision_cache"}
"""Fields that may differ when a run goes on, because they do not touch what is learnt."""


class Recipe(Section):
    """One experiment."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$")]
    about: str = ""
    """What the experiment is, where its numbers come from, and whether it was run."""
    seed: int = 0
    data: Data
    model: Model
    teacher: Model | None = None
    distill: Distill = Distill()
    mining: Mining | None = None
    train: Train = Train()

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        if self.model.dtype == "bfloat16" and self.train.precision != "bf16":
            raise ValueError("`model.dtype: bfloat16` needs `train.precision: bf16`; what learns is kept in float32")
        if self.train.sharding == "fsdp2" and self.model.quantize:
            raise ValueError("`train.sharding: fsdp2` cannot split 8-bit layers; remove one of it and `model.quantize`")
        if self.distill.on == "mined" and self.mining is None:
            raise ValueError("`distill.on: mined` needs `mining`")
        return self

    @model_validator(mode="after")
    def _teacher_is_heard(self) -> Recipe:
        distill = self.distill
        release, weight = distill.release, distill.weight
        if distill.signal == "vision" and {"loss", "temperature", "weight", "on", "release"} & distill.model_fields_set:
            defaults = Distill(signal="vision")
            if distill != defaults:
                raise ValueError(
                    "`distill.signal: vision` compares features; the other fields of `distill` have no meaning"
                )
        if release is not None and not 0 < release.end <= weight:
            raise ValueError(f"`distill.release.end` must lie in (0, distill.weight = {weight:g}]")
        if release is not None and release.below is not None and not release.end < release.below <= weight:
            raise ValueError(
                f"`distill.release.below` must lie in (release.end, distill.weight] = ({release.end:g}, {weight:g}]"
            )
        return self

    @model_validator(mode="after")
    def _mining_can_select(self) -> Recipe:
        mining, train = self.mining, self.train
        if mining is None:
            return self
        if mining.pool == "micro" and train.batch_size == 1 and mining.samples < 100:
            raise ValueError(
                "`mining.pool: micro` holds one sample, of which nothing can be selected; raise `train.batch_size`, "
                "use pool `window` or `bank`, or set `mining.samples: 100`"
            )
        if mining.warmup + mining.anneal > 1:
            raise ValueError("`mining.warmup` and `mining.anneal` are shares of the run; together they exceed it")
        if mining.measure != "loss" and self.teacher is None:
            raise ValueError(f"`mining.measure: {mining.measure}` needs a teacher")
        if mining.measure != "loss" and self.distill.release and self.distill.release.below:
            raise ValueError(f"`mining.measure: {mining.measure}` asks the teacher to the end; remove `release.below`")
        if self.distill.signal == "vision":
            raise ValueError("`mining` ranks answers; `distill.signal: vision` learns none")
        return self


def load_recipe(path: Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe and apply `key.sub=value` overrides.

    Raises:
        InputError: The file is missing or no YAML mapping, an override has no `=`, or fields are unknown or invalid;
            every finding is listed.
    """
    origin = f"{path} with the command line" if overrides else str(path)
    return parse_recipe(read_tree(path), overrides or [], origin)


def parse_recipe(tree: dict[str, Any], overrides: Sequence[str], origin: str, place: str = "command line") -> Recipe:
    """A recipe from the tree of a YAML file (which is changed) and `key.sub=value` overrides.

    Raises:
        InputError: An override cannot be set (its file is `place`), or fields are unknown or invalid (their file is
            `origin`); every finding is listed.
    """
    problems: list[Problem] = []
    for override in overrides:
        try:
            set_field(tree, override, place)
        except InputError as error:
            problems += error.problems
    try:
        recipe = Recipe.model_validate(tree)
    except ValidationError as error:
        problems += validation_problems(error, origin, "")
    if problems:
        raise InputError(problems)
    return recipe


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write the resolved recipe, completely or not at all: every field, defaults included."""
    write_text(path, yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True))


def changed_fields(before: Recipe, now: Recipe) -> dict[str, tuple[Any, Any]]:
    """Fields of two resolved recipes that differ and touch what is learnt: dotted name -> value before, value now."""
    old, new = (flat(recipe.model_dump(mode="json")) for recipe in (before, now))
    return {
        key: (old.get(key), new.get(key))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and key.rpartition(".")[2] not in FREE_TO_CHANGE
    }
