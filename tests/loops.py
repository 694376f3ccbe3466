"""What tests of the training loop share: one update, a signal in the middle of a step, what a run left behind."""

from __future__ import annotations

import json
import os
import signal

import torch
from accelerate import Accelerator

from drivedistill.data.collate import collate
from drivedistill.data.stream import MicroBatches
from drivedistill.runs import assemble
from drivedistill.step import step
from drivedistill.train import start


def one_update(recipe, change=None, again=False):
    """Gradients of the first window; `change` may alter the setting before; `again`: the first micro-batch every time."""
    setting = assemble(recipe).setting
    if change:
        change(setting)
    loop = start(setting, Accelerator(cpu=True))
    order = iter(MicroBatches(loop.stream, 0, loop.accelerator.process_index))
    window = [
        collate([setting.train[i] for i in next(order)], setting.preparations) for _ in range(recipe.train.accumulate)
    ]
    window = window[:1] * len(window) if again else window
    gradients = {}

    def keep(*_):
        gradients.update({n: p.grad.clone() for n, p in loop.model.named_parameters() if p.grad is not None})

    loop.optimizer.register_step_pre_hook(keep)
    step(loop, window)
    return gradients


def relative_difference(ours, theirs):
    """Norm of the difference of two gradients over the norm of one."""
    assert ours.keys() == theirs.keys()
    ours, theirs = (torch.cat([g[name].flatten() for name in sorted(g)]).double() for g in (ours, theirs))
    return float((ours - theirs).norm() / theirs.norm())


def weights(folder):
    """The weights of a run's last checkpoint."""
    from safetensors.torch import load_file

    return load_file(folder / "checkpoints" / "last" / "model.safetensors")


def logged(folder):
    """The records of a run's metrics."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]


def stop_in(monkeypatch, at, number=signal.SIGTERM):
    """Send a signal to ourselves in the middle of a step."""
    import drivedistill.train as module

    original = module.step

    def stepping(loop, window):
        if loop.state.step == at:
            os.kill(os.getpid(), number)
        return original(loop, window)

    monkeypatch.setattr(module, "step", stepping)
