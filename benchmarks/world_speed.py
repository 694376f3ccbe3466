"""How fast the embedded world is written, and what starting costs.

    python benchmarks/world_speed.py --out benchmarks/world_speed.json

Whole pipeline (simulation, rendering, questions, JPEG, files) at 112 and 224 pixels with 2x2 anti-aliasing, one process
pinned to one core; two processes against one, interleaved; the first start with an empty cache of compiled kernels, and
the next one. Every figure is the median of the rounds; a start is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SMALL = 20
"""Key frames of the smallest data set: what it takes is taken for the start."""
START = """
from drivedistill.world.driving.drive import drive_scene
from drivedistill.world.pictures.render import Renderer
drive = next(drive for drive in (drive_scene("follow", seed) for seed in range(20)) if drive is not None)
Renderer(drive).views(30, 48, 48)
"""


def run(arguments: list[str], *, cores: str = "0", cache: Path | None = None) -> float:
    """Seconds that a process takes, pinned to the cores."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | ({"NUMBA_CACHE_DIR": str(cache)} if cache else {})
    started = time.perf_counter()
    subprocess.run(
        ["taskset", "-c", cores, sys.executable, *arguments], check=True, env=environment, stdout=subprocess.DEVNULL
    )
    return time.perf_counter() - started


def world(folder: Path, keyframes: int, size: int, workers: int, cores: str) -> float:
    """Seconds for a data set."""
    out = Path(tempfile.mkdtemp(dir=folder)) / "world"
    command = ["-m", "drivedistill.cli", "world", str(out), "--keyframes", str(keyframes), "--seed", "1"]
    return run([*command, "--size", str(size), "--workers", str(workers)], cores=cores)


def measure(keyframes: int, rounds: int) -> dict[str, Any]:
    """All figures; `raw` holds every round."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cold = [run(["-c", START], cache=Path(tempfile.mkdtemp(dir=folder)))]
        run(["-c", START])
        warm = [run(["-c", START]) for _ in range(rounds)]
        one, two, large, small, both = [], [], [], [], []
        for _ in range(rounds):
            small.append(world(folder, SMALL, 112, 1, "0"))
            both.append(world(folder, SMALL, 112, 2, "0,1"))
            one.append(world(folder, keyframes, 112, 1, "0"))
            two.append(world(folder, keyframes, 112, 2, "0,1"))
            large.append(world(folder, keyframes // 3, 224, 1, "0"))
    fixed = statistics.median(small)
    middle = statistics.median(one)
    return {
        "keyframes": keyframes,
        "rounds": rounds,
        "first_start_s": cold[0],
        "next_start_s": statistics.median(warm),
        "whole_command_112_per_s": keyframes / middle,
        "pipeline_112_per_s": (keyframes - SMALL) / (middle - fixed),
        "pipeline_224_per_s": (keyframes // 3) / statistics.median(large),
        "two_workers_over_one": statistics.median(
            (a - start) / (b - start_both) for a, start, b, start_both in zip(one, small, two, both, strict=True)
        ),
        "two_workers_over_one_whole_command": statistics.median(a / b for a, b in zip(one, two, strict=True)),
        "raw": {"small": small, "both": both, "one": one, "two": two, "large": large, "warm": warm, "cold": cold},
    }


def main() -> None:
    """Print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keyframes", type=int, default=480)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("world_speed.json"))
    chosen = parser.parse_args()
    figures = measure(chosen.keyframes, chosen.rounds)
    rows = {
        "112 px, key frames per second and core": (figures["pipeline_112_per_s"], ">= 15"),
        "112 px, whole command, start included": (figures["whole_command_112_per_s"], ""),
        "224 px, whole command, start included": (figures["pipeline_224_per_s"], ">= 5"),
        "two workers over one": (figures["two_workers_over_one"], ">= 1.8"),
        "two workers over one, start included": (figures["two_workers_over_one_whole_command"], ""),
        "first start, kernels compiled, seconds": (figures["first_start_s"], "<= 30"),
        "next start, seconds": (figures["next_start_s"], "<= 2"),
    }
    for name, (value, goal) in rows.items():
        print(f"{name:<42}{value:>8.2f}   {goal}")
    chosen.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
