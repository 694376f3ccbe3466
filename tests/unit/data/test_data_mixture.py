import logging
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivedistill.data.mixture import epoch_order, load_mixture, load_source, regime_ratio
from drivedistill.data.samples import write_samples
from drivedistill.problems import InputError
from drivedistill.records import Sample
from drivedistill.sections import Source


def rows(regimes: str) -> list[Sample]:
    """One sample per letter: r regular, c corner."""
    fields = {
        "dataset": "d",
        "scene": "s",
        "frame": "f",
        "split": "train",
        "task": "planning",
        "question": "?",
        "images": {},
    }
    return [
        Sample(id=str(index), regime="corner" if letter == "c" else "regular", **fields)
        for index, letter in enumerate(regimes)
    ]


def source(root, name, **fields):
    defaults = {"name": name, "format": "jsonl", "root": root, "regime": "regular", "file": name}
    return Source(**{**defaults, **fields})


def store(root, sample, name, count=20, **fields):
    samples = [
        sample(
            f"{name}_{index}",
            **{"images": {"CAM_FRONT": str(root / "a.jpg")}, "scene": f"{name} {index // 2}", **fields},
        )
        for index in range(count)
    ]
    write_samples(root / f"{name}.jsonl", samples, root)


@pytest.fixture
def made_sources(made):
    return [
        Source(name="drivelm", format="drivelm", root=made / "regular", regime="regular"),
        Source(
            name="coda",
            format="coda_lm",
            root=made / "corner",
            regime="corner",
            split_by="file",
            files={"train": "Train", "test": "Val"},
        ),
    ]


def test_sources_are_joined_by_split(made_sources):
    splits = load_mixture(made_sources)
    assert list(splits) == ["train", "val", "test"]
    assert {sample.dataset for sample in splits["train"]} == {sample.dataset for sample in splits["test"]}
    assert all(sample.split == name for name, samples in splits.items() for sample in samples)
    regular, corner = regime_ratio(splits["train"])
    assert regular == sum(sample.dataset == "drivelm" for sample in splits["train"]) and corner > 0


def test_limit_keeps_the_first_samples_of_every_split(made_sources):
    whole = load_mixture(made_sources)
    limited = load_mixture([source.model_copy(update={"limit": 3}) for source in made_sources])
    for dataset in ("drivelm", "coda_lm"):
        for name in whole:
            kept = [sample for sample in limited[name] if sample.dataset == dataset]
            assert kept == [sample for sample in whole[name] if sample.dataset == dataset][:3]


def test_a_source_keeps_the_kinds_of_questions_it_names(tmp_path, sample):
    store(tmp_path, sample, "a", extra={"template": "weather"}, question="How is the weather?")
    store(tmp_path, sample, "b", question="Is <c1,CAM_FRONT,1.0,2.0> a car?")
    masked = source(tmp_path, "b", templates=["Is <OBJ> a car?"], fractions={"train": 1})
    assert (
        len(load_mixture([source(tmp_path, "a", templates=["weather"], fractions={"train": 1}), masked])["train"]) == 40
    )
    with pytest.raises(InputError, match="'weather'") as error:
        load_mixture([source(tmp_path, "a", templates=["light", "weather"])])
    assert error.value.problems[0].found == "light"


def thinned(tmp_path, sample, every, order=1, **fields):
    """Ids of 400 key frames with a question of two kinds each, by split, after thinning."""
    samples = [
        sample(
            f"{kind} {frame}",
            frame=str(frame),
            scene=f"s{frame // 2}",
            extra={"template": kind},
            images={"CAM_FRONT": str(tmp_path / "a.jpg")},
        )
        for frame in range(400)
        for kind in ("objects", "weather")
    ][::order]
    write_samples(tmp_path / "a.jsonl", samples, tmp_path)
    splits = load_mixture([source(tmp_path, "a", every=every, fractions={"train": 0.5, "val": 0.5}, **fields)])
    return {name: {sample.id for sample in samples} for name, samples in splits.items()}


def test_kinds_of_questions_are_kept_on_every_nth_key_frame_of_train_only(tmp_path, sample, caplog):
    whole = thinned(tmp_path, sample, {})
    with caplog.at_level(logging.WARNING, "drivedistill"):
        kept = thinned(tmp_path, sample, {"objects": 4})
    objects = {id for id in kept["train"] if id.startswith("objects")}
    assert kept["val"] == whole["val"]
    assert kept["train"] - objects == {id for id in whole["train"] if id.startswith("weather")}
    assert 30 <= len(objects) <= 70 and objects < whole["train"], "about a quarter of 200 key frames"
    assert f"{len(objects)} of 200 of objects" in caplog.text
    assert thinned(tmp_path, sample, {"objects": 1}) == whole


def test_which_key_frames_stay_depends_on_their_names_only(tmp_path, sample):
    kept = thinned(tmp_path, sample, {"objects": 3, "weather": 3})
    assert thinned(tmp_path, sample, {"objects": 3, "weather": 3}, order=-1) == kept
    frames = [{id.split()[1] for id in kept["train"] if id.startswith(kind)} for kind in ("objects", "weather")]
    assert frames[0] == frames[1]
    of_objects = thinned(tmp_path, sample, {"objects": 3}, templates=["objects"])["train"]
    assert of_objects == {id for id in kept["train"] if id.startswith("objects")}


def test_unknown_kinds_and_numbers_are_refused_where_questions_are_thinned(tmp_path, sample):
    with pytest.raises(InputError, match="'objects'") as error:
        thinned(tmp_path, sample, {"objects": 4, "light": 2})
    assert (error.value.problems[0].found, error.value.problems[0].record) == ("light", "source a, every")
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        source(tmp_path, "a", every={"objects": 0})


def test_problems_of_all_sources_are_listed_at_once(tmp_path):
    with pytest.raises(InputError) as error:
        load_mixture([source(tmp_path, "one"), source(tmp_path, "two", format="drivelm", file="train")])
    assert len(error.value.problems) == 2


def test_same_data_twice_is_refused(tmp_path, sample):
    store(tmp_path, sample, "a")
    with pytest.raises(InputError, match="20 ids more than once") as error:
        load_mixture([source(tmp_path, "a"), source(tmp_path, "a").model_copy(update={"name": "again"})])
    assert "a, again" in error.value.problems[0].remedy


def test_scene_in_two_splits_of_two_sources_is_refused(tmp_path, sample):
    store(tmp_path, sample, "a", scene="x")
    store(tmp_path, sample, "b", scene="x")
    with pytest.raises(InputError, match="scene x"):
        load_mixture(
            [
                source(tmp_path, "a", fractions={"train": 1}),
                source(tmp_path, "b", fractions={"test": 1}),
            ]
        )


def test_splitting_by_question_leaks_and_says_so(tmp_path, sample, caplog):
    store(tmp_path, sample, "a")
    with caplog.at_level(logging.WARNING, "drivedistill"):
        splits = load_mixture([source(tmp_path, "a", split_by="question")])
    assert {name: len(samples) for name, samples in splits.items()} == {"train": 18, "val": 1, "test": 1}
    assert "scores are optimistic" in caplog.text


def test_empty_splits_are_refused(tmp_path, sample):
    store(tmp_path, sample, "a")
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(InputError, match="an empty split"):
        load_mixture([source(tmp_path, "a", split_by="file", files={"train": "a", "val": "none"})])
    with pytest.raises(InputError, match="samples in the split `train`"):
        load_mixture([source(tmp_path, "a", fractions={"test": 1})])


@given(st.text("rc", max_size=60), st.integers(), st.integers(0, 50))
def test_an_epoch_without_a_ratio_is_a_permutation(regimes, seed, epoch):
    samples = rows(regimes)
    order = epoch_order(samples, seed, epoch, None)
    assert sorted(order) == list(range(len(samples)))
    assert order == epoch_order(samples, seed, epoch, None)


@given(st.text("rc", max_size=60), st.integers(), st.integers(1, 12), st.floats(0.1, 40))
def test_with_a_ratio_all_regular_samples_appear_once_and_corner_samples_equally_often(regimes, seed, epochs, ratio):
    samples = rows(regimes)
    regular, corner = regime_ratio(samples)
    orders = [epoch_order(samples, seed, epoch, ratio) for epoch in range(epochs)]
    uses = Counter(index for order in orders for index in order)
    if not (regular and corner):
        assert all(sorted(order) == list(range(len(samples))) for order in orders)
        return
    for order in orders:
        assert sorted(index for index in order if regimes[index] == "r") == [
            i for i, x in enumerate(regimes) if x == "r"
        ]
        assert len(order) == regular + max(1, round(regular / ratio))
    counts = [uses[index] for index, letter in enumerate(regimes) if letter == "c"]
    assert max(counts) - min(counts) <= 1


def test_epochs_and_seeds_differ():
    samples = rows("r" * 50 + "c" * 10)
    assert len({tuple(epoch_order(samples, seed, epoch, 10)) for seed in range(3) for epoch in range(3)}) == 9


def test_order_is_the_same_on_every_machine():
    assert epoch_order(rows("rrrrrrcc"), 0, 0, None) == [4, 6, 1, 3, 2, 5, 7, 0]


def test_kinds_that_are_left_out_are_in_no_split(tmp_path, sample):
    whole = thinned(tmp_path, sample, {})
    kept = thinned(tmp_path, sample, {}, without=["objects"])
    assert kept == {name: {id for id in ids if id.startswith("weather")} for name, ids in whole.items()}
    with pytest.raises(InputError, match="'weather'") as error:
        thinned(tmp_path, sample, {}, without=["lights"])
    assert (error.value.problems[0].found, error.value.problems[0].record) == ("lights", "source a, without")


@pytest.mark.parametrize("kinds", [{"templates": ["objects"]}, {"without": ["objects"]}, {"every": {"objects": 2}}])
def test_kinds_are_not_looked_for_where_nothing_is_read(tmp_path, kinds):
    asked = source(tmp_path, "a", split_by="file", files={"train": "a"}, **kinds)
    assert load_source(asked.model_copy(update={"files": {}})) == {}


def test_only_the_capabilities_that_are_named_are_kept(tmp_path, sample):
    tasks = ("perception", "prediction", "behavior", "planning")
    drawn = [sample(f"{i}", task=tasks[i % 4], images={"CAM_FRONT": str(tmp_path / "a.jpg")}) for i in range(12)]
    write_samples(tmp_path / "a.jsonl", drawn, tmp_path)
    all_in = {"fractions": {"train": 1}}
    kept = load_source(source(tmp_path, "a", capabilities=["reasoning"], **all_in))["train"]
    assert Counter(item.task for item in kept) == {"prediction": 3, "behavior": 3}
    write_samples(tmp_path / "b.jsonl", drawn[:1], tmp_path)
    with pytest.raises(InputError, match="capabilities of the questions in train: perception"):
        load_source(source(tmp_path, "b", capabilities=["perception", "planning"], **all_in))
