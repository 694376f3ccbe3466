"""A cached teacher says what the live one says; keys tell apart what differs; what does not fit is refused by name."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import tiny
from drivedistill.build import speaker_of
from drivedistill.data.collate import collate
from drivedistill.distill import teacher_cache_build
from drivedistill.distill.cache_folder import claimed, file_digests
from drivedistill.distill.likeliest import likeliest
from drivedistill.distill.row_store import RowStore
from drivedistill.distill.teacher import CachedTeacher, LiveTeacher
from drivedistill.distill.teacher_cache import answer_key, open_teacher_cache
from drivedistill.distill.teacher_cache_build import build, plan
from drivedistill.problems import InputError, RunError
from drivedistill.recipe import Recipe
from drivedistill.records import Region
from drivedistill.runs import assemble, run
from drivedistill.subject import save_subject

SHARP = 60.0
"""Makes a random teacher as sure of its words as a trained one."""


def save_teacher(folder: Path, seed: int = 7, sharp: float = SHARP, family: str = "driving_t5") -> str:
    subject = tiny.subject(family, folder.parent, seed=seed)
    with torch.no_grad():
        if family == "driving_t5":
            subject.model.language_model.decoder.final_layer_norm.weight.mul_(sharp)
        else:
            subject.model.get_output_embeddings().weight.mul_(sharp)
    save_subject(subject, subject.model, folder, "card")
    return str(folder)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def teacher(root) -> str:
    return save_teacher(root / "teacher")


@pytest.fixture(scope="module")
def recipe(root, teacher) -> Recipe:
    return tiny.recipe(root, teacher={"path": teacher})


@pytest.fixture(scope="module")
def live(recipe):
    return assemble(recipe)


@pytest.fixture(scope="module")
def samples(live):
    return live.splits["train"]


def made(folder, recipe, parts, samples, k: int | None = 64, **options):
    assert isinstance(parts.setting.teacher, LiveTeacher)
    speaker = speaker_of(recipe, parts.teacher)
    return build(folder, speaker, parts.setting.teacher, samples, k=k, **{"batch_size": 2, **options})


@pytest.fixture(scope="module")
def cache(root, recipe, live, samples) -> Path:
    made(root / "words", recipe, live, samples)
    return root / "words"


def opened(folder, recipe, parts, samples) -> CachedTeacher:
    return open_teacher_cache(folder, speaker_of(recipe, parts.teacher), samples)


def contents(folder: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: content for name, content in found.items() if not name.endswith("pictures.jsonl")}


# --- it says the same ----------------------------------------------------------------------------------------------


def check_says_the_same(top, dense, gold, k, vocabulary, temperature=1.0):
    kept = likeliest(dense[:, :vocabulary], gold, k, temperature)
    assert torch.equal(top.ids, kept.ids)
    torch.testing.assert_close(top.log_probs, kept.log_probs, rtol=1e-3, atol=2e-3)
    torch.testing.assert_close(top.log_tail.exp(), kept.log_tail.exp(), rtol=5e-3, atol=1e-5)
    torch.testing.assert_close(top.gold_loss, kept.gold_loss, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("order", [[0, 1], [1, 0], [5, 2, 3], [4]])
def test_the_words_are_the_live_teachers_whatever_the_batch(cache, recipe, live, samples, order):
    batch = collate([samples[i] for i in order], live.setting.preparations)
    signal = opened(cache, recipe, live, samples).signal(batch)
    assert signal.logits is None
    dense = live.setting.teacher.signal(batch).logits
    check_says_the_same(signal.top, dense, batch.gold, 64, len(live.student.preparation.tokenizer))


def test_of_kept_rows_the_right_ones_are_read(cache, recipe, live, samples):
    batch = collate(samples[:3], live.setting.preparations)
    cached = opened(cache, recipe, live, samples)
    whole = cached.signal(batch).top
    rows = torch.arange(batch.num_tokens) % 3 == 1
    some = cached.signal(batch.keep(rows)).top
    for name in ("ids", "log_probs", "log_tail", "gold_loss"):
        assert torch.equal(getattr(some, name), getattr(whole, name)[rows])


def test_an_answer_of_another_length_is_not_guessed_at(cache, recipe, live, samples):
    batch = collate(samples[:2], live.setting.preparations)
    with pytest.raises(ValueError, match="the cache"):
        opened(cache, recipe, live, samples).signal(replace(batch, ids=[samples[3].id, samples[1].id]))


@pytest.mark.parametrize("family", ["internvl", "qwen2_5_vl"])
def test_decoder_only_teachers_too(tmp_path, family):
    """Qwen's head is as wide as its tokenizer here; InternVL's processor and chat template take part in the fingerprint."""
    path = save_teacher(tmp_path / "teacher", sharp=300.0, family=family)
    data = {"data__image_size": 28, "data__max_question_tokens": 2000}
    recipe = tiny.recipe(tmp_path, teacher={"path": path}, model={"path": path}, distill__temperature=2.0, **data)
    parts = assemble(recipe)
    words, computed, captured = made(tmp_path / "c", recipe, parts, parts.splits["train"], k=None)
    assert computed == len(parts.splits["train"])
    assert "captured probability: 0.9" in captured or "captured probability: 1.0" in captured
    batch = collate(parts.splits["train"][:3], parts.setting.preparations)
    cached = opened(tmp_path / "c", recipe, parts, parts.splits["train"])
    dense = parts.setting.teacher.signal(batch).logits
    check_says_the_same(cached.signal(batch).top, dense, batch.gold, words.k, words.speaker.vocabulary, 2.0)


def test_rows_of_a_token_take_260_bytes_and_no_more(cache, recipe, live, samples):
    cached = opened(cache, recipe, live, samples)
    tokens = sum(cached.store.rows_of(key) for key in set(cached.keys.values()))
    assert (cached.store.folder / "rows.bin").stat().st_size == 260 * tokens
    assert tokens == collate(samples, live.setting.preparations).num_tokens
    card = json.loads((cached.store.folder.parent / "cache.json").read_text())
    assert set(card["parts"]) == {"tokens"}
    assert card["made_from"]["version"] == 1


def test_a_released_teacher_forgets(cache, recipe, live, samples):
    cached = opened(cache, recipe, live, samples)
    cached.signal(collate(samples[:2], live.setting.preparations))
    cached.close()
    assert "_rows" not in vars(cached.store)
    assert not cached.keys
    assert len(pickle.dumps(cached.store)) < 1000


# --- keys ----------------------------------------------------------------------------------------------------------


def test_keys_tell_apart_what_a_teacher_reads_and_nothing_else(cache, live, samples, tmp_path):
    digests, reading = file_digests(cache), live.teacher.preparation.reading
    one = next(sample for sample in samples if len(sample.images) == 6)
    front = Path(one.images["CAM_FRONT"])
    (tmp_path / "copy.png").write_bytes(front.read_bytes())
    (tmp_path / "other.png").write_bytes(front.read_bytes() + b"\0")
    box = Region(camera="CAM_FRONT", box=(10, 10, 40, 20))

    def key(reading=reading, **changes):
        return answer_key(one.model_copy(update=changes), reading, digests)

    same = [
        key(),
        key(id="z", regime="corner", scene="x", frame="y", task="planning"),
        key(images={**one.images, "CAM_FRONT": str(tmp_path / "copy.png")}),
        key(reading.model_copy(update={"max_answer_tokens": 7})),
    ]
    other = [
        key(question="Else?"),
        key(answer="Else."),
        key(region=box),
        key(region=box.model_copy(update={"box": (10, 10, 40, 21)})),
        key(images={**one.images, "CAM_FRONT": str(tmp_path / "other.png")}),
        key(images={"CAM_FRONT": one.images["CAM_FRONT"]}),
        key(images={**one.images, "CAM_FRONT": one.images["CAM_BACK"]}),
    ]
    assert len(set(same)) == 1
    assert len({same[0], *other}) == 1 + len(other)


def test_questions_that_read_the_same_share_their_rows(tmp_path, recipe, live, samples):
    twin = samples[0].model_copy(update={"id": "twin", "regime": "corner"})
    words, computed, _ = made(tmp_path / "c", recipe, live, [*samples, twin])
    assert computed == len(samples) == len(words.store)
    cached = opened(tmp_path / "c", recipe, live, [*samples, twin])
    top = [cached.signal(collate([one], live.setting.preparations)).top for one in (samples[0], twin)]
    assert torch.equal(top[0].log_probs, top[1].log_probs)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"distill__temperature": 2.0}, "temperature 1.0 instead of 2.0"),
        ({"train__precision": "bf16"}, "precision no instead of bf16"),
        ({"teacher": "other"}, "teacher.weights"),
        ({"teacher": "unit"}, "reading.coordinates pixel instead of unit"),
    ],
    ids=["temperature", "precision", "weights", "reading"],
)
def test_words_that_were_made_otherwise_are_refused_by_what_differs(root, cache, teacher, changes, named):
    if changes.get("teacher") == "other":
        changes = {"teacher": {"path": save_teacher(root / "other", seed=8)}}
    elif changes.get("teacher") == "unit":
        copy = root / "unit"
        copy.mkdir()
        for file in Path(teacher).iterdir():
            (copy / file.name).write_bytes(
                file.read_bytes().replace(b'"coordinates": "pixel"', b'"coordinates": "unit"')
            )
        changes = {"teacher": {"path": str(copy)}, "data__coordinates": "unit"}
    card = tiny.recipe(root, **{"teacher": {"path": teacher}, **changes}, distill__teacher_cache=str(cache))
    with pytest.raises(InputError, match=re.escape(named)) as caught:
        assemble(card)
    assert len(caught.value.problems) == 1


# --- building ------------------------------------------------------------------------------------------------------


def test_a_second_call_computes_nothing_and_changes_no_byte(cache, recipe, live, samples):
    before = contents(cache)
    assert made(cache, recipe, live, samples)[1] == 0
    assert contents(cache) == before


def test_a_plan_writes_nothing(tmp_path, recipe, live, samples):
    said = str(plan(tmp_path / "c", speaker_of(recipe, live.teacher), samples, 64))
    assert f"{len(samples)} answers of {len(samples)} questions, {len(samples)} to compute; k = 64, 260 bytes" in said
    assert not (tmp_path / "c").exists()


def test_a_build_that_is_stopped_goes_on_to_the_same_bytes(tmp_path, cache, recipe, live, samples, monkeypatch):
    class Stopped(Exception):
        pass

    original, calls = RowStore.append, []

    def stopping(self, records):
        calls.append(0)
        if len(calls) % 2:
            some = dict(list(records.items())[:1])  # the first answer of the batch is kept, the others are not
            original(self, some)
            raise Stopped
        original(self, records)

    monkeypatch.setattr(RowStore, "append", stopping)
    stops = 0
    for _ in range(20):
        try:
            made(tmp_path / "c", recipe, live, samples)
            break
        except Stopped:
            stops += 1
    assert stops >= 2
    assert contents(tmp_path / "c") == contents(cache)


def test_damaged_rows_are_refused_and_computed_again_on_request(tmp_path, recipe, live, samples):
    words, _, _ = made(tmp_path / "c", recipe, live, samples)
    rows = words.store.folder / "rows.bin"
    whole = rows.read_bytes()
    rows.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(InputError, match="--verify"):
        opened(tmp_path / "c", recipe, live, samples).signal(collate(samples, live.setting.preparations))
    assert made(tmp_path / "c", recipe, live, samples, verify=True)[1] == 1
    assert rows.read_bytes() == whole


def test_a_changed_picture_is_noticed(tmp_path, recipe, live, samples):
    moved = tmp_path / "front.png"
    moved.write_bytes(Path(samples[0].images["CAM_FRONT"]).read_bytes())
    own = samples[0].model_copy(update={"images": {"CAM_FRONT": str(moved)}})
    made(tmp_path / "c", recipe, live, [own, *samples[1:]])
    Image.new("RGB", (160, 90), (9, 9, 9)).save(moved)
    with pytest.raises(InputError, match=f"1 are missing, first that of sample {own.id}"):
        opened(tmp_path / "c", recipe, live, [own, *samples[1:]])
    assert made(tmp_path / "c", recipe, live, [own, *samples[1:]])[1] == 1


def test_a_picture_that_changes_while_it_is_read_is_not_kept(tmp_path, recipe, live, samples, monkeypatch):
    moved = tmp_path / "front.png"
    moved.write_bytes(Path(samples[0].images["CAM_FRONT"]).read_bytes())
    own = samples[0].model_copy(update={"images": {"CAM_FRONT": str(moved)}})
    original = teacher_cache_build._records

    def replaced(*given):
        Image.new("RGB", (64, 48)).save(moved)
        return original(*given)

    monkeypatch.setattr(teacher_cache_build, "_records", replaced)
    with pytest.raises(RunError, match=f"sample {own.id} was changed while it was read"):
        made(tmp_path / "c", recipe, live, [own])


def test_a_second_builder_is_refused_while_the_first_one_works(tmp_path, recipe, live, samples):
    with claimed(tmp_path / "c", "x"), pytest.raises(InputError, match="another is writing it"):
        made(tmp_path / "c", recipe, live, samples)


# --- captured mass -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unsure(root):
    """A teacher that holds nearly all tokens possible."""
    recipe = tiny.recipe(root, teacher={"path": save_teacher(root / "unsure", sharp=1.0)})
    return recipe, assemble(recipe)


def test_too_little_captured_is_refused_before_anything_is_computed(tmp_path, unsure):
    recipe, parts = unsure
    with pytest.raises(InputError, match=r"k = 64\n.*0\.98 or more") as caught:
        made(tmp_path / "c", recipe, parts, parts.splits["train"])
    (problem,) = caught.value.problems
    assert re.search(
        r"captured probability: 0\.\d{4} of corner tokens \(lowest 0\.\d\d\), 0\.\d{4} of regular", problem.found
    )
    assert "--top-k 128" in problem.remedy
    assert not list((tmp_path / "c").glob("teacher-*"))


def test_auto_doubles_k_until_it_is_enough(tmp_path, unsure):
    recipe, parts = unsure
    words, _, captured = made(tmp_path / "c", recipe, parts, parts.splits["train"], k=None)
    assert words.k == 256
    assert all(float(mass) >= 0.98 for mass in re.findall(r"(0\.\d{4}) of", captured))
    with pytest.raises(InputError, match=r"captured mass with k = 128"):
        made(tmp_path / "c", recipe, parts, parts.splits["train"], k=128)
    assert opened(tmp_path / "c", recipe, parts, parts.splits["train"]).store.dtype["ids"].shape == (words.k,)


def test_a_cache_that_captures_too_little_is_not_trained_on(tmp_path, unsure, monkeypatch):
    """A sample of the answers may look better than all of them."""
    recipe, parts = unsure
    train = parts.splits["train"]
    monkeypatch.setattr(teacher_cache_build, "_settled", lambda *given: 64)
    with pytest.raises(InputError, match="captured mass with k = 64"):
        made(tmp_path / "c", recipe, parts, train)
    with pytest.raises(InputError, match="--top-k 128"):
        opened(tmp_path / "c", recipe, parts, train)
    next((tmp_path / "c").glob("teacher-*/captured.json")).unlink()
    with pytest.raises(InputError, match="not finished"):
        opened(tmp_path / "c", recipe, parts, train)


# --- in a recipe ---------------------------------------------------------------------------------------------------


def test_with_a_cache_the_teachers_weights_are_not_loaded(root, cache, teacher):
    parts = assemble(tiny.recipe(root, teacher={"path": teacher}, distill__teacher_cache=str(cache)))
    assert isinstance(parts.setting.teacher, CachedTeacher)
    assert {parameter.device.type for parameter in parts.teacher.model.parameters()} == {"meta"}
    assert parts.setting.preparations.keys() == {"student"}


def test_agreement_is_still_checked(root, cache, teacher):
    card = {"preset": "tiny", "tokenizer": teacher, "overrides": tiny.recipe(root).model.overrides}
    same = tiny.recipe(root, teacher={"path": teacher}, model=card, distill__teacher_cache=str(cache))
    assert assemble(same).setting.teacher is not None
    unit = tiny.recipe(root, teacher={"path": teacher}, distill__teacher_cache=str(cache), data__coordinates="unit")
    with pytest.raises(InputError, match="points in pixel coordinates for the teacher"):
        assemble(unit)


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"distill__loss": "reverse_kl"}, ["distill.loss"]),
        ({"distill__loss": "jensen_shannon", "teacher": {"preset": "tiny"}}, ["distill.loss", "teacher.path"]),
        ({"teacher": None}, ["distill.teacher_cache"]),
        ({"distill__signal": "vision"}, ["distill.teacher_cache"]),
    ],
)
def test_what_a_cache_cannot_serve_is_refused_at_once(root, teacher, changes, fields):
    with pytest.raises(ValueError, match="teacher_cache") as caught:
        tiny.recipe(root, **{"teacher": {"path": teacher}, "distill__teacher_cache": "c", **changes})
    found = [problem.record for error in caught.value.errors() for problem in error["ctx"]["problems"]]
    assert found == fields


def test_a_run_may_not_overwrite_its_words(tmp_path, root, teacher):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/recipe.yaml").write_text("")
    recipe = tiny.recipe(root, teacher={"path": teacher}, distill__teacher_cache=str(tmp_path / "run/cache"))
    with pytest.raises(InputError, match=r"distill\.teacher_cache inside it"):
        run(recipe, tmp_path / "run", overwrite=True)
