"""All candidate questions about one key frame."""

from __future__ import annotations

from drivedistill.world.questions.behavior import behavior
from drivedistill.world.questions.counting import counting
from drivedistill.world.questions.frame import Frame
from drivedistill.world.questions.lanes import lanes
from drivedistill.world.questions.pairs import pairs
from drivedistill.world.questions.perception import perception
from drivedistill.world.questions.planning import planning
from drivedistill.world.questions.prediction import prediction
from drivedistill.world.questions.question import Question


def frame_questions(frame: Frame) -> list[Question]:
    """Candidates, more than are kept: the data set balances them over a whole split."""
    return [
        *perception(frame),
        *counting(frame),
        *pairs(frame),
        *lanes(frame),
        *prediction(frame),
        *planning(frame),
        *behavior(frame),
    ]
