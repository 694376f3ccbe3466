"""What several verbs share: reading questions, keeping the libraries quiet."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any, Literal

from drivedistill.problems import InputError, Problem

Format = Literal["drivelm", "coda_lm", "jsonl"]
RegimeName = Literal["regular", "corner"]


def read_questions(root: Path, format: str, file: str, regime: RegimeName) -> list[Any]:
    """The samples of one of a format's files; an empty one is an input error."""
    from drivedistill.data import READERS

    samples = list(READERS[format](root, file, regime=regime))
    if not samples:
        raise InputError(Problem(str(root), file, "questions", "none (an empty split)", "choose another --file"))
    return samples


def keep_quiet() -> None:
    """Keep the libraries' own progress bars, advice and warnings to each other out of our output."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\b")  # PEFT asks it by old names
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
