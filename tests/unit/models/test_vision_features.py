"""`DrivingT5` given what its vision tower made earlier, instead of pictures."""

from __future__ import annotations

import pytest
import torch

import tiny
from drivedistill.data.collate import collate


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A model, its inputs with pictures, and the same inputs with features."""
    folder = tmp_path_factory.mktemp("given")
    subject = tiny.subject("driving_t5", folder)
    model = subject.model.eval()
    live = collate(tiny.samples(tiny.pictures(folder)), {"student": subject.preparation}).role("student").model
    with torch.no_grad():
        features = model.vision(live["pixel_values"], live["view_mask"])
    cached = {name: value for name, value in live.items() if name != "pixel_values"}
    return model, live, cached | {"vision_features": features}


def test_every_way_of_asking_takes_features(given):
    model, live, cached = given
    asked = ["input_ids", "attention_mask", "view_mask"]
    questions = [{name: inputs[name] for name in [*asked, last]} for inputs, last in
                 ((live, "pixel_values"), (cached, "vision_features"))]  # fmt: skip
    with torch.no_grad():
        assert torch.equal(model(**live).logits, model(**cached).logits)
        assert torch.equal(model.decode_hidden(**live), model.decode_hidden(**cached))
        assert all(torch.equal(*pair) for pair in zip(*(model.encode(**one) for one in questions), strict=True))
        written = [model.generate(**one, max_new_tokens=6, num_beams=2) for one in questions]
    assert torch.equal(*written)


def test_what_absent_views_hold_is_never_read(given):
    model, _, cached = given
    spoilt = cached["vision_features"].clone()
    spoilt[~cached["view_mask"]] = torch.nan
    assert (~cached["view_mask"]).any()
    with torch.no_grad():
        assert torch.equal(model(**cached).logits, model(**{**cached, "vision_features": spoilt}).logits)


def test_the_tower_does_not_run_and_gets_no_gradient(given, monkeypatch):
    model, _, cached = given
    monkeypatch.setattr(model.vision.model, "forward", None)
    model(**cached).logits.sum().backward()
    assert all(parameter.grad is None for parameter in model.vision.parameters())
    assert model.adapter.weight.grad.any()
    model.zero_grad(set_to_none=True)


def test_half_precision_features_meet_the_models_own_type(given):
    model, _, cached = given
    with torch.no_grad():
        half = model(**{**cached, "vision_features": cached["vision_features"].half()}).logits
    torch.testing.assert_close(half, model(**cached).logits, rtol=1e-2, atol=1e-2)


def test_exactly_one_of_pictures_and_features(given):
    model, live, cached = given
    for inputs in ({**live, **cached}, {name: value for name, value in cached.items() if name != "vision_features"}):
        for ask in (model, model.decode_hidden):
            with pytest.raises(ValueError, match="exactly one of `pixel_values` and `vision_features`"):
                ask(**inputs)


@pytest.mark.parametrize("shape", [(8, 6, 15, 32), (8, 6, 16, 31), (8, 16, 32), (8, 6, 4, 4, 32)])
def test_features_of_another_tower_are_refused(given, shape):
    model, _, cached = given
    with pytest.raises(ValueError, match=r"`vision_features` must be float\[B, C, 16, 32\]"):
        model(**{**cached, "vision_features": torch.zeros(shape)})


def test_mask_and_cameras_must_fit(given):
    model, _, cached = given
    with pytest.raises(ValueError, match="`view_mask` must be"):
        model(**{**cached, "view_mask": cached["view_mask"][:, :3]})
    seven = cached["vision_features"].new_zeros(8, 7, 16, 32)
    with pytest.raises(ValueError, match="7 views for 6 cameras"):
        model(**{**cached, "vision_features": seven, "view_mask": None})
