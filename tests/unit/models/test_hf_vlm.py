"""Published families: what is saved loads again, here and where torchvision is."""

import json

import pytest
import torch
from transformers import AutoModelForImageTextToText

import tiny
from drivedistill.data.images import PictureCache
from drivedistill.models.hf_vlm import load_processor
from drivedistill.problems import InputError
from drivedistill.subject import load_subject, save_subject


@pytest.mark.parametrize("kind", tiny.VLMS)
def test_saved_model_and_processor_load_again(kind, tmp_path):
    source = tiny.save_vlm(kind, tmp_path / "source")
    subject = load_subject(str(source), PictureCache(1))
    save_subject(subject, subject.model, tmp_path / "model", "card")
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "model")
    before, after = subject.model.state_dict(), again.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    processor = load_processor(str(tmp_path / "model"))
    assert hasattr(processor, "image_processor"), "a bare tokenizer has none"
    assert processor.chat_template == subject.preparation.processor.chat_template
    assert type(processor).__name__ == type(subject.preparation.processor).__name__


def test_settings_of_the_video_processor_survive(tmp_path):
    source = tiny.save_vlm("qwen2_5_vl", tmp_path / "source")
    (source / "video_preprocessor_config.json").write_text('{"video_processor_type": "Qwen2VLVideoProcessor"}')
    settings = json.loads((source / "processor_config.json").read_text())
    (source / "processor_config.json").write_text(json.dumps({**settings, "video_processor": {"fps": 2}}))
    subject = load_subject(str(source), PictureCache(1))
    save_subject(subject, subject.model, tmp_path / "model", "card")
    assert "Qwen2VL" in (tmp_path / "model" / "video_preprocessor_config.json").read_text()
    saved = json.loads((tmp_path / "model" / "processor_config.json").read_text())
    assert saved == {**saved, "video_processor": {"fps": 2}}
    assert saved.keys() >= settings.keys()


def test_other_families_are_refused_by_name(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match="model_type `bert`"):
        load_subject(str(tmp_path), PictureCache(1))
