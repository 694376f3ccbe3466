"""What H2G's selection costs beside the step that it serves.

    python benchmarks/mining.py --out benchmarks/mining.json

The step is the quickest that CLKD has: student `paper_a` (LoRA r = 64, four adapter experts), vision features from a cache,
the teacher's logits in memory, a batch of 8 questions of 32 tokens with answers of 32 tokens; forward, losses, backward and
AdamW. One process, one thread; step and selection alternate, figures are medians. The Python loop is the selection
as one would write it first; 64x128 is a large batch of long answers.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from drivedistill import sections as cards
from drivedistill.batch import Batch, RoleInputs, Signal
from drivedistill.build import build_student
from drivedistill.data.images import PictureCache
from drivedistill.distill.losses import cross_entropy
from drivedistill.distill.miner import Miner, Plan
from drivedistill.distill.objective import Answers, Moment
from drivedistill.models.student import Student
from drivedistill.records import Sample

VOCABULARY, SAMPLES, TOKENS = 32_128, 8, 32
VIEWS, PATCHES, WIDTH, QUESTION = 6, 49, 768, 32


def student() -> Student:
    """CLKD's student of the printed size, random weights."""
    card = cards.Model(
        preset="paper_a",
        overrides={"text": {"vocab_size": VOCABULARY}},
        lora=cards.Lora(r=64),
        adapter_experts=cards.AdapterExperts(),
        frozen=[r"^vision\."],
        allow_random=True,
    )
    return built(card)


def built(card: cards.Model) -> Student:
    """The student of a card, with random weights, ready to learn."""
    source = cards.Source(name="none", format="jsonl", root=Path(), regime="regular")
    words = Sample.model_validate(
        {"id": "x", "dataset": "none", "scene": "x", "frame": "x", "split": "train", "regime": "regular"}
        | {"task": "planning", "question": "What now?", "answer": "Stop.", "images": {}}
    )
    return Student(build_student(card, cards.Data(sources=[source]), PictureCache(1), [words]).model).train()


def answers(samples: int, tokens: int) -> Batch:
    """Answers of so many tokens, without inputs: all that a selection looks at."""
    rows = samples * tokens
    return Batch(
        ids=[f"s{i}" for i in range(samples)],
        regimes=["regular"] * (samples - 1) + ["corner"],
        capabilities=["perception"] * samples,
        templates=["t"] * samples,
        gold=torch.randint(VOCABULARY, (rows,)),
        sample_of_row=torch.arange(samples).repeat_interleave(tokens),
        row_kind=(torch.arange(rows) % 3).to(torch.int8),
        inputs={},
    )


def questions(samples: int, tokens: int, views: int) -> Batch:
    """Questions of 32 tokens with cached features of so many views, and their answers."""
    made = answers(samples, tokens)
    targets = made.gold.view(samples, tokens)
    model = {
        "input_ids": torch.randint(1000, (samples, QUESTION)),
        "attention_mask": torch.ones(samples, QUESTION, dtype=torch.long),
        "vision_features": torch.randn(samples, views, PATCHES, WIDTH),
        "view_mask": torch.ones(samples, views, dtype=torch.bool),
        "decoder_input_ids": targets.roll(1, dims=1),
        "decoder_attention_mask": torch.ones(samples, tokens, dtype=torch.long),
    }
    made.inputs["student"] = RoleInputs(model, targets, torch.arange(made.num_tokens))
    return made


def loop_selection(losses: Tensor, batch: Batch, m: float, n: float) -> Tensor:
    """The same rows by a Python loop."""
    parts = losses.split(batch.tokens_per_sample().tolist())
    means = [float(part.mean()) for part in parts]
    hard = sorted(range(len(parts)), key=lambda i: -means[i])[: math.ceil(m * len(parts) / 100)]
    chosen = []
    for place, part in enumerate(parts):
        order = sorted(range(len(part)), key=lambda t: -float(part[t]))[: math.ceil(n * len(part) / 100)]
        chosen.append([place in hard and t in order for t in range(len(part))])
    return torch.tensor([flag for row in chosen for flag in row])


def clock(work: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure(rounds: int) -> dict[str, float]:
    """Medians in milliseconds, and their ratios."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model, data = student(), questions(SAMPLES, TOKENS, VIEWS)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    miner = Miner(cards.Mining(), "tokens", [])
    objective = Answers("tokens", VOCABULARY, taught=True, miner=miner, mixtures=True)
    signal = Signal(torch.randn(data.num_tokens, VOCABULARY))
    losses = cross_entropy(torch.randn(data.num_tokens, VOCABULARY), data.gold)

    def step() -> None:
        outcome = objective(model(data, objective.wants), signal, data, Moment(alpha=1.0), Plan())
        torch.stack([term.weight * term.total for term in outcome.terms]).sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    large, many = answers(64, 128), torch.rand(64 * 128)
    assert torch.equal(miner.select(losses, data, (50, 50), Plan()).rows, loop_selection(losses, data, 50, 50))
    work = {
        "step": step,
        "selection": lambda: miner.select(losses, data, (50, 50), Plan()),
        "python_loop": lambda: loop_selection(losses, data, 50, 50),
        "selection_64x128": lambda: miner.select(many, large, (50, 50), Plan()),
        "python_loop_64x128": lambda: loop_selection(many, large, 50, 50),
    }
    for call in work.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, call in work.items():
            times[name].append(clock(call))
    found = {f"{name}_ms": statistics.median(values) * 1e3 for name, values in times.items()}
    found["selection_over_step"] = found["selection_ms"] / found["step_ms"]
    found["python_loop_over_selection_64x128"] = found["python_loop_64x128_ms"] / found["selection_64x128_ms"]
    return found


def main() -> None:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found = measure(arguments.rounds)
    for name, value in found.items():
        print(f"{name:34} {value:10.4f}")
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
