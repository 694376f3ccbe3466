"""Shared fixtures: determinism, and the public DriveLM sample where it can be found."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `tiny` and `fakes`
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def drivelm_sample() -> Path:
    """Folder of the public DriveLM sample (nine frames, CC BY-NC-SA), read in place."""
    beside = Path(__file__).parents[2] / "shared" / "data" / "drivelm_sample"
    root = Path(os.environ.get("DRIVELM_SAMPLE", beside))
    if not (root / "QA_dataset_nus").is_dir():
        pytest.skip("the DriveLM sample is absent; set DRIVELM_SAMPLE to the folder that holds QA_dataset_nus/")
    return root


@pytest.fixture(autouse=True)
def _fresh_accelerator_state():
    """Accelerate remembers the first precision of a process; tests must not inherit one another's."""
    yield
    if "accelerate" in sys.modules:
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state()
