"""A teacher is looked at before anything is made: whole, and of this world."""

import json

import pytest

from drivedistill.problems import InputError
from drivedistill.quickstart.origin import FILES, examine
from drivedistill.world import VERSION
from drivedistill.world.dataset.folder import GENERATOR


@pytest.fixture
def teacher(tmp_path):
    for name in FILES:
        (tmp_path / name).write_text(json.dumps({"family": "driving_t5", "image_size": 64, "layout": "compact"}))
    return tmp_path


def test_students_read_as_their_teacher_does(teacher):
    found = examine(teacher)
    assert found.reading == {"image_size": 64, "layout": "compact"}, "and nothing that a recipe does not know"
    assert found.origin == {}


def test_weights_give_a_teacher_its_name(teacher):
    before = examine(teacher).digest
    (teacher / "model.safetensors").write_text("other weights")
    assert examine(teacher).digest != before


def test_a_run_is_as_good_as_its_model_folder(teacher, tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    teacher.rename(run / "model")
    assert examine(run).path == run


def test_all_missing_files_are_named(tmp_path):
    with pytest.raises(InputError) as caught:
        examine(tmp_path)
    assert [problem.file for problem in caught.value.problems] == [str(tmp_path / name) for name in FILES]


@pytest.mark.parametrize("origin", [{"version": f"{VERSION}0"}, {"generator": "another world"}])
def test_a_teacher_of_another_world_is_refused(teacher, origin):
    whole = {"generator": GENERATOR, "version": VERSION, "data_hash": "aa"}
    (teacher / "origin.json").write_text(json.dumps(whole))
    assert examine(teacher).origin == whole
    (teacher / "origin.json").write_text(json.dumps(whole | origin))
    with pytest.raises(InputError) as caught:
        examine(teacher)
    (problem,) = caught.value.problems
    assert f"version {VERSION}" in problem.expected
    assert str(next(iter(origin.values()))) in problem.found
