"""A small drawn data set, and samples made of nothing but a name."""

from collections.abc import Callable
from pathlib import Path

import pytest

from drivedistill.records import Sample
from make_driving_data import make


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scenes of two frames in DriveLM's layout and eight pictures in CODA-LM's; do not write into it."""
    out = tmp_path_factory.mktemp("made")
    make(out, scenes=3, frames=2, corner=8, size=(160, 90), seed=0)
    return out


@pytest.fixture
def sample() -> Callable[..., Sample]:
    """A sample with defaults for everything."""

    def build(id: str = "a", **fields: object) -> Sample:
        defaults: dict[str, object] = {
            "id": id,
            "dataset": "made",
            "scene": "s",
            "frame": "f",
            "split": "train",
            "regime": "regular",
            "task": "perception",
            "question": "What is it?",
            "answer": "A car.",
            "images": {"CAM_FRONT": "/data/a.jpg"},
        }
        return Sample(**{**defaults, **fields})

    return build
