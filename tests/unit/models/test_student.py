"""One contract for every family: rows equal the model's own logits, alone or in a batch, plain or with LoRA."""

import pytest
import torch

import tiny
from drivedistill.data.collate import collate
from drivedistill.models.parameters import count_parameters
from drivedistill.models.student import Student, full_logits


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("student")


@pytest.fixture(scope="module")
def samples(folder):
    return tiny.samples(tiny.pictures(folder))


@pytest.fixture(scope="module", params=[(f, lora) for f in tiny.FAMILIES for lora in (False, True)], ids=str)
def subject(request, folder):
    family, lora = request.param
    subject = tiny.subject(family, folder, lora=lora)
    if lora:  # B starts at zero; without this LoRA would change nothing and the test would prove nothing
        torch.manual_seed(1)
        for name, parameter in subject.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.5)
    subject.model.eval()
    return subject


def test_rows_equal_the_models_own_logits(subject, samples):
    batch = collate(samples, {"student": subject.preparation})
    with torch.no_grad():
        ours = Student(subject.model)(batch).logits
    theirs = full_logits(subject.model, batch.role("student"))
    assert ours.shape == (batch.num_tokens, theirs.shape[1])
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_logits_of_a_sample_do_not_depend_on_its_batch(subject, samples):
    student = Student(subject.model)
    with torch.no_grad():
        together = student(collate(samples, {"student": subject.preparation})).logits
        alone = torch.cat([student(collate([s], {"student": subject.preparation})).logits for s in samples])
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-4)


def test_pictures_matter(subject, samples):
    batch = collate(samples, {"student": subject.preparation})
    with torch.no_grad():
        seen = Student(subject.model)(batch).logits
        batch.role("student").model["pixel_values"] = -batch.role("student").model["pixel_values"]
        other = Student(subject.model)(batch).logits
    assert (seen - other).abs().max() > 1e-4


def test_lora_reaches_only_its_targets_and_what_the_recipe_names(folder):
    subject = tiny.subject("driving_t5", folder, lora=True)
    trained = {name for name, p in subject.model.named_parameters() if p.requires_grad}
    assert any("lora_" in name for name in trained)
    assert any("fusion" in name for name in trained)
    assert not any("lora_" not in name and ("language_model" in name or "vision" in name) for name in trained)


def test_tied_weights_are_counted_once(folder):
    model = tiny.subject("driving_t5", folder).model
    assert count_parameters(model)["total"] == sum(p.numel() for p in model.parameters())
    assert model.language_model.shared.weight is model.language_model.lm_head.weight
