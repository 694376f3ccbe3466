"""How the cost of a step and of an answer grows: with samples, length of answers, experts and views.

    python benchmarks/curves.py --out benchmarks/curves.json

The students of `caches.py` (published size, random weights): a supervised step (forward, losses, backward) on cached vision
features, a forward of the frozen tower for the views, and an answer by our greedy loop. One thing is changed at a time from 4
samples, answers of 32 tokens, 4 experts, 6 views. Milliseconds are medians of rounds after one that does not count, on one
thread (on a GPU between synchronisations); megabytes are what autograd keeps for backward, shared storage counted once
and weights left out. `losses.py` has the curves over rows and vocabulary.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from caches import clock
from drivedistill import sections as cards
from drivedistill.batch import Batch
from drivedistill.distill.miner import Plan
from drivedistill.distill.objective import Answers, Moment
from drivedistill.machine import kept_bytes
from drivedistill.models.decode import Limits, write
from drivedistill.models.decode_t5 import T5Step
from drivedistill.models.student import Student, bare
from mining import VOCABULARY, built, questions

BASE = {"samples": 4, "tokens": 32, "experts": 4, "views": 6}
CURVES = {
    "samples": (1, 2, 4, 8),
    "tokens": (8, 32, 128),
    "experts": (1, 2, 4, 8),
    "views": (1, 3, 6),
}


def student(experts: int, device: str) -> Student:
    """CLKD's student with all of T5 trained; with one expert, none."""
    card = cards.Model(
        preset="paper_b",
        overrides={"text": {"vocab_size": VOCABULARY}},
        adapter_experts=cards.AdapterExperts(experts=experts) if experts > 1 else None,
        ffn_experts=cards.FfnExperts(experts=experts) if experts > 1 else None,
        frozen=[r"^vision\."],
        allow_random=True,
    )
    return built(card).to(device)


def learn(model: Student, batch: Batch, objective: Answers) -> None:
    """Forward, losses, backward."""
    rows = model(batch, objective.wants)
    outcome = objective(rows, None, batch, Moment(), Plan())
    torch.stack([term.weight * term.total for term in outcome.terms]).sum().backward()
    model.zero_grad(set_to_none=True)


def point(case: dict[str, int], rounds: int, device: str) -> dict[str, float]:
    """Figures of one setting."""
    torch.manual_seed(0)
    model = student(case["experts"], device)
    objective = Answers("tokens", VOCABULARY, mixtures=case["experts"] > 1)
    batch = questions(case["samples"], case["tokens"], case["views"]).to(device)
    one = questions(1, 1, case["views"]).to(device).inputs["student"].model
    asked = {name: value for name, value in one.items() if not name.startswith("decoder")}
    reader = bare(model.model)
    pictures = torch.randn(1, case["views"], 3, 224, 224, device=device)
    limits = Limits(case["tokens"], case["tokens"])

    def answer() -> None:
        reader.eval()
        write(T5Step(reader, [1]), asked, limits, ends=[1], pad=0)
        reader.train()

    def look() -> None:
        with torch.inference_mode():
            reader.vision(pictures)

    works: dict[str, Callable[[], None]] = {
        "step_ms": partial(learn, model, batch, objective),
        "answer_ms": answer,
        "vision_ms": look,
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 1):
        for name, work in works.items():
            took = clock(work, torch.device(device))
            times[name] += [took] if turn else []
    found = {name: 1e3 * statistics.median(values) for name, values in times.items()}
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    kept = kept_bytes(model, lambda: objective(model(batch, objective.wants), None, batch, Moment(), Plan()))
    return found | {"kept_mb": kept / 1e6, "parameters_m": parameters}


def measure(rounds: int, device: str) -> dict[str, Any]:
    """All curves."""
    found: dict[str, Any] = {}
    for name, values in CURVES.items():
        found[name] = []
        for value in values:
            found[name].append({name: value, **point({**BASE, name: value}, rounds, device)})
            print(f"{name} {value}: {found[name][-1]['step_ms']:.0f} ms a step", flush=True)
            gc.collect()  # models hold themselves; a dozen of them would fill the memory
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = measure(options.rounds, options.device)
    for curve, points in result.items():
        print(f"\n| {curve} | step, ms | kept for backward, MB | answer, ms | vision, ms | parameters, M |")
        print("|---|---|---|---|---|---|")
        for line in points:
            cells = [line["step_ms"], line["kept_mb"], line["answer_ms"], line["vision_ms"], line["parameters_m"]]
            print(f"| {line[curve]} | " + " | ".join(f"{cell:.0f}" for cell in cells) + " |")
    if options.out:
        options.out.write_text(json.dumps({"device": options.device, **result}, indent=1) + "\n")
