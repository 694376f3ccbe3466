"""Features from the cache are those of the tower; keys tell apart what differs; what does not fit is refused."""

from __future__ import annotations

import os
import pickle
import re
import signal
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import tiny
from drivedistill.data.collate import collate, questions
from drivedistill.distill import cache_build, cache_folder
from drivedistill.distill.cache import open_cache, views_of
from drivedistill.distill.cache_build import Part, build, plan
from drivedistill.distill.row_store import RowStore
from drivedistill.problems import InputError, RunError
from drivedistill.records import Region
from drivedistill.runs import Parts, assemble
from drivedistill.runs import run as train
from drivedistill.signals import Interrupted
from drivedistill.subject import save_subject

FROZEN = {"model__frozen": [r"^vision\."], "model__allow_random": True}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def run(root) -> Parts:
    """A student with a frozen tower, and the six pictures that its eight samples share."""
    return assemble(tiny.recipe(root, **FROZEN))


@pytest.fixture(scope="module")
def samples(run):
    return [sample for split in run.splits.values() for sample in split]


@pytest.fixture(scope="module")
def cache(root, run, samples) -> Path:
    build(root / "cache", {"student": run.student}, samples, precision="no", dtype="float32")
    return root / "cache"


def made(folder, subject, samples, **options) -> tuple[list[Part], int]:
    return build(folder, {"student": subject}, samples, **{"precision": "no", "dtype": "float32", **options})


def asked(folder, subject, samples, **options) -> Part:
    return plan(folder, {"student": subject}, samples, **{"precision": "no", "dtype": "float32", **options})[0]


def reader(folder, subject, samples, precision="no"):
    return open_cache(folder, {"student": subject}, samples, precision)["student"]


def with_features(subject, features):
    return replace(subject.preparation, features=features)


def listing(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def logits(subject, samples, preparation) -> torch.Tensor:
    inputs = collate(samples, {"student": preparation}).role("student")
    with torch.no_grad():
        return subject.model.eval()(**inputs.model).logits


# --- features are the tower's --------------------------------------------------------------------------------------


def test_logits_from_the_cache_equal_live_ones_bit_for_bit_in_a_batch_of_the_same_shape(tmp_path, run, samples):
    whole = [next(sample for sample in samples if len(sample.images) == 6)]
    made(tmp_path / "c", run.student, whole, batch_size=6)
    features = reader(tmp_path / "c", run.student, whole)
    cached = logits(run.student, whole, with_features(run.student, features))
    assert torch.equal(cached, logits(run.student, whole, run.student.preparation))


def test_in_other_batches_they_differ_by_rounding_only(cache, run, samples):
    """How a matrix product is summed may depend on the number of its rows: 32 here, 33 views in the live batch."""
    cached = logits(run.student, samples, with_features(run.student, reader(cache, run.student, samples)))
    live = logits(run.student, samples, run.student.preparation)
    torch.testing.assert_close(cached, live, rtol=1e-5, atol=1e-6)


def test_half_precision_is_close_and_half_as_large(tmp_path, cache, run, samples):
    (part,), _ = made(tmp_path / "c", run.student, samples, dtype="float16")
    features = reader(tmp_path / "c", run.student, samples)
    cached = logits(run.student, samples, with_features(run.student, features))
    live = logits(run.student, samples, run.student.preparation)
    torch.testing.assert_close(cached, live, rtol=1e-2, atol=1e-2)
    assert not torch.equal(cached, live)
    assert 2 * part.features.store.row_bytes == reader(cache, run.student, samples).store.row_bytes


def test_pictures_are_not_opened_and_answers_are_the_same(cache, run, samples, monkeypatch):
    live = questions(samples, run.student.preparation)
    preparation = with_features(run.student, reader(cache, run.student, samples))
    monkeypatch.setattr(Image, "open", None)
    cached = questions(samples, preparation)
    assert cached.keys() - live.keys() == {"vision_features"}
    assert live.keys() - cached.keys() == {"pixel_values"}
    assert torch.equal(cached["view_mask"], live["view_mask"])
    assert not cached["vision_features"][~cached["view_mask"]].any()
    model = run.student.model.eval()
    assert torch.equal(model.generate(**cached, max_new_tokens=5), model.generate(**live, max_new_tokens=5))


def test_a_loading_process_is_handed_names_only(cache, run, samples):
    preparation = with_features(run.student, reader(cache, run.student, samples))
    assert len(pickle.dumps(preparation.features)) < 1000
    sent = pickle.loads(pickle.dumps(preparation))
    assert sent.features == preparation.features
    batches = [collate(samples, {"student": one}).role("student").model for one in (sent, preparation)]
    assert torch.equal(*(batch["vision_features"] for batch in batches))


# --- keys ----------------------------------------------------------------------------------------------------------


def keys(cache, subject, samples, drawing="target") -> set[str]:
    features = asked(cache, subject, samples).features
    return {features.key(view.path, view.region, drawing) for view in views_of(samples)}


def test_a_picture_that_many_questions_share_lies_there_once(cache, run, samples):
    assert sum(len(sample.images) for sample in samples) == 33
    assert len(reader(cache, run.student, samples).store) == 6


def test_a_region_makes_an_entry_for_its_picture_and_its_sample_only(cache, run, samples):
    plain = keys(cache, run.student, samples)
    first = samples[0].model_copy(update={"region": Region(camera="CAM_FRONT", box=(10, 10, 40, 20))})
    other = first.model_copy(update={"region": Region(camera="CAM_FRONT", box=(10, 10, 40, 21))})
    named = first.model_copy(update={"region": Region(camera="CAM_FRONT", box=(10, 10, 40, 20), category="car")})
    drawn = keys(cache, run.student, [*samples, first, other, named])
    assert len(plain) == 6
    assert plain < drawn
    assert len(drawn) == 8
    assert len(keys(cache, run.student, [first], "full") | keys(cache, run.student, [first])) == len(first.images) + 1


def test_other_bytes_are_another_key_and_equal_ones_the_same_wherever_they_lie(tmp_path, cache, run, samples):
    one = samples[0]
    path = Path(one.images["CAM_FRONT"])
    copy, other = tmp_path / "copy.png", tmp_path / "other.png"
    copy.write_bytes(path.read_bytes())
    other.write_bytes(path.read_bytes() + b"\0")  # the same pixels
    one = one.model_copy(update={"images": {"CAM_FRONT": str(path)}})
    copied, changed = (one.model_copy(update={"images": {"CAM_FRONT": str(file)}}) for file in (copy, other))
    assert keys(cache, run.student, [one]) == keys(cache, run.student, [copied])
    assert keys(cache, run.student, [one]).isdisjoint(keys(cache, run.student, [changed]))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 1}, "backbone.weights"),
        ({"data__image_size": 64}, "preprocessing.image_size 32 instead of 64"),
        ({"data__jpeg_scale": "reduced"}, "decoder.jpeg_scale None instead of reduced"),
        ({"train__precision": "bf16"}, "precision no instead of bf16"),
        ({"model__overrides": {"vision": {"depths": [1, 2], "hidden_sizes": [16, 32], "num_stages": 2}}},
         "backbone.config.depths [1, 1] instead of [1, 2]"),
    ],
    ids=["weights", "size", "scale", "precision", "network"],
)  # fmt: skip
def test_features_that_were_made_otherwise_are_refused_by_what_differs(root, cache, samples, changes, named):
    recipe = tiny.recipe(root, **FROZEN, **changes)
    with pytest.raises(InputError, match=re.escape(named)) as caught:
        open_cache(cache, {"student": assemble(recipe).student}, samples, recipe.train.precision)
    assert len(caught.value.problems) == 1


def test_the_processors_numbers_count_too(cache, run, samples):
    changed = type(run.student)(**vars(run.student))
    processor = type(run.student.preparation.processor)(size={"height": 32, "width": 32}, image_mean=[0.4, 0.4, 0.4])
    changed.preparation = replace(run.student.preparation, processor=processor)
    with pytest.raises(InputError, match=r"preprocessing.processor.image_mean \[0.485, 0.456, 0.406\] instead of"):
        reader(cache, changed, samples)


def test_what_never_runs_does_not_count(run, samples, cache):
    """A stored head has nothing to do with features; two models with the same tower share them."""
    before = asked(cache, run.student, samples).features.store
    run.student.model.vision.head = torch.nn.Linear(32, 10).requires_grad_(False)
    try:
        assert asked(cache, run.student, samples).features.store == before
    finally:
        run.student.model.vision.head = None


# --- building ------------------------------------------------------------------------------------------------------


def test_a_second_call_computes_nothing_and_changes_no_row(cache, run, samples):
    before = {name: file for name, file in listing(cache).items() if not name.endswith("pictures.jsonl")}
    assert made(cache, run.student, samples)[1] == 0
    after = {name: file for name, file in listing(cache).items() if not name.endswith("pictures.jsonl")}
    assert after == before


def test_a_plan_writes_nothing_and_says_what_would_be_there(tmp_path, run, samples):
    part = asked(tmp_path / "none", run.student, samples)
    assert not (tmp_path / "none").exists()
    assert "6 views of 6 pictures, 6 to compute; 0.0 MB of float32 [16, 32]" in str(part)
    assert part.features.store.row_bytes == 16 * 32 * 4


@pytest.fixture
def own(tmp_path, samples):
    """The samples with pictures of their own, which a test may change."""
    places = {}
    for sample in samples:
        for path in sample.images.values():
            places[path] = tmp_path / Path(path).name
            places[path].write_bytes(Path(path).read_bytes())
    return [
        sample.model_copy(update={"images": {camera: str(places[path]) for camera, path in sample.images.items()}})
        for sample in samples
    ]


def test_changed_pictures_are_noticed_counted_and_computed_alone(tmp_path, run, own):
    made(tmp_path / "c", run.student, own)
    for shade, camera in enumerate(("CAM_FRONT", "CAM_BACK")):
        path = next(sample for sample in own if len(sample.images) == 6).images[camera]
        Image.new("RGB", (64, 48), (200, 100 * shade, 30)).save(path)
    with pytest.raises(InputError, match=r"2 are missing, first .*CAM_FRONT\.png") as caught:
        reader(tmp_path / "c", run.student, own)
    assert "run `drivedistill cache RECIPE`" in str(caught.value)
    (part,), computed = made(tmp_path / "c", run.student, own)
    assert computed == 2
    cached = logits(run.student, own, with_features(run.student, reader(tmp_path / "c", run.student, own)))
    torch.testing.assert_close(cached, logits(run.student, own, fresh(run.student)), rtol=1e-5, atol=1e-6)
    assert len(part.features.store) == 8  # the old ones stay


def fresh(subject):
    """A preparation that remembers no picture."""
    return replace(subject.preparation, pictures=type(subject.preparation.pictures)(0))


def test_touched_pictures_are_read_again_and_nothing_is_computed(tmp_path, run, own):
    made(tmp_path / "c", run.student, own)
    for path in own[1].images.values():
        os.utime(path, ns=(1, 1))
    assert len(reader(tmp_path / "c", run.student, own).store) == 6
    assert made(tmp_path / "c", run.student, own)[1] == 0
    assert '"mtime_ns":1,' in (tmp_path / "c/pictures.jsonl").read_text()


def test_known_pictures_are_not_read_again(cache, run, samples, monkeypatch):
    monkeypatch.setattr("hashlib.file_digest", None)
    assert reader(cache, run.student, samples)


def test_a_picture_that_changes_during_a_run_is_no_other_ones_features(tmp_path, run, own):
    made(tmp_path / "c", run.student, own)
    features = reader(tmp_path / "c", run.student, own)
    path = own[0].images["CAM_FRONT"]
    Image.new("RGB", (64, 48)).save(path)
    with pytest.raises(InputError, match="changed since the run began"):
        features.read(path, None, "target")


def test_a_picture_that_changes_while_it_is_read_is_not_kept(tmp_path, run, own, monkeypatch):
    def replaced(path, region, preparation):
        pixels = torch.zeros(3, 32, 32)
        Image.new("RGB", (64, 48)).save(path)
        return pixels

    monkeypatch.setattr(cache_build, "pixels", replaced)
    with pytest.raises(RunError, match="was changed while it was read"):
        made(tmp_path / "c", run.student, own)
    assert len(asked(tmp_path / "c", run.student, own).missing) == 1


def test_a_build_that_is_stopped_goes_on_to_the_same_bytes(tmp_path, run, samples, cache, monkeypatch):
    class Stopped(Exception):
        pass

    regions = [
        samples[0].model_copy(update={"region": Region(camera="CAM_FRONT", box=(i, 5, 30, 30))}) for i in range(20)
    ]
    made(tmp_path / "whole", run.student, regions, batch_size=4)
    original, calls = RowStore.append, []

    def stopping(self, records):
        if len(calls) % 2:
            calls.append(0)
            raise Stopped
        calls.append(0)
        original(self, records)

    monkeypatch.setattr(RowStore, "append", stopping)
    stops = 0
    while asked(tmp_path / "parts", run.student, regions).missing:
        try:
            made(tmp_path / "parts", run.student, regions, batch_size=4)
        except Stopped:
            stops += 1
    assert stops >= 2
    whole, parts = (
        asked(tmp_path / name, run.student, regions).features.store.folder / "rows.bin" for name in ("whole", "parts")
    )
    assert whole.read_bytes() == parts.read_bytes()


def test_damaged_rows_are_computed_again_on_request(tmp_path, run, samples):
    (part,), _ = made(tmp_path / "c", run.student, samples)
    rows = part.features.store.folder / "rows.bin"
    whole = rows.read_bytes()
    rows.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(InputError, match="--verify"):
        logits(run.student, samples, with_features(run.student, reader(tmp_path / "c", run.student, samples)))
    assert made(tmp_path / "c", run.student, samples)[1] == 0
    assert made(tmp_path / "c", run.student, samples, verify=True)[1] == 1
    assert rows.read_bytes() == whole


def test_features_too_large_for_half_precision_are_refused(tmp_path, root, samples):
    subject = assemble(tiny.recipe(root, **FROZEN)).student
    with torch.no_grad():
        subject.model.vision.model.layernorm.weight.fill_(1e6)
    with pytest.raises(RunError, match="not finite in float16; use --dtype float32"):
        made(tmp_path / "c", subject, samples, dtype="float16")
    assert made(tmp_path / "c", subject, samples)[1] == 6


# --- roles ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def teacher(root) -> str:
    """A teacher on disk, with a tower of its own."""
    subject = tiny.subject("driving_t5", root, seed=7)
    save_subject(subject, subject.model, root / "teacher", "card")
    return str(root / "teacher")


@pytest.mark.parametrize(
    ("frozen", "readers"),
    [(FROZEN, {"student", "teacher"}), ({}, {"teacher"})],
    ids=["two frozen towers", "the student's trains"],
)
def test_every_frozen_tower_reads_its_own_features(root, tmp_path, teacher, frozen, readers):
    recipe = tiny.recipe(root, teacher={"path": teacher}, **frozen)
    live = assemble(recipe)
    samples = [*live.splits["train"], *live.splits["val"]]
    roles = {"student": live.student, "teacher": live.teacher}
    parts, computed = build(tmp_path / "c", roles, samples, precision="no", dtype="float32")
    assert (len(parts), computed) == (len(readers), 6 * len(readers))
    cached = assemble(tiny.recipe(root, teacher={"path": teacher}, **frozen, data__vision_cache=str(tmp_path / "c")))
    batches = [collate(samples, one.setting.preparations) for one in (live, cached)]
    assert {role for role in ("student", "teacher") if "vision_features" in batches[1].role(role).model} == readers
    with torch.no_grad():
        signals = [one.setting.teacher.signal(batch).logits for one, batch in zip((live, cached), batches, strict=True)]
        rows = [one.setting.student.eval()(batch).logits for one, batch in zip((live, cached), batches, strict=True)]
    torch.testing.assert_close(signals[0], signals[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(rows[0], rows[1], rtol=1e-5, atol=1e-5)


def test_two_roles_with_one_tower_share_rows_and_tensors(root, tmp_path, teacher):
    changes = {"teacher": {"path": teacher}, "model": {"path": teacher, "frozen": [r"^vision\."]}}
    live = assemble(tiny.recipe(root, **changes))
    samples = [*live.splits["train"], *live.splits["val"]]
    roles = {"student": live.student, "teacher": live.teacher}
    (part,), computed = build(tmp_path / "c", roles, samples, precision="no", dtype="float32")
    assert (part.roles, computed) == (["student", "teacher"], 6)
    cached = assemble(tiny.recipe(root, **changes, data__vision_cache=str(tmp_path / "c")))
    assert cached.setting.preparations.keys() == {"student"}
    assert "vision_features" in collate(samples[:2], cached.setting.preparations).role("teacher").model


# --- what is refused -----------------------------------------------------------------------------------------------


def test_nothing_to_cache_is_refused_with_a_reason_per_role(root, tmp_path, samples, run):
    training = assemble(tiny.recipe(root)).student
    vlm = tiny.subject("llava", root)
    with pytest.raises(InputError) as caught:
        build(tmp_path / "c", {"student": training, "teacher": vlm}, samples, precision="no", dtype="float32")
    found = {problem.record: problem.found for problem in caught.value.problems}
    assert found == {"student": "one that trains", "teacher": "a model of family hf_vlm, which is not supported yet"}
    with pytest.raises(InputError, match="one that trains"):
        reader(tmp_path / "c", training, samples)


def test_a_folder_that_is_no_cache_is_neither_read_nor_written(tmp_path, run, samples):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/cache.json").write_text('{"holds": "bees"}')
    before = listing(tmp_path)
    for name in ("mine", "file", "other"):
        for attempt in (made, asked, reader):
            with pytest.raises(InputError, match="something else"):
                attempt(tmp_path / name, run.student, samples)
    with pytest.raises(InputError, match="no such file or folder"):
        reader(tmp_path / "none", run.student, samples)
    assert listing(tmp_path) == before


def test_an_empty_cache_lacks_the_tower(tmp_path, run, samples):
    with cache_folder.claimed(tmp_path / "c", "data.vision_cache"), pytest.raises(InputError, match="found:    none"):
        reader(tmp_path / "c", run.student, samples)


def test_a_second_builder_is_refused_while_the_first_one_works(tmp_path, run, samples):
    with (
        cache_folder.claimed(tmp_path / "c", "data.vision_cache"),
        pytest.raises(InputError, match="another is writing it"),
    ):
        made(tmp_path / "c", run.student, samples)
    assert made(tmp_path / "c", run.student, samples)[1] == 6


def test_a_patient_builder_waits_for_the_first_one(tmp_path, run, samples, monkeypatch):
    monkeypatch.setattr(cache_folder, "POLL_S", 0.01)
    first = ExitStack()
    first.enter_context(cache_folder.claimed(tmp_path / "c", "data.vision_cache"))
    ended: list[float] = []
    threading.Timer(0.3, lambda: (ended.append(time.monotonic()), first.close())).start()
    assert made(tmp_path / "c", run.student, samples, wait=True)[1] == 6
    assert ended
    assert time.monotonic() > ended[0]


def test_a_patient_builder_leaves_when_it_is_asked_to(tmp_path, run, samples, monkeypatch):
    monkeypatch.setattr(cache_folder, "POLL_S", 0.01)
    with cache_folder.claimed(tmp_path / "c", "data.vision_cache"), pytest.raises(Interrupted):
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
        made(tmp_path / "c", run.student, samples, wait=True)


def test_a_builder_that_died_at_once_is_no_obstacle(tmp_path, run, samples):
    (tmp_path / "c").mkdir()
    (tmp_path / "c/.cache.json.123.tmp").write_text("{")
    assert made(tmp_path / "c", run.student, samples)[1] == 6


def test_a_run_may_not_overwrite_its_cache(tmp_path, root, run, samples):
    recipe = tiny.recipe(root, **FROZEN, data__vision_cache=str(tmp_path / "run/cache"))
    made(tmp_path / "run/cache", run.student, samples)
    (tmp_path / "run/recipe.yaml").write_text("")
    with pytest.raises(InputError, match=r"data\.vision_cache inside it"):
        train(recipe, tmp_path / "run", overwrite=True)
