"""What is folded away under the scores: confidence against correctness, and every meta-action."""

import re
from statistics import fmean

import pytest
from made_runs import made_samples, make_run

from drivedistill.evaluate.score import score
from drivedistill.records import Prediction, read_jsonl, write_json, write_jsonl
from drivedistill.report.evidence import gather
from drivedistill.report.roles import roles_of
from drivedistill.report.scores import scores


@pytest.fixture
def answered(tmp_path):
    """The section of a run whose answers are changed one by one, and scored anew."""

    def make(update):
        run = tmp_path / "run"
        make_run(run, tmp_path / "data", made_samples(tmp_path / "data"), 0.6, [])
        path = run / "predictions" / "test-greedy.jsonl"
        answers = [item.model_copy(update=update(i, item)) for i, item in enumerate(read_jsonl(path, Prediction))]
        write_jsonl(path, answers)
        found = score(answers, meteor=False, tokenizer="approximate")
        write_json(run / "results.json", [row.model_dump() for row in found])
        evidence = gather([run])
        return scores(evidence, roles_of(evidence.rows)).body, answers, found

    return make


def cells(body, name):
    """The cells of the row of a name in a part of the page."""
    row = re.search(rf'<tr><th scope="row">{name}</th>(.*?)</tr>', body)
    return [" ".join(re.sub("<[^>]+>", " ", cell).split()) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row[1])]


def test_confidence_stands_beside_what_is_right(answered):
    body, answers, found = answered(lambda place, item: {"confidence": 0.5 + place % 5 / 10})
    body = body[body.index("Do they know when they are wrong?") :]
    for regime in ("regular", "corner"):
        mine = [item for item in answers if item.regime == regime]
        right = 100 * fmean(item.prediction == item.reference for item in mine)
        (brier,) = [row for row in found if row.name == "brier" and row.regime == regime and row.task == "all"]
        sure, correct, number, *_ = cells(body[body.index(regime.capitalize()) :], "run")
        assert sure.startswith(f"{100 * fmean(item.confidence for item in mine):.2f} [")
        assert correct == f"{right:.2f}"
        assert number == f"{brier.value:.4f} [{brier.low:.4f}, {brier.high:.4f}]"


def test_an_unknown_confidence_has_no_calibration(answered):
    assert "Do they know" not in answered(lambda place, item: {})[0]


def test_free_text_has_no_calibration(answered):
    body, _, _ = answered(lambda place, item: {"confidence": 0.5, "reference": f"story {place}"})
    assert "Do they know" not in body


def test_every_meta_action_has_its_number_of_references_and_the_constant(answered):
    def drive(place, item):
        action = "STOP, STRAIGHT" if place % 4 == 0 else "KEEP, STRAIGHT"
        said = "KEEP, STRAIGHT" if place % 8 == 0 else action
        return {"regime": "regular", "meta_action": action, "reference": action, "prediction": said}

    body, _, _ = answered(drive)
    body = body[body.index("Every meta-action") :]
    assert cells(body, "STOP")[0] == "20" and cells(body, "STOP")[-1] == "0.00 [0.00, 0.00]"
    assert cells(body, "STOP")[1].startswith("66.67 [")  # 10 of 20 found, nothing else called so
    assert cells(body, "KEEP")[0] == "60" and cells(body, "KEEP")[1].startswith("92.31 [")
    assert cells(body, "KEEP")[2].startswith("85.71 [")
    assert "LEFT_TURN" not in body
