"""What an answer says the ego vehicle will do: three ways to read a meta-action out of words.

`strict` reads Senna's form and nothing else, `named` is the rule of Senna's evaluation script, `free_text` reads plain
English: DriveLM's behavior, CODA-LM's suggestions, whatever a model of another data set says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple, cast, get_args

from drivedistill.data.meta_action_words import (
    DENIAL,
    EGO,
    MASKED,
    NO_PLAN,
    NOT_BUT,
    NOT_MOVING,
    PATH_WORDS,
    SIDE_CLAUSE,
    SLOWLY,
    SOMEBODY,
    SPEED_WORDS,
    TURNING,
)
from drivedistill.data.senna_rules import MetaAction, PathPlan, SpeedPlan

SPEEDS: tuple[SpeedPlan, ...] = get_args(SpeedPlan)
PATHS: tuple[PathPlan, ...] = get_args(PathPlan)

_STRICT = re.compile(rf"({'|'.join(SPEEDS)}),\s*({'|'.join(PATHS)})(?![A-Z_])")
_SENTENCE = re.compile(r"[.;!?\n]+")
_CLAUSE = re.compile(r"(,|\b(?:and|but|then|so)\b(?! (?:that|as)\b))")
_GERUND = re.compile(r"\w+ing\b")


class Said(NamedTuple):
    """What a text says; None where it says nothing."""

    speed: SpeedPlan | None
    path: PathPlan | None


def strict(answer: str) -> MetaAction | None:
    """The meta-action at the very start of an answer, `KEEP, STRAIGHT`; what follows it does not count."""
    found = _STRICT.match(answer)
    return MetaAction(cast(SpeedPlan, found[1]), cast(PathPlan, found[2])) if found else None


def named(answer: str) -> frozenset[str]:
    """Every speed and path that occurs anywhere in an answer, as `senna_plan_cmd_eval_multi_img.py` looks for them.

    An answer that lists all of them is right about everything: for comparison with published figures only.
    """
    return frozenset(word for word in (*SPEEDS, *PATHS) if word in answer)


def free_text(answer: str) -> MetaAction | None:
    """The meta-action that plain English describes; what is not said is KEEP or STRAIGHT. None if nothing is said.

    A text in Senna's form is read by `strict`.
    """
    if exact := strict(answer.strip()):
        return exact
    speed, path = said(answer)
    return MetaAction(speed or "KEEP", path or "STRAIGHT") if speed or path else None


def said(text: str) -> Said:
    """Speed and path as far as a text says them.

    1. Reasons, purposes and conditions do not count ("because it turns left", "if necessary", "be ready to stop"), nor
       what others do ("the car ahead is braking", "the turning bus").
    2. A denial rules out what follows it in its clause: "do not stop", "no need to brake", "without turning". "Not moving"
       is STOP. Where no other speed is said, a denied one is KEEP; where no other path is, a denied turn or change of lane is
       STRAIGHT ("without braking it would hit" plans nothing). "Not left but right" is right.
    3. The first sentence that says a speed counts, and in it the most careful one: STOP, DECELERATE, ACCELERATE, KEEP. A
       state ("driving fast") is KEEP, and so is going on.
    4. The first path counts that is not STRAIGHT. A slight turn is a change of lane, as in the closed list of DriveLM's
       behavior; an offset within the lane is STRAIGHT; a bend is a turn, since Senna's rule knows no road.
    """
    plain = re.sub(r"<[^>]*>", "it", text).lower().replace("_", " ").replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    sentences = [list(_own_clauses(sentence)) for sentence in _SENTENCE.split(NOT_BUT.sub(r"\1\2", plain))]
    clauses = [clause for sentence in sentences for clause in sentence]
    speeds = [plan for part in sentences for plan, words in SPEED_WORDS if any(words.search(own.says) for own in part)]
    paths = [plan for clause in clauses for plan, words in PATH_WORDS if words.search(clause.says)]
    turns = [path for path in paths if path != "STRAIGHT"]
    denied = [clause.denies for clause in clauses]
    if any(words.search(clause) for clause in denied for plan, words in SPEED_WORDS if plan != "KEEP"):
        speeds.append("KEEP")
    if any(map(TURNING.search, denied)):
        paths.append("STRAIGHT")
    return Said(next(iter(speeds), None), next(iter(turns or paths), None))


class _Clause(NamedTuple):
    says: str
    denies: str


def _own_clauses(sentence: str) -> Iterator[_Clause]:
    """What the clauses of a sentence say about the ego vehicle, and what they deny: all after their first denial."""
    others, aside, denied = False, False, False
    words = ["", *_CLAUSE.split(MASKED.sub("...", sentence))]  # what joins a clause to the one before, the clause, ...
    for place, (joint, clause) in enumerate(zip(words[::2], map(str.strip, words[1::2]), strict=True)):
        opening = SIDE_CLAUSE.search(clause)
        if place == 0 and opening and opening.start() == 0:
            continue  # "Because it is dark, ..."
        main = clause[: opening.start()] if opening else clause
        own = bool(EGO.search(main))
        others = not own and (others or bool(SOMEBODY.match(clause)))
        if aside and not own:
            continue
        aside = opening is not None
        main = SLOWLY.sub("drive", NOT_MOVING.sub("stop", main))
        denial = DENIAL.search(main)
        # "Avoid steering and braking" denies both, "not turning but braking" one.
        denied = denial is not None or (denied and joint != "but" and bool(_GERUND.match(main)))
        if not others:
            end = denial.start() if denial else 0 if denied else len(main)
            yield _Clause(main[:end], "" if NO_PLAN.match(main[end:]) else main[end:])
