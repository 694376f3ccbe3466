"""Drive-KD's losses on attention maps: published examples first, then properties."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from drivedistill.batch import Map
from drivedistill.distill.attention_loss import hidden_loss, layer_groups, layer_range, map_loss, pairs

STUDENT = [
    [[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.2, 0.3, 0.5, 0], [0.1, 0.2, 0.3, 0.4]],
    [[1, 0, 0, 0], [0.7, 0.3, 0, 0], [0.4, 0.4, 0.2, 0], [0.3, 0.2, 0.1, 0.4]],
]
TEACHER = [
    [[1, 0, 0, 0], [0.6, 0.4, 0, 0], [0.1, 0.6, 0.3, 0], [0.1, 0.4, 0.4, 0.1]],
    [[1, 0, 0, 0], [0.8, 0.2, 0, 0], [0.3, 0.3, 0.4, 0], [0.2, 0.2, 0.2, 0.4]],
    [[1, 0, 0, 0], [0.4, 0.6, 0, 0], [0.2, 0.3, 0.5, 0], [0, 0.6, 0.3, 0.1]],
]


def mean(heads):
    return torch.tensor(heads).mean(dim=0)[None]


def whole(values):
    places = torch.arange(values.shape[1])[None].expand(len(values), -1)
    return Map(values, places, places)


def block(values):
    """Rows 0 and 3 are text, columns 1 and 2 are image."""
    return Map(values[:, [0, 3]][:, :, [1, 2]], torch.tensor([[0, 3]]), torch.tensor([[1, 2]]))


def groups(student, teacher, start=0, end=-2):
    return layer_groups(layer_range(student, start, end), layer_range(teacher, start, end))


def test_grouping_as_the_released_code_does_it():
    assert groups(4, 6) == {0: [0, 1, 2], 1: [1, 2, 3], 2: [2, 3, 4]}
    assert groups(6, 4) == {0: [0], 1: [1], 2: [2], 3: [2], 4: [2]}
    assert groups(24, 28)[0] == [0, 1, 2, 3, 4] and groups(24, 28)[22] == [22, 23, 24, 25, 26]
    assert groups(24, 48)[11] == list(range(11, 36)) and groups(28, 64)[26] == list(range(26, 63))
    assert groups(28, 28) == {i: [i] for i in range(27)}
    deeper = groups(36, 28)
    assert [deeper[i] for i in range(26, 35)] == [[26]] * 9 and deeper[17] == [17] and len(deeper) == 35


@pytest.mark.parametrize(("start", "end"), [(3, 1), (-1, 0), (0, 4), (-5, -1)])
def test_layers_that_are_none_are_refused(start, end):
    with pytest.raises(ValueError, match="of a model with 4 layers"):
        layer_range(4, start, end)


@given(st.integers(1, 40), st.integers(1, 40))
def test_every_student_layer_follows_a_window_and_every_teacher_layer_is_followed(k, m):
    found = layer_groups(list(range(k)), list(range(m)))
    assert len({len(window) for window in found.values()}) == 1
    assert [window[0] for window in found.values()] == sorted(window[0] for window in found.values())
    if k <= m:
        assert {layer for window in found.values() for layer in window} == set(range(m))


def test_the_example_of_the_specification():
    ours, theirs = mean(STUDENT), mean(TEACHER)
    assert ours[0, 3].tolist() == pytest.approx([0.2, 0.2, 0.2, 0.4])
    assert map_loss(block(ours), block(theirs).values).item() == pytest.approx(0.0125)
    assert map_loss(whole(ours), theirs).item() == pytest.approx(0.0071875)
    assert map_loss(block(ours), block(theirs).values, causal=True).item() == pytest.approx(0.025)
    assert map_loss(whole(ours), theirs, causal=True).item() == pytest.approx(0.0071875 * 16 / 10)


@pytest.mark.parametrize("distance", ["mse", "cosine"])
def test_equal_maps_are_no_distance_apart_and_the_teacher_has_no_gradient(distance):
    theirs = mean(TEACHER).requires_grad_()
    assert map_loss(whole(mean(TEACHER)), theirs, distance).item() == pytest.approx(0, abs=1e-6)
    ours = mean(STUDENT).requires_grad_()
    map_loss(whole(ours), theirs, distance).sum().backward()
    assert ours.grad.abs().sum() > 0 and theirs.grad is None


def test_cosine_is_the_mean_over_rows_that_look_somewhere():
    ours, theirs = block(mean(STUDENT)), block(mean(TEACHER)).values
    cosine = torch.cosine_similarity(torch.tensor([0.2, 0.2]), torch.tensor([0.4, 0.3]), dim=0)
    assert map_loss(ours, theirs, "cosine").item() == pytest.approx(1 - cosine.item(), abs=1e-6)  # row 0 sees no image


@pytest.mark.parametrize("distance", ["mse", "cosine"])
def test_no_image_is_a_loss_of_zero_with_a_gradient(distance):
    values = torch.rand(1, 3, 0, requires_grad=True)
    empty = Map(values, torch.tensor([[0, 1, 2]]), torch.zeros(1, 0, dtype=torch.int64))
    loss = map_loss(empty, torch.rand(1, 3, 0), distance)
    loss.sum().backward()
    assert loss.item() == 0 and values.grad.shape == values.shape


@pytest.mark.parametrize("distance", ["mse", "cosine"])
@pytest.mark.parametrize("causal", [False, True])
def test_padding_counts_for_nothing(distance, causal):
    ours, theirs = mean(STUDENT), mean(TEACHER)
    alone = map_loss(whole(ours), theirs, distance, causal=causal)
    pad = (0, 3, 0, 3)
    places = torch.tensor([[0, 1, 2, 3, -1, -1, -1]])
    padded = Map(torch.nn.functional.pad(ours, pad), places, places)
    found = map_loss(padded, torch.nn.functional.pad(theirs, pad), distance, causal=causal)
    torch.testing.assert_close(found, alone)
    assert pairs(padded).tolist() == [16] and pairs(padded, causal=True).tolist() == [10]


def test_hidden_states_are_compared_on_real_tokens_alone():
    ours, theirs = torch.randn(2, 4, 3), torch.randn(2, 4, 3)
    places = torch.tensor([[0, 1, 2, 3], [0, 1, -1, -1]])
    found = hidden_loss(Map(ours, places, places[:, :0]), theirs)
    expected = [(ours[0] - theirs[0]).square().mean(), (ours[1, :2] - theirs[1, :2]).square().mean()]
    torch.testing.assert_close(found, torch.stack(expected))
    shifted = Map(ours, torch.tensor([[0, 1, 2, 3], [2, 3, -1, -1]]), places[:, :0])  # padding may stand in front
    torch.testing.assert_close(hidden_loss(shifted, theirs)[1], (ours[1, 2:] - theirs[1, 2:]).square().mean())
    assert hidden_loss(Map(theirs, places, places[:, :0]), theirs, "cosine").abs().max() < 1e-6
    turned = hidden_loss(Map(-theirs, places, places[:, :0]), theirs, "cosine")
    torch.testing.assert_close(turned, torch.full((2,), 2.0))
