import json

import pytest

from drivedistill.data import READERS
from drivedistill.data.samples import read_samples, write_samples
from drivedistill.problems import InputError
from drivedistill.records import Region


def full(sample, root):
    return sample(
        "ä\u2028",
        images={"CAM_FRONT": str(root / "a/b.jpg"), "CAM_BACK": str(root / "c.jpg")},
        region=Region(camera="CAM_FRONT", box=(0.1, 2, 3, 4), category="dog"),
        future_path=((0.1, 0.2), (1.0, 2.0)),
        tags=(0, 3),
        answer=None,
        meta_action="stop",
        extra={"nested": [{"x": None}], "n": 1.5},
    )


def test_round_trip_is_exact_and_paths_on_disk_are_relative(tmp_path, sample):
    rows = [full(sample, tmp_path), sample("b", images={"CAM_FRONT": str(tmp_path / "d.jpg")})]
    assert write_samples(tmp_path / "rows.jsonl", rows, tmp_path) == 2
    assert json.loads((tmp_path / "rows.jsonl").read_text().split("\n")[0])["images"]["CAM_FRONT"] == "a/b.jpg"
    assert read_samples(tmp_path, "rows") == read_samples(tmp_path, "rows.jsonl") == rows


def test_data_set_can_be_moved(tmp_path, sample):
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    write_samples(old / "rows.jsonl", [full(sample, old)], old)
    old.rename(new)
    assert read_samples(new, "rows") == [full(sample, new)]


def test_picture_outside_the_root_is_refused_and_nothing_is_written(tmp_path, sample):
    with pytest.raises(InputError, match="inside the data root"):
        write_samples(tmp_path / "rows.jsonl", [sample()], tmp_path)
    assert not list(tmp_path.iterdir())
    row = sample(images={"CAM_FRONT": "../x.jpg", "CAM_TOP": "x.jpg"})
    (tmp_path / "rows.jsonl").write_text(row.model_dump_json() + "\n" + sample("b", images={}).model_dump_json())
    with pytest.raises(InputError) as error:
        read_samples(tmp_path, "rows")
    assert len(error.value.problems) == 3


def test_reader_fills_in_regime_and_split_only_where_they_are_absent(tmp_path, sample):
    row = json.loads(sample(images={"CAM_FRONT": "a.jpg"}).model_dump_json())
    bare = {key: value for key, value in row.items() if key not in ("regime", "split")}
    (tmp_path / "mine.jsonl").write_text(json.dumps(row) + "\n\n" + json.dumps(bare))
    first, second = READERS["jsonl"](tmp_path, "mine", regime="corner")
    assert (first.regime, first.split, second.regime, second.split) == ("regular", "train", "corner", "mine")


def test_every_bad_line_is_listed(tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"id": 1}\n[]\n{"id": "x", "colour": 1}\n{"id"')
    with pytest.raises(InputError) as error:
        read_samples(tmp_path, "bad")
    assert {problem.record.split(",")[0] for problem in error.value.problems} == {
        "line 1",
        "line 2",
        "line 3",
        "line 4",
    }


def test_missing_binary_and_outside_files_are_refused(tmp_path):
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe")
    for name in ("absent", "bytes", "../absent"):
        with pytest.raises(InputError):
            read_samples(tmp_path, name)
