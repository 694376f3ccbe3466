"""Our own loop writes what `generate` writes, whatever the batch, the room and the engine."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import tiny
from drivedistill import sections as cards
from drivedistill.data.collate import questions
from drivedistill.evaluate.decoding import Decoding
from drivedistill.evaluate.writing import STEPS, generation_settings, writer
from drivedistill.models import decode
from drivedistill.models.decode import Limits, choose, fixed_shapes, write
from drivedistill.models.decode_graph import GraphStep
from drivedistill.models.decode_t5 import T5Step, merged_weight
from drivedistill.models.student import bare
from drivedistill.models.upcycle import convert_ffn
from drivedistill.problems import InputError

LIMIT = 12
FAMILIES = pytest.mark.parametrize("family", tiny.FAMILIES)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return tiny.samples(tiny.pictures(tmp_path_factory.mktemp("pictures")))


@pytest.fixture(scope="module")
def subjects(tmp_path_factory):
    return {family: lively(tiny.subject(family, tmp_path_factory.mktemp(family))) for family in tiny.FAMILIES}


def lively(subject):
    """Weights so large that a model does not repeat itself."""
    torch.manual_seed(0)
    language = bare(subject.model).get_submodule(
        "language_model" if subject.model.config.is_encoder_decoder else "model.language_model"
    )
    for name, parameter in language.named_parameters():
        if parameter.ndim > 1 and "lora" not in name:
            nn.init.normal_(parameter, std=0.4)
    return subject


def asked(subject, samples):
    """Inputs without answers, and an end token that some answers reach."""
    subject.model.eval()
    unanswered = [sample.model_copy(update={"answer": None}) for sample in samples]
    return questions(unanswered, subject.preparation)


def reference(subject, inputs, limits, ends):
    settings = generation_settings(subject, Decoding(max_new_tokens=limits.most, min_new_tokens=limits.least))
    settings.eos_token_id = ends
    bare(subject.model).generation_config = settings
    with torch.inference_mode():
        written = subject.model.generate(**inputs)
    return written[:, 1 if subject.model.config.is_encoder_decoder else inputs["input_ids"].shape[1] :]


def usual_ends(subject, inputs):
    """Tokens at which answers of different lengths end: what random weights write in the middle of some answers."""
    free = reference(subject, inputs, Limits(LIMIT), [10**6]).tolist()
    written = sorted({token for row in free for token in row})

    def lengths(end):
        return len({row.index(end) if end in row else LIMIT for row in free})

    return sorted(sorted(written, key=lengths)[-2:])


def same(ours, theirs, pad):
    length = max(ours.shape[1], theirs.shape[1])
    ours, theirs = (nn.functional.pad(part, (0, length - part.shape[1]), value=pad) for part in (ours, theirs))
    return torch.equal(ours, theirs)


@FAMILIES
@pytest.mark.parametrize("least", [0, 9])
def test_the_tokens_are_those_of_generate_whatever_ends_when(family, least, subjects, drawn, monkeypatch):
    subject = subjects[family]
    inputs = asked(subject, drawn)
    ends, pad = usual_ends(subject, inputs), subject.preparation.tokenizer.pad_token_id
    expected = reference(subject, inputs, Limits(LIMIT, least), ends)
    assert least or len(set(_running(expected, ends).sum(dim=1).tolist())) > 2
    step = STEPS[bare(subject.model).config.model_type](bare(subject.model), ends)
    monkeypatch.setattr(decode, "ROOM", 2)  # and is doubled three times
    for thins in (True, False):
        step.thins = thins
        written = write(step, inputs, Limits(LIMIT, least), ends=ends, pad=pad)
        assert same(written.tokens, expected, pad)
        assert written.probabilities.shape == written.tokens.shape
        assert torch.equal(
            written.probabilities > 0, written.tokens.eq(written.tokens) & _running(written.tokens, ends)
        )


def _running(tokens, ends):
    """Up to the end and with it."""
    ended = torch.isin(tokens, torch.tensor(ends)).long()
    return ended.cumsum(dim=1) - ended == 0


@FAMILIES
def test_samples_that_have_ended_leave_the_batch(family, subjects, drawn):
    subject = subjects[family]
    inputs = asked(subject, drawn)
    ends = usual_ends(subject, inputs)
    step = STEPS[bare(subject.model).config.model_type](bare(subject.model), ends)
    sizes, forward = [], step.forward
    step.forward = lambda token, *rest: (sizes.append(len(token)), forward(token, *rest))[1]
    write(step, inputs, Limits(LIMIT), ends=ends, pad=0)
    assert sizes[0] == len(drawn)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < len(drawn)


def test_nobody_waits_for_the_limit_when_all_have_ended(subjects, drawn):
    subject = subjects["driving_t5"]
    inputs = asked(subject, drawn[:1])
    (first,) = reference(subject, inputs, Limits(1), [10**6])[0].tolist()
    told = []
    step = T5Step(bare(subject.model), [first])
    written = write(step, inputs, Limits(50), ends=[first], pad=0, on_token=told.append)
    assert written.tokens.tolist() == [[first]]
    assert [token.tolist() for token in told] == [[first]]


def test_choice_is_the_softmax_of_all_tokens():
    logits = torch.randn(5, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    token, probability = choose(logits, torch.tensor([3]), torch.tensor([False]))
    sure, best = logits.softmax(dim=-1).max(dim=-1)
    assert torch.equal(token, best)
    assert torch.allclose(probability.double(), sure, atol=1e-6)
    ends = token[:1]
    late, rest = choose(logits, ends, torch.tensor([True]))
    allowed = logits.clone()
    allowed[:, ends] = -torch.inf
    assert torch.equal(late, allowed.argmax(dim=-1))
    assert torch.allclose(rest.double(), allowed.softmax(dim=-1).amax(dim=-1), atol=1e-6)


@pytest.mark.parametrize("router", ["top_k", "dense"])
def test_layers_of_experts_decode_alike(router, tmp_path, drawn):
    subject = lively(tiny.subject("driving_t5", tmp_path))
    convert_ffn(subject.model, cards.FfnExperts(experts=4, kind="upcycle", router=router, k=2))
    for parameter in subject.model.parameters():  # copies would hide which expert ran
        nn.init.normal_(parameter, std=0.3) if parameter.ndim == 3 else None
    inputs = asked(subject, drawn)
    ends = usual_ends(subject, inputs)
    expected = reference(subject, inputs, Limits(LIMIT), ends)
    written = write(T5Step(subject.model, ends), inputs, Limits(LIMIT), ends=ends, pad=0)
    assert same(written.tokens, expected, 0)


def test_lora_is_part_of_the_packed_weights(tmp_path, drawn):
    subject = lively(tiny.subject("driving_t5", tmp_path, lora=True))
    for name, parameter in subject.model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.5)
    inputs = asked(subject, drawn)
    ends = usual_ends(subject, inputs)
    expected = reference(subject, inputs, Limits(LIMIT), ends)
    written = write(T5Step(bare(subject.model), ends), inputs, Limits(LIMIT), ends=ends, pad=0)
    assert same(written.tokens, expected, 0)
    layer = bare(subject.model).language_model.decoder.block[0].layer[0].SelfAttention.q
    states = torch.randn(3, layer.in_features)
    assert torch.allclose(states @ merged_weight(layer).T, layer(states), atol=1e-5)
    layer.merge()
    assert torch.allclose(states @ merged_weight(layer).T, layer(states), atol=1e-5)


@FAMILIES
def test_a_captured_step_reads_and_writes_one_place_per_shape(family, subjects, drawn):
    """A graph repeats what was captured on the same tensors; here a call that forgets its arguments stands for it."""
    subject = subjects[family]
    captured = []

    def capture(work):
        results = work()
        captured.append(work)

        def replay():
            for there, given in zip(results, work(), strict=True):
                there.copy_(given)

        return replay, results

    ends = usual_ends(subject, asked(subject, drawn))
    pad = subject.preparation.tokenizer.pad_token_id
    model = bare(subject.model)
    step = GraphStep(STEPS[model.config.model_type](model, ends), capture)
    counts = []
    for batch in (drawn, drawn[::-1], drawn):  # the second and third find the first one's places
        inputs = asked(subject, batch)
        expected = reference(subject, inputs, Limits(LIMIT), ends)
        assert same(write(step, inputs, Limits(LIMIT), ends=ends, pad=pad).tokens, expected, pad)
        counts.append(len(captured))
    assert counts[0] == counts[-1]


def test_a_step_can_be_exported(subjects, drawn):
    subject = subjects["driving_t5"]
    step = fixed_shapes(T5Step(bare(subject.model), [1])).eval()
    inputs = asked(subject, drawn[:2])
    with torch.no_grad():
        token, _, memory = step.begin(inputs, 8)
        ours = replace(memory, keys=[k.clone() for k in memory.keys], values=[v.clone() for v in memory.values])
        position, early = torch.tensor([0]), torch.tensor([False])
        exported = torch.export.export(_Plain(step), (token, position, early, *_parts(memory)))
        expected = step(token, position, early, ours)
        found = exported.module()(token, position, early, *_parts(memory))
    assert torch.equal(found[0], expected[0])
    assert torch.allclose(found[1], expected[1])
    assert torch.equal(memory.keys[0], ours.keys[0])
    assert memory.keys[0][:, :, 0].abs().sum() > 0


def _parts(memory):
    return memory.keys, memory.values, memory.fixed, memory.table


class _Plain(nn.Module):
    """A step of tensors and lists alone."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def forward(self, token, position, early, keys, values, fixed, table):
        return self.step(token, position, early, decode.Memory(keys, values, fixed, table))


def test_graphs_need_a_gpu(subjects):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(InputError, match="a GPU for CUDA graphs"):
        writer(subjects["driving_t5"], Decoding(), "graph")


@pytest.mark.long
@FAMILIES
def test_compiled_steps_write_the_same(family, subjects, drawn):
    subject = subjects[family]
    inputs = asked(subject, drawn)
    decoding = Decoding(max_new_tokens=40)
    with torch.inference_mode():
        ours, theirs = (writer(subject, decoding, engine)(inputs, None) for engine in ("compiled", "generate"))
    assert same(ours.tokens, theirs.tokens, subject.preparation.tokenizer.pad_token_id)
