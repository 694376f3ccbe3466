"""What it costs to score answers with every caption metric, intervals included.

    python benchmarks/scoring.py --out benchmarks/scoring.json

10,000 answers in 10,000 scenes, two thirds in DriveLM's style (half of those of at most two words), one third in
CODA-LM's (about 60 words); regular and corner cases, all tasks. The answers are references with some words exchanged or
dropped, from a fixed seed; `--predictions FILE...` takes somebody's predictions instead, over and over with one word
changed. First everything as `drivedistill score` does it, then part by part. Processor time is that of this process and
its children: it tells other work on the machine from ours.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

os.environ.setdefault("OMP_NUM_THREADS", "1")

from drivedistill.evaluate.captions import statistics
from drivedistill.evaluate.captions.cider import cider, count_ngrams
from drivedistill.evaluate.captions.java import Meteor, ptb_tokenize
from drivedistill.evaluate.measure import draw_scenes, measure_interval
from drivedistill.evaluate.score import score
from drivedistill.records import Prediction, read_jsonl

T = TypeVar("T")
SHORT = ("No.", "Yes.", "Going ahead.", "Turn left.", "Stopped.", "Slow down.", "One truck.", "Brake gently.")
COLOURS, THINGS = (
    ("white", "black", "red", "silver"),
    ("sedan", "truck", "bus", "cyclist", "traffic cone", "pedestrian"),
)
PLACES = ("in the ego lane", "in the lane to the left", "at the right edge of the road", "at the junction")
ACTS = ("standing still", "driving in the same direction", "crossing from left to right", "approaching")
ADVICE = (
    "The ego car should keep its distance and be ready to brake.",
    "It does not limit the ego car now; a change of its course would.",
    "The ego car should slow down, because somebody may step onto the road.",
)


def sentence(chance: random.Random) -> str:
    """Something ahead, and what to do about it."""
    thing = f"{chance.choice(COLOURS)} {chance.choice(THINGS)}"
    place, act = chance.choice(PLACES), chance.choice(ACTS)
    return f"There is a {thing} about {chance.randrange(5, 90)} meters ahead {place}, {act}. {chance.choice(ADVICE)}"


def drivelm(chance: random.Random) -> str:
    """An answer in DriveLM's style: a word or two, a sentence, or what three objects do."""
    kind = chance.random()
    if kind < 0.5:
        return chance.choice(SHORT)
    if kind < 0.8:
        return sentence(chance)
    seen = [f"<c{i},CAM_FRONT,{chance.randrange(16000) / 10},{chance.randrange(9000) / 10}>" for i in (1, 2, 3)]
    return " ".join(f"Notice that {tag}. The object is {chance.choice(ACTS)}." for tag in seen)


def coda(chance: random.Random) -> str:
    """Some 50 words."""
    return " ".join(sentence(chance) for _ in range(2))


def disturbed(text: str, chance: random.Random, share: float = 0.25) -> str:
    """The text with a share of its words exchanged for others, or dropped."""
    others = sentence(chance).split()
    words = [word if chance.random() > share else chance.choice(others) for word in text.split()]
    return " ".join(word for word in words if chance.random() > share / 4) or words[0]


def answers(n: int, chance: random.Random) -> list[tuple[str, str]]:
    """Pairs of reference and answer, one third of CODA-LM's style."""
    references = [coda(chance) if number % 3 == 0 else drivelm(chance) for number in range(n)]
    return [(text, disturbed(text, chance) if chance.random() < 0.7 else text) for text in references]


def given(files: list[Path], n: int, chance: random.Random) -> list[tuple[str, str]]:
    """Pairs from files, repeated with one word changed where there is more than one."""
    pairs = [(row.reference, row.prediction) for file in files for row in read_jsonl(file, Prediction) if row.reference]
    chance.shuffle(pairs)
    found = []
    for number in range(n):
        reference, answer = pairs[number % len(pairs)]
        words = answer.split()
        if len(words) > 1:
            words[chance.randrange(len(words))] = chance.choice(chance.choice(pairs)[0].split() or ["car"])
        found.append((reference, " ".join(words)))
    return found


def predictions(pairs: list[tuple[str, str]]) -> list[Prediction]:
    """One scene each; every third of CODA-LM."""
    tasks = ("perception", "prediction", "planning", "behavior")
    fixed = {"split": "test", "question": "?", "model": "m", "decode": "greedy"}
    return [
        Prediction.model_validate(
            {"id": f"{i}", "scene": f"{i}", "frame": f"{i}", "reference": reference, "prediction": answer}
            | {"dataset": "drivelm" if i % 3 else "coda_lm", "regime": "regular" if i % 3 == 1 else "corner"}
            | {"task": tasks[i // 3 % 4], **fixed}
        )
        for i, (reference, answer) in enumerate(pairs)
    ]


def spent() -> tuple[float, float]:
    """Wall time and processor time so far, ended children included; seconds."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.perf_counter(), sum(each.ru_utime + each.ru_stime for each in usage)


def measure(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """Seconds of the whole and of its parts, and memory."""
    parts: dict[str, dict[str, float]] = {}

    def clock(name: str, action: Callable[[], T]) -> T:
        before = spent()
        found = action()
        parts[name] = {key: b - a for key, a, b in zip(("wall_s", "cpu_s"), before, spent(), strict=True)}
        return found

    def aligned(some: list[tuple[str, str]]) -> Any:
        with Meteor() as process:
            return statistics.meteor_statistics(process.align(some))

    rows = predictions(pairs)
    num_rows = len(clock("score, everything", lambda: score(rows)))
    memory = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    tokens = dict(zip(texts, clock("tokenise", lambda: ptb_tokenize(texts)), strict=True))
    every = [(tokens[reference], tokens[answer]) for reference, answer in pairs]
    number = {pair: row for row, pair in enumerate(dict.fromkeys(every))}
    distinct, chosen = list(number), [number[pair] for pair in every]
    clock("METEOR, load", lambda: aligned(distinct[:1]))
    meteor = clock("METEOR, load and align", lambda: aligned(distinct))
    bleu = clock("BLEU", lambda: statistics.bleu_statistics(distinct))
    rouge = clock("ROUGE-L", lambda: statistics.rouge_l(distinct))
    weighed = clock("CIDEr", lambda: cider(count_ngrams(distinct), chosen))
    measures = statistics.measures_of(bleu[chosen], meteor[chosen], rouge[chosen], weighed, "")

    def bootstrap() -> None:
        draws = draw_scenes([row.scene for row in rows], seed=0)
        for each in measures.values():
            measure_interval(each, draws)

    clock(f"1,000 draws of {len(measures)} metrics", bootstrap)
    counts = {"answers": len(pairs), "distinct_pairs": len(distinct), "rows": num_rows}
    return counts | {
        "peak_mib": memory[0],
        "peak_java_mib": memory[1],
        "load_average": os.getloadavg()[0],
        "parts": parts,
    }


def main() -> None:
    """Print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=10_000)
    parser.add_argument("--predictions", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("scoring.json"))
    chosen = parser.parse_args()
    chance = random.Random(0)
    pairs = given(chosen.predictions, chosen.answers, chance) if chosen.predictions else answers(chosen.answers, chance)
    figures = measure(pairs)
    print(f"{'':<30}{'wall, s':>9}{'cpu, s':>9}")
    for name, seconds in figures["parts"].items():
        print(f"{name:<30}{seconds['wall_s']:>9.2f}{seconds['cpu_s']:>9.2f}")
    print(f"peak memory: {figures['peak_mib']:.0f} MiB, and {figures['peak_java_mib']:.0f} MiB of Java")
    print(f"{figures['distinct_pairs']} distinct pairs; load average {figures['load_average']:.1f}")
    chosen.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
