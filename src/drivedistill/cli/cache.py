"""`drivedistill cache`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from drivedistill.cli.inputs import keep_quiet
from drivedistill.cli.learn import AllowRandom, Overrides, RecipeFile
from drivedistill.problems import InputError, Problem

if TYPE_CHECKING:
    from drivedistill.distill.teacher import LiveTeacher
    from drivedistill.recipe import Recipe


def cache(
    recipe: RecipeFile,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder; default the recipe's data.vision_cache and distill.teacher_cache."),
    ] = None,
    splits: Annotated[
        list[str] | None, typer.Option(help="A split to add to train (and val, for pictures); may be repeated.")
    ] = None,
    dtype: Annotated[Literal["float32", "float16"], typer.Option(help="Numbers of vision features.")] = "float32",
    top_k: Annotated[
        str, typer.Option(help="Tokens of the teacher kept per row; `auto` doubles 64 until they hold 98 %.")
    ] = "64",
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures computed at once.")] = 32,
    verify: Annotated[bool, typer.Option("--verify", help="Read all rows; compute damaged ones again.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for another call that writes the cache; by default refuse.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be computed; write nothing.")] = False,
    allow_random: AllowRandom = False,
) -> None:
    """Compute once what never changes: features of frozen vision towers, and what the teacher says of the answers.

    Features are kept where the recipe has data.vision_cache, the teacher's words where it has distill.teacher_cache.
    Repeated, it computes what is missing: an interrupted call goes on, changed pictures are noticed.

    Example: drivedistill cache recipes/tiny_dis.yaml teacher.path=runs/teacher --out runs/cache
    """
    from drivedistill.recipe import load_recipe

    k = _kept(top_k)
    card = load_recipe(recipe, [*(overrides or []), *(["model.allow_random=true"] if allow_random else [])])
    pictures, words = card.data.vision_cache, card.distill.teacher_cache
    if out is not None:  # a recipe that names nothing means pictures
        pictures, words = (out if pictures or not words else None), (out if words else None)
    if pictures is None and words is None:
        remedy = "add --out FOLDER, or set data.vision_cache or distill.teacher_cache in the recipe"
        raise InputError(Problem(str(recipe), "data.vision_cache", "a folder for the cache", "none", remedy))
    from drivedistill.teaching import speaks

    keep_quiet()
    call = _Call(card, splits or [], batch_size=batch_size, verify=verify, wait=wait, dry_run=dry_run)
    if pictures is not None:
        call.features(pictures, dtype)
    if words is not None:
        if speaks(card):
            call.words(words, k, pictures)
        call.maps(words)


class _Call:
    """One call: the recipe's live models, and the options that both kinds of rows share."""

    def __init__(
        self, card: Recipe, splits: list[str], *, batch_size: int, verify: bool, wait: bool, dry_run: bool
    ) -> None:
        from drivedistill.runs import assemble

        # The caches are being made, so the models are built as without them.
        data = card.data.model_copy(update={"vision_cache": None})
        distill = card.distill.model_copy(update={"teacher_cache": None})
        self.card, self.parts = card, assemble(card.model_copy(update={"data": data, "distill": distill}))
        self.roles = {"student": self.parts.student} | ({"teacher": self.parts.teacher} if self.parts.teacher else {})
        self.splits, self.batch_size, self.dry_run = splits, batch_size, dry_run
        self.options: dict[str, Any] = {"workers": card.data.workers, "verify": verify, "wait": wait}

    def features(self, folder: Path, dtype: Literal["float32", "float16"]) -> None:
        """Features of the frozen towers."""
        from drivedistill.distill.cache_build import build, plan

        samples, precision = self._chosen("train", "val"), self.card.train.precision
        if self.dry_run:
            typer.echo("\n".join(map(str, plan(folder, self.roles, samples, precision=precision, dtype=dtype))))
            return
        options = {"batch_size": self.batch_size, **self.options}
        made, computed = build(folder, self.roles, samples, precision=precision, dtype=dtype, **options)
        typer.echo("\n".join(map(str, made)))
        typer.echo(f"{computed:,} computed; train with data.vision_cache={folder}")

    def words(self, folder: Path, k: int | None, pictures: Path | None) -> None:
        """What the teacher says; it reads features where they have just been made."""
        from drivedistill.build import speaker_of
        from drivedistill.distill.cache import open_cache
        from drivedistill.distill.teacher_cache_build import build, plan

        teacher = self.parts.teacher
        assert teacher is not None  # a recipe with `distill.teacher_cache` has one
        samples, precision = self._chosen("train"), self.card.train.precision
        speaker = speaker_of(self.card, teacher)
        if self.dry_run:
            typer.echo(str(plan(folder, speaker, samples, k or 64)))
            return
        if pictures is not None and (read := open_cache(pictures, self.roles, samples, precision).get("teacher")):
            speaker = replace(speaker, preparation=replace(teacher.preparation, features=read))
        live = self._live("teacher")
        made, computed, captured = build(
            folder, speaker, live, samples, k=k, batch_size=self.card.train.batch_size, **self.options
        )
        typer.echo(f"{made}\n{captured}\n{computed:,} computed; train with distill.teacher_cache={folder}")

    def maps(self, folder: Path) -> None:
        """Where teachers' text looks at pictures, for those of whom the lessons need nothing else."""
        from drivedistill.build import speaker_of
        from drivedistill.distill.cache_folder import file_digests
        from drivedistill.distill.lessons import Lessons
        from drivedistill.distill.map_cache import build, plan
        from drivedistill.teaching import kept_layers

        objective, faculty = self.parts.setting.objective, self.parts.faculty
        courses = objective.courses if isinstance(objective, Lessons) else {}
        samples = self._chosen("train")
        for role, layers in kept_layers(self.card, faculty, courses).items():
            subject = faculty.subjects[role]
            speaker = speaker_of(self.card, subject, faculty.cards[role])
            if self.dry_run:
                typer.echo(str(plan(folder, speaker, samples, layers, file_digests(folder))))
                continue
            live = self._live(role)
            size = self.card.train.batch_size
            made, computed = build(folder, speaker, live, samples, layers, batch_size=size, **self.options)
            typer.echo(f"{made}\n{computed:,} computed")

    def _live(self, role: str) -> LiveTeacher:
        """A teacher with its weights; of those that take turns they are loaded now."""
        from drivedistill.build import build_teacher
        from drivedistill.distill.teacher import LiveTeacher
        from drivedistill.models.student import Student

        subject, card = self.parts.faculty.subjects[role], self.parts.faculty.cards[role]
        if next(subject.model.parameters()).is_meta:
            train = self.parts.splits["train"]
            subject = build_teacher(card, self.card.data, subject.preparation.pictures, train)
        return LiveTeacher(Student(subject.model, role="teacher"), subject.identity)

    def _chosen(self, *always: str) -> list[Any]:
        """The samples of what training reads, and of the splits that were asked for."""
        known = self.parts.splits
        problems = [
            Problem("command line", "--splits", f"one of {', '.join(known)}", repr(name), "correct the name")
            for name in self.splits
            if name not in known
        ]
        if problems:
            raise InputError(problems)
        return [sample for name in dict.fromkeys([*always, *self.splits]) for sample in known.get(name, [])]


def _kept(top_k: str) -> int | None:
    """The number of `--top-k`; None for `auto`."""
    if top_k == "auto":
        return None
    if top_k.isdecimal() and int(top_k) > 0:
        return int(top_k)
    raise InputError(Problem("command line", "--top-k", "a number of tokens, or `auto`", repr(top_k), "correct it"))
