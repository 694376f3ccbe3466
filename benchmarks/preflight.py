"""What `--dry-run` foretells beside what a run then takes: seconds of its steps and memory at its peak.

    python benchmarks/preflight.py --out benchmarks/preflight.json

Five cases on data that the script makes in a temporary folder: supervised, distilled, and CLKD with experts
and mining, with live pictures and with cached vision features. Foretelling and running are processes of their own; they
alternate, and every figure is a median over the rounds. One thread unless OMP_NUM_THREADS says otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CLKD = ["recipes/world_clkd.yaml", "train.warmup_steps=5"]
CASES = {
    "tiny, supervised": ("train", ["recipes/tiny_teacher.yaml"]),
    "tiny, distilled": ("distill", ["recipes/tiny_dis.yaml"]),
    "world, supervised": ("train", ["recipes/world_teacher.yaml"]),
    "world, CLKD, live pictures": ("distill", [*CLKD, "data.vision_cache=null"]),
    "world, CLKD, cached vision": ("distill", CLKD),
}
"""Name -> verb, recipe and overrides."""

FORETELL = """
import json, sys
from pathlib import Path
from drivedistill.cli.inputs import keep_quiet
from drivedistill.preflight import measure
from drivedistill.recipe import load_recipe
from drivedistill.runs import assemble
keep_quiet()
recipe = load_recipe(Path(sys.argv[1]), sys.argv[2:])
cost = measure(recipe, assemble(recipe))
print(json.dumps({"seconds": cost.seconds(cost.total), "peak_gb": cost.peak_gb, "steps": cost.total}))
"""


def command(*words: str, folder: Path) -> str:
    """The output of a Python process."""
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return done.stdout


def prepare(folder: Path, keyframes: int) -> None:
    """Data, barely trained teachers and a cache of vision features."""
    cli = ["-m", "drivedistill.cli"]
    (folder / "recipes").symlink_to(ROOT / "recipes")
    command(str(ROOT / "examples/make_driving_data.py"), "demo/data", folder=folder)
    command(*cli, "world", "data/world", "--keyframes", str(keyframes), "--seed", "0", folder=folder)
    short = ["train.steps=2", "train.warmup_steps=0", "train.validate_limit=4"]
    command(*cli, "train", "recipes/tiny_teacher.yaml", *short, "--out", "demo/teacher", folder=folder)
    command(*cli, "train", "recipes/world_teacher.yaml", *short, "--out", "runs/world_teacher", folder=folder)
    command(*cli, "cache", "recipes/world_clkd.yaml", folder=folder)


def foretold(recipe: list[str], folder: Path) -> dict[str, float]:
    """Seconds of the steps and memory, before the run."""
    return dict(json.loads(command("-c", FORETELL, *recipe, folder=folder).splitlines()[-1]))


def taken(verb: str, recipe: list[str], folder: Path) -> dict[str, float]:
    """The same after it."""
    command("-m", "drivedistill.cli", verb, *recipe, "--out", "runs/real", "--overwrite", folder=folder)
    facts = json.loads((folder / "runs/real/run.json").read_text("utf-8"))
    return {"seconds": facts["seconds"], "peak_gb": facts["peak_memory_gb"], "steps": facts["steps"]}


def measure(folder: Path, steps: int, rounds: int) -> dict[str, dict[str, float]]:
    """By case, medians of what was foretold and taken, and their ratios."""
    found: dict[str, dict[str, float]] = {}
    for name, (verb, recipe) in CASES.items():
        chosen = [*recipe, f"train.steps={steps}", "train.validate_limit=16"]
        pairs = [(foretold(chosen, folder), taken(verb, chosen, folder)) for _ in range(rounds)]
        values = {"steps": pairs[0][1]["steps"]}
        for key in ("seconds", "peak_gb"):
            before, after = (statistics.median(pair[side][key] for pair in pairs) for side in (0, 1))
            values |= {f"{key}_foretold": before, f"{key}_taken": after, f"{key}_ratio": before / after}
        found[name] = values
        shown = "  ".join(f"{key} {value:.3g}" for key, value in values.items())
        print(f"{name:28} {shown}", flush=True)
    return found


def main() -> None:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keyframes", type=int, default=200)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), arguments.keyframes)
        found = measure(Path(folder), arguments.steps, arguments.rounds)
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
