"""`drivedistill pretrain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from drivedistill.cli.inputs import keep_quiet


def pretrain(
    recipe: Annotated[Path, typer.Argument(help="YAML file; its data, vision tower and seed.", metavar="RECIPE")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Fields to change.", metavar="[key.sub=value]...")
    ] = None,
    *,
    out: Annotated[Path, typer.Option(help="Folder for the tower; name it in model.vision_weights.")],
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the train split's frames.")] = 8,
    batch_size: Annotated[int, typer.Option(min=1, help="Frames per step.")] = 16,
    views: Annotated[
        int, typer.Option(min=1, max=6, help="Views of a frame per step: the front, others at random.")
    ] = 3,
    learning_rate: Annotated[float, typer.Option(help="Peak, above 0; falls linearly to 0.")] = 3e-3,
    precision: Annotated[
        Literal["auto", "no", "bf16"], typer.Option(help="auto: bf16 where the processor computes in it.")
    ] = "auto",
    augment: Annotated[bool, typer.Option(help="Change pictures a little each time they are shown.")] = True,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
) -> None:
    """Pre-train a small vision tower on what a DriveLM data set knows about its pictures.

    Example: drivedistill pretrain recipes/demo_teacher.yaml --out runs/demo_tower
    """
    from drivedistill.precision import fast_precision
    from drivedistill.pretrain.loop import Options
    from drivedistill.pretrain.run import pretrain as work
    from drivedistill.recipe import load_recipe

    keep_quiet()
    arithmetic = fast_precision() if precision == "auto" else precision
    options = Options(epochs, batch_size, views, learning_rate, arithmetic, augment)
    facts = work(load_recipe(recipe, overrides), out, options, resume=resume, say=typer.echo)
    typer.echo(_report(facts, out))


def _report(facts: dict[str, Any], out: Path) -> str:
    """What was learnt, kind by kind."""
    seen = (
        f"{facts['steps']} steps in {facts['seconds']:g} s, loss {facts['losses'][0]:.2f} to {facts['losses'][-1]:.2f}"
    )
    lines = []
    if facts["validation"] is not None:
        lines.append(f"{'validation':42} {'labels':>7} {'right':>6} {'commonest':>9}")
        for kind, row in facts["validation"]["kinds"].items():
            if row["labels"]:
                lines.append(f"{kind[:42]:42} {row['labels']:7} {row['accuracy']:6.1%} {row['commonest']:9.1%}")
    return "\n".join([*lines, f"{seen}: {out / 'model'}"])
