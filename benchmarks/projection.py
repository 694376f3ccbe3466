"""What asymmetric gradient projection costs beside the backward passes that it needs.

    python benchmarks/projection.py --out benchmarks/projection.json
    python benchmarks/projection.py --device cuda --out benchmarks/projection_gpu.json

A LLaMA decoder with random weights learns 4 x 128 tokens (`small`: a million parameters, `large`: 81 million) with one to
three followers beside the cross-entropy: mean squares of key projections in the first, a middle and the last but one layer,
which is how deep the gradients of Drive-KD's attention losses reach. A window is one micro-batch: forward, 1 + C backward
passes, Gram matrix, coefficients, total, AdamW. The projection's share is that of Gram matrix, coefficients and total in the
whole step; every part is timed inside the same steps, figures are medians over rounds. On a processor one thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from drivedistill.distill.objective import Term
from drivedistill.recipe import Recipe
from drivedistill.task_gradients import TaskGradients

SIZES: dict[str, dict[str, int]] = {
    "small": {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "vocab_size": 1_024},
    "large": {"hidden_size": 768, "intermediate_size": 2_048, "num_hidden_layers": 8, "vocab_size": 16_000},
}
FOLLOWERS = ("perception", "reasoning", "planning")


@dataclass
class Probe:
    """A model, a batch for it, and what its chosen layers said last."""

    model: LlamaForCausalLM
    tokens: Tensor
    keys: dict[str, Tensor]

    def terms(self, followers: tuple[str, ...]) -> list[Term]:
        """One forward; the anchor's term and the followers'."""
        logits = self.model(input_ids=self.tokens).logits[:, :-1].flatten(0, 1).float()
        loss = nn.functional.cross_entropy(logits, self.tokens[:, 1:].flatten())
        none = torch.zeros(2, dtype=torch.float64)
        lessons = [Term(name, self.keys[name].float().square().mean(), 1.0, "follower", none) for name in followers]
        return [Term("ce", loss, 1.0, "anchor", none), *lessons]


def probe(size: str, batch: int, length: int, device: torch.device) -> Probe:
    """A decoder of a size with random weights, whose key projections are overheard."""
    torch.manual_seed(0)
    heads = {"num_attention_heads": 8, "num_key_value_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(**SIZES[size], **heads)).to(device).train()
    layers = model.model.layers
    keys: dict[str, Tensor] = {}

    def overhear(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda module, inputs, output: keys.__setitem__(name, output)

    for name, depth in zip(FOLLOWERS, (0, len(layers) // 2, len(layers) - 2), strict=True):
        layers[depth].self_attn.k_proj.register_forward_hook(overhear(name))
    return Probe(model, torch.randint(SIZES[size]["vocab_size"], (batch, length), device=device), keys)


def card() -> Recipe:
    """A recipe that projects windows; nothing else of it is read here."""
    source = {"name": "none", "format": "jsonl", "root": ".", "regime": "regular"}
    section = {"projection": {"kind": "agp", "per": "window"}}
    tree = {
        "name": "x",
        "data": {"sources": [source]},
        "model": {"preset": "tiny"},
        "teacher": {"preset": "tiny"},
        "distill": {"drivekd": section},
    }
    return Recipe.model_validate(tree)


def now(device: torch.device) -> float:
    """Seconds, after everything that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def measure(size: str, number: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Medians of a step's parts in milliseconds."""
    device = torch.device(arguments.device)
    accelerator = Accelerator(cpu=device.type == "cpu")
    setup = probe(size, arguments.batch, arguments.length, device)
    tasks = TaskGradients(card(), FOLLOWERS[:number], setup.model, accelerator)
    optimizer = torch.optim.AdamW(setup.model.parameters(), lr=1e-5)
    parts: dict[str, list[float]] = {"forward": [], "backward": [], "projection": [], "update": []}
    for index in range(arguments.rounds + 2):
        times = [now(device)]
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            terms = setup.terms(FOLLOWERS[:number])
        times.append(now(device))
        tasks.begin(index)
        tasks.backward(terms, {"anchor": 1.0, "follower": 1.0, "aux": 1.0}, arguments.batch)
        times.append(now(device))
        tasks.finish()
        times.append(now(device))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        times.append(now(device))
        if index >= 2:  # the first ones warm up
            for name, start, end in zip(parts, times, times[1:], strict=False):
                parts[name].append((end - start) * 1e3)
    found = {f"{name}_ms": statistics.median(values) for name, values in parts.items()}
    steps = [sum(values) for values in zip(*parts.values(), strict=True)]
    found["step_ms"] = statistics.median(steps)
    found["projection_share"] = statistics.median(
        own / step for own, step in zip(parts["projection"], steps, strict=True)
    )
    found["params_m"] = sum(p.numel() for p in setup.model.parameters()) / 1e6
    return found


def main() -> None:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    print(
        f"{'size':6} {'followers':>9} {'forward':>9} {'backward':>9} {'project':>9} {'update':>9} {'step':>9} {'share':>7}"
    )
    for size in arguments.sizes:
        for number in (1, 2, 3):
            row = found[f"{size}/{number}"] = measure(size, number, arguments)
            parts = " ".join(
                f"{row[f'{name}_ms']:9.2f}" for name in ("forward", "backward", "projection", "update", "step")
            )
            print(f"{size:6} {number:9} {parts} {row['projection_share']:7.2%}", flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
