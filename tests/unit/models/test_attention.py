"""Taps: equal to eager attention maps, whatever the family, padding, heads, checkpointing or portions."""

from __future__ import annotations

import pytest
import torch

import tiny
from drivedistill.batch import Tap
from drivedistill.data.collate import collate
from drivedistill.models import attention
from drivedistill.models.student import Student, bare
from drivedistill.problems import InputError

FAMILIES = ["driving_t5", "internvl", "qwen2_5_vl", "llava"]
TV = "text_to_vision"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return tiny.pictures(tmp_path_factory.mktemp("pictures"))


def prepared(family, folder, images, lora=False):
    subject = tiny.subject(family, folder, seed=3, lora=lora)
    batch = collate(tiny.samples(images)[:4], {"student": subject.preparation})
    return subject.model.eval(), batch


def eager_maps(model, batch):
    """Head-averaged maps of every layer by the library's own eager attention, `[layers][B, queries, keys]`."""
    model = bare(model)
    model.set_attn_implementation("eager")
    inputs = batch.role("student").model
    with torch.no_grad():
        if model.config.model_type == "driving_t5":
            names = ("input_ids", "attention_mask", "pixel_values", "view_mask")
            memory, mask = model.encode(*(inputs[name] for name in names))
            found = model.language_model.decoder(
                input_ids=inputs["decoder_input_ids"],
                attention_mask=inputs["decoder_attention_mask"],
                encoder_hidden_states=memory,
                encoder_attention_mask=mask,
                output_attentions=True,
            ).cross_attentions
        else:
            found = model.model(**inputs, output_attentions=True).attentions
    model.set_attn_implementation("sdpa")
    assert len(found) == attention.depth(model)
    return [layer.mean(dim=1) for layer in found]


def kinds_of(model, batch):
    """What stands in columns and rows: 0 text, 1 image, 2 padding; of a T5 reader the rows are its answer's."""
    inputs = batch.role("student")
    if model.config.model_type != "driving_t5":
        return inputs.token_kind, inputs.token_kind
    columns = model.token_kind(*(inputs.model[n] for n in ("input_ids", "attention_mask", "view_mask")))
    return 2 - 2 * inputs.model["decoder_attention_mask"], columns


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("lora", [False, True])
def test_taps_are_the_maps_of_eager_attention(family, lora, tmp_path, images):
    model, batch = prepared(family, tmp_path, images, lora)
    student, plain = Student(model), bare(model)
    before = student(batch).logits
    taps = {Tap(0, block=TV), Tap(0), Tap(1), Tap(1, block=TV)}
    rows = student(batch, {"logits"} | taps)
    # Tapping changes no answer; a T5 reader's answers are then decoded together, which rounds differently.
    torch.testing.assert_close(rows.logits, before, rtol=0, atol=1e-5 if family == "driving_t5" else 0)
    assert rows.taps.keys() == taps
    reference, (asking, shown) = eager_maps(model, batch), kinds_of(plain, batch)
    for tap, found in rows.taps.items():
        assert found.values.requires_grad
        for b in range(batch.num_samples):
            queries = (asking[b] == 0 if tap.block == TV else asking[b] != 2).nonzero()[:, 0]
            keys = (shown[b] == 1 if tap.block == TV else shown[b] != 2).nonzero()[:, 0]
            expected = reference[tap.layer][b][queries][:, keys]
            got = found.values[b, : len(queries), : len(keys)]
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
            assert not found.values[b, len(queries) :].any() and not found.values[b, :, len(keys) :].any()
            assert found.queries[b, : len(queries)].tolist() == queries.tolist()
            assert found.keys[b, : len(keys)].tolist() == keys.tolist()
            if tap.block == "full":
                torch.testing.assert_close(got.sum(dim=1), torch.ones(len(queries)))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_map_does_not_depend_on_its_batch(family, tmp_path, images):
    subject = tiny.subject(family, tmp_path, seed=3)
    student, samples = Student(subject.model.eval()), tiny.samples(images)[:4]
    taps = {Tap(1), Tap(0, block=TV), Tap(1, "hidden")}
    together = student(collate(samples, {"student": subject.preparation}), taps).taps
    for b, sample in enumerate(samples):
        alone = student(collate([sample], {"student": subject.preparation}), taps).taps
        for tap in taps:
            own = alone[tap].values[0]
            torch.testing.assert_close(together[tap].values[b, : own.shape[0], : own.shape[1]], own, rtol=0, atol=2e-6)


@pytest.mark.parametrize("family", ["driving_t5", "internvl"])
def test_hidden_states_are_the_library_s(family, tmp_path, images):
    model, batch = prepared(family, tmp_path, images)
    taken = Student(model)(batch, {Tap(0, "hidden"), Tap(1, "hidden"), "hidden"}).taps
    if family == "internvl":
        reference = model.model(**batch.role("student").model, output_hidden_states=True).hidden_states
        torch.testing.assert_close(taken[Tap(0, "hidden")].values, reference[1])
        last = model.model.language_model.norm(taken[Tap(1, "hidden")].values)
        torch.testing.assert_close(last, reference[2])
    assert taken[Tap(1, "hidden")].values.shape[-1] == attention.width(model)


@pytest.mark.parametrize("family", ["internvl", "driving_t5"])
def test_portions_and_checkpointing_change_neither_maps_nor_gradients(family, tmp_path, images, monkeypatch):
    """Nor do two backward passes through one forward, as gradient projection makes them."""
    model, batch = prepared(family, tmp_path, images)
    student, taps = Student(model.train()), {Tap(0), Tap(1, block=TV), Tap(0, "hidden")}

    def gradients() -> list[list[torch.Tensor]]:
        rows = student(batch, {"logits"} | taps)
        tasks = [rows.logits.square().mean(), *(rows.taps[tap].values.square().sum() for tap in sorted(taps, key=str))]
        found = []
        for position, task in enumerate(tasks):
            task.backward(retain_graph=position < len(tasks) - 1)
            found.append([torch.zeros(1) if p.grad is None else p.grad.clone() for p in student.parameters()])
            student.zero_grad()
        return found

    plain = gradients()
    assert all(any(g.abs().sum() > 0 for g in task) for task in plain)
    monkeypatch.setattr(attention, "CHUNK_BYTES", 1)  # a row at a time
    for checkpointed in (False, True):
        if checkpointed:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        for ours, theirs in zip(gradients(), plain, strict=True):
            mine, other = (torch.cat([gradient.flatten() for gradient in task]) for task in (ours, theirs))
            assert float((mine - other).norm()) < 1e-3 * float(other.norm())


def test_only_the_layers_that_are_asked_for_are_computed(tmp_path, images, monkeypatch):
    model, batch = prepared("internvl", tmp_path, images)
    calls = []
    computed = attention.average_map
    monkeypatch.setattr(attention, "average_map", lambda *given: calls.append(given[3].shape) or computed(*given))
    student = Student(model)
    student(batch, {Tap(1, block=TV)})
    kinds = batch.role("student").token_kind
    assert calls == [(4, int((kinds == 0).sum(dim=1).max()))]  # the rows of text tokens alone
    student(batch)
    assert len(calls) == 1


def test_the_maps_of_heads_with_an_eager_model_are_the_same(tmp_path, images):
    model, batch = prepared("internvl", tmp_path, images)
    fast = Student(model)(batch, {Tap(0)}).taps[Tap(0)].values
    model.model.language_model.set_attn_implementation("eager")
    slow = Student(model)(batch, {Tap(0)}).taps[Tap(0)].values
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-6)
    assert model.model.language_model.config._attn_implementation == "tapped_eager"


def test_no_picture_is_an_empty_block(tmp_path, images):
    subject = tiny.subject("internvl", tmp_path)
    blind = subject.preparation.__class__(**{**subject.preparation.__dict__, "blind": True})
    batch = collate(tiny.samples(images)[:2], {"student": blind})
    found = Student(subject.model)(batch, {Tap(0, block=TV)}).taps[Tap(0, block=TV)]
    assert found.values.shape[2] == 0 and found.keys.shape == (2, 0)


def test_an_unknown_model_is_refused_by_name():
    from transformers import Qwen2Config, Qwen2ForCausalLM

    sizes = {"vocab_size": 11, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    model = Qwen2ForCausalLM(Qwen2Config(**sizes, num_attention_heads=2, num_key_value_heads=1))
    with pytest.raises(InputError) as refused:
        attention.tappable(model)
    assert "qwen2" in str(refused.value) and "internvl" in str(refused.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_who_only_shows_early_layers_runs_no_later_ones(family, tmp_path, images):
    model, batch = prepared(family, tmp_path, images)
    student, taps = Student(model), {Tap(0, block=TV), Tap(0, "hidden")}
    whole = student(batch, {"logits"} | taps).taps
    ran = []
    last = attention._layers(bare(model))[-1].register_forward_hook(lambda *_: ran.append("last"))
    with torch.no_grad():
        alone = student(batch, taps)
    last.remove()
    assert not ran and alone.logits is None
    for tap in taps:
        torch.testing.assert_close(alone.taps[tap].values, whole[tap].values)
