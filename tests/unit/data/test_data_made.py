import subprocess
import sys
from pathlib import Path

import numpy as np

from drivedistill.data import READERS
from drivedistill.data.drivelm_challenge import BEHAVIORS
from drivedistill.data.images import load_image
from make_driving_data import make


def test_same_seed_writes_the_same_bytes_and_another_seed_does_not(made, tmp_path):
    make(tmp_path / "again", scenes=3, frames=2, corner=8, size=(160, 90), seed=0)
    make(tmp_path / "other", scenes=1, frames=1, corner=0, size=(160, 90), seed=1)
    files = sorted(path.relative_to(made) for path in made.rglob("*") if path.is_file())
    assert files and all((made / path).read_bytes() == (tmp_path / "again" / path).read_bytes() for path in files)
    names = {path.name for path in (tmp_path / "other").rglob("*.jpg")}
    assert not names & {path.name for path in files}


def test_answers_follow_from_the_pixels(tmp_path):
    """What stands at an object's tag has the colour that the answer names."""
    make(tmp_path, scenes=4, frames=3, corner=0, size=(320, 180), seed=5)
    strongest = {"Red": 0, "Green": 1, "Blue": 2}
    seen = 0
    for sample in READERS["drivelm"](tmp_path / "regular", "train", regime="regular"):
        colour, _, kind = (sample.answer or "").partition(" ")
        if sample.question.startswith("What is the visual description") and colour in strongest and kind != "light.":
            _, camera, x, y = sample.question.split("<")[1].split(">")[0].split(",")
            box = sample.extra["key_object_infos"]["<" + sample.question.split("<")[1].rstrip("?")]["2d_bbox"]
            pixels = np.asarray(load_image(sample.images[camera], None)).astype(int)
            assert (box[0] + box[2]) / 2 == float(x) and abs((box[1] + box[3]) / 2 - float(y)) < 0.06
            patch = pixels[int(float(y)) - 2 : int(float(y)) + 1, int(float(x)) - 1 : int(float(x)) + 2].mean((0, 1))
            others = [channel for channel in range(3) if channel != strongest[colour]]
            seen += 1
            assert patch[strongest[colour]] > max(patch[others]), (sample.id, sample.answer, patch)
    assert seen > 10


def test_behaviors_are_drivelms(made):
    samples = [s for s in READERS["drivelm"](made / "regular", "train", regime="regular") if s.task == "behavior"]
    assert len(samples) == 6 and all(sample.answer in BEHAVIORS for sample in samples)


def test_command_line_writes_both_layouts(tmp_path):
    script = Path(__file__).parents[3] / "examples" / "make_driving_data.py"
    options = ["--scenes", "1", "--frames", "1", "--corner", "2", "--size", "96x54"]
    subprocess.run([sys.executable, script, tmp_path, *options], check=True, capture_output=True)
    assert list(READERS["drivelm"](tmp_path / "regular", "train", regime="regular"))
    assert list(READERS["coda_lm"](tmp_path / "corner", "Train", regime="corner"))
    assert subprocess.run([sys.executable, script, tmp_path, "--size", "9"], capture_output=True).returncode == 2


def test_reading_data_imports_no_torch():
    code = "import sys, drivedistill.data.check, drivedistill.data.mixture; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
