"""What is foretold of a run: counted exactly where it can be, tried where not, and the run's state stays as it is."""

import random

import pytest
import torch

import tiny
from drivedistill import dry_run, preflight
from drivedistill.cost import Cost, Decodes, Probe
from drivedistill.data.images import PictureCache, load_image
from drivedistill.distill.cache import views_of
from drivedistill.dry_run import describe
from drivedistill.preflight import frozen_towers, measure
from drivedistill.runs import assemble, run


def probe(**changes):
    usual = {"samples": 4, "tokens": 40, "views": 12, "pictures": 10, "decoding": 1.0, "text": 0.5}
    return Probe(**(usual | {"teacher": 2.0, "student": 3.0, "vision": {}, "update": 0.25} | changes))


def cost(probes=None, **changes):
    usual = {"per_epoch": 10.0, "total": 30, "accumulate": 2, "workers": 0, "peak_gb": 1.0}
    return Cost(**({"probes": probes or [probe()] * 2, "decodes": Decodes(600, 50, 50)} | usual | changes))


# --- counting -------------------------------------------------------------------------------------------------------


def test_pictures_that_all_fit_are_decoded_once():
    decodes = Decodes(uses=600, different=50, kept=50)
    assert decodes.first(1.0) == decodes.first(7.5) == 50
    assert 25 < decodes.first(0.1) < 50


def test_without_a_cache_every_use_decodes():
    assert Decodes(600, 50, 0).first(2.5) == pytest.approx(1500)
    assert Decodes(0.0, 0, 0).first(3) == 0


@pytest.mark.parametrize("kept", [10, 40, 100, 200])
@pytest.mark.parametrize("epochs", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("caches", [1, 2])
def test_expected_decodes_are_those_of_a_real_cache(tmp_path, monkeypatch, kept, epochs, caches):
    """100 pictures with six questions each, in random order, through caches that keep so many."""
    decoded = []
    monkeypatch.setattr("drivedistill.data.images.load_image", lambda path, *_, **__: decoded.append(path) or picture)
    path = tmp_path / "a.png"
    tiny.Image.new("RGB", (10, 10)).save(path)
    picture = load_image(path, None)
    shared = [PictureCache(1) for _ in range(caches)]
    for cache in shared:
        cache.limit = 300 * kept
    draw = random.Random(0)
    order = [name for _ in range(3) for name in draw.sample([f"{n}" for n in range(100)] * 6, 600)][: int(600 * epochs)]
    for place, name in enumerate(order):
        shared[place % caches].load(name, None)
    assert Decodes(600, 100, kept).first(epochs, caches) == pytest.approx(len(decoded), rel=0.12)


def test_seconds_add_up_in_one_process():
    reckoned = cost()
    assert reckoned.decode_s == 0.1
    assert reckoned.seconds(10) == pytest.approx(10 * (2 * (0.5 + 2 + 3) + 0.25) + 50 * 0.1)
    assert reckoned.seconds(30) - reckoned.seconds(20) == pytest.approx(10 * (2 * 5.5 + 0.25))


def test_workers_hide_the_shorter_part():
    learning = 10 * (2 * 5 + 0.25)
    assert cost(workers=2).seconds(10) == pytest.approx(learning)
    slow = [probe(text=40.0)] * 2
    assert cost(slow, workers=2).seconds(10) == pytest.approx(cost(slow, workers=2).preparing(10) / 2)


def test_spread_is_zero_for_equal_micro_batches_and_has_both_signs_for_others():
    assert cost().spread == (0, 0)
    low, high = cost([probe(student=s) for s in (1.0, 2.0, 3.0, 4.0)]).spread
    assert low < 0 < high


def test_what_caches_save_is_what_teacher_and_towers_take():
    seen = [probe(vision={"student": 1.0, "teacher": 0.5})] * 2
    assert cost(seen).saved_by_teacher_cache() == pytest.approx(10 * 2 * 2.0)
    assert cost(seen).saved_by_vision_cache() == pytest.approx(10 * 2 * 1.5 + 50 * 0.1)
    assert cost(seen).building_vision(24) == pytest.approx(24 * (1.5 / 12 + 0.1))
    assert cost([probe(), probe(teacher=0.0)]).building_teacher(8) == pytest.approx(4.0)  # silent for half of the run
    assert cost().saved_by_vision_cache() == 0


# --- trying ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def teacher(tmp_path):
    run(tiny.recipe(tmp_path, train__steps=1), tmp_path / "teacher")
    return str(tmp_path / "teacher")


def quick(monkeypatch):
    monkeypatch.setattr(preflight, "SECONDS", 0.01)


def test_a_live_teacher_and_its_tower_are_timed(tmp_path, teacher, monkeypatch):
    quick(monkeypatch)
    recipe = tiny.recipe(
        tmp_path, teacher={"path": teacher}, model={"path": teacher, "frozen": [r"^vision\."]}, train__accumulate=2
    )
    parts = assemble(recipe)
    assert frozen_towers(parts).keys() == {"student", "teacher"}
    found = measure(recipe, parts)
    assert len(found.probes) == preflight.FEWEST and found.total == 6
    for one in found.probes:
        assert min(one.teacher, one.student, one.update, one.text, *one.vision.values()) > 0
        assert one.vision["teacher"] < one.teacher and one.vision["student"] < one.student
        assert one.samples == 2 and one.pictures > 0
    assert 0 < found.peak_gb < 100


def test_a_tower_that_learns_is_nothing_to_cache(tmp_path, monkeypatch):
    quick(monkeypatch)
    recipe = tiny.recipe(tmp_path)
    parts = assemble(recipe)
    assert not frozen_towers(parts)
    assert measure(recipe, parts).saved_by_vision_cache() == 0


def test_trying_changes_no_weight(tmp_path, monkeypatch):
    quick(monkeypatch)
    parts = assemble(recipe := tiny.recipe(tmp_path))
    before = {name: value.clone() for name, value in parts.student.model.state_dict().items()}
    measure(recipe, parts)
    assert all(torch.equal(value, before[name]) for name, value in parts.student.model.state_dict().items())


def test_a_teacher_that_the_run_lets_go_is_let_go_on_the_way(tmp_path, teacher, monkeypatch):
    quick(monkeypatch)
    release = {"end": 0.01, "below": 0.5}
    recipe = tiny.recipe(tmp_path, teacher={"path": teacher}, distill={"release": release}, train__steps=100)
    found = measure(recipe, assemble(recipe))
    heard = [one.teacher > 1e-3 for one in found.probes]
    assert heard[0] and not heard[-1] and heard == sorted(heard, reverse=True)


def test_slow_preparation_is_found_in_its_part(tmp_path, monkeypatch):
    quick(monkeypatch)
    ticks = iter(range(10_000))
    monkeypatch.setattr(preflight.time, "perf_counter", lambda: float(next(ticks)))
    found = measure(recipe := tiny.recipe(tmp_path), assemble(recipe))
    assert {one.text for one in found.probes} == {1.0} and {one.decoding for one in found.probes} == {0.0}


def test_the_text_says_time_memory_and_what_caches_would_save(tmp_path, teacher, monkeypatch):
    quick(monkeypatch)
    model = {"path": teacher, "frozen": [r"^vision\."]}
    text = describe(tiny.recipe(tmp_path, teacher={"path": teacher}, model=model))
    for words in (
        "first epoch",
        "all steps",
        "memory at its peak",
        "vision of student and teacher",
        "answers of the teacher",
    ):
        assert words in text
    text = describe(tiny.recipe(tmp_path, data__workers=1))
    assert "caches would save" not in text and "workers come on top" in text
    assert "first epoch" not in describe(tiny.recipe(tmp_path, train__steps=0))


@pytest.mark.parametrize(("seed", "towers"), [(0, 1), (1, 2)])
def test_roles_with_one_tower_share_its_rows(tmp_path, teacher, monkeypatch, seed, towers):
    quick(monkeypatch)
    said = {}
    monkeypatch.setattr(
        dry_run, "_saving", lambda what, saved, megabytes, built: said.setdefault(what, megabytes) and what
    )
    student = tiny.recipe(tmp_path).model.model_dump() if seed else {"path": teacher}
    student |= {"frozen": [r"^vision\."], "allow_random": True}
    recipe = tiny.recipe(tmp_path, teacher={"path": teacher}, model=student, seed=seed)
    describe(recipe)
    parts = assemble(recipe)
    tower = frozen_towers(parts)["student"]
    views = len(views_of([*parts.splits["train"], *parts.splits["val"]]))
    (megabytes,) = (value for what, value in said.items() if what.startswith("vision of"))
    assert megabytes * 1e6 == pytest.approx(towers * views * tower.tokens * tower.width * 4)
