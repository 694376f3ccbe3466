"""What an epoch gains from micro-batches of answers of similar length, and from workers that prepare them.

    python benchmarks/batches.py --out benchmarks/batches.json

The recipe `tiny_teacher` on the drawn scenes of this repository, whose answers have from two to some hundred tokens. `mixed`
is the random order, `similar` is `train.similar_length`; steps of both alternate in one process, on micro-batches that are
spread evenly over each epoch, sorted by length. Padding is the share of decoder positions without a token, over the whole
epoch. Workers: the time in which an epoch of micro-batches is prepared while nothing else runs, pictures not remembered;
every worker has one thread, as the process itself.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from drivedistill.data.collate import collate
from drivedistill.data.images import PictureCache
from drivedistill.data.stream import MicroBatches, SampleList, Stream
from drivedistill.recipe import Recipe, load_recipe
from drivedistill.runs import Parts, assemble
from drivedistill.step import Loop, step
from drivedistill.train import start

ROOT = Path(__file__).resolve().parents[1]


def epoch(stream: Stream) -> list[list[int]]:
    """The micro-batches of the first epoch, as indices."""
    return list(islice(MicroBatches(stream, 0, 0), int(stream.windows_per_epoch)))


def padding(parts: Parts, batches: list[list[int]]) -> float:
    """Share of the decoder's positions that hold no token."""
    preparation = replace(parts.student.preparation, blind=True)
    places = tokens = 0
    for indices in batches:
        batch = collate([parts.setting.train[index] for index in indices], {"student": preparation})
        places, tokens = places + batch.role("student").targets.numel(), tokens + batch.num_tokens
    return 1 - tokens / places


def learning(loop: Loop, indices: list[int], device: torch.device) -> float:
    """Seconds of a step on a micro-batch that is prepared."""
    batch = collate([loop.setting.train[index] for index in indices], loop.setting.preparations).to(device)
    started = _now(device)
    step(loop, [batch])
    return _now(device) - started


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def preparing(parts: Parts, batches: list[list[int]], workers: int) -> float:
    """Seconds in which micro-batches are prepared by so many workers, their start included; 0: by this process."""
    forgetful = replace(parts.student.preparation, pictures=PictureCache(0))
    started = time.perf_counter()
    loader: DataLoader[Any] = DataLoader(
        SampleList(parts.setting.train),
        batch_sampler=batches,
        collate_fn=partial(collate, preparations={"student": forgetful}),
        num_workers=workers,
    )
    for _ in loader:
        pass
    return time.perf_counter() - started


def measure(recipe: Recipe, tries: int, rounds: int) -> dict[str, float]:
    """Seconds of an epoch and their ratios."""
    torch.set_num_threads(1)
    parts, accelerator = assemble(recipe), Accelerator(cpu=not torch.cuda.is_available())
    loop = start(parts.setting, accelerator)
    orders = {
        name: epoch(replace(loop.stream, similar_length=flag)) for name, flag in (("mixed", False), ("similar", True))
    }
    found = {f"padding_{name}": padding(parts, batches) for name, batches in orders.items()}
    longest = [len(sample.answer or "") for sample in parts.setting.train]
    by_size = {name: sorted(batches, key=lambda b: max(longest[i] for i in b)) for name, batches in orders.items()}
    times: dict[str, list[float]] = {name: [] for name in orders}
    for place in range(-1, tries):
        for name, batches in by_size.items():
            taken = learning(loop, batches[int((max(place, 0) + 0.5) / tries * len(batches))], accelerator.device)
            times[name] += [taken] if place >= 0 else []
    # Lengths differ between steps by nature: the mean over an epoch is meant, not a typical step.
    found |= {f"epoch_s_{name}": statistics.fmean(values) * len(orders[name]) for name, values in times.items()}
    found["similar_over_mixed"] = found["epoch_s_similar"] / found["epoch_s_mixed"]
    took: dict[int, list[float]] = {workers: [] for workers in (0, 1, 2)}
    for _ in range(rounds):
        for workers, values in took.items():
            values.append(preparing(parts, orders["mixed"], workers))
    found |= {f"prepare_s_{workers}_workers": statistics.median(values) for workers, values in took.items()}
    found["two_workers_over_none"] = found["prepare_s_2_workers"] / found["prepare_s_0_workers"]
    return found


def main() -> None:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scenes", type=int, default=12)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sizes = ["--scenes", str(arguments.scenes), "--frames", "2", "--size", "800x450"]
        subprocess.run([sys.executable, ROOT / "examples/make_driving_data.py", folder, *sizes], check=True)
        root = f"data.sources.0.root={folder}/regular"
        found = measure(load_recipe(ROOT / "recipes/tiny_teacher.yaml", [root]), arguments.tries, arguments.rounds)
    for name, value in found.items():
        print(f"{name:28} {value:10.4f}")
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
