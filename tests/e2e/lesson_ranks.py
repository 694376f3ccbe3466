"""Run by `torchrun` in test_lesson_ranks.py: lessons on two ranks (gloo, CPU), their maps and hidden states included."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
import torch.distributed as dist

import tiny
from drivedistill.recipe import Recipe
from loops import one_update

LESSONS = {
    "perception": {"block": "text_to_vision", "layers": "first"},
    "reasoning": {"block": "full", "layers": "intermediate"},
    "planning": {"signal": "hidden", "layers": "penultimate"},
}
WAYS = {"sum": None, "agp": {"kind": "agp", "per": "window"}}


def card(folder: Path, way: str, **changes: object) -> Recipe:
    """Six samples in one window, taught by a deeper and wider teacher."""
    model = {"path": str(folder / "student"), "frozen": ["vision_tower", "multi_modal_projector"]}
    given = {"model": model, "teacher": {"path": str(folder / "teacher")}, "data__image_size": 28}
    options = {"train__reduction": "samples", "train__clip": None, "distill__weight": 0.5}
    drivekd = {"lessons": LESSONS, "projection": WAYS[way]}
    return tiny.recipe(folder, **given, **options, distill__drivekd=drivekd, **changes)


def main() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    for sharding in ("none", "fsdp2"):
        for way in WAYS:
            kept = one_update(card(folder, way, train__batch_size=1, train__accumulate=3, train__sharding=sharding))
            whole = {n: g.full_tensor() if hasattr(g, "full_tensor") else g for n, g in kept.items()}
            named = {name.removeprefix("module."): value for name, value in whole.items()}
            torch.save(named, folder / f"{sharding}-{way}-{dist.get_rank()}.pt")
    dist.barrier()
    if dist.get_rank() == 0:
        print("RESULT {}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
