"""What frozen vision features from a cache save in a training step.

    python benchmarks/vision_cache.py --out benchmarks/vision_cache.json

`em_vlm4ad_small` with random weights, Swin-T frozen, all of T5 trained; 2 questions of 32 tokens with six views, answers of 32
tokens; forward, cross-entropy, backward and AdamW. Live: pictures go through the frozen tower. Cached: its features are
there already. One process, one thread; both alternate, figures are medians. Decoding pictures comes on top of live.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from drivedistill.models.driving_t5 import DrivingT5
from drivedistill.models.presets import build_config
from mining import TOKENS, VOCABULARY, answers, clock

SAMPLES, VIEWS = 2, 6


def measure(rounds: int) -> dict[str, float]:
    """Medians in milliseconds, and their ratio."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = DrivingT5(build_config("em_vlm4ad_small")).train()
    model.vision.requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    gold = answers(SAMPLES, TOKENS).gold
    text = {
        "input_ids": torch.randint(1000, (SAMPLES, TOKENS)),
        "attention_mask": torch.ones(SAMPLES, TOKENS, dtype=torch.long),
        "view_mask": torch.ones(SAMPLES, VIEWS, dtype=torch.bool),
        "decoder_input_ids": gold.view(SAMPLES, TOKENS).roll(1, dims=1),
    }
    size = int(model.config.image_size)
    seen = {
        "live": {"pixel_values": torch.randn(SAMPLES, VIEWS, 3, size, size)},
        "cached": {"vision_features": torch.randn(SAMPLES, VIEWS, 49, 768)},
    }

    def step(name: str) -> None:
        hidden = model.decode_hidden(**text, **seen[name])
        cross_entropy(model.lm_logits(hidden).view(-1, VOCABULARY), gold).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    times: dict[str, list[float]] = {name: [] for name in seen}
    for name in seen:
        step(name)
    for _ in range(rounds):
        for name, found in times.items():
            found.append(clock(lambda name=name: step(name)))  # type: ignore[misc]
    live, cached = (statistics.median(times[name]) * 1e3 for name in ("live", "cached"))
    return {"live_ms": live, "cached_ms": cached, "live_over_cached": live / cached}


def main() -> None:
    """Print the figures and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found = measure(arguments.rounds)
    for name, value in found.items():
        print(f"{name:20} {value:10.2f}")
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
