"""VLM presets: an unmodified model that reads, learns, is saved and loads again, with a tower that was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, InternVLForConditionalGeneration, InternVLVisionModel

import tiny
from drivedistill.batch import IGNORE
from drivedistill.build import build_student, build_teacher
from drivedistill.data.collate import collate
from drivedistill.data.images import PictureCache
from drivedistill.models.student import Student, full_logits
from drivedistill.models.vlm_presets import VLM_PRESETS, build_tower_config
from drivedistill.problems import InputError
from drivedistill.recipe import Recipe
from drivedistill.runs import run
from drivedistill.subject import Subject, load_subject, save_subject

VISION = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL = {"vision": {**VISION, "patch_size": [7, 7]}, "text": {**TEXT, "num_key_value_heads": 1}}


def recipe(folder: Path, **changes: Any) -> Recipe:
    """An InternVL of a few kilobytes on the drawn samples; 28 pixels are 4 image tokens."""
    model = {"preset": "world_internvl_small", "overrides": SMALL, "tokenizer_size": 320}
    fields = {"data__image_size": 28, "model": model} | changes
    return tiny.recipe(folder, **fields)


def built(folder: Path, **changes: Any) -> Subject:
    card = recipe(folder, **changes)
    torch.manual_seed(0)
    return build_student(card.model, card.data, PictureCache(10), tiny.samples(tiny.pictures(folder)))


def logits(subject: Subject, folder: Path) -> torch.Tensor:
    batch = collate(tiny.samples(tiny.pictures(folder)), {"student": subject.preparation})
    with torch.no_grad():
        return Student(subject.model)(batch).logits


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return built(tmp_path_factory.mktemp("vlm"))


def test_the_class_is_hugging_faces_own(subject):
    assert type(subject.model) is InternVLForConditionalGeneration


def test_teacher_and_student_share_tower_tokens_and_template_and_differ_in_depth_and_width():
    large, small = (VLM_PRESETS[f"world_internvl_{size}"] for size in ("large", "small"))
    assert large["vision"] == small["vision"]
    assert large["text"]["num_hidden_layers"] == 2 * small["text"]["num_hidden_layers"]
    assert large["text"]["hidden_size"] > small["text"]["hidden_size"]
    assert all(text["num_key_value_heads"] < text["num_attention_heads"] for text in (large["text"], small["text"]))


def test_a_picture_is_one_tile_and_both_presets_have_one_identity(tmp_path):
    ours, theirs = (built(tmp_path, model__preset=f"world_internvl_{size}") for size in ("large", "small"))
    assert ours.identity == theirs.identity
    assert ours.identity.image_tokens == 4, "28 pixels in patches of 7, four patches to a token"


def test_saved_model_loads_to_equal_logits_here_and_by_hugging_face_alone(subject, tmp_path, monkeypatch):
    monkeypatch.setattr("drivedistill.subject.keep_video_entry", None)  # there is no source to look for it
    save_subject(subject, subject.model, tmp_path / "model", "card")
    again = load_subject(str(tmp_path / "model"), PictureCache(10))
    assert torch.equal(logits(again, tmp_path), logits(subject, tmp_path))
    assert again.identity == subject.identity and again.preparation.reading == subject.preparation.reading
    plain = AutoModelForImageTextToText.from_pretrained(tmp_path / "model")
    batch = collate(tiny.samples(tiny.pictures(tmp_path)), {"student": again.preparation})
    assert torch.equal(full_logits(plain, batch.role("student")), full_logits(subject.model, batch.role("student")))


def test_the_template_is_internvl3s_without_a_system_prompt(subject, tmp_path):
    (sample, *_) = tiny.samples(tiny.pictures(tmp_path))
    inputs = collate([sample], {"student": subject.preparation}).role("student")
    text = subject.preparation.tokenizer.decode(inputs.model["input_ids"][0])
    image = f"CAM_FRONT: <img>{'<IMG_CONTEXT>' * 4}</img>\n"
    begun = f"<|im_start|>user\n{image}What now?<|im_end|>\n<|im_start|>assistant\n"
    assert text == f"{begun}Stop.<|im_end|>"
    assert inputs.targets[0][inputs.targets[0] != IGNORE][-1] == subject.model.config.text_config.eos_token_id


def test_the_tower_of_a_folder_is_the_models_tower(tmp_path):
    config = build_tower_config("world_internvl_small", 28, SMALL)
    tower = InternVLVisionModel(config).eval()
    tower.save_pretrained(tmp_path / "tower" / "model")
    seen = torch.randn(2, 3, 28, 28)
    for name in (tmp_path / "tower", tmp_path / "tower" / "model"):
        model = built(tmp_path, model__vision_weights=str(name), model__frozen=[r"vision_tower\."]).model
        found = model.eval().model.vision_tower(seen).last_hidden_state
        assert torch.equal(found, tower(seen).last_hidden_state)
        frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
        assert frozen == {f"model.vision_tower.{name}" for name, _ in tower.named_parameters()}


def test_a_run_learns_and_its_teacher_teaches(tmp_path):
    """What a recipe says works: train, save, and be the teacher of the next run, whose tokenizer is the teacher's."""
    run(recipe(tmp_path, train__steps=3), tmp_path / "teacher")
    card = recipe(tmp_path, train__steps=3, teacher={"path": str(tmp_path / "teacher")})
    facts = run(card, tmp_path / "student")
    assert facts["steps"] == 3
    words = [(tmp_path / name / "model" / "tokenizer.json").read_text() for name in ("teacher", "student")]
    assert words[0] == words[1]


# --- refused --------------------------------------------------------------------------------------------------------


def refusal(folder: Path, **changes: Any) -> list[str]:
    with pytest.raises(InputError) as error:
        built(folder, **changes)
    return [problem.record for problem in error.value.problems]


def test_frozen_random_parts_are_named(tmp_path):
    with pytest.raises(InputError, match=r"random weights in vision_tower"):
        built(tmp_path, model__frozen=[r"vision_tower\."])


def test_a_random_teacher_is_refused_although_its_tower_was_trained(tmp_path):
    InternVLVisionModel(build_tower_config("world_internvl_small", 28, SMALL)).save_pretrained(tmp_path / "tower")
    card = recipe(tmp_path, model__vision_weights=str(tmp_path / "tower"))
    with pytest.raises(InputError, match=r"random weights in language_model, multi_modal_projector"):
        build_teacher(card.model, card.data, PictureCache(1), tiny.samples(tiny.pictures(tmp_path)))


def test_weights_of_another_tower_are_refused(tmp_path):
    other = SMALL | {"vision": {**SMALL["vision"], "intermediate_size": 48}}
    InternVLVisionModel(build_tower_config("world_internvl_small", 28, other)).save_pretrained(tmp_path / "tower")
    records = refusal(tmp_path, model__vision_weights=str(tmp_path / "tower"))
    assert {"encoder.layer.0.mlp.fc1.weight", "encoder.layer.1.mlp.fc2.weight"} <= set(records)
    heads = SMALL | {"vision": {**SMALL["vision"], "num_attention_heads": 4}}
    InternVLVisionModel(build_tower_config("world_internvl_small", 28, heads)).save_pretrained(tmp_path / "heads")
    records = refusal(tmp_path, model__vision_weights=str(tmp_path / "heads"))
    assert records == ["config.json: num_attention_heads"], "which no shape betrays"


def test_a_tower_of_one_family_is_no_tower_of_the_other(tmp_path):
    InternVLVisionModel(build_tower_config("world_internvl_small", 28, SMALL)).save_pretrained(tmp_path / "tower")
    pyramid = {"preset": "demo", "vision_weights": str(tmp_path / "tower")}
    with pytest.raises(InputError, match=r"expected: 'pyramid'\s+found:    'internvl_vision'"):
        built(tmp_path, data__image_size=32, model=pyramid)


@pytest.mark.parametrize(
    ("changes", "record"),
    [
        ({"model__preset": "world_internvl_huge"}, "model.preset"),
        ({"model__overrides": {"txt": {}}}, "model.overrides.txt"),
        ({"model__overrides": {"text": {"layers": 1}}}, "model.overrides.text.layers"),
        ({"model__overrides": {"vision": {"image_size": 56}}}, "model.overrides.vision.image_size"),
        ({"model__overrides": {"vision": {"num_attention_heads": 3}}}, "model.overrides"),
        ({"model__overrides": {"text": {"num_attention_heads": 3}}}, "model.overrides"),
        ({"data__image_size": 35}, "data.image_size"),
        ({"data__points": True}, "data.points"),
        ({"model__text_weights": "a/b"}, "model.text_weights"),
        ({"model__tokenizer_size": 100}, "model.tokenizer_size"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_field(tmp_path, changes, record):
    assert refusal(tmp_path, **changes) == [record]


def test_a_tokenizer_of_another_family_is_refused(tmp_path):
    tiny.subject("driving_t5", tmp_path).preparation.tokenizer.save_pretrained(tmp_path / "words")
    with pytest.raises(InputError, match="without start_image_token"):
        built(tmp_path, model__tokenizer=str(tmp_path / "words"))
