"""How weather and light look: the sun, the sky, fog, wet and snow, and the camera's exposure."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np

from drivedistill.world.scene import Conditions, Light, Weather

Colour: TypeAlias = tuple[float, float, float]
"""Linear red, green, blue; 1 is what a white sheet sends back on an ordinary day."""


class Sky(NamedTuple):
    """Where light comes from."""

    sunlight: Colour
    ambient: Colour
    horizon: Colour
    """Of the sky near the horizon."""
    zenith: Colour
    clouds: float
    """Cover, from 0 to 1."""


class Look(NamedTuple):
    """All that shading needs to know about weather and light."""

    sun: Colour
    """Unit vector toward the sun."""
    sunlight: Colour
    ambient: Colour
    horizon: Colour
    zenith: Colour
    clouds: float
    sun_shadows: float
    """1: everything casts one; 0: under an overcast sky, or at night, only a faint one right below vehicles."""
    fog: float
    """Extinction, 1/m."""
    wet: float
    snow: float
    night: float
    """0 by day, 1 at night: how much of the light comes from lamps."""
    beam: float
    """Strength of the ego's headlights."""
    exposure: float
    grain: float
    """Standard deviation of the sensor's noise, as a part of full scale (of a triangular distribution: about 2/5 of this)."""
    rain: float
    flakes: float
    seed: int
    """Of clouds, puddles and the skyline."""


DAY: dict[Weather, Sky] = {
    "clear": Sky((1.45, 1.36, 1.20), (0.46, 0.52, 0.62), (0.60, 0.69, 0.80), (0.14, 0.28, 0.58), 0.35),
    "cloudy": Sky((0.22, 0.22, 0.21), (0.78, 0.81, 0.86), (0.60, 0.63, 0.67), (0.36, 0.40, 0.47), 0.95),
    "rain": Sky((0.04, 0.04, 0.04), (0.54, 0.57, 0.61), (0.42, 0.45, 0.48), (0.25, 0.28, 0.32), 1.0),
    "fog": Sky((0.05, 0.05, 0.05), (0.70, 0.72, 0.74), (0.58, 0.60, 0.62), (0.50, 0.52, 0.55), 0.0),
    "snow": Sky((0.12, 0.12, 0.12), (0.68, 0.71, 0.76), (0.64, 0.67, 0.71), (0.52, 0.56, 0.61), 0.9),
}
DUSK_CLEAR = Sky((0.80, 0.50, 0.30), (0.23, 0.24, 0.30), (0.50, 0.38, 0.31), (0.11, 0.15, 0.28), 0.45)
DUSK_TINT = (0.41, 0.40, 0.42)
"""What dusk leaves of an overcast day."""
NIGHT_CLEAR = Sky((0.0, 0.0, 0.0), (0.034, 0.037, 0.048), (0.032, 0.036, 0.052), (0.006, 0.008, 0.018), 0.3)
NIGHT_HAZY = Sky((0.0, 0.0, 0.0), (0.040, 0.042, 0.050), (0.055, 0.056, 0.062), (0.020, 0.021, 0.026), 0.6)
UNLIT = 0.45
"""What is left of the night's light away from street lamps."""

ELEVATION: dict[Light, float] = {"day": 38.0, "dusk": 13.0, "night": 40.0}
"""Of the sun, degrees; by day up to 25 more."""
OVERCAST_SUN = (0.15, 0.10, 0.98)
FOG: dict[Weather, float] = {"clear": 0.0012, "cloudy": 0.0016, "rain": 0.008, "fog": 0.033, "snow": 0.010}
EXPOSURE: dict[Light, float] = {"day": 1.0, "dusk": 1.35, "night": 1.9}
GRAIN: dict[Light, float] = {"day": 0.012, "dusk": 0.018, "night": 0.030}
NIGHT: dict[Light, float] = {"day": 0.0, "dusk": 0.45, "night": 1.0}
BEAM: dict[Light, float] = {"day": 0.0, "dusk": 0.30, "night": 1.0}


def is_dark(conditions: Conditions) -> bool:
    """Do people drive with their headlights on?"""
    return conditions.light != "day" or conditions.weather in ("rain", "fog", "snow")


def look(conditions: Conditions, seed: int) -> Look:
    """The look of a scene; the seed chooses where the sun stands, the clouds and how dense fog is."""
    rng = np.random.default_rng([seed, 71])
    light, weather = conditions.light, conditions.weather
    sky, sun = _sky(conditions), _sun(light, rng)
    sunny = weather == "clear" and light != "night"
    thicker = 1.0 + float(rng.uniform(0.0, 0.8)) * (weather == "fog")
    return Look(
        sun=sun if sunny else OVERCAST_SUN,
        sunlight=sky.sunlight,
        ambient=sky.ambient,
        horizon=sky.horizon,
        zenith=sky.zenith,
        clouds=sky.clouds,
        sun_shadows=float(sunny),
        fog=FOG[weather] * thicker,
        wet=float(weather == "rain"),
        snow=0.92 * (weather == "snow"),
        night=NIGHT[light],
        beam=BEAM[light],
        exposure=EXPOSURE[light],
        grain=GRAIN[light],
        rain=float(weather == "rain"),
        flakes=float(weather == "snow"),
        seed=int(rng.integers(1, 1000)),
    )


def _sun(light: Light, rng: np.random.Generator) -> Colour:
    azimuth = float(rng.uniform(0, 2 * np.pi))
    elevation = float(np.radians(ELEVATION[light] + (rng.uniform(0, 25) if light == "day" else 0.0)))
    level = float(np.cos(elevation))
    return float(np.cos(azimuth)) * level, float(np.sin(azimuth)) * level, float(np.sin(elevation))


def _sky(conditions: Conditions) -> Sky:
    if conditions.light == "day":
        return DAY[conditions.weather]
    if conditions.light == "dusk":
        if conditions.weather == "clear":
            return DUSK_CLEAR
        bright = DAY[conditions.weather]
        return _tinted(bright, DUSK_TINT)
    sky = NIGHT_CLEAR if conditions.weather in ("clear", "cloudy") else NIGHT_HAZY
    left = (1.0, 1.0, 1.0) if conditions.street_lamps else (UNLIT, UNLIT, UNLIT)
    return _tinted(sky, left)


def _tinted(sky: Sky, tint: Colour) -> Sky:
    def dyed(colour: Colour) -> Colour:
        """What the tint leaves of a colour."""
        return colour[0] * tint[0], colour[1] * tint[1], colour[2] * tint[2]

    return Sky(dyed(sky.sunlight), dyed(sky.ambient), dyed(sky.horizon), dyed(sky.zenith), sky.clouds)
