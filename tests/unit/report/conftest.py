"""The made-up runs, once for all tests that only read them."""

from pathlib import Path

import pytest
from made_runs import make_everything

from drivedistill.report.evidence import Evidence, gather


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What a report is called with."""
    return make_everything(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="session")
def evidence(folders: list[Path]) -> Evidence:
    """What lies in there."""
    return gather(folders)
