"""From times to figures: what a contestant's answers say about it, and how much faster it is than the first one.

Everything counts per question: a question that was asked in several rounds has the median of its times. Medians of stages
need not add up to the median of the whole; their means do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from drivedistill.bench.contest import Contestant, Rules
from drivedistill.bench.memory import Memory
from drivedistill.bench.stages import Stages, median_stages
from drivedistill.bench.table import Row
from drivedistill.evaluate import realtime
from drivedistill.evaluate.correct import is_right
from drivedistill.evaluate.measure import Draws, Floats, Measure, draw_scenes, measure_interval, ratio
from drivedistill.evaluate.predict import How, row_of
from drivedistill.models.parameters import count_parameters
from drivedistill.models.student import bare
from drivedistill.records import Prediction, Sample


def predictions(contestant: Contestant, samples: Sequence[Sample]) -> list[Prediction]:
    """A contestant's answers, in the order of the samples, with their latencies."""
    how = How(contestant.path, "greedy")
    return [
        row_of(sample, contestant.answers[sample.id], how).model_copy(update={"latency_ms": round(stages.whole, 3)})
        for sample, stages in zip(samples, _stages(contestant, samples), strict=True)
    ]


def figures(contestant: Contestant, samples: Sequence[Sample], rules: Rules, memory: Memory) -> Row:
    """Everything about one model but its place in the field.

    Args:
        contestant: After the contest.
        samples: What was asked.
        rules: How.
        memory: What it needed.
    """
    stages = _stages(contestant, samples)
    whole = np.array([each.whole for each in stages])
    resident = _resident(contestant, samples)
    tokens = np.array([contestant.answers[sample.id].tokens for sample in samples])
    later = int((tokens - 1).sum())
    return {
        "name": contestant.name,
        "model": contestant.path,
        **_setting(contestant, rules),
        **_size(contestant),
        "memory_gb": round(memory.gb, 4),
        "memory_method": memory.method,
        "questions": len(samples),
        "stages_median_ms": _rounded(median_stages(stages)),
        "stages_mean_ms": _rounded(Stages(*np.mean(np.array(stages), axis=0))),
        **{f"latency_p{p}_ms": round(realtime.percentile(whole, p), 3) for p in realtime.PERCENTILES},
        "latency_mean_ms": round(float(whole.mean()), 3),
        "fps_disk": round(1000 / float(whole.mean()), 4),
        "fps_resident": round(1000 / float(resident.mean()), 4),
        "first_token_ms": round(float(np.median([each.whole - each.decode for each in stages])), 3),
        "first_token_resident_ms": round(float(np.median([each.resident - each.decode for each in stages])), 3),
        "tokens_per_s": round(1000 * later / sum(each.decode for each in stages), 3) if later else None,
        "answer_tokens_mean": round(float(tokens.mean()), 2),
        "cut_answers": sum(answer.cut for answer in contestant.answers.values()),
        "watching_cost": round(float(np.median([s.resident for s in stages] / resident) - 1), 4),
        # An answer that must not end where it wants to end is neither right nor wrong.
        **_right_in_time([] if rules.min_new_tokens else predictions(contestant, samples)),
    }


def ratios(contestant: Contestant, first: Contestant, samples: Sequence[Sample], seed: int = 0) -> Row:
    """How many times as fast as the first model: total time of the same questions, with paired intervals over scenes."""
    draws = draw_scenes([sample.scene for sample in samples], seed)
    disk = [np.array([each.whole for each in _stages(one, samples)]) for one in (first, contestant)]
    resident = [_resident(one, samples) for one in (first, contestant)]
    return {
        "against": first.name,
        "speed_disk": _ratio(disk[0], disk[1], draws),
        "speed_resident": _ratio(resident[0], resident[1], draws),
    }


def curves(rows: Mapping[str, Sequence[Prediction]]) -> dict[str, Any]:
    """RSDR of every model at every latency that occurred, and at 80 and 100 ms; empty where nothing has a reference."""
    timed = {name: _scored(answers) for name, answers in rows.items()}
    if not all(timed.values()):
        return {}
    seen = {item.latency_ms for answers in timed.values() for item in answers if item.latency_ms is not None}
    thresholds = sorted(seen | set(map(float, realtime.THRESHOLDS_MS)))
    found = {
        name: realtime.curve([item.latency_ms or 0.0 for item in answers], list(map(is_right, answers)), thresholds)
        for name, answers in timed.items()
    }
    return {"thresholds_ms": thresholds, "rsdr": {name: values.round(6).tolist() for name, values in found.items()}}


def _setting(contestant: Contestant, rules: Rules) -> Row:
    device = contestant.device.type
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "precision": rules.dtype,
        "engine": rules.engine,
    }


def _size(contestant: Contestant) -> Row:
    """Parameters as they are, in 1e6 and in 2^20 (CLKD prints the latter as "M"), and the bytes of the weights."""
    model = bare(contestant.subject.model)
    count = count_parameters(model)
    row: Row = {}
    for kind in ("total", "activated"):
        number = count[kind]
        row |= {f"params_{kind}": number, f"params_{kind}_1e6": number / 1e6, f"params_{kind}_2p20": number / 2**20}
    tensors = [*model.parameters(), *model.buffers()]
    return row | {"weights_mb": round(sum(t.numel() * t.element_size() for t in tensors) / 1e6, 3)}


def _right_in_time(answers: Sequence[Prediction]) -> Row:
    """RSDR and shares in time, with intervals over scenes; nothing where there are no references."""
    scored = _scored(answers)
    if not scored:
        return {"references": 0}
    draws = draw_scenes([item.scene for item in scored], 0)
    row: Row = {"references": len(scored), "right": float(np.mean(list(map(is_right, scored))))}
    for name, measure in realtime.measures(scored).items():
        row[name] = _valued(measure, draws) | {"n": measure.n, "implementation": measure.implementation}
    return row


def _scored(answers: Sequence[Prediction]) -> list[Prediction]:
    return [item for item in answers if item.reference is not None]


def _stages(contestant: Contestant, samples: Sequence[Sample]) -> list[Stages]:
    return [median_stages(contestant.stages[sample.id]) for sample in samples]


def _resident(contestant: Contestant, samples: Sequence[Sample]) -> Floats:
    return np.array([np.median(contestant.resident_ms[sample.id]) for sample in samples])


def _ratio(first: Floats, this: Floats, draws: Draws | None) -> Row:
    return _valued(Measure(np.stack([first, this], axis=1), ratio, "", len(this)), draws)


def _valued(measure: Measure, draws: Draws | None) -> Row:
    low, high = measure_interval(measure, draws)
    return {"value": measure.point, "low": low, "high": high}


def _rounded(stages: Stages) -> dict[str, float]:
    return {name: round(float(value), 3) for name, value in stages._asdict().items()}
