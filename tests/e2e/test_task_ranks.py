"""Several tasks on two ranks: the single process's update, per sample and per window, under DDP and FSDP2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from task_ranks import MIXINGS, PER, card

import tiny
from drivedistill import teaching
from fakes import CAPABILITIES, Quarrel
from loops import one_update, relative_difference

SCRIPT = Path(__file__).with_name("task_ranks.py")


def torchrun(*arguments: str) -> dict:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", str(SCRIPT)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(done.stdout.split("RESULT ")[1].splitlines()[0])


def test_two_ranks_make_the_projected_update_of_one_process(tmp_path, monkeypatch):
    monkeypatch.setattr(teaching, "courses_of", lambda *given: {})  # the lessons here are not a teacher's
    tiny.recipe(tmp_path)  # writes the data once
    told = torchrun(str(tmp_path), "50", "windows")
    for name, mixing in MIXINGS.items():
        for per in ("window", "sample"):

            def change(setting, mixing=mixing):
                setting.objective = Quarrel("tokens", model=setting.student.model, mixing=mixing)

            expected = one_update(card(tmp_path, per, train__accumulate=6), change)
            for sharding in [sharding for sharding, ways in PER.items() if per in ways]:
                for rank in (0, 1):
                    found = torch.load(tmp_path / f"{sharding}-{per}-{name}-{rank}.pt", weights_only=True)
                    found = {key: found.get(key, torch.zeros_like(value)) for key, value in expected.items()}
                    assert relative_difference(found, expected) < 1e-6, (sharding, per, name, rank)
    (ddp, ddp_loss), (fsdp2, fsdp2_loss) = told["none-window-soft"], told["fsdp2-window-soft"]
    assert ddp_loss == pytest.approx(fsdp2_loss)
    assert ddp["cosine"] == pytest.approx(fsdp2["cosine"], abs=2e-4)
    assert ddp["norm_share"] == pytest.approx(fsdp2["norm_share"], abs=2e-4)
    assert told["none-sample-hard"][0]["cosine"].keys() == {f"anchor/{name}" for name in CAPABILITIES}
    require_exact(told)


@pytest.mark.long
def test_two_thousand_random_windows_on_two_ranks_equal_the_procedure_on_vectors(tmp_path):
    tiny.recipe(tmp_path)
    require_exact(torchrun(str(tmp_path), "2000", "alone"))


def require_exact(told: dict) -> None:
    errors = [told[per] for per in ("window", "sample")]
    assert max(errors) <= 1e-12
    assert min(errors) > 0
