from drivedistill.evaluate.interval import paired_interval


def test_paired_interval_of_equal_differences_has_no_width():
    assert paired_interval(["a", "a", "b"], [[2.0] * 3, [2.0] * 3], seed=0) == (2.0, 2.0)
    assert paired_interval(["a", "a"], [[0, 1]], seed=0) == (None, None)


def test_runs_that_disagree_widen_the_interval():
    scenes = [f"s{number}" for number in range(20)]
    assert paired_interval(scenes, [[1.0] * 20, [-1.0] * 20], seed=0) == (-1.0, 1.0)
    assert paired_interval(scenes, [[0.0] * 20], seed=0) == (0.0, 0.0)


def test_scenes_of_all_runs_are_drawn_together():
    # Runs that agree add nothing: the interval is as wide as that of one of them.
    scenes = [f"s{number // 5}" for number in range(100)]
    values = [float(number // 5 % 2) for number in range(100)]
    one, four = paired_interval(scenes, [values], seed=0), paired_interval(scenes, [values] * 4, seed=0)
    assert one[1] - one[0] > 0.3
    assert abs((four[1] - four[0]) - (one[1] - one[0])) < 0.1
