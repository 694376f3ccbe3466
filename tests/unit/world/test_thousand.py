"""A thousand random scenes: nobody touches the ego, nothing invisible is asked about, no answer contradicts the log."""

from collections import Counter

import numpy as np
import pytest
from recheck import contradictions
from test_drive import overlapping

from drivedistill.world.catalogue import KINDS
from drivedistill.world.dataset.plan import CANDIDATES
from drivedistill.world.driving.drive import drive_scene
from drivedistill.world.driving.kinds import CORNER, REGULAR
from drivedistill.world.pictures.render import Renderer
from drivedistill.world.questions.all import frame_questions
from drivedistill.world.questions.frame import look
from drivedistill.world.scene import EGO_SIZE

SCENES = 1000
SIZE = 112


@pytest.mark.long
def test_a_thousand_scenes():
    rng, asked, rejected, wrong = np.random.default_rng(1), Counter(), 0, []
    kinds = [*REGULAR, *CORNER]
    for number in range(SCENES):
        kind, held_out = kinds[number % len(kinds)], bool(number % 4 == 3)
        drive = drive_scene(kind, 10_000 + number, held_out=held_out)
        if drive is None:
            rejected += 1
            continue
        sizes = [EGO_SIZE[:2], *(KINDS[actor.kind].size[:2] for actor in drive.scene.actors)]
        assert not any(overlapping(drive, 0, actor.id, sizes) for actor in drive.scene.actors), (kind, number)
        step = int(rng.choice(list(CANDIDATES)))
        views = Renderer(drive).views(step, SIZE, SIZE)
        questions = frame_questions(look(drive, step, views))
        asked.update(question.template for question in questions)
        wrong += [
            f"{kind} {10_000 + number} step {step}: {text}" for text in contradictions(drive, step, views, questions)
        ]
        shown = set(np.unique(np.concatenate([mask.ravel() for mask in views.instances.values()])).tolist())
        assert all(set(question.about) <= shown for question in questions), (kind, number)
    assert wrong == []
    assert rejected < 0.02 * SCENES
    assert min(asked.values()) >= 10, asked
