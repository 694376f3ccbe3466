"""The sentences at the top: few numbers, those asked for first, and the rest below them."""

import re
from dataclasses import replace

import pytest

from drivedistill.report.recovered import recovered
from drivedistill.report.roles import roles_of
from drivedistill.report.summary import looking, quality, summary

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
