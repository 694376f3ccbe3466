"""From dense to experts: what stays equal, what is saved, what learns, what is refused."""

import copy
import functools
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from drivedistill.build import build_student
from drivedistill.data.images import PictureCache
from drivedistill.models.driving_t5 import DrivingT5
from drivedistill.models.driving_t5_config import DrivingT5Config
from drivedistill.models.hf_vlm import load_vlm
from drivedistill.models.mixture import Mixture, expert_distance
from drivedistill.models.moe import FeedForwardExperts
from drivedistill.models.parameters import count_parameters
from drivedistill.models.upcycle import convert_ffn
from drivedistill.problems import InputError
from drivedistill.sections import AdapterExperts, Data, FfnExperts, Lora, Model, Source
from drivedistill.subject import load_subject, save_subject

VISION = {"model_type": "convnext", "num_stages": 2, "depths": [1, 1], "hidden_sizes": [8, 16]}
TEXT = {
    "vocab_size": 60,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 32,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 2,
}


def driving_t5(**text) -> DrivingT5:
    torch.manual_seed(0)
    config = DrivingT5Config(text={**TEXT, **text}, vision=VISION, image_size=32, fusion_hidden=8)
    return DrivingT5(config).eval()


MODELS = {
    "driving_t5": driving_t5,
    "driving_t5_gated": lambda: driving_t5(feed_forward_proj="gated-gelu"),
    **{family: (lambda family=family: tiny.VLMS[family]()[0]) for family in tiny.VLMS},
}
VLMS = list(tiny.VLMS)


@functools.cache
def built(family: str):
    return MODELS[family]()


def fresh(family: str):
    """A copy: to build one, with its tokenizer, takes longer than most tests."""
    return copy.deepcopy(built(family))


def answers(model) -> torch.Tensor:
    """Logits for two samples; the second one is padded."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(10, 60, (2, 6), generator=generator)
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
    inputs = {"input_ids": ids, "attention_mask": mask}
    if model.config.model_type == "driving_t5":
        inputs["pixel_values"] = torch.randn(2, 2, 3, 32, 32, generator=generator)
        inputs["decoder_input_ids"] = ids[:, :4]
    with torch.no_grad():
        return model(**inputs).logits


def layers(model) -> dict[str, Mixture]:
    return {name: module for name, module in model.named_modules() if isinstance(module, Mixture)}


# --- equality right after conversion ----------------------------------------------------------------------------------

EQUAL = {
    "upcycle_top_1": {"k": 1},
    "upcycle_top_2": {},
    "upcycle_dense": {"router": "dense"},
    "lora_top_2": {"kind": "lora"},
    "lora_top_p": {"kind": "lora", "router": "top_p"},
    "lora_dense": {"kind": "lora", "router": "dense"},
    "split_all": {"kind": "split", "k": 4},
    "split_dense": {"kind": "split", "router": "dense"},
}


@pytest.mark.parametrize("family", MODELS)
def test_converted_model_equals_the_dense_one(family):
    before = answers(built(family))
    for name, spec in EQUAL.items():
        model = fresh(family)
        convert_ffn(model, FfnExperts(layers="all", **spec))
        assert len(layers(model)) == (5 if family.startswith("driving_t5") else 2)
        assert (answers(model) - before).abs().max() < 1e-5, name
        assert all(not module.training for module in model.modules())


@pytest.mark.parametrize("spec", [{"router": "top_p"}, {"kind": "split", "k": 2}], ids=["top_p", "split"])
def test_where_the_weights_do_not_sum_to_the_whole_it_differs(spec):
    model = driving_t5()
    before = answers(model)
    convert_ffn(model, FfnExperts(**spec))
    assert (answers(model) - before).abs().max() > 1e-2


def test_biases_are_shared_out(monkeypatch):
    """Llama may have biases; tiny LLaVA has none."""
    model = tiny.llava()[0]
    for block in model.model.language_model.layers:
        for name in ("gate_proj", "up_proj", "down_proj"):
            linear = getattr(block.mlp, name)
            linear.bias = torch.nn.Parameter(torch.randn(linear.out_features))
    for spec in ({}, {"kind": "split", "k": 4}, {"kind": "lora"}):
        other = tiny.llava()[0]
        for ours, theirs in zip(other.model.language_model.layers, model.model.language_model.layers, strict=True):
            ours.mlp = theirs.mlp
        before = answers(other)
        convert_ffn(other, FfnExperts(layers="all", **spec))
        assert (answers(other) - before).abs().max() < 1e-5


def test_noise_makes_copies_differ_and_is_reproducible():
    distances = []
    for noise, seed in ((0.0, 0), (0.02, 0), (0.02, 0), (0.02, 1), (0.2, 0)):
        model = driving_t5()
        torch.manual_seed(seed)
        convert_ffn(model, FfnExperts(init_noise=noise))
        distances.append([expert_distance(layer) for layer in layers(model).values()])
    assert max(distances[0]) == 0
    assert min(distances[1]) > 0
    assert distances[1] == distances[2] != distances[3]
    assert distances[1] == pytest.approx([0.02 * 2**0.5] * 3, rel=0.1)
    assert min(distances[4]) > 5 * max(distances[1])


def test_routing_starts_near_uniform_without_ties():
    model = driving_t5()
    convert_ffn(model, FfnExperts(layers="all"))
    for layer in layers(model).values():
        layer.recording = True
    answers(model)
    for layer in layers(model).values():
        probabilities = layer.last.probabilities.flatten(0, -2)
        assert (probabilities - 0.25).abs().max() < 0.15
        assert len(probabilities[0].unique()) == 4


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("spec", [{}, {"kind": "split"}, {"kind": "lora"}], ids=["upcycle", "split", "lora"])
def test_padding_does_not_change_an_answer(family, spec):
    model = fresh(family)
    convert_ffn(model, FfnExperts(init_noise=0.0 if spec.get("kind") == "lora" else 1.0, **spec))
    for name, parameter in model.named_parameters():
        if name.endswith(".b"):
            torch.nn.init.normal_(parameter)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(10, 60, (1, 5), generator=generator)
    inputs = {"input_ids": ids}
    if model.config.model_type == "driving_t5":
        inputs["pixel_values"] = torch.randn(1, 2, 3, 32, 32, generator=generator)
        inputs["decoder_input_ids"] = ids[:, :3]
    mask = torch.tensor([[1] * 5 + [0] * 4])
    padded = {**inputs, "input_ids": torch.cat([ids, ids[:, :4]], dim=1), "attention_mask": mask}
    with torch.no_grad():
        alone, beside = model(**inputs).logits, model(**padded).logits
    torch.testing.assert_close(beside[:, : alone.shape[1]], alone, atol=1e-4, rtol=1e-4)


# --- which layers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "encoder", "decoder"),
    [
        ("every_second", [0, 2], [0]),
        ("all", [0, 1, 2], [0, 1]),
        ("first_half", [0], [0]),
        ("second_half", [1, 2], [1]),
        ([1], [1], [1]),
        ([0, 1], [0, 1], [0, 1]),
    ],
)
def test_layers_of_encoder_and_decoder(chosen, encoder, decoder):
    model = driving_t5()
    convert_ffn(model, FfnExperts(layers=chosen))
    found = {name: [] for name in ("encoder", "decoder")}
    for name in layers(model):
        _, stack, _, index, _, last, attribute = name.split(".")
        found[stack].append(int(index))
        assert (last, attribute) == ("1" if stack == "encoder" else "2", "DenseReluDense")
    assert found == {"encoder": encoder, "decoder": decoder}


@pytest.mark.parametrize("family", VLMS)
def test_vision_towers_stay_dense(family):
    model = fresh(family)
    convert_ffn(model, FfnExperts(layers="all"))
    assert list(layers(model)) == [f"model.language_model.layers.{i}.mlp" for i in range(2)]


def refused(model, **spec) -> str:
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    with pytest.raises(InputError) as error:
        convert_ffn(model, FfnExperts(**spec))
    assert before.keys() == dict(model.named_parameters()).keys(), "nothing was changed"
    return str(error.value)


def test_what_cannot_be_converted_is_refused_with_all_findings():
    found = refused(driving_t5(), layers=[0, 2, 7], kind="split", experts=5)
    assert "encoder: 0 to 2" in found
    assert "decoder: 0 to 1" in found
    assert found.count("model.ffn_experts.layers") == 3, "7 twice, 2 once"
    assert "divisible by 5" in found
    assert "32" in found
    assert "chooses none" in refused(driving_t5(num_layers=1, num_decoder_layers=1), layers="first_half")
    assert "init_noise" in refused(driving_t5(), kind="lora", init_noise=0.1)


def test_a_model_with_experts_is_refused():
    model = driving_t5()
    convert_ffn(model, FfnExperts())
    assert "already has experts" in refused(model, layers="all")


# --- saved and loaded -------------------------------------------------------------------------------------------------

KINDS = {"upcycle": {"init_noise": 0.3}, "split": {"kind": "split"}, "lora": {"kind": "lora", "rank": 3}}


@pytest.mark.parametrize("spec", KINDS.values(), ids=KINDS)
def test_driving_t5_with_experts_loads_again(spec, tmp_path):
    model = driving_t5()
    convert_ffn(model, FfnExperts(**spec))
    model.save_pretrained(tmp_path)
    again, info = DrivingT5.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert FfnExperts(**again.config.ffn_experts) == FfnExperts(**spec)
    torch.testing.assert_close(answers(again.eval()), answers(model), atol=1e-5, rtol=0)


@pytest.mark.parametrize("spec", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("family", VLMS)
def test_vision_language_models_with_experts_load_again(family, spec, tmp_path):
    model = fresh(family)
    convert_ffn(model, FfnExperts(**spec))
    model.save_pretrained(tmp_path)
    again = load_vlm(str(tmp_path)).eval()
    assert type(again) is type(model)
    assert again.config.ffn_experts == model.config.ffn_experts
    before, after = model.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(answers(again), answers(model))


def test_both_kinds_of_experts_load_again(tmp_path):
    from drivedistill.models.adapter import convert_adapter

    model = tiny.internvl()[0]
    convert_adapter(model, AdapterExperts())
    convert_ffn(model, FfnExperts())
    model.save_pretrained(tmp_path)
    again = load_vlm(str(tmp_path))
    assert len(layers(again)) == 2
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def test_weights_that_do_not_fit_the_configuration_are_refused(tmp_path):
    source = tiny.save_vlm("internvl", tmp_path / "dense")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "ffn_experts": FfnExperts().model_dump()}))
    with pytest.raises(InputError) as error:
        load_vlm(str(source))
    assert "layers.0.mlp.expert_up" in str(error.value)
    assert "layers.0.mlp.gate_proj" in str(error.value)


def test_a_tensor_that_is_missing_is_refused(tmp_path):
    subject = tiny.subject("driving_t5", tmp_path)
    convert_ffn(subject.model, FfnExperts())
    save_subject(subject, subject.model, tmp_path / "model", "card")
    file = tmp_path / "model" / "model.safetensors"
    tensors = load_file(file)
    gone = next(name for name in tensors if name.endswith("router.linear.weight"))
    save_file({name: tensor for name, tensor in tensors.items() if name != gone}, file, {"format": "pt"})
    with pytest.raises(InputError, match=r"router\.linear\.weight"):
        load_subject(str(tmp_path / "model"), PictureCache(1))


def test_a_model_from_its_configuration_has_sane_random_experts():
    model = driving_t5()
    convert_ffn(model, FfnExperts())
    torch.manual_seed(0)
    fresh = DrivingT5(model.config)
    dense = fresh.language_model.encoder.block[1].layer[-1].DenseReluDense
    experts = fresh.language_model.encoder.block[0].layer[-1].DenseReluDense
    assert experts.expert_up.std().item() == pytest.approx(dense.wi.weight.std().item(), rel=0.1)
    assert experts.expert_down.std().item() == pytest.approx(dense.wo.weight.std().item(), rel=0.1)
    assert expert_distance(experts) == pytest.approx(2**0.5, rel=0.1), "every expert is drawn by itself"
    assert experts.router.linear.weight.std() < 0.04
    with torch.device("meta"):
        assert DrivingT5(model.config).num_parameters() == model.num_parameters()


# --- parameters -------------------------------------------------------------------------------------------------------


def test_activated_parameters():
    dense = driving_t5()
    plain = count_parameters(dense)
    assert plain["activated"] == plain["total"]
    ffn, router = 2 * 16 * 32, 16 * 4 + 4  # three layers become experts
    expected = {
        "upcycle": ({}, plain["total"] + 3 * (3 * ffn + router), plain["total"] + 3 * (ffn + router)),
        "top_p": (
            {"router": "top_p"},
            plain["total"] + 3 * (3 * ffn + router),
            plain["total"] + 3 * (3 * ffn + router),
        ),
        "split": ({"kind": "split"}, plain["total"] + 3 * router, plain["total"] + 3 * (router - ffn // 2)),
        "lora": (
            {"kind": "lora", "rank": 2, "k": 1},
            plain["total"] + 3 * (router + 4 * 2 * 2 * (16 + 32)),
            plain["total"] + 3 * (router + 2 * 2 * (16 + 32)),
        ),
    }
    for spec, total, activated in expected.values():
        model = driving_t5()
        convert_ffn(model, FfnExperts(**spec))
        count = count_parameters(model)
        assert (count["total"], count["activated"]) == (total, activated)


# --- LoRA -------------------------------------------------------------------------------------------------------------


def with_lora(path, lora: dict, spec: dict | None = None, family: str = "internvl"):
    data = Data(sources=[Source(name="x", format="jsonl", root=path, regime="regular")], image_size=28)
    source = path / family
    if not source.exists():
        tiny.save_vlm(family, source)
    card = Model(
        path=str(source),
        ffn_experts=FfnExperts(**{"layers": "all", "init_noise": 0.3} | (spec or {})),
        lora=Lora(**{"r": 2, "alpha": 4, "dropout": 0.0, "targets": tiny.LORA[family]} | lora),
    )
    return build_student(card, data, PictureCache(1), [])


def test_lora_reaches_stacked_experts_and_merges_into_them(tmp_path):
    torch.manual_seed(0)
    subject = with_lora(tmp_path, {"expert_targets": r"expert_(up|down)$"})
    model = subject.model
    start = answers(model)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    stacks = {name.split(".mlp.")[1] for name, p in model.named_parameters() if ".mlp." in name and p.requires_grad}
    assert sum("lora_A" in name for name in stacks) == 2, "up and down"
    expected = answers(model)
    assert (expected - start).abs().max() > 1e-2
    save_subject(subject, model, tmp_path / "model", "card")
    again = load_subject(str(tmp_path / "model"), PictureCache(1)).model.eval()
    torch.testing.assert_close(answers(again), expected, atol=1e-5, rtol=0)
    assert isinstance(again.model.language_model.layers[0].mlp, FeedForwardExperts)


def test_every_expert_has_an_adapter_of_its_own_and_all_learn(tmp_path):
    torch.manual_seed(0)
    model = with_lora(tmp_path, {"expert_targets": "expert_up$"}, {"router": "dense"}).model
    wrapper = model.base_model.model.model.language_model.layers[0].mlp
    assert wrapper.lora_A["default"].weight.shape == (2 * 4, 32)
    torch.nn.init.normal_(wrapper.lora_B["default"].weight)
    deltas = wrapper.get_delta_weight("default")
    assert deltas.shape == (4, 64, 32)
    assert torch.linalg.matrix_rank(deltas).tolist() == [2] * 4
    ids = torch.randint(10, 60, (2, 6))
    model(input_ids=ids).logits.square().sum().backward()
    learning = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert all(gradient is not None for gradient in learning.values())
    frozen = [name for name, p in model.named_parameters() if name.endswith("expert_down") and not p.requires_grad]
    assert len(frozen) == 2


def test_beside_lora_routers_and_thin_experts_learn_but_copies_only_when_named(tmp_path):
    def learns(spec: dict, **lora) -> set[str]:
        model = with_lora(tmp_path, lora, spec).model
        names = [name for name, p in model.named_parameters() if p.requires_grad and "lora_" not in name]
        return {name.split(".mlp.")[1] for name in names if ".mlp." in name}

    router = {"router.linear.weight", "router.linear.bias"}
    thin = {f"expert_{part}.{factor}" for part in ("up", "gate", "down") for factor in "ab"}
    assert learns({}) == router
    assert learns({"kind": "lora", "init_noise": 0.0}) == router | thin
    stacks = {"expert_up", "expert_gate", "expert_down"}
    assert learns({}, also_train=["router", "expert_"]) == router | stacks


def test_lora_on_experts_that_cannot_be_is_refused(tmp_path):
    with pytest.raises(ValueError, match="0, as `expert_targets` needs"):
        Lora(dropout=0.05, expert_targets="expert_up")
    with pytest.raises(InputError, match="expert_targets") as error:
        with_lora(tmp_path, {"expert_targets": "wi$"})
    assert "expert_down" in str(error.value)
    with pytest.raises(InputError, match="expert_targets"):
        with_lora(tmp_path, {"expert_targets": "expert_up"}, {"kind": "lora", "init_noise": 0.0})
