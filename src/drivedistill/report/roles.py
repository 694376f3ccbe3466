"""Who is who among the rows: read from their recipes, never from their names.

teacher    the run that the distilling rows name as theirs
student    the first row that learns without a teacher and is not the teacher; where a teacher is named that is not among
           the rows it could be that one, and so it must be like the distilled rows (`_like`)
plain      the first row that distils, without experts, without mining, at constant weight
full       the row with the most of CLKD's three parts beside distillation (experts, mining, release); the first of them
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from drivedistill.recipe import Recipe
from drivedistill.report.evidence import ReportRow, Run, owner

SAME_SIZE = 0.01
"""Models whose numbers of parameters differ by a smaller share have the same size."""


@dataclass(frozen=True)
class Roles:
    """The rows that sentences are made about; None where nobody plays the part."""

    teacher: ReportRow | None
    student: ReportRow | None
    plain: ReportRow | None
    full: ReportRow | None
    absent: str | None = None
    """A teacher that distilling rows name and that is not among the rows."""

    @property
    def subject(self) -> ReportRow | None:
        """Whom the first three sentences are about."""
        return self.full or self.plain or self.student or self.teacher

    def players(self) -> list[ReportRow]:
        """Everybody who plays a part, each once."""
        found: list[ReportRow] = []
        for row in (self.teacher, self.student, self.plain, self.full):
            if row is not None and row not in found:
                found.append(row)
        return found


def parts_of(recipe: Recipe | None) -> frozenset[str]:
    """What a row is made of: `distillation`, `experts`, `mining`, `release`."""
    if recipe is None:
        return frozenset()
    distils = recipe.teacher is not None
    there = {
        "distillation": distils,
        "experts": bool(recipe.model.adapter_experts or recipe.model.ffn_experts),
        "mining": recipe.mining is not None,
        "release": distils and recipe.distill.release is not None,
    }
    return frozenset(name for name, is_there in there.items() if is_there)


def roles_of(rows: Sequence[ReportRow]) -> Roles:
    """Give out the parts; see the top of the file."""
    parts = {row.name: parts_of(row.recipe) for row in rows}
    distilling = [row for row in rows if "distillation" in parts[row.name]]
    named = [path for row in distilling for run in row.runs if (path := _teacher_of(run))]
    teacher = next((row for path in named if (row := owner(rows, path))), None)
    absent = next((path for path in named if owner(rows, path) is None), None)
    alone = [row for row in rows if row is not teacher and row.recipe and "distillation" not in parts[row.name]]
    if absent is not None:
        alone = [row for row in alone if _like(row, distilling)]
    plain = next((row for row in distilling if parts[row.name] == {"distillation"}), None)
    beyond = [row for row in distilling if row is not plain and len(parts[row.name]) > 1]
    full = max(beyond, key=lambda row: len(parts[row.name]), default=None)
    return Roles(teacher, alone[0] if alone else None, plain, full, absent)


def _teacher_of(run: Run) -> str | None:
    """What a run's own record, or else its recipe, names as its teacher."""
    return run.facts.teacher or (run.recipe.teacher.path if run.recipe and run.recipe.teacher else None)


def _like(row: ReportRow, distilling: Sequence[ReportRow]) -> bool:
    """Whether a row has the size of one that distils; or learnt for as many steps and is not known to be larger."""
    mine = row.runs[0].facts
    for theirs in (other.runs[0].facts for other in distilling):
        known = mine.params_m is not None and theirs.params_m is not None
        ratio = (mine.params_m or 0.0) / (theirs.params_m or 1.0) if known else 1.0
        if known and abs(ratio - 1) <= SAME_SIZE:
            return True
        if mine.steps is not None and mine.steps == theirs.steps and ratio <= 1:
            return True
    return False


def shown_rows(rows: Sequence[ReportRow], roles: Roles, most: int) -> list[ReportRow]:
    """At most so many rows, in their order: those that play a part, then the others from the first one on."""
    chosen = roles.players()[:most]
    for row in rows:
        if len(chosen) < most and row not in chosen:
            chosen.append(row)
    return [row for row in rows if row in chosen]
