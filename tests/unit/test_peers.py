"""The recipes of CLKD's other subjects do what they say: every one runs here, with its sizes overridden and nothing else."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import T5ForConditionalGeneration, ViTModel

import tiny
from drivedistill.data.images import PictureCache
from drivedistill.data.prompt import train_tokenizer
from drivedistill.models.driving_t5 import DrivingT5
from drivedistill.models.int8 import is_quantized
from drivedistill.models.large_kernel import LargeKernelModel
from drivedistill.models.presets import build_config
from drivedistill.problems import InputError
from drivedistill.recipe import load_recipe
from drivedistill.runs import assemble, run
from drivedistill.subject import load_subject
from loops import logged
from make_driving_data import make

RECIPES = Path(__file__).parents[2] / "recipes"
TEXT = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4, "dropout_rate": 0.0, "vocab_size": 400}
VIT = {"num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 32, "patch_size": 16}
SIZES = {
    "em_vlm4ad_base": {"text": TEXT, "vision": {**VIT, "hidden_size": 32}, "fusion_hidden": 8},
    "em_vlm4ad_qlarge": {
        "text": TEXT,
        "vision": {**VIT, "hidden_size": 16},
        "fusion_hidden": 8,
        "vision_stored": "used",
    },
    "minidrive224": {
        "text": TEXT,
        "vision": {"depths": [1, 1, 1], "hidden_sizes": [8, 16, 16], "large_every": [0, 1, 1]},
        "fusion_hidden": 8,
    },
}
"""What is overridden of every preset."""
QUICK = [
    "data.workers=0",
    "data.max_question_tokens=1024",
    "train.steps=2",
    "train.batch_size=4",
    "train.validate_limit=4",
    "train.log_every=1",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> list[str]:
    """Both data sets, drawn; overrides that point a recipe to them."""
    folder = tmp_path_factory.mktemp("data")
    make(folder, scenes=3, frames=1, corner=4, size=(96, 64), seed=0)
    regular = f"data.sources.0.root={folder / 'regular'}"
    # Of three scenes two train; the embedded CODA-LM has no Mini.
    return [regular, "data.sources.0.fractions={train: 0.7, val: 0.3}", f"data.sources.1.root={folder / 'corner'}",
            "data.sources.1.files={train: Train, val: Val}"]  # fmt: skip


def tiny_parts(name: str, folder: Path) -> list[str]:
    """Pre-trained parts as a hub would hold them, at the overridden size; overrides that name them."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(tiny.TEXTS, 300)
    card = load_recipe(RECIPES / f"{name}.yaml")
    config = build_config(card.model.preset, image_size=64, overrides=SIZES[name])
    config.text.pad_token_id = config.text.decoder_start_token_id = tokenizer.pad_token_id
    config.text.eos_token_id = tokenizer.eos_token_id
    tower = LargeKernelModel if name == "minidrive224" else ViTModel
    tower(config.vision).save_pretrained(folder / "vision")
    T5ForConditionalGeneration(config.text).save_pretrained(folder / "text")
    tokenizer.save_pretrained(folder / "text")
    return [
        f"model.vision_weights={folder / 'vision'}",
        f"model.text_weights={folder / 'text'}",
        f"model.overrides={SIZES[name]}",
        "data.image_size=64",
    ]


@pytest.mark.parametrize("name", SIZES)
def test_recipe_trains_at_tiny_size_and_leaves_a_model_that_answers(name, data, tmp_path):
    small = [*tiny_parts(name, tmp_path), *data, *QUICK]
    if name == "em_vlm4ad_qlarge":
        small.append("model.lora.r=4")
    recipe = load_recipe(RECIPES / f"{name}.yaml", small)
    run(recipe, tmp_path / "run")
    losses = [record["loss"] for record in logged(tmp_path / "run") if "loss" in record]
    assert len(losses) == 2 and all(map(math.isfinite, losses))
    model = load_subject(str(tmp_path / "run"), PictureCache(1)).model
    assert isinstance(model, DrivingT5) and model.config.image_size == 64
    pictures = torch.zeros(1, 6, 3, 64, 64)
    assert model.generate(torch.ones(1, 3, dtype=torch.long), pixel_values=pictures, max_new_tokens=2).shape[0] == 1


def test_qlarge_learns_in_its_adapters_over_an_8_bit_base(data, tmp_path):
    small = [*tiny_parts("em_vlm4ad_qlarge", tmp_path), *data, *QUICK, "model.lora.r=4"]
    model = assemble(load_recipe(RECIPES / "em_vlm4ad_qlarge.yaml", small)).student.model
    learns = {name.split(".")[2] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learns == {"language_model", "fusion", "adapter", "modal_embedding"}
    assert is_quantized(model)
    inside = [name for name, p in model.named_parameters() if p.requires_grad and "language_model" in name]
    assert inside and all("lora_" in name for name in inside)


def test_minidrive_learns_everything_but_its_vision_tower(data, tmp_path):
    small = [*tiny_parts("minidrive224", tmp_path), *data, *QUICK]
    model = assemble(load_recipe(RECIPES / "minidrive224.yaml", small)).student.model
    parts = {name.partition(".")[0] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert parts == {"fusion", "adapter", "interaction", "language_model"}


def test_drivelm_agent_runs_with_a_tiny_llava(data, tmp_path):
    path = tiny.save_vlm("llava", tmp_path / "llava")
    small = [
        f"model.path={path}",
        "data.image_size=28",
        data[0],
        data[1],
        *QUICK,
        "train.batch_size=2",
        "train.accumulate=1",
    ]
    recipe = load_recipe(RECIPES / "drivelm_agent.yaml", small)
    assert {source.format for source in recipe.data.sources} == {"drivelm"}
    run(recipe, tmp_path / "run")
    trained = load_subject(str(tmp_path / "run"), PictureCache(1)).model
    untouched = load_subject(str(path), PictureCache(1)).model
    changed = {
        name
        for (name, ours), theirs in zip(trained.named_parameters(), untouched.parameters(), strict=True)
        if not torch.equal(ours.float(), theirs.float())
    }
    layers = {name.split(".")[-2] for name in changed if "language_model" in name}
    assert {"q_proj", "v_proj"} <= layers


def test_tiny_minidrive_learns(data, tmp_path):
    small = [
        *data,
        *QUICK,
        "train.steps=12",
        "train.batch_size=4",
        "train.learning_rate=3e-3",
        "data.sources.0.limit=8",
        "data.sources.1.limit=4",
        "data.image_size=32",
        "model.overrides={text: {d_model: 64, num_layers: 1}}",
        "train.warmup_steps=2",
        "model.tokenizer_size=300",
    ]
    run(load_recipe(RECIPES / "tiny_minidrive.yaml", small), tmp_path / "run")
    losses = [record["loss"] for record in logged(tmp_path / "run") if "loss" in record]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])


@pytest.mark.parametrize("name", [*SIZES, "drivelm_agent"])
def test_recipes_that_were_not_run_say_so(name):
    text = (RECIPES / f"{name}.yaml").read_text("utf-8")
    assert "# Run: no, " in text and "Not run at full size" in load_recipe(RECIPES / f"{name}.yaml").about
    assert ("re-implement" in text) == (name == "minidrive224")


def test_eight_bits_without_anything_frozen_are_refused(tmp_path):
    with pytest.raises(InputError, match="frozen linear layers"):
        assemble(tiny.recipe(tmp_path, model__quantize="int8"))
    with pytest.raises(ValueError, match="loftq"):
        tiny.recipe(tmp_path, model__lora={"r": 2, "init": "loftq"})
    with pytest.raises(ValueError, match="fsdp2"):
        tiny.recipe(tmp_path, model__quantize="int8", train__sharding="fsdp2")
