"""The names of the scores, what they mean and how a table shows them."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import NamedTuple

from drivedistill.data.meta_action import PATHS, SPEEDS


class Metric(NamedTuple):
    """One row of `METRICS`."""

    label: str
    unit: str
    factor: float = 1.0
    """A table shows value x factor; x100 where the papers print percent."""
    decimals: int = 2
    higher_is_better: bool = True
    in_table: bool = True
    """False: only in `results.json`, or in a table of its own."""
    ranks: bool = True
    """False: neither direction makes a model better, or it says nothing of the model; `compare` gives no verdict."""

    @property
    def highest(self) -> float:
        """The largest value that a table can show; infinite where the unit has none."""
        return self.factor * {"fraction": 1.0, "percent": 100.0, "of 100": 100.0, "of 10": 10.0}.get(
            self.unit, math.inf
        )


METRICS: dict[str, Metric] = {
    "bleu_1": Metric("BLEU-1", "fraction", 100),
    "bleu_2": Metric("BLEU-2", "fraction", 100),
    "bleu_3": Metric("BLEU-3", "fraction", 100),
    "bleu_4": Metric("BLEU-4", "fraction", 100),
    "meteor": Metric("METEOR", "fraction", 100),
    "rouge_l": Metric("ROUGE-L", "fraction", 100),
    "cider": Metric("CIDEr", "of 10", decimals=3),
    "avg": Metric("Avg (BLEU-4, METEOR, ROUGE-L)", "percent"),
    "exact_match": Metric("Exact match", "fraction", 100),
    "exact_match_stripped": Metric("Exact match, case and space aside", "fraction", 100),
    "perception": Metric("Perception (exact match)", "fraction", 100, in_table=False),
    "reasoning": Metric("Reasoning (exact match of prediction and behavior)", "fraction", 100, in_table=False),
    "planning": Metric("Planning (exact match)", "fraction", 100, in_table=False),
    "capabilities": Metric("Mean of three (perception, reasoning, planning)", "fraction", 100, in_table=False),
    "accuracy": Metric("Challenge: accuracy", "fraction", 100),
    "accuracy_letter": Metric("Accuracy by chosen letter (ours)", "fraction", 100),
    "match_f1": Metric("Challenge: match F1", "percent"),
    "match": Metric("Challenge: match", "percent"),
    "language": Metric("Challenge: language", "fraction", decimals=4),
    "judge": Metric("Judge", "of 100"),
    "challenge_final": Metric("Challenge: final score", "fraction", decimals=4),
    "judge_general": Metric("Judge: general perception", "of 100"),
    "judge_suggestion": Metric("Judge: driving suggestion", "of 100"),
    "judge_region": Metric("Judge: regional perception", "of 100"),
    "judge_region_vehicle": Metric("  vehicle", "of 100"),
    "judge_region_vru": Metric("  vulnerable road user", "of 100"),
    "judge_region_traffic_sign": Metric("  traffic sign", "of 100"),
    "judge_region_traffic_light": Metric("  traffic light", "of 100"),
    "judge_region_traffic_cone": Metric("  traffic cone", "of 100"),
    "judge_region_barrier": Metric("  barrier", "of 100"),
    "judge_region_miscellaneous": Metric("  miscellaneous", "of 100"),
    "judge_unparsable": Metric("Judge: replies without a rating", "samples", 1, 0, False),
    "meta_accuracy": Metric("Meta-action: accuracy", "fraction", 100),
    "meta_accuracy_constant": Metric("  always the commonest", "fraction", 100, ranks=False),
    "meta_accuracy_lenient": Metric("  Senna's published rule", "fraction", 100),
    "meta_accuracy_free": Metric("  plain English", "fraction", 100),
    "meta_speed_accuracy": Metric("  speed alone", "fraction", 100),
    "meta_path_accuracy": Metric("  path alone", "fraction", 100),
    "meta_unparsable": Metric("  unparsable", "fraction", 100, higher_is_better=False),
    "meta_danger": Metric("  cost of the errors (0 to 100)", "fraction", 100, higher_is_better=False),
    "meta_danger_constant": Metric("  cost of the commonest", "fraction", 100, higher_is_better=False, ranks=False),
    **{
        f"meta_f1_{action.lower()}{suffix}": Metric(
            f"F1 {action}{words}", "fraction", 100, in_table=False, ranks=suffix != "_constant"
        )
        for suffix, words in (("", ""), ("_lenient", ", published rule"), ("_constant", ", always the commonest"))
        for action in (*SPEEDS, *PATHS)
        if not (suffix == "_lenient" and action.endswith("_CHANGE"))  # the published script counts no change of lane
    },
    "missed_vru": Metric("Vulnerable road users: missed", "fraction", 100, higher_is_better=False),
    "false_vru": Metric("Vulnerable road users: false alarms", "fraction", 100, higher_is_better=False),
    "rsdr_80": Metric("RSDR, right within 80 ms", "fraction", 100),
    "rsdr_100": Metric("RSDR, right within 100 ms", "fraction", 100),
    "rsdr_80_clip": Metric("RSDR, whole clips, 80 ms", "fraction", 100),
    "rsdr_100_clip": Metric("RSDR, whole clips, 100 ms", "fraction", 100),
    "in_time_80": Metric("Answered within 80 ms", "fraction", 100),
    "in_time_100": Metric("Answered within 100 ms", "fraction", 100),
    "latency_p50": Metric("Latency, median", "ms", 1, 1, False),
    "latency_p90": Metric("Latency, 90th percentile", "ms", 1, 1, False),
    "latency_p99": Metric("Latency, 99th percentile", "ms", 1, 1, False),
    "without_latency": Metric("Without latency, not in RSDR", "samples", 1, 0, False),
    "confidence": Metric("Confidence of the answers", "fraction", 100, ranks=False),
    "calibration_error": Metric("Calibration error, 10 bins", "fraction", 100, 2, False),
    "brier": Metric("Brier score", "fraction", 1, 4, False),
    "auroc": Metric("AUROC, confidence for right answers", "fraction", 1, 3),
    "aurc": Metric("Risk, mean over coverages (AURC)", "fraction", 100, 2, False),
    "accuracy_at_90": Metric("Right among the 90 % most confident", "fraction", 100),
    "accuracy_at_80": Metric("Right among the 80 % most confident", "fraction", 100),
    "accuracy_at_50": Metric("Right among the 50 % most confident", "fraction", 100),
    "skipped_questions": Metric("Challenge: skipped questions", "samples", 1, 0, False),
    "frames_without_first": Metric("Challenge: frames without first question", "frames", 1, 0, False),
    "asked_differently": Metric("Answers to another wording", "samples", 1, 0, False),
    "empty_answers": Metric("Empty answers", "samples", 1, 0, False),
    "run_on_answers": Metric("Longer than any reference", "samples", 1, 0, False),
    "without_facts": Metric("Without facts, in no part", "samples", 1, 0, False),
    "unscored": Metric("Without reference, not scored", "samples", 1, 0, False),
}
"""Every score of `drivedistill score`, in the order of the table."""


def nearest_metrics(name: str, known: Iterable[str] = METRICS) -> str:
    """What to expect in place of an unknown name: the five most like it."""
    nearest = difflib.get_close_matches(name, list(known), n=5, cutoff=0.5)
    return f"a metric, such as {', '.join(nearest or ['bleu_4', 'rouge_l', 'avg'])}; see docs/evaluation.md"
