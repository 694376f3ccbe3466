"""DriveBench's fifteen corruptions, made anew from its description, seeded, at any picture size.

The public data come without their generator's seed, so they cannot be made again pixel by pixel; the procedures and
parameters are those of the generator that their authors published (descended from RoboBEV's) and of `imagecorruptions`
(Hendrycks and Dietterich, arXiv 1903.12261), which it calls. Ours differ in five things, everywhere:

* **Size.** Lengths in pixels are meant for nuScenes, 1600 pixels wide: they are multiplied by width / 1600, so that a small
  picture looks as a large one does after shrinking. Only flakes and streaks never get thinner than a pixel.
* **Chance.** What is drawn depends on seed, data set, scene, frame and camera, never on a path, on the order of asking or
  on the severity: a higher severity is the same fog, only thicker, and black views stay black.
* **Rounding** is to the nearest of 256 levels; the original cuts off.
* **Colours.** The original hands BGR to functions that expect RGB; ours get RGB. Only snow (the weights of its gray) and
  saturate (the colour that gray gets) notice.
* **Rest.** What the module of a corruption says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image

from drivedistill.data.corruptions import external, motion, sensor, transmission, weather
from drivedistill.data.corruptions.shot import Shot, Shots, shots_of
from drivedistill.data.images import Change
from drivedistill.records import Sample


class Corruption(NamedTuple):
    """One row of `CORRUPTIONS`."""

    group: str
    """weather, external, sensor, motion or transmission"""
    drivebench: int
    """The severity that DriveBench uses."""
    published: str
    """Its folder in the published data."""
    corrupt: Callable[[Image.Image, int, Shot], Image.Image]
    """A picture as it lies on disk (RGB), the severity, where it was taken -> a new picture, as large."""
    severities: tuple[int, ...] = (1, 2, 3, 4, 5)


CORRUPTIONS: dict[str, Corruption] = {
    "brightness": Corruption("weather", 4, "Brightness", weather.brightness),
    "low_light": Corruption("weather", 4, "LowLight", weather.low_light),
    "snow": Corruption("weather", 4, "Snow", weather.snow),
    "fog": Corruption("weather", 5, "Fog", weather.fog),
    "rain": Corruption("weather", 5, "Rain", weather.rain),
    "water_splash": Corruption("external", 4, "WaterSplashCorruption", external.water_splash),
    "lens_obstacle": Corruption("external", 5, "LensObstacleCorruption", external.lens_obstacle),
    "camera_crash": Corruption("sensor", 4, "CameraCrash", sensor.camera_crash),
    "frame_lost": Corruption("sensor", 4, "FrameLost", sensor.frame_lost),
    "saturate": Corruption("sensor", 5, "Saturate", sensor.saturate),
    "motion_blur": Corruption("motion", 4, "MotionBlur", motion.motion_blur),
    "zoom_blur": Corruption("motion", 4, "ZoomBlur", motion.zoom_blur),
    "bit_error": Corruption("transmission", 2, "BitError", transmission.bit_error),
    "color_quant": Corruption("transmission", 4, "ColorQuant", transmission.color_quant),
    "h265": Corruption("transmission", 4, "H256ABRCompression", transmission.h265),
}
"""DriveBench's names are those of `published` (`H256` is its spelling)."""


@dataclass(frozen=True)
class _Corrupted:
    """A `Change`: an object, so that loading processes can be given it."""

    name: str
    severity: int
    shots: Shots

    def __call__(self, path: str, image: Image.Image) -> Image.Image:
        return CORRUPTIONS[self.name].corrupt(image, self.severity, self.shots.at(path))


def corruption(name: str, severity: int, samples: Sequence[Sample], seed: int) -> Change:
    """A corruption of the pictures of these samples.

    Args:
        name: A key of `CORRUPTIONS`.
        severity: One of its severities.
        samples: All samples of the split or file, in its order, asked or not: their frames tell which views there are and
            what follows what. A picture that several cameras, frames or scenes share is treated as that of the first.
        seed: The same seed gives the same pictures.

    Raises:
        InputError: `bit_error` and `h265`: PyAV or its libx265 is missing.
    """
    if name in ("bit_error", "h265"):
        transmission.require_video(name)
    return _Corrupted(name, severity, shots_of(samples, name, seed))
