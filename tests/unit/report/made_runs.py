"""A teacher and three students of a made-up world, with every file that a report reads; nothing was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from drivedistill.data.samples import write_samples
from drivedistill.evaluate.looking import PRIOR, side_by_side
from drivedistill.evaluate.score import score
from drivedistill.metrics_file import write_metrics
from drivedistill.recipe import parse_recipe, save_recipe
from drivedistill.records import CAMERAS, Prediction, Sample, write_json, write_jsonl

SCENES = 40
ANSWERS = ("Yes.", "No.", "Stopped.")
NASTY = '<script>alert("x")</script>'
CLKD = ["model.adapter_experts={experts: 4}", "mining={samples: 50}", "distill.release={end: 0.1}"]


def made_samples(root: Path) -> list[Sample]:
    """Two questions about each of 40 frames, half of them corner cases; six pictures a frame."""
    samples = []
    for scene in range(SCENES):
        images = {}
        for place, camera in enumerate(CAMERAS):
            path = root / "pictures" / f"{scene}-{camera}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (112, 112), (6 * scene, 40 * place, 90)).save(path)
            images[camera] = str(path)
        for number, task in enumerate(("perception", "planning")):
            question = f"Is <c1,CAM_FRONT,{10 + scene}.0,20.5> moving?" if number == 0 else "What now?"
            samples.append(
                Sample(
                    id=f"{scene}-{number}", dataset="drivelm", scene=f"scene{scene}", frame=f"frame{scene}",
                    split="test", regime="corner" if scene % 2 else "regular", task=task, question=question,
                    answer=ANSWERS[(scene + number) % 3], images=images,
                )
            )  # fmt: skip
    return samples


def answers_to(samples: list[Sample], model: str, right: float, condition: str = "clean") -> list[Prediction]:
    """Answers of which about that share is right, always the same ones."""
    rows = []
    for place, sample in enumerate(samples):
        is_right = (place * 37 % 100) < 100 * right
        rows.append(
            Prediction(
                id=sample.id, dataset=sample.dataset, scene=sample.scene, frame=sample.frame, split=sample.split,
                regime=sample.regime, task=sample.task, question=sample.question, reference=sample.answer,
                prediction=str(sample.answer) if is_right else f"I do not know {NASTY}", model=model,
                decode="text_only" if model == PRIOR else "greedy", condition=condition,
            )
        )  # fmt: skip
    return rows


def make_run(
    folder: Path, root: Path, samples: list[Sample], right: float, changes: list[str], teacher: str = ""
) -> None:
    """A finished run."""
    (folder / "predictions").mkdir(parents=True)
    answers = answers_to(samples, str(folder), right)
    write_jsonl(folder / "predictions" / "test-greedy.jsonl", answers)
    write_json(
        folder / "results.json", [row.model_dump() for row in score(answers, meteor=False, tokenizer="approximate")]
    )
    source = {"name": "made", "format": "jsonl", "regime": "regular", "root": str(root), "split_by": "file",
              "files": {"train": "train", "test": "test"}}  # fmt: skip
    tree: dict[str, Any] = {
        "name": folder.name,
        "about": "made up",
        "data": {"sources": [source]},
        "model": {"preset": "tiny"},
    }
    if teacher:
        tree |= {"teacher": {"path": teacher}, "distill": {}}
    save_recipe(parse_recipe(tree, changes, origin="made up"), folder / "recipe.yaml")
    facts = {"name": folder.name, "kind": "distill" if teacher else "train", "teacher": teacher or None, "seed": 0,
             "params_m": 1.5, "activated_m": 1.2, "steps": 40, "seconds": 90.0, "device": "cpu (made up)", "threads": 1,
             "versions": {"python": "3"}, "command": f"x train {folder.name}", "finished": "2026-01-02T03:04:05"}  # fmt: skip
    write_json(folder / "run.json", facts)
    log = write_metrics(folder / "metrics.jsonl")
    for step in range(1, 41):
        parts: dict[str, Any] = {"step": step, "ce": 2 / step, "seconds": step}
        if teacher:
            parts |= {"forward_kl": 1 / step, "alpha": 0.9**step}
        if any("mining" in change for change in changes):
            parts["mined"] = {"samples": 8, "of_samples": 16, "tokens": 30, "of_tokens": 100, "corner_share": [0.25, 0.125],
                              "kinds": {"word": [0.75, 0.5], "number": [0.25, 0.5]}, "mean_loss": [1.5, 0.75]}  # fmt: skip
            uses = {"regular": {"exp_entropy": 2.5}, "corner": {"exp_entropy": 3.0}}
            parts["experts"] = {"adapter": uses, "language_model.encoder.block.2.layer.1.DenseReluDense": uses}
        log(parts)


def make_probe(folder: Path, samples: list[Sample], model: str) -> None:
    """The student sees; the prior does not."""
    folder.mkdir(parents=True)
    shares = {"clean": 0.7, "black": 0.35, "none": 0.3}
    answers = {name: answers_to(samples, model, share, name) for name, share in shares.items()}
    answers[PRIOR] = answers_to(samples, PRIOR, 0.33)
    for name, rows in answers.items():
        write_jsonl(folder / f"{'prior' if name == PRIOR else name}.jsonl", rows)
    write_json(folder / "probe.json", side_by_side(answers, captions=False))


def make_bench(folder: Path, models: dict[str, tuple[float, tuple[float, float, float] | None]]) -> None:
    """Medians, and how many times as fast as the first one with its interval."""
    folder.mkdir(parents=True)
    first = next(iter(models))
    rows = []
    for path, (median, speed) in models.items():
        row: dict[str, Any] = {
            "name": Path(path).name, "model": path, "device": "cpu", "threads": 1, "params_total_1e6": 1.5,
            "stages_mean_ms": {"vision": 4.0, "decode": 6.0}, "latency_p50_ms": median, "latency_p90_ms": 1.5 * median,
            "latency_p99_ms": 2 * median, "right": 0.6, "rsdr_80": {"value": 0.5, "low": 0.4, "high": 0.6},
        }  # fmt: skip
        if speed:
            value, low, high = speed
            row |= {"against": Path(first).name, "speed_disk": {"value": value, "low": low, "high": high}}
        rows.append(row)
    machine = {"device": "cpu (made up)", "threads": 1, "versions": {}, "git_commit": None, "command": "x bench"}
    setting = {"questions": 80, "scenes": 40, "measured": "2026-01-02", "machine": machine}
    curve = {"thresholds_ms": [10.0, 80.0, 100.0], "rsdr": {row["name"]: [0.1, 0.5, 0.6] for row in rows}}
    write_json(folder / "bench.json", {"setting": setting, "models": rows, "curve": curve})


def make_experts(folder: Path, model: str) -> None:
    """Corner cases use a little more."""
    folder.mkdir(parents=True)
    weights = [{"value": share, "low": share - 0.05, "high": share + 0.05} for share in (0.4, 0.3, 0.2, 0.1)]
    parts = {
        regime: {"scenes": 40, "weights": weights, "dead": [3], "readings": {"exp_entropy": {"value": value, "low": None,
                                                                                              "high": None}}}
        for regime, value in (("regular", 2.5), ("corner", 2.75))
    }  # fmt: skip
    delta = {"exp_entropy": {"value": 0.25, "low": 0.125, "high": 0.375, "verdict": "more"}}
    item = {"layer": "adapter", "place": "adapter", "tokens": "all", "router": "dense", "experts": 4, "dataset": "all",
            "task": "all", "regimes": parts, "differences": delta}  # fmt: skip
    write_json(folder / "experts.json", {"model": model, "questions": 80, "comparisons": [item]})


def make_everything(folder: Path) -> list[Path]:
    """Four runs, a bench, and in the last run a probe and its experts; what a report is called with."""
    root = folder / "data"
    root.mkdir(parents=True)
    samples = made_samples(root)
    for split in ("train", "test"):
        write_samples(root / f"{split}.jsonl", samples if split == "test" else samples[:2], root)
    runs = folder / "runs"
    teacher = str(runs / "teacher")
    make_run(runs / "teacher", root, samples, 0.9, [])
    make_run(runs / "student", root, samples, 0.4, [])
    make_run(runs / "dis", root, samples, 0.42, [], teacher)
    make_run(runs / "clkd", root, samples, 0.7, CLKD, teacher)
    make_probe(runs / "clkd" / "probe", samples, str(runs / "clkd"))
    make_experts(runs / "clkd" / "experts" / "test", str(runs / "clkd"))
    models = {
        teacher: (40.0, None),
        str(runs / "dis"): (39.0, (1.02, 0.95, 1.09)),
        str(runs / "clkd"): (20.0, (2.0, 1.9, 2.1)),
    }
    make_bench(folder / "bench", models)
    return [runs / "teacher", runs / "student", runs / "dis", runs / "clkd", folder / "bench"]


def make_table(folder: Path) -> Path:
    """A table of `drivedistill ablate` with one row of two seeds and one that never began."""
    root, table = folder / "data", folder / "table"
    root.mkdir(parents=True)
    samples = made_samples(root)
    write_samples(root / "train.jsonl", samples[:2], root)
    write_samples(root / "test.jsonl", samples, root)
    for seed, right in ((0, 0.5), (1, 0.6)):
        make_run(table / "student" / f"seed-{seed}", root, samples, right, [f"seed={seed}"])
        facts = json.loads((table / "student" / f"seed-{seed}" / "run.json").read_text("utf-8"))
        write_json(table / "student" / f"seed-{seed}" / "run.json", facts | {"seed": seed})
    rows = [{"name": "student", "label": "#2 Student", "published": {"regular": {"BLEU-4": 61.5}}}, {"name": "later"}]
    (table / "table.yaml").write_text(
        json.dumps({"name": "made_table", "about": "A made-up table.", "rows": rows}), "utf-8"
    )
    figure = {"mean": -1.5, "sd": None, "low": -2.5, "high": -0.5, "verdict": "worse"}
    line = {"a": "later", "b": "student", "regime": "regular", "dataset": "drivelm", "split": "test",
            "figures": {"BLEU-4": figure}}  # fmt: skip
    write_json(table / "table.json", {"differences": [line]})
    return table
