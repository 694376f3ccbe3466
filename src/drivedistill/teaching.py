"""From a recipe to who teaches what: teachers, the objective that listens to them, and what both must agree on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from drivedistill import sections as cards
from drivedistill.build import build_teacher, require_same_vision, speaker_of, train_only_vision
from drivedistill.data.collate import Preparation
from drivedistill.data.images import PictureCache
from drivedistill.distill.lessons import Course, Lessons, course
from drivedistill.distill.miner import Miner
from drivedistill.distill.objective import Answers, Objective
from drivedistill.distill.teacher import LOGITS, LiveTeacher, Teacher, require_agreement
from drivedistill.distill.teacher_cache import open_teacher_cache
from drivedistill.distill.teachers import TeacherByTurns, TeachersByCapability
from drivedistill.distill.vision_match import VisionMatch
from drivedistill.models.attention import depth, tappable, width
from drivedistill.models.student import Student, bare, head_of, mixtures
from drivedistill.problems import InputError, Problem
from drivedistill.recipe import Recipe
from drivedistill.records import Sample
from drivedistill.subject import Subject


@dataclass
class Faculty:
    """A recipe's teachers as models: `main` is `recipe.teacher`, `own` those of capabilities that name another one."""

    main: Subject | None = None
    own: dict[str, Subject] = field(default_factory=dict)
    load: dict[str, Callable[[], Any]] = field(default_factory=dict)
    """By role, for teachers that take turns: builds the model, whose subject here has no weights."""

    def of(self, capability: str) -> tuple[str, Subject]:
        """Whose lessons a capability gets: role and subject."""
        assert self.main is not None
        subject = self.own.get(capability, self.main)
        role = next((f"teacher/{name}" for name, other in self.own.items() if other is subject), "teacher")
        return role, subject


def build_faculty(recipe: Recipe, pictures: PictureCache, samples: Sequence[Sample]) -> Faculty:
    """Every teacher once, without weights where a cache speaks for it or where teachers take turns.

    Raises:
        InputError: A teacher cannot be loaded, or holds random weights.
    """
    if recipe.teacher is None:
        return Faculty()
    drivekd, cached = recipe.distill.drivekd, recipe.distill.teacher_cache is not None
    turns = drivekd is not None and drivekd.in_turn
    shared = drivekd is not None and any(name not in recipe.teachers for name in drivekd.lessons)

    def build(card: cards.Model, *, weights: bool) -> Subject:
        return build_teacher(card, recipe.data, pictures, samples, weights=weights)

    faculty = Faculty(build(recipe.teacher, weights=(shared or not cached) and not turns))
    assert faculty.main is not None
    known = [(recipe.teacher, faculty.main)]
    for name, card in recipe.teachers.items():
        same = next((subject for other, subject in known if other == card), None)
        faculty.own[name] = same or build(card, weights=not turns)
        known.append((card, faculty.own[name]))
    if turns:
        named = {"teacher": recipe.teacher} | {f"teacher/{name}": card for name, card in recipe.teachers.items()}
        faculty.load = {
            role: (lambda card=card: build(card, weights=True).model)  # type: ignore[misc]
            for role, card in named.items()
        }
    return faculty


def engage(
    recipe: Recipe, train: Sequence[Sample], student: Subject, faculty: Faculty
) -> tuple[Teacher | None, dict[str, Preparation]]:
    """The teacher that the objective meets, and the preparations of those who read otherwise than the student."""
    if faculty.main is None:
        return None, {}
    preparations: dict[str, Preparation] = {}

    def live(role: str, subject: Subject) -> LiveTeacher:
        if not reads_alike(subject, student):
            preparations[role] = subject.preparation
        if role in faculty.load:
            provides = LOGITS | {"hidden", "taps"}
            return TeacherByTurns(lambda: Student(faculty.load[role](), role=role), subject.identity, provides)
        return LiveTeacher(Student(subject.model, role=role), subject.identity)

    words: Teacher
    drivekd, cache = recipe.distill.drivekd, recipe.distill.teacher_cache
    if cache is not None:
        words = open_teacher_cache(cache, speaker_of(recipe, faculty.main), train)
    else:
        words = live("teacher", faculty.main)
    if drivekd is None:
        return words, preparations
    by_role: dict[str, Teacher] = {} if cache is not None else {"teacher": words}
    for name in drivekd.lessons:
        role, subject = faculty.of(name)
        if role not in by_role:
            by_role[role] = live(role, subject)
            require_agreement(by_role[role], student.identity, frozenset({"taps"}))
    return TeachersByCapability(words, {name: by_role[faculty.of(name)[0]] for name in drivekd.lessons}), preparations


def objective_of(recipe: Recipe, train: Sequence[Sample], student: Subject, faculty: Faculty) -> Objective:
    """What a recipe's student learns.

    Raises:
        InputError: The student, its tokenizer or its teachers cannot do what the recipe asks for.
    """
    options, distill, teacher = recipe.train, recipe.distill, faculty.main
    if distill.signal == "vision":
        require_same_vision(student.model, teacher.model if teacher else None)
        train_only_vision(student.model)
        return VisionMatch()
    _refuse_misfits(recipe, student)
    layers = mixtures(student.model)
    given: dict[str, Any] = {
        "vocabulary": len(student.preparation.tokenizer),
        "taught": teacher is not None,
        "loss": distill.loss,
        "temperature": distill.temperature,
        "on": distill.on,
        "trust": distill.trust,
        "supervised_weight": distill.supervised_weight if teacher else 1.0,
        "miner": Miner(recipe.mining, options.reduction, [s.id for s in train]) if recipe.mining else None,
        "router_weights": {
            "balance": options.router_balance,
            "z": options.router_z,
            "entropy": options.router_entropy,
        },
        "sparse": frozenset(name for name, layer in layers.items() if layer.router.kind in ("top_k", "top_p")),
        "mixtures": bool(layers),
        "fused": options.fused,
    }
    if distill.drivekd is None:
        return Answers(options.reduction, **given)
    given |= {"mixing": distill.drivekd.mixing, "projected_words": distill.drivekd.kl == "follower"}
    return Lessons(options.reduction, **given, courses=courses_of(recipe, student, faculty))


def courses_of(recipe: Recipe, student: Subject, faculty: Faculty) -> dict[str, Course]:
    """The recipe's lessons, for these models.

    Raises:
        InputError: A model cannot be tapped, or has no such layer.
    """
    assert recipe.distill.drivekd is not None
    ours = bare(student.model)
    tappable(ours)
    found: dict[str, Course] = {}
    for name, lesson in recipe.distill.drivekd.lessons.items():
        _, subject = faculty.of(name)
        theirs = bare(subject.model)
        tappable(theirs)
        if (ours.config.model_type == "driving_t5") != (theirs.config.model_type == "driving_t5"):
            expected = (
                "an encoder-decoder teacher for an encoder-decoder student, a decoder-only one for a decoder-only one"
            )
            pair = f"{theirs.config.model_type} for {ours.config.model_type}"
            raise InputError(Problem("recipe", "teacher", expected, pair, "use another teacher"))
        found[name] = course(lesson, depth(ours), depth(theirs), name)
    return found


def translators(student: Subject, faculty: Faculty, courses: Mapping[str, Course]) -> nn.ModuleDict:
    """By student layer, what brings its hidden states to the teacher's width (see `Student.to_teacher`).

    Raises:
        InputError: Two teachers of different widths are imitated by the same layer.
    """
    ours, made = width(bare(student.model)), nn.ModuleDict()
    for name, course_of in courses.items():
        if course_of.lesson.signal != "hidden":
            continue
        theirs = width(bare(faculty.of(name)[1].model))
        for layer in course_of.ours:
            key = str(layer)
            if key in made and made[key].out_features != theirs:
                found = f"layer {layer} follows widths {made[key].out_features} and {theirs}"
                remedy = "use lessons of different layers, or teachers of one width"
                place = f"distill.drivekd.lessons.{name}.layers"
                raise InputError(Problem("recipe", place, "one width per student layer", found, remedy))
            made[key] = made[key] if key in made else nn.Linear(ours, theirs)
    return made


def _refuse_misfits(recipe: Recipe, student: Subject) -> None:
    if recipe.mining and recipe.mining.exclude and not student.preparation.tokenizer.is_fast:
        found, remedy = "a tokenizer without them", "remove mining.exclude, or use a fast tokenizer"
        raise InputError(
            Problem("recipe", "mining.exclude", "a tokenizer that knows its tokens' places", found, remedy)
        )
    if recipe.train.fused_loss == "on" and head_of(bare(student.model)) is None:
        found, remedy = "a head with LoRA or in 8 bits", "set train.fused_loss=auto"
        raise InputError(Problem("recipe", "train.fused_loss", "a head that is one product", found, remedy))


def reads_alike(teacher: Subject, student: Subject) -> bool:
    """Whether the student's tensors serve the teacher too, so that a batch is prepared once."""
    ours, theirs = student.preparation, teacher.preparation
    if ours.features != theirs.features:
        return False
    return ours.reading == theirs.reading and ours.processor.to_dict() == theirs.processor.to_dict()
