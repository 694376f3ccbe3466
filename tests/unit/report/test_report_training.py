"""Curves of a training: in the unit of its recipe, and with what a smaller number does not mean."""

import html
from dataclasses import replace

import pytest

from drivedistill.report.training import training


def curves(*rows):
    """The section of these rows."""
    return training(rows, None, 0).body


@pytest.fixture
def changed(evidence):
    """Makes a row whose recipe and log are others."""

    def make(name, update, **logged):
        row = next(row for row in evidence.rows if row.name == name)
        run = row.runs[0]
        sections = {part: getattr(run.recipe, part).model_copy(update=values) for part, values in update.items()}
        log = [record | logged for record in run.log]
        return replace(row, runs=(replace(run, recipe=run.recipe.model_copy(update=sections), log=log),))

    return make


def test_rows_that_are_not_drawn_are_counted(evidence):
    assert " 1 more row of the table is not drawn." in training(evidence.rows, None, 1).body
    assert " 2 more rows of the table are not drawn." in training(evidence.rows, None, 2).body
    assert "not drawn" not in training(evidence.rows, None, 0).body


def test_losses_are_in_the_unit_of_the_recipe(changed):
    tokens, samples = changed("student", {}), changed("dis", {"train": {"reduction": "samples"}})
    assert "Loss on the references, nats per token." in curves(tokens)
    assert "Loss on the references, nats per token, mean over samples." in curves(samples)
    root = changed("student", {"train": {"reduction": "sqrt"}})
    assert "nats per token, samples weighed by the root of their tokens." in curves(root)
    both = curves(tokens, samples)
    assert "not one unit: nats per token (student); nats per token, mean over samples (dis)." in both
    assert "not one unit" not in curves(tokens, changed("dis", {}))
    assert "α, the weight of the teacher." in both  # has no unit


def test_a_run_without_recipe_claims_no_unit(changed):
    row = changed("student", {})
    unknown = replace(row, runs=(replace(row.runs[0], recipe=None),))
    assert "Loss on the references, nats." in curves(unknown)


@pytest.mark.parametrize("on", ["regular", "trusted"])
def test_a_distance_that_is_smaller_for_free_is_said_so(changed, on):
    free = "add nothing to the distance of dis but are counted"
    assert free in curves(changed("dis", {"distill": {"on": on}}))
    assert free not in curves(changed("dis", {}))
    assert free not in curves(changed("dis", {"distill": {"on": "mined"}}))


def test_a_distance_over_what_was_mined_is_said_so(changed):
    mined = "The distance of clkd is the mean over what was mined, the hardest"
    assert mined in curves(changed("clkd", {"distill": {"on": "mined"}}))
    assert mined not in curves(changed("clkd", {}))


def shortened(row, steps, log):
    """The row with another log."""
    run = row.runs[0]
    return replace(row, runs=(replace(run, log=log, facts=run.facts.model_copy(update={"steps": steps})),))


def test_one_point_is_said_and_not_drawn(changed):
    teacher, student = changed("teacher", {}), changed("student", {})
    asleep = shortened(teacher, 0, [{"step": 0, "validation_loss": 2.7309}])
    body = training([asleep, student], asleep, 0).body
    assert "teacher learnt nothing in its run (0 steps): loss on the validation split 2.73." in body
    assert "The teacher's own training" not in body and "teacher's own" not in body.replace("&#x27;", "'")
    legend = body[body.index('class="legend"') : body.index("</ul>")]
    assert "student" in legend and "teacher" not in legend
    alone = training([asleep], asleep, 0).body
    assert "<svg" not in alone and "learnt nothing" in alone and "No metrics.jsonl" not in alone
    once = curves(shortened(student, 40, [*student.runs[0].log, {"step": 40, "validation_loss": 1.5}]))
    assert "student recorded once, which makes no curve: loss on the validation split 1.5 at step 40." in once
    assert "Loss on the validation split" not in once and "Loss on the references" in once


def test_points_of_one_unit_are_told_apart(changed):
    once = {"step": 4, "alpha": 0.75, "alpha_corner": 0.5, "forward_kl": 0.375, "forward_kl_corner": 0.25}
    body = html.unescape(curves(shortened(changed("dis", {}), 4, [once])))
    assert "α, the weight of the teacher 0.75 at step 4; α on corner cases 0.5 at step 4; " in body
    assert "distance to the teacher, corner cases' part 0.25 at step 4" in body
    assert "distance to the teacher 0.625 at step 4" in body


def test_corner_cases_with_a_weight_of_their_own_are_drawn(changed):
    body = curves(changed("clkd", {}, alpha_corner=0.625, forward_kl_corner=0.375))
    assert "α on corner cases" in body and "from 0.625 to 0.625" in body
    assert (
        "Distance to the teacher, corner cases&#x27; part" in body
        or "Distance to the teacher, corner cases' part" in body
    )
    assert "from 0.375 to 0.375" in body
    assert "The distance of clkd is the sum of two, logged apart: regular and corner cases" in body
    assert "apart" not in curves(changed("clkd", {}))


def test_a_distance_in_two_parts_is_drawn_whole_beside_others(changed):
    whole = changed("dis", {})
    halves = changed("clkd", {})
    parts = ("forward_kl", "forward_kl_corner")
    log = [record | dict.fromkeys(parts, record["forward_kl"] / 2) for record in whole.runs[0].log]
    body = curves(whole, shortened(halves, 40, log))
    assert "dis: from 1 to 0.025; clkd: from 1 to 0.025" in body
    assert "clkd: from 0.5 to 0.0125" in body  # corner cases' part


def test_rows_of_which_the_same_holds_are_named_together(changed):
    rows = [changed(name, {"distill": {"on": "trusted"}}) for name in ("dis", "clkd")]
    body = curves(*rows)
    assert body.count("add nothing to the distance of") == 1
    assert "add nothing to the distance of dis, clkd but are counted" in body
