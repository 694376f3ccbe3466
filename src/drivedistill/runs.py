"""One run, one directory: what `train` and `distill` do.

runs/NAME/recipe.yaml  run.json  metrics.jsonl  tokenizer/  checkpoints/  model/
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed

from drivedistill.build import (
    build_student,
    refuse_missing_models,
)
from drivedistill.checkpoint import last_checkpoint, load_checkpoint, recover
from drivedistill.data.collate import refuse_long, refuse_unlabelled
from drivedistill.data.images import PictureCache, image_problem
from drivedistill.data.mixture import corner_draws, draw, load_mixture, regime_ratio
from drivedistill.data.prompt import load_tokenizer
from drivedistill.distill.cache import open_cache
from drivedistill.distill.lessons import Lessons
from drivedistill.distill.teacher import CachedTeacher, require_agreement
from drivedistill.distill.teachers import speaker
from drivedistill.folders import write_folder
from drivedistill.machine import machine_facts
from drivedistill.metrics_file import read_metrics, write_metrics
from drivedistill.models.parameters import count_parameters
from drivedistill.models.shrink import tower_learns
from drivedistill.models.student import Student, bare
from drivedistill.optimize import parameter_groups
from drivedistill.problems import InputError, Problem
from drivedistill.recipe import Recipe, changed_fields, load_recipe, save_recipe
from drivedistill.records import Sample, write_json
from drivedistill.step import Setting, State
from drivedistill.subject import Subject, model_card, save_subject
from drivedistill.teaching import Faculty, build_faculty, engage, objective_of, translators
from drivedistill.train import fit, train_stream
from drivedistill.yaml_tree import flat


@dataclass
class Parts:
    """What a recipe becomes before the first step."""

    splits: dict[str, list[Sample]]
    student: Subject
    faculty: Faculty
    setting: Setting

    @property
    def teacher(self) -> Subject | None:
        """`recipe.teacher` as a model."""
        return self.faculty.main


def run(recipe: Recipe, folder: Path, *, resume: bool = False, overwrite: bool = False) -> dict[str, Any]:
    """Train what the recipe describes, with its teacher if it has one, and write the run's folder.

    Args:
        recipe: The experiment.
        folder: The run's directory.
        resume: Go on from the last checkpoint; start afresh when there is none. A finished run stays as it is.
        overwrite: Remove an earlier run first.

    Returns:
        What `run.json` says at the end.

    Raises:
        InputError: Recipe or data cannot be used, or the folder holds another run.
    """
    _check_folder(recipe, folder, resume=resume, overwrite=overwrite)
    if resume and (ended := _finished(folder)):
        return ended
    _require_trackers(recipe)
    AcceleratorState._reset_state()  # an earlier run of this process may have had another precision
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision=recipe.train.precision,
        log_with=list(recipe.train.trackers) or None,
        project_dir=str(folder),
    )
    parts = assemble(recipe, tokenizer_folder=folder / "tokenizer" if resume else None)
    _claim(recipe, folder, accelerator, overwrite=overwrite)
    resume_from = last_checkpoint(folder / "checkpoints")
    facts = _facts(recipe, parts)
    if accelerator.is_main_process:
        _save_tokenizer(parts.student.preparation.tokenizer, folder / "tokenizer")
        _truncate_metrics(folder / "metrics.jsonl", resume_from)
        write_json(folder / "run.json", facts | {"finished": None})
    if recipe.train.trackers:
        accelerator.init_trackers(recipe.name, config=flat(recipe.model_dump(mode="json")))
    parts.setting.run = folder
    parts.setting.resume_from = resume_from
    parts.setting.log = _log(folder, accelerator)
    state = fit(parts.setting, accelerator)
    facts |= {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "steps": state.step,
        **_cost(recipe, parts, state, accelerator.num_processes),
        "best_step": state.best_step,
        "best_validation_loss": state.best,
        "model_from": "best" if state.best_step is not None else "last",
    }
    _finish(recipe, parts, folder, facts, accelerator)
    if recipe.train.trackers:
        accelerator.end_training()
    return facts


def assemble(recipe: Recipe, tokenizer_folder: Path | None = None) -> Parts:
    """Read the data, build the models and check that they fit together; writes nothing.

    Args:
        recipe: The experiment.
        tokenizer_folder: A resumed run's tokenizer; used when it exists.
    """
    refuse_missing_models(recipe)
    set_seed(recipe.seed)
    splits = load_mixture(recipe.data.sources)
    for split in ("train", "val"):
        refuse_unlabelled(splits.get(split, []))
    require_pictures([*splits["train"], *splits.get("val", [])])
    _require_both_regimes(recipe, splits["train"])
    pictures = PictureCache(recipe.data.image_cache_mb)
    faculty = build_faculty(recipe, pictures, splits["train"])
    teacher, live = faculty.main, recipe.distill.teacher_cache is None
    tokenizer = teacher.preparation.tokenizer if teacher else None
    if tokenizer_folder is not None and tokenizer_folder.is_dir():
        tokenizer = load_tokenizer(str(tokenizer_folder))
    student = build_student(recipe.model, recipe.data, pictures, splits["train"], tokenizer)
    if recipe.data.vision_cache is not None:
        subjects = {"student": student} | ({"teacher": teacher} if teacher and live else {})
        read = [*splits["train"], *splits.get("val", [])]
        for role, features in open_cache(recipe.data.vision_cache, subjects, read, recipe.train.precision).items():
            subjects[role].preparation = replace(subjects[role].preparation, features=features)
    parts = Parts(splits, student, faculty, _setting(recipe, splits, student, faculty))
    for preparation in parts.setting.preparations.values():
        refuse_long([*splits["train"], *splits.get("val", [])], preparation)
    parameter_groups(parts.setting.student, recipe.train)  # refuses a pattern that matches nothing
    return parts


def _require_both_regimes(recipe: Recipe, train: Sequence[Sample]) -> None:
    if recipe.data.corner_ratio is not None and 0 in regime_ratio(train):
        regular, corner = regime_ratio(train)
        found, remedy = f"{regular} regular and {corner} corner questions", "add a source, or remove the ratio"
        raise InputError(Problem("recipe", "data.corner_ratio", "questions of both regimes", found, remedy))


def require_pictures(samples: Sequence[Sample]) -> None:
    """Look at the header of every picture once.

    Raises:
        InputError: Pictures that are missing, empty, too large or no pictures, all of them listed.
    """
    paths = sorted({path for sample in samples for path in sample.images.values()})
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda path: image_problem(path, decode=False), paths)
        if problems := [problem for problem in found if problem]:
            raise InputError(problems)


def _setting(recipe: Recipe, splits: dict[str, list[Sample]], student: Subject, faculty: Faculty) -> Setting:
    objective = objective_of(recipe, splits["train"], student, faculty)
    courses = objective.courses if isinstance(objective, Lessons) else {}
    speaking, others = engage(recipe, splits["train"], student, faculty, courses)
    if speaking is not None:
        require_agreement(speaking, student.identity, objective.needs)
    learner = Student(student.model)
    learner.to_teacher = translators(student, faculty, courses)
    return Setting(
        recipe=recipe,
        student=learner,
        preparations={"student": student.preparation, **others},
        objective=objective,
        teacher=speaking,
        train=splits["train"],
        validation=draw(splits.get("val", []), recipe.train.validate_limit, recipe.seed),
    )


def _check_folder(recipe: Recipe, folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that this run must not touch."""
    if folder.exists() and not folder.is_dir():
        raise InputError(Problem(str(folder), "", "a folder for the run", "a file", "choose another --out"))
    if not folder.exists() or not any(folder.iterdir()):
        return
    if resume and overwrite:
        found, remedy = "both", "name one of them"
        raise InputError(Problem("command line", "", "--resume or --overwrite", found, remedy))
    if not (resume or overwrite):
        remedy = "choose another --out, go on with --resume, or replace it with --overwrite"
        raise InputError(Problem(str(folder), "", "an empty folder for the run", "files of an earlier run", remedy))
    if not (folder / "recipe.yaml").is_file():
        remedy = "choose another --out, or remove the folder yourself"
        raise InputError(Problem(str(folder), "", "an earlier run", "a folder that is no run (no recipe.yaml)", remedy))
    if resume:
        _require_same_recipe(recipe, folder)
    else:
        _spare_what_is_needed(recipe, folder)


def _spare_what_is_needed(recipe: Recipe, folder: Path) -> None:
    """Refuse to overwrite a folder that holds the run's own teacher, weights or data."""
    cards = [("model", recipe.model), *([("teacher", recipe.teacher)] if recipe.teacher else [])]
    cards += [(f"teachers.{name}", model) for name, model in recipe.teachers.items()]
    used: dict[str, str | Path | None] = {f"data.sources.{i}.root": s.root for i, s in enumerate(recipe.data.sources)}
    for section, card in cards:
        used |= {
            f"{section}.{key}": getattr(card, key) for key in ("path", "tokenizer", "vision_weights", "text_weights")
        }
    used |= {"data.vision_cache": recipe.data.vision_cache, "distill.teacher_cache": recipe.distill.teacher_cache}
    inside = [name for name, path in used.items() if path and Path(path).resolve().is_relative_to(folder.resolve())]
    if inside:
        found = f"{', '.join(inside)} inside it"
        remedy = "choose another --out"
        raise InputError(Problem(str(folder), "", "a folder that this run does not need", found, remedy))


def _finished(folder: Path) -> dict[str, Any]:
    """What `run.json` says of a run that has finished and is whole; empty for others."""
    path = folder / "run.json"
    facts: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return facts if facts.get("finished") and (folder / "model").is_dir() else {}


def _claim(recipe: Recipe, folder: Path, accelerator: Accelerator, *, overwrite: bool) -> None:
    """Make the run's folder ours, once data and models are known to be good, on every rank."""
    if dist.is_initialized():
        dist.barrier()
    if accelerator.is_main_process:
        if overwrite and folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_recipe(recipe, folder / "recipe.yaml")
        recover(folder / "checkpoints")
    if dist.is_initialized():
        dist.barrier()


def _require_trackers(recipe: Recipe) -> None:
    """Refuse trackers whose package is missing; accelerate would go on without them."""
    missing = [name for name in recipe.train.trackers if find_spec(name) is None]
    if missing:
        extra = "tracking" if "tensorboard" in missing else "wandb"
        remedy = f'pip install "drivedistill[{extra}]", or remove the tracker'
        raise InputError(Problem("recipe", "train.trackers", "installed packages", f"no {', '.join(missing)}", remedy))


def _require_same_recipe(recipe: Recipe, folder: Path) -> None:
    path = folder / "recipe.yaml"
    problems = [
        Problem(str(path), key, f"{before!r} as when the run began", repr(now), "use the same recipe")
        for key, (before, now) in changed_fields(load_recipe(path), recipe).items()
    ]
    if problems:
        raise InputError(problems)


def _finish(recipe: Recipe, parts: Parts, folder: Path, facts: dict[str, Any], accelerator: Accelerator) -> None:
    """Write `model/` from the best checkpoint (the last one without validation), then `run.json`."""
    if accelerator.is_main_process:
        subject = parts.student
        if recipe.train.sharding == "fsdp2":  # its weights are spread over the ranks; the checkpoint has them whole
            tokenizer, pictures = subject.preparation.tokenizer, subject.preparation.pictures
            subject = build_student(recipe.model, recipe.data, pictures, parts.splits["train"], tokenizer)
        student = Student(subject.model)
        load_checkpoint(folder / "checkpoints" / facts["model_from"], student, None)
        if facts["steps"]:
            _mark_trained_tower(bare(student.model))
        save_subject(subject, student.model, folder / "model", model_card(recipe, facts))
        write_json(folder / "run.json", facts)
    if dist.is_initialized():
        dist.barrier()


def _mark_trained_tower(model: Any) -> None:
    """A cut vision tower that has been trained may be frozen from now on."""
    if getattr(model.config, "vision_state", "whole") == "cut" and tower_learns(model):
        model.config.vision_state = "matched"


def _save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write the run's tokenizer once; a resumed run must find it whole, whenever the process before was killed."""
    if folder.is_dir():
        return
    with write_folder(folder) as new:
        tokenizer.save_pretrained(new)


def _log(folder: Path, accelerator: Accelerator) -> Callable[[dict[str, Any]], None]:
    to_file = write_metrics(folder / "metrics.jsonl")

    def log(record: dict[str, Any]) -> None:
        if accelerator.is_main_process:
            to_file(record)
        accelerator.log({key: value for key, value in flat(record).items() if key != "step"}, step=record["step"])

    return log


def _truncate_metrics(path: Path, resume_from: Path | None) -> None:
    """Drop what was logged after the checkpoint that the run goes on from; those steps come again."""
    if not path.is_file():
        return
    step = int(resume_from.name.removeprefix("step-")) if resume_from else 0
    kept = [json.dumps(record) for record in read_metrics(path) if record["step"] <= step]
    temporary = path.with_name(".metrics.tmp")
    temporary.write_text("".join(f"{line}\n" for line in kept), "utf-8")
    temporary.replace(path)


def _facts(recipe: Recipe, parts: Parts) -> dict[str, Any]:
    parameters = count_parameters(parts.student.model)
    regular, corner = regime_ratio(parts.splits["train"])
    return {
        "name": recipe.name,
        "kind": "distill" if parts.teacher else "train",
        "teacher": recipe.teacher.path or recipe.teacher.preset if recipe.teacher else None,
        "teacher_cache": speaking.facts
        if isinstance(speaking := speaker(parts.setting.teacher), CachedTeacher)
        else None,
        "teachers": {name: recipe.teachers[name].path or recipe.teachers[name].preset for name in recipe.teachers},
        "seed": recipe.seed,
        "params_m": round(parameters["total"] / 1e6, 6),
        "activated_m": round(parameters["activated"] / 1e6, 6),
        "trainable_m": round(parameters["trainable"] / 1e6, 6),
        "questions": {name: len(samples) for name, samples in parts.splits.items()},
        "regular_questions": regular,
        "corner_questions": corner,
        "corner_questions_per_epoch": corner_draws(regular, corner, recipe.data.corner_ratio) or corner,
        "ranks": dist.get_world_size() if dist.is_initialized() else 1,
        **machine_facts(),
    }


def _cost(recipe: Recipe, parts: Parts, state: State, ranks: int) -> dict[str, Any]:
    """What the training took. `seconds` has its steps with the loading of their pictures, not validation and saving."""
    windows = train_stream(recipe, parts.splits["train"], ranks).windows_per_epoch
    return {
        "seconds": round(state.seconds, 1),
        "teacher_seconds": round(state.teacher_seconds, 3),
        "teacher_share": round(state.teacher_seconds / state.seconds, 4) if state.seconds else 0.0,
        "peak_memory_gb": round(state.peak_memory_gb, 3),
        "epochs": round(state.step / windows, 4),
    }
