"""The order of the samples: nothing dropped, nothing that depends on how a window is cut."""

from hypothesis import given
from hypothesis import strategies as st

from drivedistill.data.stream import MicroBatches, Stream
from drivedistill.records import Sample


def samples(regular: int, corner: int) -> list[Sample]:
    shared = {"dataset": "d", "scene": "s", "frame": "f", "split": "train", "task": "planning", "question": "q"}
    regimes = ["regular"] * regular + ["corner"] * corner
    return [Sample(**shared, id=f"{i}", regime=r, answer="a", images={}) for i, r in enumerate(regimes)]


def take(stream: Stream, windows: int, start: int = 0) -> list[list[int]]:
    """The windows of all ranks, as lists of indices."""
    ranks = [iter(MicroBatches(stream, start, rank)) for rank in range(stream.ranks)]
    return [[index for _ in range(stream.accumulate) for rank in ranks for index in next(rank)] for _ in range(windows)]


SIZES = st.sampled_from([(12, 1, 1), (1, 12, 1), (3, 4, 1), (6, 1, 2), (2, 3, 2), (1, 6, 2)])


@given(sizes=SIZES, count=st.integers(1, 40), seed=st.integers(0, 5))
def test_windows_do_not_depend_on_micro_batches_and_ranks(sizes, count, seed):
    whole = take(Stream(samples(count, 0), seed, None, 12, 1, 1), 4)
    assert take(Stream(samples(count, 0), seed, None, *sizes), 4) == whole


@given(count=st.integers(1, 30), start=st.integers(0, 9))
def test_stream_from_a_step_on_is_the_rest_of_the_stream(count, start):
    stream = Stream(samples(count, 0), 0, None, 3, 2, 1)
    assert take(stream, 3, start) == take(stream, start + 3)[start:]


def test_every_sample_comes_once_per_epoch():
    stream = Stream(samples(7, 3), 0, None, 4, 1, 1)
    seen = [index for window in take(stream, 5) for index in window]
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert stream.windows_per_epoch == 2.5


def test_corner_ratio_changes_the_length_of_an_epoch():
    stream = Stream(samples(34, 20), 0, 17, 4, 1, 1)
    assert stream.epoch_size == 36
    first = [index for window in take(stream, 9) for index in window]
    assert sum(index >= 34 for index in first) == 2
