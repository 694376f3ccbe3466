"""Multiple choice read as an open question: without its options, answered in the right option's words.

Distractors and their order are random, so the letter of the right option says nothing about the road. A small model that
is asked for it must first find its answer among the options; one that is asked for the words need not (`choices: words`).
"""

from __future__ import annotations

from drivedistill.data.drivelm_challenge import CHOOSE, options
from drivedistill.records import Sample


def answer_text(sample: Sample) -> str:
    """The answer; where it is the letter of an option, that option's text."""
    answer = (sample.answer or "").strip()
    return options(sample.question).get(answer, answer)


def asked_openly(question: str) -> str:
    """The question without its options.

    A question without options, with options in another form than DriveLM's or with the same option twice stays as it is.

    >>> asked_openly("Where? Please select the correct answer from the following options: A. Left. B. Right.")
    'Where?'
    """
    stem, asked, _ = question.partition(CHOOSE.strip())
    listed = [_plain(option) for option in options(question).values()] if asked else []
    return stem.rstrip() or question if listed and len(set(listed)) == len(listed) else question


def in_words(sample: Sample) -> Sample:
    """The sample as a model is given it that answers in words; an answer that is no option's letter stays as it is."""
    question = asked_openly(sample.question)
    if question == sample.question:
        return sample
    answer = None if sample.answer is None else answer_text(sample)
    return sample.model_copy(update={"question": question, "answer": answer})


def letter_of(question: str, text: str) -> str:
    """The letter of the option that a text names.

    That is the one option with this very text; capitals, blanks and a final point do not count. Any other text is left as
    it is (and counts as wrong), as is an answer to an open question: options that say different things may be spelt alike.

    >>> asked = "Where? Please select the correct answer from the following options: A. Left. B. Right."
    >>> letter_of(asked, "right"), letter_of(asked, "Straight on.")
    ('B', 'Straight on.')
    """
    named = [letter for letter, option in options(question).items() if _plain(option) == _plain(text)]
    return named[0] if len(named) == 1 else text


def _plain(text: str) -> str:
    return " ".join(text.split()).removesuffix(".").rstrip().lower()
