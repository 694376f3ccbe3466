"""Short and long answers decoded apart: the same rows, the same routing, fewer positions."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from drivedistill.batch import Batch, RoleInputs
from drivedistill.models.adapter import convert_adapter
from drivedistill.models.by_length import by_length
from drivedistill.models.driving_t5 import DrivingT5
from drivedistill.models.presets import build_config
from drivedistill.models.student import Student
from drivedistill.models.upcycle import convert_ffn
from drivedistill.sections import AdapterExperts, FfnExperts

LENGTHS = [2, 19, 3, 2, 18, 4]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    overrides = {"text": {"d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 2}, "grid_tokens": 4}
    model = DrivingT5(build_config("demo", vocab_size=300, image_size=32, overrides=overrides))
    convert_adapter(model, AdapterExperts(init_noise=0.3))
    convert_ffn(model, FfnExperts(layers="all", init_noise=0.3))
    return model.eval()


@pytest.fixture
def batch():
    torch.manual_seed(1)
    size, longest = len(LENGTHS), max(LENGTHS)
    real = torch.arange(longest) < torch.tensor(LENGTHS)[:, None]
    answers = torch.randint(3, 300, (size, longest)).masked_fill(~real, 0)
    targets = answers.masked_fill(~real, -100)
    inputs = {
        "input_ids": torch.randint(3, 300, (size, 5)),
        "attention_mask": torch.ones(size, 5, dtype=torch.long),
        "pixel_values": torch.randn(size, 6, 3, 32, 32),
        "view_mask": torch.ones(size, 6, dtype=torch.bool),
        "decoder_input_ids": answers,
        "decoder_attention_mask": real.long(),
    }
    rows = (targets.flatten() != -100).nonzero().squeeze(1)
    return Batch(
        ids=list(map(str, range(size))),
        regimes=["regular"] * size,
        capabilities=["perception"] * size,
        templates=["t"] * size,
        gold=targets.flatten()[rows],
        sample_of_row=rows // longest,
        row_kind=torch.zeros(len(rows), dtype=torch.int8),
        inputs={"student": RoleInputs(inputs, targets, rows)},
    )


def asked(model, batch, apart):
    model.apart = apart
    model.zero_grad(set_to_none=True)
    rows = Student(model)(batch, {"logits", "routing"})
    routing = {name: (item.probabilities, item.selected, item.sample) for name, item in rows.routing.items()}
    (rows.logits.logsumexp(1).sum() + sum(item.logits.square().sum() for item in rows.routing.values())).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.apart = True
    return rows.logits.detach(), routing, gradients


def test_rows_routing_and_gradients_are_those_of_one_call(model, batch):
    logits, routing, gradients = asked(model, batch, apart=True)
    expected, expected_routing, expected_gradients = asked(model, batch, apart=False)
    assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert routing.keys() == expected_routing.keys() and any("decoder" in name for name in routing)
    for name, values in routing.items():
        for value, other in zip(values, expected_routing[name], strict=True):
            assert_close(value, other, rtol=1e-4, atol=1e-5)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in gradients.items():
        assert_close(gradient, expected_gradients[name], rtol=1e-3, atol=1e-3)


def test_the_decoder_sees_fewer_positions(model, batch, monkeypatch):
    seen = []
    decoder = model.language_model.decoder
    forward = decoder.forward
    monkeypatch.setattr(decoder, "forward", lambda **given: seen.append(given["input_ids"].shape) or forward(**given))
    with torch.no_grad():
        Student(model)(batch)
    assert [tuple(shape) for shape in seen] == [(4, 4), (2, 19)]


def test_everybody_is_in_one_group():
    torch.manual_seed(0)
    for _ in range(50):
        lengths = torch.randint(1, 200, (int(torch.randint(1, 30, ())),))
        groups = by_length(lengths)
        assert sorted(torch.cat(groups).tolist()) == list(range(len(lengths)))
        assert len(groups) == 1 or lengths[groups[0]].max() <= lengths[groups[1]].min()
    assert len(by_length(torch.full((8,), 7))) == 1
