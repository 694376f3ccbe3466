"""Frames of videos: the right ones, whatever the order of coding; once; completely or not at all."""

import json
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drivedistill.data import READERS, clip_frames
from drivedistill.data.clip_frames import extract_frames
from drivedistill.data.clips import unlabelled
from drivedistill.problems import InputError

av = pytest.importorskip("av")

FRAMES, RATE = 40, 10
START, EACH = 20, 5
"""Gray level of the first frame; every frame is so much lighter than the one before."""


def record(path: Path, codec: str = "libx264", late: int = 0, levels: np.ndarray | None = None) -> None:
    """A video whose frames say their number by their brightness; H.264 with three B-frames in a row.

    Args:
        late: So many frames in, one is shown for a second.
        levels: Added to all pictures.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, width=64, height=48, pix_fmt="yuv420p")
        stream.options = {"bf": "3", "g": "12", "b-adapt": "0"} if codec == "libx264" else {"qmin": "1", "qmax": "1"}
        for number in range(FRAMES):
            pixels = np.full((48, 64, 3), START + EACH * number) + (0 if levels is None else levels)
            frame = av.VideoFrame.from_ndarray(pixels.astype(np.uint8), format="rgb24")
            frame.pts, frame.time_base = number + (RATE if late and number > late else 0), Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def number_in(path: str | Path) -> int:
    return round((float(np.asarray(Image.open(path)).mean()) - START) / EACH)


def label(root: Path, *moments: dict) -> None:
    rows = [{"clip": "a", "meta_action": "KEEP, STRAIGHT", **moment} for moment in moments]
    (root / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def read(root: Path) -> list:
    return list(READERS["clips"](root, "labels", regime="regular"))


def problems(act, *arguments: object) -> list[str]:
    with pytest.raises(InputError) as error:
        act(*arguments)
    return [str(problem) for problem in error.value.problems]


def test_every_frame_is_the_one_with_its_number(tmp_path):
    record(tmp_path / "a.mp4")
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert {frame.pict_type for frame in container.decode(video=0)} >= {av.video.frame.PictureType.B}
    label(tmp_path, *({"frame": number} for number in reversed(range(FRAMES))))
    assert extract_frames(tmp_path, "labels")[:3] == (FRAMES, 0, 1)
    samples = read(tmp_path)
    assert [number_in(sample.images["CAM_FRONT"]) for sample in samples] == list(reversed(range(FRAMES)))
    assert [sample.frame for sample in samples[:2]] == ["a/39", "a/38"]
    assert (tmp_path / "a" / "CAM_FRONT" / "000007.jpg").is_file()


@pytest.mark.parametrize(("name", "codec"), [("a.MOV", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mpeg4")])
def test_other_containers_and_codecs(tmp_path, name, codec):
    record(tmp_path / name.lower(), codec)
    (tmp_path / name.lower()).rename(tmp_path / name)
    label(tmp_path, {"frame": 13}, {"time": 2.1})
    extract_frames(tmp_path, "labels")
    assert [number_in(sample.images["CAM_FRONT"]) for sample in read(tmp_path)] == [13, 21]


def test_a_time_means_the_frame_that_is_shown_then(tmp_path):
    record(tmp_path / "a" / "CAM_BACK.mp4", late=20)  # frame 20 stays until second 3.1
    times = {0: 0, 0.1: 1, 0.1994: 1, 0.1996: 2, 0.25: 2, 2.0: 20, 2.9: 20, 3.1: 21, 4.9: 39, 4.999: 39}
    label(tmp_path, *({"time": time} for time in times))
    extract_frames(tmp_path, "labels")
    samples = read(tmp_path)
    assert [number_in(sample.images["CAM_BACK"]) for sample in samples] == list(times.values())
    assert samples[4].id == "a/0.250s" and samples[4].extra["time"] == 0.25


def test_a_video_that_was_recorded_upright_comes_out_upright(tmp_path):
    record(tmp_path / "a.mp4", levels=np.where(np.arange(64) < 32, 40, 0)[None, :, None])  # lighter on the left
    same, turned = np.array([1, 0, 0, 0, 1, 0, 0, 0, 1]), np.array([0, 1, 0, -1, 0, 0, 0, 0, 1])
    scale = np.array([1 << 16, 1 << 16, 1 << 30] * 3)  # the matrix of an MP4 track, fixed point
    before, after = ((matrix * scale).astype(">i4").tobytes() for matrix in (same, turned))
    content = (tmp_path / "a.mp4").read_bytes()
    track = content.index(before, content.index(b"tkhd"))
    (tmp_path / "a.mp4").write_bytes(content[:track] + after + content[track + len(after) :])
    label(tmp_path, {"frame": 0})
    extract_frames(tmp_path, "labels")
    pixels = np.asarray(Image.open(tmp_path / "a" / "CAM_FRONT" / "000000.jpg")).mean(axis=(1, 2))
    assert len(pixels) == 64 and pixels[:30].min() > pixels[34:].max() + 20  # a quarter to the right: left is up now


def test_pictures_are_written_once_and_again_when_the_video_changes(tmp_path):
    record(tmp_path / "a" / "CAM_FRONT.mp4")
    record(tmp_path / "a" / "CAM_BACK.mp4")
    label(tmp_path, {"frame": 3}, {"frame": 5})
    assert "drivedistill data frames" in problems(read, tmp_path)[0] and "4 are missing" in problems(read, tmp_path)[0]
    first = extract_frames(tmp_path, "labels")
    written = sorted((tmp_path / "a").rglob("*.jpg"))
    assert first == (4, 0, 2, sum(path.stat().st_size for path in written)) and len(written) == 4
    written[0].unlink()
    assert extract_frames(tmp_path, "labels")[:2] == (1, 3)
    record(tmp_path / "a" / "CAM_FRONT.mp4", levels=np.array(10 * EACH))
    assert extract_frames(tmp_path, "labels")[:2] == (2, 2)
    assert number_in(tmp_path / "a" / "CAM_FRONT" / "000003.jpg") == 13
    assert extract_frames(tmp_path, "labels", quality=30)[:2] == (0, 4)


def test_a_picture_that_could_not_be_finished_leaves_nothing(tmp_path, monkeypatch):
    record(tmp_path / "a.mp4")
    label(tmp_path, {"frame": 3}, {"frame": 5})

    def full(picture: Image.Image, file: Path, *_: object, **__: object) -> None:
        Path(file).write_bytes(b"half")
        raise OSError("the disk is full")

    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(Image.Image, "save", full)
        extract_frames(tmp_path, "labels")
    assert list((tmp_path / "a" / "CAM_FRONT").iterdir()) == []
    assert extract_frames(tmp_path, "labels")[:2] == (2, 0)


def test_all_that_is_wrong_is_said_and_the_rest_is_written(tmp_path):
    for name in "abcd":
        record(tmp_path / f"{name}.mp4")
    (tmp_path / "b.mp4").write_bytes((tmp_path / "b.mp4").read_bytes()[:2000])
    (tmp_path / "d.mp4").write_text("ffconcat version 1.0\nfile a.mp4\n")  # a list of other files, whatever its name
    label(
        tmp_path,
        *({"frame": FRAMES}, {"time": 4.0}, {"frame": 7}, {"frame": "seven"}, {"frame": 8, "speed": "fast"}),
        *({"clip": "b", "frame": 1}, {"clip": "d", "frame": 1}, {"clip": "e", "frame": 1}),
    )
    found = "\n".join(problems(extract_frames, tmp_path, "labels"))
    for words in (
        *(
            "a.mp4: 40\n    expected: moments of a video of 40 frames, 4.000 s",
            "a.mp4: 4.000s",
            "row 4, a",
            "row 5, speed",
        ),
        *(
            "b.mp4\n    expected: a video that can be decoded",
            "d.mp4\n    expected: a video that can be",
            "no such clip",
        ),
    ):
        assert words in found
    assert found.count("remedy") == 7
    assert [path.name for path in tmp_path.rglob("*.jpg")] == ["000007.jpg"]
    label(tmp_path, {"frame": 7})
    assert unlabelled(tmp_path, "labels") == ["b", "c", "d"]
    assert number_in(read(tmp_path)[0].images["CAM_FRONT"]) == 7


def test_two_videos_of_one_camera_and_unknown_cameras_are_refused(tmp_path):
    record(tmp_path / "a.mp4")
    record(tmp_path / "a" / "CAM_FRONT.mkv")
    record(tmp_path / "b" / "front.mp4")
    label(tmp_path, {"frame": 7}, {"clip": "b", "frame": 7})
    one, other = problems(extract_frames, tmp_path, "labels")
    assert "one video of CAM_FRONT" in one and "a video of one of CAM_FRONT, " in other


def test_without_pyav_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(clip_frames, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "av", None)
    (found,) = problems(extract_frames, tmp_path, "labels")
    assert "drivedistill[video]" in found
