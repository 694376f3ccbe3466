"""How long an answer takes, from the quickstart's students to the published sizes, and how much of that the machine could do.

    python benchmarks/sizes.py --out benchmarks/sizes.json

Random weights: time does not depend on them. One question about six pictures that are in memory already, greedy, exactly so
many tokens (the demo's ordinary answers have 5, its long ones 60; 32 is a sentence). Models take turns; p50 and
p99 over rounds (with fewer than a hundred, the slowest).
The bound is arithmetic: multiplications of tower and encoder at the measured peak of a matrix product, plus the bytes of the
decoder and its head once per token at the measured rate of reading memory (a small model stays in the processor's cache, which
is quicker still). What lies above the bound is overhead: small layers, Python, and Hugging Face's `generate`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from drivedistill.models.driving_t5 import DrivingT5
from drivedistill.models.presets import build_config

HALF = {"num_layers": 2, "num_decoder_layers": 2}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "demo teacher": ("demo", {}),
    "half of its T5": ("demo", {"text": HALF}),
    "and half of its tower": ("demo", {"text": HALF, "vision": {"depths": [1, 1, 1]}}),
    "paper_b": ("paper_b", {}),
    "em_vlm4ad_small": ("em_vlm4ad_small", {}),
    "em_vlm4ad_base": ("em_vlm4ad_base", {}),
}
VIEWS, QUESTION, TOKENS = 6, 24, (5, 32, 60)
LIMIT_MS = 80


def inputs(model: DrivingT5) -> dict[str, torch.Tensor]:
    """A question about six pictures."""
    size = model.config.image_size or 224
    return {
        "input_ids": torch.randint(2, 500, (1, QUESTION)),
        "attention_mask": torch.ones(1, QUESTION, dtype=torch.long),
        "pixel_values": torch.randn(1, VIEWS, 3, size, size),
        "view_mask": torch.ones(1, VIEWS, dtype=torch.bool),
    }


def once_ms(work: Callable[[], Any]) -> float:
    """Milliseconds of one call."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e3


def machine() -> dict[str, float]:
    """GFLOP/s of a matrix product and GB/s of reading memory, each the best of ten."""
    square, long = torch.randn(2048, 2048), torch.ones(2**26)
    product = min(once_ms(lambda: square @ square) for _ in range(10))
    reading = min(once_ms(long.sum) for _ in range(10))
    return {"gflop_per_s": 2 * 2048**3 / product / 1e6, "gb_per_s": long.nbytes / reading / 1e6}


def bound_ms(model: DrivingT5, asked: dict[str, torch.Tensor], tokens: int, peak: dict[str, float]) -> dict[str, float]:
    """What the arithmetic alone takes: before the first word, and for all words."""
    counter = FlopCounterMode(display=False)
    with counter:
        model._run_encoder(**asked, vision_features=None, points=None)
    first = counter.get_total_flops() / peak["gflop_per_s"] / 1e6
    language = model.language_model
    parts = [language.decoder.block, language.decoder.final_layer_norm, language.lm_head]
    size = sum(p.nbytes for part in parts for p in part.parameters())
    return {"encode_gflop": counter.get_total_flops() / 1e9, "decoder_mb": size / 1e6,
            "bound_ms": first + tokens * size / peak["gb_per_s"] / 1e6}  # fmt: skip


@torch.inference_mode()
def measure(rounds: int, threads: int) -> dict[str, Any]:
    """Times of all models and lengths, beside their bounds."""
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    peak = machine()
    models = {name: DrivingT5(build_config(preset, overrides=more)).eval() for name, (preset, more) in MODELS.items()}
    asked = {name: inputs(model) for name, model in models.items()}
    times: dict[tuple[str, int], list[float]] = {(name, tokens): [] for name in models for tokens in TOKENS}
    for turn in range(rounds + 1):
        for (name, tokens), found in times.items():
            fixed = {"min_new_tokens": tokens, "max_new_tokens": tokens, "do_sample": False}
            took = once_ms(lambda name=name, fixed=fixed: models[name].generate(**asked[name], **fixed))  # type: ignore[misc]
            found += [took] if turn else []
    lines = []
    for (name, tokens), found in times.items():
        millions = sum(p.numel() for p in models[name].parameters()) / 1e6
        p50, p99 = statistics.median(found), sorted(found)[min(len(found) - 1, int(0.99 * len(found)))]
        bound = bound_ms(models[name], asked[name], tokens, peak)
        lines.append({"model": name, "millions": millions, "tokens": tokens, "p50_ms": p50, "p99_ms": p99, **bound})
    return {"threads": threads, "rounds": rounds, "machine": peak, "lines": lines}


def show(found: dict[str, Any]) -> None:
    """The table."""
    print(
        "{gflop_per_s:.0f} GFLOP/s, {gb_per_s:.1f} GB/s".format(**found["machine"]), f"on {found['threads']} threads\n"
    )
    print(f"| model | M | tokens | p50 ms | p99 ms | p99 / {LIMIT_MS} ms | bound ms | encoding GFLOP | decoder MB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for line in found["lines"]:
        values = [line["p50_ms"], line["p99_ms"], line["p99_ms"] / LIMIT_MS, line["bound_ms"], line["encode_gflop"],
                  line["decoder_mb"]]  # fmt: skip
        cells = " | ".join(f"{value:.{1 if value < 100 else 0}f}" for value in values)
        print(f"| {line['model']} | {line['millions']:.1f} | {line['tokens']} | {cells} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result = measure(options.rounds, options.threads)
    show(result)
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
