"""`drivedistill cache`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from drivedistill.cli.inputs import keep_quiet
from drivedistill.cli.learn import AllowRandom, Overrides, RecipeFile
from drivedistill.problems import InputError, Problem


def cache(
    recipe: RecipeFile,
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the cache; default the recipe's data.vision_cache.")
    ] = None,
    splits: Annotated[list[str] | None, typer.Option(help="A split to add to train and val; may be repeated.")] = None,
    dtype: Annotated[Literal["float32", "float16"], typer.Option(help="Numbers on disk.")] = "float32",
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures computed at once.")] = 32,
    verify: Annotated[bool, typer.Option("--verify", help="Read all rows; compute damaged ones again.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for another call that writes the cache; by default refuse.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be computed; write nothing.")] = False,
    allow_random: AllowRandom = False,
) -> None:
    """Compute what a recipe's frozen vision towers make of its pictures, once; training then reads that.

    Repeated, it computes what is missing: an interrupted call goes on, changed pictures are noticed.

    Example: drivedistill cache recipes/tiny_dis.yaml teacher.path=runs/teacher --out runs/cache
    """
    from drivedistill.recipe import load_recipe

    card = load_recipe(recipe, [*(overrides or []), *(["model.allow_random=true"] if allow_random else [])])
    folder = out or card.data.vision_cache
    if folder is None:
        remedy = "add --out FOLDER, or set data.vision_cache in the recipe"
        raise InputError(Problem(str(recipe), "data.vision_cache", "a folder for the cache", "none", remedy))
    keep_quiet()
    from drivedistill.distill.cache_build import build, plan
    from drivedistill.runs import assemble

    pictures = card.data.model_copy(update={"vision_cache": None})  # the one that is being made
    parts = assemble(card.model_copy(update={"data": pictures}))
    roles = {"student": parts.student} | ({"teacher": parts.teacher} if parts.teacher else {})
    samples = _chosen(parts.splits, splits or [])
    precision = card.train.precision
    if dry_run:
        typer.echo("\n".join(map(str, plan(folder, roles, samples, precision=precision, dtype=dtype))))
        return
    made, computed = build(
        folder,
        roles,
        samples,
        precision=precision,
        dtype=dtype,
        batch_size=batch_size,
        workers=card.data.workers,
        verify=verify,
        wait=wait,
    )
    typer.echo("\n".join(map(str, made)))
    typer.echo(f"{computed:,} computed; train with data.vision_cache={folder}")


def _chosen(splits: dict[str, list[Any]], added: list[str]) -> list[Any]:
    """The samples of what training reads, and of the splits that were asked for."""
    problems = [
        Problem("command line", "--splits", f"one of {', '.join(splits)}", repr(name), "correct the name")
        for name in added
        if name not in splits
    ]
    if problems:
        raise InputError(problems)
    return [sample for name in dict.fromkeys(["train", "val", *added]) for sample in splits.get(name, [])]
