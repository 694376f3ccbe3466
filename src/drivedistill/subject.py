"""A model with everything it needs to read samples, from a directory and back.

    runs/NAME/model/   config.json  model.safetensors  tokenizer.json  preprocessor_config.json  reading.json  README.md

Weights, configuration, tokenizer and processor are as `save_pretrained` writes them; `reading.json` says how the model reads.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from pydantic import ValidationError
from safetensors import SafetensorError
from transformers import AutoConfig, ViTImageProcessorPil
from transformers.utils import CONFIG_NAME, cached_file

from drivedistill import sections as cards
from drivedistill.data.collate import Family, Preparation, Reading
from drivedistill.data.images import PictureCache
from drivedistill.data.prompt import TEMPLATE, load_tokenizer, make_exact
from drivedistill.data.turn import can_tile, tile_settings, tiling, turn_of
from drivedistill.distill.teacher import Identity, identity_of
from drivedistill.folders import write_folder
from drivedistill.models.driving_t5 import DrivingT5
from drivedistill.models.driving_t5_config import DrivingT5Config
from drivedistill.models.hf_vlm import keep_video_entry, load_processor, load_vlm, require_all_tensors
from drivedistill.models.int8 import dequantize, is_quantized
from drivedistill.models.vlm_presets import VLM_PRESETS
from drivedistill.problems import InputError, Problem, missing_file, unavailable
from drivedistill.recipe import Recipe
from drivedistill.records import validation_problems

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
            return identity_of(self.preparation.tokenizer, TEMPLATE, reading.coordinates, reading.choices)
        blank = Image.new("RGB", (reading.image_size, reading.image_size))
        settings = tile_settings(processor, reading.tiles, reading.image_size)
        ids = processor(text=[processor.image_token], images=[[blank]], return_tensors="pt", **settings).input_ids
        tokens = int((ids == processor.image_token_id).sum())
        template = str(processor.chat_template)
        identity = identity_of(self.preparation.tokenizer, template, reading.coordinates, reading.choices, tokens)
        shapes = tiling(processor) if reading.tiles == "dynamic" else {}
        return replace(identity, tiling=shapes, supervise=reading.supervise)


def load_subject(
    name: str,
    pictures: PictureCache,
    *,
    attention: str = "sdpa",
    dtype: str = "float32",
    data: cards.Data | None = None,
    own: bool = False,
    weights: bool = True,
) -> Subject:
    """A model from a run, a directory in Hugging Face layout, or a hub id.

    Args:
        name: The run, directory or hub id.
        pictures: Decoded pictures.
        attention: `sdpa` or `eager`.
        dtype: Of the weights in memory.
        data: How it is to read; without it as its own `reading.json` says.
        own: Its own `reading.json` wins over `data`, as for a teacher; the limits on lengths are those of `data`.
        weights: False leaves the model on the meta device: it has shapes and takes no memory.

    Raises:
        InputError: It cannot be loaded, was built for other pictures, another layout or without points, or has no
            input for the points that it is to be given.
    """
    refuse_missing({"": name})
    folder, kind = model_folder(name), model_kind(name)
    if kind == "driving_t5":
        model: Any = _load_driving_t5(folder, attention, dtype) if weights else _outline(folder)
        processor: Any = _image_processor(folder)
        tokenizer = load_tokenizer(folder)
        built_for = Reading(family="driving_t5", image_size=model.config.image_size, points=model.config.points)
        reading = _reading(built_for, folder, data, own=own)
        _require_built_for(reading, model, data)
    else:
        model = load_vlm(folder, attention=attention, dtype=dtype, weights=weights)
        processor = load_processor(folder)
        tokenizer = processor.tokenizer
        make_exact(tokenizer, folder)
        reading = _reading(Reading(family="hf_vlm", image_size=448), folder, data, own=own)
        refuse_points(reading, name)
        _refuse_unfit(reading, processor, name)
    return Subject(name, model, Preparation(reading, tokenizer, processor, pictures), frozenset({"*"}))


def weight_files(name: str) -> list[Path]:
    """The safetensors of a model, by name.

    Raises:
        InputError: They are not on this machine.
    """
    folder = Path(model_folder(name))
    if not folder.is_dir():  # a hub id: where its configuration was put
        folder = Path(str(cached_file(name, CONFIG_NAME))).parent
    if found := sorted(folder.glob("*.safetensors")):
        return found
    remedy = "download it with `hf download`, or give a directory that holds them"
    raise InputError(Problem(name, "", "weights in safetensors", "none on this machine", remedy))


def save_subject(subject: Subject, model: Any, folder: Path, card: str) -> None:
    """Write a model as `save_pretrained` does, with tokenizer, processor, reading and card; completely or not at all.

    LoRA is merged into the weights, and 8-bit layers become ordinary ones, so the directory needs no PEFT and loads
    anywhere.
    """
    merged = _plain(model)
    reading = subject.preparation.reading
    with write_folder(folder) as new:
        merged.save_pretrained(new)
        subject.preparation.tokenizer.save_pretrained(new)
        subject.preparation.processor.save_pretrained(new)
        if reading.family == "hf_vlm" and subject.name not in VLM_PRESETS:  # a preset comes from nowhere
            keep_video_entry(model_folder(subject.name), new)
        (new / READING).write_text(reading.model_dump_json(indent=2) + "\n", "utf-8")
        (new / "README.md").write_text(card, "utf-8")


def _plain(model: Any) -> Any:
    """The model without LoRA and 8-bit layers; a copy where there are any."""
    lora = hasattr(model, "merge_and_unload")
    if lora or is_quantized(model):
        model = copy.deepcopy(model)
        dequantize(model)
    return model.merge_and_unload() if lora else model


def refuse_missing(names: Mapping[str, str]) -> None:
    """A misspelt run is said at once; Hugging Face would look for it on the hub for half a minute.

    Args:
        names: Field of the recipe, or nothing -> a run, directory or hub id.

    Raises:
        InputError: A name can only be a local one, and there is no such file or folder; all of them are listed.
    """
    problems = []
    for field, name in names.items():
        path = Path(name)
        local = (
            name.startswith(("runs/", ".", "/"))
            or len(path.parts) > 2
            or (len(path.parts) == 2 and path.parent.is_dir())
        )
        if local and not path.exists():
            finding = missing_file(path, "a model (run, directory or hub id)", "train it first, or correct the path")
            problems.append(replace(finding, record=field))
    if problems:
        raise InputError(problems)


def model_kind(name: str) -> str:
    """The `model_type` of a model's configuration: whether there is such a model, before anything is loaded.

    Raises:
        InputError: There is no run, directory or hub id of that name, or no configuration in it.
    """
    return str(model_config(name)["model_type"])


def model_config(name: str) -> dict[str, Any]:
    """A model's configuration as it lies beside the weights.

    Raises:
        InputError: There is no run, directory or hub id of that name, or no configuration in it.
    """
    folder = model_folder(name)
    try:
        return dict(AutoConfig.from_pretrained(folder).to_dict())
    except (OSError, ValueError, KeyError) as error:
        raise InputError(unavailable(folder, "a model (run, directory or hub id)", error)) from error


def model_folder(name: str) -> str:
    """The directory of a run's model, or the name itself (a directory or hub id)."""
    inside = Path(name) / "model"
    if inside.is_dir():
        return str(inside)
    if (Path(name) / "run.json").is_file():
        remedy = "finish the run: the same command with --resume"
        raise InputError(Problem(name, "model", "a finished run", "a run without a model folder", remedy))
    return name


def reading_of(family: Family, data: cards.Data) -> Reading:
    """The way of reading that a recipe's data section describes.

    Raises:
        InputError: It asks an encoder-decoder for what only decoder-only models have.
    """
    problems = [
        Problem("recipe", f"data.{name}", f"{plain}, for a driving_t5 model", asked, f"set data.{name}={plain}")
        for name, plain, asked in (("tiles", "one", data.tiles), ("supervise", "answer", data.supervise))
        if family == "driving_t5" and asked != plain
    ]
    if problems:
        raise InputError(problems)
    shared = set(Reading.model_fields) & set(cards.Data.model_fields)
    return Reading(family=family, **{key: getattr(data, key) for key in shared})


def _reading(otherwise: Reading, folder: str, data: cards.Data | None, *, own: bool) -> Reading:
    """The recipe's way of reading, or the one saved beside the model; `otherwise` without either."""
    saved = cached_file(folder, READING, _raise_exceptions_for_missing_entries=False)
    if data is not None and not (own and saved):
        return reading_of(otherwise.family, data)
    if saved is None:
        return otherwise
    try:
        reading = Reading.model_validate_json(Path(saved).read_text("utf-8"))
    except ValidationError as error:
        raise InputError(validation_problems(error, str(saved), "")) from error
    if data is None:
        return reading
    limits = {"max_question_tokens": data.max_question_tokens, "max_answer_tokens": data.max_answer_tokens}
    return reading.model_copy(update=limits)


def _require_built_for(reading: Reading, model: DrivingT5, data: cards.Data | None) -> None:
    wanted: dict[str, tuple[Any, Any]] = {
        name: (getattr(reading, name), getattr(model.config, name)) for name in ("image_size", "points")
    }
    if data is not None:
        wanted["layout"] = (data.layout, model.config.layout)
    problems = [
        Problem(
            "recipe",
            f"data.{name}",
            f"{_written(built)}, for which the model was built",
            _written(asked),
            f"set data.{name}={_written(built)}",
        )
        for name, (asked, built) in wanted.items()
        if asked != built
    ]
    if problems:
        raise InputError(problems)


def _written(value: Any) -> str:
    """As a recipe writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def refuse_points(reading: Reading, name: str) -> None:
    """Published models have no input for points.

    Raises:
        InputError: The reading has them.
    """
    if reading.points:
        expected = "false for a Hugging Face vision-language model, which has no input for points"
        found, remedy = f"true, for {name}", "set data.points=false, or use a driving_t5 model"
        raise InputError(Problem("recipe", "data.points", expected, found, remedy))


def _refuse_unfit(reading: Reading, processor: Any, name: str) -> None:
    """Tiles and supervised tokens that a published model's processor does not know."""
    if reading.supervise == "turn":
        turn_of(processor)
    if reading.tiles == "dynamic" and not can_tile(processor):
        expected = "one, for a model that scales every picture to one size"
        raise InputError(Problem("recipe", "data.tiles", expected, f"dynamic, for {name}", "set data.tiles=one"))


def _load_driving_t5(folder: str, attention: str, dtype: str) -> DrivingT5:
    try:
        model, info = DrivingT5.from_pretrained(folder, dtype=dtype, use_safetensors=True, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(unavailable(folder, "a DrivingT5 model in safetensors", error)) from error
    require_all_tensors(folder, info)
    if attention == "eager":  # every part can; `sdpa` is the default of those that have it
        model.set_attn_implementation("eager")
    return model


def _outline(folder: str) -> DrivingT5:
    with torch.device("meta"):
        return DrivingT5(DrivingT5Config.from_pretrained(folder))


def _image_processor(folder: str) -> ViTImageProcessorPil:
    try:
        return ViTImageProcessorPil.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise InputError(unavailable(folder, "an image processor (preprocessor_config.json)", error)) from error


def model_card(recipe: Recipe, facts: dict[str, Any]) -> str:
    """The model's README: what it is, what it was trained on, with what."""
    sources = "\n".join(f"- `{s.name}` ({s.format}, {s.regime}, split by {s.split_by})" for s in recipe.data.sources)
    kind = "; ".join(method(recipe))
    return (
        f"---\nlibrary_name: drivedistill\ntags: [autonomous-driving, visual-question-answering]\n---\n\n"
        f"# {recipe.name}\n\n{recipe.about}\n\nTraining: {kind}, seed {recipe.seed}.\n\nData:\n\n{sources}\n\n"
        f"```json\n{json.dumps(facts, indent=2)}\n```\n"
    )


def method(recipe: Recipe) -> Iterator[str]:
    """How a recipe trains, in words."""
    distill, mining, model = recipe.distill, recipe.mining, recipe.model
    if recipe.train.steps == 0:
        yield "none, the model as it came"
    elif recipe.teacher is None:
        yield "supervised"
    elif distill.signal == "vision":
        yield "vision tower matched to the teacher's"
    elif distill.drivekd and not distill.weight:
        yield "supervised, beside lessons"
    else:
        end = f" falling to {distill.release.end:g}" if distill.release else ""
        yield f"distilled ({distill.loss}, T={distill.temperature:g}, weight {distill.weight:g}{end}, on {distill.on} rows)"
    if distill.drivekd:
        for name, lesson in distill.drivekd.lessons.items():
            what = "hidden states" if lesson.signal == "hidden" else f"{lesson.block} attention"
            yield f"lesson {name}: {what} of layers {lesson.layers}, {lesson.distance}, weight {lesson.weight:g}"
        if projection := distill.drivekd.projection:
            yield f"gradients projected ({projection.kind}, per {projection.per}, supervised {projection.supervised})"
    if mining:
        yield f"H2G (m={mining.samples:g} %, n={mining.tokens:g} %, pool {mining.pool}, by {mining.measure})"
    if model.shrink:
        kept = {name: value for name, value in model.shrink.model_dump().items() if value is not None}
        yield f"blocks of {model.path} kept: {kept}"
    if model.adapter_experts:
        yield f"{model.adapter_experts.experts} adapter experts ({model.adapter_experts.router})"
    if experts := model.ffn_experts:
        yield f"{experts.experts} feed-forward experts ({experts.kind}, {experts.router})"
