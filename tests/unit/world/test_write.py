"""The whole writer on a few key frames: formats, splits, determinism, resuming, refusals."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from drivedistill.data.check import check
from drivedistill.data.coda_lm import read as read_coda_lm
from drivedistill.data.drivelm import read as read_drivelm
from drivedistill.problems import InputError
from drivedistill.records import CAMERAS
from drivedistill.world.dataset.write import MANIFEST, PARTS, Settings, write_world

SETTINGS = Settings(keyframes=40, seed=5, size=96)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A data set of forty key frames."""
    out = tmp_path_factory.mktemp("world") / "data"
    write_world(out, SETTINGS)
    return out


def test_the_ordinary_readers_read_it_and_find_nothing_to_mend(world):
    regular = {name: list(read_drivelm(world / "regular", name, regime="regular")) for name in ("train",)}
    for name in ("validation", "test"):
        regular[name] = list(read_drivelm(world / "regular", f"QA_dataset_nus/{name}.json", regime="regular"))
    corner = {name: list(read_coda_lm(world / "corner", name, regime="corner")) for name in ("Train", "Val", "Test")}
    corner["train"] = list(read_drivelm(world / "corner", "train", regime="corner"))
    corner["test"] = list(read_drivelm(world / "corner", "QA_dataset_nus/test.json", regime="corner"))
    for splits in (regular, corner):
        assert all(splits.values())
        assert check(splits, images="decode").problems == []
    tasks = {sample.task for sample in regular["train"]}
    assert tasks == {"perception", "prediction", "planning", "behavior"}
    assert all(list(sample.images) == list(CAMERAS) for sample in regular["train"])


def test_pictures_have_the_size_that_was_asked_for(world):
    paths = list(world.rglob("*.jpg"))
    assert len(paths) >= 6 * SETTINGS.keyframes
    assert {Image.open(path).size for path in paths} == {(SETTINGS.size, SETTINGS.size)}


def test_splits_share_no_scene_and_no_picture(world):
    scenes: dict[str, set[str]] = {}
    pixels: dict[str, set[str]] = {}
    for path in world.rglob("truth/*.jsonl"):
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        scenes[str(path)] = {row["scene"] for row in rows} | {str(row["seed"]) for row in rows}
        pixels[str(path)] = {row["pixels"] for row in rows}
    assert len(scenes) == 6
    for sets in (scenes, pixels):
        assert sum(map(len, sets.values())) == len(set.union(*sets.values()))


def test_the_manifest_counts_what_is_there(world):
    manifest = json.loads((world / MANIFEST).read_text("utf-8"))
    assert sum(part["key_frames"] for part in manifest["parts"]) in (40, 41)
    train = next(part for part in manifest["parts"] if (part["split"], part["regime"]) == ("train", "regular"))
    assert train["drivelm_questions"] == len(list(read_drivelm(world / "regular", "train", regime="regular")))
    corner = next(part for part in manifest["parts"] if (part["split"], part["regime"]) == ("train", "corner"))
    assert corner["coda_lm_questions"] == len(list(read_coda_lm(world / "corner", "Train", regime="corner")))
    assert manifest["regular_to_corner"] <= 17.5
    assert not (world / PARTS).exists()


def test_the_same_settings_give_the_same_data_with_two_workers(world, tmp_path):
    first = json.loads((world / MANIFEST).read_text("utf-8"))
    second = write_world(tmp_path / "again", SETTINGS, workers=2)
    assert second == first
    for path in world.rglob("*.*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "again" / path.relative_to(world)).read_bytes()


def test_another_seed_gives_other_data(world, tmp_path):
    other = write_world(tmp_path / "other", Settings(10, 6, 96))
    assert other["data_hash"] != json.loads((world / MANIFEST).read_text("utf-8"))["data_hash"]


def test_the_same_call_again_changes_nothing_and_another_is_refused(world):
    before = (world / MANIFEST).stat().st_mtime_ns
    write_world(world, SETTINGS)
    assert (world / MANIFEST).stat().st_mtime_ns == before
    with pytest.raises(InputError, match="seed 5"):
        write_world(world, Settings(40, 6, 96))


@pytest.mark.parametrize("size", [95, 449])
def test_sizes_outside_the_range_are_refused_before_anything_is_written(tmp_path, size):
    with pytest.raises(InputError, match="--size"):
        write_world(tmp_path / "out", Settings(10, 0, size))
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"thesis\.tex"):
        write_world(tmp_path, Settings(10, 0, 96))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_interrupted_call_goes_on(world, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "drivedistill.cli", "world", str(out), "--keyframes", "40", "--seed", "5"]
    process = subprocess.Popen([*command, "--size", "96"], stderr=subprocess.PIPE, text=True, env=os.environ)
    deadline = time.monotonic() + 100
    while not any(path.name.startswith("train") for path in (out / PARTS).glob("*.json")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=100)
    if process.returncode == 130:
        assert "goes on" in said
        assert not (out / MANIFEST).exists()
    else:  # it was quicker than the signal
        assert process.returncode == 0
    resumed = write_world(out, SETTINGS)
    assert resumed == json.loads((world / MANIFEST).read_text("utf-8"))
