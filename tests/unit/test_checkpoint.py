"""A checkpoint is complete or absent; loading it brings back weights, moments and random generators exactly."""

from __future__ import annotations

import json
import os
import random

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from drivedistill import checkpoint, folders
from drivedistill.checkpoint import last_checkpoint, load_checkpoint, recover, save_checkpoint
from drivedistill.folders import clear_up
from drivedistill.problems import InputError


class Tied(nn.Module):
    """Head and embedding share a weight; one parameter never learns."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(7, 5)
        self.middle = nn.Linear(5, 5)
        self.frozen = nn.Linear(5, 5).requires_grad_(False)
        self.head = nn.Linear(5, 7, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("counts", torch.arange(3))

    def forward(self, ids):
        return self.head(self.frozen(self.middle(self.embedding(ids))))


def learn(model, optimizer, steps=3):
    for _ in range(steps):
        model(torch.randint(0, 7, (4,))).pow(2).sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def learner(seed=0, kind=Tied):
    model = kind(seed)
    return model, torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)


def save(folder, step, model=None, optimizer=None, keep=2, **state):
    if model is None:
        model, optimizer = learner()
        learn(model, optimizer, 1)
    return save_checkpoint(folder, model, optimizer, {"step": step, **state}, keep=keep)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def steps(folder):
    return [name for name in names(folder) if name.startswith("step-")]


def test_weights_moments_and_steps_come_back_exactly(tmp_path):
    model, optimizer = learner()
    learn(model, optimizer)
    target = save(tmp_path, 3, model, optimizer)
    other, fresh = learner(seed=1)
    load_checkpoint(target, other, fresh)
    for (name, ours), (_, theirs) in zip(model.state_dict().items(), other.state_dict().items(), strict=True):
        assert torch.equal(ours, theirs), name
    assert other.head.weight is other.embedding.weight
    ours, theirs = optimizer.state_dict()["state"], fresh.state_dict()["state"]
    assert len(ours) == len(theirs) == 3
    for index, moments in ours.items():
        assert moments.keys() == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(value, theirs[index][key]) for key, value in moments.items())


def test_training_goes_on_bit_for_bit_after_loading(tmp_path):
    model, optimizer = learner()
    learn(model, optimizer)
    target = save(tmp_path, 3, model, optimizer)
    learn(model, optimizer)
    other, fresh = learner(seed=1)
    torch.manual_seed(99)
    load_checkpoint(target, other, fresh)
    learn(other, fresh)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("gauss", [False, True])
def test_random_generators_of_torch_and_python_come_back(tmp_path, gauss):
    random.seed(5)
    if gauss:
        random.gauss(0, 1)  # the generator keeps the second of a pair
    target = save(tmp_path, 1)
    expected = [random.gauss(0, 1), random.random(), float(torch.rand(()))]
    random.seed(6)
    torch.manual_seed(6)
    load_checkpoint(target, *learner())
    assert [random.gauss(0, 1), random.random(), float(torch.rand(()))] == expected


def test_state_comes_back_with_its_floats_exactly(tmp_path):
    target = save(tmp_path, 1, best=0.1 + 0.2, best_step=None, seconds=1e-9)
    state = load_checkpoint(target, *learner())
    assert (state["step"], state["best"], state["best_step"], state["seconds"]) == (1, 0.1 + 0.2, None, 1e-9)


def test_tied_weights_are_stored_once(tmp_path):
    target = save(tmp_path, 1)
    stored = load_file(target / "model.safetensors")
    assert {"embedding.weight", "head.weight"} - stored.keys() == {"head.weight"}
    assert json.loads((target / "state.json").read_text())["aliases"] == {"head.weight": "embedding.weight"}


def test_folder_holds_tensors_and_json_only(tmp_path):
    target = save(tmp_path, 1)
    assert names(target) == ["model.safetensors", "optimizer.safetensors", "random.safetensors", "state.json"]


def test_old_checkpoints_are_dropped_and_the_best_is_kept(tmp_path):
    for step in range(1, 7):
        save(tmp_path, step, keep=2, best_step=min(step, 2))
    assert names(tmp_path) == ["best", "last", "step-000002", "step-000005", "step-000006"]
    assert os.readlink(tmp_path / "best") == "step-000002"
    assert os.readlink(tmp_path / "last") == "step-000006"


def test_former_best_is_dropped_when_beaten(tmp_path):
    for step in range(1, 5):
        save(tmp_path, step, keep=1, best_step=step if step != 4 else 3)
    assert names(tmp_path) == ["best", "last", "step-000003", "step-000004"]


def test_run_can_be_moved(tmp_path):
    save(tmp_path / "a", 1, best_step=1)
    (tmp_path / "a").rename(tmp_path / "b")
    assert (tmp_path / "b" / "best" / "state.json").is_file()
    assert (tmp_path / "b" / "last" / "state.json").is_file()


def test_newest_is_found_by_number_without_links_and_foreign_folders_do_not_matter(tmp_path):
    assert last_checkpoint(tmp_path / "absent") is None
    for step in (999_999, 1_000_000):
        save(tmp_path, step)
    (tmp_path / "last").unlink()
    (tmp_path / "step-backup").mkdir()
    (tmp_path / "step-backup" / "state.json").write_text("{}")
    assert last_checkpoint(tmp_path).name == "step-1000000"
    save(tmp_path, 1_000_001, keep=1)
    assert steps(tmp_path) == ["step-1000001", "step-backup"]


def test_half_written_folders_are_ignored_and_removed(tmp_path):
    save(tmp_path, 1)
    half = tmp_path / ".writing-step-000002"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    (tmp_path / ".writing-gone-step-000000").mkdir()
    (tmp_path / ".writing-old-step-000001").mkdir()
    (tmp_path / ".writing-last").symlink_to("nowhere")
    assert last_checkpoint(tmp_path).name == "step-000001"
    clear_up(tmp_path)
    assert names(tmp_path) == ["last", "step-000001"]


def test_a_checkpoint_that_was_giving_way_to_a_newer_one_is_given_back(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "step-000001").rename(tmp_path / ".writing-old-step-000001")  # killed between the two renames
    (tmp_path / ".writing-step-000001").mkdir()
    recover(tmp_path)
    assert names(tmp_path) == ["last", "step-000001"] and last_checkpoint(tmp_path).name == "step-000001"
    load_file(tmp_path / "step-000001" / "model.safetensors")


def test_saving_steps_over_what_a_killed_process_left(tmp_path):
    (tmp_path / ".writing-step-000001").mkdir()
    (tmp_path / ".writing-step-000001" / "model.safetensors").write_bytes(b"half")
    save(tmp_path, 1)
    save(tmp_path, 1)  # and over itself
    assert names(tmp_path) == ["last", "step-000001"]


class Killed(BaseException):
    """What `kill -9` is to a test."""


MOMENTS = [
    *(
        (checkpoint, name)
        for name in ("save_file", "_point_links", "_point", "flush_folder", "_drop_old", "remove_folder")
    ),
    *((folders, name) for name in ("flush", "flush_folder")),
    *((os, name) for name in ("fsync", "rename")),
]


@pytest.mark.parametrize(("where", "name"), MOMENTS, ids=[f"{where.__name__}.{name}" for where, name in MOMENTS])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_death_at_any_moment_leaves_a_whole_checkpoint_and_recovery_mends_the_links(
    tmp_path, monkeypatch, where, name, after
):
    model, optimizer = learner()
    for step in (1, 2):
        learn(model, optimizer, 1)
        save(tmp_path, step, model, optimizer, keep=1, best_step=1)
    learn(model, optimizer, 1)
    original = getattr(where, name)

    def dying(*arguments):
        if after:
            original(*arguments)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(where, name, dying)
        with pytest.raises(Killed):
            save(tmp_path, 3, model, optimizer, keep=1, best_step=3)
    recover(tmp_path)
    newest = last_checkpoint(tmp_path)
    state = load_checkpoint(newest, *learner())
    assert state["step"] in (2, 3)
    assert (tmp_path / "last").resolve() == newest
    assert (tmp_path / "best").resolve().name == f"step-{state['best_step']:06d}"
    load_checkpoint(tmp_path / "best", *learner())
    assert not [name for name in names(tmp_path) if name.startswith(".")]


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "random.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["absent", "empty", "half", "text"])
def test_damaged_file_is_named_with_a_remedy(tmp_path, file, damage):
    target = save(tmp_path, 1)
    path = target / file
    content = path.read_bytes()
    path.unlink()
    if damage != "absent":
        path.write_bytes({"empty": b"", "half": content[: len(content) // 2], "text": b"not what you think"}[damage])
    with pytest.raises(InputError) as caught:
        load_checkpoint(target, *learner())
    (problem,) = caught.value.problems
    assert problem.file == str(path)
    assert "delete this folder" in problem.remedy


def test_state_without_its_fields_is_refused(tmp_path):
    target = save(tmp_path, 1)
    for content in ("[]", "{}", '{"step": "1", "aliases": {}}', '{"step": 1}'):
        (target / "state.json").write_text(content)
        with pytest.raises(InputError, match=r"state\.json"):
            load_checkpoint(target, *learner())


def test_checkpoint_of_another_model_is_refused_by_name(tmp_path):
    target = save(tmp_path, 1)
    tensors = load_file(target / "model.safetensors")
    tensors["middle.other"] = tensors.pop("middle.weight")
    save_file(tensors, target / "model.safetensors")
    with pytest.raises(InputError, match=r"1 missing.*middle\.weight.*1 unknown.*middle\.other"):
        load_checkpoint(target, *learner())


def test_weights_alone_leave_the_random_generators_alone(tmp_path):
    target = save(tmp_path, 1)
    torch.manual_seed(4)
    expected = torch.rand(2)
    model, _ = learner()
    torch.manual_seed(4)
    load_checkpoint(target, model, None)
    assert torch.equal(torch.rand(2), expected)
