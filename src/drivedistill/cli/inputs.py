"""What several verbs share: options that choose questions, reading and choosing them, keeping the libraries quiet."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import typer

from drivedistill.problems import InputError, Problem

Format = Literal["drivelm", "coda_lm", "senna", "clips", "messages", "jsonl"]
RegimeName = Literal["regular", "corner"]

# Without a default, so that an option which has nothing to say is refused and not overlooked.
DataOption = Annotated[Path | None, typer.Option(help="Data root; default: the (first) run's own mixture.")]
FormatOption = Annotated[Format | None, typer.Option(help="Published format below --data [drivelm].")]
FileOption = Annotated[str | None, typer.Option(help="Which of the format's files below --data [train].")]
RegimeOption = Annotated[RegimeName | None, typer.Option(help="What the data of --data stand for [regular].")]
ValSplit = Annotated[str | None, typer.Option(help="Split of the run's own mixture, without --data [val].")]
TestSplit = Annotated[str | None, typer.Option(help="Split of the run's own mixture, without --data [test].")]
EngineOption = Annotated[
    Literal["eager", "compiled", "graph", "generate"],
    typer.Option(
        help="How answers are computed; compiled: torch.compile, graph: CUDA graphs, generate: Hugging Face's loop."
    ),
]
LimitPerSet = Annotated[
    int | None, typer.Option(min=1, help="So many questions of each data set and regime, spread, always the same.")
]


class Questions(NamedTuple):
    """What a command line chooses."""

    name: str
    """Of the choice, for files: the split, or root and file."""
    everything: list[Any]
    """All samples of the file or split; what a condition of the pictures draws depends on all of them."""
    chosen: list[Any]
    """Those that are asked."""
    train: list[Any]
    """The train split of the same mixture, which is read already; empty for files."""


def chosen_questions(
    model: str,
    data: Path | None,
    format: Format | None,
    file: str | None,
    regime: RegimeName | None,
    split: str | None,
    *,
    default_split: str,
    limit_per_set: int | None = None,
) -> Questions:
    """The questions of a data root, or of a split of a model's own mixture.

    Raises:
        InputError: Options that do not go together, data that cannot be read, or nothing to ask.
    """
    if data is None:
        remedy = "add --data ROOT, or leave it away: a run's own mixture has --split"
        refuse_beside({"--format": format, "--file": file, "--regime": regime}, "no --data", remedy)
        name = split or default_split
        splits = own_splits(model, name)
        everything, train = splits[name], splits["train"]
    else:
        remedy = "leave one of them away: --split is of a run's own mixture; --data has --file"
        refuse_beside({"--split": split}, f"--data {data}", remedy)
        name = f"{data.resolve().name}-{file or 'train'}"
        everything, train = read_questions(data, format or "drivelm", file or "train", regime or "regular"), []
    return Questions(name, everything, spread(everything, limit_per_set), train)


def refuse_beside(given: dict[str, Any], beside: str, remedy: str) -> None:
    """Refuse options that would say nothing beside what else is on the command line.

    Args:
        given: Option -> its value; None and False where it was not typed.
        beside: What is there, or missing.
        remedy: What to do about all of them.
    """
    typed = {
        name: name if value is True else f"{name} {value}"
        for name, value in given.items()
        if value not in (None, False)
    }
    if typed:
        raise InputError(
            Problem("command line", name, "options that go together", f"{text} with {beside}", remedy)
            for name, text in typed.items()
        )


def refuse_remote(verb: str, models: Sequence[str]) -> None:
    """Refuse servers and priors, which only `predict` asks, in words; they would be looked for as folders or hub ids."""
    named = {"http://": "a server", "https://": "a server", "prior:": "a prior"}
    expected = f"a run, directory or hub id: {verb} loads its models itself"
    problems = [
        Problem(model, "", expected, what, f"ask {what} with `drivedistill predict {model}`")
        for model in models
        for start, what in named.items()
        if model.startswith(start)
    ]
    if problems:
        raise InputError(problems)


def read_questions(root: Path, format: str, file: str, regime: RegimeName) -> list[Any]:
    """The samples of one of a format's files; an empty one is an input error."""
    from drivedistill.data import READERS

    samples = list(READERS[format](root, file, regime=regime))
    if not samples:
        raise InputError(Problem(str(root), file, "questions", "none (an empty split)", "choose another --file"))
    return samples


def recipe_of(model: str, remedy: str = "name one") -> Path:
    """The recipe file of a run, or the one that is named.

    Raises:
        InputError: There is none; `remedy` says what to do instead.
    """
    path = Path(model) if model.endswith((".yaml", ".yml")) else Path(model) / "recipe.yaml"
    if not path.is_file():
        found = "a folder without recipe.yaml" if Path(model).is_dir() else "no such file or folder here"
        raise InputError(Problem(model, "", "a run or a recipe file", found, remedy))
    return path


def mixture_of(recipe: Path) -> dict[str, list[Any]]:
    """Split -> samples of a recipe's mixture."""
    from drivedistill.data.mixture import load_mixture
    from drivedistill.recipe import load_recipe

    return load_mixture(load_recipe(recipe).data.sources)


def own_splits(model: str, split: str) -> dict[str, list[Any]]:
    """Split -> samples of a run's own mixture, in which there is `split`."""
    splits = mixture_of(recipe_of(model, "name one, or add --data ROOT --format FORMAT"))
    if not splits.get(split):
        found = f"splits: {', '.join(name for name, samples in splits.items() if samples)}"
        raise InputError(Problem(model, "data.sources", f"samples in the split `{split}`", found, "choose another"))
    return splits


def default_folder(model: str) -> Path:
    """Where results of a run are kept; a hub id has no folder."""
    if not Path(model).is_dir():
        raise InputError(Problem(model, "", "a run to write into", "a hub id", "add --out FOLDER"))
    return Path(model)


def ready_folder(path: Path) -> Path:
    """Make a folder for results and see that files can be written there, before the work and not after it.

    Raises:
        InputError: It cannot be made, or nothing can be written into it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        remedy = "choose another --out"
        raise InputError(Problem(str(path), "", "a folder that can be written", str(error), remedy)) from error
    return path


def ready_file(path: Path) -> Path:
    """Likewise, the folder of a file.

    Raises:
        InputError: As for `ready_folder`, or there is a folder of that name.
    """
    if path.is_dir():
        raise InputError(Problem(str(path), "", "a file for the results", "a folder", "choose another --out"))
    ready_folder(path.parent)
    return path


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
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # a name that it lacks is our message, not ten lines of its retries
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
