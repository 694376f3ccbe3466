"""Every texture that is used lies in its own tile."""

from __future__ import annotations

from typing import get_args, get_type_hints

import numpy as np

from drivedistill.world.meshes import atlas
from drivedistill.world.scene import Sign

PICTURE = atlas.build()


def tile(name: str) -> np.ndarray:
    left, top = (atlas.uv(name).min(0) * len(PICTURE)).astype(int)
    right, bottom = (atlas.uv(name).max(0) * len(PICTURE)).astype(int)
    return PICTURE[top:bottom, left:right]


def test_atlas_has_its_shape_and_is_drawn_alike_every_time():
    assert (PICTURE.shape, PICTURE.dtype) == ((1024, 1024, 4), np.uint8)
    assert np.array_equal(PICTURE, atlas.build())


def test_every_kind_of_sign_has_a_tile_of_its_own():
    kinds = get_args(get_type_hints(Sign)["kind"])
    assert set(kinds) <= set(atlas.TILES)
    pictures = [tile(kind).tobytes() for kind in kinds]
    assert len(set(pictures)) == len(kinds)


def test_tiles_do_not_touch():
    corners = [np.round(atlas.uv(name), 6) for name in atlas.TILES]
    assert all((part >= 0).all() and (part <= 1).all() for part in corners)
    cells = {tuple(np.floor(part.mean(0) * 4).astype(int)) for part in corners}
    assert len(cells) == len(atlas.TILES)
    for part in corners:
        assert (np.floor(part * 4) == np.floor(part.mean(0) * 4)).all()


def test_tiles_are_partly_opaque():
    for name in atlas.TILES:
        share = (tile(name)[..., 3] > 127).mean()
        assert 0.03 < share <= 1, name


def test_stop_sign_is_red_and_a_dirty_one_is_less_so():
    def red(name: str) -> float:
        return float((tile(name)[..., :3] == atlas.RED[:3]).all(axis=2).mean())

    assert red("stop") > red("dirty stop") > 0.15


def test_corners_run_from_bottom_left_counter_clockwise():
    bottom_left, bottom_right, top_right, top_left = atlas.uv("stop")
    assert bottom_left[1] > top_left[1]
    assert bottom_right[0] > bottom_left[0]
    assert top_right.tolist() == [bottom_right[0], top_left[1]]
