"""Drive-KD in the loop: lessons by capability, several teachers, hidden states, in turn, resumed."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator

import loops
import tiny
from drivedistill.batch import Tap
from drivedistill.data.collate import collate
from drivedistill.distill.attention_loss import map_loss
from drivedistill.distill.lessons import course
from drivedistill.distill.miner import Plan
from drivedistill.distill.objective import Moment
from drivedistill.drivekd_sections import Lesson
from drivedistill.problems import InputError
from drivedistill.recipe import save_recipe
from drivedistill.runs import assemble, run
from drivedistill.subject import load_subject
from drivedistill.train import fit
from typed import typed

ALL = {"perception", "reasoning", "planning"}
TV = "text_to_vision"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A student with 2 layers, teachers with 3 and with another width."""
    folder = tmp_path_factory.mktemp("drivekd")
    tiny.save_vlm("internvl", folder / "student", seed=1)
    tiny.save_vlm("internvl", folder / "teacher", seed=2, num_hidden_layers=3)
    tiny.save_vlm("internvl", folder / "wide", seed=3, num_hidden_layers=4, hidden_size=48)
    return folder


def recipe(folder, **changes):
    model = {"path": str(folder / "student"), "frozen": ["vision_tower", "multi_modal_projector"]}
    given = {"model": model, "teacher": {"path": str(folder / "teacher")}, "distill__weight": 0.0}
    given |= {"distill__drivekd": {}, "train__reduction": "samples", "data__image_size": 28}
    made = tiny.recipe(folder, **{**given, **changes})
    return made


def logged(made, where):
    """The losses of a run, step by step."""
    run(made, where)
    return [record for record in loops.logged(where) if "ce" in record or "h2g" in record]


def lessons(**by_capability):
    return {"lessons": by_capability}


def outcome(setting, samples, alpha=0.0):
    batch, objective = collate(samples, setting.preparations), setting.objective
    moment = Moment(alpha=alpha)
    needs = objective.asks(batch, moment)
    signal = setting.teacher.signal(batch, needs) if needs else None
    rows = setting.student(batch, objective.wants)
    return batch, rows, signal, objective(rows, signal, batch, moment, Plan())


def test_each_lesson_is_a_term_mixed_by_the_capability_of_the_samples(folder):
    setting = assemble(recipe(folder)).setting
    setting.student.eval()
    batch, rows, signal, found = outcome(setting, setting.train)
    terms = {term.name: term for term in found.terms}
    assert terms.keys() == {"ce"} | ALL
    assert {name: terms[name].role for name in ALL} == dict.fromkeys(ALL, "follower")
    first, last = Tap(0, block=TV), Tap(1, block=TV)
    assert setting.objective.courses["reasoning"].groups == {0: [0, 1]}  # 2 of 3 teacher layers for 1 of 2
    assert setting.objective.courses["planning"].groups == {0: [1]}
    assert signal.lessons["perception"].keys() == {first} and signal.lessons["planning"].keys() == {last}
    own = map_loss(rows.taps[first], signal.lessons["perception"][first].values)
    shares = torch.tensor([0.8 if capability == "perception" else 0.1 for capability in batch.capabilities])
    torch.testing.assert_close(terms["perception"].total, (own * shares).sum())
    assert terms["perception"].mixed == pytest.approx(float(shares.mean()))
    window = torch.stack([signal.lessons["reasoning"][Tap(layer)].values for layer in (0, 1)]).mean(dim=0)
    shares = torch.tensor([0.8 if capability == "reasoning" else 0.1 for capability in batch.capabilities])
    torch.testing.assert_close(terms["reasoning"].total, (map_loss(rows.taps[Tap(0)], window) * shares).sum())


def test_a_student_that_looks_as_its_teacher_has_nothing_to_learn(folder):
    setting = assemble(recipe(folder, teacher={"path": str(folder / "student")})).setting
    setting.student.eval()
    _, _, _, found = outcome(setting, setting.train)
    assert {term.name: float(term.total.detach()) for term in found.terms if term.name in ALL} == pytest.approx(
        dict.fromkeys(ALL, 0.0), abs=1e-9
    )


def test_lessons_nobody_listens_to_are_not_asked_for(folder):
    hard = {name: {name: 1.0} for name in ALL}
    setting = assemble(recipe(folder, distill__drivekd={"mixing": hard})).setting
    chosen = [sample for sample in setting.train if sample.capability == "perception"]
    batch, _, signal, found = outcome(setting, chosen)
    assert {need[0] for need in setting.objective.asks(batch, Moment())} == {"perception"}
    terms = {term.name: term for term in found.terms}
    assert signal.lessons.keys() == {"perception"}
    assert [terms[name].mixed for name in ("perception", "reasoning", "planning")] == [1.0, 0.0, 0.0]
    assert terms["reasoning"].total.item() == 0 and terms["reasoning"].total.requires_grad


def test_every_capability_may_have_its_own_teacher(folder):
    wide = {"path": str(folder / "wide")}
    made = recipe(folder, teachers={"planning": wide, "reasoning": wide}, distill__weight=1.0)
    setting = assemble(made).setting
    teacher = setting.teacher
    assert len(teacher.everyone()) == 2 and teacher.lessons["planning"] is teacher.lessons["reasoning"]
    assert teacher.lessons["perception"] is teacher.words
    assert setting.objective.courses["planning"].groups == {0: [2]}
    _, _, signal, found = outcome(setting, setting.train, alpha=1.0)
    assert {term.name for term in found.terms} == {"ce", "forward_kl"} | ALL
    own = load_subject(str(folder / "wide"), setting.preparations["student"].pictures)
    assert signal.width() == len(own.preparation.tokenizer)


@pytest.mark.parametrize("signal", ["attention", "hidden"])
@pytest.mark.parametrize("distance", ["mse", "cosine"])
def test_training_brings_the_student_closer_and_spares_what_is_frozen(folder, tmp_path, signal, distance):
    lesson = {"signal": signal, "distance": distance, "layers": "first"}
    everyone = {name: {"perception": 1.0} for name in ALL}
    made = recipe(
        folder,
        teacher={"path": str(folder / "wide")},
        distill__drivekd={"lessons": {"perception": lesson}, "mixing": everyone},
        distill__supervised_weight=0.0,
        train__batch_size=6,
        train__steps=12,
        train__learning_rate=3e-3,
    )
    curve = [record["perception"] for record in logged(made, tmp_path / "run")]
    assert curve[-1] < 0.8 * curve[0]
    subject = load_subject(str(tmp_path / "run"), assemble(made).setting.preparations["student"].pictures)
    assert not any("to_teacher" in name for name in subject.model.state_dict())
    before = load_subject(str(folder / "student"), subject.preparation.pictures).model.state_dict()
    after = subject.model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before if "vision_tower" in name)


def test_a_projection_for_hidden_states_learns_and_is_resumed(folder, tmp_path):
    lesson = {"signal": "hidden", "layers": "first"}
    changes = {"distill__drivekd": lessons(planning=lesson), "teacher": {"path": str(folder / "wide")}}
    changes["train__save_every"] = 1

    def fitted(where, steps, resume=None):
        made = recipe(folder, **changes, train__steps=steps)
        setting = assemble(made).setting
        setting.run, setting.resume_from, setting.log = where, resume, lambda record: None
        fit(setting, Accelerator(cpu=True))
        return setting

    whole = fitted(tmp_path / "whole", 4)
    fresh = assemble(recipe(folder, **changes)).setting.student.to_teacher["0"].weight
    assert not torch.equal(whole.student.to_teacher["0"].weight, fresh)
    assert fresh.shape == (48, 32)
    again = fitted(tmp_path / "again", 4, tmp_path / "whole" / "checkpoints" / "step-000003")
    for name, value in whole.student.state_dict().items():
        torch.testing.assert_close(again.student.state_dict()[name], value)


def test_teachers_that_take_turns_say_the_same(folder, tmp_path):
    changes = {"teachers": {"planning": {"path": str(folder / "wide")}}, "distill__weight": 0.5, "train__steps": 3}
    together = logged(recipe(folder, **changes), tmp_path / "together")
    turns = logged(recipe(folder, **changes, distill__drivekd={"in_turn": True}), tmp_path / "turns")
    assert len(together) == len(turns) == 3
    for ours, theirs in zip(turns, together, strict=True):
        for name in ("ce", "forward_kl", *ALL):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-6)
    setting = assemble(recipe(folder, **changes, distill__drivekd={"in_turn": True})).setting
    assert not any(hasattr(teacher, "model") for teacher in setting.teacher.everyone())


def test_taking_turns_goes_with_mining_that_asks_the_teacher(folder, tmp_path):
    changes = {"distill__weight": 0.5, "train__steps": 2, "train__accumulate": 2}
    changes["mining"] = {"samples": 50, "tokens": 50, "pool": "window", "measure": "excess"}
    together = logged(recipe(folder, **changes), tmp_path / "together")
    turns = logged(recipe(folder, **changes, distill__drivekd={"in_turn": True}), tmp_path / "turns")
    assert [record["loss"] for record in turns] == pytest.approx([record["loss"] for record in together], rel=1e-6)
    for weight, mining in ((0.0, changes["mining"]), (0.5, {"pool": "window"})):
        kept = changes | {"distill__weight": weight, "mining": mining, "distill__on": "mined" if weight else "all"}
        assert len(logged(recipe(folder, **kept, distill__drivekd={"in_turn": True}), tmp_path / f"kept{weight}")) == 2


def test_a_dry_run_of_teachers_that_take_turns(folder):
    from drivedistill.dry_run import describe

    said = describe(recipe(folder, distill__drivekd={"in_turn": True, "projection": {"per": "window"}}))
    assert "first epoch" in said


def test_lessons_are_given_once_however_often_hardness_is_asked(folder, monkeypatch):
    given = []
    mining = {"samples": 50, "tokens": 50, "pool": "window", "measure": "excess"}
    setting = assemble(recipe(folder, mining=mining, train__accumulate=3, train__steps=1)).setting
    ask = setting.teacher.signal
    monkeypatch.setattr(setting.teacher, "signal", lambda batch, needs: given.append(needs) or ask(batch, needs))
    setting.run = folder / "counted"
    fit(setting, Accelerator(cpu=True))
    assert len(given) == 6 and sum(any(isinstance(need, tuple) for need in needs) for needs in given) == 3


def test_shares_of_a_sample_are_divided_by_their_sum(folder):
    uneven = {"perception": {"perception": 0.3, "planning": 0.1}}
    setting = assemble(recipe(folder, distill__drivekd={"mixing": uneven})).setting
    chosen = [sample for sample in setting.train if sample.capability == "perception"]
    _, _, _, found = outcome(setting, chosen)
    mixed = {term.name: term.mixed for term in found.terms if term.name in ALL}
    assert mixed == pytest.approx({"perception": 0.75, "reasoning": 0.0, "planning": 0.25})


def test_a_lesson_without_weight_is_none(folder):
    setting = assemble(recipe(folder, distill__drivekd=lessons(planning={"weight": 0.0}, reasoning={}))).setting
    assert setting.objective.courses.keys() == {"reasoning"}
    assert setting.teacher.words is None  # nobody hears them


def test_a_t5_reader_is_taught_where_its_decoder_looks(tmp_path):
    run(tiny.recipe(tmp_path, seed=5), tmp_path / "teacher")
    lesson = {"block": TV, "layers": "first", "weight": 10.0}
    made = tiny.recipe(
        tmp_path,
        teacher={"path": str(tmp_path / "teacher")},
        distill__weight=0.0,
        distill__supervised_weight=0.0,  # or the words alone would lead there
        distill__drivekd={"lessons": {"planning": lesson}, "mixing": {name: {"planning": 1.0} for name in ALL}},
        train__batch_size=6,
        train__learning_rate=3e-3,
    )
    said = logged(made, tmp_path / "run")
    assert said[-1]["planning"] < said[0]["planning"]


def test_both_methods_in_one_student(folder, tmp_path):
    """H2G, released words, experts with their router losses, and lessons."""
    made = recipe(
        folder,
        distill__weight=1.0,
        distill__release={"end": 0.1},
        mining={"samples": 50, "tokens": 50, "pool": "window"},
        model__ffn_experts={"experts": 2, "layers": "all"},
        train__accumulate=2,
    )
    said = logged(made, tmp_path / "run")
    assert {"h2g", "forward_kl", "balance"} | ALL <= said[0].keys()
    assert said[-1]["alpha"] < said[0]["alpha"]


# --- refused --------------------------------------------------------------------------------------------------------


def refused(make):
    with pytest.raises((InputError, ValueError)) as error:
        make()
    return str(error.value)


def test_layers_that_are_not_there_are_refused(folder):
    said = refused(lambda: assemble(recipe(folder, distill__drivekd=lessons(planning={"layers": [0, 5]}))))
    assert "distill.drivekd.lessons.planning.layers" in said and "layer 5 of a model with 2 layers" in said
    with pytest.raises(InputError):
        course(Lesson(layers=[2, 1]), 4, 4, "planning")


def test_two_widths_for_one_layer_are_refused(folder):
    hidden = {"signal": "hidden", "layers": "first"}
    made = recipe(
        folder,
        teachers={"planning": {"path": str(folder / "wide")}},
        distill__drivekd=lessons(planning=hidden, perception=hidden),
    )
    assert "one width per student layer" in refused(lambda: assemble(made))


def test_a_t5_student_of_a_decoder_only_teacher_is_refused(folder, tmp_path):
    run(tiny.recipe(tmp_path), tmp_path / "student")
    models = {"model": {"path": str(tmp_path / "student")}, "teacher": {"path": str(folder / "teacher")}}
    made = tiny.recipe(tmp_path, **models, distill__weight=0.0, distill__drivekd={})
    assert "internvl for driving_t5" in refused(lambda: assemble(made))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"teacher": None}, "a recipe with a teacher"),
        ({"teachers": {"planning": {"path": "x", "frozen": ["a"]}}}, "teachers.planning.frozen"),
        ({"teachers": {"planning": {"path": "x"}}, "distill__drivekd": None}, "a capability with a lesson"),
        ({"distill__weight": 1.0, "distill__release": {"end": 0.1, "below": 0.5}}, "asks its teachers to the end"),
        ({"teacher": {"preset": "tiny"}, "distill__drivekd": {"in_turn": True}}, "to be loaded in turn"),
        ({"distill__drivekd": {"reweighting": {}}}, "keeps the gradients apart"),
        ({"distill__drivekd": {"in_turn": True}, "data__vision_cache": "c"}, "their towers with them"),
        (
            {"distill__drivekd": {"lessons": {"planning": {"signal": "hidden", "block": "full"}}}},
            "neither text-to-vision",
        ),
        (
            {"distill__drivekd": {"lessons": {"planning": {"distance": "cosine", "denominator": "all"}}}},
            "averaged over",
        ),
        ({"teachers": {"planning": {"preset": "tiny"}}, "distill__teacher_cache": "c"}, "teachers.planning.path"),
        ({"distill__drivekd": {"kl": "follower"}}, "simply added up"),
        ({"distill__drivekd": {"lessons": {}}}, "at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(folder, changes, words):
    assert words in refused(lambda: recipe(folder, **changes))


def test_other_pictures_are_refused(folder, tmp_path):
    own = recipe(folder, teacher=None, distill__drivekd=None, data__views="named", train__steps=0)
    run(own, tmp_path / "teacher")
    said = refused(lambda: assemble(recipe(folder, teacher={"path": str(tmp_path / "teacher")})))
    assert "named for the teacher of perception, all for the student" in said


def test_another_vocabulary_is_named(folder, tmp_path):
    tiny.save_vlm("qwen2_5_vl", tmp_path / "other", seed=5)
    said = refused(lambda: assemble(recipe(folder, teachers={"planning": {"path": str(tmp_path / "other")}})))
    assert "tokens in the teacher's vocabulary" in said or "for the teacher" in said


# --- from a cache -----------------------------------------------------------------------------------------------------


def cached(folder, where, **changes):
    given = {"reasoning": {"block": TV, "layers": [0, -1]}, "planning": {"block": TV, "layers": "penultimate"}}
    drivekd = {"distill__drivekd": lessons(**given), "distill__teacher_cache": str(where)}
    return recipe(folder, **{**drivekd, "distill__weight": 0.5, "train__steps": 3, **changes})


def test_maps_of_text_looking_at_pictures_come_from_a_cache(folder, tmp_path, capsys):
    made = cached(folder, tmp_path / "cache", teachers={"planning": {"path": str(folder / "wide")}})
    assert "run `drivedistill cache RECIPE`" in refused(lambda: assemble(made))
    save_recipe(made, tmp_path / "card.yaml")
    card = str(tmp_path / "card.yaml")
    assert typed("cache", card, "--dry-run", "--top-k", "400") == 0
    assert not (tmp_path / "cache").exists()
    assert typed("cache", card, "--top-k", "400") == 0
    said = capsys.readouterr().out
    assert "layers 0, 1, 2: 6 answers, 6 to compute" in said and "layers 2: 6 answers, all there" in said
    parts = assemble(made)
    for subject in parts.faculty.subjects.values():
        assert {parameter.device.type for parameter in subject.model.parameters()} == {"meta"}
    live = logged(recipe(folder, **changed(made, None)), tmp_path / "live")
    kept = logged(made, tmp_path / "kept")
    assert len(live) == len(kept) == 3
    for ours, theirs in zip(kept, live, strict=True):
        for name in ("reasoning", "planning"):
            assert ours[name] == pytest.approx(theirs[name], rel=0.02)
        assert ours["ce"] == pytest.approx(theirs["ce"], rel=1e-3)


def changed(made, cache):
    tree = made.model_dump()
    return {"teachers": tree["teachers"], "distill": tree["distill"] | {"teacher_cache": cache}, "train": tree["train"]}


def test_a_cache_that_lacks_a_layer_or_is_another_teacher_s_is_refused(folder, tmp_path):
    made = cached(folder, tmp_path / "cache")
    save_recipe(made, tmp_path / "card.yaml")
    assert typed("cache", str(tmp_path / "card.yaml"), "--top-k", "400") == 0
    assemble(made)
    more = {"planning": {"block": TV, "layers": "last"}}
    only_planning = cached(
        folder, tmp_path / "cache", distill__drivekd=lessons(planning={"block": TV, "layers": [0, 0]})
    )
    assemble(only_planning)
    other = cached(
        folder,
        tmp_path / "cache",
        distill__drivekd=lessons(**more),
        teachers={"planning": {"path": str(folder / "wide")}},
    )
    assert "maps that were made otherwise: teacher.config" in refused(lambda: assemble(other))
    full = cached(folder, tmp_path / "cache", distill__drivekd=lessons(reasoning={"block": "full"}))
    assert {p.device.type for p in assemble(full).faculty.main.model.parameters()} == {
        "cpu"
    }  # full maps are never kept


def test_maps_alone_are_kept_of_teachers_that_take_turns(folder, tmp_path, capsys):
    """Who is not heard keeps no words, and nobody is in memory but who is asked."""
    turns = {"lessons": {"planning": {"block": TV, "layers": "first"}}, "in_turn": True}
    made = cached(folder, tmp_path / "cache", distill__drivekd=turns, distill__weight=0.0)
    save_recipe(made, tmp_path / "card.yaml")
    assert typed("cache", str(tmp_path / "card.yaml")) == 0
    said = capsys.readouterr().out
    assert "layers 0: 6 answers, all there" in said and "captured probability" not in said
    live = logged(recipe(folder, **changed(made, None)), tmp_path / "live")
    kept = logged(made, tmp_path / "kept")
    assert [record["planning"] for record in kept] == pytest.approx([r["planning"] for r in live], rel=0.02)


def test_a_killed_cache_of_maps_ends_as_a_whole_one(folder, tmp_path):
    from drivedistill.build import speaker_of
    from drivedistill.distill.map_cache import build
    from drivedistill.distill.teacher import LiveTeacher
    from drivedistill.models.student import Student

    parts = assemble(recipe(folder))
    speaker = speaker_of(recipe(folder), parts.teacher)
    teacher = LiveTeacher(Student(parts.teacher.model, role="teacher"))
    whole, computed = build(tmp_path / "whole", speaker, teacher, parts.splits["train"], [0, 2], batch_size=2)
    assert computed == 6
    maps, _ = build(tmp_path / "killed", speaker, teacher, parts.splits["train"][:4], [0, 2], batch_size=2)
    for name, cut in (("rows.bin", 7), ("index.jsonl", 30)):
        path = maps.store.folder / name
        path.write_bytes(path.read_bytes()[:-cut])
    again, computed = build(tmp_path / "killed", speaker, teacher, parts.splits["train"], [0, 2], batch_size=2)
    assert 2 < computed < 6
    for name in ("rows.bin", "index.jsonl"):
        assert (again.store.folder / name).read_bytes() == (whole.store.folder / name).read_bytes()


def test_a_dry_run_says_who_teaches_what(folder):
    from drivedistill.dry_run import describe

    said = describe(recipe(folder, teachers={"planning": {"path": str(folder / "wide")}}))
    assert "lesson          perception: text to vision maps, layers 0 after 0 of teacher\n" in said
    assert "lesson          reasoning: full maps, layers 0 after 0-1 of teacher\n" in said
    assert "lesson          planning: text to vision maps, layers 0 after 2 of teacher/planning\n" in said
    assert "teacher/planning " in said and "first epoch" in said
