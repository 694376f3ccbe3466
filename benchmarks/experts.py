"""What mixtures of experts cost beside the dense layers that they replace.

    python benchmarks/experts.py --out benchmarks/experts.json

One process, one thread pinned to one core. Candidates are run in turn, in a new order every round, and every figure is the
median of the rounds' ratios of processor time, so that other work on the machine hurts neither side. T5-Small's feed-forward
layer (512 -> 2048, ReLU, float32) with 4 experts, and the visual adapter (768 -> 512) with 4 experts on 49 tokens.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import statistics
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn
from torch.nn.functional import relu
from transformers import T5Config
from transformers.models.t5.modeling_t5 import T5DenseActDense

from drivedistill.models.adapter import MixtureAdapter
from drivedistill.models.moe import FeedForwardExperts, experts_like
from drivedistill.sections import AdapterExperts, FfnExperts

WIDTH, HIDDEN, EXPERTS = 512, 2048, 4


class LoopOverStack(nn.Module):
    """The obvious way: for every expert its tokens, its slice of the stack, and a scatter."""

    def __init__(self, experts: FeedForwardExperts) -> None:
        super().__init__()
        self.experts = experts

    def forward(self, tokens: Tensor) -> Tensor:
        decision = self.experts.router(tokens)
        output = torch.zeros_like(tokens)
        for e in range(self.experts.num_experts):
            (rows,) = decision.selected[:, e].nonzero(as_tuple=True)
            hidden = relu(tokens[rows] @ self.experts.expert_up[e].T) @ self.experts.expert_down[e]
            output = output.index_add(0, rows, hidden * decision.weights[rows, e, None])
        return output


def feed_forward() -> dict[str, nn.Module]:
    """The dense layer, and experts of its size with top-1 and top-2 routing; every one with weights of its own."""
    dense = T5DenseActDense(T5Config(d_model=WIDTH, d_ff=HIDDEN, dropout_rate=0.0, feed_forward_proj="relu"))
    layers: dict[str, nn.Module] = {"dense": dense}
    for k in (1, 2):
        experts = experts_like(dense, FfnExperts(experts=EXPERTS, k=k))
        assert isinstance(experts, FeedForwardExperts)
        nn.init.normal_(experts.expert_up, std=WIDTH**-0.5)
        nn.init.normal_(experts.expert_down, std=HIDDEN**-0.5)
        loop = LoopOverStack(copy.deepcopy(experts))
        tokens = torch.randn(64, WIDTH)
        torch.testing.assert_close(loop(tokens), experts(tokens), atol=1e-4, rtol=1e-4)
        layers |= {f"top-{k}": experts, f"top-{k}, loop over the stack": loop}
    return layers


def adapters() -> dict[str, nn.Module]:
    """One adapter and four, linear and MLP."""
    linear = [nn.Linear(768, WIDTH)]
    mlp = [nn.Linear(768, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH)]
    return {
        "linear": linear[0],
        "linear, 4 experts": MixtureAdapter(linear, AdapterExperts()),
        "mlp": nn.Sequential(*mlp),
        "mlp, 4 experts": MixtureAdapter(mlp, AdapterExperts()),
    }


def seconds(layer: nn.Module, tokens: Tensor, backward: bool) -> float:
    """Processor time of one forward pass, with or without the backward pass."""
    layer.zero_grad()
    tokens = tokens.detach().requires_grad_(backward)
    started = time.thread_time()
    with torch.set_grad_enabled(backward):
        output = layer(tokens)
        if backward:
            output.sum().backward()
    return time.thread_time() - started


def interleaved(layers: dict[str, nn.Module], tokens: Tensor, backward: bool, rounds: int) -> dict[str, list[float]]:
    """Times of every layer in every round; the first rounds warm up."""
    times: dict[str, list[float]] = {name: [] for name in layers}
    for _ in range(rounds + 3):
        for name, layer in random.sample(list(layers.items()), len(layers)):
            times[name].append(seconds(layer, tokens, backward))
    return {name: values[3:] for name, values in times.items()}


def ratio(times: dict[str, list[float]], over: str, under: str) -> float:
    """Median over the rounds of one layer's time over another's."""
    return statistics.median(a / b for a, b in zip(times[over], times[under], strict=True))


def measure(rounds: int) -> dict[str, Any]:
    """Ratios by name, with the median milliseconds of everything that was run."""
    ratios: dict[str, float] = {}
    milliseconds: dict[str, float] = {}
    layers = feed_forward()
    for tokens, backward, count in ((512, True, rounds), (64, True, 3 * rounds), (1, False, 60 * rounds)):
        times = interleaved(layers, torch.randn(tokens, WIDTH), backward, count)
        where = f"{tokens} tokens" if backward else "decode"
        milliseconds |= {f"ffn {name}, {where}": 1e3 * statistics.median(values) for name, values in times.items()}
        for k in (1, 2):
            ratios[f"ffn top-{k} over dense, {where}"] = ratio(times, f"top-{k}", "dense")
            ratios[f"ffn top-{k}: loop over ours, {where}"] = ratio(times, f"top-{k}, loop over the stack", f"top-{k}")
    times = interleaved(adapters(), torch.randn(49, 768), True, 10 * rounds)
    milliseconds |= {f"adapter {name}, 49 tokens": 1e3 * statistics.median(values) for name, values in times.items()}
    for kind in ("linear", "mlp"):
        ratios[f"adapter {kind}: 4 experts over 1, 49 tokens"] = ratio(times, f"{kind}, 4 experts", kind)
    return {"rounds": rounds, "torch": torch.__version__, "ratios": ratios, "milliseconds": milliseconds}


GOALS = {
    "ffn top-1 over dense, 512 tokens": "<= 1.15",
    "ffn top-1 over dense, 64 tokens": "<= 1.6",
    "ffn top-1 over dense, decode": "<= 1.25",
    "ffn top-1: loop over ours, 512 tokens": ">= 1.5",
    "adapter linear: 4 experts over 1, 49 tokens": "<= 4",
    "adapter mlp: 4 experts over 1, 49 tokens": "<= 4",
}


def main() -> None:
    """Print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--out", type=Path, default=Path("experts.json"))
    chosen = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random.seed(0)
    figures = measure(chosen.rounds)
    for name, value in figures["ratios"].items():
        print(f"{name:<50}{value:>8.2f}   {GOALS.get(name, '')}")
    chosen.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
