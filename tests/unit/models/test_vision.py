"""The vision encoder: parity with the networks it wraps, absent views, frozen and unused parts."""

import pytest
import torch
from transformers import ConvNextConfig, SwinConfig, ViTConfig

from drivedistill.models.vision import VisionEncoder, token_grid, token_width

CONFIGS = {
    "vit": ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
        hidden_dropout_prob=0.0,
    ),
    "swin": SwinConfig(
        embed_dim=8, depths=[2, 2], num_heads=[2, 2], window_size=4, image_size=32, patch_size=4, drop_path_rate=0.5
    ),
    "convnext": ConvNextConfig(num_stages=2, depths=[1, 1], hidden_sizes=[8, 16], image_size=32),
}
MASK = torch.tensor([[1, 1, 1], [0, 1, 0]]).bool()


@pytest.fixture
def pictures() -> torch.Tensor:
    return torch.randn(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def build(kind: str, **options) -> VisionEncoder:
    torch.manual_seed(0)
    return VisionEncoder(CONFIGS[kind], **options).eval()


@pytest.mark.parametrize("kind", CONFIGS)
def test_tokens_have_the_announced_grid_and_width(kind, pictures):
    encoder = build(kind)
    rows, columns = token_grid(CONFIGS[kind])
    assert encoder(pictures, MASK).shape == (2, 3, rows * columns, token_width(CONFIGS[kind]))


@pytest.mark.parametrize("kind", CONFIGS)
def test_absent_views_are_zero_and_never_read(kind, pictures):
    encoder = build(kind)
    tokens = encoder(pictures, MASK)
    assert (tokens[~MASK] == 0).all() and (tokens[MASK] != 0).any()
    pictures[~MASK] = float("nan")
    assert torch.equal(encoder(pictures, MASK), tokens)


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_view_does_not_depend_on_its_batch(kind, pictures):
    encoder = build(kind)
    tokens = encoder(pictures, MASK)
    torch.testing.assert_close(encoder(pictures[1:, 1:2])[0, 0], tokens[1, 1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", CONFIGS)
def test_no_mask_means_that_all_views_exist(kind, pictures):
    encoder = build(kind)
    torch.testing.assert_close(encoder(pictures), encoder(pictures, torch.ones(2, 3).bool()))


def test_vit_drops_the_class_token(pictures):
    encoder = build("vit")
    expected = encoder.model(pictures.flatten(0, 1)).last_hidden_state[:, 1:]
    torch.testing.assert_close(encoder(pictures).flatten(0, 1), expected)


def test_vit_without_blocks_is_patch_plus_position_embedding(pictures):
    encoder = build("vit", blocks=False)
    embeddings = encoder.model.embeddings
    patches = embeddings.patch_embeddings.projection(pictures[0]).flatten(2).transpose(1, 2)
    torch.testing.assert_close(encoder(pictures)[0], patches + embeddings.position_embeddings[:, 1:])


def test_convnext_tokens_are_normalised(pictures):
    tokens = build("convnext")(pictures)
    torch.testing.assert_close(tokens.mean(-1), torch.zeros(2, 3, 16), atol=1e-5, rtol=0)


def test_swin_tokens_are_its_last_feature_map(pictures):
    encoder = build("swin")
    expected = encoder.model(pictures.flatten(0, 1)).last_hidden_state
    torch.testing.assert_close(encoder(pictures).flatten(0, 1), expected)


@pytest.mark.parametrize("kind", ["swin", "convnext"])
@pytest.mark.parametrize("size", [32, 40, 56])
def test_announced_grid_is_right_for_sizes_that_do_not_divide(kind, size):
    config = type(CONFIGS[kind])(**{**CONFIGS[kind].to_dict(), "image_size": size})
    rows, columns = token_grid(config)
    assert VisionEncoder(config).eval()(torch.randn(1, 1, 3, size, size)).shape[2] == rows * columns


def test_stored_parts_change_nothing_and_get_no_gradient(pictures):
    full, used = build("vit", blocks=False, stored="full", classes=10), build("vit", blocks=False)
    used.load_state_dict(full.state_dict(), strict=False)
    assert torch.equal(full(pictures), used(pictures))
    full(pictures).sum().backward()
    idle = {name for name, parameter in full.named_parameters() if not parameter.requires_grad}
    assert idle == {name for name, parameter in full.named_parameters() if parameter.grad is None}
    assert "head.weight" in idle and len(idle) > len(list(used.parameters()))


def test_a_frozen_encoder_stays_in_eval_mode(pictures):
    encoder = build("swin")
    torch.manual_seed(0)
    assert not torch.equal(encoder.train()(pictures), encoder(pictures))
    encoder.requires_grad_(False)
    assert torch.equal(encoder.train()(pictures), encoder(pictures))


def test_pictures_of_another_size_are_refused(pictures):
    with pytest.raises(ValueError, match=r"float\[B, C, 3, 32, 32\], got \(2, 3, 3, 32, 24\)"):
        build("convnext")(pictures[..., :24])


def test_a_mask_of_another_shape_is_refused(pictures):
    with pytest.raises(ValueError, match="view_mask"):
        build("convnext")(pictures, MASK[:, :2])
