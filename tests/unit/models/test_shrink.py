"""Cutting blocks out of a model: which stay, that nothing else changes, and what is refused."""

from __future__ import annotations

import copy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import SwinConfig, SwinModel, T5Config

import tiny
from drivedistill import sections as cards
from drivedistill.build import build_student
from drivedistill.data.collate import collate
from drivedistill.data.images import PictureCache
from drivedistill.models.adapter import convert_adapter
from drivedistill.models.driving_t5 import DrivingT5
from drivedistill.models.parameters import count_parameters
from drivedistill.models.presets import build_config
from drivedistill.models.shrink import evenly_alternating, evenly_spaced, kept_blocks, shrink
from drivedistill.problems import InputError
from drivedistill.subject import load_subject, save_subject

TOWERS: dict[str, dict[str, Any]] = {
    "swin": {"model_type": "swin", "embed_dim": 8, "depths": [2, 2, 6, 2], "num_heads": [1, 1, 2, 2], "window_size": 2},
    "convnext": {"model_type": "convnext", "num_stages": 2, "depths": [3, 2], "hidden_sizes": [8, 16]},
    "vit": {
        "model_type": "vit",
        "hidden_size": 16,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "patch_size": 16,
    },
}


def driving_t5(tower: str = "convnext", layers: int = 6) -> DrivingT5:
    torch.manual_seed(0)
    text = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": layers, "dropout_rate": 0.1}
    overrides = {"text": text, "vision": TOWERS[tower], "fusion_hidden": 8}
    return DrivingT5(build_config("tiny", image_size=64, overrides=overrides)).eval()


def asked(model: DrivingT5) -> Tensor:
    """Logits for one sample of two views."""
    generator = torch.Generator().manual_seed(0)
    return model(
        input_ids=torch.randint(2, 99, (1, 5), generator=generator),
        pixel_values=torch.randn(1, 2, 3, 64, 64, generator=generator),
        decoder_input_ids=torch.randint(2, 99, (1, 4), generator=generator),
    ).logits


# --- which blocks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("blocks", "total", "kept"),
    [
        ("half", 6, [0, 2, 5]),
        ("half", 4, [0, 3]),
        ("half", 5, [0, 2, 4]),
        ("half", 2, [0]),
        ("half", 1, [0]),
        ("first_half", 6, [0, 1, 2]),
        ("first_half", 5, [0, 1, 2]),
        ("alternate", 6, [0, 2, 4]),
        ([0, 4], 6, [0, 4]),
    ],
)
def test_blocks_that_stay(blocks: cards.Blocks, total: int, kept: list[int]) -> None:
    assert kept_blocks(blocks, total) == kept


def test_half_of_vicuna_keeps_both_ends() -> None:
    kept = kept_blocks("half", 32)
    assert (len(kept), kept[0], kept[-1]) == (16, 0, 31)
    assert {after - before for before, after in pairwise(kept)} == {2, 3}


def test_evenly_means_in_order_each_once_with_both_ends() -> None:
    for total in range(1, 40):
        for count in range(1, total + 1):
            kept = evenly_spaced(total, count)
            assert kept == sorted(set(kept)) and len(kept) == count and kept[0] == 0
            assert count == 1 or kept[-1] == total - 1


def test_windowed_blocks_keep_their_kind() -> None:
    """A block at an even place was at an even place: plain windows; at an odd one: shifted windows."""
    for total in range(1, 24):
        for count in range(1, total + 1):
            kept = evenly_alternating(total, count)
            assert kept == sorted(set(kept)) and len(kept) == count and kept[-1] < total
            assert [index % 2 for index in kept] == [place % 2 for place in range(count)]
        assert evenly_alternating(total, total) == list(range(total))


# --- every family -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_keeping_all_blocks_changes_nothing_and_half_of_them_comes_back_from_disk(family: str, tmp_path: Path) -> None:
    subject = tiny.subject(family, tmp_path)
    model = subject.model.eval()
    batch = collate(tiny.samples(tiny.pictures(tmp_path))[:3], {"student": subject.preparation})
    inputs = batch.inputs["student"].model
    encoder: Any = [0, 1] if family == "driving_t5" else None
    with torch.no_grad():
        whole = model(**inputs).logits
        same = shrink(model, cards.Shrink(encoder=encoder, decoder=[0, 1]))
        assert torch.equal(same(**inputs).logits, whole)
        half = shrink(model, cards.Shrink(encoder=encoder and "half", decoder="half"))
        assert half.generate(**questions(inputs), max_new_tokens=3, do_sample=False).shape[0] == 3
        logits = half(**inputs).logits
        assert (logits - whole).abs().max() > 1e-3 and torch.equal(model(**inputs).logits, whole)
        save_subject(subject, half, tmp_path / "half", "card")
        again = load_subject(str(tmp_path / "half"), subject.preparation.pictures).model.eval()
        assert torch.equal(again(**inputs).logits, logits)
    frozen = [{n for n, p in m.named_parameters() if not p.requires_grad} for m in (half, again)]
    assert frozen[0] == frozen[1], "what never runs stays without gradient"


def questions(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in inputs.items() if not name.startswith("decoder")}


@pytest.mark.parametrize("family", [*tiny.VLMS])
def test_a_language_models_kept_layers_are_the_teachers(family: str) -> None:
    model, _ = tiny.VLMS[family]()
    half = shrink(model, cards.Shrink(decoder=[1]))
    (layer,) = half.model.language_model.layers
    for name, tensor in model.model.language_model.layers[1].state_dict().items():
        assert torch.equal(layer.state_dict()[name], tensor)
    assert layer.self_attn.layer_idx == 0, "its slot in the cache"


def test_kinds_of_layers_stay_with_their_layers() -> None:
    model, _ = tiny.internvl()
    model.config.text_config.layer_types = ["full_attention", "sliding_attention"]
    model.config.text_config.sliding_window = 8
    half = shrink(model, cards.Shrink(decoder=[1]))
    assert half.config.text_config.layer_types == ["sliding_attention"]
    assert half.config.text_config.num_hidden_layers == 1


def test_experts_of_the_adapter_are_kept(tmp_path: Path) -> None:
    for family in ("driving_t5", "llava"):
        model = tiny.subject(family, tmp_path).model
        convert_adapter(model, cards.AdapterExperts(experts=2))
        half = shrink(model, cards.Shrink(decoder="half"))
        name = next(name for name in model.state_dict() if name.endswith("expert_up"))
        assert torch.equal(half.state_dict()[name], model.state_dict()[name])


def test_type_mode_attention_and_ways_of_generation_are_kept() -> None:
    model = tiny.llava()[0].bfloat16().train()
    model.set_attn_implementation("eager")
    model.generation_config.max_new_tokens = 77
    half = shrink(model, cards.Shrink(decoder="half"))
    assert half.training and {p.dtype for p in half.parameters()} == {torch.bfloat16}
    assert half.config.text_config._attn_implementation == "eager"
    assert half.generation_config.max_new_tokens == 77


# --- T5 ---------------------------------------------------------------------------------------------------------------


def test_t5_small_cut_in_half_has_its_size() -> None:
    with torch.device("meta"):
        teacher = DrivingT5(build_config("em_vlm4ad_small"))
    student = shrink(teacher, cards.Shrink(encoder="half", decoder="half"))
    assert count_parameters(student)["by_part"]["language_model"] == 38_478_848
    assert teacher.config.text.num_layers == 6 and student.config.vision_state == "whole"


def test_t5s_kept_blocks_are_the_teachers_and_own_the_relative_bias() -> None:
    teacher = driving_t5()
    student = shrink(teacher, cards.Shrink(encoder="half", decoder=[0, 1, 4]))
    for stack, kept in (("encoder", [0, 2, 5]), ("decoder", [0, 1, 4])):
        ours, theirs = getattr(student.language_model, stack).block, getattr(teacher.language_model, stack).block
        assert len(ours) == 3
        for place, index in enumerate(kept):
            for name, tensor in ours[place].state_dict().items():
                assert torch.equal(tensor, theirs[index].state_dict()[name]), f"{stack} {index} {name}"
            assert ours[place].layer[0].SelfAttention.layer_idx == place
        assert ours[0].layer[0].SelfAttention.relative_attention_bias.weight.shape == (32, 4)
    assert student.language_model.lm_head.weight is student.language_model.shared.weight
    assert asked(student).shape == asked(teacher).shape
    assert not torch.equal(asked(student), asked(teacher))


def test_a_cut_model_shares_nothing_with_the_whole_one() -> None:
    teacher = driving_t5(layers=2)
    before = asked(teacher)
    student = shrink(teacher, cards.Shrink(encoder="half"))
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.zero_()
    assert torch.equal(asked(teacher), before)


def test_a_cut_t5_is_configured_as_one_with_fewer_layers() -> None:
    student = shrink(driving_t5(), cards.Shrink(encoder="half", decoder="first_half"))
    expected = T5Config(**{**driving_t5().config.text.to_dict(), "num_layers": 3, "num_decoder_layers": 3})
    ours = student.config.text.to_dict()
    assert {k: v for k, v in ours.items() if k != "dtype"} == {
        k: v for k, v in expected.to_dict().items() if k != "dtype"
    }


# --- vision towers ----------------------------------------------------------------------------------------------------


def test_half_a_swin_equals_one_built_by_hand() -> None:
    """[2, 2, 6, 2] -> [1, 1, 3, 1]: blocks 0; 0; 0, 3, 4; 0, with the position tables and shifts that they had."""
    model = driving_t5("swin")
    student = shrink(model, cards.Shrink(vision="half"))
    whole = model.vision.model
    by_hand = SwinModel(
        SwinConfig(**{**whole.config.to_dict(), "depths": [1, 1, 3, 1]}), add_pooling_layer=False
    ).eval()
    by_hand.embeddings, by_hand.layernorm = whole.embeddings, whole.layernorm
    for stage, kept in enumerate([[0], [0], [0, 3, 4], [0]]):
        by_hand.encoder.layers[stage].downsample = whole.encoder.layers[stage].downsample
        by_hand.encoder.layers[stage].blocks = torch.nn.ModuleList(whole.encoder.layers[stage].blocks[i] for i in kept)
    pictures = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(student.vision.model(pictures).last_hidden_state, by_hand(pictures).last_hidden_state)
    assert (student.config.vision.depths, student.config.vision_state) == ([1, 1, 3, 1], "cut")


@pytest.mark.parametrize(("blocks", "kept"), [("half", [0, 3, 4]), ([2, 2, 4, 2], [0, 1, 4, 5])])
def test_windows_of_a_cut_swin_alternate(blocks: Any, kept: list[int]) -> None:
    model = driving_t5("swin")
    # The position tables of a fresh model are all zero, so that none could be told from another.
    for module in model.modules():
        if hasattr(module, "relative_position_bias_table"):
            torch.nn.init.normal_(module.relative_position_bias_table)
    student = shrink(model, cards.Shrink(vision=blocks))
    stages = [shrunk.vision.model.encoder.layers[2].blocks for shrunk in (student, model)]
    assert [block.shift_size for block in stages[0]] == [0, 1, 0, 1][: len(kept)]
    for place, index in enumerate(kept):
        tables = [
            blocks[i].attention.relative_position_bias.relative_position_bias_table
            for blocks, i in zip(stages, (place, index), strict=True)
        ]
        assert torch.equal(*tables), f"block {index}"


@pytest.mark.parametrize(
    ("tower", "spec", "kept"),
    [("convnext", "half", [[0, 2], [0]]), ("convnext", [1, 2], [[0], [0, 1]]), ("vit", [3], [[0, 2, 3]])],
)
def test_other_towers_keep_evenly_spaced_blocks(tower: str, spec: Any, kept: list[list[int]], tmp_path: Path) -> None:
    model = driving_t5(tower)
    student = shrink(model, cards.Shrink(vision=spec))

    def stages(model: DrivingT5) -> list[Any]:
        network = model.vision.model
        return [network.layers] if tower == "vit" else [stage.layers for stage in network.encoder.stages]

    for ours, theirs, indices in zip(stages(student), stages(model), kept, strict=True):
        assert len(ours) == len(indices)
        for block, index in zip(ours, indices, strict=True):
            assert all(torch.equal(part, theirs[index].state_dict()[name]) for name, part in block.state_dict().items())
    student.save_pretrained(tmp_path)
    again = DrivingT5.from_pretrained(tmp_path)
    assert again.config.vision_state == "cut" and torch.equal(asked(again), asked(student))


@pytest.mark.parametrize("tower", TOWERS)
def test_a_tower_that_keeps_all_its_blocks_is_whole(tower: str) -> None:
    model = driving_t5(tower, layers=2)
    vision = TOWERS[tower].get("depths", [4])
    student = shrink(model, cards.Shrink(vision=vision))
    assert student.config.vision_state == "whole" and torch.equal(asked(student), asked(model))


def test_towers_of_published_models_are_cut_where_that_is_safe() -> None:
    internvl, _ = tiny.internvl()
    cut = shrink(internvl, cards.Shrink(vision="half"))
    assert (len(cut.model.vision_tower.encoder.layer), cut.config.vision_state) == (1, "cut")
    qwen, _ = tiny.qwen2_5_vl()
    qwen.config.vision_config.fullatt_block_indexes = [0]
    assert shrink(qwen, cards.Shrink(vision=[1])).model.visual.fullatt_block_indexes == [0]


def test_full_attention_stays_with_its_block() -> None:
    qwen, _ = tiny.qwen2_5_vl()
    config = copy.deepcopy(qwen.config)
    config.vision_config.depth, config.vision_config.fullatt_block_indexes = 5, [2, 4]
    deeper = type(qwen)(config)
    cut = shrink(deeper, cards.Shrink(vision="half"))
    assert cut.config.vision_config.fullatt_block_indexes == [1, 2], "of the blocks 0, 2, 4"


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tower", "spec", "message"),
    [
        ("convnext", {"encoder": [1, 2]}, "relative-position bias"),
        ("convnext", {"decoder": [0, 6]}, "indices from 0 to 5"),
        ("convnext", {"vision": [1]}, "one number per stage"),
        ("convnext", {"vision": [4, 2]}, "one number per stage"),
        ("vit", {"vision": [5]}, "one number per stage"),
    ],
)
def test_blocks_that_cannot_go_are_refused(tower: str, spec: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        shrink(driving_t5(tower), cards.Shrink(**spec))


def test_every_finding_is_named_at_once() -> None:
    with pytest.raises(InputError) as error:
        shrink(driving_t5(), cards.Shrink(encoder=[1], decoder=[0, 9], vision=[9, 9]))
    fields = [problem.record for problem in error.value.problems]
    assert fields == [f"model.shrink.{part}" for part in ("encoder", "decoder", "vision")]
    with pytest.raises(InputError) as error:
        shrink(driving_t5(), cards.Shrink(decoder=[3, 7]))
    assert len(error.value.problems) == 1, "that block 0 is missing follows"


def test_a_tower_without_blocks_to_spare_is_refused() -> None:
    with torch.device("meta"):
        tiny_one = DrivingT5(build_config("tiny"))
        patches = DrivingT5(build_config("em_vlm4ad_base"))
    with pytest.raises(InputError, match="blocks to spare"):
        shrink(tiny_one, cards.Shrink(vision="half"))
    with pytest.raises(InputError, match="vision_blocks: false"):
        shrink(patches, cards.Shrink(vision="half"))


def test_a_model_with_experts_is_cut_too_late() -> None:
    model = driving_t5(layers=2)
    model.config.ffn_experts = {"experts": 4}
    with pytest.raises(InputError, match="name the dense model"):
        shrink(model, cards.Shrink(encoder="half"))


@pytest.mark.parametrize(
    ("family", "spec", "message"),
    [
        ("internvl", {"encoder": "half"}, "a decoder alone"),
        ("llava", {"vision": "half"}, "reads layer -2"),
        ("qwen2_5_vl", {"vision": [1]}, "full attention"),
        ("internvl", {"decoder": [2]}, "indices from 0 to 1"),
    ],
)
def test_what_published_models_cannot_spare_is_refused(family: str, spec: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        shrink(tiny.VLMS[family]()[0], cards.Shrink(**spec))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"encoder": [0, 2, 1]}, "ascending"),
        ({"encoder": [0, 0]}, "each once"),
        ({"decoder": []}, "at least 1"),
        ({"decoder": [-1]}, "greater than or equal to 0"),
        ({"vision": [0, 1]}, "greater than or equal to 1"),
        ({}, "expected what is cut"),
    ],
)
def test_lists_that_mean_nothing_are_refused_by_the_recipe(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cards.Shrink(**spec)


@pytest.mark.parametrize(
    ("family", "frozen"),
    [("driving_t5", r"^vision\."), ("internvl", r"vision_tower"), ("qwen2_5_vl", r"visual\.blocks")],
)
def test_a_cut_tower_may_not_be_frozen(family: str, frozen: str, tmp_path: Path) -> None:
    if family == "driving_t5":
        subject = tiny.subject(family, tmp_path)
        subject.model = driving_t5(layers=2)
        save_subject(subject, subject.model, tmp_path / "model", "card")
    else:
        model, processor = tiny.VLMS[family]()
        if family == "qwen2_5_vl":
            model.config.vision_config.fullatt_block_indexes = [0]
        model.save_pretrained(tmp_path / "model")
        processor.save_pretrained(tmp_path / "model")
    data = cards.Data(
        sources=[cards.Source(name="drawn", format="jsonl", root=tmp_path, regime="regular")],
        image_size=64 if family == "driving_t5" else 28,
    )
    options: dict[str, Any] = {"path": str(tmp_path / "model"), "shrink": cards.Shrink(vision="half")}
    build_student(cards.Model(**options), data, PictureCache(1), [])
    with pytest.raises(InputError, match="a vision tower that was trained"):
        build_student(cards.Model(**options, frozen=[frozen]), data, PictureCache(1), [])
