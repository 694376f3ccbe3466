"""A model's folder says how it reads, and whoever loads it reads so."""

import json

import numpy as np
import pytest
from PIL import Image

import tiny
from drivedistill.build import build_student
from drivedistill.data.collate import pixels
from drivedistill.data.images import PictureCache, load_image
from drivedistill.subject import READING, load_subject, save_subject


@pytest.fixture
def folder(tmp_path):
    """A model that was made for JPEGs at a reduced scale."""
    card = tiny.recipe(tmp_path, data__jpeg_scale="reduced")
    subject = build_student(card.model, card.data, PictureCache(1), tiny.samples(tiny.pictures(tmp_path)))
    save_subject(subject, subject.model, tmp_path / "model", "")
    return tmp_path / "model"


def picture(folder):
    noise = np.random.default_rng(0).integers(0, 255, (600, 800, 3), np.uint8)
    Image.fromarray(noise).save(folder / "noise.jpg")
    return str(folder / "noise.jpg")


def test_a_loaded_model_reads_jpegs_at_the_scale_it_was_trained_on(folder):
    preparation = load_subject(str(folder), PictureCache(1)).preparation
    assert preparation.reading.jpeg_scale == "reduced"
    path, side = picture(folder), preparation.reading.image_size
    seen = pixels(path, None, preparation)
    for scale in ("reduced", "full"):
        shown = load_image(path, (side, side), jpeg_scale=scale)
        expected = preparation.processor(shown, return_tensors="pt").pixel_values[0]
        assert bool((seen == expected).all()) == (scale == "reduced")


def test_a_model_of_earlier_versions_reads_jpegs_in_full(folder):
    reading = json.loads((folder / READING).read_text())
    assert reading.pop("jpeg_scale") == "reduced"
    (folder / READING).write_text(json.dumps(reading))
    assert load_subject(str(folder), PictureCache(1)).preparation.reading.jpeg_scale == "full"
