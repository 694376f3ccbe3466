"""`drivedistill train` and `drivedistill distill`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from drivedistill.cli.inputs import keep_quiet
from drivedistill.problems import InputError, Problem

RecipeFile = Annotated[Path, typer.Argument(help="YAML file; ready ones are in recipes/.", metavar="RECIPE")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Fields to change.", metavar="[key.sub=value]...")]
Out = Annotated[Path | None, typer.Option(help="Folder of the run; default runs/NAME.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Remove an earlier run in this folder first.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show shapes, counts, one sample, memory and time; write nothing.")
]
AllowRandom = Annotated[
    bool, typer.Option("--allow-random", help="Permit frozen parts with random weights (speed tests only).")
]


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
    keep_quiet()
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
        words = facts["teacher_cache"]
        heard = "" if words is None else f", the teacher's words from {words['folder']}"
        typer.echo(f"{facts['steps']} steps in {facts['seconds']:g} s{seen}{heard}: {folder}")
