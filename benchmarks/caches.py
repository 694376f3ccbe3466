"""What caches save: a step of CLKD with teacher and vision from disk, beside plain supervised training and beside all live.

    python benchmarks/caches.py --out benchmarks/caches.json
    python benchmarks/caches.py --device cuda --precision bf16 --out caches_gpu.json

Student: `paper_b` (Swin [2, 2, 3, 2], frozen) with pooled views, LoRA r = 16 on q and v, four adapter experts; "full" adds
top-2 of four feed-forward experts in every second block, which learn. Teacher: EM-VLM4AD-Base with all of its ViT-B/32.
Batches of 8 questions with six views, 81 tokens in the encoder, answers of 32 tokens; random weights, pictures decoded already.
A step is what training does with a batch: reading caches, forward, losses (H2G at 50 / 50 and forward KL), backward, AdamW.
One process, one thread, everything in turn in every round; figures are medians. An epoch's ratio is the steps' ratio.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import Tensor

from drivedistill import sections as cards
from drivedistill.batch import Batch, RoleInputs, Rows, Signal
from drivedistill.distill.likeliest import likeliest, pack, token_type
from drivedistill.distill.miner import Miner, Plan
from drivedistill.distill.objective import Answers, Moment
from drivedistill.distill.row_store import RowStore
from drivedistill.distill.teacher import CachedTeacher, LiveTeacher
from drivedistill.models.driving_t5 import DrivingT5
from drivedistill.models.presets import build_config
from drivedistill.models.student import Student
from mining import PATCHES, SAMPLES, TOKENS, VIEWS, VOCABULARY, WIDTH, built, questions

KEPT = 64
QUESTIONS, FRAMES = 378_000, 4_072
"""DriveLM-nuScenes, training part: questions and the key frames that they are about."""
INDEX_BYTES = 130
"""A line of a store's index."""


def student(adapter_experts: bool, ffn_experts: bool) -> Student:
    """CLKD's student, random weights."""
    learn = [r"(fusion|adapter|modal_embedding)\."] + ([r"\.DenseReluDense\."] if ffn_experts else [])
    card = cards.Model(
        preset="paper_a",  # pools the views; tower and adapter are those of `paper_b`
        overrides={"text": {"vocab_size": VOCABULARY}, "vision": {"depths": [2, 2, 3, 2]}, "adapter": "mlp"},
        lora=cards.Lora(r=16, dropout=0.0, also_train=learn),
        adapter_experts=cards.AdapterExperts() if adapter_experts else None,
        ffn_experts=cards.FfnExperts() if ffn_experts else None,
        frozen=[r"^vision\."],
        allow_random=True,
    )
    return built(card)


def teacher() -> LiveTeacher:
    """EM-VLM4AD-Base with all of its vision tower."""
    config = build_config("em_vlm4ad_base", overrides={"vision_blocks": True, "text": {"vocab_size": VOCABULARY}})
    return LiveTeacher(Student(DrivingT5(config), role="teacher"))


@dataclass
class Batches:
    """The same eight questions with pictures, and with what caches on disk hold of them."""

    live: Batch
    stores: dict[str, RowStore]
    device: torch.device

    def read(self) -> Batch:
        """With features read from disk, as a loading process reads them; the teacher's are not wanted."""
        rows = self.stores["vision"]
        views = [rows.read(f"v{i}")[0] for i in range(SAMPLES * VIEWS)]
        features = torch.from_numpy(np.stack(views)).view(SAMPLES, VIEWS, PATCHES, WIDTH)
        return self.seen(features.to(self.device))

    def seen(self, features: Tensor) -> Batch:
        """With features that are in memory."""
        made = copy.copy(self.live)
        model = {**self.live.inputs["student"].model, "vision_features": features}
        del model["pixel_values"]
        inputs = self.live.inputs["student"]
        made.inputs = {"student": RoleInputs(model, inputs.targets, inputs.rows)}
        return made


def batches(folder: Path, device: torch.device) -> Batches:
    """Random questions and pictures; features and words on disk."""
    made = questions(SAMPLES, TOKENS, VIEWS)
    inputs = made.inputs["student"].model
    del inputs["vision_features"]
    inputs["pixel_values"] = torch.randn(SAMPLES, VIEWS, 3, 224, 224)
    (folder / "vision").mkdir()
    (folder / "words").mkdir()
    vision = RowStore(folder / "vision", (PATCHES, WIDTH))
    views = np.random.default_rng(0).standard_normal((SAMPLES * VIEWS, 1, PATCHES, WIDTH), np.float32)
    vision.append({f"v{i}": view for i, view in enumerate(views)})
    words = RowStore(folder / "words", (), token_type(KEPT, VOCABULARY))
    top = likeliest(3 * torch.randn(made.num_tokens, VOCABULARY), made.gold, KEPT, 1.0)
    words.append(dict(zip(made.ids, np.split(pack(top, VOCABULARY), SAMPLES), strict=True)))
    return Batches(made.to(device), {"vision": vision, "words": words}, device)


@dataclass
class Bench:
    """What is timed."""

    data: Batches
    students: dict[str, Student]
    live: LiveTeacher
    cached: CachedTeacher
    bf16: bool

    def __post_init__(self) -> None:
        """Optimizers, which keep their own memory of what was learnt."""
        self.optimizers = {
            name: torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
            for name, model in self.students.items()
        }
        self.zeros = {
            name: [torch.zeros_like(p) for p in model.parameters() if p.requires_grad]
            for name, model in self.students.items()
        }

    def computing(self) -> AbstractContextManager[Any]:
        """The precision of forwards."""
        return torch.autocast(self.data.device.type, torch.bfloat16, enabled=self.bf16)

    def objective(self, name: str, taught: bool) -> Answers:
        """Plain supervised training, or CLKD's."""
        miner = Miner(cards.Mining(), "tokens", []) if taught else None
        mixtures = name != "dense"
        return Answers("tokens", VOCABULARY, taught=taught, miner=miner, mixtures=mixtures, fused="auto")

    def step(self, name: str, *, taught: bool, seen: str) -> None:
        """One step: of which student, with which teacher and which pictures (`live` or `disk`)."""
        objective = self.objective(name, taught)
        batch = self.data.live if seen == "live" else self.data.read()
        with self.computing():
            signal = None
            if taught:
                teacher = self.live if seen == "live" else self.cached
                signal = teacher.signal(batch, objective.needs if seen == "live" else frozenset({"logits"}))
            rows = self.students[name](batch, objective.wants)
        self.learn(objective, rows, signal, batch)
        self.optimizers[name].step()
        self.optimizers[name].zero_grad(set_to_none=True)

    def learn(self, objective: Answers, rows: Rows, signal: Signal | None, batch: Batch) -> None:
        """Losses and backward."""
        outcome = objective(rows, signal, batch, Moment(alpha=1.0), Plan())
        shares = {"anchor": 1 / batch.num_tokens, "follower": 1 / batch.num_tokens, "aux": 1.0}
        torch.stack([term.weight * term.total * shares[term.role] for term in outcome.terms]).sum().backward()

    def update(self, name: str) -> None:
        """The optimizer alone; gradients of zero cost what others do."""
        learning = (p for p in self.students[name].parameters() if p.requires_grad)
        for parameter, zeros in zip(learning, self.zeros[name], strict=True):
            parameter.grad = zeros
        self.optimizers[name].step()
        self.optimizers[name].zero_grad(set_to_none=True)

    def trunk(self, name: str) -> None:
        """Forward and backward of everything before the head, vision left out."""
        with self.computing():
            rows = self.students[name](self.data.read(), self.objective(name, False).wants)
        assert rows.hidden is not None
        rows.hidden.sum().backward()
        self.optimizers[name].zero_grad(set_to_none=True)

    def losses(self, hidden: Rows, *, taught: bool) -> None:
        """Losses and their gradient down to the head's input."""
        assert hidden.hidden is not None
        leaf = hidden.hidden.detach().requires_grad_()
        signal = self.cached.signal(self.data.live) if taught else None
        rows = Rows(hidden=leaf, head=hidden.head)
        self.learn(self.objective("dense", taught), rows, signal, self.data.live)

    @torch.no_grad()
    def ask(self, model: Student, batch: Batch, needs: frozenset[str]) -> None:
        """A forward without gradient."""
        with self.computing():
            model(batch, needs)

    def work(self) -> dict[str, Callable[[], None]]:
        """All steps, then all parts, by name."""
        with torch.no_grad(), self.computing():
            hidden = self.students["dense"](self.data.seen(self._features()), frozenset({"logits", "hidden"}))
        features = self.data.seen(self._features())
        adapter, vision = self.students["adapter"], frozenset({"vision"})
        found: dict[str, Callable[[], None]] = {}
        for name in self.students:
            found[f"step: supervised, {name}, cached"] = lambda name=name: self.step(name, taught=False, seen="disk")  # type: ignore[misc]
            found[f"step: CLKD, {name}, cached"] = lambda name=name: self.step(name, taught=True, seen="disk")  # type: ignore[misc]
            found[f"part: trunk, {name}"] = lambda name=name: self.trunk(name)  # type: ignore[misc]
            found[f"part: optimizer, {name}"] = lambda name=name: self.update(name)  # type: ignore[misc]
        return found | {
            "step: supervised, adapter, live": lambda: self.step("adapter", taught=False, seen="live"),
            "step: CLKD, adapter, live": lambda: self.step("adapter", taught=True, seen="live"),
            "part: student vision": lambda: self.ask(adapter, self.data.live, vision),
            "part: teacher vision": lambda: self.ask(self.live.model, self.data.live, vision),
            "part: teacher text": lambda: self.ask(self.live.model, features, frozenset({"logits"})),
            "part: losses, supervised": lambda: self.losses(hidden, taught=False),
            "part: losses, CLKD": lambda: self.losses(hidden, taught=True),
            "part: reading features": lambda: self.data.read() and None,
            "part: reading words": lambda: self.cached.signal(self.data.live) and None,
        }

    def _features(self) -> Tensor:
        return torch.zeros(SAMPLES, VIEWS, PATCHES, WIDTH, device=self.data.device)


def clock(work: Callable[[], None], device: torch.device) -> float:
    """Seconds that a call takes, until the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def ratios(ms: dict[str, float]) -> dict[str, float]:
    """What is promised, and what explains it."""
    cached, live = ms["step: CLKD, adapter, cached"], ms["step: CLKD, adapter, live"]
    supervised = {name: ms[f"step: supervised, {name}, cached"] for name in ("dense", "adapter", "full")}
    full = ms["step: CLKD, full, cached"]
    return {
        "CLKD over supervised, adapter experts": cached / supervised["adapter"],
        "CLKD over supervised, full": full / supervised["full"],
        "CLKD with adapter experts over supervised without": cached / supervised["dense"],
        "CLKD full over supervised without experts": full / supervised["dense"],
        "CLKD epoch, live over cached": live / cached,
        "supervised epoch, live over cached": ms["step: supervised, adapter, live"] / supervised["adapter"],
    }


GOALS = {"CLKD over supervised, adapter experts": "<= 1.02", "CLKD epoch, live over cached": ">= 12"}


def extrapolate(ms: dict[str, float], questions: int, frames: int, tokens: float) -> dict[str, float]:
    """Hours and gigabytes for a data set, from the medians of a batch; on the machine that measured them.

    Args:
        ms: Milliseconds for 8 questions.
        questions: All questions.
        frames: The six-view frames that they share.
        tokens: Of an answer, in the mean.
    """
    hours = {name: value / SAMPLES / 3.6e6 for name, value in ms.items()}
    view = PATCHES * WIDTH
    return {
        "features, GB (float32)": frames * VIEWS * 4 * view / 1e9,
        "features, GB (float16)": frames * VIEWS * 2 * view / 1e9,
        "words, GB": questions * (tokens * token_type(KEPT, VOCABULARY).itemsize + INDEX_BYTES) / 1e9,
        "building features, student and teacher, h": frames
        * (hours["part: student vision"] + hours["part: teacher vision"]),
        "building words, h": questions * hours["part: teacher text"],
        "epoch, all live, h": questions * hours["step: CLKD, adapter, live"],
        "epoch, cached, h": questions * hours["step: CLKD, adapter, cached"],
    }


def measure(rounds: int, device: torch.device, bf16: bool, tokens: float) -> dict[str, Any]:
    """Medians in milliseconds, their ratios, and what they mean for large data sets."""
    torch.manual_seed(0)
    if device.type == "cpu":
        torch.set_num_threads(1)
    students = {"dense": student(False, False), "adapter": student(True, False), "full": student(True, True)}
    with tempfile.TemporaryDirectory() as folder:
        data = batches(Path(folder), device)
        cached = CachedTeacher(data.stores["words"], {name: name for name in data.live.ids}, 1.0)
        live = teacher()
        for model in (*students.values(), live.model):
            model.to(device)
        work = Bench(data, students, live, cached, bf16).work()
        times: dict[str, list[float]] = {name: [] for name in work}
        for call in work.values():
            call()
        for _ in range(rounds):
            for name, call in work.items():
                times[name].append(clock(call, device))
    ms = {name: statistics.median(values) * 1e3 for name, values in times.items()}
    sizes = {"DriveLM": (QUESTIONS, FRAMES), "a million frames": (1_000_000, 1_000_000)}
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu, one thread"
    return {
        "device": where,
        "precision": "bf16" if bf16 else "float32",
        "rounds": rounds,
        "milliseconds": ms,
        "ratios": ratios(ms),
        "extrapolation": {name: extrapolate(ms, *size, tokens) for name, size in sizes.items()},
    }


def main() -> None:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["float32", "bf16"], default="float32")
    parser.add_argument("--tokens", type=float, default=TOKENS, help="tokens of an answer, for the extrapolation")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    found = measure(chosen.rounds, torch.device(chosen.device), chosen.precision == "bf16", chosen.tokens)
    for name, value in found["milliseconds"].items():
        print(f"{name:<52}{value:>10.2f} ms")
    for name, value in found["ratios"].items():
        print(f"{name:<52}{value:>10.3f}   {GOALS.get(name, '')}")
    for size, values in found["extrapolation"].items():
        for name, value in values.items():
            print(f"{size + ': ' + name:<60}{value:>10.2f}")
    if chosen.out:
        chosen.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
