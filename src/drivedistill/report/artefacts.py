"""The files of other stages as far as a report reads them: other keys are allowed, wrong ones are findings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from drivedistill.problems import InputError, Problem
from drivedistill.records import validation_problems


class Part(BaseModel):
    """A part of a file; what a report does not read is ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Value(Part):
    """A number, with its 95 % interval if it has one."""

    value: float | None
    low: float | None = None
    high: float | None = None


class Machine(Part):
    """Where and how something was made."""

    device: str = ""
    threads: int | None = None
    versions: dict[str, str] = {}
    git_commit: str | None = None
    command: str = ""


class Facts(Machine):
    """`run.json`."""

    name: str = ""
    kind: str = ""
    teacher: str | None = None
    seed: int | None = None
    params_m: float | None = None
    activated_m: float | None = None
    questions: dict[str, int] = {}
    regular_questions: int | None = None
    corner_questions: int | None = None
    finished: str | None = None
    steps: int | None = None
    seconds: float | None = None


class BenchModel(Part):
    """A model's line in `bench.json`."""

    name: str
    model: str
    device: str
    threads: int
    params_total_1e6: float
    stages_mean_ms: dict[str, float]
    latency_p50_ms: float
    latency_p90_ms: float
    latency_p99_ms: float
    right: float | None = None
    rsdr_80: Value | None = None
    rsdr_100: Value | None = None
    against: str | None = None
    speed_disk: Value | None = None


class Setting(Part):
    """How a bench was held."""

    questions: int
    scenes: int
    measured: str
    machine: Machine


class Curve(Part):
    """RSDR over the threshold; empty where nothing had a reference."""

    thresholds_ms: list[float] = []
    rsdr: dict[str, list[float]] = {}


class Bench(Part):
    """`bench.json`."""

    setting: Setting
    models: Annotated[list[BenchModel], Field(min_length=1)]
    curve: Curve = Curve()


class ExpertDifference(Value):
    """Corner minus regular."""

    verdict: str


class ExpertPart(Part):
    """One regime."""

    scenes: int
    weights: list[Value]
    dead: list[int]
    readings: dict[str, Value]


class ExpertComparison(Part):
    """One layer's treatment of one group of questions."""

    layer: str
    place: str
    tokens: str
    router: str
    experts: int
    dataset: str
    task: str
    regimes: dict[str, ExpertPart]
    differences: dict[str, ExpertDifference]


class Experts(Part):
    """`experts.json`."""

    model: str
    questions: int
    comparisons: list[ExpertComparison]


class ProbeRow(Part):
    """A line of `probe.json`."""

    condition: str


class DifferenceCell(Part):
    """One figure of a pair of rows, A minus B."""

    mean: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    verdict: str | None = None


class DifferenceLine(Part):
    """A pair of rows on one set of questions."""

    a: str
    b: str
    regime: str
    dataset: str
    split: str
    figures: dict[str, DifferenceCell]


class TableResults(Part):
    """`table.json`."""

    differences: list[DifferenceLine] = []


def _empty(value: Any) -> Any:
    return "" if value is None else value


class TableRow(Part):
    """A row of `table.yaml`."""

    name: str
    label: Annotated[str, BeforeValidator(_empty)] = ""
    published: dict[str, dict[str, float]] = {}


class TableCard(Part):
    """`table.yaml`."""

    name: str
    about: str = ""
    rows: list[TableRow]


T = TypeVar("T")


def read_json(path: Path, kind: type[T]) -> T:
    """Read a file of results.

    Raises:
        InputError: It is no JSON, or lacks what a report reads.
    """
    try:
        return checked(json.loads(path.read_text("utf-8")), kind, path)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(Problem(str(path), "", "a JSON file", str(error), "make it again, or remove it")) from error


def checked(value: Any, kind: type[T], path: Path) -> T:
    """A parsed file as what it should be; see `read_json`."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise InputError(validation_problems(error, str(path), "")) from error
