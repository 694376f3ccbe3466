"""Shared fixtures: determinism, and the public DriveLM sample where it can be found."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# Examples are the same on every machine, and a loaded one is no reason to fail.
settings.register_profile("fixed", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("fixed")

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: threads that wait for each other cost more than they give
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


BUDGET_S = {
    "unit/bench": 30,
    "unit/data": 25,
    "unit/experts": 15,
    "unit/study": 10,
    "unit/models": 70,
    "unit/distill": 32,
    "unit/evaluate": 55,
    "unit/ablate": 10,
    "unit/world": 90,
    "unit/report": 20,
    "unit/pretrain": 10,
    "unit/quickstart": 20,
    "unit": 75,
    "e2e": 210,
}
"""Seconds that the default tests of a room may take, summed over the two processes that run them; five minutes in all."""


def _room(path: str) -> str:
    parts = Path(path).parts[1:-1]
    return "/".join(parts[:2]) if "/".join(parts[:2]) in BUDGET_S else parts[0]


def pytest_terminal_summary(terminalreporter, config):
    """Show what every room took; three times its budget fails the run, since a slow suite is not run."""
    if "long" in config.getoption("-m").replace("not long", ""):
        return
    spent: dict[str, float] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if hasattr(report, "duration") and hasattr(report, "when"):
                spent[_room(report.nodeid.partition("::")[0])] = (
                    spent.get(_room(report.nodeid.partition("::")[0]), 0) + report.duration
                )
    for room, seconds in sorted(spent.items()):
        terminalreporter.write_line(f"{room:16} {seconds:6.1f} s of {BUDGET_S.get(room, 30)} s")
        if seconds > 3 * BUDGET_S.get(room, 30):
            terminalreporter._session.exitstatus = 1
            terminalreporter.write_line(f"{room} is far over its time budget")
