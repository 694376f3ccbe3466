"""Can one see in the embedded world's pictures what the questions ask about, and are its corner cases harder?

    drivedistill world data/world --keyframes 6000 --seed 0 --workers 2
    python benchmarks/world_learnable.py data/world --minutes 7 --out benchmarks/world_learnable.json

A small convolutional network looks at the front picture alone and learns the expert's action, the weather and the light
on the regular training frames. It is examined on test-regular and test-corner, beside the commonest answer of the training
frames and beside itself on black pictures. Intervals: bootstrap over scenes.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from drivedistill.evaluate.measure import draw_scenes, mean_of, measure_interval

LABELS = {
    "longitudinal": ("keep speed", "accelerate", "decelerate", "stop"),
    "lateral": ("go straight", "turn left", "turn right", "change to the left lane", "change to the right lane"),
    "weather": ("clear", "cloudy", "rain", "fog", "snow"),
    "light": ("day", "dusk", "night"),
}


class Frames(NamedTuple):
    """Front pictures, labels and scenes of one split."""

    pictures: Tensor
    """uint8[n, 3, size, size]"""
    labels: dict[str, Tensor]
    """int64[n] each"""
    scenes: NDArray[np.str_]


def load(root: Path, regime: str, name: str) -> Frames:
    """The frames of a `truth` file."""
    rows = [json.loads(line) for line in (root / regime / "truth" / f"{name}.jsonl").read_text("utf-8").splitlines()]
    pictures = [np.asarray(Image.open(root / regime / row["images"]["CAM_FRONT"])) for row in rows]
    flat = [row | row["action"] for row in rows]
    labels = {key: torch.tensor([values.index(row[key]) for row in flat]) for key, values in LABELS.items()}
    stacked = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
    return Frames(stacked, labels, np.array([row["scene"] for row in rows]))


class Glance(nn.Module):
    """Five strided convolutions and one linear head per label; about half a million parameters."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 24, 48, 96, 128)
        self.features = nn.Sequential(
            *(
                layer
                for before, after in pairwise(widths)
                for layer in (nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())
            ),
            nn.AdaptiveAvgPool2d(7),
            nn.Conv2d(widths[-1], 32, 1),
            nn.Flatten(),
            nn.Dropout(0.3),
        )
        self.heads = nn.ModuleDict({key: nn.Linear(32 * 49, len(values)) for key, values in LABELS.items()})

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """Logits per label; pictures are uint8[n, 3, h, w]."""
        features = self.features(pictures.float() / 127.5 - 1)
        return {key: head(features) for key, head in self.heads.items()}


def train(frames: Frames, minutes: float, seed: int) -> tuple[Glance, int]:
    """Adam with a cosine schedule over the time given; returns the network and its epochs."""
    torch.manual_seed(seed)
    net, started, epochs = Glance().train(), time.monotonic(), 0
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.05)
    while (spent := (time.monotonic() - started) / 60 / minutes) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * 0.5 * (1 + np.cos(np.pi * spent))
        for rows in torch.randperm(len(frames.pictures)).split(64):
            logits = net(_jitter(frames.pictures[rows]))
            loss = torch.stack(
                [functional.cross_entropy(logits[key], frames.labels[key][rows]) for key in LABELS]
            ).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        epochs += 1
    return net.eval(), epochs


def _jitter(pictures: Tensor) -> Tensor:
    """Shift the batch by up to four pixels: every epoch sees other pixels."""
    dx, dy = (int(value) for value in torch.randint(-4, 5, (2,)))
    return torch.roll(pictures, (dy, dx), (2, 3))


@torch.no_grad()
def right(net: Glance, frames: Frames, *, black: bool = False) -> dict[str, NDArray[np.float64]]:
    """1.0 where the network is right, per label."""
    answers: dict[str, list[Tensor]] = {key: [] for key in LABELS}
    for rows in torch.arange(len(frames.pictures)).split(256):
        pictures = frames.pictures[rows]
        for key, logits in net(torch.zeros_like(pictures) if black else pictures).items():
            answers[key].append(logits.argmax(-1) == frames.labels[key][rows])
    return {key: torch.cat(parts).double().numpy() for key, parts in answers.items()}


def examine(net: Glance, learnt: Frames, tests: dict[str, Frames]) -> list[dict[str, Any]]:
    """One row per label and test split."""
    rows = []
    for split, frames in tests.items():
        seen, blind = right(net, frames), right(net, frames, black=True)
        for key in LABELS:
            commonest = int(learnt.labels[key].mode().values)
            low, high = measure_interval(mean_of(seen[key].tolist(), key), draw_scenes(frames.scenes.tolist(), seed=0))
            row = {"label": key, "split": split, "n": len(frames.scenes), "accuracy": float(seen[key].mean())}
            row |= {"low": low, "high": high, "black": float(blind[key].mean())}
            rows.append(row | {"majority": float((frames.labels[key] == commonest).double().mean())})
    return rows


def main() -> None:
    """Print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("world", type=Path)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("world_learnable.json"))
    chosen = parser.parse_args()
    learnt = load(chosen.world, "regular", "train")
    tests = {
        "test-regular": load(chosen.world, "regular", "test"),
        "test-corner": load(chosen.world, "corner", "test"),
    }
    net, epochs = train(learnt, chosen.minutes, chosen.seed)
    rows = examine(net, learnt, tests)
    print(f"{len(learnt.scenes)} training frames, {epochs} epochs in {chosen.minutes:g} minutes")
    print(f"{'label':<14}{'split':<14}{'n':>6}{'accuracy':>10}{'95 % interval':>18}{'majority':>10}{'black':>8}")
    for row in rows:
        between = f"[{row['low']:.2f}, {row['high']:.2f}]"
        print(
            f"{row['label']:<14}{row['split']:<14}{row['n']:>6}{row['accuracy']:>10.2f}{between:>18}"
            f"{row['majority']:>10.2f}{row['black']:>8.2f}"
        )
    parameters = sum(parameter.numel() for parameter in net.parameters())
    manifest = json.loads((chosen.world / "manifest.json").read_text("utf-8"))
    facts = {"parameters": parameters, "frames": len(learnt.scenes), "epochs": epochs, "minutes": chosen.minutes}
    facts |= {key: manifest[key] for key in ("version", "keyframes", "seed", "size", "data_hash")}
    chosen.out.write_text(json.dumps(facts | {"rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
