import random
from collections import Counter, defaultdict

import numpy as np
import pytest

from drivedistill.data.drivelm_challenge import options
from drivedistill.data.prior import judge
from drivedistill.records import Sample
from drivedistill.world.dataset.balance import balance, merged_groups, with_options
from drivedistill.world.dataset.balance_table import balance_table
from drivedistill.world.questions.question import Question

CAMERAS = ("CAM_FRONT", "CAM_FRONT_LEFT", "CAM_BACK")


def closed(template, answer, group, text="What?", **more):
    return Question("perception", template, text, answer, (0,), closed=True, group=group, **more)


def candidates(generator):
    """A frame whose texts give answers away: what is ahead is in the way, what is behind stands."""
    found = [Question("planning", "steps", "Why?", f"Because {generator.random()}.", (3,))]
    for _ in range(8):
        camera, column = generator.choice(CAMERAS), generator.randrange(4)
        tag, spot = f"<c1,{camera},{column * 400 + generator.randrange(400)}.0,5.0>", f"{camera} {column}"
        ahead = camera == "CAM_FRONT" and column in (1, 2)
        yes = generator.random() < (0.85 if ahead else 0.1)
        found.append(closed("path", "Yes." if yes else "No.", spot, f"Is {tag} in the way?"))
        weights = [1, 6, 0.3, 0.1] if camera == "CAM_BACK" else [5, 2, 1, 0.4]
        status = generator.choices(["Going ahead.", "Stopped.", "Braking.", "Crossing."], weights)[0]
        asked = generator.random() < 0.4
        found.append(closed("status", status, spot, f"What does {tag} do?", options=asked))
    weather = generator.choices(["Clear.", "Rain.", "Fog."], [8, 2, 1])[0]
    return [*found, closed("weather", weather, "", "What is the weather?", options=True)]


def many(count, seed=0):
    generator = random.Random(seed)
    return [candidates(generator) for _ in range(count)]


def answers_by(kept, template, key):
    """Part -> counts of answers, by the texts of options."""
    parts = defaultdict(Counter)
    for question in (question for questions in kept for question in questions):
        if question.template == template:
            parts[key(question)][options(question.text).get(question.answer, question.answer)] += 1
    return parts


@pytest.mark.parametrize("count", [1, 2, 5, 20, 100])
@pytest.mark.parametrize("seed", range(3))
def test_no_answer_dominates_whatever_the_number_of_frames(count, seed):
    kept = balance(many(count, seed), seed, per_frame=20)
    groups = merged_groups(
        {
            (frame, index): tuple(question.group.split())
            for frame, questions in enumerate(kept)
            for index, question in enumerate(questions)
            if question.template == "path"
        }
    )
    assert len(groups) == sum(question.template == "path" for questions in kept for question in questions)
    everything = answers_by(kept, "path", lambda question: "")
    assert not everything or everything[""]["Yes."] == everything[""]["No."]
    for counts in answers_by(kept, "path", lambda question: question.group.split()[0]).values():
        assert max(counts.values()) <= 1.5 * min(counts["Yes."], counts["No."]) + 2
    for counts in answers_by(kept, "status", lambda question: "").values():
        top = counts.most_common(1)[0][1]
        assert top <= 0.4 * counts.total() + 1e-9 or top == min(counts.values())
    for counts in answers_by(kept, "status", lambda question: question.group).values():
        top = counts.most_common(1)[0][1]
        assert top <= 1.5 * (counts.total() - top) + 2


def test_large_groups_of_two_answers_are_nearly_even():
    kept = balance(many(300), 0, per_frame=99)
    for counts in answers_by(kept, "path", lambda question: question.group).values():
        assert max(counts.values()) <= 1.5 * min(counts["Yes."], counts["No."]) + 2 and counts.total() > 10


def test_texts_that_look_alike_have_both_answers_even_inside_a_group():
    generator = random.Random(0)
    frames = []
    for _ in range(900):
        x = generator.randrange(1600)  # one group, but the place tells
        answer = "Yes." if generator.random() < x / 1600 else "No."
        frames.append([closed("t", answer, "front", f"Is <c1,CAM_FRONT,{x}.0,5.0> near?")])
    for column in range(4):
        inside = [
            q.answer
            for questions in balance(frames, 0, per_frame=9)
            for q in questions
            if column <= float(q.text.split(",")[2]) / 400 < column + 1
        ]
        assert len(inside) > 30 and 0.4 < inside.count("Yes.") / len(inside) < 0.6


def test_a_reader_of_the_texts_learns_little_and_much_is_kept():
    frames = many(300)
    kept = balance(frames, 0, per_frame=20)

    def guessed(questions, template):
        samples = [
            Sample(
                id=f"{frame} {index}", dataset="made", scene=str(frame // 3), frame=str(frame), split="train",
                regime="regular", task=item.task, question=item.text, answer=item.answer,
                images={"CAM_FRONT": "/a"}, extra={"template": template},
            )
            for frame, items in enumerate(questions)
            for index, item in enumerate(items)
            if item.template == template
        ]  # fmt: skip
        return judge(samples).count(True) / len(samples), len(samples)

    assert guessed(frames, "path")[0] > 0.8 and guessed(kept, "path")[0] < 0.6
    assert guessed(frames, "status")[0] > 0.6 and guessed(kept, "status")[0] < 0.6
    assert guessed(kept, "weather")[0] < 0.6
    assert guessed(kept, "path")[1] > 0.2 * guessed(frames, "path")[1]
    assert guessed(kept, "status")[1] > 0.4 * guessed(frames, "status")[1]


def test_small_groups_join_where_they_agree_most():
    names = {(0, index): ("front", "left") for index in range(9)}
    names |= {(1, index): ("front", "right") for index in range(3)} | {
        (2, index): ("front", "top") for index in range(5)
    }
    names |= {(3, 0): ("back", "left")}
    groups = merged_groups(names)
    assert Counter(groups.values()) == {("front", "left"): 9, ("front",): 8, (): 1}
    frames = [[closed("t", "Yes.", "front left"), closed("t", "No.", "front right")] for _ in range(3)]
    assert sum(map(len, balance(frames, 0, per_frame=9))) == 4  # joined, but no more than two of one answer in each


def test_joined_groups_do_not_give_away_what_only_their_combination_tells():
    rows = [("front left", "Yes."), ("front right", "No."), ("back left", "No."), ("back right", "Yes.")]
    frames = [[closed("t", answer, group) for group, answer in rows] for _ in range(4)]
    kept = balance(frames, 0, per_frame=9)
    assert Counter(question.group for questions in kept for question in questions) == dict.fromkeys(dict(rows), 2)


def test_a_group_with_one_answer_teaches_nothing():
    frames = [
        [closed("t", "No.", "back", "Back?"), closed("t", answer, "front", "Front?")] for answer in ("Yes.", "No.") * 20
    ]
    kept = balance(frames, 0, per_frame=9)
    groups = Counter(question.group for questions in kept for question in questions)
    assert groups["back"] <= 2 and groups["front"] >= 38
    assert balance([[closed("t", "No.", "")]] * 9, 0, per_frame=9) == [[]] * 9


def test_open_templates_pass_unless_they_repeat_and_nothing_is_invented():
    frames = many(30)
    kept = balance(frames, 0, per_frame=99)
    for given, taken in zip(frames, kept, strict=True):
        assert [question for question in given if not question.closed] == [q for q in taken if not q.closed]
        plain = [question for question in taken if not options(question.text)]
        assert plain == [question for question in given if question in plain]  # unchanged, in their order
    answers = ["It is free."] * 30 + [f"{index}" for index in range(12)]
    said = balance([[Question("planning", "t", "Why?", answer, (1,))] for answer in answers], 0, per_frame=9)
    assert Counter(q.answer == "It is free." for questions in said for q in questions) == {True: 10, False: 12}


def test_choices_list_the_answer_once_and_the_letters_are_even():
    kept = balance(many(400), 0, per_frame=20)
    letters = Counter()
    for question in (question for questions in kept for question in questions if options(question.text)):
        listed = options(question.text)
        assert len(set(listed.values())) == len(listed) == (4 if question.template == "status" else 3)
        assert " Please select the correct answer from the following options: A. " in question.text
        assert question.options and question.text.endswith(".") and not question.text.endswith("..")
        letters[question.answer] += question.template == "status"
    assert set(letters) == set("ABCD") and max(letters.values()) < 1.5 * min(letters.values())
    assert not any(options(q.text) for questions in kept for q in questions if not q.options)


def test_a_choice_with_commas_and_without_a_stop_is_written_as_a_sentence():
    question = Question("behavior", "b", "Predict.", "turn left, stop", (0,), options=True)
    asked = with_options(question, ["keep speed", "stop"], np.random.default_rng(0))
    assert set(options(asked.text).values()) == {"Turn left, stop.", "Keep speed.", "Stop."}
    assert options(asked.text)[asked.answer] == "Turn left, stop."


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 20])
@pytest.mark.parametrize("seed", range(4))
def test_a_choice_has_three_options_or_is_asked_openly(count, seed):
    frames = many(count, seed)
    for given, taken in zip(frames, balance(frames, seed, per_frame=99), strict=True):
        for question in taken:
            if question.options:
                assert len(options(question.text)) >= 3 and question.answer in options(question.text)
            else:
                assert any((q.text, q.answer) == (question.text, question.answer) for q in given)


def test_answers_that_were_thinned_away_fill_the_options():
    def asked(answer):
        return [closed("t", answer, "front", options=True)]

    frames = [asked(answer) for answer in ("Dry, day.", "Dry, night.") * 10]
    assert not any(q.options for questions in balance(frames, 0, per_frame=9) for q in questions)
    frames += [[closed("t", "Fog, day.", "front")], [closed("t", "Snow, day.", "front")]]
    kept = [q for questions in balance(frames, 0, per_frame=9) for q in questions if q.options]
    assert kept and all(len(options(question.text)) >= 3 for question in kept)


def test_distractors_are_as_frequent_as_they_are_true():
    generator = random.Random(0)
    answers = [*["a"] * 4, *["b"] * 4, *["c"] * 4, *["d"] * 4, "rare"]
    frames = [[closed("t", generator.choice(answers), "", options=True)] for _ in range(2000)]
    listed = Counter(
        o for questions in balance(frames, 0, per_frame=9) for q in questions for o in options(q.text).values()
    )
    assert listed["Rare."] < 0.5 * listed["A."]


def test_a_frame_keeps_every_template_and_its_share_of_the_rest():
    frames = many(100)
    kept = balance(frames, 0, per_frame=8)
    assert max(map(len, kept)) <= 8
    counts = Counter(question.template for questions in kept for question in questions)
    assert counts["steps"] == 100  # one per frame: never crowded out
    roomy = Counter(question.template for questions in balance(frames, 0, per_frame=99) for question in questions)
    assert 0.7 < (counts["path"] / roomy["path"]) / (counts["status"] / roomy["status"]) < 1.4


def test_same_seed_same_choice_and_another_seed_another():
    frames = many(20)
    first = balance(frames, 3, per_frame=12)
    assert first == balance([list(questions) for questions in frames], 3, per_frame=12)
    assert first != balance(frames, 4, per_frame=12)
    assert balance([], 0, per_frame=5) == [] and balance([[]], 0, per_frame=5) == [[]]


def test_table_tells_what_balancing_did():
    frames = many(60)
    kept = balance(frames, 0, per_frame=20)
    lines = balance_table(frames, kept).split("\n")
    assert [line.split()[0] for line in lines[1:]] == ["path", "status", "steps", "weather"]
    assert max(map(len, lines)) <= 100
    path = lines[1].split()
    assert int(path[1]) == 480 and path[4] == "50%" and "yes 50%" in lines[1] and "no 50%" in lines[1]
    assert "going ah…" in lines[2] or "stopped" in lines[2]
    assert balance_table([], []).count("\n") == 0
