"""Converted students, written in published layouts and read back by the published classes, say the same."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, MixtralForCausalLM, Qwen2MoeForCausalLM

import tiny
from drivedistill.data.collate import questions
from drivedistill.data.images import PictureCache
from drivedistill.models.adapter import convert_adapter
from drivedistill.models.hf_vlm import load_vlm
from drivedistill.models.published_moe import published, published_text
from drivedistill.models.upcycle import convert_ffn
from drivedistill.problems import InputError
from drivedistill.sections import AdapterExperts, FfnExperts
from drivedistill.subject import load_subject

CLASSES = {"llava": MixtralForCausalLM, "internvl": Qwen2MoeForCausalLM}


def converted(family: str, **changes):
    """A model whose experts differ: routing decides what it says."""
    model = tiny.VLMS[family]()[0]
    spec = {"layers": "all", "router_bias": False, "init_noise": 0.5} | changes
    torch.manual_seed(1)
    convert_ffn(model, FfnExperts(**spec))
    return model


@torch.no_grad()
def said(model, **inputs) -> torch.Tensor:
    return model(**inputs).logits


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llava", {}),
        ("llava", {"k": 1, "experts": 3}),
        ("internvl", {}),
        ("internvl", {"layers": [1]}),
        ("internvl", {"k": 3}),
    ],
)
def test_the_published_class_says_the_same_after_saving_and_loading(family, changes, tmp_path):
    ours = converted(family, **changes)
    published_text(ours).save_pretrained(tmp_path)
    theirs, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(theirs) is CLASSES[family]
    assert not info["missing_keys"] and not info["unexpected_keys"]
    ids = torch.randint(10, 60, (2, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1] * 9, [0] * 3 + [1] * 6])
    embeds = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(1))
    for inputs in ({"input_ids": ids}, {"input_ids": ids, "attention_mask": mask}, {"inputs_embeds": embeds}):
        real = mask.bool() if "attention_mask" in inputs else slice(None)
        torch.testing.assert_close(said(theirs, **inputs)[real], said(ours, **inputs)[real], rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", CLASSES)
def test_files_have_the_published_names(family, tmp_path):
    published_text(converted(family)).save_pretrained(tmp_path)
    names = load_file(tmp_path / "model.safetensors").keys()
    block = "block_sparse_moe" if family == "llava" else "mlp"
    expert = ("w1", "w2", "w3") if family == "llava" else ("gate_proj", "up_proj", "down_proj")
    wanted = {f"model.layers.1.{block}.experts.3.{part}.weight" for part in expert} | {
        f"model.layers.1.{block}.gate.weight"
    }
    assert wanted <= names
    assert not any("expert_" in name.replace("shared_expert_gate", "") for name in names)


def test_a_shared_expert_adds_nothing_and_stays_so():
    theirs = published_text(converted("internvl")).train()
    theirs(input_ids=torch.arange(10, 20)[None], labels=torch.arange(10, 20)[None]).loss.backward()
    shared = {name: p for name, p in theirs.named_parameters() if "shared_expert" in name}
    assert len(shared) == 2 * 4
    assert not any(p.any() or (p.grad is not None and p.grad.any()) for p in shared.values())


@pytest.mark.parametrize("tied", [True, False])
def test_a_tied_head_stays_tied(tied, tmp_path):
    from transformers import InternVLForConditionalGeneration

    config = tiny.internvl()[0].config
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = tied
    model = InternVLForConditionalGeneration(config).eval()
    convert_ffn(model, FfnExperts(layers="all"))
    published_text(model).save_pretrained(tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert (theirs.lm_head.weight is theirs.model.embed_tokens.weight) == tied
    ids = torch.arange(10, 20)[None]
    torch.testing.assert_close(said(theirs, input_ids=ids), said(model, input_ids=ids), rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", CLASSES)
def test_the_whole_model_says_the_same_of_pictures(family, tmp_path):
    folder = tiny.save_vlm(family, tmp_path / "dense")
    ours = converted(family)
    published(ours).save_pretrained(tmp_path / "moe")
    theirs, info = AutoModelForImageTextToText.from_pretrained(tmp_path / "moe", output_loading_info=True)
    assert type(theirs) is type(ours) and not info["missing_keys"] and not info["unexpected_keys"]
    preparation = load_subject(str(folder), PictureCache(1)).preparation
    asked = questions(tiny.samples(tiny.pictures(tmp_path))[1:2], preparation)
    torch.testing.assert_close(said(theirs, **asked), said(ours, **asked), rtol=0, atol=1e-5)


def test_a_model_from_disk_is_written_as_well(tmp_path):
    converted("llava").save_pretrained(tmp_path)
    ids = torch.arange(10, 20)[None]
    model = load_vlm(str(tmp_path))
    torch.testing.assert_close(
        said(published_text(model), input_ids=ids), said(model, input_ids=ids), rtol=0, atol=1e-5
    )


def refused(model) -> str:
    with pytest.raises(InputError) as caught:
        published_text(model)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"router": "dense"}, "ffn_experts.router"),
        ({"router": "top_p"}, "ffn_experts.router"),
        ({"kind": "lora", "init_noise": 0}, "ffn_experts.kind"),
        ({"kind": "split"}, "ffn_experts.kind"),
        ({"layers": "every_second"}, "dense layers 1"),
    ],
)
def test_what_mixtral_cannot_hold_is_named(changes, named):
    assert named in refused(converted("llava", **changes))


def test_a_routers_bias_is_named_unless_it_is_zero():
    model = converted("internvl", router_bias=True)
    assert published_text(model)
    with torch.no_grad():
        model.model.language_model.layers[1].mlp.router.linear.bias[0] = 0.5
    assert "one in layers 1" in refused(model)


def test_dense_models_adapter_experts_and_positions_of_three_numbers_are_named():
    assert "a dense model" in refused(tiny.internvl()[0])
    assert "qwen2_5_vl_text" in refused(converted("qwen2_5_vl"))
    both = converted("internvl", router="dense")
    convert_adapter(both, AdapterExperts())
    found = refused(both)
    assert "adapter_experts" in found and "ffn_experts.router" in found
