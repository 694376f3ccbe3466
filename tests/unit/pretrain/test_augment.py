"""Pictures changed at random, and what was in them found again."""

from __future__ import annotations

import pytest
import torch

from drivedistill.pretrain import augment
from drivedistill.pretrain.augment import changed

SIDE = 48


@pytest.fixture
def spots():
    """Twenty dark pictures with one bright spot each, and where it is: column and row."""
    torch.manual_seed(0)
    pictures = torch.full((20, SIDE, SIDE, 3), 20, dtype=torch.uint8)
    place = torch.randint(12, SIDE - 12, (20, 2))
    pictures[torch.arange(20), place[:, 1], place[:, 0]] = 250
    return pictures, place


def test_what_was_at_a_place_is_where_it_is_said_to_have_moved(spots, monkeypatch):
    monkeypatch.setattr(augment, "NOISE", 0.0)
    pictures, place = spots
    shown, moved = changed(pictures, torch.Generator().manual_seed(1))
    brightest = shown.sum(dim=3).flatten(1).argmax(dim=1)
    found = torch.stack([brightest % SIDE, brightest // SIDE], dim=1)
    assert torch.equal(found, place + (moved * SIDE).round().long())
    assert moved.abs().max() <= augment.TURN + 0.5 / SIDE and len(moved.unique(dim=0)) > 10


def test_every_picture_is_changed_in_its_own_way_within_the_bounds(spots):
    pictures, _ = spots
    shown, _ = changed(pictures, torch.Generator().manual_seed(1))
    means = shown.mean(dim=(1, 2))
    assert shown.shape == pictures.shape and shown.min() >= 0 and shown.max() <= 255
    assert len(means.unique(dim=0)) == 20
    assert means.std(dim=0).min() > 1


def test_the_generator_decides_everything(spots):
    pictures, _ = spots
    first, again, other = (changed(pictures, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
