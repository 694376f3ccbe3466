"""From a recipe to who teaches what: teachers, the objective that listens to them, and what both must agree on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn

from drivedistill import sections as cards
from drivedistill.batch import RoleInputs
from drivedistill.build import build_teacher, require_same_vision, speaker_of, train_only_vision
from drivedistill.data.collate import Preparation
from drivedistill.data.images import PictureCache
from drivedistill.distill.lessons import Course, Lessons, course
from drivedistill.distill.map_cache import open_map_cache
from drivedistill.distill.miner import Miner
from drivedistill.distill.objective import Answers, Objective
from drivedistill.distill.projection import require_solver
from drivedistill.distill.teacher import LOGITS, LiveTeacher, Teacher, require_agreement
from drivedistill.distill.teacher_cache import open_teacher_cache
from drivedistill.distill.teachers import TeacherByTurns, TeachersByCapability
from drivedistill.distill.vision_match import VisionMatch
from drivedistill.drivekd_sections import Lesson
from drivedistill.models.attention import depth, places, tappable, width
from drivedistill.models.student import Student, bare, head_of, mixtures
from drivedistill.problems import InputError, Problem
from drivedistill.recipe import Recipe
from drivedistill.records import Capability, Sample
from drivedistill.subject import Subject


@dataclass
class Faculty:
    """A recipe's teachers as models, each once. A role is `teacher`, or `teacher/` and the first capability that names it."""

    subjects: dict[str, Subject] = field(default_factory=dict)
    cards: dict[str, cards.Model] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)
    """By capability with a lesson, whose it is."""

    @property
    def main(self) -> Subject | None:
        """`recipe.teacher`, who speaks."""
        return self.subjects.get("teacher")

    def of(self, capability: str) -> Subject:
        """Whose lessons a capability gets."""
        return self.subjects[self.roles[capability]]


def build_faculty(recipe: Recipe, pictures: PictureCache, samples: Sequence[Sample]) -> Faculty:
    """Every teacher once, without weights where caches speak for it or where teachers take turns.

    Raises:
        InputError: A teacher cannot be loaded, or holds random weights.
    """
    if recipe.teacher is None:
        return Faculty()
    drivekd, faculty = recipe.distill.drivekd, Faculty(cards={"teacher": recipe.teacher})
    for name in _taught(recipe):
        card = recipe.teachers.get(name, recipe.teacher)
        role = next((role for role, other in faculty.cards.items() if other == card), f"teacher/{name}")
        faculty.roles[name], faculty.cards[role] = role, card
    for role, card in faculty.cards.items():
        idle = role == "teacher" and not speaks(recipe) and role not in faculty.roles.values()
        absent = (drivekd is not None and drivekd.in_turn) or _cached(recipe, faculty, role)
        absent = absent or (idle and card.path is not None)
        faculty.subjects[role] = build_teacher(card, recipe.data, pictures, samples, weights=not absent)
    return faculty


def _taught(recipe: Recipe) -> dict[Capability, Lesson]:
    """The lessons that weigh something, by capability."""
    lessons = recipe.distill.drivekd.lessons if recipe.distill.drivekd else {}
    return {name: lesson for name, lesson in lessons.items() if lesson.weight}


def speaks(recipe: Recipe) -> bool:
    """Whether anybody hears the teacher's words: with lessons it may be there for these alone."""
    compared = recipe.mining is not None and recipe.mining.measure != "loss"
    return recipe.distill.drivekd is None or recipe.distill.weight > 0 or compared


def _cached(recipe: Recipe, faculty: Faculty, role: str) -> bool:
    """Whether a teacher need not be there: its words are kept, and its lessons are text looking at pictures, nothing else."""
    if recipe.distill.teacher_cache is None:
        return False
    mine = [lesson for name, lesson in _taught(recipe).items() if faculty.roles[name] == role]
    return all(lesson.signal == "attention" and lesson.block == "text_to_vision" for lesson in mine)


def kept_layers(recipe: Recipe, faculty: Faculty, courses: Mapping[str, Course]) -> dict[str, list[int]]:
    """By role, the teacher layers whose maps a cache holds (or is to hold): of teachers that need not be there otherwise."""
    return {
        role: sorted(
            {layer for name, course in courses.items() if faculty.roles[name] == role for layer in course.theirs}
        )
        for role in dict.fromkeys(faculty.roles.values())
        if _cached(recipe, faculty, role)
    }


def engage(
    recipe: Recipe, train: Sequence[Sample], student: Subject, faculty: Faculty, courses: Mapping[str, Course]
) -> tuple[Teacher | None, dict[str, Preparation]]:
    """The teacher that the objective meets, and the preparations of those who read otherwise than the student.

    Raises:
        InputError: A teacher and the student do not read alike, or a cache does not hold what is needed.
    """
    if faculty.main is None:
        return None, {}
    preparations: dict[str, Preparation] = {}
    cache, drivekd = recipe.distill.teacher_cache, recipe.distill.drivekd
    kept = kept_layers(recipe, faculty, courses)

    def hire(role: str) -> Teacher:
        subject = faculty.subjects[role]
        if not reads_alike(subject, student):
            preparations[role] = subject.preparation
        if cache is not None and role in kept:
            speaker = speaker_of(recipe, subject, faculty.cards[role])
            return open_map_cache(cache, speaker, train, kept[role], partial(_looking, bare(subject.model)), role)
        if drivekd is None or not drivekd.in_turn:
            return LiveTeacher(Student(subject.model, role=role), subject.identity)

        def load() -> Student:
            card, pictures = faculty.cards[role], subject.preparation.pictures
            return Student(build_teacher(card, recipe.data, pictures, train).model, role=role)

        return TeacherByTurns(load, subject.identity, LOGITS | {"hidden", "taps"})

    words: Teacher | None = None
    if speaks(recipe):
        words = hire("teacher") if cache is None else open_teacher_cache(cache, speaker_of(recipe, faculty.main), train)
    if not courses:
        return words, preparations
    _require_same_views(faculty, student)
    hired = {"teacher": words} if cache is None and words else {}
    for name, role in faculty.roles.items():
        if role not in hired:
            hired[role] = hire(role)
            require_agreement(hired[role], student.identity, frozenset({"taps"}), name)
    return TeachersByCapability(words, {name: hired[role] for name, role in faculty.roles.items()}), preparations


def _require_same_views(faculty: Faculty, student: Subject) -> None:
    """Maps of different pictures cannot be compared.

    Raises:
        InputError: A teacher of lessons is shown other pictures than the student.
    """
    ours = student.preparation.reading.views
    for name, role in faculty.roles.items():
        theirs = faculty.subjects[role].preparation.reading.views
        if theirs != ours:
            found, remedy = f"{theirs} for the teacher of {name}, {ours} for the student", f"set data.views={theirs}"
            raise InputError(Problem("recipe", "data.views", "the same pictures for both", found, remedy))


def _looking(model: Any, inputs: RoleInputs) -> tuple[Tensor, Tensor]:
    """Positions of text and of image tokens."""
    return places(model, inputs)["text_to_vision"]


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
        "taught": teacher is not None and speaks(recipe),
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
    if distill.drivekd.projection:
        require_solver(distill.drivekd.projection)
    given |= {"mixing": distill.drivekd.mixing, "role": distill.drivekd.kl}
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
    for name, lesson in _taught(recipe).items():
        theirs = bare(faculty.of(name).model)
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
        theirs = width(bare(faculty.of(name).model))
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
