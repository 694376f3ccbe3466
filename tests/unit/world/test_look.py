from itertools import product

import numpy as np
import pytest

from drivedistill.world.pictures.look import is_dark, look
from drivedistill.world.scene import LIGHTS, WEATHERS, Conditions

EVERY = [Conditions(*both, lamps) for both in product(WEATHERS, LIGHTS) for lamps in (False, True)]


@pytest.mark.parametrize("conditions", EVERY)
def test_every_sky_is_sound(conditions):
    for seed in range(20):
        sky = look(conditions, seed)
        assert np.isclose(np.linalg.norm(sky.sun), 1.0, atol=0.02) and sky.sun[2] > 0.2
        for colour in (sky.sunlight, sky.ambient, sky.horizon, sky.zenith):
            assert all(0.0 <= part < 2.0 for part in colour)
        assert sky == look(conditions, seed)


def test_fields_have_one_type_each_so_that_kernels_are_compiled_once():
    def types(value):
        return [types(part) for part in value] if isinstance(value, tuple) else type(value)

    assert len({str(types(look(conditions, 3))) for conditions in EVERY}) == 1


def test_the_seed_turns_the_sun_and_thickens_fog():
    suns = {look(Conditions("clear", "day", True), seed).sun for seed in range(9)}
    fogs = [look(Conditions("fog", "day", True), seed).fog for seed in range(40)]
    assert len(suns) == 9
    assert 0.033 <= min(fogs) < 0.04 and 0.05 < max(fogs) <= 0.033 * 1.8
    assert len({look(Conditions("clear", "day", True), seed).fog for seed in range(9)}) == 1


def test_weather_and_light_show():
    assert look(Conditions("rain", "day", True), 1).wet == 1.0
    assert look(Conditions("snow", "night", True), 1).snow > 0.5
    assert look(Conditions("clear", "day", True), 1).sun_shadows == 1.0
    assert look(Conditions("cloudy", "day", True), 1).sun_shadows == 0.0
    assert look(Conditions("clear", "night", True), 1).sun_shadows == 0.0
    unlit, lit = (look(Conditions("clear", "night", lamps), 1) for lamps in (False, True))
    assert unlit.ambient < lit.ambient


def test_it_is_dark_unless_a_day_is_dry():
    assert [weather for weather in WEATHERS if is_dark(Conditions(weather, "day", True))] == ["rain", "fog", "snow"]
    assert all(is_dark(Conditions(weather, light, True)) for weather in WEATHERS for light in ("dusk", "night"))
