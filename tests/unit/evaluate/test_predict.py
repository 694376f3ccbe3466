"""Answers of tiny models of every family, and the file that holds them."""

import multiprocessing
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import GenerationConfig
from typer.testing import CliRunner

import tiny
from drivedistill import runs
from drivedistill.cli import app
from drivedistill.data.collate import collate, questions
from drivedistill.data.drivelm_challenge import CHOOSE
from drivedistill.data.images import PictureCache
from drivedistill.data.prompt import decode as words
from drivedistill.evaluate.answering import local_answerer
from drivedistill.evaluate.decoding import decoding
from drivedistill.evaluate.drivelm import challenge_scores, graph_filter
from drivedistill.evaluate.endpoint import Answer
from drivedistill.evaluate.predict import How, predict, written_at
from drivedistill.models.student import full_logits
from drivedistill.problems import InputError, RunError
from drivedistill.records import Prediction, Region, read_jsonl
from drivedistill.subject import load_subject, save_subject

LIMIT = 8
SCALE = {"driving_t5": 3, "internvl": 9, "qwen2_5_vl": 9, "llava": 14}
ASIDE = {"how": How("m", "greedy")}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Eight samples with one or six views."""
    return tiny.samples(tiny.pictures(tmp_path_factory.mktemp("drawn")))


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A finished run of six steps."""
    folder = tmp_path_factory.mktemp("run")
    runs.run(tiny.recipe(folder), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def model(request, tmp_path_factory):
    """A directory with a model of each family, its weights so large that answers differ, also between pictures."""
    folder = tmp_path_factory.mktemp(request.param)
    subject = tiny.subject(request.param, folder)
    with torch.no_grad():
        for parameter in subject.model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(SCALE[request.param])
    save_subject(subject, subject.model, folder / "model", "")
    return str(folder / "model")


def reload(model):
    subject = load_subject(model, PictureCache(10))
    subject.model.eval()
    return subject


def echo(batch):
    return [Answer(f"answer to {sample.id}", 3) for sample in batch]


# --- what a model answers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["greedy", "beam-2", "teacher_forced"])
def test_answers_do_not_depend_on_the_batch(model, drawn, name):
    answer = local_answerer(model, decoding(name, LIMIT), drawn)
    together = answer(drawn)
    alone = [answer([sample])[0] for sample in drawn]
    assert [item[:3] for item in together] == [item[:3] for item in alone]
    if name.startswith("beam"):
        assert {item.confidence for item in together} == {None}
    else:
        assert [item.confidence for item in together] == pytest.approx([item.confidence for item in alone], abs=1e-4)
        assert all(0 < item.confidence <= 1 for item in together)
    assert len({item.text for item in together}) >= 4


def test_greedy_answers_are_those_of_hugging_face_one_by_one(model, drawn):
    subject = reload(model)
    tokenizer = subject.preparation.tokenizer
    answers = local_answerer(model, decoding("greedy", LIMIT), drawn)(drawn)
    for sample, found in zip(drawn, answers, strict=True):
        inputs = questions([sample], subject.preparation)
        own = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
        ids = subject.model.generate(**inputs, max_new_tokens=LIMIT, do_sample=False, **own)[0]
        ids = ids[1 if subject.model.config.is_encoder_decoder else inputs["input_ids"].shape[1] :]
        assert found[:3] == (words(tokenizer, ids).strip(), len(ids), tokenizer.eos_token_id not in ids)


def test_a_beam_of_one_token_is_the_greedy_token(model, drawn):
    """Holds only if every beam sees its own sample's pictures in their order."""
    greedy, beam = (local_answerer(model, decoding(name, 1), drawn)(drawn) for name in ("greedy", "beam-3"))
    assert [item[:3] for item in beam] == [item[:3] for item in greedy]
    if "driving_t5" not in model:
        turned = [
            s.model_copy(update={"images": dict(zip(s.images, [*s.images.values()][::-1], strict=True))}) for s in drawn
        ]
        answer = local_answerer(model, decoding("greedy", LIMIT), drawn)
        assert sum(ours[0] != theirs[0] for ours, theirs in zip(answer(drawn), answer(turned), strict=True)) >= 3


def test_confidence_is_the_mean_probability_of_the_written_tokens(model, drawn):
    subject = reload(model)
    for found, sample in zip(local_answerer(model, decoding("greedy", LIMIT), drawn)(drawn), drawn, strict=True):
        inputs = questions([sample], subject.preparation)
        end = subject.preparation.tokenizer.eos_token_id
        own = {"pad_token_id": subject.preparation.tokenizer.pad_token_id, "eos_token_id": end}
        out = subject.model.generate(
            **inputs, max_new_tokens=LIMIT, do_sample=False, output_scores=True, return_dict_in_generate=True, **own
        )
        written = out.sequences[0, -len(out.scores) :]
        chosen = [float(step[0].softmax(-1)[token]) for step, token in zip(out.scores, written, strict=True)]
        assert found.confidence == pytest.approx(sum(chosen) / len(chosen), abs=1e-5)


def test_blind_models_read_no_picture_and_black_ones_see_nothing(model, drawn):
    gone = [sample.model_copy(update={"images": dict.fromkeys(sample.images, "missing.jpg")}) for sample in drawn]
    way = decoding("greedy", LIMIT)
    assert local_answerer(model, way, drawn, blind=True)(drawn) == local_answerer(model, way, gone, blind=True)(gone)
    black = local_answerer(model, way, drawn, change=lambda _, image: Image.new("RGB", image.size))
    turned = [s.model_copy(update={"images": dict.fromkeys(s.images, next(iter(s.images.values())))}) for s in drawn]
    assert [item.text for item in black(drawn)] == [item.text for item in black(turned)]
    assert black(drawn) != local_answerer(model, way, drawn)(drawn)


def test_teacher_forced_answers_are_the_argmax_of_every_position(model, drawn):
    subject = reload(model)
    batch = collate(drawn, {"student": subject.preparation})
    best = full_logits(subject.model, batch.role("student")).argmax(dim=-1)
    answers = local_answerer(model, decoding("teacher_forced", LIMIT), drawn)(drawn)
    for b, found in enumerate(answers):
        ids = best[batch.sample_of_row == b]
        assert found[:3] == (words(subject.preparation.tokenizer, ids).strip(), len(ids), False)


def test_teacher_forced_names_every_sample_without_a_reference(run_folder, drawn):
    samples = [sample.model_copy(update={"answer": None}) if i in (2, 5) else sample for i, sample in enumerate(drawn)]
    with pytest.raises(InputError) as caught:
        local_answerer(str(run_folder), decoding("teacher_forced", LIMIT), samples)
    assert [problem.record for problem in caught.value.problems] == ["sample s2", "sample s5"]
    assert len(local_answerer(str(run_folder), decoding("greedy", 1), samples)(samples)) == 8


def test_a_question_that_is_too_long_is_found_before_the_first_answer(run_folder, drawn):
    samples = [*drawn, drawn[0].model_copy(update={"id": "long", "question": "why " * 600})]
    with pytest.raises(InputError, match="sample long"):
        local_answerer(str(run_folder), decoding("greedy", LIMIT), samples)
    wordy = [drawn[0].model_copy(update={"answer": "so " * 600})]
    assert local_answerer(str(run_folder), decoding("greedy", 1), wordy)(wordy)


@pytest.fixture
def biased(tmp_path, run_folder):
    """Copies of the run's model that always write one token."""

    def make(token, **settings):
        subject = load_subject(str(run_folder), PictureCache(1))
        model = subject.model

        class Biased(torch.nn.Linear):
            def forward(self, hidden):
                logits = torch.zeros(*hidden.shape[:-1], self.out_features)
                logits[..., token] = 1
                return logits

        head = model.language_model.lm_head
        model.language_model.lm_head = Biased(head.in_features, head.out_features, bias=False)
        model.generation_config = GenerationConfig(**{**model.generation_config.to_dict(), **settings})
        return subject

    return make


def test_an_answer_that_reaches_the_limit_is_marked_as_cut(biased, monkeypatch, drawn, tmp_path):
    letter = biased(40)
    for subject, expected in ((letter, (4, True)), (biased(1), (1, False))):
        monkeypatch.setattr("drivedistill.evaluate.answering.load_subject", lambda *_, subject=subject: subject)
        answers = local_answerer("any", decoding("greedy", 4), drawn)(drawn)
        assert {(answer.tokens, answer.cut) for answer in answers} == {expected}
        out = tmp_path / f"{expected[0]}.jsonl"
        predict(drawn, lambda batch, answers=answers: answers, out, **ASIDE, batch_size=8)
        assert all(row.extra == ({"cut": True} if expected[1] else {}) for row in read_jsonl(out, Prediction))


def test_settings_of_a_published_model_do_not_change_its_answers(biased, monkeypatch, drawn):
    """Qwen2.5-VL is published with a repetition penalty and two end tokens."""
    subject = biased(40, repetition_penalty=5.0, no_repeat_ngram_size=1, min_new_tokens=3, eos_token_id=[1, 41])
    monkeypatch.setattr("drivedistill.evaluate.answering.load_subject", lambda *_: subject)
    answer = local_answerer("any", decoding("greedy", 4), drawn)(drawn)[0]
    assert answer.text == words(subject.preparation.tokenizer, [40] * 4).strip()
    ended = biased(41, eos_token_id=[1, 41])
    monkeypatch.setattr("drivedistill.evaluate.answering.load_subject", lambda *_: ended)
    assert local_answerer("any", decoding("greedy", 4), drawn)(drawn)[0][1:3] == (1, False)


def test_points_come_back_in_pixels_and_unknown_cameras_stay(biased, monkeypatch, drawn):
    subject = biased(1)
    reading = subject.preparation.reading.model_copy(update={"coordinates": "unit"})
    subject.preparation = type(subject.preparation)(
        reading, subject.preparation.tokenizer, subject.preparation.processor, subject.preparation.pictures
    )
    written = "near <c1,CAM_FRONT,0.5000,0.2500>, <c2,CAM_BACK,0.5432,0.1234>"
    monkeypatch.setattr("drivedistill.evaluate.answering.load_subject", lambda *_: subject)
    monkeypatch.setattr("drivedistill.evaluate.answering.decode", lambda *_: written)
    front, six = local_answerer("any", decoding("greedy", 1), drawn[:2])(drawn[:2])
    assert front.text == "near <c1,CAM_FRONT,80.0,22.5>, <c2,CAM_BACK,0.5432,0.1234>"
    assert six.text == "near <c1,CAM_FRONT,80.0,22.5>, <c2,CAM_BACK,86.9,11.1>"


def test_what_was_asked_with_its_options_is_stored_as_written(biased, monkeypatch, drawn):
    subject = biased(1)
    reading = subject.preparation.reading.model_copy(update={"choices": "words"})
    subject.preparation = replace(subject.preparation, reading=reading)
    monkeypatch.setattr("drivedistill.evaluate.answering.load_subject", lambda *_: subject)
    monkeypatch.setattr("drivedistill.evaluate.answering.decode", lambda *_: "Stopped.")
    asked = drawn[0].model_copy(update={"question": "One of the following options: A. Going ahead. B. Stopped."})
    (answer,) = local_answerer("any", decoding("greedy", 4), [asked])([asked])
    assert answer.text == "Stopped."


def test_an_option_answered_in_words_counts_as_its_letter(biased, monkeypatch, drawn, tmp_path):
    subject = biased(1)
    reading = subject.preparation.reading.model_copy(update={"choices": "words"})
    subject.preparation = replace(subject.preparation, reading=reading)
    monkeypatch.setattr("drivedistill.evaluate.answering.load_subject", lambda *_: subject)
    asked = f"What does it do?{CHOOSE}A. Going ahead. B. Stopped."
    open_one = drawn[1].model_copy(update={"question": "What does it do?", "answer": "Stopped."})
    samples = [drawn[0].model_copy(update={"question": asked, "answer": "B", "tags": (0,)}), open_one]
    for decode in ("greedy", "teacher_forced"):
        found = {}
        for written in (" Stopped", "Turn left."):
            monkeypatch.setattr("drivedistill.evaluate.answering.decode", lambda *_, written=written: written)
            out = tmp_path / f"{decode} {written}.jsonl"
            answer = local_answerer("any", decoding(decode, 4), samples)
            predict(samples, answer, out, how=How("m", decode), batch_size=2)
            rows = read_jsonl(out, Prediction)
            assert (rows[0].question, rows[0].reference, rows[1].prediction) == (asked, "B", written.strip())
            accuracy = challenge_scores(graph_filter(rows[:1]), language=None).accuracy
            found[written] = (rows[0].prediction, accuracy)
        assert found == {" Stopped": ("B", 1.0), "Turn left.": ("Turn left.", 0.0)}


@pytest.mark.parametrize("name", ["beam-1", "beam-", "beam-x", "sample", ""])
def test_an_unknown_decoding_is_refused(name):
    with pytest.raises(InputError, match="--decode"):
        decoding(name, 8)


# --- the file ---------------------------------------------------------------------------------------------------------


def test_rows_carry_their_sample_and_follow_its_order(drawn, tmp_path):
    region = Region(camera="CAM_FRONT", box=(1, 2, 3, 4), category="bollard")
    samples = [drawn[0].model_copy(update={"region": region, "tags": (0, 3), "extra": {"a": 1}}), *drawn[1:]]
    assert predict(samples, echo, tmp_path / "p.jsonl", **ASIDE, batch_size=3) == 8
    rows = read_jsonl(tmp_path / "p.jsonl", Prediction)
    assert [row.id for row in rows] == [sample.id for sample in samples]
    assert (rows[0].extra, rows[0].tags, rows[1].extra) == ({"category": "bollard"}, (0, 3), {})
    assert (rows[1].reference, rows[1].prediction, rows[1].tokens) == (drawn[1].answer, "answer to s1", 3)
    assert all(row.latency_ms is None for row in rows)


@pytest.mark.parametrize("text", ["", "two\nlines\r\n", "\u2028 \u2029 \x85 \x1c \x00", "日本 🚗", 'say "stop" \\n'])
def test_any_text_is_one_line_and_comes_back(drawn, tmp_path, text):
    out = tmp_path / "p.jsonl"
    predict(drawn, lambda batch: [Answer(text)] * len(batch), out, **ASIDE, batch_size=3)
    assert out.read_bytes().count(b"\n") == 8
    assert {row.prediction for row in read_jsonl(out, Prediction)} == {text}
    assert predict(drawn, echo, out, **ASIDE, batch_size=3) == 0


def test_a_lone_surrogate_becomes_a_question_mark(drawn, tmp_path):
    predict(drawn[:1], lambda _: [Answer("a\ud800b")], tmp_path / "p.jsonl", **ASIDE, batch_size=1)
    assert read_jsonl(tmp_path / "p.jsonl", Prediction)[0].prediction == "a?b"


def test_resuming_after_a_kill_gives_the_file_of_an_uninterrupted_call(run_folder, drawn, tmp_path):
    answer = local_answerer(str(run_folder), decoding("greedy", LIMIT), drawn)
    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    predict(drawn, answer, whole, **ASIDE, batch_size=3)
    content = whole.read_bytes()
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    for cut in (0, 3, ends[0], ends[3] + 1, ends[3] + 60, ends[4] - 1, ends[-1] - 2):
        killed.write_bytes(content[:cut])
        predict(drawn, answer, killed, **ASIDE, batch_size=3)
        assert killed.read_bytes() == content, cut


def test_a_failing_server_leaves_the_batches_before(drawn, tmp_path):
    def stumble(batch):
        if batch[0].id == "s4":
            raise RunError("no answer")
        return echo(batch)

    with pytest.raises(RunError, match=r"no answer; answers so far are kept in .*p\.jsonl"):
        predict(drawn, stumble, tmp_path / "p.jsonl", **ASIDE, batch_size=2)
    assert [row.id for row in read_jsonl(tmp_path / "p.jsonl", Prediction)] == ["s0", "s1", "s2", "s3"]
    assert predict(drawn, echo, tmp_path / "p.jsonl", **ASIDE, batch_size=2) == 4


def test_another_model_or_decoding_is_refused(drawn, tmp_path):
    out = tmp_path / "p.jsonl"
    predict(drawn, echo, out, **ASIDE, batch_size=8)
    before = out.read_bytes()
    for other in (How("other", "greedy"), How("m", "beam-2"), How("m", "greedy", "fog:3")):
        with pytest.raises(InputError, match=r"answers of m \(greedy\)"):
            predict(drawn, echo, out, how=other, batch_size=8)
    assert out.read_bytes() == before


def test_answers_of_another_length_are_refused(drawn, tmp_path):
    cut, ended = Answer("a b c", 3, cut=True), Answer("a b", 2)
    out = tmp_path / "p.jsonl"
    predict(drawn[:2], lambda _: [cut, ended], out, **ASIDE, batch_size=8, limit=3)
    before = out.read_bytes()
    for limit in (2, 50):
        with pytest.raises(InputError, match=f"at most {limit} tokens[^/]*answers of 3 tokens"):
            predict(drawn, echo, out, **ASIDE, batch_size=8, limit=limit)
    assert out.read_bytes() == before
    assert predict(drawn, echo, out, **ASIDE, batch_size=8, limit=3) == 6
    whole = tmp_path / "ended.jsonl"
    predict(drawn[:1], lambda _: [ended], whole, **ASIDE, batch_size=8, limit=3)
    with pytest.raises(InputError, match="answers of 2 tokens"):
        predict(drawn, echo, whole, **ASIDE, batch_size=8, limit=1)
    assert predict(drawn, echo, whole, **ASIDE, batch_size=8, limit=50) == 7  # it would be the same


def test_a_server_that_counts_or_stops_in_its_own_way_is_gone_on_with(drawn, tmp_path):
    out, how = tmp_path / "p.jsonl", How("m", "endpoint")
    long = lambda batch: [Answer("x", 70) if s.id == "s0" else Answer("x", 30, cut=True) for s in batch]  # noqa: E731
    assert predict(drawn[:3], long, out, how=how, batch_size=8, limit=40) == 3
    assert predict(drawn, long, out, how=how, batch_size=8, limit=40) == len(drawn) - 3


def test_other_samples_stay_and_changed_questions_are_refused(drawn, tmp_path):
    out = tmp_path / "p.jsonl"
    predict(drawn[:4], echo, out, **ASIDE, batch_size=8)
    assert predict(drawn[2:], echo, out, **ASIDE, batch_size=8) == 4
    changed = [sample.model_copy(update={"question": "Else?"}) for sample in drawn[:2]]
    with pytest.raises(InputError, match="2 with another question"):
        predict(changed, echo, out, **ASIDE, batch_size=8)


def test_an_id_that_occurs_twice_is_refused(drawn, tmp_path):
    with pytest.raises(InputError, match="1 ids more than once, first s3"):
        predict([*drawn, drawn[3]], echo, tmp_path / "p.jsonl", **ASIDE, batch_size=8)
    assert not (tmp_path / "p.jsonl").exists()


@pytest.mark.parametrize("content", ["a,b\n1,2", "notes", '{"id": 1}\n', "[1]"])
def test_a_file_of_something_else_is_left_as_it_is(drawn, tmp_path, content):
    out = tmp_path / "mine.csv"
    out.write_text(content)
    with pytest.raises(InputError):
        predict(drawn, echo, out, **ASIDE, batch_size=8)
    assert out.read_text().startswith(content)


def test_answers_older_than_the_model_are_refused(run_folder, drawn, tmp_path):
    out, since = tmp_path / "p.jsonl", written_at(str(run_folder))
    predict(drawn[:2], echo, out, **ASIDE, batch_size=8, since=since)
    assert predict(drawn, echo, out, **ASIDE, batch_size=8, since=since) == 6
    os.utime(out, (since - 60, since - 60))
    for _ in range(2):
        with pytest.raises(InputError, match="answers of the model written"):
            predict(drawn, echo, out, **ASIDE, batch_size=8, since=since)
    assert written_at("publisher/model") is None


def _write_slowly(samples, out, started):
    def answer(batch):
        started.set()
        multiprocessing.Event().wait(60)
        return echo(batch)

    predict(samples, answer, out, **ASIDE, batch_size=1)


def test_a_second_process_is_refused_until_the_first_is_gone(drawn, tmp_path):
    out = tmp_path / "p.jsonl"
    context = multiprocessing.get_context("fork")
    started = context.Event()
    process = context.Process(target=_write_slowly, args=(drawn, out, started))
    process.start()
    assert started.wait(30)
    with pytest.raises(InputError, match="another is writing it"):
        predict(drawn, echo, out, **ASIDE, batch_size=8)
    process.kill()
    process.join()
    assert predict(drawn, echo, out, **ASIDE, batch_size=8) == 8


def test_the_verb_answers_a_runs_own_split_and_goes_on(run_folder):
    arguments = ["predict", str(run_folder), "--split", "train", "--max-new-tokens", "4"]
    first = CliRunner().invoke(app, [*arguments, "--limit", "2"], catch_exceptions=False)
    second = CliRunner().invoke(app, arguments, catch_exceptions=False)
    out = Path(run_folder) / "predictions" / "train-greedy.jsonl"
    assert first.output == f"2 new answers, 2 in all: {out}\n"
    assert second.output == f"4 new answers, 6 in all: {out}\n"
    assert {(row.model, row.decode) for row in read_jsonl(out, Prediction)} == {(str(run_folder), "greedy")}
