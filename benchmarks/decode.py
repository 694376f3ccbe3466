"""How quickly answers are written: our loop, eager and compiled, beside `generate`; published sizes side by side.

    python benchmarks/decode.py --out benchmarks/decode.json

Random weights (time does not depend on them), one question of 32 tokens about six pictures that are resident, exactly 32 greedy
tokens. One process, one thread; variants take turns, figures are medians of rounds in processor seconds (on a GPU: wall
seconds, synchronised). What stands before the first token is measured alone and subtracted where a line says "loop".

The roof: a decode step must read the decoder's weights and head once, so its bytes over the time, over the rate at which
this machine reads memory, is how much of it is used; a tower must multiply, so its operations over the time, over
the rate of a large matrix product, likewise.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import GenerationConfig

from drivedistill.evaluate.writing import ENGINES
from drivedistill.models.decode import Limits, write
from drivedistill.models.decode_t5 import T5Step
from drivedistill.models.driving_t5 import DrivingT5
from drivedistill.models.presets import build_config
from losses import seconds

VIEWS, QUESTION, TOKENS = 6, 32, 32
END = [1]
STUDENT = "paper_b"
PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "paper_a": ("paper_a", {}),
    "paper_b": ("paper_b", {}),
    "EM-VLM4AD-Base, whole ViT-B/32": ("em_vlm4ad_base", {"vision_blocks": True}),
    "EM-VLM4AD-Base, as its public code runs it": ("em_vlm4ad_base", {}),
}
Work = Callable[[], Any]


def medians(works: dict[str, Work], rounds: int, device: str) -> dict[str, float]:
    """Milliseconds of every work; they take turns, the first round does not count."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 1):
        for name, work in works.items():
            took = seconds(work, device)
            times[name] += [took] if turn else []
    return {name: 1e3 * statistics.median(found) for name, found in times.items()}


def inputs(model: DrivingT5, device: str) -> dict[str, Tensor]:
    """A question about six pictures."""
    size = model.config.image_size or 224
    made = {
        "input_ids": torch.randint(2, 500, (1, QUESTION)),
        "attention_mask": torch.ones(1, QUESTION, dtype=torch.long),
        "pixel_values": torch.randn(1, VIEWS, 3, size, size).to(model.dtype),
        "view_mask": torch.ones(1, VIEWS, dtype=torch.bool),
    }
    return {name: value.to(device) for name, value in made.items()}


def build(preset: str, changes: dict[str, Any], device: str) -> DrivingT5:
    """A published size with random weights."""
    torch.manual_seed(0)
    return DrivingT5(build_config(preset, overrides=changes)).eval().to(device)


def generating(model: DrivingT5, asked: dict[str, Tensor]) -> Work:
    """`generate`, exactly so many tokens."""
    model.generation_config = GenerationConfig(
        min_new_tokens=TOKENS, max_new_tokens=TOKENS, do_sample=False, eos_token_id=END, pad_token_id=0,
        decoder_start_token_id=0,
    )  # fmt: skip
    return lambda: model.generate(**asked)


def looping(step: Any, asked: dict[str, Tensor]) -> Work:
    """Our loop, likewise."""
    return lambda: write(step, asked, Limits(TOKENS, TOKENS), ends=END, pad=0)


def engines(rounds: int, device: str) -> dict[str, Any]:
    """One student: milliseconds of whole answers and of what comes before the first token."""
    works: dict[str, Work] = {}
    models = {name: build(STUDENT, {}, device) for name in ("generate", "eager", "compiled", "compiled bf16")}
    models["compiled bf16"] = models["compiled bf16"].to(torch.bfloat16)
    if device != "cpu":
        models |= {"graph": build(STUDENT, {}, device), "graph bf16": build(STUDENT, {}, device).to(torch.bfloat16)}
    for name, model in models.items():
        asked = inputs(model, device)
        if name == "generate":
            works[name], works[f"{name}: reading"] = generating(model, asked), partial(model.encode, **asked)
        else:
            step = ENGINES[name.split()[0]](T5Step(model, END))
            works[name], works[f"{name}: reading"] = looping(step, asked), partial(step.begin, asked, TOKENS)
        if name in ("eager", "compiled", "compiled bf16"):
            works[f"{name}: vision"] = partial(model.vision.forward, asked["pixel_values"])
    with torch.inference_mode():
        found = medians(works, rounds, device)
    loops = {name: found[name] - found[f"{name}: reading"] for name in models}
    return {"ms": found, "loop_ms": loops, **_roof(models["compiled"], found["compiled: vision"], loops, device)}


def _roof(model: DrivingT5, vision_ms: float, loops: dict[str, float], device: str) -> dict[str, Any]:
    """How much of the machine a compiled float32 step and tower use."""
    square, long = torch.randn(4096, 4096, device=device), torch.ones(2**27, device=device)
    product = min(seconds(lambda: square @ square, device) for _ in range(5))
    reading = min(seconds(long.sum, device) for _ in range(5))
    gflops, gbs = 2 * 4096**3 / product / 1e9, long.nbytes / reading / 1e9
    language = model.language_model
    parts = [language.decoder.block, language.decoder.final_layer_norm, language.lm_head]
    size = sum(p.nbytes for part in parts for p in part.parameters())
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        build(STUDENT, {}, device).vision(torch.randn(1, VIEWS, 3, 224, 224, device=device))
    work = counter.get_total_flops() / 1e9
    return {
        "machine": {"gflop_per_s": gflops, "gb_per_s": gbs},
        "step_mb": size / 1e6,
        "share_of_bandwidth": TOKENS * size / 1e9 / (loops["compiled"] / 1e3) / gbs,
        "vision_gflop": work,
        "share_of_peak": work / (vision_ms / 1e3) / gflops,
    }


def published(rounds: int, device: str) -> dict[str, Any]:
    """Answers per second of published sizes, by `generate` and by our loop."""
    works: dict[str, Work] = {}
    for name, (preset, changes) in PUBLISHED.items():
        model = build(preset, changes, device)
        asked = inputs(model, device)
        works[f"{name} | generate"] = generating(model, asked)
        works[f"{name} | eager"] = looping(T5Step(model, END), asked)
    with torch.inference_mode():
        return {"ms": medians(works, rounds, device)}


def table(found: dict[str, Any]) -> list[tuple[str, str, float]]:
    """What is compared: line, goal, ratio."""
    ms, loops, sizes = found["engines"]["ms"], found["engines"]["loop_ms"], found["published"]["ms"]
    lines = [
        ("loop of generate / our eager loop", ">= 1.2", loops["generate"] / loops["eager"]),
        ("generate / our eager loop, whole answer", "", ms["generate"] / ms["eager"]),
        ("generate / compiled, whole answer", "", ms["generate"] / ms["compiled"]),
        ("generate / compiled bf16, whole answer", ">= 2.2", ms["generate"] / ms["compiled bf16"]),
        ("decode step, compiled float32: share of memory bandwidth", ">= 0.5", found["engines"]["share_of_bandwidth"]),
        ("vision, compiled float32: share of matrix peak", ">= 0.7", found["engines"]["share_of_peak"]),
    ]
    whole, patches = (name for name in PUBLISHED if name.startswith("EM-VLM4AD"))
    for student in ("paper_a", "paper_b"):
        for teacher, goal in ((whole, ">= 2.0"), (patches, "")):
            for engine in ("generate", "eager"):
                ratio = sizes[f"{teacher} | {engine}"] / sizes[f"{student} | {engine}"]
                lines.append((f"{teacher} / {student}, {engine}", goal, ratio))
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = {
        "device": options.device,
        "engines": engines(options.rounds, options.device),
        "published": published(options.rounds, options.device),
    }
    result["table"] = [{"what": what, "goal": goal, "ratio": ratio} for what, goal, ratio in table(result)]
    for line in result["table"]:
        print(f"| {line['what']} | {line['goal']} | {line['ratio']:.2f} |")
    print(json.dumps({name: round(value) for name, value in result["engines"]["ms"].items()}, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
