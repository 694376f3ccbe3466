"""The real-world test as a user types it: a video and pictures, labels, frames, answers, scores."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drivedistill.records import Prediction, read_jsonl
from drivedistill.subject import save_subject
from tiny import subject
from typed import typed

av = pytest.importorskip("av")


@pytest.fixture
def drives(tmp_path) -> Path:
    """Ten labelled moments of two clips: a video, and pictures of two cameras."""
    root = tmp_path / "drives"
    for camera in ("CAM_FRONT", "CAM_BACK"):
        for number in range(5):
            path = root / "rig" / camera / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((36, 64, 3), 40 * number, np.uint8)).save(path)
    with av.open(str(root / "monday.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=5, width=64, height=48, pix_fmt="yuv420p")
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 10 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 5)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    rows = ["clip,frame,time,meta_action,speed,question"]
    rows += [f'rig,{number},,"KEEP, STRAIGHT",{number},' for number in range(5)]
    rows += [f'monday,,{second},"STOP, LEFT_TURN",,What now?' for second in (0, 0.5, 1.5, 2, 3.9)]
    (root / "labels.csv").write_text("\n".join(rows))
    return root


def test_clips_are_asked_and_scored(drives, tmp_path, capsys):
    tiny = subject("driving_t5", tmp_path)
    save_subject(tiny, tiny.model, tmp_path / "model", "")
    questions = ["--data", str(drives), "--format", "clips", "--file", "labels", "--out", str(tmp_path / "x.jsonl")]
    ask = ["predict", str(tmp_path / "model"), *questions, "--max-new-tokens", "3"]
    assert typed(*ask) == 2
    assert f"drivedistill data frames {drives} --file labels" in capsys.readouterr().err
    assert typed("data", "frames", str(drives)) == 0
    assert "5 frames of 1 video: 5 written, 0 there already" in capsys.readouterr().out
    assert typed("data", "check", str(drives), "--format", "clips", "--file", "labels") == 0
    assert "Clips without a label in labels: 0" in capsys.readouterr().out
    assert typed(*ask) == 0
    rows = read_jsonl(tmp_path / "x.jsonl", Prediction)
    assert [row.extra["clip"] for row in rows] == ["rig"] * 5 + ["monday"] * 5
    assert [row.meta_action for row in rows] == ["KEEP, STRAIGHT"] * 5 + ["STOP, LEFT_TURN"] * 5
    capsys.readouterr()
    assert typed("score", str(tmp_path / "x.jsonl"), "--no-meteor", "--tokenizer", "approximate") == 0
    scores = {row["name"]: row for row in json.loads((tmp_path / "x.results.json").read_text()) if row["task"] == "all"}
    assert scores["meta_accuracy"]["n"] == 10 and scores["meta_accuracy"]["dataset"] == "clips"
    assert "Meta-action" in capsys.readouterr().out
