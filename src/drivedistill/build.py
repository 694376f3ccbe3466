"""From a recipe's model section to a model that reads samples and knows which of its parts learn."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from drivedistill import sections as cards
from drivedistill.data.images import PictureCache
from drivedistill.distill.teacher_cache import Speaker
from drivedistill.from_preset import from_preset
from drivedistill.models.adapter import convert_adapter
from drivedistill.models.int8 import quantize
from drivedistill.models.moe import FeedForwardExperts
from drivedistill.models.shrink import shrink, tower_learns
from drivedistill.models.student import bare
from drivedistill.models.upcycle import convert_ffn
from drivedistill.problems import InputError, Problem
from drivedistill.recipe import Recipe
from drivedistill.records import Sample
from drivedistill.subject import (
    Subject,
    load_subject,
    model_config,
    refuse_missing,
    weight_files,
)


def refuse_missing_models(recipe: Recipe) -> None:
    """Look for everything that a recipe wants to load, before any of it is loaded.

    Raises:
        InputError: A run or directory is not there; all of them are listed.
    """
    others = {f"teachers.{name}": model for name, model in recipe.teachers.items()}
    names = {
        f"{role}.{field}": value
        for role, model in {"model": recipe.model, "teacher": recipe.teacher, **others}.items()
        for field in ("path", "vision_weights", "text_weights", "tokenizer")
        if (value := getattr(model, field, None))
    }
    refuse_missing(names)


def build_student(
    model: cards.Model, data: cards.Data, pictures: PictureCache, samples: Sequence[Sample], tokenizer: Any = None
) -> Subject:
    """A recipe's student (or the teacher that it trains without one).

    Args:
        model: The recipe's `model` section.
        data: How it reads.
        pictures: Decoded pictures, shared by the run's models.
        samples: The train split; a tokenizer is trained on it when nobody names one.
        tokenizer: The teacher's, for a student that names none.

    Raises:
        InputError: Something cannot be loaded, a pattern of the recipe matches nothing, or a part would stay random.
    """
    subject = _built(model, data, pictures, samples, tokenizer, own=False)
    subject.model = _reshaped(subject.model, model)
    subject.model = _trainable(subject.model, model, subject.loaded)
    if model.gradient_checkpointing:
        bare(subject.model).gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return subject


def _reshaped(built: Any, model: cards.Model) -> Any:
    """Cut blocks, then turn what is left into experts."""
    if model.shrink:
        built = shrink(built, model.shrink)
    if model.adapter_experts:
        convert_adapter(built, model.adapter_experts)
    if model.ffn_experts:
        convert_ffn(built, model.ffn_experts)
    return built


def require_same_vision(student: Any, teacher: Any) -> None:
    """The match stage compares features one by one.

    Raises:
        InputError: A family's tower cannot be asked alone, or the towers' features differ in shape.
    """
    remedy = "match a `driving_t5` student cut from its teacher"
    shapes = []
    for model in (bare(student), bare(teacher)):
        if not hasattr(model, "vision"):
            found = f"a {model.config.model_type} model"
            raise InputError(Problem("recipe", "distill.signal", "two models of driving_t5", found, remedy))
        shapes.append((*model.vision.grid, model.vision.tokens, model.vision.width))
    if shapes[0] != shapes[1]:
        found = f"{shapes[0]} for the student, {shapes[1]} for the teacher"
        raise InputError(Problem("recipe", "distill.signal", "features of one shape", found, remedy))


def train_only_vision(built: Any) -> None:
    """The match stage leaves everything but the vision tower as it is."""
    for name, parameter in bare(built).named_parameters():
        parameter.requires_grad_(parameter.requires_grad and name.startswith("vision."))


def build_teacher(
    model: cards.Model, data: cards.Data, pictures: PictureCache, samples: Sequence[Sample], *, weights: bool = True
) -> Subject:
    """A recipe's teacher: it keeps its own way of reading, and nothing of it learns.

    Without `weights` (a cache speaks for it) the model stays on the meta device; it must have a `path` then.

    Raises:
        InputError: It cannot be loaded, or holds random weights.
    """
    if not weights:
        assert model.path is not None
        return load_subject(model.path, pictures, data=data, own=True, weights=False)
    subject = _built(model, data, pictures, samples, None, own=True)
    subject.model.requires_grad_(False)
    _refuse_random(subject.model, model, subject.loaded, set())
    _quantize(subject.model, model)
    return subject


def speaker_of(recipe: Recipe, teacher: Subject, card: cards.Model | None = None) -> Speaker:
    """What a cache must know of a recipe's teacher, or of the one that `card` describes.

    Raises:
        InputError: Its weights are not on this machine.
    """
    card = card or recipe.teacher
    assert card is not None and card.path is not None
    return Speaker(
        card.path,
        model_config(card.path),
        weight_files(card.path),
        {"dtype": card.dtype, "quantize": card.quantize},
        teacher.preparation,
        teacher.identity,
        recipe.train.precision,
        recipe.distill.temperature,
    )


def _built(
    model: cards.Model,
    data: cards.Data,
    pictures: PictureCache,
    samples: Sequence[Sample],
    tokenizer: Any,
    *,
    own: bool,
) -> Subject:
    if model.path is not None:
        return load_subject(model.path, pictures, attention=model.attention, dtype=model.dtype, data=data, own=own)
    return from_preset(model, data, pictures, samples, tokenizer)


def _trainable(built: Any, model: cards.Model, loaded: frozenset[str]) -> Any:
    """Add LoRA, freeze what the recipe freezes, keep what learns in float32, refuse frozen random weights."""
    never_run = {id(parameter) for parameter in built.parameters() if not parameter.requires_grad}
    if model.lora:
        built = _with_lora(built, model.lora)
    names = [name for name, _ in bare(built).named_parameters()]
    for pattern in model.frozen:
        if not any(re.search(pattern, name) for name in names):
            raise InputError(_matches_nothing("model.frozen", pattern, names))
    for name, parameter in bare(built).named_parameters():
        if any(re.search(pattern, name) for pattern in model.frozen):
            parameter.requires_grad_(False)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # AdamW's small updates would round away in bfloat16
    _refuse_random(bare(built), model, loaded, never_run)
    _refuse_cut_tower(bare(built), model)
    _refuse_equal_experts(bare(built), model)
    _quantize(bare(built), model)
    return built


def _refuse_equal_experts(built: Any, model: cards.Model) -> None:
    """Equal experts that do not learn stay equal: the router would have nothing to choose."""
    experts = model.ffn_experts
    targeted = model.lora is not None and model.lora.expert_targets is not None
    if experts is None or experts.kind != "upcycle" or experts.init_noise or targeted:
        return
    if not any(p.requires_grad for name, p in built.named_parameters() if re.search(r"\.expert_(up|down)$", name)):
        remedy = "train them (model.lora.also_train: [router, expert_]), give them LoRA (model.lora.expert_targets), or noise"
        found = "frozen copies without `init_noise`"
        raise InputError(Problem("recipe", "model.ffn_experts", "experts that learn or differ", found, remedy))


def _refuse_cut_tower(built: Any, model: cards.Model) -> None:
    """Half of a vision tower sees badly until it has learnt; frozen, it never would."""
    if getattr(built.config, "vision_state", "whole") != "cut" or model.allow_random:
        return
    if not tower_learns(built):
        remedy = "match it to the teacher's first (driving_t5: `distill` with distill.signal=vision), or unfreeze it"
        found = "a cut tower that has not been trained since"
        raise InputError(Problem("recipe", "model.frozen", "a vision tower that was trained", found, remedy))


def _with_lora(built: Any, lora: cards.Lora) -> Any:
    from peft import LoraConfig, get_peft_model

    modules = [name for name, _ in built.named_modules()]
    if not any(re.fullmatch(lora.targets, name) for name in modules):
        raise InputError(_matches_nothing("model.lora.targets", lora.targets, modules))
    config = LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=lora.targets, bias="none"
    )
    config.target_parameters = _expert_stacks(built, lora)
    names = [name for name, _ in built.named_parameters()]
    for pattern in lora.also_train if "also_train" in lora.model_fields_set else ():
        if not any(re.search(pattern, name) for name in names):
            raise InputError(_matches_nothing("model.lora.also_train", pattern, names))
    built = get_peft_model(built, config)
    for name, parameter in bare(built).named_parameters():
        if "lora_" not in name and any(re.search(pattern, name) for pattern in lora.also_train):
            parameter.requires_grad_(True)
    return built


def _expert_stacks(built: Any, lora: cards.Lora) -> list[str] | None:
    """Names of the stacked expert weights that get LoRA."""
    if lora.expert_targets is None:
        return None
    names = [
        f"{layer}.{name}"
        for layer, module in built.named_modules()
        if isinstance(module, FeedForwardExperts)
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.ndim == 3
    ]
    chosen = [name for name in names if re.search(lora.expert_targets, name)]
    if not chosen:
        raise InputError(_matches_nothing("model.lora.expert_targets", lora.expert_targets, names))
    return chosen


def _quantize(built: Any, model: cards.Model) -> None:
    """Comes last: only by now is it known what is frozen, and the adapters that are to mend the rounding exist."""
    if model.quantize and not quantize(built, mend=model.lora is not None and model.lora.init == "loftq"):
        found, remedy = "a language model that learns in full", "add model.lora, freeze it, or remove model.quantize"
        raise InputError(Problem("recipe", "model.quantize", "frozen linear layers", found, remedy))


def _refuse_random(built: Any, model: cards.Model, loaded: frozenset[str], never_run: set[int]) -> None:
    """Frozen random weights cannot learn; whatever they were distilled into or from would be noise."""
    if "*" in loaded or model.allow_random:
        return
    random = [
        name
        for name, parameter in built.named_parameters()
        if not parameter.requires_grad
        and id(parameter) not in never_run
        and not any(name.startswith(f"{part}.") for part in loaded)
    ]
    if random:
        parts = ", ".join(sorted({name.removeprefix("model.").partition(".")[0] for name in random}))
        found = f"{len(random)} frozen tensors with random weights in {parts}"
        remedy = "name vision_weights/text_weights/path, unfreeze them, or pass --allow-random (for speed tests only)"
        raise InputError(Problem("recipe", "model", "trained weights in every frozen part", found, remedy))


def _matches_nothing(field: str, pattern: str, names: Iterable[str]) -> Problem:
    some = ", ".join(list(names)[1:4])
    return Problem(
        "recipe", field, "a pattern that matches", f"{pattern!r} matches nothing", f"names look like: {some}"
    )
