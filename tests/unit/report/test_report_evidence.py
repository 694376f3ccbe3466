"""What of a folder belongs to a report: whose scores, whose answers, whose probes, and what they are drawn from."""

import pytest
from made_runs import answers_to, made_samples, make_bench, make_experts, make_probe, make_run, make_table

from drivedistill.problems import InputError
from drivedistill.records import Prediction, Score, read_jsonl, write_json, write_jsonl
from drivedistill.report.artefacts import read_json
from drivedistill.report.evidence import gather
from drivedistill.report.page import page
from drivedistill.report.quality import pooled
from drivedistill.report.roles import roles_of
from drivedistill.report.scores import scores


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


def test_ways_of_decoding_are_no_seeds(run):
    greedy = read_json(run / "results.json", list[Score])
    beam = [score.model_copy(update={"decode": "beam-4", "value": 2.0}) for score in greedy]
    write_json(run / "results.json", [score.model_dump() for score in (*beam, *greedy, *greedy)])
    evidence = gather([run])
    assert {score.decode for score in evidence.rows[0].runs[0].scores} == {"greedy"}
    whole = [score for score in greedy if score.name == "exact_match" and score.task == "all"]
    body = scores(evidence, roles_of(evidence.rows)).body
    assert all(f"[{100 * score.low:.2f}, {100 * score.high:.2f}]" in body for score in whole)
    for path in (run / "predictions").iterdir():
        path.unlink()
    assert {score.decode for score in gather([run]).rows[0].runs[0].scores} == {"beam-4"}  # one way, whoever answered


def test_the_text_only_prior_is_not_the_run(run):
    answers = read_jsonl(run / "predictions" / "test-greedy.jsonl", Prediction)
    prior = [
        item.model_copy(update={"id": f"{item.id}{more}", "decode": "text_only"}) for item in answers for more in "ab"
    ]
    write_jsonl(run / "predictions" / "test-prior.jsonl", prior)
    assert gather([run]).rows[0].runs[0].answers == answers


def test_a_probe_is_what_its_conditions_name(run, tmp_path):
    samples = made_samples(tmp_path / "data")
    make_probe(tmp_path / "beside", samples, str(run))
    for path in (tmp_path / "beside").iterdir():
        path.rename(run / path.name)  # `--out` of the run itself: metrics.jsonl lies beside
    write_jsonl(run / "fog-3.jsonl", answers_to(samples, str(run), 0.5, "fog:3"))  # of another probe
    (probe,) = gather([run]).probes
    assert list(probe.answers) == ["clean", "black", "none", "text-only prior"]
    assert all(len(rows) == 80 for rows in probe.answers.values())


def test_findings_of_all_kinds_come_together(tmp_path):
    for folder, name in (("a", "bench"), ("b", "probe"), ("c", "experts")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.json").write_text('{"no": "such thing"}', "utf-8")
    with pytest.raises(InputError) as error:
        gather([tmp_path / name for name in ("a", "b", "c", "nowhere")])
    found = " ".join(problem.file for problem in error.value.problems)
    assert all(name in found for name in ("bench.json", "probe.json", "experts.json", "nowhere"))


def test_a_metric_of_which_all_have_zero_is_shown(run):
    whole = read_json(run / "results.json", list[Score])
    names = (
        "bleu_4",
        "meteor",
        "rouge_l",
        "avg",
        "exact_match",
        "match_f1",
        "meta_accuracy",
        "judge",
        "challenge_final",
    )
    zero = {"task": "all", "value": 0.0, "low": None, "high": None}
    made = [whole[0].model_copy(update={"name": name, **zero}) for name in names]
    write_json(run / "results.json", [score.model_dump() for score in made])
    evidence = gather([run])
    body = scores(evidence, roles_of(evidence.rows)).body
    assert body.count("<span>0.00</span>") == 7
    assert "not shown: Judge, Final score" in body
    write_json(run / "results.json", [score.model_dump() for score in made[:2]])
    body = scores(gather([run]), roles_of(evidence.rows)).body
    assert "not shown" not in body and "ROUGE-L" not in body


def test_no_interval_leaves_its_scale():
    common = {"unit": "fraction", "n": 100, "dataset": "d", "split": "test", "regime": "regular", "task": "all",
              "decode": "greedy", "implementation": "equality"}  # fmt: skip
    two = pooled([Score(name="exact_match", value=value, low=value, high=value, **common) for value in (0.6, 0.8)])
    assert (two.low, two.high) == (0, 100)  # Student's interval of two values is wider than what there is
    final = pooled(
        [Score(name="challenge_final", value=value, low=value, high=value, **common) for value in (0.6, 0.8)]
    )
    assert (final.low, final.high) == (0, 1)
    percent = pooled([Score(name="avg", value=value, low=value, high=value, **common) for value in (60, 80)])
    assert (percent.low, percent.high) == (0, 100)
    milliseconds = pooled(
        [Score(name="latency_p50", value=value, low=value, high=value, **common) for value in (60, 80)]
    )
    assert milliseconds.high > 100


def test_the_folder_around_a_table_and_its_bench_is_both(tmp_path):
    around = tmp_path / "quick"
    table = make_table(around)
    make_bench(around / "bench", {str(table / "student" / "seed-0"): (40.0, None)})
    deep = table / "student" / "seed-0" / "experts" / "test"  # four below the table, five below what is around
    make_experts(deep, str(table / "student" / "seed-0"))
    whole = gather([around])
    assert [row.label for row in whole.rows] == ["#2 Student"] and len(whole.benches) == len(whole.experts) == 1
    assert page(whole) == page(gather([table, around / "bench"]))
    write_jsonl(around / "metrics.jsonl", [])  # a run of its own, which happens to have a table in it
    assert [row.name for row in gather([around]).rows] == ["quick"]
