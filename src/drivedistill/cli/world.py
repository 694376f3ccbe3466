"""`drivedistill world`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from drivedistill.cli.inputs import refuse_beside
from drivedistill.problems import InputError


def world(
    out: Annotated[Path, typer.Argument(help="Folder of the data set; new or empty.", metavar="OUT")],
    keyframes: Annotated[int | None, typer.Option(help="Key frames of six pictures, over all splits [600].")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same data.")] = 0,
    size: Annotated[int, typer.Option(help="Width and height of the pictures, 96 to 448 pixels.")] = 112,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; the data do not depend on their number [1].")
    ] = None,
    sheets: Annotated[
        bool, typer.Option("--sheets", help="Also draw one sheet of six pictures per scene kind.")
    ] = False,
    clips: Annotated[
        int | None,
        typer.Option(min=1, help="Instead of a data set: so many clips of four seconds, for `--format clips`."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another data set in OUT.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written; write nothing.")] = False,
) -> None:
    """Write a data set of the embedded driving world.

    DriveLM, CODA-LM and Senna files and JPEGs. An interrupted call goes on when it is repeated.

    Example: drivedistill world data/world --keyframes 600 --seed 0 --workers 2
    """
    from drivedistill.world.dataset.folder import SHEETS, Settings
    from drivedistill.world.dataset.plan import parts
    from drivedistill.world.dataset.write import Stopped, write_world

    if clips is not None:
        given = {"--keyframes": keyframes, "--workers": workers, "--sheets": sheets}
        refuse_beside(given, f"--clips {clips}", "leave it away: it is of a data set; clips have --seed and --size")
        _clips(out, clips, seed, size, overwrite=overwrite, dry_run=dry_run)
        return
    settings = Settings(600 if keyframes is None else keyframes, seed, size)
    if problems := settings.problems():
        raise InputError(problems)
    if dry_run:
        for (split, regime), count in parts(settings.keyframes).items():
            typer.echo(f"{split:<13} {regime:<8} {count:>7,} key frames")
        return
    try:
        manifest = write_world(out, settings, workers=workers or 1, overwrite=overwrite)
    except Stopped as stop:
        typer.echo(f"{stop}: {out}", err=True)
        raise typer.Exit(128 + stop.number) from None
    if sheets:
        from drivedistill.world.dataset.sheets import write_sheets

        typer.echo(f"{len(list(write_sheets(out / SHEETS, seed)))} sheets: {out / SHEETS}")
    typer.echo(_table(manifest))
    typer.echo(f"\n{out}: data hash {manifest['data_hash'][:16]}")


def _clips(out: Path, clips: int, seed: int, size: int, *, overwrite: bool, dry_run: bool) -> None:
    from drivedistill.progress import counted
    from drivedistill.world.dataset.clips import MOMENTS, Settings, write_clips

    settings = Settings(clips, seed, size)
    if problems := settings.problems():
        raise InputError(problems)
    if dry_run:
        typer.echo(f"{counted(clips, 'clip')} of {MOMENTS} moments, {clips * MOMENTS:,} in all")
        return
    manifest = write_clips(out, settings, overwrite=overwrite)
    for label, count in manifest["labels"].items():
        typer.echo(f"{label:<28} {count:>7,} {'moment' if count == 1 else 'moments'}")
    typer.echo(
        f"\n{out}: {counted(clips, 'clip')}, {manifest['moments']:,} moments; "
        "read them with --format clips --file labels"
    )


def _table(manifest: dict[str, object]) -> str:
    """One line per split and regime."""
    lines = [f"{'':<22} {'scenes':>7} {'frames':>7} {'DriveLM':>8} {'CODA-LM':>8} {'Senna':>7} {'not straight':>13}"]
    parts = manifest["parts"]
    assert isinstance(parts, list)
    for part in parts:
        turned = part["key_frames"] - part["lateral"].get("go straight", 0)
        lines.append(
            f"{part['split']:<13} {part['regime']:<8} {part['scenes']:>7,} {part['key_frames']:>7,}"
            f" {part['drivelm_questions']:>8,} {part['coda_lm_questions']:>8,} {part['senna_records']:>7,}"
            f" {turned / max(1, part['key_frames']):>13.0%}"
        )
    lines.append(f"\ntraining: {manifest['regular_to_corner']} regular questions per corner question")
    return "\n".join(lines)
