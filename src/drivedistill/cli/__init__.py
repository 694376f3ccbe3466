"""The verbs, one file each. A stage is imported only when it is asked for, so `--help` is quick.

Exit codes: 0 ok, 1 the run failed, 2 usage, recipe or data error, 3 a quality gate failed, 130/143 interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from drivedistill import __version__
from drivedistill.cli.ablate import ablate
from drivedistill.cli.bench import bench
from drivedistill.cli.cache import cache
from drivedistill.cli.compare import compare
from drivedistill.cli.data import data
from drivedistill.cli.experts import experts
from drivedistill.cli.learn import distill, train
from drivedistill.cli.predict import predict
from drivedistill.cli.pretrain import pretrain
from drivedistill.cli.probe import probe
from drivedistill.cli.quickstart import quickstart
from drivedistill.cli.report import report
from drivedistill.cli.score import score
from drivedistill.cli.study import study
from drivedistill.cli.world import world
from drivedistill.problems import InputError, RunError
from drivedistill.signals import Interrupted


class Verbs(TyperGroup):
    """The verbs; Ctrl-C gets a sentence where a verb has none of its own (typer would leave in silence)."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb.

        Raises:
            Interrupted: By Ctrl-C.
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            said = "before the end; no file is half-written, and the same command can be given again"
            raise Interrupted(signal.SIGINT, said) from None


app = typer.Typer(
    cls=Verbs, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None, add_completion=False,
    help="Turn a large driving vision-language model into a small one that answers in time.",
)  # fmt: skip
app.add_typer(data, name="data")
for verb in (
    quickstart,
    world,
    cache,
    pretrain,
    train,
    distill,
    predict,
    probe,
    score,
    compare,
    bench,
    experts,
    study,
    ablate,
    report,
):
    app.command()(verb)


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


def main() -> None:
    """Entry point: runs the verb and turns errors into exit codes."""
    # A processor's matrix products are prepared once per shape and kept: a thousand of them by default, half a megabyte each.
    # Batches of texts have new shapes all the time, so a training would grow by a gigabyte and gain nothing.
    for kept in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
        os.environ.setdefault(kept, "64")
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
