import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from box_world import STILL, box, flat, model, street, weathers

from drivedistill.records import CAMERAS
from drivedistill.world.materials import Draw, Material
from drivedistill.world.pictures import snapshot as cameras
from drivedistill.world.pictures.look import look
from drivedistill.world.pictures.snapshot import masks, snapshot
from drivedistill.world.pictures.surface import Spot, Surface, snowed
from drivedistill.world.scene import LIGHTS, WEATHERS, Conditions

GOLDEN = "ab4a784bde434df9972467c31f6e5c7eba555153af3fdd9206cbbc40d2b39ea8"
"""The street under four skies. Another hash means other pixels for the same seed: raise `world.VERSION` then."""
DAY, NIGHT = (look(Conditions("clear", light, False), 5) for light in ("day", "night"))


def taken(stage, sky, width=64, height=64, **how):
    return snapshot(stage, STILL, sky, width, height, **how)


def bright(views, camera="CAM_FRONT"):
    return views.pictures[camera].astype(float).mean(axis=2)


def test_the_pictures_are_the_golden_ones_here_and_in_fresh_processes():
    script = Path(__file__).with_name("box_world.py")
    runs = [subprocess.run([sys.executable, script], capture_output=True, text=True, check=True) for _ in range(2)]
    assert {weathers(), *(run.stdout.strip() for run in runs)} == {GOLDEN}


@pytest.mark.long
def test_freshly_compiled_kernels_give_the_golden_pictures_on_a_plain_processor(tmp_path):
    script = Path(__file__).with_name("box_world.py")
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_CPU_NAME": "generic"}
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, env=environment)
    assert run.stdout.strip() == GOLDEN


def test_neither_earlier_calls_nor_the_order_of_cameras_change_a_picture(monkeypatch):
    stage = street()
    before = taken(stage, DAY, 64, 48)
    taken(model([box((5.0, 9.0), (-3.0, 3.0), (0.0, 4.0))]), NIGHT, 64, 48)
    again = taken(stage, DAY, 64, 48)
    monkeypatch.setattr(cameras, "CAMERAS", CAMERAS[::-1])
    back_to_front = taken(stage, DAY._replace(grain=0.0), 64, 48)
    monkeypatch.undo()
    without_noise = taken(stage, DAY._replace(grain=0.0), 64, 48)
    for name in CAMERAS:
        np.testing.assert_array_equal(before.pictures[name], again.pictures[name])
        np.testing.assert_array_equal(without_noise.pictures[name], back_to_front.pictures[name])
        np.testing.assert_array_equal(without_noise.instances[name], back_to_front.instances[name])


@pytest.mark.parametrize("smooth", [1, 2, 3])
@pytest.mark.parametrize("size", [(48, 48), (80, 45)])
def test_masks_alone_are_the_masks_of_the_pictures(size, smooth):
    views, alone = taken(street(), DAY, *size, smooth=smooth), masks(street(), STILL, *size, smooth=smooth)
    assert alone.pictures == {} and alone.size == views.size == size
    for name in CAMERAS:
        np.testing.assert_array_equal(views.instances[name], alone.instances[name])
        assert views.pictures[name].shape == (size[1], size[0], 3)


def test_views_travel_in_the_order_of_the_cameras():
    views = taken(street(), DAY, 48, 48)
    assert tuple(views.pictures) == tuple(views.instances) == CAMERAS


def test_the_seed_changes_noise_only():
    one, other = (taken(street(), DAY, seed=seed) for seed in (1, 2))
    assert not np.array_equal(one.pictures["CAM_FRONT"], other.pictures["CAM_FRONT"])
    assert np.abs(bright(one) - bright(other)).max() < 8
    np.testing.assert_array_equal(one.instances["CAM_FRONT"], other.instances["CAM_FRONT"])


def test_shadows_fall_on_the_ground_only():
    sun = (0.0, 0.6, 0.8)
    sky = DAY._replace(sun=sun, grain=0.0, clouds=0.0)
    tower, wall = ((10.0, 14.0), (4.0, 5.0), (0.0, 6.0)), ((9.0, 15.0), (-4.0, -3.0), (0.0, 3.0))
    casting = taken(model([box(*tower), box(*wall)]), sky, 96, 96)
    bare = taken(model([box(*tower, flags=Draw.TWO_SIDED | Draw.NO_SHADOW), box(*wall)]), sky, 96, 96)
    darker = bright(bare) - bright(casting)
    standing = casting.instances["CAM_FRONT"] > 0
    border = np.zeros_like(standing)
    for shift in (-1, 1):
        for axis in (0, 1):
            border |= np.roll(standing, shift, axis) != standing
    assert np.all(darker >= 0)
    assert (darker > 10).sum() > 30
    assert not (darker > 0)[standing & ~border].any()


def test_a_shadow_lies_away_from_the_sun():
    pole = box((12.0, 12.6), (-0.3, 0.3), (0.0, 4.0))
    for y, side in ((0.7, 1), (-0.7, -1)):  # a sun to the left throws it to the right
        sky = DAY._replace(sun=(0.0, y, 0.714), grain=0.0, clouds=0.0)
        casting, bare = taken(model([pole]), sky, 96, 96), taken(model(), sky, 96, 96)
        dark = (bright(bare) - bright(casting) > 10) & (casting.instances["CAM_FRONT"] == 0)
        columns = np.nonzero(dark)[1]
        assert len(columns) > 10
        assert np.all(np.sign(columns - 47.5) == side) or np.mean(np.sign(columns - 47.5) == side) > 0.9


def test_the_sun_lights_the_side_that_faces_it():
    def wall(x):
        sky = DAY._replace(sun=(x, 0.0, 0.6))
        views = taken(model([box((12.0, 13.0), (-3.0, 3.0), (0.0, 3.0), colour=(0.4, 0.4, 0.4))]), sky)
        return bright(views)[views.instances["CAM_FRONT"] == 1].mean()

    assert wall(-0.8) > wall(0.8) + 40


def test_night_is_darker_than_dusk_and_dusk_than_day():
    for weather in WEATHERS:
        skies = [look(Conditions(weather, light, True), 5)._replace(exposure=1.0) for light in LIGHTS]
        levels = [bright(taken(street(), sky)).mean() for sky in skies]
        assert levels == sorted(levels, reverse=True)
        exposed = [bright(taken(street(), look(Conditions(weather, light, True), 5))).mean() for light in LIGHTS]
        assert exposed[2] < 0.6 * exposed[0]


def test_fog_takes_contrast_away_with_distance():
    def contrast(weather, x):
        sky = look(Conditions(weather, "day", True), 5)
        sky = sky._replace(grain=0.0, zenith=sky.horizon)
        stage = model([box((x, x + 2.0), (-0.05 * x, 0.05 * x), (0.0, 0.1 * x), colour=(0.02, 0.02, 0.02))])
        views = taken(stage, sky)
        mask = views.instances["CAM_FRONT"] == 1
        return abs(bright(views)[mask].mean() - bright(views)[:20].mean())

    near, middle, far, gone = (contrast("fog", x) for x in (6.0, 25.0, 60.0, 160.0))
    assert near > middle + 10 > far + 20
    assert gone < 6
    assert contrast("clear", 60.0) > 2 * far


@pytest.mark.parametrize("weather", ["rain", "fog", "snow"])
@pytest.mark.parametrize("light", LIGHTS)
def test_nothing_far_away_is_brighter_than_the_sky_behind_it(weather, light):
    sky = look(Conditions(weather, light, False), 5)._replace(grain=0.0, rain=0.0, flakes=0.0)
    for x, height in ((80.0, 34.0), (110.0, 10.0)):
        tower = box((x, x + 5.0), (-20.0, 20.0), (0.0, height), colour=(0.3, 0.3, 0.3))
        views, open_land = taken(model([tower]), sky, 96, 96), taken(model(), sky, 96, 96)
        upper = (views.instances["CAM_FRONT"] == 1) & (np.arange(96)[:, None] < 40)
        assert upper.sum() > 20
        assert (bright(views) - bright(open_land))[upper].max() < 2


def test_lamps_and_headlights_light_what_is_near_them():
    wall = box((14.0, 15.0), (-8.0, 8.0), (0.0, 4.0), colour=(0.5, 0.5, 0.5))
    dark = bright(taken(model([wall]), NIGHT._replace(beam=0.0)))
    lit = bright(taken(model([wall], lamps=[(12.0, 0.0, 3.0, 1.0, 0.8, 0.5, 7.0)]), NIGHT._replace(beam=0.0)))
    beamed = bright(taken(model([wall]), NIGHT))
    assert lit[32].max() > dark[32].max() + 40
    assert beamed[35].max() > dark[35].max() + 40


def test_a_glow_shines_forward_and_is_hidden_by_what_stands_before_it():
    def red(facing, boxes=(), *, glowing=True):
        glows = [(20.0, 0.0, 1.0, 1.0, 0.1, 0.1, 0.2, 1.0, facing, 0.0)] if glowing else []
        return taken(model(boxes, glows=glows), NIGHT._replace(beam=0.0)).pictures["CAM_FRONT"][..., 0]

    screen = box((10.0, 11.0), (-3.0, 3.0), (0.0, 3.0))
    assert red(-1.0).max() > 150
    np.testing.assert_array_equal(red(1.0), red(1.0, glowing=False))
    np.testing.assert_array_equal(red(-1.0, [screen]), red(-1.0, [screen], glowing=False))


def test_a_wet_road_shows_streaks_of_lamps():
    glows = [(25.0, 0.0, 1.0, 1.0, 0.1, 0.1, 0.2, 1.3, -1.0, 0.0)]
    wet = look(Conditions("rain", "night", True), 5)._replace(beam=0.0, rain=0.0, grain=0.0)
    road = flat((-50.0, 100.0), (-8.0, 8.0))

    def below(sky):
        picture = taken(model(ground=[road], glows=glows), sky, 96, 96).pictures["CAM_FRONT"].astype(float)
        return (picture[60:80, 48, 0] - picture[60:80, 48, 2]).max()

    assert below(wet) > below(wet._replace(wet=0.0)) + 20


def test_snow_whitens_what_faces_up():
    sky = look(Conditions("snow", "day", True), 5)._replace(flakes=0.0)
    meadow = bright(taken(model(), sky))[48:].mean()
    assert meadow > bright(taken(model(), sky._replace(snow=0.0)))[48:].mean() + 60


def test_wheel_tracks_in_snow_run_along_the_road_wherever_it_leads():
    sky, bare = look(Conditions("snow", "day", True), 5), Surface(0.1, 0.1, 0.1, 0.0, 0.0, 0.0)

    def red(along, across):
        return snowed(int(Material.ASPHALT), bare, Spot(9.0, 7.0, 0.0, 9.0, along, across, 0), 1.0, sky).red

    seen = np.array([[red(along, across) for across in np.arange(-7, 7, 0.1)] for along in np.arange(0.0, 90.0, 1.0)])
    assert seen.mean(axis=0).std() > 3 * seen.mean(axis=1).std()
    ruts = np.abs(np.arange(-7, 7, 0.1) % 3.5 - 1.75)
    assert seen[:, (ruts > 0.5) & (ruts < 1.0)].mean() < 0.8 * seen[:, ruts > 1.5].mean()


def test_pictures_may_be_as_large_as_a_camera_sensor():
    views = taken(street(), DAY, 1600, 900, smooth=1)
    assert views.pictures["CAM_BACK"].shape == (900, 1600, 3)
    assert views.size == (1600, 900)


@pytest.mark.parametrize("material", list(Material))
def test_every_material_can_be_shaded_under_every_sky(material):
    stage = model(
        [box((6.0, 9.0), (-2.0, 2.0), (0.0, 3.0), material, (0.6, 0.5, 0.1))], [flat((0, 30), (-9, 9), material)]
    )
    for weather in WEATHERS:
        for light in ("day", "night"):
            picture = taken(stage, look(Conditions(weather, light, True), 5), 32, 32, smooth=1).pictures["CAM_FRONT"]
            assert picture.std() > 2
