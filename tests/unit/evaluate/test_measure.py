import math

import numpy as np

from drivedistill.evaluate.measure import Measure, draw_scenes, drawn_values, interval, mean_of, measure_interval, ratio


def scene_interval(scenes, values, seed):
    return measure_interval(mean_of(values, ""), draw_scenes(scenes, seed))


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


def test_a_mean_counts_only_what_is_there():
    measure = mean_of([1.0, None, 0.0, None], "")
    assert (measure.point, measure.n) == (0.5, 2)
    assert math.isnan(mean_of([None], "").point)


def test_the_metric_is_computed_again_from_the_sums_of_every_draw():
    # F = 2 tp / (2 tp + wrong), no mean of anything.
    statistics = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
    measure = Measure(statistics, lambda sums: 2 * sums[..., 0] / (2 * sums[..., 0] + sums[..., 1]), "", 5)
    draws = draw_scenes(["a", "a", "b", "c", "d"], seed=1)
    values = drawn_values(measure, draws)
    for row in (0, 17, 999):
        drawn = [number for number in range(5) for _ in range(int(draws.counts[row, draws.scene[number]]))]
        tp, wrong = statistics[drawn].sum(axis=0)
        assert math.isclose(values[row], 2 * tp / (2 * tp + wrong))


def test_every_draw_has_as_many_scenes_as_there_are():
    draws = draw_scenes([f"s{number}" for number in range(7)], seed=0)
    assert draws.counts.shape == (1000, 7)
    assert (draws.counts.sum(axis=1) == 7).all()


def test_a_number_that_does_not_exist_in_every_draw_has_no_interval():
    assert interval(np.array([1.0, math.nan])) == (None, None)
    assert math.isnan(ratio(np.array([0.0, 0.0])))
