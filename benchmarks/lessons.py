"""What Drive-KD's lessons cost beside plain supervised training, and each part of them.

    python benchmarks/lessons.py --out benchmarks/lessons.json

Student: InternVL with 8 blocks of width 512 (8 heads, 2 groups of keys); teacher: 12 blocks of width 768; random
weights, towers frozen, six pictures of 64 tokens and 128 tokens of text: T = 512; two samples. Forward, losses,
backward and AdamW, in one process and one thread; the variants take turns, figures are medians and ratios of medians.
`kept` is what autograd keeps for the backward pass, without weights: the memory that grows with maps. `rows at once`
bounds the maps of single heads (CHUNK_BYTES): a small bound computes them again for gradients.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import InternVLConfig, InternVLForConditionalGeneration

from drivedistill.batch import Batch, RoleInputs, Signal, Tap
from drivedistill.distill.lessons import Lessons, course
from drivedistill.distill.miner import Plan
from drivedistill.distill.objective import Answers, Moment
from drivedistill.distill.teacher import LiveTeacher
from drivedistill.distill.teachers import TeachersByCapability
from drivedistill.drivekd_sections import Lesson
from drivedistill.machine import kept_bytes
from drivedistill.models import attention
from drivedistill.models.student import Student

VOCABULARY, IMAGE_TOKEN, SAMPLES, VIEWS, TEXT, ANSWER = 4_000, 3, 2, 6, 128, 48
TV: Literal["text_to_vision"] = "text_to_vision"
RECIPES: dict[str, dict[str, Lesson]] = {
    "supervised": {},
    "one layer, text to vision": {"perception": Lesson(block=TV, layers="first")},
    "one layer, full map": {"perception": Lesson(block="full", layers="first")},
    "hidden states of one layer": {"perception": Lesson(signal="hidden", layers="first")},
    "all but the last layer, full maps": {"reasoning": Lesson(block="full", layers="intermediate")},
    "three lessons (Drive-KD)": {
        "perception": Lesson(block=TV, layers="first"),
        "reasoning": Lesson(block="full", layers="intermediate"),
        "planning": Lesson(block=TV, layers="penultimate"),
    },
}


def model(layers: int, width: int) -> Any:
    """An InternVL of that size, its tower and projector frozen."""
    config = InternVLConfig(
        vision_config={
            "hidden_size": 192,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "intermediate_size": 768,
            "image_size": (224, 224),
            "patch_size": (14, 14),
        },
        text_config={
            "model_type": "qwen2",
            "vocab_size": VOCABULARY,
            "hidden_size": width,
            "intermediate_size": int(2.75 * width),
            "num_hidden_layers": layers,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
        },
        image_token_id=IMAGE_TOKEN,
        image_seq_length=64,
    )
    built = InternVLForConditionalGeneration(config)
    built.model.vision_tower.requires_grad_(False)
    built.model.multi_modal_projector.requires_grad_(False)
    return built


def batch(device: torch.device) -> Batch:
    """Two questions about six pictures, of different capabilities."""
    length = VIEWS * 64 + TEXT
    ids = torch.randint(10, VOCABULARY, (SAMPLES, length))
    ids[:, 8 : 8 + VIEWS * 64] = IMAGE_TOKEN
    targets = torch.full((SAMPLES, length), -100)
    targets[:, -ANSWER - 1 : -1] = ids[:, -ANSWER:]
    rows = (targets.flatten() != -100).nonzero()[:, 0]
    pictures = torch.randn(SAMPLES * VIEWS, 3, 224, 224)
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pictures}
    kinds = (ids == IMAGE_TOKEN).to(torch.int8)
    return Batch(
        ids=["a", "b"],
        regimes=["regular", "regular"],
        capabilities=["perception", "planning"],
        templates=["t", "t"],
        gold=targets.flatten()[rows],
        sample_of_row=rows // length,
        row_kind=torch.zeros(len(rows), dtype=torch.int8),
        inputs={"student": RoleInputs(given, targets, rows, kinds)},
    ).to(device)


class Bench:
    """A pair of models and their steps."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.data = device, batch(device)
        self.student = Student(model(8, 512)).to(device).train()
        self.student.to_teacher = nn.ModuleDict({"0": nn.Linear(512, 768)}).to(device)
        self.teacher = LiveTeacher(Student(model(12, 768).to(device), role="teacher"))
        learning = [p for p in self.student.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(learning, lr=1e-5)

    def objective(self, lessons: dict[str, Lesson]) -> Answers:
        """Supervised, or with lessons for a student of 8 and a teacher of 12 layers."""
        courses = {name: course(lesson, 8, 12, name) for name, lesson in lessons.items()}
        return Lessons("samples", VOCABULARY, courses=courses) if courses else Answers("samples", VOCABULARY)

    def signal(self, objective: Answers) -> Signal | None:
        """What the teacher shows."""
        needs = objective.asks(self.data, Moment())
        names = {need[0] for need in needs if isinstance(need, tuple)}
        asked = TeachersByCapability(self.teacher, dict.fromkeys(names, self.teacher))
        return asked.signal(self.data, needs) if needs else None

    def loss(self, objective: Answers, signal: Signal | None) -> torch.Tensor:
        """Forward and losses."""
        found = objective(self.student(self.data, objective.wants), signal, self.data, Moment(), Plan())
        return torch.stack([term.weight * term.total for term in found.terms]).sum()

    def step(self, objective: Answers, parts: dict[str, float]) -> None:
        """One step; the seconds of its parts are added up."""
        marks = [self.now()]
        signal = self.signal(objective)
        marks.append(self.now())
        loss = self.loss(objective, signal)
        marks.append(self.now())
        loss.backward()
        marks.append(self.now())
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        marks.append(self.now())
        names = ("teacher", "forward", "backward", "update")
        parts |= {name: later - earlier for name, earlier, later in zip(names, marks[:-1], marks[1:], strict=True)}

    def now(self) -> float:
        """Seconds, with nothing left to do on the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def measure(rounds: int, device: torch.device) -> dict[str, Any]:
    """By variant, medians in milliseconds, ratios to supervised training, and what autograd keeps in MB."""
    torch.manual_seed(0)
    bench = Bench(device)
    objectives = {name: bench.objective(lessons) for name, lessons in RECIPES.items()}
    bounds = {"64 MB": attention.CHUNK_BYTES, "8 MB": 8 * 2**20}
    variants = [(name, bound) for name in RECIPES for bound in bounds if bound == "64 MB" or "full maps" in name]
    times: dict[str, list[dict[str, float]]] = {}
    for turn in range(rounds + 1):
        for name, bound in variants:
            attention.CHUNK_BYTES = bounds[bound]
            parts: dict[str, float] = {}
            bench.step(objectives[name], parts)
            if turn:
                times.setdefault(f"{name}, {bound}", []).append(parts)
    found: dict[str, Any] = {}
    for name, bound in variants:
        attention.CHUNK_BYTES = bounds[bound]
        signal = bench.signal(objectives[name])
        work = {
            part: statistics.median(t[part] for t in times[f"{name}, {bound}"]) for part in times[f"{name}, {bound}"][0]
        }
        row: dict[str, Any] = {f"{part}_ms": round(1000 * seconds, 1) for part, seconds in work.items()}
        kept = kept_bytes(bench.student, keeper(bench, objectives[name], signal))
        found[f"{name}; rows at once: {bound}"] = row | {
            "step_ms": round(1000 * sum(work.values()), 1),
            "kept_mb": kept / 1e6,
        }
    plain = found["supervised; rows at once: 64 MB"]
    for row in found.values():
        row["step_ratio"] = round(row["step_ms"] / plain["step_ms"], 3)
        row["kept_ratio"] = round(row["kept_mb"] / plain["kept_mb"], 3)
        row["kept_mb"] = round(row["kept_mb"], 1)
    return found | {"taps": taps(bench, rounds)}


def keeper(bench: Bench, objective: Answers, signal: Signal | None) -> Callable[[], Any]:
    """The forward and losses of a variant, to be counted."""
    return lambda: bench.loss(objective, signal)


def taps(bench: Bench, rounds: int) -> dict[str, float]:
    """A forward with taps beside one without, with and without gradient; medians of ratios in one round."""
    wanted = {
        "text to vision, one layer": frozenset({"logits", Tap(0, block=TV)}),
        "full map, one layer": frozenset({"logits", Tap(0)}),
        "full maps, every layer": frozenset({"logits", *(Tap(layer) for layer in range(8))}),
    }
    attention.CHUNK_BYTES = 64 * 2**20
    ratios: dict[str, list[float]] = {}
    for graded in (True, False):
        for _ in range(2 * rounds):
            with torch.set_grad_enabled(graded):
                plain = clock(bench, lambda: bench.student(bench.data))
                for name, needs in wanted.items():
                    key = f"{name}, {'student' if graded else 'no gradient'}"
                    ratios.setdefault(key, []).append(clock(bench, lambda: bench.student(bench.data, needs)) / plain)  # noqa: B023
    return {name: round(statistics.median(values), 3) for name, values in ratios.items()}


def clock(bench: Bench, work: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    begun = bench.now()
    work()
    return bench.now() - begun


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(options.rounds, torch.device(options.device))
    tapped = found.pop("taps")
    print(
        f"{'variant':62} {'teacher':>8} {'forward':>8} {'backward':>8} {'step':>8} {'ratio':>6} {'kept MB':>8} {'ratio':>6}"
    )
    for name, row in found.items():
        numbers = [
            row[key]
            for key in ("teacher_ms", "forward_ms", "backward_ms", "step_ms", "step_ratio", "kept_mb", "kept_ratio")
        ]
        print(f"{name:62} " + " ".join(f"{value:8g}" for value in numbers))
    for name, ratio in tapped.items():
        print(f"forward with {name:50} {ratio:6.3f}")
    if options.out:
        facts = {"torch": torch.__version__, "device": options.device, "rounds": options.rounds}
        options.out.write_text(json.dumps({**facts, "steps": found, "taps": tapped}, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
