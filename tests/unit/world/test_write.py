"""The whole writer on a few key frames: formats, splits, determinism, resuming, refusals."""

import json
import os
import shutil
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
from drivedistill.world.dataset.folder import BALANCE, MANIFEST, SHEETS, Settings, prepare
from drivedistill.world.dataset.shard import PARTS
from drivedistill.world.dataset.write import write_world

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
        regular[name] = list(read_drivelm(world / "regular", name, regime="regular"))
    corner = {name: list(read_coda_lm(world / "corner", name, regime="corner")) for name in ("Train", "Val", "Test")}
    corner["train"] = list(read_drivelm(world / "corner", "train", regime="corner"))
    corner["test"] = list(read_drivelm(world / "corner", "test", regime="corner"))
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
    assert sum(part["key_frames"] for part in manifest["parts"]) == 40
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
    other = write_world(tmp_path / "other", Settings(20, 6, 96))
    assert other["data_hash"] != json.loads((world / MANIFEST).read_text("utf-8"))["data_hash"]


def test_the_same_call_again_changes_nothing_and_another_is_refused(world):
    before = (world / MANIFEST).stat().st_mtime_ns
    write_world(world, SETTINGS)
    assert (world / MANIFEST).stat().st_mtime_ns == before
    with pytest.raises(InputError, match="seed 5"):
        write_world(world, Settings(40, 6, 96))


def test_everything_that_cannot_be_met_is_said_before_anything_is_written(tmp_path):
    with pytest.raises(InputError) as error:
        write_world(tmp_path / "out", Settings(19, -1, 95))
    assert [problem.record for problem in error.value.problems] == ["--keyframes", "--size", "--seed"]
    assert not Settings(20, 0, 448).problems() and Settings(20, 0, 449).problems()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "files",
    [
        ("thesis.tex",),
        ("corner/thesis.tex",),
        ("regular/thesis.tex", "notes.txt"),
        ("manifest.json",),
        ("parts/settings.json", "regular/thesis.tex"),
    ],
)
def test_what_is_not_ours_is_never_touched(tmp_path, files, overwrite):
    for name in files:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text('{"name": "years of work"}')
    with pytest.raises(InputError, match="choose another"):
        write_world(tmp_path, Settings(20, 0, 96), overwrite=overwrite)
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert left == sorted(files)


@pytest.mark.parametrize("text", ["not json", "[1]"])
def test_a_damaged_manifest_is_a_finding(tmp_path, text):
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(InputError, match=MANIFEST):
        write_world(tmp_path, Settings(20, 0, 96))


def test_overwriting_replaces_our_own_data(tmp_path):
    write_world(tmp_path / "out", Settings(20, 0, 96))
    (tmp_path / "out" / SHEETS).mkdir()
    manifest = write_world(tmp_path / "out", Settings(20, 1, 96), overwrite=True)
    assert manifest["seed"] == 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"regular", "corner", MANIFEST, BALANCE}
    assert len(list((tmp_path / "out").rglob("nuscenes/samples/*/*.jpg"))) == 6 * 20


def test_missing_files_are_noticed(world, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(world, out)
    next(out.rglob("corner/nuscenes/samples/CAM_BACK/*.jpg")).unlink()
    with pytest.raises(InputError, match="CAM_BACK"):
        write_world(out, SETTINGS)
    shutil.rmtree(out / "regular")
    with pytest.raises(InputError, match="missing"):
        write_world(out, SETTINGS)


@pytest.mark.parametrize("text", ["{", '{"frames": []}', "[]"])
def test_a_damaged_part_is_named(tmp_path, text):
    prepare(tmp_path, Settings(20, 0, 96), overwrite=False)
    damaged = tmp_path / PARTS / "train-regular-00000.json"
    damaged.write_text(text)
    with pytest.raises(InputError, match="train-regular-00000"):
        write_world(tmp_path, Settings(20, 0, 96))


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="folder"):
            write_world(out, Settings(20, 0, 96))


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGINT, 1), (signal.SIGTERM, 2)])
def test_an_interrupted_call_goes_on(world, tmp_path, number, workers):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "drivedistill.cli", "world", str(out), "--keyframes", "40", "--seed", "5"]
    process = subprocess.Popen(
        [*command, "--size", "96", "--workers", str(workers)], stderr=subprocess.PIPE, text=True, env=os.environ
    )
    deadline = time.monotonic() + 100
    while not any(path.name.startswith("train") for path in (out / PARTS).glob("*.json")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate(timeout=100)
    if process.returncode == 128 + number:
        assert "goes on" in said
        assert not (out / MANIFEST).exists()
    else:  # it was quicker than the signal
        assert process.returncode == 0
    resumed = write_world(out, SETTINGS)
    assert resumed == json.loads((world / MANIFEST).read_text("utf-8"))
