"""Tokens per second and memory of distillation beside TRL's GKDTrainer, on the same models, texts and objective.

    pip install -e ".[peers]"
    python benchmarks/trl_peer.py --out benchmarks/trl_peer.json

Teacher and student are Qwen2 models of 2 layers, width 256 and 32,000 tokens, random weights; batches of 4 texts of 128
tokens, of which the last 64 are learnt; forward KL at temperature 1 from the teacher alone (GKDTrainer with lmbda 0, beta 0:
it learns from given texts and generates nothing); AdamW, gradient norm 1. Ours: `row_losses` on the learnt rows, the teacher
live or its 64 likeliest tokens and the tail kept from an earlier pass. Beside it a plain loop with the logits of all positions.

Every round runs 12 steps of every way, the first two warm up; times are medians over steps, then over rounds, of processor time
of one thread (on a GPU wall-clock time between synchronisations). Peaks come from a process for every way: the most resident
memory after the warm-up minus what is resident between two steps: weights, AdamW's moments and the libraries' code (on a GPU:
allocated). Gradients, 42 MB of them, come and go with a step and are counted. Tokens are those of whole texts.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, TrainerCallback

from drivedistill.batch import Head, Signal
from drivedistill.distill.losses import forward_kl
from drivedistill.distill.row_losses import row_losses
from drivedistill.machine import machine_facts
from losses import cut_down, resident

VOCABULARY, WIDTH, BATCH, LENGTH, PROMPT, WARM_UP = 32_000, 256, 4, 128, 64, 2
WAYS = ("trl", "plain", "live", "kept")
GOALS = {
    "tokens/s, teacher live, over TRL": ">= 2.1",
    "tokens/s, top-64 kept, over TRL": ">= 3.1",
    "peak, teacher live, over TRL": "<= 0.1",
}


def model(seed: int, device: str) -> Any:
    """A Qwen2 of 2 layers."""
    torch.manual_seed(seed)
    heads = WIDTH // 64
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        intermediate_size=4 * WIDTH,
        tie_word_embeddings=True,
        max_position_embeddings=512,
    )
    return Qwen2ForCausalLM(config).to(device)


def texts(steps: int) -> Tensor:
    """Token ids `int64[steps * 4, 128]`."""
    return torch.randint(2, VOCABULARY, (steps * BATCH, LENGTH), generator=torch.Generator().manual_seed(0))


def now(device: str) -> float:
    """Processor time; on a GPU wall-clock time once it has done its work."""
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


class Memory:
    """The most that was held since `begin`, in megabytes beyond what was held then."""

    def __init__(self, device: str) -> None:
        self.device, self.before = device, 0.0

    def begin(self) -> None:
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated() / 1e6
            return
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        self.before = resident("VmRSS")

    def most(self) -> float:
        held = torch.cuda.max_memory_allocated() / 1e6 if self.device == "cuda" else resident("VmHWM")
        return float(held - self.before)


# --- TRL --------------------------------------------------------------------------------------------------------------


class Clock(TrainerCallback):
    """When every step began, and when the last one ended; memory is watched from the end of the warm-up."""

    def __init__(self, device: str) -> None:
        self.device, self.memory = device, Memory(device)
        self.times: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        if len(self.times) == WARM_UP:
            self.memory.begin()
        self.times.append(now(self.device))

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.times.append(now(self.device))


def tokenizer() -> PreTrainedTokenizerFast:
    """GKDTrainer wants one; it never sees a text."""
    from tokenizers import Tokenizer, models

    words = {f"t{i}": i for i in range(VOCABULARY)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="t0")),
        pad_token="t0",
        eos_token="t1",
        unk_token="t0",
    )


def gathered(examples: list[dict[str, Any]]) -> dict[str, Tensor]:
    """A batch as GKDTrainer's own collator would make it."""
    ids = torch.tensor([example["input_ids"] for example in examples])
    labels = ids.clone()
    labels[:, :PROMPT] = -100
    seen = torch.ones_like(ids)
    return {
        "input_ids": ids,
        "attention_mask": seen,
        "labels": labels,
        "prompts": ids[:, :PROMPT],
        "prompt_attention_mask": seen[:, :PROMPT],
    }


def by_trl(steps: int, device: str) -> tuple[list[float], float, float]:
    """Seconds of every step after the warm-up, peak and mean loss of GKDTrainer."""
    from datasets import Dataset
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    clock = Clock(device)
    with tempfile.TemporaryDirectory() as folder:
        options = GKDConfig(
            output_dir=folder,
            per_device_train_batch_size=BATCH,
            num_train_epochs=1,
            lmbda=0.0,
            beta=0.0,
            temperature=1.0,
            learning_rate=1e-4,
            lr_scheduler_type="constant",
            logging_steps=10**6,
            save_strategy="no",
            report_to=[],
            use_cpu=device == "cpu",
            bf16=False,
            gradient_checkpointing=False,
            disable_dropout=True,
            max_length=LENGTH,
            optim="adamw_torch_fused",
            disable_tqdm=True,
        )
        rows = Dataset.from_list([{"input_ids": row.tolist()} for row in texts(steps)])
        trainer = GKDTrainer(
            model=model(1, device),
            teacher_model=model(0, device),
            args=options,
            train_dataset=rows,
            processing_class=tokenizer(),
            data_collator=gathered,
            callbacks=[clock],
        )
        trainer._get_train_sampler = lambda *_, **__: torch.utils.data.SequentialSampler(rows)  # our order
        loss = trainer.train().training_loss
    return (
        [b - a for a, b in zip(clock.times, clock.times[1:], strict=False)][WARM_UP:],
        clock.memory.most(),
        float(loss),
    )


# --- ours -------------------------------------------------------------------------------------------------------------


def learnt(hidden: Tensor) -> Tensor:
    """Rows `[256, d]` of `[4, 128, d]` that predict the second half."""
    return hidden[:, PROMPT - 1 : -1].flatten(0, 1)


def by_us(way: str, steps: int, device: str) -> tuple[list[float], float, float]:
    """Seconds of every step after the warm-up, peak and mean loss of `plain`, `live` or `kept`."""
    student, teacher = model(1, device).train(), model(0, device).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4, weight_decay=0.0, fused=True)
    head, ids = Head(student.lm_head.weight), texts(steps).to(device)
    rows = BATCH * (LENGTH - PROMPT)
    weights = torch.zeros(rows, device=device), torch.full((rows,), 1 / rows, device=device)

    @torch.no_grad()
    def signal(batch: Tensor) -> Signal:
        return Signal(hidden=learnt(teacher.model(batch).last_hidden_state), head=Head(teacher.lm_head.weight))

    def loss_of(batch: Tensor, kept: Signal | None) -> Tensor:
        if way == "plain":
            with torch.no_grad():
                theirs = teacher(batch).logits
            return forward_kl(learnt(student(batch).logits), learnt(theirs)).mean()
        hidden, gold = learnt(student.model(batch).last_hidden_state), batch[:, PROMPT:].flatten()
        _, divergence = row_losses(hidden, head, gold, kept or signal(batch), weights=weights)
        assert divergence is not None
        return divergence.mean()

    kept: list[Signal | None] = [None] * steps
    if way == "kept":
        kept = [Signal(top=cut_down(signal(batch), batch[:, PROMPT:].flatten())) for batch in ids.split(BATCH)]
    memory, total = Memory(device), 0.0
    times: list[float] = []
    for batch, known in zip(ids.split(BATCH), kept, strict=True):
        if len(times) == WARM_UP:
            memory.begin()
        started = now(device)
        loss = loss_of(batch, known)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        total += float(loss.detach())
        times.append(now(device) - started)
    return times[WARM_UP:], memory.most(), total / steps


def by(way: str, steps: int, device: str) -> tuple[list[float], float, float]:
    """One training run: seconds per step, peak in megabytes, mean loss."""
    return by_trl(steps, device) if way == "trl" else by_us(way, steps, device)


def peak(way: str, steps: int, device: str) -> float:
    """Megabytes of a way, in a process of its own."""
    command = [sys.executable, __file__, "--peak", way, "--steps", str(steps), "--device", device]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(done.stdout.split()[-1])


def measure(rounds: int, steps: int, device: str) -> dict[str, Any]:
    """Every figure."""
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    losses = {}
    for _ in range(rounds):
        for way in WAYS:
            taken, _, losses[way] = by(way, steps, device)
            times[way].append(statistics.median(taken))
    seconds = {way: statistics.median(values) for way, values in times.items()}
    if abs(losses["live"] - losses["trl"]) > 1e-3 * losses["trl"]:
        raise SystemExit(f"not the same objective: a mean loss of {losses['live']} beside TRL's {losses['trl']}")
    peaks = {way: peak(way, steps, device) for way in WAYS}
    return {
        "rounds": rounds,
        "machine": machine_facts(),
        "tokens_per_second": {way: BATCH * LENGTH / value for way, value in seconds.items()},
        "ms_per_step": {way: 1e3 * value for way, value in seconds.items()},
        "peak_mb": peaks,
        "mean_loss": losses,
        "figures": {
            "tokens/s, teacher live, over TRL": seconds["trl"] / seconds["live"],
            "tokens/s, top-64 kept, over TRL": seconds["trl"] / seconds["kept"],
            "tokens/s, plain loop, over TRL": seconds["trl"] / seconds["plain"],
            "peak, teacher live, over TRL": peaks["live"] / peaks["trl"],
            "peak, top-64 kept, over TRL": peaks["kept"] / peaks["trl"],
        },
    }


def main() -> None:
    """Print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--peak", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.peak:
        print(by(arguments.peak, arguments.steps, arguments.device)[1])
        return
    try:
        import trl  # noqa: F401
    except ImportError:
        raise SystemExit('TRL is missing; install it with: pip install "drivedistill[peers]"') from None
    found = measure(arguments.rounds, arguments.steps, arguments.device)
    for way in WAYS:
        speed, held = found["tokens_per_second"][way], found["peak_mb"][way]
        print(f"{way:8}{found['ms_per_step'][way]:10.1f} ms/step {speed:10.0f} tokens/s {held:10.1f} MB")
    for name, value in found["figures"].items():
        print(f"{name:<36}{value:>8.2f}   {GOALS.get(name, '')}")
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
