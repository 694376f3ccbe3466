"""Stages follow each other without gaps, and what takes time shows up in one of them only."""

from __future__ import annotations

from dataclasses import replace

import pytest

import tiny
from drivedistill.bench import contest
from drivedistill.bench.clock import HostClock
from drivedistill.bench.contest import Rules, ask, enter
from drivedistill.bench.stages import READER, VISION, Stages, median_stages
from drivedistill.data import images

RULES = Rules(max_new_tokens=3, min_new_tokens=3)
FAMILIES = pytest.mark.parametrize("family", tiny.FAMILIES)


class Tape:
    """A clock that stands still until it is moved."""

    def __init__(self):
        self.seconds = 100.0

    def now(self):
        return self.seconds

    def move(self, *_):
        self.seconds += 1.0


def asked(contestant, sample):
    ask(contestant, sample, "disk")
    return contestant.stages[sample.id][-1]


def plant(stage, contestant, tape, monkeypatch):
    """Make one stage, and no other, take a second (per picture, module or token)."""
    model = contestant.subject.model
    kind = model.config.model_type
    calls = iter(range(100))
    head = model.get_submodule("language_model.lm_head" if kind == "driving_t5" else "lm_head")
    if stage == "image_decode":
        decode = images.decode_picture
        monkeypatch.setattr(images, "decode_picture", lambda *args: (tape.move(), decode(*args))[1])
    elif stage == "preprocess":
        prepare = contest.model_inputs
        monkeypatch.setattr(contest, "model_inputs", lambda *args: (prepare(*args), tape.move())[0])
    elif stage == "vision":
        for name in VISION[kind]:
            model.get_submodule(name).register_forward_hook(tape.move)  # earlier than the one that ends the stage
    elif stage == "encoder":
        reader = model.get_submodule(READER[kind])
        reader.register_forward_pre_hook(lambda *_: None if next(calls) else tape.move())
    elif stage == "first_token":
        head.register_forward_hook(lambda *_: None if next(calls) else tape.move())
    else:
        head.register_forward_hook(lambda *_: tape.move() if next(calls) else None)


@FAMILIES
@pytest.mark.parametrize("stage", Stages._fields)
def test_planted_time_shows_up_in_its_stage_only(family, stage, saved, drawn, monkeypatch):
    tape = Tape()
    contestant = enter("m", saved(family), RULES, drawn, clock=HostClock(tape.now))
    plant(stage, contestant, tape, monkeypatch)
    begun = tape.now()
    stages = asked(contestant, drawn[1])  # six pictures
    assert stages.whole == 1000 * (tape.now() - begun) > 0
    assert {name for name, value in stages._asdict().items() if value} == {stage}
    if stage == "image_decode":
        assert stages.image_decode == 6000
    if stage == "decode":
        assert stages.decode == 2000  # the two tokens after the first


@FAMILIES
def test_stages_add_up_to_the_time_that_passed(family, saved, drawn):
    ticks = iter(range(10_000))
    now = []
    clock = HostClock(lambda: now.append(float(next(ticks))) or now[-1])
    contestant = enter("m", saved(family), RULES, drawn, clock=clock)
    now.clear()
    stages = asked(contestant, drawn[1])
    assert stages.whole == 1000 * (now[-1] - now[0])
    assert all(value > 0 for value in stages)
    assert stages.resident == stages.whole - stages.image_decode - stages.preprocess


def test_no_hook_stays_behind_even_after_an_error(saved, drawn, monkeypatch):
    contestant = enter("m", saved("driving_t5"), RULES, drawn)
    modules = list(contestant.subject.model.modules())
    asked(contestant, drawn[0])
    monkeypatch.setattr(contest, "model_inputs", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        asked(contestant, drawn[0])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)


def test_pictures_are_decoded_every_time(saved, drawn, monkeypatch):
    contestant = enter("m", saved("driving_t5"), RULES, drawn)
    decoded = []
    decode = images.decode_picture
    monkeypatch.setattr(images, "decode_picture", lambda *args: (decoded.append(args[0]), decode(*args))[1])
    for _ in range(2):
        asked(contestant, drawn[1])
    assert len(decoded) == 12


@FAMILIES
def test_bfloat16_answers_too(family, saved, drawn):
    contestant = enter("m", saved(family), replace(RULES, dtype="bfloat16"), drawn)
    asked(contestant, drawn[1])
    ask(contestant, drawn[1], "resident")
    assert contestant.answers[drawn[1].id].tokens == 3


def test_median_of_rounds_is_taken_stage_by_stage():
    stages = [Stages(1, 2, 3, 4, 5, 6), Stages(3, 2, 1, 4, 50, 6), Stages(2, 2, 2, 4, 6, 6)]
    assert median_stages(stages) == Stages(2, 2, 2, 4, 6, 6)
