import numpy as np
import pytest

from drivedistill.world.pictures.finish import develop
from drivedistill.world.pictures.look import look
from drivedistill.world.scene import Conditions

PLAIN = look(Conditions("clear", "day", True), 1)._replace(grain=0.0)


def developed(light, sky=PLAIN, seed=1, size=(40, 60)):
    light = np.broadcast_to(np.asarray(light, np.float32), (*size, 3)).copy()
    picture = np.empty((*size, 3), np.uint8)
    develop(light, sky, seed, np.zeros(size, np.float32), picture)
    return picture


def test_more_light_is_never_darker_and_white_paint_in_the_sun_is_not_burnt_out():
    levels = [int(developed(light)[0, 0, 0]) for light in (0.0, 0.02, 0.1, 0.3, 0.6, 0.9, 1.4, 3.0)]
    assert levels == sorted(set(levels))
    assert levels[0] == 0
    assert levels[-2] < 242 < levels[-1] < 255


def test_exposure_scales_light():
    np.testing.assert_array_equal(developed(0.1, PLAIN._replace(exposure=2.0)), developed(0.2))


def test_noise_has_no_bias_and_the_stated_size():
    picture = developed(0.25, PLAIN._replace(grain=0.03), size=(200, 200)).astype(float)
    assert abs(picture[..., 0].mean() - 127.5) < 0.5
    assert picture[..., 0].std() == pytest.approx(0.03 * 255 / np.sqrt(6), rel=0.05)


@pytest.mark.parametrize("falling", [{"rain": 1.0}, {"flakes": 1.0}])
def test_what_falls_brightens_a_dark_scene_anew_with_every_seed_at_any_size(falling):
    sky = PLAIN._replace(**falling)
    for size in ((48, 48), (112, 112), (450, 800)):
        one, other = (developed(0.05, sky, seed, size).astype(int) for seed in (1, 2))
        before = developed(0.05, PLAIN, size=size).astype(int)
        share = np.mean(np.any(one != before, axis=2))
        assert np.all(one >= before)
        assert 0.01 < share < 0.6
        assert not np.array_equal(one, other)
