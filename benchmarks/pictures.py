"""From six JPEGs to a tensor: how long a sample's pictures take, by the way they are decoded, scaled and normalised.

    python benchmarks/pictures.py --out benchmarks/pictures.json

Six pictures of 1600 x 900 pixels, noise at several scales as a decoder finds it in a street, quality 85, about 360 kB each,
are read from files and made a normalised `float32[6, 3, 224, 224]`. `plain` is Pillow as one writes it first: full decoding,
bicubic scaling, numpy. `reduced` uses simplejpeg where it is installed. Differences are mean absolute grey levels of 255 to
`full`, our picture without reduction. One process, one thread; all ways take turns, figures are medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import ViTImageProcessorPil

from drivedistill.data import images
from drivedistill.data.collate import Preparation, Reading, pixels
from drivedistill.data.images import PictureCache, load_image
from drivedistill.distill.row_store import RowStore

SIDE = 224
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
PROCESSOR = ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}, image_mean=MEAN.tolist(), image_std=STD.tolist())


def street(draw: np.random.Generator) -> Image.Image:
    """Noise at six scales and some of every pixel."""
    pixels: NDArray[np.float32] = np.full((900, 1600, 3), 128, np.float32)
    for step in (8, 16, 32, 64, 128, 256):
        coarse = draw.normal(0, 160 / step**0.5, (900 // step + 2, 1600 // step + 2, 3)).astype(np.float32)
        layers = [Image.fromarray(coarse[..., c]).resize((1600, 900), Image.Resampling.BICUBIC) for c in range(3)]
        pixels += np.stack([np.asarray(layer) for layer in layers], axis=-1)
    return Image.fromarray((pixels + draw.normal(0, 4, pixels.shape)).clip(0, 255).astype(np.uint8))


def numpy_normalised(pictures: NDArray[np.uint8]) -> Tensor:
    """As one writes it first."""
    return torch.from_numpy(
        np.ascontiguousarray(((pictures / 255 - MEAN) / STD).astype(np.float32).transpose(0, 3, 1, 2))
    )


def torch_normalised(pictures: NDArray[np.uint8]) -> Tensor:
    """Converted and normalised in place."""
    scale, shift = torch.from_numpy(1 / (255 * STD)).view(3, 1, 1), torch.from_numpy(MEAN / STD).view(3, 1, 1)
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().mul_(scale).sub_(shift)


def plain(path: str, resample: Image.Resampling = Image.Resampling.BICUBIC) -> Image.Image:
    """Pillow as one writes it first."""
    return Image.open(path).convert("RGB").resize((SIDE, SIDE), resample)


def drafted(path: str) -> Image.Image:
    """Pillow's reduced decoding and Pillow's scaling."""
    image = Image.open(path)
    image.draft(None, (2 * SIDE, 2 * SIDE))
    return image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)


def reduced(path: str) -> Image.Image:
    """As a model with `jpeg_scale: reduced` reads."""
    return load_image(path, (SIDE, SIDE), jpeg_scale="reduced")


def prepared(scale: str) -> Callable[[str], Tensor]:
    """The whole way of this project, from file to tensor."""
    reading = Reading.model_validate({"family": "driving_t5", "image_size": SIDE, "jpeg_scale": scale})
    preparation = Preparation(reading, None, PROCESSOR, PictureCache(0))
    return lambda path: pixels(path, None, preparation)


def ways(paths: list[str], folder: Path) -> dict[str, Callable[[], Any]]:
    """What is timed, by name."""

    def stacked(decode: Callable[[str], Image.Image]) -> NDArray[np.uint8]:
        return np.stack([np.asarray(decode(path)) for path in paths])

    shown, (whole, scaled) = stacked(plain), map(prepared, ("full", "reduced"))
    small = [Image.fromarray(picture) for picture in shown]
    store = RowStore(folder / "rows", (49, 768), "float16")
    store.folder.mkdir()
    store.append({str(n): np.zeros((1, 49, 768), np.float16) for n in range(6)})

    def by_pillow_alone() -> Tensor:
        with patch.object(images, "decode_jpeg", None):
            return torch.stack([scaled(path) for path in paths])

    return {
        "plain": lambda: numpy_normalised(stacked(plain)),
        "full": lambda: torch.stack([whole(path) for path in paths]),
        "reduced": lambda: torch.stack([scaled(path) for path in paths]),
        "reduced without simplejpeg": by_pillow_alone,
        "draft, scaled by Pillow": lambda: torch_normalised(stacked(drafted)),
        "normalise: numpy": lambda: numpy_normalised(shown),
        "normalise: torch": lambda: torch_normalised(shown),
        "normalise: image processor": lambda: PROCESSOR(small, return_tensors="pt").pixel_values,
        "normalise: looked up": lambda: torch.stack([_looked_up(picture) for picture in small]),
        "read cached features": lambda: [store.read(str(n)) for n in range(6)],
    }


def _looked_up(picture: Image.Image) -> Tensor:
    """What `pixels` does with a decoded picture."""
    cache = PictureCache(1)
    cache.load = lambda *_: picture  # type: ignore[method-assign]
    reading = Reading(family="driving_t5", image_size=SIDE)
    return pixels("", None, Preparation(reading, None, PROCESSOR, cache))


def differences(paths: list[str]) -> dict[str, float]:
    """Mean absolute grey levels to `full`."""

    def of(decode: Callable[[str], Image.Image]) -> float:
        expected = (np.asarray(load_image(path, (SIDE, SIDE)), float) for path in paths)
        return float(np.mean([np.abs(np.asarray(decode(p)) - e).mean() for p, e in zip(paths, expected, strict=True)]))

    return {"plain": of(plain), "reduced": of(reduced), "draft, scaled by Pillow": of(drafted)}


def measure(rounds: int) -> dict[str, Any]:
    """Medians in milliseconds of six pictures, their ratio to `plain`, and differences."""
    torch.set_num_threads(1)
    draw = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/{n}.jpg" for n in range(6)]
        for path in paths:
            street(draw).save(path, quality=85)
        work = ways(paths, Path(folder))
        times: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(rounds + 1):
            for name, call in work.items():
                started = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - started)
        found: dict[str, Any] = {
            "kilobytes": statistics.mean(Path(path).stat().st_size for path in paths) / 1000,
            "difference": differences(paths),
        }
    medians = {name: 1e3 * statistics.median(values[1:]) for name, values in times.items()}
    return found | {"ms": medians, "over_plain": {name: value / medians["plain"] for name, value in medians.items()}}


def main() -> None:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found = measure(arguments.rounds)
    print(f"{found['kilobytes']:.0f} kB a picture")
    for name, value in found["ms"].items():
        difference = found["difference"].get(name)
        shown = "" if difference is None else f"{difference:8.2f}"
        print(f"{name:32} {value:8.2f} ms {found['over_plain'][name]:8.3f} {shown}")
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
