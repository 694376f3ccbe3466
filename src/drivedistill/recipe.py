"""The recipe: one YAML file that describes one experiment, completely.

Unknown keys are refused, all findings are reported at once, and `key.sub=value` on the command line overrides a field.
Paths are relative to the folder in which the command runs. The resolved recipe is written into the run's folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError, model_validator

from drivedistill.problems import InputError, Problem
from drivedistill.records import Capability, refuse_together, validation_problems, write_text
from drivedistill.section import Section
from drivedistill.sections import Data, Distill, Mining, Model, Train
from drivedistill.yaml_tree import flat, read_tree, set_field

FREE_TO_CHANGE = {
    *("log_every", "keep", "trackers", "save_every"),
    *("workers", "prefetch", "image_cache_mb", "vision_cache"),
}
"""Fields that may differ when a run goes on, because they do not touch what is learnt.

`vision_cache`: a cache may be moved, left, or begun. One of float32 holds what the tower would make; the features of a
float16 cache differ from it in rounding, and so would a run that changes between them.
"""

UNTOUCHED = ("shrink", "adapter_experts", "ffn_experts", "lora", "frozen", "gradient_checkpointing")
"""Fields of a model that is to learn; a teacher's would not be heard."""


class Recipe(Section):
    """One experiment."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$")]
    about: str = ""
    """What the experiment is, where its numbers come from, and whether it was run."""
    seed: int = 0
    data: Data
    model: Model
    teacher: Model | None = None
    teachers: dict[Capability, Model] = {}
    """Whose lessons `distill.drivekd` gives for a capability; those that are not named are the teacher's."""
    distill: Distill = Distill()
    mining: Mining | None = None
    train: Train = Train()

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        refuse_together(
            [
                *_numbers_fit(self),
                *_teacher_fits(self),
                *_lessons_fit(self),
                *_release_fits(self),
                *_mining_fits(self),
                *_projection_fits(self),
            ]
        )
        return self


def _numbers_fit(recipe: Recipe) -> Iterator[Problem]:
    model, train = recipe.model, recipe.train
    if model.dtype == "bfloat16" and train.precision != "bf16":
        expected = "float32, or `train.precision: bf16`"
        yield Problem("", "model.dtype", expected, "bfloat16", "set train.precision=bf16; what learns stays float32")
    if train.steps == 0 and recipe.teacher is not None:
        yield Problem(
            "", "train.steps", "1 or more; there is a teacher to learn from", "0", "raise it, or set teacher=null"
        )
    if train.sharding == "fsdp2" and model.quantize:
        remedy = "remove one of it and model.quantize"
        yield Problem("", "train.sharding", "`none`, since 8-bit layers cannot be split", "fsdp2", remedy)
    if train.fused_loss == "on" and (train.sharding == "fsdp2" or recipe.distill.signal == "vision"):
        why = "a sharded head is whole inside the forward only" if train.sharding == "fsdp2" else "vision has no rows"
        yield Problem("", "train.fused_loss", f"`auto` or `off`; {why}", "on", "set train.fused_loss=auto")


def _teacher_fits(recipe: Recipe) -> Iterator[Problem]:
    """What is asked of a teacher is something that it can do, and there is one."""
    distill, teacher, defaults = recipe.distill, recipe.teacher, Distill()
    everyone = _everyone(recipe)
    for place, model in everyone.items():
        for name in UNTOUCHED if model else ():
            if getattr(model, name):
                expected = "nothing; a teacher is taken as it is, and nothing of it learns"
                yield Problem("", f"{place}.{name}", expected, _shown(getattr(model, name)), "remove it")
    for name in ("signal", "on", "release", "teacher_cache", "drivekd"):
        value, default = getattr(distill, name), getattr(defaults, name)
        if teacher is None and value != default:
            expected, remedy = "a recipe with a teacher", f"add a teacher, or set distill.{name}={_shown(default)}"
            yield Problem("", f"distill.{name}", expected, f"{_shown(value)} without one", remedy)
    if teacher and distill.on == "mined" and recipe.mining is None:
        yield Problem("", "distill.on", "`all`, `regular` or `trusted`, or a section `mining`", "mined", "add mining")
    if distill.trust != defaults.trust and distill.on != "trusted":
        expected, found = f"{defaults.trust:g}; only `distill.on: trusted` reads it", f"{distill.trust:g}"
        yield Problem("", "distill.trust", expected, found, "remove it, or set distill.on=trusted")
    if teacher and distill.teacher_cache is not None and distill.signal == "answers":
        yield from _cache_fits(distill, everyone)
    if distill.signal == "vision":
        for name in sorted(set(Distill.model_fields) - {"signal"}):
            value, default = getattr(distill, name), getattr(defaults, name)
            if value != default:
                expected = f"{_shown(default)}; features are compared, other fields of `distill` have no meaning"
                yield Problem("", f"distill.{name}", expected, _shown(value), "remove it, or remove distill.signal")


def _everyone(recipe: Recipe) -> dict[str, Model | None]:
    """All teachers, by their place in the recipe."""
    everyone: dict[str, Model | None] = {"teacher": recipe.teacher}
    return everyone | {f"teachers.{name}": model for name, model in recipe.teachers.items()}


def _lessons_fit(recipe: Recipe) -> Iterator[Problem]:
    """Teachers of capabilities have lessons to give, and stay to the end."""
    drivekd, release = recipe.distill.drivekd, recipe.distill.release
    for name in recipe.teachers:
        if drivekd is None or name not in drivekd.lessons:
            expected, remedy = "a capability with a lesson in distill.drivekd", "add the lesson, or remove the teacher"
            yield Problem("", f"teachers.{name}", expected, "a teacher without one", remedy)
    if drivekd is None:
        return
    if release is not None and release.below is not None:
        expected = "null; `distill.drivekd` asks its teachers to the end"
        yield Problem("", "distill.release.below", expected, f"{release.below:g}", "remove it")
    if drivekd.in_turn and recipe.data.vision_cache is not None:
        expected = "null; `distill.drivekd.in_turn` loads teachers again and again, and their towers with them"
        yield Problem("", "data.vision_cache", expected, str(recipe.data.vision_cache), "remove one of them")
    for place, model in _everyone(recipe).items() if drivekd.in_turn else ():
        if model is not None and model.path is None:
            expected, found = "a teacher from `path`, to be loaded in turn", f"the preset {model.preset}"
            yield Problem("", place, expected, found, "name a trained teacher, or remove in_turn")


def _cache_fits(distill: Distill, teachers: dict[str, Model | None]) -> Iterator[Problem]:
    """A cache holds the likeliest tokens of a teacher that can be named, and maps of several."""
    if distill.loss != "forward_kl":
        expected = "forward_kl, as `distill.teacher_cache` needs: it keeps likeliest tokens, and this loss asks for all"
        remedy = "set distill.loss=forward_kl, or distill.teacher_cache=null"
        yield Problem("", "distill.loss", expected, distill.loss, remedy)
    for place, model in teachers.items():
        if model is not None and model.path is None:
            expected = (
                "a teacher from `path`, as `distill.teacher_cache` needs: its rows are named after the weights' files"
            )
            remedy = f"name a trained teacher in {place}.path, or set distill.teacher_cache=null"
            yield Problem("", f"{place}.path", expected, f"the preset {model.preset}", remedy)


def _release_fits(recipe: Recipe) -> Iterator[Problem]:
    release, weight = recipe.distill.release, recipe.distill.weight
    if release is None:
        return
    ends = {"end": release.end} | ({} if release.corner_end is None else {"corner_end": release.corner_end})
    for name, end in ends.items():
        if end > weight:
            expected, remedy = f"a value in (0, distill.weight = {weight:g}]", "lower it, or raise distill.weight"
            yield Problem("", f"distill.release.{name}", expected, f"{end:g}", remedy)
    lowest = min(ends.values())
    if lowest <= weight and release.below is not None and not lowest < release.below <= weight:
        expected = f"a value in (release.end, distill.weight] = ({lowest:g}, {weight:g}]"
        yield Problem("", "distill.release.below", expected, f"{release.below:g}", "correct it, or remove it")
    if release.corner_end is not None and recipe.distill.on == "regular":
        expected, remedy = "null; with `distill.on: regular` no corner sample listens", "remove it, or distill.on"
        yield Problem("", "distill.release.corner_end", expected, f"{release.corner_end:g}", remedy)


def _mining_fits(recipe: Recipe) -> Iterator[Problem]:
    mining, distill = recipe.mining, recipe.distill
    if mining is None:
        return
    if mining.pool == "micro" and recipe.train.batch_size == 1 and mining.samples < 100:
        remedy = "raise train.batch_size, use pool `window` or `bank`, or set mining.samples=100"
        yield Problem("", "mining.pool", "a pool from which something can be selected", "micro, of one sample", remedy)
    if both := sorted(set(mining.keep) & set(mining.exclude)):
        yield Problem(
            "", "mining.keep", "kinds that are not excluded", ", ".join(both), "remove them from one of the lists"
        )
    if mining.warmup + mining.anneal > 1:
        found, remedy = f"{mining.warmup:g} + {mining.anneal:g}", "lower one of it and mining.anneal"
        yield Problem("", "mining.warmup", "shares that together do not exceed the run", found, remedy)
    if mining.measure != "loss" and recipe.teacher is None:
        expected, remedy = f"`loss`; {mining.measure} needs a teacher", "add a teacher, or set mining.measure=loss"
        yield Problem("", "mining.measure", expected, mining.measure, remedy)
    elif mining.measure != "loss" and distill.release and distill.release.below:
        expected = f"nothing; `mining.measure: {mining.measure}` asks the teacher to the end"
        yield Problem("", "distill.release.below", expected, f"{distill.release.below:g}", "remove it")
    if distill.signal == "vision":
        expected = "nothing; mining ranks answers, and `distill.signal: vision` learns none"
        yield Problem("", "mining", expected, "a section", "remove it, or remove distill.signal")


def _projection_fits(recipe: Recipe) -> Iterator[Problem]:
    """Gradients of single samples exist where a backward pass is of one sample and its gradient is whole."""
    section, train, distill = recipe.distill.drivekd, recipe.train, recipe.distill
    if section is None or section.projection is None:
        return
    if section.projection.per == "sample":
        remedy = "set it, or distill.drivekd.projection.per=window"
        if train.batch_size != 1:
            expected = "1; `projection.per: sample` projects the gradients of single samples"
            yield Problem("", "train.batch_size", expected, str(train.batch_size), remedy)
        if train.sharding != "none":
            expected = "none; gradients of single samples are projected where they are whole"
            yield Problem("", "train.sharding", expected, train.sharding, remedy)
        if recipe.mining is not None and recipe.mining.pool not in ("window", "bank"):
            expected = "`window` or `bank`; a sample whose gradient is projected has nobody beside it"
            yield Problem("", "mining.pool", expected, recipe.mining.pool, remedy)
    if section.kl == "follower" and distill.on == "mined":
        expected = (
            "`all`, `regular` or `trusted`; a follower is a mean over samples, mined rows are counted as the anchor's"
        )
        yield Problem("", "distill.on", expected, "mined", "change it, or set distill.drivekd.kl=anchor")
    if section.kl == "follower" and section.reweighting and distill.release:
        expected = "null; the online weight takes the place of the one that it lowers"
        yield Problem("", "distill.release", expected, "a section", "remove it, or set distill.drivekd.kl=anchor")


def _shown(value: Any) -> str:
    """A field's value as YAML has it, on one line."""
    value = str(value) if isinstance(value, Path) else value
    plain = value.model_dump(mode="json", exclude_unset=True) if isinstance(value, Section) else value
    return json.dumps(plain) if not isinstance(plain, str) else plain


def load_recipe(path: Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe and apply `key.sub=value` overrides.

    Raises:
        InputError: The file is missing, no YAML mapping or a table recipe, an override has no `=`, or fields are unknown
            or invalid; every finding is listed.
    """
    origin = f"{path} with the command line" if overrides else str(path)
    tree = read_tree(path)
    if "rows" in tree:
        remedy = "use `drivedistill ablate`, or name the recipe of one of its rows"
        raise InputError(Problem(str(path), "rows", "a recipe of one experiment", "a table recipe", remedy))
    return parse_recipe(tree, overrides or [], origin)


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
