import json
import random
import re
from dataclasses import asdict

import pytest

from drivedistill.data import READERS
from drivedistill.data.check import check
from drivedistill.data.check_report import format_report
from drivedistill.data.prior import judge, template
from drivedistill.records import Region


def test_template_masks_objects_numbers_and_options_but_no_directions():
    question = "What will <c1,CAM_BACK,1088.3,497.5> and < c2,CAM_FRONT,1.0,2.0> do to the back left in 3.5 s?"
    assert template(question) == "What will <OBJ> and <OBJ> do to the back left in <NUM> s?"
    assert template("How? Please select from the following options: A. Going ahead. B. Stopped.") == template(
        "How? Please select from the following options: A. Turn left. B. Back up."
    )


def test_counts_and_prior_of_a_known_split(sample):
    samples = [
        sample("1", question="Is <c1,CAM_BACK,1.0,2.0> a car?", answer="Yes.", frame="f1"),
        sample("2", question="Is <c2,CAM_BACK,3.0,4.0> a car?", answer="Yes.", frame="f1", task="planning"),
        sample("3", question="Is <c3,CAM_BACK,3.0,4.0> a car?", answer="No.", frame="f2", task="behavior"),
        sample("4", question="Describe.", answer="It is a sunny day.", frame="f2", regime="corner", tags=(2,)),
        sample("5", question="Describe.", answer="", frame="f2", regime="corner"),
        sample("6", question="Why?", answer=None, frame="f3"),
    ]
    report = check({"train": samples}, images="none")
    split = report.splits["train"]
    assert (split.questions, split.scenes, split.frames, split.pictures) == (6, 1, 3, 1)
    assert split.tasks == {"regular": {"behavior": 1, "perception": 2, "planning": 1}, "corner": {"perception": 2}}
    assert split.capabilities == {"perception": 4, "planning": 1, "reasoning": 1} and split.tags == {"2": 1}
    assert split.unanswered == 1 and split.blank == ["5"] and split.frames_without_answers == 1
    assert split.answer_words == pytest.approx({"min": 0, "median": 1, "p90": 3.4, "p99": 4.84, "max": 5, "mean": 1.6})
    assert (split.majority_answer, split.majority_share, split.prior_accuracy) == ("Yes.", 0.4, None)
    assert (report.regular, report.corner, report.prior_from) == (4, 2, "train")
    first = report.templates[0]
    assert (first.question, first.count, first.answer, first.share) == (
        "Is <OBJ> a car?",
        3,
        "Yes.",
        pytest.approx(2 / 3),
    )


def test_prior_is_learnt_on_train_and_examined_elsewhere(sample):
    train = [sample("1", answer="A."), sample("2", answer="A.")]
    test = [
        sample("3", answer="B.", scene="t"),
        sample("4", answer="A.", scene="t"),
        sample("5", question="New?", scene="t"),
        sample("6", answer=None, scene="t"),
    ]
    report = check({"train": train, "test": test}, images="none")
    assert report.splits["test"].prior_accuracy == pytest.approx(1 / 3)
    assert report.splits["train"].prior_accuracy is None  # one scene: none is left to learn from
    assert (report.templates[0].text_only, report.templates[0].examined) == (0.5, 2)
    assert check({"train": train}, images="none").templates[0].examined == 0


def made_up(sample, answer_of, count=300, template="What does <c1,{camera},{x}.0,{y}.0> do?"):
    """Questions in 60 scenes; `answer_of` is given a generator, the camera and x."""
    generator = random.Random(0)
    samples = []
    for index in range(count):
        camera, x = generator.choice(["CAM_FRONT", "CAM_BACK"]), generator.randrange(1600)
        question = template.format(camera=camera, x=x, y=generator.randrange(900))
        answer = answer_of(generator, camera, x)
        samples.append(sample(f"{template} {index}", question=question, answer=answer, scene=str(index % 60)))
    return samples


def learnt(samples):
    verdicts = judge(samples)
    return verdicts.count(True) / len(samples)


def test_learner_finds_what_cameras_places_and_words_give_away(sample):
    assert learnt(made_up(sample, lambda generator, camera, x: camera)) == 1
    assert learnt(made_up(sample, lambda generator, camera, x: "left" if x < 800 else "right")) > 0.9
    both = made_up(sample, lambda generator, camera, x: "yes" if (camera == "CAM_FRONT") == (x < 800) else "no")
    assert learnt(both) > 0.9
    words = "Is the {x} at <c1,{camera},5.0,5.0> red?"
    named = made_up(sample, lambda generator, camera, x: str(x % 7), template=words)
    coarse = [
        item.model_copy(update={"question": re.sub(r"the \d+", f"the thing{item.answer}", item.question)})
        for item in named
    ]
    assert learnt([item.model_copy(update={"extra": {"template": "red"}}) for item in coarse]) == 1


def test_learner_cannot_guess_what_is_drawn_at_random(sample):
    random_answers = made_up(sample, lambda generator, camera, x: generator.choice("ABCD"), count=1200)
    assert learnt(random_answers) == pytest.approx(0.25, abs=0.05)


def test_learner_is_never_examined_on_a_scene_it_was_taught(sample):
    scenes = [sample(str(index), answer=f"{index // 4}", scene=f"{index // 4}") for index in range(80)]
    assert learnt(scenes) == 0  # every scene has an answer of its own
    assert judge(scenes) == judge(scenes[::-1])[::-1]


def test_multiple_choice_is_judged_by_the_texts_of_the_options(sample):
    def choose(generator, right, wrong):
        options = generator.sample([right, *wrong], 1 + len(wrong))
        listed = " ".join(f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=False))
        question = f"What does it do? Please select the correct answer from the following options: {listed}"
        return question, "ABCD"[options.index(right)]

    generator = random.Random(0)
    samples = []
    for index in range(200):
        right = "Stopped." if index % 10 < 6 else generator.choice(["Braking.", "Crossing.", "Turning."])
        wrong = [option for option in ("Stopped.", "Braking.", "Crossing.", "Turning.") if option != right]
        question, letter = choose(generator, right, wrong)
        samples.append(sample(str(index), question=question, answer=letter, scene=str(index % 20)))
    report = check({"train": samples}, images="none")
    row = report.templates[0]
    assert (row.answer, row.share, row.answers, row.count) == ("Stopped.", 0.6, 4, 200)
    assert row.text_only == pytest.approx(0.6, abs=0.02)
    uniform = []
    for index in range(200):  # a rare answer is listed as often as others, but seldom right
        right = generator.choice(["Stopped.", "Braking."])
        question, letter = choose(generator, right, ["Crossing."])
        uniform.append(sample(str(index), question=question, answer=letter, scene=str(index % 20)))
    assert learnt(uniform) == 1


def test_closed_templates_that_can_be_guessed_are_named(sample):
    easy = made_up(sample, lambda generator, camera, x: "Yes." if camera == "CAM_FRONT" else "No.")
    hard = made_up(
        sample,
        lambda generator, camera, x: generator.choice(["Yes.", "No."]),
        template="Red? <c1,{camera},{x}.0,{y}.0>",
    )
    report = check({"train": [*easy, *hard]}, images="none")
    assert [row.question for row in report.easy_templates] == ["What does <OBJ> do?"] and not report.problems
    assert "Closed templates of which more than 60% can be guessed: 1" in format_report(report)
    assert not report.perhaps_easy_templates


@pytest.mark.parametrize(("count", "found"), [(19, (0, 0)), (20, (0, 1)), (49, (0, 1)), (50, (1, 0))])
def test_templates_with_few_questions_are_a_hint_only(sample, count, found):
    easy = made_up(sample, lambda generator, camera, x: "Yes.", count=count)
    report = check({"train": easy}, images="none")
    assert (len(report.easy_templates), len(report.perhaps_easy_templates)) == found
    assert ("too few questions to tell (fewer than 50): 1" in format_report(report)) == bool(found[1])


def test_all_named_templates_are_printed_and_the_most_frequent_others(sample):
    def asked(text, times, **more):
        return [sample(f"{text} {number}", question=text, **more) for number in range(times)]

    named = [one for index in range(45) for one in asked(f"named {'x' * index}?", 1, extra={"template": f"t{index}"})]
    unnamed = [one for index in range(43) for one in asked(f"open {'y' * index}?", 2)]
    text, _, _ = format_report(check({"train": [*named, *unnamed]}, images="none")).partition("Regular to corner")
    assert (text.count("named x") + text.count("named ?"), text.count("open y") + text.count("open ?")) == (45, 40)
    assert "... and 3 more" in text


def test_duplicates_compare_pictures_words_and_region(sample):
    def box(x):
        return Region(camera="CAM_FRONT", box=(x, 0, 1, 1))

    samples = [sample("1"), sample("2"), sample("3", images={"CAM_FRONT": "/b.jpg"}), sample("4", region=box(0))]
    report = check({"all": [*samples, sample("5", region=box(1)), sample("6", region=box(0))]}, images="none")
    assert report.splits["all"].duplicates == ["2", "6"]


def test_shared_scenes_and_repeated_ids_are_problems(sample):
    report = check({"train": [sample("1")], "test": [sample("1"), sample("2", scene="t")]}, images="none")
    assert report.shared_scenes == ["made s: train, test"] and report.repeated_ids == ["1"]
    assert len(report.problems) == 2


@pytest.mark.parametrize(("mode", "bad"), [("none", 0), ("exist", 2), ("decode", 3)])
def test_bad_pictures_are_found_once_each(tmp_path, made, sample, mode, bad):
    good = next((made / "regular/nuscenes/samples/CAM_FRONT").iterdir())
    (tmp_path / "cut.jpg").write_bytes(good.read_bytes()[:1200])
    (tmp_path / "zero.jpg").write_bytes(b"")
    paths = [good, tmp_path / "cut.jpg", tmp_path / "zero.jpg", tmp_path / "absent.jpg"]
    samples = [sample(f"{turn}{path.stem}", images={"CAM_FRONT": str(path)}) for turn in range(2) for path in paths]
    seen = []
    report = check({"train": samples}, images=mode, progress=lambda done, total: seen.append((done, total)))
    assert len(report.bad_images) == bad == len(report.problems)
    assert report.checked_images == (0 if mode == "none" else 4)
    assert seen == ([] if mode == "none" else [(1, 4), (2, 4), (3, 4), (4, 4)])


def test_regions_outside_their_picture_are_found(made, sample):
    picture = {"CAM_FRONT": str(next((made / "regular/nuscenes/samples/CAM_FRONT").iterdir()))}
    boxes = {"in": (150, 80, 50, 50), "right": (160, 0, 5, 5), "above": (0, -9, 9, 9)}
    samples = [sample(id, images=picture, region=Region(camera="CAM_FRONT", box=box)) for id, box in boxes.items()]
    samples.append(sample("back", images=picture, region=Region(camera="CAM_BACK", box=(0, 0, 1, 1))))
    report = check({"train": samples}, images="exist")
    assert [problem.record for problem in report.outside_regions] == ["right, region", "above, region", "back, region"]


def test_report_is_json_and_reads_well(made):
    splits = {
        "train": list(READERS["drivelm"](made / "regular", "train", regime="regular")),
        "corner": list(READERS["coda_lm"](made / "corner", "Train", regime="corner")),
    }
    report = check(splits, images="decode")
    assert not report.problems
    assert json.loads(json.dumps(asdict(report)))["splits"]["train"]["frames"] == 6
    text = format_report(report)
    assert max(map(len, text.split("\n"))) <= 100
    for words in (
        "text-only prior",
        "corner planning",
        "capability reasoning",
        "Regular to corner",
        "0 missing or broken",
    ):
        assert words in text


def test_report_shows_five_of_many_findings(sample):
    report = check(
        {"train": [sample(str(i), images={"CAM_FRONT": f"/absent/{i}.jpg"}) for i in range(9)]}, images="exist"
    )
    text = format_report(report)
    assert "9 missing or broken" in text and text.count("no such file") == 5 and "... and 4 more" in text


def test_empty_splits_can_be_reported():
    for splits in ({}, {"train": []}):
        assert "Regular to corner: 0 to 0" in format_report(check(splits, images="exist"))


@pytest.mark.drivelm
def test_public_sample_has_66_challenge_questions_and_no_bad_picture(drivelm_sample):
    splits = {name: list(READERS["drivelm"](drivelm_sample, name, regime="regular")) for name in ("train", "challenge")}
    report = check(splits, images="exist")
    assert report.splits["train"].questions == 790 and report.checked_images == 54 and not report.bad_images
    assert report.splits["challenge"].tags == {"0": 26, "1": 27, "2": 9, "3": 4}
    assert len(report.shared_scenes) == 2
