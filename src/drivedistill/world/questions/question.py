"""A candidate question: the data set keeps as many of them as its answers stay balanced."""

from __future__ import annotations

from dataclasses import dataclass, field

from drivedistill.records import Task


@dataclass(frozen=True)
class Question:
    """A question about one key frame, its true answer, and what balancing must know about it."""

    task: Task
    template: str
    """What is asked, e.g. `status`; the unit in which answers are balanced and text-only priors are stated."""
    text: str
    answer: str
    tags: tuple[int, ...]
    """DriveLM challenge: 0 accuracy, 1 judge, 2 language, 3 match."""
    closed: bool = False
    """The answer is one of a few; such templates are balanced."""
    group: str = ""
    """All that a reader of the text alone could use (camera, place in the picture, words that vary), coarsely. Answers of
    closed templates are balanced inside a group."""
    options: bool = False
    """Asked as multiple choice: the letters are given out when the distribution of the answers is known."""
    about: tuple[int, ...] = field(default=())
    """Instance ids of the objects that the question names, in the order in which it names them."""
