"""The pre-study: definitions on states made by hand, and the same numbers whatever the batch, the order and the padding."""

from __future__ import annotations

import itertools
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

import tiny
from drivedistill.batch import Map, Tap
from drivedistill.data.collate import collate
from drivedistill.data.samples import write_samples
from drivedistill.drivekd_sections import DriveKD
from drivedistill.models import attention
from drivedistill.models.student import Student, bare
from drivedistill.problems import InputError
from drivedistill.records import Sample
from drivedistill.study import observe as room
from drivedistill.study.curves import CAPABILITIES, Curve, curves, mean_cosine
from drivedistill.study.observe import (
    BINS,
    GRID,
    Directions,
    Seen,
    alignment,
    at,
    bundles_of,
    cells,
    change,
    observe,
    on_grid,
)
from drivedistill.subject import Subject, save_subject
from typed import typed

E1, E2 = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
TEXT, IMAGE, PADDING = 0, 1, 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def samples(folder: Path) -> list[Sample]:
    return tiny.samples(tiny.pictures(folder))


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def subject(request: pytest.FixtureRequest, folder: Path) -> Subject:
    return tiny.subject(request.param, folder, seed=3)


@pytest.fixture(scope="module")
def seen(subject: Subject, samples: list[Sample]) -> Seen:
    return observe(subject, samples, batch_size=8)


# --- definitions ------------------------------------------------------------------------------------------------------


def test_change_is_the_cosine_through_a_layer_over_real_tokens() -> None:
    before = torch.stack([E1, E1, E1, E1])[None]
    after = torch.stack([3 * E1, -E1, E2, torch.full((2,), torch.nan)])[None]  # equal, opposite, orthogonal, padding
    real = torch.tensor([[True, True, True, False]])
    np.testing.assert_allclose(change([before, after, after], real), [[0.0, 1.0]], atol=1e-6)
    np.testing.assert_allclose(change([before, after], torch.tensor([[True, False, True, False]])), [[0.5]], atol=1e-6)


def test_alignment_is_the_cosine_of_the_mean_tokens() -> None:
    kinds = torch.tensor([[TEXT, IMAGE, IMAGE, PADDING]], dtype=torch.int8)
    same = torch.stack([E1 + E2, 4 * E1, 4 * E2, torch.full((2,), torch.nan)])[None]
    apart, against = torch.stack([E1, E2, E2, E1])[None], torch.stack([E1, -E1, -3 * E1, E1])[None]
    np.testing.assert_allclose(alignment([same, apart, against], kinds), [[1.0, 0.0, -1.0]], atol=1e-6)


def pairs(vectors: np.ndarray) -> float:
    """Mean cosine of two different rows, the plain way."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return float(np.mean([a @ b for a, b in itertools.combinations(unit, 2)]))


def similarity(vectors: np.ndarray, bundles: list[int]) -> float:
    directions = Directions()
    for number, (vector, bundle) in enumerate(zip(vectors, bundles, strict=True)):
        directions.add("planning", bundle, number, vector[None])
    keys = sorted(directions.sums)
    sums = np.stack([directions.sums[key] for key in keys], axis=1)
    counts = np.array([len(directions.members[key]) for key in keys], dtype=float)
    return float(mean_cosine(sums @ sums.transpose(0, 2, 1), counts, np.ones((1, len(keys))))[0, 0])


@pytest.mark.parametrize(
    ("vectors", "expected"), [([E1, 5 * E1], 1), ([E1, E2], 0), ([E1, -E1], -1), ([E1, E1, E2], 1 / 3)]
)
def test_similarity_is_the_mean_cosine_of_two_questions(vectors: list[Tensor], expected: float) -> None:
    for bundles in itertools.product(range(2), repeat=len(vectors)):
        assert similarity(torch.stack(vectors).double().numpy(), list(bundles)) == pytest.approx(expected, abs=1e-12)


def test_similarity_from_sums_is_that_of_all_pairs() -> None:
    vectors = np.random.default_rng(0).normal(size=(40, 7)) + 1
    found = [similarity(vectors, list(np.arange(40) % bundles)) for bundles in (1, 3, 40)]
    np.testing.assert_allclose(found, pairs(vectors), rtol=1e-12)


def test_a_scene_drawn_twice_is_not_paired_with_itself() -> None:
    """Two orthogonal scenes of one question each, the first drawn twice: the one pair of different questions has cosine 0."""
    gram, counts = np.eye(2)[None], np.ones(2)
    assert mean_cosine(gram, counts, np.array([[2.0, 1.0]]))[0, 0] == 0
    assert np.isnan(mean_cosine(gram, counts, np.array([[2.0, 0.0]]))[0, 0])


def test_a_vector_without_direction_is_left_out() -> None:
    directions = Directions()
    directions.add("planning", 0, 0, np.zeros((1, 2)))
    assert not directions.sums and not directions.members


@pytest.mark.parametrize("count", [1, 3, 16, 40])
def test_cells_share_all_positions_evenly(count: int) -> None:
    positions = torch.full((1, count + 2), -1)
    positions[0, :count] = torch.arange(count) + 5
    shares = cells(positions)[0]
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(GRID))
    torch.testing.assert_close(shares.sum(dim=0)[:count], torch.full((count,), GRID / count))
    assert not shares[:, count:].any()
    if count == GRID:
        torch.testing.assert_close(shares[:, :count], torch.eye(GRID))


def test_maps_of_two_sizes_that_show_the_same_are_equal() -> None:
    small = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    large = small.repeat_interleave(3, dim=0).repeat_interleave(2, dim=1) / 2
    found = []
    for values in (small, large):
        queries, keys = (torch.arange(size)[None] for size in values.shape)
        found.append(on_grid(Map(values[None], queries, keys))[0])
    torch.testing.assert_close(torch.cosine_similarity(*found, dim=0), torch.tensor(1.0))


def test_positions_become_a_mask() -> None:
    assert at(torch.tensor([[2, 0, -1], [-1, -1, -1]]), 3).tolist() == [[True, False, True], [False, False, False]]


def test_bundles_are_scenes_until_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bundles_of(["b", "a", "b"]) == [1, 0, 1]
    monkeypatch.setattr(room, "BUNDLES", 2)
    assert bundles_of(["a", "b", "c"]) == [0, 1, 0]


# --- models -----------------------------------------------------------------------------------------------------------


def test_what_enters_the_first_layer_are_the_embeddings(subject: Subject, samples: list[Sample]) -> None:
    model, batch = bare(subject.model), collate(samples[:3], {"student": subject.preparation})
    with torch.no_grad(), attention.entering(model) as given:
        rows = Student(model)(batch, {"logits", Tap(0, "hidden")})
        if model.config.model_type == "driving_t5":
            expected = model.language_model.shared(batch.role("student").model["decoder_input_ids"])
            torch.testing.assert_close(given[0], expected)
        else:
            inputs = batch.role("student").model
            outside = model.model(**inputs, output_hidden_states=True).hidden_states
            torch.testing.assert_close(given[0], outside[0])
            torch.testing.assert_close(rows.taps[Tap(0, "hidden")].values, outside[1])
            assert len(given) == 2
    Student(model)(batch)
    assert len(given) == (1 if model.config.model_type == "driving_t5" else 2)  # the hook is gone


def test_batches_order_and_padding_do_not_matter(subject: Subject, samples: list[Sample], seen: Seen) -> None:
    order = np.random.default_rng(0).permutation(len(samples))
    other = observe(subject, [samples[i] for i in order], batch_size=1)
    np.testing.assert_allclose(other.change, seen.change[order], atol=1e-5)
    np.testing.assert_allclose(other.margins, seen.margins[order], atol=1e-5)
    assert (seen.alignment is None) == (other.alignment is None) == (subject.model.config.model_type == "driving_t5")
    if seen.alignment is not None and other.alignment is not None:
        np.testing.assert_allclose(other.alignment, seen.alignment[order], atol=1e-5)
    for signal, directions in seen.directions.items():
        again = other.directions[signal]
        assert directions.sums.keys() == again.sums.keys()
        for key, sums in directions.sums.items():
            np.testing.assert_allclose(sums, again.sums[key], atol=1e-5)
            assert sorted(directions.members[key]) == sorted(int(order[i]) for i in again.members[key])


def test_margins_are_those_of_the_answers_words(subject: Subject, samples: list[Sample], seen: Seen) -> None:
    batch = collate(samples, {"student": subject.preparation})
    with torch.no_grad():
        logits = Student(subject.model)(batch).logits
    assert logits is not None
    for number in range(len(samples)):
        likely = logits[batch.sample_of_row == number].softmax(dim=-1).sort(dim=-1, descending=True).values
        sums, counts = np.zeros(BINS), np.zeros(BINS)
        for place, (first, second) in enumerate(likely[:, :2].tolist()):
            sums[place * BINS // len(likely)] += first - second
            counts[place * BINS // len(likely)] += 1
        np.testing.assert_allclose(seen.margins[number], np.concatenate([sums, counts]), atol=1e-5)
    warm = observe(subject, samples[:2], temperature=100.0).margins
    assert (warm[:, :BINS] <= seen.margins[:2, :BINS]).all() and warm[:, :BINS].sum() < seen.margins[:2, :BINS].sum()


@pytest.mark.parametrize("family", ["internvl", "driving_t5"])
def test_directions_are_those_of_mean_states_and_of_maps_on_a_grid(
    family: str, folder: Path, samples: list[Sample]
) -> None:
    subject, sample = tiny.subject(family, folder, seed=3), samples[1]
    seen = observe(subject, [sample])
    inputs = collate([sample], {"student": subject.preparation})
    taps = {Tap(1, "hidden"), Tap(1), Tap(1, block="text_to_vision")}
    with torch.no_grad():
        rows = Student(subject.model)(inputs, {"logits"} | taps)
    expected = {"hidden": rows.taps[Tap(1, "hidden")].values[0].mean(dim=0)}  # alone: no padding
    whole, kinds = rows.taps[Tap(1)].values[0], inputs.role("student").token_kind
    blocks = {"full": whole, "text_to_vision": rows.taps[Tap(1, block="text_to_vision")].values[0]}
    if kinds is not None:
        blocks["text_to_vision"] = whole[kinds[0] == TEXT][:, kinds[0] == IMAGE]
    for name, block in blocks.items():
        fine = block.repeat_interleave(GRID, dim=0).repeat_interleave(GRID, dim=1)
        expected[name] = fine.reshape(GRID, block.shape[0], GRID, block.shape[1]).mean(dim=(1, 3)).flatten()
    for name, vector in expected.items():
        (sums,) = seen.directions[name].sums.values()
        np.testing.assert_allclose(sums[1], (vector / vector.norm()).numpy(), atol=1e-5)


def test_curves_are_means_over_questions(seen: Seen, subject: Subject) -> None:
    found = curves(seen)
    np.testing.assert_allclose(found.change.values, seen.change.mean(axis=0))
    assert found.change.questions == 8 and found.change.scenes == 4
    assert found.layers == attention.depth(subject.model) == len(found.change.values)
    for name in CAPABILITIES:
        similar, spread = found.similarity[name], found.dispersion["hidden"][name]
        for a, b in zip(similar.values, spread.values, strict=True):
            assert a is not None and b is not None and a + b == pytest.approx(1)
    counts = seen.margins[:, BINS:].sum(axis=0)
    np.testing.assert_allclose(found.margin["all"].values, seen.margins[:, :BINS].sum(axis=0) / counts)
    assert list(found.margin) == ["all", "regular", "corner", *CAPABILITIES]
    if found.alignment is not None:
        assert len(found.alignment.values) == found.layers + 1
    inside(found.change)


def inside(curve: Curve) -> None:
    """Intervals hold their value and have an extent."""
    for value, low, high in zip(curve.values, curve.low, curve.high, strict=True):
        assert value is not None and low is not None and high is not None
        assert low <= value <= high and low < high


def test_one_question_has_no_other_to_be_compared_with(folder: Path, samples: list[Sample]) -> None:
    found = curves(observe(tiny.subject("internvl", folder, seed=3), samples[:1]))
    assert found.similarity["perception"].values == [None, None] and list(found.similarity) == ["perception"]
    assert found.similarity["perception"].questions == 1
    assert None not in found.change.values and found.change.low == [None, None]


def test_models_that_cannot_be_studied_are_refused(folder: Path, samples: list[Sample]) -> None:
    subject = tiny.subject("llava", folder)
    subject.model.config.model_type = "gpt2"
    with pytest.raises(InputError, match="gpt2"):
        observe(subject, samples)
    subject.model.config.model_type = "llava"
    with pytest.raises(InputError, match="an answer"):
        observe(subject, [sample.model_copy(update={"answer": None}) for sample in samples])


# --- the verb ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["driving_t5", "qwen2_5_vl"])
def test_the_verb_writes_numbers_tables_and_a_figure(
    family: str, folder: Path, samples: list[Sample], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subject = tiny.subject(family, folder)
    save_subject(subject, subject.model, tmp_path / "run/model", "")
    write_samples(tmp_path / "train.jsonl", samples, folder)
    for sample in samples:
        for path in sample.images.values():
            (tmp_path / Path(path).name).write_bytes(Path(path).read_bytes())
    ask = ["study", str(tmp_path / "run"), "--data", str(tmp_path), "--format", "jsonl"]
    out = tmp_path / "run/study" / f"{tmp_path.name}-train"
    assert typed(*ask, "--dry-run") == 0
    assert f"8 questions would be asked; results into {out}" in capsys.readouterr().out and not out.exists()
    assert typed(*ask) == 0
    said = capsys.readouterr().out
    kept = json.loads((out / "study.json").read_text("utf-8"))
    assert kept["layers"] == 2 and kept["lessons"].keys() == set(CAPABILITIES) == kept["similarity"].keys()
    assert all("2 layers make no curve" in lesson["doubts"] for lesson in kept["lessons"].values())
    text = (out / "study.md").read_text("utf-8")
    assert text in said and "In doubt" in text
    advised = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])
    assert DriveKD(**advised["distill"]["drivekd"]).lessons.keys() == set(CAPABILITIES)
    assert (kept["alignment"] is None) == (family == "driving_t5") == ("no alignment" in text)
    root = ET.fromstring((out / "study.svg").read_text("utf-8"))
    assert len(root.findall("{http://www.w3.org/2000/svg}g")) == 4
    assert typed(*ask, "--temperature", "0") == 2
    assert typed("study", str(tmp_path / "nothing"), *ask[2:], "--out", str(tmp_path / "x")) == 2
    assert not (tmp_path / "x" / "study.json").exists()
