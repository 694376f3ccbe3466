"""Multiple choice in words: nothing of the options is read, and every answer finds its letter again."""

import json
from collections import Counter
from dataclasses import replace

import pytest

import tiny
from drivedistill.data.choices import asked_openly, in_words, letter_of
from drivedistill.data.collate import collate, questions, refuse_long
from drivedistill.data.drivelm_challenge import (
    BEHAVIORS,
    CHOOSE,
    MOVING_STATES,
    extract_challenge,
    options,
    to_multiple_choice,
)
from drivedistill.problems import InputError

ASKED = f"Where?{CHOOSE}A. Left. B. Right. C. Straight on."


def of_challenge(train):
    """Question and answer of everything that the challenge asks, some of it as multiple choice."""
    frames = [f for scene in to_multiple_choice(train, 0).values() for f in scene["key_frames"].values()]
    return [(qa["Q"], qa["A"]) for frame in frames for items in frame["QA"].values() for qa in items]


def closed(answers, question, task):
    """A training file with one frame per possible answer."""
    frames = {f"f{i}": {"QA": {task: [{"Q": question, "A": a}]}, "image_paths": {}} for i, a in enumerate(answers)}
    return {"s": {"key_frames": frames}}


def test_letters_come_back_from_words(made, sample):
    file = made / "regular/QA_dataset_nus/v1_1_train_nus.json"
    asked = of_challenge(extract_challenge(json.loads(file.read_text())))
    asked += of_challenge(closed(BEHAVIORS, "Predict the behavior.", "behavior"))
    asked += of_challenge(
        closed(MOVING_STATES, "What is the moving status of object <c1,CAM_FRONT,1.0,2.0>?", "perception")
    )
    seen = Counter()
    for question, answer in asked:
        given = sample(question=question, answer=answer)
        worded = in_words(given)
        if not options(question):
            assert worded is given and letter_of(question, answer) == answer
            continue
        seen[answer] += 1
        assert worded.question == question.partition(" Please select")[0]
        assert worded.answer == options(question)[answer] and len(worded.answer) > 1
        assert letter_of(question, worded.answer) == answer
    assert set(seen) == set("ABCD") and seen.total() >= 40


@pytest.mark.parametrize(
    ("text", "letter"),
    [("Right.", "B"), (" right ", "B"), ("straight  on .", "C"), ("Straigt on.", None), ("Right..", None), ("", None)],
)
def test_a_text_names_the_option_with_these_very_words(text, letter):
    assert letter_of(ASKED, text) == (letter or text)


def test_what_is_only_like_an_option_names_none():
    for written in BEHAVIORS:
        others = [behavior for behavior in BEHAVIORS if behavior != written]
        asked = f"Predict the behavior.{CHOOSE}" + " ".join(
            f"{a}. {b}" for a, b in zip("ABCDEFGH", others, strict=False)
        )
        assert letter_of(asked, written) == written
    twice = f"Where?{CHOOSE}A. Left. B. left."
    assert letter_of(twice, "Left.") == "Left."


def test_what_is_no_multiple_choice_stays_as_it_is(sample):
    other = "Where? Choose one of the following options: A. Left. B. Right. "
    twice = f"Where?{CHOOSE}A. Left. B. left."
    for question in (
        "Is it moving?",
        f"Where?{CHOOSE}",
        twice,
        "A. Left. B. Right.",
        other,
        f"{CHOOSE}A. Left. B. Right.",
    ):
        assert asked_openly(question) == question
        given = sample(question=question, answer="A")
        assert in_words(given) is given
    odd = in_words(sample(question=ASKED, answer="D"))
    assert (odd.question, odd.answer) == ("Where?", "D"), "no letter of the options: left as it is"
    assert in_words(sample(question=ASKED, answer=None)).answer is None


@pytest.fixture(scope="module", params=["driving_t5", "internvl"])
def readers(request, tmp_path_factory):
    """Preparations that read letters and words, and a multiple-choice sample."""
    folder = tmp_path_factory.mktemp("choices")
    subject = tiny.subject(request.param, folder)
    drawn = tiny.samples(tiny.pictures(folder))[0].model_copy(update={"question": ASKED, "answer": "B"})
    reading = subject.preparation.reading.model_copy(update={"choices": "words"})
    return subject, replace(subject, preparation=replace(subject.preparation, reading=reading)), drawn


def test_words_are_supervised_and_options_are_not_read(readers):
    letters, words, sample = readers
    decode = words.preparation.tokenizer.decode
    for subject, answer, listed in ((letters, "B", True), (words, "Right.", False)):
        batch = collate([sample], {"student": subject.preparation})
        assert decode(batch.gold[:-1]) == answer
        for ids in (questions([sample], subject.preparation)["input_ids"], batch.role("student").model["input_ids"]):
            text = decode(ids[0])
            assert ("Straight on" in text, "following options" in text, "Where?" in text) == (listed, listed, True)


def test_limits_hold_for_what_is_read(readers):
    letters, words, sample = readers
    long = sample.model_copy(update={"question": ASKED + " D. Or " + "far " * 600 + "away."})
    refuse_long([long], words.preparation)
    with pytest.raises(InputError, match="question tokens"):
        refuse_long([long], letters.preparation)


def test_partners_that_choose_otherwise_are_told_apart(readers):
    letters, words, sample = readers
    assert (letters.identity.choices, words.identity.choices) == ("letter", "words")
    with pytest.raises(ValueError, match="supervises other tokens"):
        collate([sample], {"student": words.preparation, "teacher": letters.preparation})
