"""The teacher that comes with the package: small, of this version of the world, and able to see."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open

from drivedistill.data.drivelm import read
from drivedistill.data.images import PictureCache
from drivedistill.data.prior import template_name
from drivedistill.evaluate.answering import local_answerer
from drivedistill.evaluate.decoding import decoding
from drivedistill.quickstart.origin import DEMO, HALF_TOWER, examine
from drivedistill.subject import load_subject
from drivedistill.world import VERSION
from drivedistill.world.dataset.folder import Settings
from drivedistill.world.dataset.write import write_world

GOLDEN = Path(__file__).parent.parent / "world" / "golden.json"
MEGABYTES = 15
KINDS = ("weather", "status")


def test_it_is_small_and_holds_nothing_but_half_precision():
    assert sum(file.stat().st_size for file in DEMO.rglob("*")) <= MEGABYTES * 1e6
    with safe_open(DEMO / "model.safetensors", "pt") as weights:
        types = Counter(weights.get_slice(name).get_dtype() for name in weights.keys())  # noqa: SIM118
    assert set(types) <= {"F16", "I64"} and types["F16"] > 100
    with safe_open(DEMO / HALF_TOWER / "model.safetensors", "pt") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} <= {"F16", "I64"}  # noqa: SIM118


def test_it_was_taught_the_world_as_it_is():
    origin, golden = examine().origin, json.loads(GOLDEN.read_text("utf-8"))
    remedy = "train it again: recipes/demo_teacher.yaml, then examples/pack_demo_teacher.py"
    assert (origin["version"], origin["golden_hash"]) == (VERSION, golden["data_hash"]), remedy
    half = json.loads((DEMO / HALF_TOWER / "origin.json").read_text("utf-8"))
    same = ("generator", "version", "data_hash", "golden_hash")
    assert [half[name] for name in same] == [origin[name] for name in same], "likewise recipes/demo_half_tower.yaml"
    card = (DEMO / "README.md").read_text("utf-8")
    assert origin["data_hash"] in card and f"{origin['generator']} {origin['version']}" in card


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Scenes that it never saw."""
    root = tmp_path_factory.mktemp("world")
    write_world(root, Settings(keyframes=40, seed=1_000_003, size=112))
    return root


@pytest.fixture(scope="module")
def shares(world):
    """Share of right answers, by kind of question, with pictures and with black ones."""
    samples = [item for item in read(world / "regular", "train", regime="regular") if template_name(item) in KINDS]
    asked = Counter(template_name(sample) for sample in samples)
    found = {}
    for name, change in (("seen", None), ("black", lambda _path, picture: picture.point(lambda _value: 0))):
        answerer = local_answerer(str(DEMO), decoding("greedy", 16), samples, change=change)
        answers = [
            answer.text for start in range(0, len(samples), 64) for answer in answerer(samples[start : start + 64])
        ]
        right = Counter(
            template_name(sample) for sample, text in zip(samples, answers, strict=True) if text == sample.answer
        )
        found[name] = {kind: right[kind] / asked[kind] for kind in KINDS}
    return found


def test_it_sees(shares):
    assert shares["seen"]["weather"] >= 0.85
    assert shares["seen"]["status"] >= 0.5
    for kind in KINDS:
        assert shares["seen"][kind] >= shares["black"][kind] + 0.15, kind


def test_half_of_its_tower_sees_much_of_what_the_whole_one_sees(world):
    half, whole = (load_subject(str(folder), PictureCache(1)) for folder in (DEMO / HALF_TOWER, DEMO))
    config, before = half.model.config, whole.model.config
    assert (config.text.num_layers, config.text.num_decoder_layers) == (2, 2) and before.text.num_layers == 4
    assert sum(config.vision.depths) == sum(before.vision.depths) / 2
    assert half.preparation.reading == whole.preparation.reading
    pictures = [Image.open(path) for path in sorted(world.glob("regular/nuscenes/samples/*/*.jpg"))[:60]]
    pixels = whole.preparation.processor(images=pictures, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        seen, expected = (
            subject.model.float().eval().vision(pixels.unflatten(0, (-1, 6))).flatten(0, 2) for subject in (half, whole)
        )
    left = (seen - expected).square().mean() / expected.var(dim=0).mean()
    assert left < 0.4, "share of the variance that the half tower misses"
