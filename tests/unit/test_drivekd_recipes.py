"""Drive-KD's recipes do what they say: every one runs here, with names, sizes and steps overridden and nothing else."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import tiny
from drivedistill.data.images import PictureCache
from drivedistill.models.hf_vlm import load_vlm
from drivedistill.models.published_moe import published_text
from drivedistill.problems import InputError
from drivedistill.recipe import load_recipe
from drivedistill.runs import assemble, run
from drivedistill.subject import load_subject
from loops import logged

RECIPES = Path(__file__).parents[2] / "recipes"
FAMILIES = {
    "drivekd_internvl3": "internvl",
    "drivekd_qwen2_5_vl": "qwen2_5_vl",
    "drivekd_clkd_internvl3": "internvl",
    "align_kd_internvl3": "internvl",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Conversations about drawn pictures, a student of every family, and a deeper teacher (Qwen: less deep)."""
    folder = tmp_path_factory.mktemp("drivekd_recipes")
    paths = [Path(path).name for path in tiny.pictures(folder).values()]
    for name, count in (("train", 9), ("val", 3), ("drivebench", 3)):
        records = [
            {
                "question": f"{'<image>' * len(paths)}Number {i} of <c1,CAM_BACK,0.5,0.25>?",
                "answer": f"Stop at <c1,CAM_BACK,0.5,0.{i + 1}>.",
                "images": paths,
                "scene": name,
                "question_type": ("perception", "reasoning", "planning")[i % 3],
            }
            for i in range(count)
        ]
        (folder / f"{name}.json").write_text(json.dumps(records))
    for family, (ours, theirs) in {"internvl": (2, 3), "qwen2_5_vl": (3, 2)}.items():
        tiny.save_vlm(family, folder / f"{family}_student", seed=1, num_hidden_layers=ours)
        tiny.save_vlm(family, folder / f"{family}_teacher", seed=2, num_hidden_layers=theirs)
    return folder


def overridden(name: str, folder: Path, *more: str):
    """A recipe at tiny size."""
    paths = [
        f"{role}.path={folder / f'{FAMILIES[name]}_{who}'}"
        for role, who in (("model", "student"), ("teacher", "teacher"))
    ]
    sizes = ["data.image_size=28", "data.workers=0", "train.steps=2", "train.validate_limit=2", "train.log_every=1"]
    return load_recipe(RECIPES / f"{name}.yaml", [f"data.sources.0.root={folder}", *paths, *sizes, *more])


@pytest.fixture(scope="module")
def runs(folder) -> Callable[[str], Path]:
    """Runs a recipe when it is first asked for."""

    @functools.cache
    def of(name: str) -> Path:
        assert run(overridden(name, folder), folder / "runs" / name)["kind"] == "distill"
        return folder / "runs" / name

    return of


@pytest.mark.parametrize("name", FAMILIES)
def test_a_recipe_runs_and_reads_back_as_it_was_trained(name, folder, runs):
    lessons = ("perception", "reasoning", "planning")
    losses = [[record[c] for c in lessons] for record in logged(runs(name)) if "perception" in record]
    assert losses and torch.tensor(losses).isfinite().all()
    made = load_subject(str(runs(name)), PictureCache(1))
    reading = made.preparation.reading
    assert (reading.tiles, reading.supervise, reading.coordinates) == ("one", "turn", "unit")
    before, after = load_vlm(str(folder / f"{FAMILIES[name]}_student")).state_dict(), made.model.state_dict()
    changed = {
        key for key in before.keys() & after.keys() if not torch.equal(before[key].bfloat16(), after[key].bfloat16())
    }
    assert changed and not any("vis" in key or "projector" in key for key in changed), "only the language model learns"


def test_the_student_of_both_methods_is_written_as_qwen2_moe(runs):
    ours = load_vlm(str(runs("drivekd_clkd_internvl3") / "model"))
    ids = torch.arange(10, 20)[None]
    with torch.no_grad():
        theirs = published_text(ours)(input_ids=ids).logits
        torch.testing.assert_close(theirs, ours(input_ids=ids).logits, rtol=0, atol=1e-5)


def test_a_teacher_that_supervises_less_is_refused_before_training(folder, tmp_path):
    card = overridden("drivekd_internvl3", folder)
    run(overridden("drivekd_internvl3", folder, "teacher=null", "distill.drivekd=null", "train.steps=0",
                   "data.supervise=answer", f"model.path={folder / 'internvl_teacher'}"), tmp_path / "teacher")  # fmt: skip
    teacher = card.teacher.model_copy(update={"path": str(tmp_path / "teacher")})
    with pytest.raises(InputError, match="the answer is supervised for the teacher, the turn for the student"):
        assemble(card.model_copy(update={"teacher": teacher}))
