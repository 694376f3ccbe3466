"""Fusion of views: masked pooling, concatenation, and the order of the encoder's sequence."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from drivedistill.models.fusion import Concatenation, GatedPooling, pooled_grid, sequence_layout


@pytest.fixture
def views() -> torch.Tensor:
    return torch.randn(3, 6, 4, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def pooling() -> GatedPooling:
    torch.manual_seed(0)
    return GatedPooling(num_tokens=4, width=8, hidden=5)


MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [0, 0, 1, 0, 0, 0], [1, 0, 0, 1, 0, 1]]).bool()


def test_pooling_weights_sum_to_one_over_present_views_and_are_zero_elsewhere(pooling, views):
    weights = pooling.weights(views, MASK)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3))
    assert (weights[~MASK] == 0).all() and (weights[MASK] > 0).all()


def test_pooling_one_view_gives_exactly_its_tokens(pooling, views):
    assert torch.equal(pooling(views, MASK)[1], views[1, 2])


def test_pooling_equals_the_published_formula(pooling, views):
    for b in range(3):
        scores = []
        for c in MASK[b].nonzero().flatten():
            x = views[b, c].reshape(-1)
            gates = torch.tanh(pooling.content.weight @ x) * torch.sigmoid(pooling.gate.weight @ x)
            scores.append(pooling.score.weight[0] @ gates + pooling.score.bias[0])
        weights = torch.stack(scores).softmax(0)
        expected = sum(w * views[b, c] for w, c in zip(weights, MASK[b].nonzero().flatten(), strict=True))
        torch.testing.assert_close(pooling(views, MASK)[b], expected)


def test_pooling_does_not_depend_on_the_order_of_views(pooling, views):
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    torch.testing.assert_close(pooling(views[:, order], MASK[:, order]), pooling(views, MASK))


def test_pooling_without_a_mask_takes_all_views(pooling, views):
    assert torch.equal(pooling(views), pooling(views, torch.ones(3, 6).bool()))


@pytest.mark.parametrize("fusion", [GatedPooling(4, 8, 5), Concatenation((2, 2), 2)])
def test_absent_views_get_no_gradient_and_their_content_does_not_matter(fusion, views):
    views = views.requires_grad_()
    kept = fusion.token_mask(MASK)
    fusion(views, MASK)[kept].square().sum().backward()
    assert (views.grad[~MASK] == 0).all() and (views.grad[MASK] != 0).any()
    garbage = torch.where(MASK[:, :, None, None], views, 1e6 * torch.randn_like(views))
    assert torch.equal(fusion(garbage, MASK)[kept], fusion(views, MASK)[kept])


@pytest.mark.parametrize("fusion", [GatedPooling(4, 8, 5), Concatenation((2, 2), 2)])
def test_a_sample_without_views_has_no_image_tokens_and_harms_nobody(fusion, views):
    blind = torch.tensor([[1] * 6, [0] * 6, [1] * 6]).bool()
    views = views[:3].clone().requires_grad_()
    pooled = fusion(views, blind)
    assert fusion.token_mask(blind).any(dim=1).tolist() == [True, False, True]
    torch.testing.assert_close(pooled[[0, 2]], fusion(views[[0, 2]], blind[[0, 2]]))
    pooled.square().sum().backward()
    assert views.grad.isfinite().all()


def test_concatenation_keeps_tokens_in_order_when_nothing_is_pooled(views):
    assert torch.equal(Concatenation((2, 2), 4)(views), views.flatten(1, 2))


def test_concatenation_averages_neighbours():
    grid = torch.arange(16.0).view(1, 1, 16, 1)
    corners = Concatenation((4, 4), 4)(grid).flatten()
    assert corners.tolist() == [2.5, 4.5, 10.5, 12.5]


def test_concatenation_mask_follows_the_views():
    mask = Concatenation((2, 2), 2).token_mask(torch.tensor([[True, False, True]]))
    assert mask.tolist() == [[True, True, False, False, True, True]]


@pytest.mark.parametrize(("tokens", "expected"), [(1, (1, 1)), (6, (2, 3)), (7, (1, 7)), (9, (3, 3)), (12, (3, 4))])
def test_pooled_grid_is_the_most_square_one(tokens, expected):
    assert pooled_grid((7, 7), tokens) == expected


@pytest.mark.parametrize("tokens", [0, 11, 64])
def test_pooled_grid_refuses_what_does_not_fit(tokens):
    with pytest.raises(ValueError, match="tokens_per_view"):
        pooled_grid((7, 7), tokens)


def test_compact_layout_puts_text_then_image_then_padding():
    text = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0]]).bool()
    image = torch.tensor([[1, 1, 1], [0, 1, 0]]).bool()
    order, kind = sequence_layout(text, image, "compact")
    assert kind.tolist() == [[0, 0, 1, 1, 1], [0, 0, 0, 1, 2]]
    assert order[0].tolist() == [0, 1, 4, 5, 6] and order[1, :4].tolist() == [0, 1, 2, 5]
    assert kind.dtype == torch.int8


def test_padded_layout_leaves_the_padding_between_text_and_image():
    text = torch.tensor([[1, 1, 0], [1, 1, 1]]).bool()
    order, kind = sequence_layout(text, torch.tensor([[1, 1], [1, 0]]).bool(), "padded")
    assert order is None and kind.tolist() == [[0, 0, 2, 1, 1], [0, 0, 0, 1, 2]]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.lists(st.booleans(), min_size=4, max_size=4)), min_size=1, max_size=5))
def test_compact_layout_keeps_every_token_once_and_in_order(samples):
    lengths = torch.tensor([length for length, _ in samples])
    text = torch.arange(6) < lengths[:, None]
    image = torch.tensor([present for _, present in samples])
    order, kind = sequence_layout(text, image, "compact")
    mask = torch.cat([text, image], dim=1)
    for b in range(len(samples)):
        kept = order[b][kind[b] < 2]
        assert kept.tolist() == mask[b].nonzero().flatten().tolist()
        assert (kind[b].sort().values == kind[b]).all()
