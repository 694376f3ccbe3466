"""A recipe's `model.preset` to a model: its tokenizer, its random or loaded weights, and what turns samples into tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import ViTImageProcessorPil

from drivedistill import sections as cards
from drivedistill.data.collate import Preparation, Reading, worded
from drivedistill.data.images import PictureCache
from drivedistill.data.prompt import load_tokenizer, require_ends, train_chat_tokenizer, train_tokenizer
from drivedistill.models.driving_t5 import DrivingT5
from drivedistill.models.presets import (
    PRESETS,
    build_config,
    image_statistics,
    load_text_weights,
    load_vision_weights,
)
from drivedistill.models.vlm_presets import END, PAD, SPECIAL_TOKENS, TURN, VLM_PRESETS, build_vlm, load_tower_weights
from drivedistill.problems import InputError, Problem
from drivedistill.records import Sample
from drivedistill.subject import Subject, reading_of, refuse_points


def from_preset(
    model: cards.Model, data: cards.Data, pictures: PictureCache, samples: Sequence[Sample], tokenizer: Any
) -> Subject:
    """The model that a preset names.

    Args:
        model: The recipe's `model` or `teacher` section.
        data: How it reads.
        pictures: Decoded pictures, shared by the run's models.
        samples: What a tokenizer is trained on when nobody names one.
        tokenizer: The teacher's or a resumed run's, for a model that names none.

    Raises:
        InputError: There is no such preset, it has no place for something, or a part cannot be loaded.
    """
    known = [*PRESETS, *VLM_PRESETS]
    if model.preset not in known:
        names = f"one of {', '.join(known)}"
        raise InputError(Problem("recipe", "model.preset", names, repr(model.preset), "correct the name"))
    build = _vlm if model.preset in VLM_PRESETS else _driving_t5
    return build(model, data, pictures, samples, tokenizer)


def _vlm(
    model: cards.Model, data: cards.Data, pictures: PictureCache, samples: Sequence[Sample], tokenizer: Any
) -> Subject:
    assert model.preset is not None
    reading = reading_of("hf_vlm", data)
    refuse_points(reading, model.preset)
    if model.text_weights:
        remedy = "remove it; a published model is loaded whole, from model.path"
        raise InputError(
            Problem("recipe", "model.text_weights", "nothing, for such a preset", model.text_weights, remedy)
        )
    if model.tokenizer:
        tokenizer = load_tokenizer(model.tokenizer)
    elif tokenizer is None:
        ends = {"pad": PAD, "turn": TURN, "end": END}
        tokenizer = train_chat_tokenizer(_texts(samples, reading), model.tokenizer_size, **ends, others=SPECIAL_TOKENS)
    size, overrides = data.image_size, model.overrides
    built, processor = build_vlm(
        model.preset, tokenizer, image_size=size, overrides=overrides, attention=model.attention
    )
    loaded: set[str] = set()
    if model.vision_weights:
        load_tower_weights(built, model.vision_weights)
        loaded.add("model.vision_tower")
    preparation = Preparation(reading, tokenizer, processor, pictures)
    return Subject(model.preset, built.to(getattr(torch, model.dtype)), preparation, frozenset(loaded))


def _texts(samples: Sequence[Sample], reading: Reading) -> Iterator[str]:
    """What a tokenizer is trained on: questions and answers as the model is given them."""
    asked = (worded(sample, reading) for sample in samples)
    return (text for sample in asked for text in (sample.question, sample.answer or ""))


def _driving_t5(
    model: cards.Model, data: cards.Data, pictures: PictureCache, samples: Sequence[Sample], tokenizer: Any
) -> Subject:
    reading = reading_of("driving_t5", data)
    if model.tokenizer or model.text_weights:
        tokenizer = load_tokenizer(str(model.tokenizer or model.text_weights))
    elif tokenizer is None:
        tokenizer = train_tokenizer(_texts(samples, reading), model.tokenizer_size)
    require_ends(tokenizer, str(model.tokenizer or model.text_weights or "the tokenizer"))
    assert model.preset is not None
    vocabulary = None if model.text_weights else len(tokenizer)
    _refuse_other_points(model, data)
    overrides = {**model.overrides, "points": data.points}
    config = build_config(model.preset, vocab_size=vocabulary, image_size=data.image_size, overrides=overrides)
    config.layout = data.layout
    config.text.pad_token_id = config.text.decoder_start_token_id = tokenizer.pad_token_id
    config.text.eos_token_id = tokenizer.eos_token_id
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
    preparation = Preparation(reading, tokenizer, processor, pictures)
    return Subject(model.preset, built, preparation, frozenset(loaded))


def _refuse_other_points(model: cards.Model, data: cards.Data) -> None:
    """A model is built for the points that it is given, or for none."""
    wanted = model.overrides.get("points", data.points)
    if wanted != data.points:
        expected, found = f"{str(data.points).lower()}, as data.points", str(wanted).lower()
        raise InputError(Problem("recipe", "model.overrides.points", expected, found, "remove it: data.points decides"))
