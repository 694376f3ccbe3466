"""The sentences at the top: few numbers, those asked for first, and the rest below them."""

import re
from dataclasses import replace

import numpy as np
import pytest

from drivedistill.report.artefacts import Value
from drivedistill.report.quality import Figure
from drivedistill.report.recovered import _quotient, recovered
from drivedistill.report.roles import roles_of
from drivedistill.report.summary import _share_of_loss, faster, looking, quality, summary

INTERVAL = re.compile(r"\[[−+\d.]+, [−+\d.]+\]")


@pytest.fixture(scope="module")
def roles(evidence):
    return roles_of(evidence.rows)


def times(row, copies, rights):
    """A row whose answers are those of the first run, asked in many more scenes; right where `rights` says so."""
    run = row.runs[0]
    rows = [
        item.model_copy(
            update={
                "id": f"{item.id}-{copy}",
                "scene": f"{item.scene}-{copy}",
                "regime": "regular",
                "prediction": item.reference if rights(place, copy) else "?",
            }
        )
        for copy in range(copies)
        for place, item in enumerate(run.answers)
    ]
    return replace(row, runs=(replace(run, answers=rows),))


def test_sentences_have_two_numbers_with_intervals_and_a_list_the_rest(evidence, roles):
    for sentence in (quality(evidence, roles), looking(evidence, roles)):
        assert len(INTERVAL.findall(sentence)) == 2
    assert "plain distillation" in quality(evidence, roles) and "teacher" not in quality(evidence, roles)
    alone = replace(roles, plain=None)
    assert "no distillation" in quality(evidence, alone)
    body = summary(evidence, roles).body
    assert body.count("<li>") > 3 and "More exactly" in body
    exactly = body[body.index("More exactly") :]
    assert "against its teacher, teacher" in exactly and "text-only prior" in exactly


def test_recovered_share_is_exact_on_known_answers(roles):
    student = times(roles.student, 4, lambda place, copy: place % 2 == 0)
    teacher = times(roles.teacher, 4, lambda place, copy: True)
    full = times(roles.full, 4, lambda place, copy: place % 4 != 3)
    found = recovered(full, student, teacher, "regular", set())
    assert found.value == pytest.approx(50)
    assert 0 < found.low < 50 < found.high < 100
    assert recovered(teacher, student, teacher, "regular", set())[:3] == pytest.approx((100, 100, 100))
    assert recovered(student, student, teacher, "regular", set())[:3] == pytest.approx((0, 0, 0))


def test_a_share_below_zero_is_another_loss(evidence, roles):
    student = times(roles.student, 4, lambda place, copy: place % 2 == 0)
    teacher = times(roles.teacher, 4, lambda place, copy: True)
    worse = times(roles.full, 4, lambda place, copy: place % 4 == 0)
    found = recovered(worse, student, teacher, "regular", set())
    assert found.value == pytest.approx(-50) and found.high < 0
    text = summary(evidence, replace(roles, teacher=teacher, student=student, full=worse)).body
    assert (
        f"clkd loses another 50 [{-found.high:.0f}, {-found.low:.0f}] % of what student, the plain student, loses"
        in text
    )
    assert "recovers" not in text


def test_words_of_a_share_claim_only_what_the_interval_shows():
    assert _share_of_loss(Figure(40, 10, 70)) == "recovers 40 [10, 70] %"
    assert _share_of_loss(Figure(40, -10, 90)) == "recovers 40 [−10, 90] % (no difference shown)"
    assert _share_of_loss(Figure(-40, -90, 10)) == "loses another 40 [−10, 90] % (no difference shown)"
    assert _share_of_loss(Figure(-40, None, None)) == "loses another 40 % (without an interval)"


def test_draws_in_which_nothing_is_lost_only_widen_the_interval(roles):
    """The student loses a little in most draws, and nothing or less in one or two of a hundred."""
    missed = ((1, 0), (8, 1), (20, 0), (33, 2), (47, 3), (60, 1), (71, 0))
    teacher = times(roles.teacher, 4, lambda place, copy: (place, copy) != (5, 1))
    student = times(roles.student, 4, lambda place, copy: (place, copy) not in missed)
    found = recovered(times(roles.full, 4, lambda place, copy: place % 2 == 0), student, teacher, "regular", set())
    assert found.low is not None and found.low < found.value < found.high < 0
    lost = np.linspace(-0.02, 0.98, 1000)  # 20 of 1,000 draws
    low, high = _quotient(np.ones(1000), lost)
    assert 1 / lost[25] <= high <= 1 / lost[24]  # 25 of the largest left out, these 20 among them
    assert 1 / lost[-5] <= low <= 1 / lost[-6]  # and among the 25 smallest, too


def test_several_seeds_widen_the_recovered_share(roles):
    student = times(roles.student, 4, lambda place, copy: place % 2 == 0)
    teacher = times(roles.teacher, 4, lambda place, copy: True)
    good, bad = (times(roles.full, 4, lambda place, copy, part=part: place % part != part - 1) for part in (6, 3))
    one = recovered(good, student, teacher, "regular", set())
    two = recovered(replace(good, runs=good.runs + bad.runs), student, teacher, "regular", set())
    assert two.high - two.low > 2 * (one.high - one.low)
    assert two.value == pytest.approx((one.value + recovered(bad, student, teacher, "regular", set()).value) / 2)


def test_nothing_is_recovered_where_nothing_is_lost(evidence, roles):
    student = times(roles.student, 4, lambda place, copy: (place + copy) % 3 != 0)
    teacher = times(roles.teacher, 4, lambda place, copy: (place + copy) % 3 != 1)
    assert recovered(student, student, teacher, "regular", set()) == "nothing is lost"
    found = replace(roles, teacher=teacher, student=student, full=times(roles.full, 4, lambda place, copy: True))
    body = summary(evidence, found).body
    assert "loses nothing measurable, so there is nothing to recover" in body
    assert recovered(roles.full, roles.student, roles.teacher, "regular", set()) == "too few scenes"
    assert "too few scenes" in summary(evidence, roles).body


def test_who_is_faster_than_the_subject_is_said_below(evidence, roles):
    """Only where it is shown: in the same bench, against the same model, and beyond the subject's own interval."""
    first, *others = evidence.benches[0].models
    subject = next(each for each in others if evidence.row_of(each.model) is roles.subject)  # 2.0 [1.9, 2.1]

    def said(low, own=subject.speed_disk, apart=False, path="runs/quick", against=first.name):
        mine = subject.model_copy(update={"speed_disk": own})
        speed = Value(value=3.25, low=low, high=3.5)
        quick = subject.model_copy(update={"name": "quick", "model": path, "speed_disk": speed, "against": against})
        parts = [[first, mine], [first.model_copy(), quick]] if apart else [[first, mine, quick]]
        benches = [evidence.benches[0].model_copy(update={"models": models}) for models in parts]
        changed = replace(evidence, benches=benches)
        assert "quick" not in faster(changed, roles)
        return summary(changed, roles).body

    assert "quick answers 3.25 [3.00, 3.50] times as fast as teacher, faster still (median 20.0 ms)" in said(3.0)
    assert "faster still" in said(2.11)
    assert "faster still" not in said(2.09), "the intervals overlap"
    assert "faster still" not in said(None), "no interval, nothing shown"
    assert "faster still" not in said(3.0, apart=True), "another bench"
    assert "faster still" not in said(3.0, against=subject.name), "another model"
    assert "faster still" not in said(3.0, path=subject.model), "the subject itself"
    assert "faster still" in said(2.01, own=Value(value=2.0, low=None, high=None))
    assert "faster still" not in said(1.99, own=Value(value=2.0, low=None, high=None))
    assert "faster still" not in said(0.9, own=Value(value=0.5, low=0.4, high=0.6)), "no faster than the teacher"
