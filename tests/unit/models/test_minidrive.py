"""MiniDrive and UniRepLKNet: facts about gates, experts, masks and merged kernels; totals; that it trains and is saved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import batch_norm, conv2d, conv_transpose2d, cross_entropy, gelu, linear, relu
from transformers import AutoConfig

from drivedistill.batch import Batch, RoleInputs
from drivedistill.models.driving_t5 import DrivingT5
from drivedistill.models.fusion import PADDING
from drivedistill.models.large_kernel import LargeKernelConfig, LargeKernelModel
from drivedistill.models.large_kernel_weights import merge_published
from drivedistill.models.minidrive import FeatureExperts, InstructionAdapter
from drivedistill.models.parameters import count_parameters
from drivedistill.models.presets import build_config, load_vision_weights
from drivedistill.models.student import Student
from drivedistill.problems import InputError

SIZE = 40
SMALL = {
    "text": {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4, "vocab_size": 50},
    "vision": {"depths": [1, 2], "hidden_sizes": [8, 16], "large_every": [0, 2], "image_size": SIZE},
    "fusion_hidden": 6,
    "tokens_per_view": 4,
}


def small(**overrides) -> DrivingT5:
    torch.manual_seed(0)
    return DrivingT5(build_config("tiny_minidrive", overrides={**SMALL, **overrides, "image_size": SIZE})).eval()


def inputs(samples: int = 3, cameras: int = 6) -> dict[str, torch.Tensor]:
    """Questions of 5, 3 and 7 tokens; one, six and two views."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(2, 50, (samples, 7), generator=generator)
    lengths = torch.tensor([5, 3, 7])[:samples]
    views = torch.tensor([1, 6, 2])[:samples]
    return {
        "input_ids": ids,
        "attention_mask": (torch.arange(7) < lengths[:, None]).long(),
        "pixel_values": torch.randn(samples, cameras, 3, SIZE, SIZE, generator=generator),
        "view_mask": torch.arange(cameras) < views[:, None],
        "decoder_input_ids": torch.randint(2, 50, (samples, 4), generator=generator),
    }


def experts(number: int = 3, cells: int = 3) -> FeatureExperts:
    torch.manual_seed(0)
    return FeatureExperts((cells, cells), 8, tokens_per_view=4, hidden=6, experts=number)


# --- FE-MoE -----------------------------------------------------------------------------------------------------------


def test_gate_weighs_all_experts_of_every_picture_and_the_weights_sum_to_one():
    layer = experts()
    layer.recording = True
    layer(torch.randn(2, 6, 9, 8))
    assert layer.last.weights.shape == (2, 6, 3)
    assert torch.allclose(layer.last.weights.sum(-1), torch.ones(2, 6)) and layer.last.selected.all()
    assert layer.last.weights.std(dim=1).min() > 0, "the gate must look at the picture"


def test_one_expert_is_the_plain_branch():
    layer = experts(1)
    views = torch.randn(2, 6, 9, 8)
    maps = views.flatten(0, 1).transpose(1, 2).reshape(12, 8, 3, 3)
    deconv, conv = nn.ConvTranspose2d(8, 6, 2, stride=2), nn.Conv2d(6, 4, 3, padding=1)
    deconv.load_state_dict(layer.deconv.state_dict())
    conv.load_state_dict(layer.conv.state_dict())
    plain = conv(relu(deconv(maps)))
    assert torch.allclose(layer(views), plain.reshape(2, 6 * 4, 36), atol=1e-6)


def test_mixture_is_the_weighted_sum_of_its_experts_taken_one_by_one():
    layer, views = experts(), torch.randn(2, 2, 9, 8)
    layer.recording = True
    mixed = layer(views).reshape(4, 4, 6, 6)
    maps = views.flatten(0, 1).transpose(1, 2).reshape(4, 8, 3, 3)
    features = layer.gate(maps).flatten(2).max(-1).values
    gate = (features @ layer.router.linear.weight.T + layer.router.linear.bias).softmax(-1)
    first, second = layer.deconv, layer.conv
    total = torch.zeros_like(mixed)
    for e in range(3):
        inner, outer = slice(6 * e, 6 * e + 6), slice(4 * e, 4 * e + 4)
        hidden = relu(conv_transpose2d(maps, first.weight[:, inner], first.bias[inner], stride=2))
        total += gate[:, e, None, None, None] * conv2d(hidden, second.weight[outer], second.bias[outer], padding=1)
    assert torch.allclose(mixed, total, atol=1e-6)


def test_expert_vectors_hold_every_parameter_of_an_expert_once():
    layer = experts()
    vectors = layer.expert_vectors()
    assert vectors.shape == (3, 8 * 6 * 4 + 6 + 6 * 4 * 9 + 4) and vectors.numel() == layer.expert_parameters()
    with torch.no_grad():
        layer.deconv.weight[:, 6:12] += 1
        layer.conv.bias[4:8] += 1
    assert ((layer.expert_vectors() - vectors).abs().sum(1) > 0).tolist() == [False, True, False]


def test_channels_become_tokens_of_four_times_the_cells():
    with torch.device("meta"):
        model = DrivingT5(build_config("minidrive224"))
    tokens = model.fusion(torch.zeros(1, 6, 49, 640, device="meta"))
    assert tokens.shape == (1, 96, 196) and model.adapter.in_features == 196
    assert model.config.image_tokens == 16


def test_routing_of_present_pictures_alone_is_reported():
    model, given = small(), inputs()
    targets = torch.full((3, 4), 5)
    role = RoleInputs({**given, "decoder_attention_mask": torch.ones(3, 4)}, targets, torch.arange(12))
    batch = Batch([""] * 3, [""] * 3, [""] * 3, [""] * 3, targets.flatten(), torch.arange(3).repeat_interleave(4),
                  torch.zeros(12, dtype=torch.int8), {"student": role})  # fmt: skip
    routing = Student(model)(batch, {"logits", "routing"}).routing["fusion"]
    assert routing.probabilities.shape == (9, 4) and routing.sample.tolist() == [0, 1, 1, 1, 1, 1, 1, 2, 2]


# --- DI-adapter -------------------------------------------------------------------------------------------------------


def test_instruction_adapter_ignores_padded_text_and_hears_the_rest():
    torch.manual_seed(0)
    adapter = InstructionAdapter(16).eval()
    image, text, mask = torch.randn(2, 5, 16), torch.randn(2, 4, 16), torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    out = adapter(image, text, mask)
    noisy = text.clone()
    noisy[0, 2:] += 100
    assert torch.allclose(adapter(image, noisy, mask), out, atol=1e-6)
    assert torch.allclose(adapter(image[:1], text[:1, :2], mask[:1, :2]), out[:1], atol=1e-6)
    noisy[1, 3] += 1
    assert not torch.allclose(adapter(image, noisy, mask)[1], out[1], atol=1e-3)


def test_instruction_adapter_adds_to_what_it_is_given():
    adapter = InstructionAdapter(16)
    nn.init.zeros_(adapter.attention.out_proj.weight)
    nn.init.zeros_(adapter.attention.out_proj.bias)
    image = torch.randn(2, 5, 16)
    assert torch.equal(adapter(image, torch.randn(2, 4, 16)), image)


# --- the model --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "total", "parts"),
    [
        ("minidrive224", 82_890_380, {"vision": 17_677_560, "fusion": 3_554_708, "adapter": 100_864, "interaction": 1_050_624}),
        ("minidrive384", 121_781_708, {"vision": 54_876_984, "fusion": 5_052_052, "adapter": 295_424}),
    ],
)  # fmt: skip
def test_totals(preset, total, parts):
    with torch.device("meta"):
        count = count_parameters(DrivingT5(build_config(preset)))
    assert count["total"] == total and parts.items() <= count["by_part"].items()
    assert count["by_part"]["language_model"] == 60_506_624


def test_unireplknet_n_with_its_head_has_its_published_size():
    assert round((17_677_560 + 640 * 1000 + 1000) / 1e6, 1) == 18.3


def test_content_of_absent_views_and_of_padded_text_never_matters():
    model, given = small(), inputs()
    before = model(**given).logits
    changed = {**given, "pixel_values": given["pixel_values"].clone(), "input_ids": given["input_ids"].clone()}
    changed["pixel_values"][~given["view_mask"]] = float("nan")
    changed["input_ids"][given["attention_mask"] == 0] = 9
    assert torch.equal(model(**changed).logits, before)
    changed["pixel_values"][1, 5] += 1
    assert not torch.allclose(model(**changed).logits[1], before[1])


def test_logits_of_a_sample_do_not_depend_on_its_batch():
    model, given = small(), inputs()
    together = model(**given).logits
    for index, (length, cameras) in enumerate([(5, 1), (3, 6), (7, 2)]):
        one = {key: value[index : index + 1] for key, value in given.items()}
        one["input_ids"], one["attention_mask"] = one["input_ids"][:, :length], one["attention_mask"][:, :length]
        one["pixel_values"], one["view_mask"] = one["pixel_values"][:, :cameras], one["view_mask"][:, :cameras]
        assert torch.allclose(model(**one).logits, together[index : index + 1], atol=1e-5)


def test_question_changes_the_image_tokens_only_with_interaction():
    given = inputs(1)
    other = {**given, "input_ids": given["input_ids"] + 1}
    states = []
    for interaction in (True, False):
        model = small(interaction=interaction)
        seen = []
        model.language_model.encoder.register_forward_pre_hook(
            lambda module, args, kwargs, seen=seen: seen.append(kwargs["inputs_embeds"][:, 5:9]), with_kwargs=True
        )
        model(**given)
        model(**other)
        states.append(torch.equal(*seen))
    assert states == [False, True]


def test_each_present_view_gives_its_tokens_to_the_encoder():
    model, given = small(), inputs()
    kind = model.token_kind(given["input_ids"], given["attention_mask"], given["view_mask"])
    assert (kind != PADDING).sum(dim=1).tolist() == [5 + 4, 3 + 24, 7 + 8]


def test_saved_and_loaded_it_is_the_same(tmp_path: Path):
    model, given = small(), inputs()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    model.save_pretrained(tmp_path)
    loaded = DrivingT5.from_pretrained(tmp_path).eval()
    assert type(AutoConfig.from_pretrained(tmp_path).vision) is LargeKernelConfig
    assert torch.equal(loaded(**given).logits, model(**given).logits)


def test_it_learns_and_every_part_takes_part():
    model, given = small().train(), inputs()
    targets = given["decoder_input_ids"].roll(-1, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(15):
        loss = cross_entropy(model(**given).logits.flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_generate_writes_the_argmax_of_forward():
    model, given = small(), inputs()
    decoder = given.pop("decoder_input_ids")
    written = model.generate(**given, max_new_tokens=4, do_sample=False, eos_token_id=None)
    assert written.shape == (3, 5)
    again = model(**given, decoder_input_ids=written[:, :-1]).logits.argmax(-1)
    assert torch.equal(again, written[:, 1:]) and decoder.shape == (3, 4)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"fusion_experts": 0}, "fusion_experts"),
        ({"text": {**SMALL["text"], "d_model": 36}}, "multiple"),
        ({"vision": {"depths": [1, 1], "hidden_sizes": [8], "large_every": [0, 1]}}, "must agree"),
        ({"vision": {"large_kernel": 6}}, "odd"),
        ({"vision": {"kernel": 13}}, "unknown"),
    ],
)
def test_what_cannot_be_is_refused(overrides, message):
    with pytest.raises(InputError, match=message):
        build_config("tiny_minidrive", overrides=overrides)


# --- UniRepLKNet ------------------------------------------------------------------------------------------------------


class Norm(nn.BatchNorm2d):
    """A batch norm that has seen something."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        for tensor in (self.weight.data, self.running_var):
            tensor.uniform_(0.5, 2)
        for tensor in (self.bias.data, self.running_mean):
            tensor.normal_()


def published(config: LargeKernelConfig) -> dict[str, torch.Tensor]:
    """A checkpoint in training form, under the published names."""
    torch.manual_seed(1)
    state = {}
    for name, value in LargeKernelModel(config).state_dict().items():
        if not name.startswith("stages."):
            state[name] = torch.randn_like(value)
    state |= {"head.weight": torch.randn(10, config.hidden_sizes[-1]), "head.bias": torch.randn(10)}
    for stage, width in enumerate(config.hidden_sizes):
        for block in range(config.depths[stage]):
            kernel, prefix = config.kernel(stage, block), f"stages.{stage}.{block}."
            large = kernel == config.large_kernel
            layers = {
                "dwconv.lk_origin" if large else "dwconv": nn.Conv2d(width, width, kernel, groups=width, bias=False),
                "norm": Norm(width),
                "se.down": nn.Conv2d(width, width // 4, 1),
                "se.up": nn.Conv2d(width // 4, width, 1),
                "pwconv1.1": nn.Linear(width, 4 * width),
                "pwconv2.0": nn.Linear(4 * width, width, bias=False),
                "pwconv2.2": Norm(width),
            }
            for side, dilation in BRANCHES if large else ():
                layers[f"dwconv.dil_conv_k{side}_{dilation}"] = nn.Conv2d(width, width, side, groups=width, bias=False)
                layers[f"dwconv.dil_bn_k{side}_{dilation}"] = Norm(width)
            if large:
                layers["dwconv.origin_bn"] = Norm(width)
            for name, layer in layers.items():
                state |= {f"{prefix}{name}.{key}": value for key, value in layer.state_dict().items()}
            state[f"{prefix}act.1.gamma"] = torch.randn(1, 1, 1, 4 * width)
            state[f"{prefix}act.1.beta"] = torch.randn(1, 1, 1, 4 * width)
            state[f"{prefix}gamma"] = torch.rand(width)
    return {name: value.clone().contiguous() for name, value in state.items()}


BRANCHES = ((5, 1), (3, 2), (3, 3))
"""Side and dilation of the published branches beside a 7 x 7 kernel."""


def training_form(state: dict[str, torch.Tensor], prefix: str, maps: torch.Tensor, kernel: int) -> torch.Tensor:
    """A block as the published network runs it while it trains, written out (evaluation mode)."""
    block = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}

    def norm(name: str, values: torch.Tensor) -> torch.Tensor:
        mean, variance, weight, bias = (
            block[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return batch_norm(values, mean, variance, weight, bias)

    def depthwise(name: str, dilation: int = 1) -> torch.Tensor:
        weight = block[f"{name}.weight"]
        padding = dilation * (weight.shape[-1] - 1) // 2
        return conv2d(maps, weight, padding=padding, dilation=dilation, groups=maps.shape[1])

    if kernel == 7:
        hidden = norm("dwconv.origin_bn", depthwise("dwconv.lk_origin"))
        for side, dilation in BRANCHES:
            branch = depthwise(f"dwconv.dil_conv_k{side}_{dilation}", dilation)
            hidden = hidden + norm(f"dwconv.dil_bn_k{side}_{dilation}", branch)
    else:
        hidden = depthwise("dwconv")
    hidden = norm("norm", hidden)
    squeezed = relu(conv2d(hidden.mean((2, 3), keepdim=True), block["se.down.weight"], block["se.down.bias"]))
    hidden = hidden * torch.sigmoid(conv2d(squeezed, block["se.up.weight"], block["se.up.bias"]))
    hidden = gelu(linear(hidden.permute(0, 2, 3, 1), block["pwconv1.1.weight"], block["pwconv1.1.bias"]))
    size = hidden.norm(dim=(1, 2), keepdim=True)
    hidden = (block["act.1.gamma"] * size / (size.mean(-1, keepdim=True) + 1e-6) + 1) * hidden + block["act.1.beta"]
    hidden = norm("pwconv2.2", (hidden @ block["pwconv2.0.weight"].T).permute(0, 3, 1, 2))
    return maps + block["gamma"].view(1, -1, 1, 1) * hidden


VARIANT = {"depths": [1, 2], "hidden_sizes": [8, 16], "large_every": [0, 2], "large_kernel": 7, "image_size": SIZE}


def test_merged_form_computes_what_the_published_training_form_does(tmp_path: Path):
    model = small(vision=VARIANT)
    config = model.vision.model.config
    state = published(config)
    save_file(state, tmp_path / "model.safetensors")
    load_vision_weights(model, str(tmp_path))
    network, maps = model.vision.model, torch.randn(2, 3, SIZE, SIZE)
    ours = network(maps).last_hidden_state
    for stage in range(2):
        maps = network.downsample_layers[stage](maps)
        for block in range(config.depths[stage]):
            maps = training_form(state, f"stages.{stage}.{block}.", maps, config.kernel(stage, block))
    assert torch.allclose(ours, network.norm(maps.flatten(2).transpose(1, 2)), atol=1e-4)


def test_own_checkpoints_and_merged_ones_pass_unchanged():
    own = LargeKernelModel(LargeKernelConfig(**VARIANT)).state_dict()
    assert all(torch.equal(value, own[name]) for name, value in merge_published(own).items())
    assert merge_published(own).keys() == own.keys()


def test_other_weights_are_refused_with_every_difference(tmp_path: Path):
    model = small(vision=VARIANT)
    state = published(LargeKernelConfig(**{**VARIANT, "depths": [1, 1]}))
    state["downsample_layers.0.0.weight"] = torch.zeros(9, 3, 3, 3)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(InputError) as error:
        load_vision_weights(model, str(tmp_path))
    records = {problem.record for problem in error.value.problems}
    assert {"stages.1.1.depthwise.weight", "downsample_layers.0.0.weight"} <= records and len(records) == 12
    with pytest.raises(InputError, match="pickles"):
        load_vision_weights(model, str(tmp_path / "nothing"))
    save_file({"stages.0.0.conv_dw.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="timm"):
        load_vision_weights(model, str(tmp_path))
