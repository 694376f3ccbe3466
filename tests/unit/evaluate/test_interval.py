from drivedistill.evaluate.interval import paired_interval, scene_interval


def test_fewer_than_two_scenes_have_no_interval():
    assert scene_interval(["a", "a"], [0, 1], seed=0) == (None, None)
    assert scene_interval([], [], seed=0) == (None, None)


def test_equal_values_have_an_interval_of_no_width():
    assert scene_interval(["a", "b", "c"], [0.5] * 3, seed=0) == (0.5, 0.5)


def test_the_interval_contains_the_mean_and_is_a_function_of_the_seed():
    scenes = [f"s{number % 20}" for number in range(200)]
    values = [float(number % 7) for number in range(200)]
    low, high = scene_interval(scenes, values, seed=3)
    assert low < sum(values) / 200 < high
    assert (low, high) == scene_interval(scenes, values, seed=3)
    assert (low, high) != scene_interval(scenes, values, seed=4)


def test_scenes_are_drawn_whole():
    # All samples of a scene agree, so ten copies of each sample tell nothing new.
    one = scene_interval(["a", "b", "c", "d"], [0, 1, 1, 0], seed=0)
    ten = scene_interval(["a", "b", "c", "d"] * 10, [0, 1, 1, 0] * 10, seed=0)
    assert one == ten


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
