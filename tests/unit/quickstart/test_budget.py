"""Minutes become work: more time, more work; and what is asked for fits."""

import pytest

from drivedistill.quickstart.budget import budget

MINUTES = (2, 3, 5, 8, 10, 20, 60)


@pytest.mark.parametrize("jobs", [1, 2, 4])
def test_more_minutes_never_mean_less(jobs):
    shares = [budget(minutes, jobs) for minutes in MINUTES]
    for field in ("keyframes", "steps", "questions", "probed", "benched"):
        values = [getattr(share, field) for share in shares]
        assert values == sorted(values)
    assert shares[-1].steps > 4 * shares[4].steps


@pytest.mark.parametrize("minutes", MINUTES)
def test_more_processes_at_a_time_learn_longer(minutes):
    alone, two, four = (budget(minutes, jobs) for jobs in (1, 2, 4))
    assert alone.keyframes == two.keyframes == four.keyframes, "the data do not depend on the machine"
    assert alone.steps <= two.steps <= four.steps


@pytest.mark.parametrize("jobs", [2, 4])
@pytest.mark.parametrize("minutes", [8, 10, 30])
def test_all_stages_together_fit_into_the_minutes(minutes, jobs):
    total = sum(budget(minutes, jobs).seconds(jobs).values())
    assert 0.88 * 60 * minutes < total <= 0.91 * 60 * minutes, "all of the time is used, and some is kept"


def test_ten_minutes_on_two_cores():
    share = budget(10, 2)
    assert share.keyframes == 1500
    assert share.steps >= 150
