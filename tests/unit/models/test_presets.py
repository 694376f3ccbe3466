"""Presets: published totals, overrides, published weights, and that `tiny` learns."""

import time
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import (
    ConvNextModel,
    PreTrainedConfig,
    SwinForImageClassification,
    SwinModel,
    T5Config,
    T5ForConditionalGeneration,
    ViTForImageClassification,
    ViTModel,
)

from drivedistill import sections as cards
from drivedistill.build import _with_lora
from drivedistill.models.driving_t5 import DrivingT5
from drivedistill.models.parameters import count_parameters
from drivedistill.models.presets import (
    PRESETS,
    build_config,
    image_statistics,
    load_text_weights,
    load_vision_weights,
)
from drivedistill.models.shrink import shrink
from drivedistill.problems import InputError


def on_meta(preset: str, **options) -> DrivingT5:
    with torch.device("meta"):
        return DrivingT5(build_config(preset, **options))


# --- totals (EM-VLM4AD section 4; CLKD Table III, in units of 2^20) ---------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "total"),
    [("em_vlm4ad_base", 234_938_241), ("em_vlm4ad_base_stored", 320_763_241), ("em_vlm4ad_small", 98_823_651)],
)
def test_total_is_the_published_one(preset, total):
    assert count_parameters(on_meta(preset))["total"] == total


@pytest.mark.parametrize(
    ("preset", "parts"),
    [
        ("em_vlm4ad_base", {"language_model": 222_903_552, "vision": 2_399_232}),
        ("em_vlm4ad_base_stored", {"language_model": 222_903_552, "vision": 88_224_232}),
        ("em_vlm4ad_small", {"language_model": 60_506_624, "vision": 28_288_354, "adapter": 393_728}),
    ],
)
def test_every_part_has_its_published_size(preset, parts):
    assert parts.items() <= count_parameters(on_meta(preset))["by_part"].items()


@pytest.mark.parametrize("preset", ["em_vlm4ad_base", "em_vlm4ad_small"])
def test_gated_pooling_has_its_published_size(preset):
    assert count_parameters(on_meta(preset))["by_part"]["fusion"] == 9_633_921


def test_swin_t_without_its_head_has_its_published_size():
    model = on_meta("em_vlm4ad_small", overrides={"vision_classes": 0})
    assert count_parameters(model)["by_part"]["vision"] == 27_519_354


def test_clkd_prints_the_small_one_as_94():
    assert round(98_823_651 / 2**20, 2) == 94.25


@pytest.mark.parametrize(
    ("preset", "experts", "lora", "total"),
    [
        ("paper_a", None, False, 63_047_246),
        ("paper_a", None, True, 64_226_894),
        ("paper_a", 7, True, 66_594_645),
        ("paper_b", None, False, 61_325_110),
        ("paper_b", 4, False, 63_297_338),
    ],
)
def test_clkds_student_has_its_size_in_both_readings(preset, experts, lora, total):
    overrides = {"adapter_experts": {"experts": experts}} if experts else None
    with torch.device("meta"):
        model = DrivingT5(build_config(preset, overrides=overrides))
        model = _with_lora(model, cards.Lora()) if lora else model
    assert count_parameters(model)["total"] == total


def test_clkd_prints_its_student_as_61_3_and_63_5():
    assert (round(64_226_894 / 2**20, 2), round(66_594_645 / 2**20, 2)) == (61.25, 63.51)
    assert (round(61_325_110 / 1e6, 1), round(63_297_338 / 1e6, 1)) == (61.3, 63.3), "b falls short of 63.5"


def test_clkds_student_is_half_of_its_teacher():
    """Cutting the teacher gives reading a; its ImageNet head goes with the whole tower."""
    halves = shrink(on_meta("em_vlm4ad_small"), cards.Shrink(encoder="half", decoder="half", vision="half"))
    assert count_parameters(halves) == count_parameters(on_meta("paper_a"))


@pytest.mark.parametrize("preset", PRESETS)
def test_parts_sum_to_the_total_and_only_stored_parts_are_frozen(preset):
    model = on_meta(preset)
    count = count_parameters(model)
    assert sum(count["by_part"].values()) == count["total"]
    never_run = 320_763_241 - 234_938_241
    idle = {"em_vlm4ad_base_stored": never_run, "em_vlm4ad_qlarge": never_run, "em_vlm4ad_small": 769_000}
    assert count["total"] - count["trainable"] == idle.get(preset, 0)


def test_counting_sees_through_lora():
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    plain = DrivingT5(build_config("tiny"))
    before = count_parameters(plain)
    adapted = get_peft_model(plain, LoraConfig(r=2, target_modules=r".*\.(q|v)"))
    after = count_parameters(adapted)
    assert set(after["by_part"]) == set(before["by_part"])
    assert after["trainable"] == after["total"] - before["total"] == 2 * 2 * (128 + 128) * 12


# --- configurations ---------------------------------------------------------------------------------------------------


def test_tiny_student_has_half_of_the_blocks_and_is_else_its_teacher():
    teacher, student = build_config("tiny").to_dict(), build_config("tiny_student").to_dict()
    assert (teacher["text"].pop("num_layers"), student["text"].pop("num_layers")) == (4, 2)
    assert (teacher["text"].pop("num_decoder_layers"), student["text"].pop("num_decoder_layers")) == (4, 2)
    assert teacher == student


def test_overrides_are_merged_into_the_preset():
    overrides = {"text": {"num_layers": 3}, "fusion": "concatenation", "tokens_per_view": 4}
    config = build_config("tiny", vocab_size=777, image_size=96, overrides=overrides)
    assert (config.text.num_layers, config.text.num_decoder_layers, config.text.d_model) == (3, 3, 128)
    assert (config.vocab_size, config.image_size, config.vision.image_size) == (777, 96, 96)
    assert (config.image_tokens, config.camera_embeddings, PRESETS["tiny"]["text"]["num_layers"]) == (4, True, 4)


def test_another_vision_network_replaces_the_whole_vision_part():
    config = build_config("tiny", overrides={"vision": {"model_type": "vit", "hidden_size": 32, "patch_size": 16}})
    assert (config.vision.model_type, config.vision.hidden_size, config.image_tokens) == ("vit", 32, 196)


def test_every_unknown_field_is_named_at_once():
    overrides = {"fusoin": "concatenation", "text": {"num_layer": 3}, "vision": {"depth": [1]}}
    with pytest.raises(InputError) as error:
        build_config("tiny", overrides=overrides)
    found = {problem.record: problem.remedy for problem in error.value.problems}
    assert set(found) == {f"model.overrides.{key}" for key in ("fusoin", "text.num_layer", "vision.depth")}
    assert "fusion" in found["model.overrides.fusoin"] and "num_layers" in found["model.overrides.text.num_layer"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"fusion": "attention"}, "fusion"),
        ({"text": {"num_layers": "many"}}, "num_layers"),
        ({"text": 3}, "a mapping"),
        ({"vision": {"model_type": "resnet"}}, "convnext"),
        ({"vision": 3}, "a mapping"),
        ({"adapter": "none", "text": {"d_model": 64}}, "equal widths"),
        ({"adapter": "none", "adapter_experts": {}}, "need an adapter"),
        ({"adapter_experts": {"experts": 2, "k": 3, "router": "top_k"}}, "3 of 2 experts"),
        ({"adapter": "mlp", "adapter_hidden": 0}, "adapter_hidden"),
        ({"fusion": "concatenation", "tokens_per_view": 25}, "tokens_per_view"),
        ({"vision_blocks": False}, "vision_blocks"),
        ({"image_size": 96}, "data.image_size"),
        ({"vision": {"image_size": 96}}, "data.image_size"),
    ],
)
def test_values_that_cannot_be_are_input_errors(overrides, message):
    with pytest.raises(InputError, match=message):
        build_config("tiny", image_size=64, overrides=overrides)


def test_unknown_presets_are_answered_with_the_known_ones():
    with pytest.raises(InputError, match="tiny_student"):
        build_config("huge")


def test_pictures_are_normalised_as_the_vision_network_expects():
    assert image_statistics(build_config("em_vlm4ad_base")) == ([0.5] * 3, [0.5] * 3)
    mean, std = image_statistics(build_config("em_vlm4ad_small"))
    assert (mean, std) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


# --- weights ----------------------------------------------------------------------------------------------------------

VIT = {
    "model_type": "vit",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "patch_size": 16,
}
SWIN = {"model_type": "swin", "embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "window_size": 4}
CONVNEXT = {"model_type": "convnext", "num_stages": 2, "depths": [1, 1], "hidden_sizes": [8, 16]}
BASE = {"vit": ViTModel, "swin": SwinModel, "convnext": ConvNextModel}
CLASSIFIER = {"vit": ViTForImageClassification, "swin": SwinForImageClassification}


def build(vision: dict, **overrides) -> DrivingT5:
    torch.manual_seed(0)
    return DrivingT5(build_config("tiny", image_size=64, overrides={"vision": vision, **overrides}))


def published(kind, config: PreTrainedConfig, folder: Path, **options):
    """A checkpoint as somebody else would publish it."""
    torch.manual_seed(1)
    source = kind(config, **options).eval()
    for parameter in source.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    source.save_pretrained(folder)
    return source


@pytest.mark.parametrize("vision", [VIT, SWIN, CONVNEXT])
def test_published_vision_weights_are_loaded_exactly(vision, tmp_path: Path):
    model = build(vision).eval()
    source = published(BASE[vision["model_type"]], model.config.vision, tmp_path)
    load_vision_weights(model, str(tmp_path))
    pictures = torch.randn(2, 3, 64, 64)
    ours, theirs = model.vision.model(pictures), source(pictures)
    assert torch.equal(ours.last_hidden_state, theirs.last_hidden_state)


@pytest.mark.parametrize("vision", [VIT, SWIN])
def test_a_stored_head_is_loaded_from_a_classifier(vision, tmp_path: Path):
    model = build(vision, vision_classes=5)
    config = type(model.config.vision)(**{**model.config.vision.to_dict(), "num_labels": 5})
    source = published(CLASSIFIER[vision["model_type"]], config, tmp_path)
    load_vision_weights(model, str(tmp_path))
    assert torch.equal(model.vision.head.weight, source.classifier.weight)
    assert not model.vision.head.weight.requires_grad
    pictures = torch.randn(1, 3, 64, 64)
    expected = source.base_model(pictures).last_hidden_state
    assert torch.equal(model.vision.model.eval()(pictures).last_hidden_state, expected)


def test_a_classifier_fills_a_model_without_head(tmp_path: Path):
    model = build(SWIN)
    source = published(SwinForImageClassification, model.config.vision, tmp_path)
    load_vision_weights(model, str(tmp_path))
    for name, ours in model.vision.model.state_dict().items():
        assert torch.equal(ours, source.swin.state_dict()[name]), name


@pytest.mark.parametrize("classifier", [True, False])
def test_patch_embeddings_are_loaded_from_a_whole_vit(classifier, tmp_path: Path):
    model = build(VIT, vision_blocks=False)
    whole = model.config.vision
    source = published(ViTForImageClassification if classifier else ViTModel, whole, tmp_path).base_model
    load_vision_weights(model, str(tmp_path))
    expected = source.embeddings(torch.ones(1, 3, 64, 64))[:, 1:]
    assert torch.equal(model.vision(torch.ones(1, 1, 3, 64, 64))[0], expected)


def test_published_text_weights_are_loaded_exactly_and_stay_tied(tmp_path: Path):
    model = build(CONVNEXT).eval()
    source = published(T5ForConditionalGeneration, model.config.text, tmp_path)
    load_text_weights(model, str(tmp_path))
    ids = torch.tensor([[5, 6, 1]])
    ours = model.language_model(input_ids=ids, decoder_input_ids=ids).logits
    assert torch.equal(ours, source(input_ids=ids, decoder_input_ids=ids).logits)
    assert model.language_model.lm_head.weight is model.language_model.shared.weight


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({"num_layers": 5}, "block.4"),
        ({"num_layers": 3}, "block.3"),
        ({"vocab_size": 999}, r"shape \(999, 128\)"),
        ({"feed_forward_proj": "gelu"}, "feed_forward_proj"),
        ({"relative_attention_max_distance": 64}, "relative_attention_max_distance"),
        ({"num_heads": 2, "d_kv": 64}, "num_heads"),
    ],
)
def test_another_t5_is_refused_with_its_differences(change, finding, tmp_path: Path):
    model = build(CONVNEXT)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    published(T5ForConditionalGeneration, T5Config(**{**model.config.text.to_dict(), **change}), tmp_path)
    with pytest.raises(InputError, match=finding):
        load_text_weights(model, str(tmp_path))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("vision", "change", "finding"),
    [
        (VIT, {"image_size": 96}, "position_embeddings"),
        (VIT, {"num_hidden_layers": 3}, r"layers\.2"),
        (VIT, {"num_attention_heads": 4}, "num_attention_heads"),
        (SWIN, {"depths": [1, 1]}, "blocks.1"),
        (SWIN, {"hidden_act": "relu"}, "hidden_act"),
    ],
)
def test_another_vision_network_is_refused_with_its_differences(vision, change, finding, tmp_path: Path):
    model = build(vision)
    config = type(model.config.vision)(**{**model.config.vision.to_dict(), **change})
    published(BASE[vision["model_type"]], config, tmp_path)
    with pytest.raises(InputError, match=finding):
        load_vision_weights(model, str(tmp_path))


def test_a_head_that_the_checkpoint_lacks_is_named(tmp_path: Path):
    model = build(SWIN, vision_classes=5)
    published(SwinModel, model.config.vision, tmp_path)
    with pytest.raises(InputError, match=r"classifier\.weight"):
        load_vision_weights(model, str(tmp_path))


@pytest.mark.parametrize("load", [load_text_weights, load_vision_weights])
def test_weights_that_are_not_there_or_of_another_family_are_input_errors(load, tmp_path: Path):
    model = build(VIT)
    with pytest.raises(InputError, match="hf download"):
        load(model, "nobody/nothing")
    with pytest.raises(InputError):
        load(model, str(tmp_path))
    published(ConvNextModel, build(CONVNEXT).config.vision, tmp_path)
    with pytest.raises(InputError, match="model_type"):
        load(model, str(tmp_path))


def test_pickled_weights_are_refused(tmp_path: Path):
    model = build(CONVNEXT)
    published(T5ForConditionalGeneration, model.config.text, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.language_model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="safetensors"):
        load_text_weights(model, str(tmp_path))


# --- learning ---------------------------------------------------------------------------------------------------------


def test_tiny_learns_from_pictures_what_no_text_says():
    """The question is the same for all; the answer is the colour of the picture. 5 s."""
    torch.manual_seed(0)
    model = DrivingT5(build_config("tiny", vocab_size=32, image_size=64)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    began = time.monotonic()
    for _ in range(60):
        colour = torch.randint(0, 3, (8,))
        pictures = 0.3 * torch.randn(8, 1, 3, 64, 64)
        pictures[torch.arange(8), 0, colour] += 1
        ids, masks = torch.full((8, 3), 7), torch.ones(8, 3).long()
        inputs = {"input_ids": ids, "attention_mask": masks, "pixel_values": pictures, "view_mask": masks[:, :1] > 0}
        logits = model(**inputs, decoder_input_ids=torch.zeros(8, 1).long()).logits[:, 0]
        loss = cross_entropy(logits, 10 + colour)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    answers = model.eval().generate(**inputs, max_new_tokens=1)[:, 1]
    assert loss < 0.1 and torch.equal(answers, 10 + colour)
    assert time.monotonic() - began < 60
