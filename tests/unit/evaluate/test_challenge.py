"""DriveLM's challenge rules, on small cases and on perturbed answers of the public sample."""

import json

import pytest

from drivedistill.data import drivelm
from drivedistill.data.drivelm_challenge import options
from drivedistill.evaluate.drivelm import (
    challenge_scores,
    extract_letter,
    graph_filter,
    language_measure,
    letter_correct,
    match_points,
    points,
)
from drivedistill.evaluate.measure import mean_of
from drivedistill.evaluate.submission import read_submission

QUESTION = (
    "What is the moving status of object <c1,CAM_BACK,1088.3,497.5>? Please select the correct answer from the "
    "following options: A. Going ahead. B. Stopped. C. Back up. D. Turn left."
)


def captions(**others):
    values = {"bleu_1": 0.8, "bleu_2": 0.6, "bleu_3": 0.4, "bleu_4": 0.2, "rouge_l": 0.3, "cider": 4.0} | others
    return {name: mean_of([value], "test") for name, value in values.items() if value is not None}


def exact(graph):
    return challenge_scores(graph, language=None)


# --- match ---


@pytest.mark.parametrize(
    ("answer", "reference", "f1"),
    [
        ("(100.0,200.0) (300.0,400.0)", "(105.0,205.0) (300.0,400.0) (900.0,500.0)", 0.8),
        ("100.0,200.0", "108.0,208.0", 0.0),  # |dx| + |dy| = 16 is not less than 16
        ("100.0,200.0", "108.0,207.9", 1.0),
        ("no numbers", "100.0,200.0", 0.0),
        ("100.0,200.0", "none", 0.0),
        ("", "", 0.0),
        ("100,200", "100.0,200.0", 0.0),  # whole numbers are no coordinates
        ("<c1,CAM_BACK,100.0,200.0>", "<c7,CAM_FRONT,100.0,200.0>", 1.0),  # names and cameras are ignored
        ("100.0,200.0 and 100.0,200.0", "100.0,200.0", 2 / 3),  # a true point is found once
        ("100.0,200.0 with probability 0.9", "100.0,200.0", 1.0),  # an odd number is cropped
        ("100.0", "100.0,200.0,3.0", 0.0),
    ],
)
def test_match_f1(answer, reference, f1):
    assert match_points(answer, reference).f1 == pytest.approx(f1, abs=1e-7)


def test_each_predicted_point_takes_the_nearest_remaining_true_one():
    found = match_points("100.0,100.0 104.0,100.0", "105.0,100.0 99.0,100.0").found
    assert found == ((99.0, 100.0), (105.0, 100.0))


def test_points_are_read_in_pairs():
    assert points("<c1,CAM_BACK,1088.3,497.5> 7 12.0") == [(1088.3, 497.5)]


# --- graph ---


def frame(make, first_answer, **fields):
    questions = ["What are the important objects?", "Is <c1,CAM_BACK,10.5,20.5> moving?", "Is it raining?"]
    references = ["<c1,CAM_BACK,10.5,20.5>", "Yes.", "No."]
    answers = [first_answer, "Yes.", "No."]
    return [
        make(id=f"s_f_{i}", question=q, reference=r, prediction=a, tags=(3 if i == 0 else 0,), **fields)
        for i, (q, r, a) in enumerate(zip(questions, references, answers, strict=True))
    ]


def test_a_question_about_an_object_that_was_not_found_is_skipped(make):
    graph = graph_filter(frame(make, "nothing"))
    assert [item.id for item in graph.kept] == ["s_f_0", "s_f_2"]
    assert [item.id for item in graph.skipped] == ["s_f_1"]


def test_a_question_about_an_object_found_within_16_px_is_kept(make):
    assert len(graph_filter(frame(make, "<c1,CAM_BACK,18.4,28.5>")).kept) == 3
    assert len(graph_filter(frame(make, "<c1,CAM_BACK,18.5,28.5>")).kept) == 2


def test_the_question_number_and_not_the_order_of_the_file_sets_the_graph(make):
    ordered = [*frame(make, "10.5,20.5"), *frame(make, "", frame="g")]
    graph, turned = graph_filter(ordered), graph_filter(ordered[::-1])
    assert {(item.frame, item.id) for item in graph.kept} == {(item.frame, item.id) for item in turned.kept}
    assert graph.headless == 0


def test_a_frame_without_its_first_question_is_counted(make):
    graph = graph_filter(frame(make, "10.5,20.5")[1:])
    assert graph.headless == 1
    assert len(graph.kept) == 2


def test_an_odd_number_in_a_question_does_not_crash(make):
    odd = make(id="s_f_1", question="Is 0.5 enough?", tags=(0,))
    assert len(graph_filter([frame(make, "")[0], odd]).kept) == 2


# --- letters ---


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("A", "A"),
        ("a", "A"),
        ("A.", "A"),
        ("(A)", "A"),
        (" [b] ", "B"),
        ("A. Going ahead.", "A"),
        ("C: Back up", "C"),
        ("(B) Stopped.", "B"),
        ("The correct answer is A", "A"),
        ("The correct answer is A.", "A"),
        ("The answer is (B), because it stands.", "B"),
        ("Answer: D", "D"),
        ("Option C.", "C"),
        ("Turn left.", "D"),
        ("going ahead", "A"),
        ("A car is going ahead.", None),
        ("The answer is a car.", None),
        ("The answer is A. No, the answer is B.", None),
        ("The answer is H.", None),  # not offered
        ("Big.", None),
        ("", None),
    ],
)
def test_the_chosen_letter(answer, letter):
    assert extract_letter(answer, QUESTION) == letter


def test_options_are_read_from_the_question():
    assert options(QUESTION) == {"A": "Going ahead.", "B": "Stopped.", "C": "Back up.", "D": "Turn left."}
    assert options("Is the car moving?") == {}


def test_open_answers_are_compared_without_case_and_final_point(make):
    assert letter_correct(make(reference="No.", prediction=" no"))
    assert not letter_correct(make(reference="No.", prediction="No, none."))
    assert not letter_correct(make(reference="A", prediction="", question=QUESTION))


# --- components ---


def test_the_language_component_weighs_its_parts_as_the_original():
    assert language_measure(captions()).point == pytest.approx((0.8 + 0.6 + 0.4 + 0.2) / 12 + 0.3 / 3 + 4.0 / 30)
    assert language_measure(captions(cider=None)) is None


def test_the_final_score_needs_every_component_and_a_judge(make):
    tagged = [make(id=f"s_f_{tag}", tags=(tag,), reference="1.0,2.0", prediction="1.0,2.0") for tag in range(4)]
    graph = graph_filter(tagged)
    words = language_measure(captions()).point
    scores = challenge_scores(graph, language=words, ratings={"s_f_1": 60.0, "s_f_3": 40.0})
    assert scores.match == pytest.approx((100 + 40) / 2)
    assert scores.final == pytest.approx(0.4 * 0.6 + 0.2 * words + 0.2 * 0.7 + 0.2 * 1.0)
    silent = challenge_scores(graph, language=words)
    assert silent.final is None and silent.judge is None
    assert silent.match == silent.match_f1 == pytest.approx(100)


def test_unreadable_ratings_leave_the_mean_to_the_others(make):
    graph = graph_filter([make(id=f"s_f_{number}", tags=(1,)) for number in range(3)])
    ratings = {"s_f_0": 50.0, "s_f_1": None, "s_f_2": 100.0}
    assert challenge_scores(graph, language=None, ratings=ratings).judge == 75.0


def test_empty_lists_score_none_and_do_not_divide_by_zero(make):
    scores = exact(graph_filter([make(tags=(2,))]))
    assert (scores.accuracy, scores.judge, scores.match_f1, scores.match, scores.language, scores.final) == (None,) * 6


# --- the public sample ---


@pytest.fixture
def reference(drivelm_sample):
    return list(drivelm.read(drivelm_sample, "challenge", regime="regular"))


@pytest.fixture
def golden(reference, tmp_path):
    path = tmp_path / "output.json"
    path.write_text(json.dumps([{"id": item.id, "answer": item.answer} for item in reference]))
    return read_submission(path, reference)


@pytest.mark.drivelm
def test_the_official_zero_shot_answers_score_nothing(reference, drivelm_sample):
    graph = graph_filter(read_submission(drivelm_sample / "output.json", reference))
    scores = exact(graph)
    assert (scores.accuracy, scores.match_f1) == (0, 0)
    assert (len(graph.kept), len(graph.skipped), graph.headless) == (31, 35, 0)


@pytest.mark.drivelm
def test_true_answers_score_everything_and_skip_nothing(golden):
    graph = graph_filter(golden)
    scores = exact(graph)
    assert scores.accuracy == 1.0
    assert scores.match_f1 == pytest.approx(100, abs=1e-4)
    assert graph.skipped == []
    assert all(letter_correct(item) for item in graph.kept if 0 in item.tags)


def moved(predictions, pixels):
    """The first object of each frame's first answer, moved to the right."""
    changed = []
    for item in predictions:
        if item.id.endswith("_0"):
            x, y = points(item.prediction)[0]
            item = item.model_copy(
                update={"prediction": item.prediction.replace(f"{x},{y}", f"{x + pixels:.4f},{y}", 1)}
            )
        changed.append(item)
    return changed


@pytest.mark.drivelm
def test_an_object_15_9_px_away_is_still_found_and_one_16_px_away_is_not(golden):
    assert graph_filter(moved(golden, 15.9)).skipped == []
    skipped = graph_filter(moved(golden, 16.0)).skipped
    lost = {item.frame: points(item.reference)[0] for item in golden if item.id.endswith("_0")}
    others = [item for item in golden if not item.id.endswith("_0")]
    assert {item.id for item in skipped} == {p.id for p in others if lost[p.frame] in points(p.question)}
    assert skipped


@pytest.mark.drivelm
def test_a_sentence_around_the_letter_is_wrong_for_the_official_accuracy_only(golden):
    wordy = [item.model_copy(update={"prediction": f"The correct answer is {item.prediction}"}) for item in golden]
    letters = [item for item in graph_filter(wordy).kept if 0 in item.tags and len(item.reference) == 1]
    assert letters
    assert not any(item.prediction == item.reference for item in letters)
    assert all(letter_correct(item) for item in letters)


@pytest.mark.drivelm
def test_half_of_the_matched_answers_emptied_halves_the_match(golden):
    tagged = [item.id for item in golden if 3 in item.tags]
    emptied = [item.model_copy(update={"prediction": ""}) if item.id in tagged[::2] else item for item in golden]
    expected = 100 * (len(tagged) - len(tagged[::2])) / len(tagged)
    assert exact(graph_filter(emptied)).match_f1 == pytest.approx(expected, abs=1e-4)
