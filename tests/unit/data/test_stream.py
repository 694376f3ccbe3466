"""The order of the samples: nothing dropped, nothing that depends on how a window is cut."""

import random

from hypothesis import given
from hypothesis import strategies as st

from drivedistill.data.collate import Reading, views
from drivedistill.data.stream import MicroBatches, Stream, by_length, shown_lengths
from drivedistill.records import CAMERAS, Sample


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


def spoken(count: int, seed: int) -> list[Sample]:
    """Samples whose answers are of very different lengths."""
    draw = random.Random(seed)
    return [sample.model_copy(update={"answer": "a" * draw.randint(1, 400)}) for sample in samples(count, 0)]


@given(
    cut=st.sampled_from([(4, 3, 1), (4, 1, 3), (6, 1, 2), (6, 2, 1)]), count=st.integers(1, 70), start=st.integers(0, 9)
)
def test_similar_lengths_go_on_from_any_step_and_do_not_depend_on_ranks(cut, count, start):
    size, *_ = cut
    stream = Stream(spoken(count, 0), 3, None, *cut, True)
    windows = take(stream, start + 3)
    assert take(stream, 3, start) == windows[start:]
    assert windows == take(Stream(spoken(count, 0), 3, None, size, 12 // size, 1, True), start + 3)


@given(count=st.integers(1, 70), size=st.integers(1, 9), seed=st.integers(0, 3))
def test_similar_lengths_drop_and_repeat_nothing(count, size, seed):
    stream = Stream(spoken(count, 1), seed, None, size, 1, 1, True)
    seen = [index for window in take(stream, 3 * count) for index in window]
    for epoch in range(3):
        assert sorted(seen[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_similar_lengths_keep_the_corner_ratio():
    stream = Stream(samples(34, 20), 0, 17, 4, 1, 1, True)
    first = [index for window in take(stream, 9) for index in window]
    assert sum(index >= 34 for index in first) == 2 and len(set(first)) == 36


def padding(stream: Stream) -> float:
    """Share of the places of an epoch's micro-batches that hold padding."""
    chosen = [[len(stream.samples[i].answer) for i in window] for window in take(stream, int(stream.windows_per_epoch))]
    return 1 - sum(map(sum, chosen)) / sum(max(lengths) * len(lengths) for lengths in chosen)


def test_similar_lengths_pad_little_in_every_epoch():
    mixed, similar = (Stream(spoken(803, 2), 0, None, 8, 1, 1, flag) for flag in (False, True))
    assert padding(mixed) > 0.35 and padding(similar) < 0.03
    windows = take(similar, 300)  # epochs begin in the middle of a micro-batch: 803 = 100 * 8 + 3
    wide = [
        w
        for w in windows
        if (spread := [len(similar.samples[i].answer) for i in w]) and max(spread) > 100 + min(spread)
    ]
    assert len(wide) <= 3 * 2


def test_questions_with_as_many_pictures_share_a_micro_batch():
    """A decoder-only model pads to the sample with most pictures, however long the answers are."""
    asked = [
        sample.model_copy(
            update={
                "question": "Why?" if n % 3 else f"What is <c1,{CAMERAS[n % 6]},1.0,2.0>?",
                "images": dict.fromkeys(CAMERAS, ""),
            }
        )
        for n, sample in enumerate(spoken(240, 0))
    ]
    reading = Reading(family="hf_vlm", image_size=28, views="named")
    stream = Stream(asked, 0, None, 8, 1, 1, True, shown_lengths(asked, reading))
    counts = [{sum(1 for _ in views(asked[i], reading)) for i in window} for window in take(stream, 30)]
    assert counts.count({1}) == 10 and counts.count({6}) == 20


def test_batches_of_similar_length_come_in_random_order():
    lengths = list(range(400))
    order = by_length(random.Random(0).sample(lengths, 400), lengths, 8, "0 0")
    means = [sum(order[first : first + 8]) / 8 for first in range(0, 400, 8)]
    assert means != sorted(means) and abs(sum(means[:25]) / 25 - 199.5) < 50
    assert order != by_length(random.Random(0).sample(lengths, 400), lengths, 8, "0 1")
