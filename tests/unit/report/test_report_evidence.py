"""What of a folder belongs to a report: whose scores, whose answers, whose probes, and what they are drawn from."""

import pytest
from made_runs import made_samples, make_run

from drivedistill.records import Score, write_json
from drivedistill.report.artefacts import read_json
from drivedistill.report.evidence import gather


@pytest.fixture
def run(tmp_path):
    """A run of its own, to be changed."""
    samples = made_samples(tmp_path / "data")
    make_run(tmp_path / "run", tmp_path / "data", samples, 0.6, [])
    return tmp_path / "run"


def test_scores_are_those_of_the_answers(run):
    of_run = read_json(run / "results.json", list[Score])
    validation = [score.model_copy(update={"split": "val"}) for score in of_run]
    write_json(run / "results.json", [score.model_dump() for score in (*validation, *of_run)])
    assert gather([run]).rows[0].runs[0].scores == of_run
    own = [score.model_copy(update={"value": 0.25}) for score in of_run]
    write_json(run / "predictions" / "test-greedy.results.json", [score.model_dump() for score in own])
    assert gather([run]).rows[0].runs[0].scores == own
