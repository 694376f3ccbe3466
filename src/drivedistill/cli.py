"""The verbs. A stage is imported only when it is asked for, so `--help` is quick.

Exit codes: 0 ok, 1 the run failed, 2 usage, recipe or data error, 3 a quality gate failed, 130/143 interrupted after saving.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from drivedistill import __version__
from drivedistill.problems import InputError, Problem, RunError
from drivedistill.signals import Interrupted

Format = Literal["drivelm", "coda_lm", "jsonl"]

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None, add_completion=False,
    help="Turn a large driving vision-language model into a small one that answers in time.",
)  # fmt: skip
data = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look at data sets.")
app.add_typer(data, name="data")

RecipeFile = Annotated[Path, typer.Argument(help="YAML file; ready ones are in recipes/.", metavar="RECIPE")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Fields to change.", metavar="[key.sub=value]...")]
Out = Annotated[Path | None, typer.Option(help="Folder of the run; default runs/NAME.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Remove an earlier run in this folder first.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show shapes, counts, memory and one sample; write nothing.")]
AllowRandom = Annotated[
    bool, typer.Option("--allow-random", help="Permit frozen parts with random weights (speed tests only).")
]


def version(value: bool) -> None:
    """Print the version and leave."""
    if value:
        typer.echo(f"drivedistill {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Turn a large driving vision-language model into a small one that answers in time."""
    if debug:
        os.environ["DRIVEDISTILL_DEBUG"] = "1"


@data.command("check")
def check(
    root: Annotated[Path, typer.Argument(help="Data root, or a recipe whose mixture is checked.", metavar="ROOT")],
    format: Annotated[Format, typer.Option(help="Published format below ROOT.")] = "drivelm",
    file: Annotated[str, typer.Option(help="Which of the format's files, e.g. train, challenge, Val.")] = "train",
    regime: Annotated[Literal["regular", "corner"], typer.Option(help="What the data stand for.")] = "regular",
    images: Annotated[Literal["none", "exist", "decode"], typer.Option(help="How pictures are checked.")] = "decode",
) -> None:
    """Count, and look for what would spoil a run; exit code 2 when something must be mended.

    Example: drivedistill data check data/drivelm --format drivelm
    """
    from drivedistill.data.check import check as look
    from drivedistill.data.check import format_report
    from drivedistill.data.mixture import load_mixture
    from drivedistill.recipe import load_recipe

    if root.suffix in (".yaml", ".yml"):
        splits = load_mixture(load_recipe(root).data.sources)
    else:
        splits = {file: _read(root, format, file, regime)}
    report = look(splits, images=images)
    typer.echo(format_report(report))
    if report.problems:
        raise InputError(report.problems)


@app.command()
def train(
    recipe: RecipeFile,
    overrides: Overrides = None,
    out: Out = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    allow_random: AllowRandom = False,
) -> None:
    """Supervised training: a teacher, or a student without one.

    Example: drivedistill train recipes/tiny_teacher.yaml train.epochs=2 --out runs/teacher
    """
    _learn("train", recipe, overrides, out, resume, overwrite, dry_run, allow_random)


@app.command()
def distill(
    recipe: RecipeFile,
    overrides: Overrides = None,
    out: Out = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    allow_random: AllowRandom = False,
) -> None:
    """The main job: train a student that listens to its teacher.

    Example: drivedistill distill recipes/tiny_dis.yaml teacher.path=runs/teacher --out runs/student
    """
    _learn("distill", recipe, overrides, out, resume, overwrite, dry_run, allow_random)


@app.command()
def predict(
    model: Annotated[
        str, typer.Argument(help="Run, directory, hub id, or http(s) address of a server.", metavar="MODEL")
    ],
    data: Annotated[Path | None, typer.Option(help="Data root; default: the run's own mixture.")] = None,
    format: Annotated[Format, typer.Option(help="Published format below the root.")] = "drivelm",
    file: Annotated[str, typer.Option(help="Which of the format's files.")] = "train",
    regime: Annotated[Literal["regular", "corner"], typer.Option(help="What the data stand for.")] = "regular",
    split: Annotated[str, typer.Option(help="Split of the run's own mixture (without --data).")] = "val",
    out: Annotated[Path | None, typer.Option(help="JSONL file; default in the run's predictions folder.")] = None,
    decode: Annotated[str, typer.Option(help="greedy, beam-N, or teacher_forced (EM-VLM4AD's way).")] = "greedy",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 256,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions answered at once.")] = 16,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first questions.")] = None,
    served_model: Annotated[str, typer.Option(help="Model name sent to a server.")] = "default",
    api_key_env: Annotated[str | None, typer.Option(help="Environment variable with the server's key.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count the questions; write nothing.")] = False,
) -> None:
    """Answer questions; goes on where an interrupted call stopped.

    Example: drivedistill predict runs/student --data data/drivelm --format drivelm
    """
    from drivedistill.evaluate.endpoint import Endpoint, served_answerer
    from drivedistill.evaluate.predict import decoding, local_answerer, written_at
    from drivedistill.evaluate.predict import predict as answer
    from drivedistill.runs import require_pictures

    way = decoding(decode, max_new_tokens)
    samples = _read(data, format, file, regime) if data else _own_split(model, split)
    samples = samples[:limit]
    require_pictures(samples)
    served = model.startswith(("http://", "https://"))
    if served and decode != "greedy":
        remedy = "leave --decode away; a server decides itself, at temperature 0"
        raise InputError(Problem("command line", "--decode", "none for a server", repr(decode), remedy))
    name = "endpoint" if served else decode
    target = out or _default_predictions(model, f"{data.resolve().name}-{file}" if data else split, name)
    if dry_run:
        typer.echo(f"{len(samples)} questions would be answered ({name}) into {target}")
        return
    _quiet()
    since = None
    if served:
        shown = served_model
        endpoint = Endpoint(model, served_model, api_key_env, timeout_s=300)  # long answers, a long queue
        answerer = served_answerer(endpoint, max_new_tokens)
    else:
        shown, since = str(Path(model)), written_at(model)
        answerer = local_answerer(model, way, samples)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        count = answer(samples, answerer, target, model=shown, decode=name, batch_size=batch_size, since=since)
    except KeyboardInterrupt:
        typer.echo(f"interrupted; answers so far are kept in {target}, run again to go on", err=True)
        raise typer.Exit(130) from None
    typer.echo(f"{count} new answers, {len(samples)} in all: {target}")


@app.command()
def score(
    predictions: Annotated[
        list[Path], typer.Argument(help="JSONL, or DriveLM's output/submission.json.", metavar="FILE...")
    ],
    reference: Annotated[Path | None, typer.Option(help="Data root with the questions of a submission.")] = None,
    format: Annotated[Format, typer.Option(help="Format below --reference.")] = "drivelm",
    file: Annotated[str, typer.Option(help="Which of its files.")] = "challenge",
    out: Annotated[Path | None, typer.Option(help="Result; default STEM.results.json beside the first file.")] = None,
    fail_under: Annotated[list[str] | None, typer.Option(help="metric=value, e.g. bleu_4=45 or corner.avg=20.")] = None,
    no_meteor: Annotated[bool, typer.Option("--no-meteor", help="Leave METEOR out (saves ten seconds).")] = False,
    tokenizer: Annotated[Literal["ptb", "approximate"], typer.Option(help="`approximate` needs no Java.")] = "ptb",
    judge: Annotated[str | None, typer.Option(help="Address of an OpenAI-compatible server that judges.")] = None,
    judge_model: Annotated[str, typer.Option(help="Model name sent to the judge.")] = "gpt-3.5-turbo",
    api_key_env: Annotated[str | None, typer.Option(help="Environment variable with the judge's key.")] = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap over scenes.")] = 0,
) -> None:
    """Score predictions as the papers do; exit code 3 when a gate fails.

    Example: drivedistill score runs/student/predictions/val-greedy.jsonl --fail-under regular.avg=40
    """
    from drivedistill.evaluate.score import score as rate
    from drivedistill.evaluate.score_table import format_scores, gate
    from drivedistill.records import Prediction, read_jsonl, write_json

    rows: list[Prediction] = []
    for path in predictions:
        if path.suffix == ".json":
            from drivedistill.evaluate.submission import read_submission

            if reference is None:
                remedy = "add --reference DATA_ROOT (and --format, --file)"
                raise InputError(Problem(str(path), "", "the questions it answers", "no --reference", remedy))
            rows += read_submission(path, _read(reference, format, file, "regular"))
        else:
            rows += (found := read_jsonl(path, Prediction))
            if not found:
                raise InputError(
                    Problem(str(path), "", "predictions", "an empty file", "run `drivedistill predict` again")
                )
    who = None
    target = out or predictions[0].with_name(f"{predictions[0].stem}.results.json")
    if judge:
        from drivedistill.evaluate.endpoint import Endpoint
        from drivedistill.evaluate.judge import Judge

        who = Judge(Endpoint(judge, judge_model, api_key_env), cache=target.with_suffix(".judge.jsonl"))
    scores = rate(rows, judge=who, meteor=not no_meteor, tokenizer=tokenizer, seed=seed)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_json(target, [row.model_dump() for row in scores])
    typer.echo(format_scores(scores))
    typer.echo(f"\nall numbers: {target}")
    if failures := gate(
        scores, fail_under or []
    ):  # after writing: scoring takes minutes, a mistyped gate must not cost them
        typer.echo("\n" + "\n".join(failures), err=True)
        raise typer.Exit(3)


def main() -> None:
    """Entry point: runs the verb and turns errors into exit codes."""
    try:
        app(standalone_mode=True)
    except InputError as error:
        count = len(error.problems)
        typer.echo("\n".join(map(str, error.problems)), err=True)
        typer.echo(f"\n{count} problem{'s' if count > 1 else ''} to mend", err=True)
        _leave(2)
    except RunError as error:
        typer.echo(f"the run failed: {error}", err=True)
        _leave(1)
    except Interrupted as error:
        typer.echo(str(error), err=True)
        _leave(128 + error.number)
    except Exception as error:
        typer.echo(f"the run failed: {type(error).__name__}: {error}\n(--debug shows where)", err=True)
        _leave(1)


def _leave(code: int) -> None:
    if os.environ.get("DRIVEDISTILL_DEBUG"):
        traceback.print_exc()
    sys.exit(code)


def _learn(
    verb: Literal["train", "distill"],
    path: Path,
    overrides: list[str] | None,
    out: Path | None,
    resume: bool,
    overwrite: bool,
    dry_run: bool,
    allow_random: bool,
) -> None:
    from drivedistill.recipe import load_recipe

    recipe = load_recipe(path, [*(overrides or []), *(["model.allow_random=true"] if allow_random else [])])
    if (recipe.teacher is not None) != (verb == "distill"):
        found = "a recipe with a teacher" if recipe.teacher else "a recipe without a teacher"
        remedy = "use `drivedistill distill`, or add teacher=null" if recipe.teacher else "use `drivedistill train`"
        raise InputError(Problem(str(path), "teacher", f"a recipe for `{verb}`", found, remedy))
    _quiet()
    if dry_run:
        from drivedistill.dry_run import describe

        typer.echo(describe(recipe))
        return
    from drivedistill.runs import run

    folder = out or Path("runs") / recipe.name
    facts = run(recipe, folder, resume=resume, overwrite=overwrite)
    if os.environ.get("RANK", "0") == "0":
        best = facts["best_validation_loss"]
        seen = "" if best is None else f", best validation loss {best:.4f} at step {facts['best_step']}"
        typer.echo(f"{facts['steps']} steps in {facts['seconds']:g} s{seen}: {folder}")


def _read(root: Path, format: str, file: str, regime: Literal["regular", "corner"]) -> list[Any]:
    from drivedistill.data import READERS

    samples = list(READERS[format](root, file, regime=regime))
    if not samples:
        raise InputError(Problem(str(root), file, "questions", "none (an empty split)", "choose another --file"))
    return samples


def _own_split(model: str, split: str) -> list[Any]:
    """The samples of a split of the mixture that a run was trained on."""
    from drivedistill.data.mixture import load_mixture
    from drivedistill.recipe import load_recipe

    path = Path(model) / "recipe.yaml"
    if not path.is_file():
        raise InputError(Problem(model, "", "a run with a recipe", "no recipe.yaml", "add --data ROOT --format FORMAT"))
    splits = load_mixture(load_recipe(path).data.sources)
    if not splits.get(split):
        found = f"splits: {', '.join(name for name, samples in splits.items() if samples)}"
        raise InputError(Problem(str(path), "data.sources", f"samples in the split `{split}`", found, "choose another"))
    return splits[split]


def _default_predictions(model: str, what: str, decode: str) -> Path:
    if not Path(model).is_dir():
        raise InputError(Problem(model, "", "a run to write into", "a hub id or a server", "add --out FILE.jsonl"))
    return Path(model) / "predictions" / f"{what}-{decode}.jsonl"


def _quiet() -> None:
    """Keep the libraries' own progress bars and advice out of our output."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


if __name__ == "__main__":
    main()
