"""The EM-VLM4AD family: independence of the batch, generation, saving, adapters."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText

from drivedistill.models.driving_t5 import DrivingT5
from drivedistill.models.driving_t5_config import DrivingT5Config

TEXT = {
    "vocab_size": 60,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 32,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 2,
}
VISION = {
    "convnext": {"num_stages": 2, "depths": [1, 1], "hidden_sizes": [8, 16], "layer_scale_init_value": 1.0},
    "vit": {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "patch_size": 8,
    },
    "swin": {"embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2], "window_size": 4},
}
FUSIONS = ["gated_pooling", "concatenation"]


def config(kind: str = "convnext", fusion: str = "gated_pooling", **options) -> DrivingT5Config:
    return DrivingT5Config(
        text=TEXT,
        vision={"model_type": kind, **VISION[kind]},
        image_size=32,
        fusion=fusion,
        fusion_hidden=8,
        tokens_per_view=4,
        **options,
    )


def build(*args, **options) -> DrivingT5:
    torch.manual_seed(0)
    model = DrivingT5(config(*args, **options)).eval()
    # Fresh modal and camera embeddings are so small that a test would hardly see them.
    for embedding in (model.modal_embedding, model.camera_embedding):
        if embedding is not None:
            torch.nn.init.normal_(embedding.weight)
    return model


@pytest.fixture
def inputs() -> dict[str, torch.Tensor]:
    """Three samples: six views, one view (CODA-LM), two views; questions of 7, 3 and 5 tokens."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([7, 3, 5])
    mask = (torch.arange(7) < lengths[:, None]).long()
    ids = torch.randint(2, 60, (3, 7), generator=generator) * mask
    views = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0], [0, 1, 0, 1, 0, 0]]).bool()
    answers = torch.randint(2, 60, (3, 4), generator=generator)
    answers[:, 0] = 0
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "pixel_values": torch.randn(3, 6, 3, 32, 32, generator=generator),
        "view_mask": views,
        "decoder_input_ids": answers,
    }


def alone(inputs: dict[str, torch.Tensor], b: int) -> dict[str, torch.Tensor]:
    """Sample b without batch mates and without padding."""
    one = {key: value[b : b + 1] for key, value in inputs.items()}
    length = int(one["attention_mask"].sum())
    return {**one, "input_ids": one["input_ids"][:, :length], "attention_mask": one["attention_mask"][:, :length]}


def questions(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value for key, value in inputs.items() if key != "decoder_input_ids"}


# --- forward ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("kind", VISION)
def test_logits_do_not_depend_on_batch_mates_or_padding(kind, fusion, inputs):
    model = build(kind, fusion)
    logits = model(**inputs).logits
    for b in range(3):
        torch.testing.assert_close(model(**alone(inputs, b)).logits[0], logits[b], atol=1e-5, rtol=0)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_front_view_alone_equals_six_slots_with_five_absent(fusion, inputs):
    model, one = build("convnext", fusion), alone(inputs, 1)
    narrow = {**one, "pixel_values": one["pixel_values"][:, :1], "view_mask": one["view_mask"][:, :1]}
    torch.testing.assert_close(model(**narrow).logits, model(**one).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_missing_masks_mean_that_everything_exists(fusion, inputs):
    model, one = build("convnext", fusion), alone(inputs, 0)
    bare = {**one, "attention_mask": None, "view_mask": None}
    torch.testing.assert_close(model(**bare).logits, model(**one).logits, atol=1e-5, rtol=0)
    assert model.encode(**questions(bare))[1].all()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_content_of_absent_views_and_of_padding_does_not_matter(fusion, inputs):
    model = build("convnext", fusion)
    expected = model(**inputs).logits
    absent = ~inputs["view_mask"]
    inputs["pixel_values"][absent] = torch.randn_like(inputs["pixel_values"][absent]) * 100
    inputs["input_ids"] = torch.where(inputs["attention_mask"].bool(), inputs["input_ids"], 33)
    assert torch.equal(model(**inputs).logits, expected)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_present_view_and_every_word_matters(fusion, inputs):
    model = build("convnext", fusion)
    inputs["pixel_values"].requires_grad_()
    model(**inputs).logits.square().sum().backward()
    seen = inputs["pixel_values"].grad.abs().flatten(2).sum(-1) > 0
    assert torch.equal(seen, inputs["view_mask"])


def test_concatenation_tells_cameras_apart(inputs):
    one = alone(inputs, 2)
    moved = {**one, "view_mask": one["view_mask"].roll(1, 1), "pixel_values": one["pixel_values"].roll(1, 1)}
    difference = {
        tagged: (model(**one).logits - model(**moved).logits).abs().max()
        for tagged in (True, False)
        for model in [build("convnext", "concatenation", camera_embeddings=tagged)]
    }
    assert difference[True] > 1e-3 and difference[False] < 1e-5


def test_padded_layout_lets_padding_move_the_image_tokens(inputs):
    model = build(layout="padded")
    logits = model(**inputs).logits
    torch.testing.assert_close(model(**alone(inputs, 0)).logits[0], logits[0], atol=1e-5, rtol=0)
    assert (model(**alone(inputs, 1)).logits[0] - logits[1]).abs().max() > 1e-4


@pytest.mark.parametrize("layout", ["compact", "padded"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_token_kind_describes_the_encoder_sequence(fusion, layout, inputs):
    model = build("convnext", fusion, layout=layout)
    kind = model.token_kind(inputs["input_ids"], inputs["attention_mask"], inputs["view_mask"])
    hidden, mask = model.encode(**questions(inputs))
    assert kind.shape == hidden.shape[:2] and torch.equal(kind < 2, mask)
    assert torch.equal((kind == 0).sum(1), inputs["attention_mask"].sum(1))
    per_sample = torch.full((3,), 16) if fusion == "gated_pooling" else 4 * inputs["view_mask"].sum(1)
    assert torch.equal((kind == 1).sum(1), per_sample)
    assert model.config.image_tokens == (16 if fusion == "gated_pooling" else 4)


def test_forward_equals_t5_on_the_assembled_embeddings(inputs):
    model, one = build(), alone(inputs, 0)
    t5 = model.language_model
    views = model.vision(one["pixel_values"])
    image = model.adapter(model.fusion(views)) + model.modal_embedding.weight[1]
    embeddings = torch.cat([t5.shared(one["input_ids"]) + model.modal_embedding.weight[0], image], dim=1)
    expected = t5(inputs_embeds=embeddings, decoder_input_ids=one["decoder_input_ids"]).logits
    torch.testing.assert_close(model(**one).logits, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("tied", [True, False])
def test_head_on_decoder_output_equals_forward(tied, inputs):
    model = build()
    model.config.text.scale_decoder_outputs = tied
    expected = model.language_model(
        encoder_outputs=model.encode(**questions(inputs))[:1],
        attention_mask=model.encode(**questions(inputs))[1],
        decoder_input_ids=inputs["decoder_input_ids"],
    ).logits
    torch.testing.assert_close(model.lm_logits(model.decode_hidden(**inputs)), model(**inputs).logits)
    torch.testing.assert_close(model(**inputs).logits, expected)


def test_labels_are_refused(inputs):
    with pytest.raises(ValueError, match="labels"):
        build()(**inputs, labels=inputs["decoder_input_ids"])


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_sample_without_views_reads_its_question_alone(fusion, inputs):
    model, changed = build("swin", fusion).eval(), dict(inputs)
    inputs["view_mask"][0] = False
    changed["view_mask"] = inputs["view_mask"]
    changed["pixel_values"] = inputs["pixel_values"].clone()
    changed["pixel_values"][0] = 7.0
    blind, same = model(**inputs).logits, model(**changed).logits
    assert blind.isfinite().all()
    torch.testing.assert_close(blind, same)
    inputs["view_mask"][:] = True
    assert (model(**inputs).logits[0] - blind[0]).abs().max() > 1e-4


def test_more_views_than_cameras_are_refused(inputs):
    with pytest.raises(ValueError, match="6 views for 2 cameras"):
        build(cameras=["CAM_FRONT", "CAM_BACK"])(**inputs)


# --- generation -------------------------------------------------------------------------------------------------------


def greedy(model: DrivingT5, one: dict[str, torch.Tensor], steps: int) -> list[int]:
    answer = torch.zeros(1, 1, dtype=torch.long)
    while answer.shape[1] <= steps and answer[0, -1] != 1:
        logits = model(**{**one, "decoder_input_ids": answer}).logits
        answer = torch.cat([answer, logits[:, -1:].argmax(-1)], dim=1)
    return answer[0].tolist()


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("kind", ["convnext", "vit"])
def test_generation_of_a_batch_equals_step_by_step_argmax_of_each_sample(kind, fusion, inputs):
    model = build(kind, fusion)
    answers = model.generate(**questions(inputs), max_new_tokens=8, do_sample=False)
    for b in range(3):
        expected = greedy(model, alone(inputs, b), 8)
        assert answers[b].tolist() == expected + [0] * (answers.shape[1] - len(expected))


def test_beam_search_of_a_batch_equals_one_by_one_and_is_no_worse_than_greedy(inputs):
    model = build()
    options = {"max_new_tokens": 6, "num_beams": 4, "length_penalty": 0.0}
    batch = model.generate(**questions(inputs), **options, return_dict_in_generate=True, output_scores=True)
    for b in range(3):
        one = questions(alone(inputs, b))
        beam = model.generate(**one, **options, return_dict_in_generate=True, output_scores=True)
        torch.testing.assert_close(beam.sequences_scores[0], batch.sequences_scores[b], atol=1e-5, rtol=0)
        answer = torch.tensor([greedy(model, one, 6)])
        logp = model(**one, decoder_input_ids=answer[:, :-1]).logits.log_softmax(-1)
        assert logp.gather(2, answer[:, 1:, None]).sum() <= beam.sequences_scores[0] + 1e-5


def test_sampling_returns_several_answers_per_question(inputs):
    torch.manual_seed(0)
    options = {"do_sample": True, "num_return_sequences": 3, "max_new_tokens": 3}
    assert build("convnext", "concatenation").generate(**questions(inputs), **options).shape == (9, 4)


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("convnext", {"fusion": "concatenation"}),
        ("vit", {"vision_blocks": False, "adapter": "none"}),
        ("vit", {"vision_blocks": False, "vision_stored": "full"}),
        ("vit", {"modal_embeddings": False}),
        ("swin", {"vision_classes": 7}),
    ],
)
def test_saving_and_loading_is_exact_and_complete(kind, options, inputs, tmp_path: Path):
    model = build(kind, **options)
    model.save_pretrained(tmp_path)
    loaded, info = DrivingT5.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(loaded.eval()(**inputs).logits, model(**inputs).logits)
    for (name, ours), (other, theirs) in zip(model.named_parameters(), loaded.named_parameters(), strict=True):
        assert name == other and torch.equal(ours, theirs) and ours.requires_grad == theirs.requires_grad, name
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {"config.json", "generation_config.json", "model.safetensors"}
    assert json.loads((tmp_path / "generation_config.json").read_text())["decoder_start_token_id"] == 0
    for ours, theirs in ((model.config, loaded.config), (model.config.vision, loaded.config.vision)):
        assert {**ours.to_diff_dict(), "dtype": None, "vision": None, "text": None}.items() >= {
            key: value
            for key, value in theirs.to_diff_dict().items()
            if key not in ("dtype", "vision", "text", "architectures")
        }.items()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("auto", [AutoModel, AutoModelForImageTextToText])
def test_auto_classes_know_the_family(auto, attention, inputs, tmp_path: Path):
    model = build()
    model.save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), DrivingT5Config)
    loaded = auto.from_pretrained(tmp_path, attn_implementation=attention).eval()
    assert isinstance(loaded, DrivingT5)
    torch.testing.assert_close(loaded(**inputs).logits, model(**inputs).logits, atol=1e-5, rtol=0)


def test_embeddings_and_head_are_one_tensor_after_loading(tmp_path: Path):
    build().save_pretrained(tmp_path)
    t5 = DrivingT5.from_pretrained(tmp_path).language_model
    tied = (t5.encoder.embed_tokens.weight, t5.decoder.embed_tokens.weight, t5.lm_head.weight)
    assert all(weight is t5.shared.weight for weight in tied)


def test_resizing_the_vocabulary_keeps_embeddings_and_head_tied(inputs):
    model = build()
    model.resize_token_embeddings(64)
    assert model.config.vocab_size == 64 and model(**inputs).logits.shape[-1] == 64
    assert model.language_model.lm_head.weight is model.language_model.shared.weight


# --- training ---------------------------------------------------------------------------------------------------------


def loss_of(model, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    logits = model(**inputs).logits
    return cross_entropy(logits[:, :-1].flatten(0, 1), inputs["decoder_input_ids"][:, 1:].flatten())


@pytest.mark.parametrize("kind", VISION)
def test_gradient_checkpointing_changes_no_gradient(kind, inputs):
    gradients = []
    for checkpointing in (False, True):
        model = build(kind)
        for module in model.modules():
            for name in ("p", "dropout", "drop_prob"):
                if isinstance(getattr(module, name, None), float):
                    setattr(module, name, 0.0)
        model.train()
        if checkpointing:
            model.activation_checkpointing_enable()
            assert model.is_activation_checkpointing
        loss_of(model, inputs).backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-4, msg=name)


def test_every_parameter_gets_a_gradient(inputs):
    model = build("convnext", "concatenation").train()
    loss_of(model, inputs).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_lora_on_q_and_v_starts_as_the_base_and_trains_alone(inputs):
    from peft import LoraConfig, get_peft_model

    model = build("vit")
    expected = model(**inputs).logits
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=r".*\.(q|v)", bias="none"))
    torch.testing.assert_close(adapted(**inputs).logits, expected)
    names = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert len(names) == 2 * 2 * (2 + 2 * 3) and all("lora_" in name and "language_model" in name for name in names)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    changed = adapted(**inputs).logits
    assert (changed - expected).abs().max() > 1e-3
    base = adapted.get_base_model()
    torch.testing.assert_close(base.lm_logits(adapted.decode_hidden(**inputs)), changed)
    loss_of(adapted.train(), inputs).backward()
    answers = adapted.eval().generate(**questions(inputs), max_new_tokens=5)
    merged = adapted.merge_and_unload()
    torch.testing.assert_close(merged(**inputs).logits, changed, atol=1e-4, rtol=0)
    assert torch.equal(merged.generate(**questions(inputs), max_new_tokens=5), answers)


@pytest.mark.parametrize("reentrant", [True, False])
def test_lora_learns_through_checkpointing_and_the_frozen_pictures_stay_out(reentrant, inputs):
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(build("swin"), LoraConfig(r=4, target_modules=r".*\.(q|v)")).train()
    kwargs = {"use_reentrant": reentrant}
    adapted.get_base_model().activation_checkpointing_enable(activation_checkpointing_kwargs=kwargs)
    assert not adapted.get_base_model().vision.training
    views = adapted.get_base_model().vision(inputs["pixel_values"], inputs["view_mask"])
    assert not views.requires_grad
    loss_of(adapted, inputs).backward()
    gradients = [parameter.grad for name, parameter in adapted.named_parameters() if "lora_B" in name]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)


@pytest.mark.parametrize("kind", VISION)
def test_attention_implementations_agree_and_eager_returns_maps(kind, inputs):
    model = build(kind)
    expected = model(**inputs).logits
    assert model.language_model.config._attn_implementation == "sdpa"
    model.set_attn_implementation("eager")
    output = model(**inputs, output_attentions=True)
    torch.testing.assert_close(output.logits, expected, atol=1e-5, rtol=0)
    assert len(output.encoder_attentions) == 2 and len(output.cross_attentions) == 3
    kinds = model.token_kind(inputs["input_ids"], inputs["attention_mask"], inputs["view_mask"])
    seen = output.cross_attentions[-1].sum(dim=(1, 2))
    assert (seen[kinds == 2] == 0).all() and (seen[kinds < 2] > 0).all()
    model.set_attn_implementation("sdpa")
    torch.testing.assert_close(model(**inputs).logits, expected)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_half_precision_runs_close_to_full_precision(fusion, inputs, tmp_path: Path):
    model = build("swin", fusion)
    expected = model(**inputs).logits.softmax(-1)
    model.save_pretrained(tmp_path)
    half = DrivingT5.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    torch.testing.assert_close(half(**inputs).logits.float().softmax(-1), expected, atol=0.05, rtol=0)
    half.generate(**questions(inputs), max_new_tokens=3)
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(model.train(), inputs)
    loss.backward()
    assert loss.isfinite() and all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


# --- construction -----------------------------------------------------------------------------------------------------


def test_fresh_weights_follow_each_part():
    torch.manual_seed(0)
    model = DrivingT5(DrivingT5Config(text={"vocab_size": 4000}, vision={"model_type": "swin"}))
    t5 = model.language_model
    q, embedding = t5.encoder.block[0].layer[0].SelfAttention.q.weight, t5.shared.weight
    assert q.std().item() == pytest.approx((512 * 64) ** -0.5, rel=0.05)
    assert embedding.std().item() == pytest.approx(1.0, rel=0.05)
    assert (t5.encoder.final_layer_norm.weight == 1).all()
    assert model.modal_embedding.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert model.vision.model.encoder.layers[0].blocks[0].attention.q_proj.weight.std().item() == pytest.approx(
        0.02, rel=0.1
    )
    tokens = torch.randn(64, 1, 49, 768).flatten(2)
    assert model.fusion.content(tokens).std() < 1, "the gates must not saturate"


def test_meta_device_holds_no_memory_and_ties_weights():
    with torch.device("meta"):
        model = DrivingT5(config())
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert model.language_model.lm_head.weight is model.language_model.shared.weight


def test_parts_have_their_stable_names():
    names = dict(build("convnext", "concatenation").named_children())
    assert list(names) == ["vision", "camera_embedding", "fusion", "adapter", "modal_embedding", "language_model"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "swin", "vision_blocks": False}, "vision_blocks"),
        ({"fusion": "attention"}, "fusion"),
        ({"layout": 3}, "layout"),
        ({"cameras": 3}, "cameras"),
    ],
)
def test_impossible_configurations_are_refused(options, message):
    with pytest.raises(Exception, match=message):
        config(**options)


def test_adapter_none_needs_equal_widths():
    vision = {"model_type": "vit", **VISION["vit"], "hidden_size": 24}
    with pytest.raises(Exception, match="vision has 24, T5 has 16"):
        DrivingT5Config(text=TEXT, vision=vision, image_size=32, adapter="none")


def test_unknown_vision_networks_are_refused():
    with pytest.raises(ValueError, match="resnet"):
        DrivingT5Config(vision={"model_type": "resnet"})
