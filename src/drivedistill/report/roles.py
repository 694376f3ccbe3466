"""Who is who among the rows: read from their recipes, never from their names.

teacher    the run that the distilling rows name as theirs
student    the first row that learns without a teacher and is not the teacher
plain      the first row that distils, without experts, without mining, at constant weight
full       the row with the most of CLKD's three parts beside distillation (experts, mining, release); the first of them
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from drivedistill.recipe import Recipe
from drivedistill.report.evidence import ReportRow, owner


@dataclass(frozen=True)
class Roles:
    """The rows that sentences are made about; None where nobody plays the part."""

    teacher: ReportRow | None
    student: ReportRow | None
    plain: ReportRow | None
    full: ReportRow | None

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
    named = [run.facts.teacher for row in distilling for run in row.runs if run.facts.teacher]
    teacher = next((row for path in named if (row := owner(rows, path))), None)
    alone = [row for row in rows if row is not teacher and row.recipe and "distillation" not in parts[row.name]]
    plain = next((row for row in distilling if parts[row.name] == {"distillation"}), None)
    beyond = [row for row in distilling if row is not plain and len(parts[row.name]) > 1]
    full = max(beyond, key=lambda row: len(parts[row.name]), default=None)
    return Roles(teacher, alone[0] if alone else None, plain, full)


def shown_rows(rows: Sequence[ReportRow], roles: Roles, most: int) -> list[ReportRow]:
    """At most so many rows, in their order: those that play a part, then the others from the first one on."""
    chosen = roles.players()[:most]
    for row in rows:
        if len(chosen) < most and row not in chosen:
            chosen.append(row)
    return [row for row in rows if row in chosen]
