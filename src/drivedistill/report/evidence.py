"""What lies in the folders that a report is about: rows of runs, benches, probes, experts.

RUN/run.json recipe.yaml metrics.jsonl results.json predictions/*.jsonl      a run
TABLE/table.yaml table.json ROW/seed-S/                                      a table of `drivedistill ablate`
bench.json, probe.json, experts.json                                         in these folders, or up to four below
QUICKSTART/table/                                                            the table, where the folder itself is no run
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from drivedistill.evaluate.looking import PRIOR
from drivedistill.evaluate.rows import QuestionSet
from drivedistill.metrics_file import read_metrics
from drivedistill.problems import InputError, Problem
from drivedistill.recipe import Recipe, load_recipe
from drivedistill.records import CLEAN, Prediction, Score, read_jsonl
from drivedistill.report.artefacts import (
    Bench,
    DifferenceLine,
    Experts,
    Facts,
    ProbeRow,
    TableCard,
    TableResults,
    TableRow,
    checked,
    read_json,
)
from drivedistill.report.free_text import free_text_sets
from drivedistill.yaml_tree import read_tree

T = TypeVar("T")

DEPTH = 4
SIGNS = ("run.json", "recipe.yaml", "metrics.jsonl", "predictions", "results.json")
"""By which a folder is known as a run."""
NOT_FREE = ("teacher_forced", "text_only")
"""Ways of decoding that are no answers of the model: led by the reference, and those of the text-only prior."""


@dataclass(frozen=True)
class Run:
    """One training."""

    folder: Path
    facts: Facts
    recipe: Recipe | None
    log: list[dict[str, Any]]
    """Records of `metrics.jsonl`."""
    answers: list[Prediction]
    """To clean pictures, of one file; empty where there is none."""
    scores: list[Score]
    """Of these answers."""


@dataclass(frozen=True)
class ReportRow:
    """A model: a row of a table, or a run; with a run for every seed."""

    name: str
    label: str
    runs: tuple[Run, ...]
    published: dict[str, dict[str, float]]
    """The paper's figures by regime and column."""

    @property
    def seeds(self) -> list[int | None]:
        """Of its runs."""
        return [run.facts.seed for run in self.runs]

    @property
    def recipe(self) -> Recipe | None:
        """That of the first run."""
        return self.runs[0].recipe

    def answered(self) -> list[list[Prediction]]:
        """Answers of every run that has some."""
        return [run.answers for run in self.runs if run.answers]

    def owns(self, path: str | Path) -> bool:
        """Whether a file or a folder is one of its runs or lies in one."""
        return any(Path(path).resolve().is_relative_to(run.folder.resolve()) for run in self.runs)

    def seems_to_own(self, path: str | Path) -> bool:
        """The same of a path that somebody wrote down elsewhere: `runs/clkd` is the end of the folder's."""
        theirs = Path(path).parts
        ends = [run.folder.resolve().parts[-2:] for run in self.runs]
        return any(theirs[at : at + len(mine)] == mine for mine in ends for at in range(len(theirs)))


@dataclass(frozen=True)
class Probe:
    """The same questions under several conditions, of one model."""

    folder: Path
    model: str
    answers: dict[str, list[Prediction]]
    """By condition, `clean` first; the text-only prior by its name."""


@dataclass(frozen=True)
class Evidence:
    """Everything that a report is made of."""

    title: str
    about: str
    rows: list[ReportRow]
    differences: list[DifferenceLine]
    benches: list[Bench]
    probes: list[Probe]
    experts: list[Experts]
    free_text: frozenset[QuestionSet]
    """Sets of questions without right and wrong answers."""
    roots: tuple[Path, ...] = ()
    """Folders in which the report's own lie, absolute: paths are shown relative to them."""

    def row_of(self, path: str | Path) -> ReportRow | None:
        """The row whose run a path names."""
        return owner(self.rows, path)

    def name_of(self, path: str | Path) -> str:
        """The label of the row whose run a path names; the path's own end where there is none."""
        row = self.row_of(path)
        return row.label if row else Path(path).name


def owner(rows: Sequence[ReportRow], path: str | Path) -> ReportRow | None:
    """The row that owns a path, else the first one that seems to."""
    sure = [row for row in rows if row.owns(path)]
    return next(iter(sure or [row for row in rows if row.seems_to_own(path)]), None)


def gather(folders: Sequence[Path]) -> Evidence:
    """Read everything.

    Raises:
        InputError: A folder is missing or holds nothing of a report; a file cannot be read. All findings.
    """
    problems: list[Problem] = []
    places = [_place(folder) for folder in folders]
    rows: list[ReportRow] = []
    differences: list[DifferenceLine] = []
    titles: list[str] = []
    abouts: list[str] = []
    for folder in places:
        try:
            card = _card(folder)
            found = _table_rows(folder, card) if card else _run_rows(folder)
            if not found and not any(_named(folder, ("bench.json", "probe.json", "experts.json"))):
                expected = "a run, a table of runs, or a folder with bench.json, probe.json or experts.json"
                what = "none of these" if folder.is_dir() else "no such folder"
                problems.append(Problem(str(folder), "", expected, what, "name a folder of results"))
            rows += found
            titles += [card.name] if card else [row.label for row in found]
            abouts += [card.about.strip()] if card else []
            if (folder / "table.json").is_file():
                differences += read_json(folder / "table.json", TableResults).differences
        except InputError as error:
            problems += error.problems
    folders = [*places, *folders]
    benches = _read_all(folders, "bench.json", lambda path: read_json(path, Bench), problems)
    probes = _read_all(folders, "probe.json", _probe, problems)
    experts = _read_all(folders, "experts.json", lambda path: read_json(path, Experts), problems)
    if problems:
        raise InputError(problems)
    answered = [run.answers for row in rows for run in row.runs]
    asked = [answers for probe in probes for answers in probe.answers.values()]
    return Evidence(
        title=", ".join(titles) or "Report",
        about=" ".join(abouts),
        rows=_told_apart(rows),
        differences=differences,
        benches=benches,
        probes=probes,
        experts=experts,
        free_text=free_text_sets(item for answers in [*answered, *asked] for item in answers),
        roots=tuple(dict.fromkeys(place.resolve().parent for place in places)),
    )


def _place(folder: Path) -> Path:
    """Where the rows of a folder lie: in itself, or else, as a quickstart's, in the table in it."""
    inner = folder / "table"
    own = (folder / "table.yaml").is_file() or any(map(_is_run, (folder, *folder.glob("seed-*"))))
    return inner if (inner / "table.yaml").is_file() and not own else folder


def _named(folder: Path, names: Iterable[str]) -> Iterator[Path]:
    patterns = ("*/" * depth + name for name in names for depth in range(DEPTH + 1))
    return (path for pattern in patterns for path in sorted(folder.glob(pattern)))


def _everywhere(folders: Sequence[Path], name: str) -> list[Path]:
    """Files of a name in and below the folders, each once."""
    return list({path.resolve(): path for folder in folders for path in _named(folder, [name])}.values())


def _read_all(folders: Sequence[Path], name: str, read: Callable[[Path], T], problems: list[Problem]) -> list[T]:
    """Every file of a name; what cannot be read is added to the findings."""
    found = []
    for path in _everywhere(folders, name):
        try:
            found.append(read(path))
        except InputError as error:
            problems += error.problems
    return found


def _card(folder: Path) -> TableCard | None:
    path = folder / "table.yaml"
    return checked(read_tree(path), TableCard, path) if path.is_file() else None


def _table_rows(folder: Path, card: TableCard) -> list[ReportRow]:
    """Rows of which a run has begun."""
    return [row for line in card.rows if (row := _row(line, (folder / line.name).glob("seed-*")))]


def _run_rows(folder: Path) -> list[ReportRow]:
    """A run, or one for every seed."""
    row = _row(TableRow(name=folder.resolve().name), [folder] if _is_run(folder) else folder.glob("seed-*"))
    return [row] if row else []


def _is_run(folder: Path) -> bool:
    return any((folder / sign).exists() for sign in SIGNS)


def _row(line: TableRow, folders: Iterable[Path]) -> ReportRow | None:
    runs = tuple(map(_run, sorted(filter(_is_run, folders), key=lambda path: (len(path.name), path.name))))
    return ReportRow(line.name, line.label or line.name, runs, line.published) if runs else None


def _run(folder: Path) -> Run:
    facts, recipe = folder / "run.json", folder / "recipe.yaml"
    file, answers = _clean_answers(folder / "predictions")
    return Run(
        folder=folder,
        facts=read_json(facts, Facts) if facts.is_file() else Facts(),
        recipe=load_recipe(recipe) if recipe.is_file() else None,
        log=read_metrics(folder / "metrics.jsonl"),
        answers=answers,
        scores=_scores(folder, file, answers),
    )


def _scores(folder: Path, file: Path | None, answers: Sequence[Prediction]) -> list[Score]:
    """Those of the chosen answers: of their own file, or else what the run's says of their split and way of decoding.

    Where no answers lie, those of the first way of decoding that it names: other ways are no other seeds.
    """
    results = [*([file.with_name(f"{file.stem}.results.json")] if file else []), folder / "results.json"]
    scores = next((read_json(path, list[Score]) for path in results if path.is_file()), [])
    clean = [score for score in scores if score.condition == CLEAN]
    splits = {item.split for item in answers} or {score.split for score in clean}
    ways = {item.decode for item in answers} or {score.decode for score in clean[:1]}
    return [score for score in clean if score.split in splits and score.decode in ways]


def _clean_answers(folder: Path) -> tuple[Path | None, list[Prediction]]:
    """The file with the model's most freely written answers to clean pictures, of the test split if there is one."""
    best: tuple[Path | None, list[Prediction]] = (None, [])
    rank = (False, 0)
    for path in sorted(folder.glob("*.jsonl")):
        if path.name.endswith(".judge.jsonl"):
            continue
        answers = read_jsonl(path, Prediction)
        if answers and all(item.condition == CLEAN and item.decode not in NOT_FREE for item in answers):
            mine = (answers[0].split == "test", len(answers))
            if mine > rank:
                best, rank = (path, answers), mine
    return best


def _probe(path: Path) -> Probe:
    """The answers beside a `probe.json` under the conditions that it names; other files there are not its own."""
    named = dict.fromkeys(row.condition for row in read_json(path, list[ProbeRow]))
    order = [CLEAN, "black", "none", "shuffled", PRIOR]
    answers: dict[str, list[Prediction]] = {}
    for name in sorted(named, key=lambda name: order.index(name) if name in order else len(order)):
        file = path.with_name(f"{'prior' if name == PRIOR else name.replace(':', '-')}.jsonl")
        if file.is_file() and (rows := read_jsonl(file, Prediction)):
            answers[name] = rows
    return Probe(path.parent, answers[CLEAN][0].model if CLEAN in answers else "", answers)


def _told_apart(rows: Sequence[ReportRow]) -> list[ReportRow]:
    """No two rows of one name: those of a name that is there already take their folder's parent into it."""
    found: list[ReportRow] = []
    for row in rows:
        name, label, folder = row.name, row.label, row.runs[0].folder.resolve()
        while any(name == other.name or label == other.label for other in found):
            folder = folder.parent
            name, label = f"{folder.name}/{name}", f"{label} ({folder.name})"
        found.append(ReportRow(name, label, row.runs, row.published))
    return found
