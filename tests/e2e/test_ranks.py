"""Two ranks give the single process's update; rows keep their parity under DDP and FSDP2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ranks import mined
from safetensors.torch import load_file

import tiny
from drivedistill.runs import run
from loops import one_update

SCRIPT = Path(__file__).with_name("ranks.py")


def torchrun(*arguments: str) -> dict:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", str(SCRIPT)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(done.stdout.split("RESULT ")[1].splitlines()[0])


def flat(gradients: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([gradients[name].flatten() for name in sorted(gradients)]).double()


def test_two_ranks_give_the_gradient_of_one_process(tmp_path):
    tiny.recipe(tmp_path)  # writes the data once
    torchrun("gradients", str(tmp_path))
    for pool in (None, "window", "ranks", "bank"):
        # Two ranks with a sample each are a pool `ranks`; so is one process with micro-batches of two.
        sizes = {"train__batch_size": 2, "train__accumulate": 3} if pool == "ranks" else {"train__batch_size": 6}
        expected = flat(one_update(tiny.recipe(tmp_path, **sizes, train__clip=None, **mined(pool))))
        for sharding in ("none", "fsdp2"):
            for rank in (0, 1):
                saved = torch.load(tmp_path / f"{sharding}-{pool}-{rank}.pt", weights_only=True)
                difference = (flat(saved) - expected).norm() / expected.norm()
                assert difference < 1e-6, (sharding, pool, rank, float(difference))


def test_rows_equal_the_models_own_logits_under_ddp_and_fsdp2(tmp_path):
    tiny.pictures(tmp_path)
    for kind in tiny.VLMS:
        tiny.save_vlm(kind, tmp_path / f"{kind}-0")
    found = torchrun("parity", str(tmp_path))
    assert len(found) == 16
    assert {name: difference for name, difference in found.items() if difference > 1e-5} == {}


@pytest.mark.parametrize("sharding", [pytest.param("none", marks=pytest.mark.long), "fsdp2"])
def test_run_on_two_ranks_trains_like_one_process_and_resumes(tmp_path, sharding):
    run(tiny.recipe(tmp_path, train__batch_size=2), tmp_path / "single")
    torchrun("run", str(tmp_path), "fresh", sharding)
    single = load_file(tmp_path / "single" / "model" / "model.safetensors")
    double = load_file(tmp_path / sharding / "model" / "model.safetensors")
    assert single.keys() == double.keys()
    # The softmax over views ignores this bias: its gradient is rounding noise, which Adam blows up to full steps.
    names = single.keys() - {"fusion.score.bias"}
    assert max(float((single[name] - double[name]).abs().max()) for name in names) < 1e-5
    steps = tmp_path / sharding / "checkpoints"
    whole = load_file(steps / "step-000006" / "model.safetensors")
    for path in (steps / "step-000006").iterdir():
        path.unlink()
    (steps / "step-000006").rmdir()
    facts = tmp_path / sharding / "run.json"  # a finished run would be left alone
    facts.write_text(json.dumps(json.loads(facts.read_text("utf-8")) | {"finished": None}), "utf-8")
    torchrun("run", str(tmp_path), "resume", sharding)
    again = load_file(steps / "step-000006" / "model.safetensors")
    assert all(torch.equal(whole[name], again[name]) for name in whole)
