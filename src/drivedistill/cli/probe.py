"""`drivedistill probe`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drivedistill.cli.inputs import (
    DataOption,
    FileOption,
    FormatOption,
    LimitPerSet,
    RegimeOption,
    TestSplit,
    chosen_questions,
    default_folder,
    keep_quiet,
    mixture_of,
    ready_folder,
    recipe_of,
    refuse_remote,
)
from drivedistill.problems import InputError, Problem

if TYPE_CHECKING:
    from drivedistill.records import Prediction, Sample

DEFAULT = "black,none,shuffled,prior"


def probe(
    model: Annotated[str, typer.Argument(help="Run, directory or hub id.", metavar="MODEL")],
    conditions: Annotated[
        str,
        typer.Option(help="Controls (black, none, shuffled, prior), corruptions (fog, rain:3, ...), or `corruptions`."),
    ] = DEFAULT,
    data: DataOption = None,
    format: FormatOption = None,
    file: FileOption = None,
    regime: RegimeOption = None,
    split: TestSplit = None,
    prior: Annotated[
        str | None, typer.Option(help="Run or recipe whose train split teaches the prior; default: MODEL.")
    ] = None,
    limit_per_set: LimitPerSet = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 256,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions answered at once.")] = 16,
    seed: Annotated[int, typer.Option(help="Of what is drawn: shuffled pictures, corruptions, scenes.")] = 0,
    no_captions: Annotated[
        bool, typer.Option("--no-captions", help="No Avg (BLEU-4, METEOR, ROUGE-L): no Java.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder; default probe/ in the run.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count the questions; write nothing.")] = False,
) -> None:
    """Does it look, and what do bad pictures cost? The same questions under several conditions, side by side.

    Example: drivedistill probe runs/student --conditions black,none,shuffled,prior,fog:3 --limit-per-set 400
    """
    from drivedistill.evaluate.looking import reading, side_by_side
    from drivedistill.evaluate.looking_table import table
    from drivedistill.progress import counted
    from drivedistill.records import write_json, write_text
    from drivedistill.runs import require_pictures

    refuse_remote("probe", [model])
    names = _conditions(conditions)
    teacher = (
        recipe_of(prior or model, "add --prior RUN, or leave prior out of --conditions") if "prior" in names else None
    )
    _, everything, samples, train = chosen_questions(
        model, data, format, file, regime, split, default_split="test", limit_per_set=limit_per_set
    )
    require_pictures(samples)
    target = out or default_folder(model) / "probe"
    if dry_run:
        typer.echo(f"{counted(len(samples), 'question')} would be answered under {', '.join(names)} into {target}")
        return
    keep_quiet()
    taught = mixture_of(teacher)["train"] if teacher and (prior or not train) else train
    ready_folder(target)
    settings = {"seed": seed, "max_new_tokens": max_new_tokens} | ({"prior": str(teacher)} if teacher else {})
    _keep(target / "settings.json", settings)
    try:
        answers = _answers(model, everything, samples, names, taught, target, max_new_tokens, batch_size, seed)
    except KeyboardInterrupt:
        typer.echo(f"interrupted; answers so far are kept in {target}, run again to go on", err=True)
        raise typer.Exit(130) from None
    rows = side_by_side(answers, captions=not no_captions, seed=seed)
    text = table(rows) + "\n".join(["", *reading(rows), ""])
    write_json(target / "probe.json", rows)
    write_text(target / "probe.md", f"# {model}\n\n```\n{text}```\n")
    typer.echo(f"{text}\nall numbers: {target / 'probe.json'}")


def _conditions(text: str) -> list[str]:
    """`clean` first, then what is asked for, each once, in its one spelling."""
    from drivedistill.data.condition import CONTROLS, condition_name
    from drivedistill.data.corruptions import CORRUPTIONS
    from drivedistill.records import CLEAN

    words = [word.strip() for word in text.split(",") if word.strip()]
    listed = [name for word in words for name in (CORRUPTIONS if word == "corruptions" else [word])]
    names, problems = ["clean"], []
    for word in listed:
        try:
            names.append(condition_name(word, "--conditions", [CLEAN, *CONTROLS, "prior", "corruptions"]))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return list(dict.fromkeys(names))


def _keep(path: Path, settings: dict[str, Any]) -> None:
    """Refuse a folder with answers that were asked for in another way; they would be mixed."""
    from drivedistill.data.paths import load_json
    from drivedistill.records import write_json

    before = load_json(path, "how a probe was asked") if path.is_file() else {}
    remedy = "choose another --out, or remove the folder"
    problems = [
        Problem(str(path), name, f"{before[name]!r} as in the answers that lie there", repr(value), remedy)
        for name, value in settings.items()
        if before.get(name, value) != value
    ]
    if problems:
        raise InputError(problems)
    write_json(path, before | settings)


def _answers(
    model: str,
    everything: Sequence[Sample],
    samples: Sequence[Sample],
    names: Sequence[str],
    taught: Sequence[Sample],
    folder: Path,
    max_new_tokens: int,
    batch_size: int,
    seed: int,
) -> dict[str, list[Prediction]]:
    """Answers under every condition, from the folder where they are there already."""
    from drivedistill.data.condition import show
    from drivedistill.data.images import PictureCache
    from drivedistill.evaluate.answering import subject_answerer
    from drivedistill.evaluate.decoding import Decoding
    from drivedistill.evaluate.looking import PRIOR
    from drivedistill.evaluate.predict import How, predict, written_at
    from drivedistill.evaluate.text_only import prior_answerer
    from drivedistill.records import Prediction, read_jsonl
    from drivedistill.runs import require_pictures
    from drivedistill.subject import load_subject

    subject, found = load_subject(model, PictureCache(0)), {}
    for number, name in enumerate(names, start=1):
        typer.echo(f"{name} ({number} of {len(names)})", err=True)
        path = folder / f"{name.replace(':', '-')}.jsonl"
        if name == "prior":
            how, given, since = How(PRIOR, "text_only"), list(samples), None
            answerer: Any = prior_answerer(taught)
        else:
            shown = show(everything, name, seed).only(samples)
            require_pictures(shown.samples)  # other scenes' pictures, where they are shuffled
            how, given, since = How(str(Path(model)), "greedy", name), shown.samples, written_at(model)
            preparation = replace(subject.preparation, pictures=PictureCache(512, shown.change))
            seeing = replace(subject, preparation=preparation)
            answerer = subject_answerer(seeing, Decoding(max_new_tokens=max_new_tokens), given, blind=shown.blind)
        predict(given, answerer, path, how=how, batch_size=batch_size, since=since, limit=max_new_tokens)
        asked = {sample.id for sample in samples}
        found[PRIOR if name == "prior" else name] = [row for row in read_jsonl(path, Prediction) if row.id in asked]
    return found
