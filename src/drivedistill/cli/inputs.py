"""What several verbs share: reading and choosing questions, keeping the libraries quiet."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any, Literal

from drivedistill.problems import InputError, Problem

Format = Literal["drivelm", "coda_lm", "senna", "clips", "jsonl"]
RegimeName = Literal["regular", "corner"]


def read_questions(root: Path, format: str, file: str, regime: RegimeName) -> list[Any]:
    """The samples of one of a format's files; an empty one is an input error."""
    from drivedistill.data import READERS

    samples = list(READERS[format](root, file, regime=regime))
    if not samples:
        raise InputError(Problem(str(root), file, "questions", "none (an empty split)", "choose another --file"))
    return samples


def own_mixture(model: str) -> dict[str, list[Any]]:
    """Split -> samples of the mixture that a run was trained on, or that a recipe file names."""
    from drivedistill.data.mixture import load_mixture
    from drivedistill.recipe import load_recipe

    path = Path(model) if model.endswith((".yaml", ".yml")) else Path(model) / "recipe.yaml"
    if not path.is_file():
        remedy = "name a run, or add --data ROOT --format FORMAT"
        raise InputError(Problem(model, "", "a run with a recipe", "no recipe.yaml", remedy))
    return load_mixture(load_recipe(path).data.sources)


def own_split(model: str, split: str) -> list[Any]:
    """The samples of one split of a run's own mixture."""
    splits = own_mixture(model)
    if not splits.get(split):
        found = f"splits: {', '.join(name for name, samples in splits.items() if samples)}"
        raise InputError(Problem(model, "data.sources", f"samples in the split `{split}`", found, "choose another"))
    return splits[split]


def spread(samples: list[Any], limit: int | None) -> list[Any]:
    """At most `limit` samples of each data set and regime, in their order."""
    from drivedistill.data.mixture import draw

    if limit is None:
        return samples
    sets: dict[tuple[str, str], list[Any]] = {}
    for sample in samples:
        sets.setdefault((sample.dataset, sample.regime), []).append(sample)
    chosen = {id(sample) for members in sets.values() for sample in draw(members, limit, seed=0)}
    return [sample for sample in samples if id(sample) in chosen]


def keep_quiet() -> None:
    """Keep the libraries' own progress bars, advice and warnings to each other out of our output."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\b")  # PEFT asks it by old names
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
