"""The command line, typed into this process."""

import sys

import pytest

from drivedistill.cli import main


def typed(*arguments: str) -> int:
    """The exit code of a command line, run in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DRIVEDISTILL_DEBUG", "")
        patch.setattr(sys, "argv", ["drivedistill", *arguments])
        try:
            main()
        except SystemExit as leaving:
            return int(leaving.code or 0)
    return 0
