"""Maps and hidden states of real models on two ranks: the update of one process, summed or projected, DDP and FSDP2."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lesson_ranks import WAYS, card

import tiny
from loops import one_update, relative_difference

SCRIPT = Path(__file__).with_name("lesson_ranks.py")


@pytest.mark.long
def test_two_ranks_learn_their_lessons_as_one_process_does(tmp_path):
    tiny.save_vlm("internvl", tmp_path / "student", seed=1)
    tiny.save_vlm("internvl", tmp_path / "teacher", seed=2, num_hidden_layers=3, hidden_size=48)
    expected = {way: one_update(card(tmp_path, way, train__batch_size=6)) for way in WAYS}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", str(SCRIPT)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for way, wanted in expected.items():
        assert any("to_teacher" in name for name in wanted)
        for sharding in ("none", "fsdp2"):
            for rank in (0, 1):
                found = torch.load(tmp_path / f"{sharding}-{way}-{rank}.pt", weights_only=True)
                found = {name: found.get(name, torch.zeros_like(value)) for name, value in wanted.items()}
                assert relative_difference(found, wanted) < 1e-5, (sharding, way, rank)
    assert relative_difference(expected["agp"], expected["sum"]) > 1e-3
