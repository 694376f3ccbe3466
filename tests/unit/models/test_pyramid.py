"""The small tower with a grid and a view token, and what a `DrivingT5` makes of view tokens and named places."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import grid_sample

from drivedistill.models.driving_t5 import DrivingT5
from drivedistill.models.presets import build_config
from drivedistill.models.pyramid import PyramidConfig, PyramidModel, features_at
from drivedistill.models.shrink import shrink
from drivedistill.problems import InputError
from drivedistill.sections import Shrink


@pytest.fixture(scope="module")
def tower():
    torch.manual_seed(0)
    model = PyramidModel(PyramidConfig(image_size=32, width=16, view_width=4))
    for _ in range(30):  # the running statistics settle
        model(torch.randn(16, 3, 32, 32))
    return model.eval()


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    overrides = {"points": True, "text": {"d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 2}}
    return DrivingT5(
        build_config("demo", vocab_size=300, image_size=32, overrides=overrides | {"grid_tokens": 4})
    ).eval()


@pytest.fixture
def asked():
    torch.manual_seed(1)
    views = torch.ones(2, 6, dtype=torch.bool)
    views[1, 2:] = False
    return {
        "input_ids": torch.randint(3, 300, (2, 7)),
        "attention_mask": torch.tensor([[1] * 7, [1] * 5 + [0] * 2]),
        "pixel_values": torch.randn(2, 6, 3, 32, 32),
        "view_mask": views,
        "points": torch.tensor([[[0, 0.2, 0.7], [5, 1.0, 0.0]], [[1, 0.5, 0.5], [-1, 0, 0]]]),
    }


def test_a_view_is_a_grid_row_by_row_and_one_token_more():
    torch.manual_seed(0)
    tower = PyramidModel(PyramidConfig(image_size=256, depths=(1, 1, 1), width=16, view_width=4)).eval()
    pictures = torch.zeros(2, 3, 256, 256)
    pictures[1, :, 200:, :60] = 3.0
    with torch.no_grad():
        tokens = tower(pictures).last_hidden_state
    assert tokens.shape == (2, 32 * 32 + 1, 16)
    changed = (tokens[0] - tokens[1]).abs().sum(dim=1)
    row, column = divmod(int(changed[:-1].argmax()), 32)
    assert row > 20 and column < 12, "the lower left corner changed"
    assert changed[-1] > 0


def test_features_are_standardised_and_do_not_depend_on_the_batch(tower):
    torch.manual_seed(2)
    pictures = torch.randn(64, 3, 32, 32)
    with torch.no_grad():
        tokens = tower(pictures).last_hidden_state
        alone = tower(pictures[:1]).last_hidden_state
    torch.testing.assert_close(tokens[:1], alone, rtol=1e-4, atol=1e-5)
    lively = tokens[:, :16].flatten(0, 1).std(dim=0) > 0.01  # a channel may never wake up
    assert lively.sum() >= 8
    assert tokens[:, :16].flatten(0, 1).mean(dim=0).abs().max() < 0.3
    assert ((tokens[:, :16].flatten(0, 1).std(dim=0)[lively] - 1).abs() < 0.5).all()


def test_a_single_picture_is_standardised_by_the_running_statistics(tower):
    torch.manual_seed(2)
    picture = torch.randn(1, 3, 32, 32)
    before = {name: value.clone() for name, value in tower.state_dict().items() if name.split(".")[0].endswith("_norm")}
    expected = tower(picture).last_hidden_state
    for norm in (tower.grid_norm, tower.view_norm):
        norm.train()
    found = tower(picture).last_hidden_state
    none = tower(picture[:0]).last_hidden_state
    tower.eval()
    torch.testing.assert_close(found, expected)
    assert none.shape == (0, 17, 16)
    after = tower.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_features_at_a_place_are_those_of_torchs_grid_sample():
    torch.manual_seed(0)
    grid, view = torch.randn(3, 25, 4), torch.tensor([0, 2, 2, 1, 1])
    x, y = torch.tensor([0.0, 0.33, 1.0, 0.5, 0.91]), torch.tensor([0.0, 0.77, 1.0, 0.5, 0.08])
    maps = grid.transpose(1, 2).unflatten(2, (5, 5))[view]
    places = torch.stack([x, y], dim=1)[:, None, None] * 2 - 1
    expected = grid_sample(maps, places, padding_mode="border", align_corners=False)[:, :, 0, 0]
    torch.testing.assert_close(features_at(grid, view, x, y), expected)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="multiple of 16"):
        build_config("demo", image_size=40)
    with pytest.raises(InputError, match="three stages"):
        build_config("demo", overrides={"vision": {"depths": [1, 1]}})
    with pytest.raises(InputError, match="view tokens"):
        build_config("demo", overrides={"fusion": "feature_experts", "grid_tokens": None})


def test_the_encoder_reads_pooled_cells_views_and_places(model, asked):
    with torch.no_grad():
        hidden, mask = model.encode(**asked)
    assert mask.sum(dim=1).tolist() == [7 + 4 + 6 + 2, 5 + 4 + 2 + 1]
    kinds = model.token_kind(*(asked[name] for name in ("input_ids", "attention_mask", "view_mask", "points")))
    assert (kinds != 2).equal(mask)
    assert hidden.shape[:2] == mask.shape


@pytest.mark.parametrize("fusion", ["gated_pooling", "concatenation"])
def test_a_samples_answer_does_not_depend_on_its_batch(asked, fusion):
    torch.manual_seed(0)
    sizes = {"grid_tokens": 4 if fusion == "gated_pooling" else None, "tokens_per_view": 4}
    overrides = {"points": True, "fusion": fusion, "text": {"d_model": 32, "num_layers": 1}} | sizes
    model = DrivingT5(build_config("demo", vocab_size=300, image_size=32, overrides=overrides)).eval()
    with torch.no_grad():
        both, _ = model.encode(**asked)
        alone, mask = model.encode(**{name: value[1:] for name, value in asked.items()})
        alone = alone[:, mask[0]]
    torch.testing.assert_close(both[1:, : alone.shape[1]], alone, rtol=1e-4, atol=1e-5)


def test_the_named_place_decides_and_padding_does_not(model, asked):
    def encoded(points: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            hidden, mask = model.encode(**{**asked, "points": points})
        return hidden * mask[:, :, None]

    before = encoded(asked["points"])
    moved, padded = asked["points"].clone(), asked["points"].clone()
    moved[0, 0, 1] = 0.9
    padded[1, 1, 1:] = 0.9
    assert (encoded(moved)[0] - before[0]).abs().max() > 1e-4
    assert torch.equal(encoded(moved)[1], before[1])
    assert torch.equal(encoded(padded), before)
    absent = asked["points"].clone()
    absent[1, 0, 0] = 3  # a camera that the second sample does not have
    gone = asked["points"].clone()
    gone[1, 0, 0] = -1
    torch.testing.assert_close(encoded(absent)[1], encoded(gone)[1])


def test_half_a_tower_keeps_the_first_block_of_every_stage(model, asked):
    half = shrink(model, Shrink(vision="half"))
    assert half.config.vision.depths == [1, 1, 1] and half.config.vision_state == "cut"
    kept = "vision.model.trunk.encoder.stages.1.layers.0.layer.0.convolution.weight"
    assert torch.equal(half.state_dict()[kept], model.state_dict()[kept])
    with torch.no_grad():
        assert half.eval().encode(**asked)[0].isfinite().all()


def test_saving_keeps_every_value(model, asked, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = DrivingT5.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(loaded.encode(**asked)[0], model.encode(**asked)[0])
