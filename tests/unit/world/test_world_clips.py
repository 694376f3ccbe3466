"""Clips of the world: a function of the seed, labelled by Senna's rules, read by the ordinary reader."""

import hashlib
import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from drivedistill.data.check import check
from drivedistill.data.clips import read
from drivedistill.data.senna_rules import meta_action
from drivedistill.problems import InputError
from drivedistill.records import CAMERAS
from drivedistill.world.dataset import clips
from drivedistill.world.dataset.clips import MOMENTS, Settings, write_clips
from drivedistill.world.dataset.plan import clip_drives, hazard_ahead
from drivedistill.world.driving.kinds import CORNER, REGULAR
from drivedistill.world.scene import STEP_S, STEPS

SETTINGS = Settings(clips=4, seed=5, size=96)


def contents(out: Path) -> dict[str, str]:
    files = [path for path in out.rglob("*") if path.is_file()]
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("clips") / "data"
    write_clips(out, SETTINGS)
    return out


def test_the_ordinary_reader_reads_them_and_finds_nothing_to_mend(written):
    samples = list(read(written, "labels", regime="regular"))
    assert len(samples) == SETTINGS.clips * MOMENTS
    assert [list(sample.images) for sample in samples] == [list(CAMERAS)] * len(samples)
    assert check({"labels": samples}, images="decode").problems == []
    regimes = {sample.scene: sample.regime for sample in samples}
    assert list(regimes.values()) == ["regular", "corner"] * 2
    kinds = {name.partition("-")[2]: regime for name, regime in regimes.items()}
    assert all(kind in (CORNER if regime == "corner" else REGULAR) for kind, regime in kinds.items())
    assert len({hashlib.sha256(Path(s.images["CAM_FRONT"]).read_bytes()).digest() for s in samples}) == len(samples)


def test_labels_follow_from_where_the_ego_vehicle_really_goes(written):
    samples = iter(read(written, "labels", regime="regular"))
    truths = [json.loads(line) for line in (written / "truth.jsonl").read_text().splitlines()]
    by_regime = {name: list(islice(clip_drives(name, SETTINGS.seed), 2)) for name in ("regular", "corner")}
    for number in range(SETTINGS.clips):
        drive = by_regime[("regular", "corner")[number % 2]][number // 2]
        for index in range(MOMENTS):
            sample, fact = next(samples), truths[number * MOMENTS + index]
            assert (sample.scene, sample.frame) == (fact["scene"], fact["frame"])
            step = fact["step"]
            x, y, yaw = drive.poses[0, step]
            there = drive.poses[0, step + 5 : step + 31 : 5, :2] - (x, y)
            forward = there @ (np.cos(yaw), np.sin(yaw))
            right = there @ (np.sin(yaw), -np.cos(yaw))
            assert np.allclose(sample.future_path, np.stack([right, forward], axis=1), atol=0.01)
            assert sample.answer == sample.meta_action == str(meta_action(sample.future_path))
            assert f"speed is {int(drive.speeds[0, step])} m/s" in sample.question
            assert step + 60 < STEPS and step == truths[number * MOMENTS]["step"] + index * round(0.5 / STEP_S)


def test_the_same_moments_are_also_asked_in_plain_words(written):
    for senna, plain in zip(*(read(written, file, regime="regular") for file in ("labels", "target")), strict=True):
        assert plain.question.endswith("What is the target action of the ego vehicle in the next three seconds?")
        assert (plain.id, plain.meta_action, plain.images) == (senna.id, senna.meta_action, senna.images)
        turns = senna.meta_action.partition(", ")[2].partition("_")  # nobody sees where somebody wants to go
        if turns[2] == "TURN" and senna.scene.partition("-")[2].startswith(("turn", "residential", "rural")):
            assert f"turns {turns[0].lower()} at the junction" in plain.question


def test_the_same_settings_give_the_same_bytes_and_fewer_clips_are_the_first_ones(written, tmp_path):
    write_clips(tmp_path / "few", Settings(clips=2, seed=5, size=96))
    few, all = contents(tmp_path / "few"), contents(written)
    pictures = [name for name in few if name.endswith(".jpg")]
    assert len(pictures) == 2 * MOMENTS * len(CAMERAS) and all.items() >= {(name, few[name]) for name in pictures}
    for name in ("labels.jsonl", "target.jsonl", "truth.jsonl"):
        assert (written / name).read_text().startswith((tmp_path / "few" / name).read_text())


def test_an_interrupted_call_is_finished_by_the_same_one(written, tmp_path, monkeypatch):
    def stop(out: Path, name: str, *rest: object) -> None:
        if name.startswith("0002"):
            (out / f".{name}" / "CAM_FRONT").mkdir(parents=True)
            (out / f".{name}" / "CAM_FRONT" / "000000.jpg").write_bytes(b"half")
            raise KeyboardInterrupt
        whole(out, name, *rest)

    whole = clips._write_pictures
    monkeypatch.setattr(clips, "_write_pictures", stop)
    with pytest.raises(KeyboardInterrupt):
        write_clips(tmp_path / "again", SETTINGS)
    assert not (tmp_path / "again" / "labels.jsonl").exists()
    monkeypatch.undo()
    write_clips(tmp_path / "again", SETTINGS)
    assert contents(tmp_path / "again") == contents(written)


def test_other_peoples_folders_and_other_settings_are_refused(written, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    before = contents(written)
    for out, settings in ((tmp_path, SETTINGS), (written, Settings(clips=4, seed=6, size=96))):
        for overwrite in (False, True) if out == tmp_path else (False,):
            with pytest.raises(InputError):
                write_clips(out, settings, overwrite=overwrite)
    with pytest.raises(InputError) as error:
        write_clips(tmp_path / "new", Settings(clips=0, seed=-1, size=1000))
    assert len(error.value.problems) == 3 and not (tmp_path / "new").exists()
    assert contents(written) == before and [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_overwriting_leaves_nothing_of_the_clips_before(tmp_path):
    one = Settings(clips=1, seed=1, size=96)
    write_clips(tmp_path / "a", Settings(clips=2, seed=0, size=96))
    write_clips(tmp_path / "a", one, overwrite=True)
    write_clips(tmp_path / "b", one)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_clip_shows_what_its_scene_is_about():
    for drive in islice((d for d in clip_drives("corner", 2) if any(a.hazard for a in d.scene.actors)), 12):
        seen = [sum(hazard_ahead(drive, start + 5 * k) for k in range(MOMENTS)) for start in clips.STARTS]
        assert sum(hazard_ahead(drive, step) for step in clips._steps(drive)) == max(seen)
