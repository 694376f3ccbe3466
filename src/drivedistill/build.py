"""From a recipe's model section to a model that reads samples, and from there to a directory and back.

A `Subject` is a model with everything it needs: weights, tokenizer, image processor and the way it reads. Training,
predicting and scoring speed all start from one.
"""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from pydantic import ValidationError
from transformers import AutoConfig, ViTImageProcessorPil

from drivedistill import recipe as cards
from drivedistill.data.collate import Family, Preparation, Reading
from drivedistill.data.images import PictureCache
from drivedistill.data.prompt import TEMPLATE, load_tokenizer, make_exact, train_tokenizer
from drivedistill.distill.teacher import Identity, identity_of
from drivedistill.models.driving_t5 import DrivingT5
from drivedistill.models.hf_vlm import keep_video_entry, load_processor, load_vlm
from drivedistill.models.presets import build_config, image_statistics, load_text_weights, load_vision_weights
from drivedistill.models.student import bare
from drivedistill.problems import InputError, Problem, unavailable
from drivedistill.records import Sample, validation_problems

READING = "reading.json"


@dataclass
class Subject:
    """A model and what it needs to read samples."""

    name: str
    model: Any
    """`DrivingT5`, a Hugging Face VLM, or a `PeftModel` around one."""
    preparation: Preparation
    loaded: frozenset[str]
    """Top-level parts that hold trained weights; `*` for all."""

    @property
    def identity(self) -> Identity:
        """What a distillation partner must agree with."""
        reading, processor = self.preparation.reading, self.preparation.processor
        if reading.family == "driving_t5":
            return identity_of(self.preparation.tokenizer, TEMPLATE)
        blank = Image.new("RGB", (reading.image_size, reading.image_size))
        ids = processor(text=[processor.image_token], images=[[blank]], return_tensors="pt").input_ids
        tokens = int((ids == processor.image_token_id).sum())
        return identity_of(self.preparation.tokenizer, str(processor.chat_template), tokens)


def build_subject(
    model: cards.Model,
    data: cards.Data | None,
    pictures: PictureCache,
    samples: Sequence[Sample],
    tokenizer: Any = None,
) -> Subject:
    """A recipe's model.

    Args:
        model: The recipe's `model` or `teacher` section.
        data: How it will read; None for a teacher that says so itself.
        pictures: Decoded pictures, shared by the run's models.
        samples: The train split; a tokenizer is trained on it when nobody names one.
        tokenizer: The teacher's, for a student that names none.

    Raises:
        InputError: Something cannot be loaded, or a pattern of the recipe matches nothing.
    """
    if model.path is not None:
        subject = load_subject(model.path, pictures, attention=model.attention, dtype=model.dtype, data=data)
    else:
        assert data is not None, "a preset has no way of reading of its own"
        subject = _from_preset(model, data, pictures, samples, tokenizer)
    subject.model = _trainable(subject.model, model, subject.loaded)
    if model.gradient_checkpointing:
        bare(subject.model).gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return subject


def load_subject(
    name: str,
    pictures: PictureCache,
    *,
    attention: str = "sdpa",
    dtype: str = "float32",
    data: cards.Data | None = None,
) -> Subject:
    """A model from a run, a directory in Hugging Face layout, or a hub id.

    Args:
        name: The run, directory or hub id.
        pictures: Decoded pictures.
        attention: `sdpa` or `eager`.
        dtype: Of the weights in memory.
        data: How it is to read; by default as its own `reading.json` says.

    Raises:
        InputError: It cannot be loaded, or cannot read pictures of the wanted size.
    """
    folder = model_folder(name)
    try:
        kind = AutoConfig.from_pretrained(folder).model_type
    except (OSError, ValueError, KeyError) as error:
        raise InputError(unavailable(folder, "a model (run, directory or hub id)", error)) from error
    if kind == "driving_t5":
        loaded: Any = _load_driving_t5(folder, attention, dtype)
        processor: Any = _image_processor(folder)
        tokenizer = load_tokenizer(folder)
        reading = _reading("driving_t5", folder, data)
        if reading.image_size != loaded.config.image_size:
            found, remedy = f"{reading.image_size}", f"set data.image_size to {loaded.config.image_size}"
            raise InputError(
                Problem("recipe", "data.image_size", "the size that the model was built for", found, remedy)
            )
    else:
        loaded = load_vlm(folder, attention=attention, dtype=dtype)
        processor = load_processor(folder)
        tokenizer = processor.tokenizer
        make_exact(tokenizer, folder)
        reading = _reading("hf_vlm", folder, data)
    return Subject(name, loaded, Preparation(reading, tokenizer, processor, pictures), frozenset({"*"}))


def own_reading(name: str, data: cards.Data) -> cards.Data | None:
    """None where the model says itself how it reads, otherwise `data`; for teachers, which keep their way of reading."""
    return None if (Path(model_folder(name)) / READING).is_file() else data


def save_subject(subject: Subject, model: Any, folder: Path, card: str) -> None:
    """Write a model as `save_pretrained` does, with tokenizer, processor, reading and card; completely or not at all.

    LoRA is merged into the weights, so the directory needs no PEFT and loads anywhere.
    """
    merged = copy.deepcopy(model).merge_and_unload() if hasattr(model, "merge_and_unload") else model
    temporary = folder.with_name(f".writing-{folder.name}")
    _clear(temporary)
    merged.save_pretrained(temporary)
    subject.preparation.tokenizer.save_pretrained(temporary)
    subject.preparation.processor.save_pretrained(temporary)
    if subject.preparation.reading.family == "hf_vlm":
        keep_video_entry(model_folder(subject.name), temporary)
    (temporary / READING).write_text(subject.preparation.reading.model_dump_json(indent=2) + "\n", "utf-8")
    (temporary / "README.md").write_text(card, "utf-8")
    old = folder.with_name(f".old-{folder.name}")
    _clear(old)
    if folder.exists():
        folder.rename(old)
    temporary.rename(folder)
    _clear(old)


def model_folder(name: str) -> str:
    """The directory of a run's model, or the name itself (a directory or hub id)."""
    inside = Path(name) / "model"
    if inside.is_dir():
        return str(inside)
    if (Path(name) / "run.json").is_file():
        remedy = "finish the run: the same command with --resume"
        raise InputError(Problem(name, "model", "a finished run", "a run without a model folder", remedy))
    return name


# --- building ---------------------------------------------------------------------------------------------------------


def _from_preset(
    model: cards.Model, data: cards.Data, pictures: PictureCache, samples: Sequence[Sample], tokenizer: Any
) -> Subject:
    if model.tokenizer or model.text_weights:
        tokenizer = load_tokenizer(str(model.tokenizer or model.text_weights))
    elif tokenizer is None:
        texts = (text for sample in samples for text in (sample.question, sample.answer or ""))
        tokenizer = train_tokenizer(texts, model.tokenizer_size)
    assert model.preset is not None
    vocabulary = None if model.text_weights else len(tokenizer)
    config = build_config(model.preset, vocab_size=vocabulary, image_size=data.image_size, overrides=model.overrides)
    config.layout = data.layout
    built = DrivingT5(config)
    if model.attention == "eager":
        built.set_attn_implementation("eager")
    loaded: set[str] = set()
    if model.vision_weights:
        load_vision_weights(built, model.vision_weights)
        loaded.add("vision")
    if model.text_weights:
        load_text_weights(built, model.text_weights)
        loaded.add("language_model")
    if len(tokenizer) > config.text.vocab_size:
        found = f"{len(tokenizer)} tokens for {config.text.vocab_size} embedding rows"
        remedy = "use a smaller tokenizer"
        raise InputError(Problem("recipe", "model.tokenizer", "a tokenizer that fits the model", found, remedy))
    mean, std = image_statistics(config)
    side = {"height": data.image_size, "width": data.image_size}
    processor = ViTImageProcessorPil(size=side, image_mean=mean, image_std=std)
    built = built.to(getattr(torch, model.dtype))
    preparation = Preparation(_reading("driving_t5", "", data), tokenizer, processor, pictures)
    return Subject(model.preset, built, preparation, frozenset(loaded))


def _reading(family: Family, folder: str, data: cards.Data | None) -> Reading:
    """The recipe's way of reading; without a recipe the one saved beside the model."""
    if data is not None:
        shared = set(Reading.model_fields) & set(cards.Data.model_fields)
        return Reading(family=family, **{key: getattr(data, key) for key in shared})
    path = Path(folder) / READING
    if not path.is_file():
        return Reading(family=family, image_size=448)
    try:
        return Reading.model_validate_json(path.read_text("utf-8"))
    except ValidationError as error:
        raise InputError(validation_problems(error, str(path), "")) from error


def _load_driving_t5(folder: str, attention: str, dtype: str) -> DrivingT5:
    from safetensors import SafetensorError

    try:
        model = DrivingT5.from_pretrained(folder, dtype=dtype, use_safetensors=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(unavailable(folder, "a DrivingT5 model in safetensors", error)) from error
    if attention == "eager":  # every part can; `sdpa` is the default of those that have it
        model.set_attn_implementation("eager")
    return model


def _image_processor(folder: str) -> ViTImageProcessorPil:
    try:
        return ViTImageProcessorPil.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise InputError(unavailable(folder, "an image processor (preprocessor_config.json)", error)) from error


def _trainable(built: Any, model: cards.Model, loaded: frozenset[str]) -> Any:
    """Add LoRA, freeze what the recipe freezes, refuse frozen random weights."""
    never_run = {id(parameter) for parameter in built.parameters() if not parameter.requires_grad}
    if model.lora:
        from peft import LoraConfig, get_peft_model

        lora = model.lora
        if not any(re.fullmatch(lora.targets, name) for name, _ in built.named_modules()):
            raise InputError(
                _matches_nothing("model.lora.targets", lora.targets, (n for n, _ in built.named_modules()))
            )
        config = LoraConfig(
            r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=lora.targets, bias="none"
        )
        built = get_peft_model(built, config)
        for name, parameter in bare(built).named_parameters():
            if "lora_" not in name and any(re.search(pattern, name) for pattern in lora.also_train):
                parameter.requires_grad_(True)
    names = [name for name, _ in bare(built).named_parameters()]
    for pattern in model.frozen:
        if not any(re.search(pattern, name) for name in names):
            raise InputError(_matches_nothing("model.frozen", pattern, names))
    random: list[str] = []
    for name, parameter in bare(built).named_parameters():
        if any(re.search(pattern, name) for pattern in model.frozen):
            parameter.requires_grad_(False)
        if parameter.requires_grad or id(parameter) in never_run:
            continue
        if "*" not in loaded and name.partition(".")[0] not in loaded:
            random.append(name)
    if random and not model.allow_random:
        parts = ", ".join(sorted({name.partition(".")[0] for name in random}))
        found = f"{len(random)} frozen tensors with random weights in {parts}"
        remedy = "name vision_weights/text_weights/path, unfreeze them, or pass --allow-random (for speed tests only)"
        raise InputError(Problem("recipe", "model", "trained weights in every frozen part", found, remedy))
    return built


def _matches_nothing(field: str, pattern: str, names: Iterable[str]) -> Problem:
    some = ", ".join(list(names)[1:4])
    return Problem(
        "recipe", field, "a pattern that matches", f"{pattern!r} matches nothing", f"names look like: {some}"
    )


def _clear(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def model_card(recipe: cards.Recipe, facts: dict[str, Any]) -> str:
    """The model's README: what it is, what it was trained on, with what."""
    sources = "\n".join(f"- `{s.name}` ({s.format}, {s.regime}, split by {s.split_by})" for s in recipe.data.sources)
    kind = f"distilled ({recipe.distill.loss}, T={recipe.distill.temperature:g})" if recipe.teacher else "supervised"
    return (
        f"---\nlibrary_name: drivedistill\ntags: [autonomous-driving, visual-question-answering]\n---\n\n"
        f"# {recipe.name}\n\n{recipe.about}\n\nTraining: {kind}, seed {recipe.seed}.\n\nData:\n\n{sources}\n\n"
        f"```json\n{json.dumps(facts, indent=2)}\n```\n"
    )
