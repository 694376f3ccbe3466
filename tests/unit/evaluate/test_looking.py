"""Does the instrument tell a model that looks from one that does not? Two fake models, one of which reads pixels."""

import random

import numpy as np
import pytest
from PIL import Image

from drivedistill.data.condition import show
from drivedistill.data.images import load_image
from drivedistill.evaluate.endpoint import Answer
from drivedistill.evaluate.looking import PRIOR, looks, reading, relative, side_by_side
from drivedistill.evaluate.looking_table import table
from drivedistill.evaluate.measure import mean_of
from drivedistill.evaluate.predict import How, predict
from drivedistill.evaluate.text_only import prior_answerer
from drivedistill.problems import InputError
from drivedistill.records import Prediction, Sample, read_jsonl

SCENES = 60


@pytest.fixture(scope="module")
def streets(tmp_path_factory) -> list[Sample]:
    """Two questions about each of 60 streets: by day the picture is bright; "moving" cannot be seen, and is mostly yes."""
    root, rng = tmp_path_factory.mktemp("streets"), random.Random(0)
    samples = []
    for number in range(SCENES):
        day = rng.random() < 0.6
        path = root / f"{number}.png"
        Image.new("RGB", (32, 18), (200, 200, 190) if day else (30, 30, 50)).save(path)
        for question, answer in (("Is it day?", day), ("Is the car moving?", rng.random() < 0.7)):
            samples.append(
                Sample(
                    id=f"{number} {question}",
                    dataset="streets",
                    scene=f"s{number}",
                    frame=f"f{number}",
                    split="test",
                    regime="regular",
                    task="perception",
                    question=question,
                    answer="Yes." if answer else "No.",
                    images={"CAM_FRONT": str(path)},
                )
            )
    return samples


def seeing(change, blind):
    """A model that sees brightness and knows nothing else than what is common."""

    def answer(samples):
        return [Answer(one(sample)) for sample in samples]

    def one(sample):
        if "moving" in sample.question or blind:
            return "Yes."
        picture = load_image(sample.images["CAM_FRONT"], None, change=change)
        return "Yes." if np.asarray(picture).mean() > 100 else "No."

    return answer


def talking(change, blind):
    """A model that never looks."""
    return lambda samples: [Answer("Yes.") for _ in samples]


def probed(model, samples, folder, conditions=("clean", "black", "none", "shuffled")):
    answers = {}
    for condition in conditions:
        shown = show(samples, condition)
        path = folder / f"{condition.replace(':', '-')}.jsonl"
        predict(
            shown.samples, model(shown.change, shown.blind), path, how=How("fake", "greedy", condition), batch_size=32
        )
        answers[condition] = read_jsonl(path, Prediction)
    predict(samples, prior_answerer(samples), folder / "prior.jsonl", how=How("prior", "text_only"), batch_size=32)
    answers[PRIOR] = read_jsonl(folder / "prior.jsonl", Prediction)
    rows = side_by_side(answers, captions=False)
    return rows, {row["condition"]: row for row in rows if row["metric"] == "exact_match"}


def test_a_model_that_reads_pixels_falls_to_the_prior_on_black_pictures(streets, tmp_path):
    rows, found = probed(seeing, streets, tmp_path)
    truth = {sample.id: sample.answer for sample in streets}
    day = [value == "Yes." for key, value in truth.items() if "day" in key]
    moving = [value == "Yes." for key, value in truth.items() if "moving" in key]
    assert found["clean"]["value"] == pytest.approx(100 * (len(day) + sum(moving)) / len(truth), abs=1e-3)
    # Black is dark: whoever reads pixels says "No." to every question about the day.
    assert found["black"]["value"] == pytest.approx(100 * (len(day) - sum(day) + sum(moving)) / len(truth), abs=1e-3)
    prior = 100 * (max(sum(day), len(day) - sum(day)) + sum(moving)) / len(truth)
    assert found[PRIOR]["value"] == pytest.approx(prior, abs=1e-3)
    assert found["none"]["value"] == pytest.approx(100 * (sum(day) + sum(moving)) / len(truth), abs=1e-3)
    assert found["clean"]["low"] > found[PRIOR]["value"] and found["black"]["value"] <= found[PRIOR]["value"]
    assert prior / 2 < found["shuffled"]["value"] < found["clean"]["value"]
    share, low, high = found["none"]["looks"]
    score, blind = found["clean"]["value"] / 100, found["none"]["value"] / 100
    assert share == pytest.approx((score - blind) / (1 - blind), abs=1e-3) and 0 < low < share < high < 1
    assert "; it looks: " in reading(rows)[0]
    assert "shuffled" in table(rows) and f"{len(truth)} questions, 60 scenes" in table(rows)
    assert all(len(line) <= 128 for line in table(rows).splitlines())


def test_a_model_that_only_talks_is_found_out(streets, tmp_path):
    rows, found = probed(talking, streets, tmp_path)
    assert {row["value"] for row in found.values() if row["condition"] != PRIOR} == {found["clean"]["value"]}
    assert found["black"]["minus_clean"] == [0, 0, 0] and found["black"]["looks"] == [0, 0, 0]
    assert found["black"]["relative"] == [1, 1, 1]
    assert reading(rows)[0].endswith("no sign that it looks")


def test_few_scenes_get_no_verdict(streets, tmp_path):
    rows, _ = probed(seeing, streets[:40], tmp_path)
    assert reading(rows)[0].endswith("too few scenes (20) for a verdict")


def test_perfect_blindness_in_some_draw_takes_the_interval_and_not_the_verdict(streets, tmp_path):
    """Black is wrong about four streets only, so some draws have none of them, and nothing left for pictures to tell."""
    asked = [sample for sample in streets if "day" in sample.question]
    night = [sample.id for sample in asked if sample.answer == "No."][:4]
    asked = [sample for sample in asked if sample.answer == "Yes." or sample.id in night]

    def model(change, blind):
        return lambda batch: [Answer("Yes." if change else sample.answer) for sample in batch]

    rows, found = probed(model, asked, tmp_path, ("clean", "black"))
    assert found["black"]["looks"] == [1.0, None, None]
    assert "it looks: 1.00 of what" in reading([row for row in rows if row["condition"] != PRIOR])[0]


def test_scenes_are_those_with_questions_that_count(streets, tmp_path):
    """Meta-actions are asked in 12 of 60 streets: too few, however many streets there are."""
    plans = {f"s{number}" for number in range(12)}
    asked = [
        sample.model_copy(update={"meta_action": "KEEP, STRAIGHT", "answer": "KEEP, STRAIGHT"})
        if sample.scene in plans and "moving" in sample.question
        else sample
        for sample in streets
    ]

    def model(change, blind):
        return lambda batch: [Answer("STOP, STRAIGHT" if change else sample.answer) for sample in batch]

    rows, _ = probed(model, asked, tmp_path, ("clean", "black"))
    assert [row["scenes"] for row in rows if row["metric"] == "meta_accuracy"] == [12] * 3
    assert reading([row for row in rows if row["condition"] != PRIOR])[0].endswith("too few scenes (12) for a verdict")


def test_where_nobody_is_ever_right_nothing_is_judged(streets, tmp_path):
    rows, _ = probed(lambda change, blind: lambda batch: [Answer("Perhaps.") for _ in batch], streets, tmp_path)
    assert reading([row for row in rows if row["condition"] != PRIOR])[0].endswith("Exact match is 0 whatever is shown")


def test_looks_and_relative_at_their_ends():
    right, half, wrong = (mean_of(values, "") for values in ([1, 1], [1, 0], [0, 0]))
    assert looks(right, half).point == 1 and looks(half, half).point == 0 and looks(wrong, half).point == -1
    assert np.isnan(looks(right, right).point)  # nothing is left that pictures could tell
    assert relative(half, right).point == 0.5 and np.isnan(relative(half, wrong).point)


# --- what is shown ------------------------------------------------------------------------------------------------------


def test_shuffled_pictures_come_from_another_scene_and_are_the_same_every_time(streets):
    shown = show(streets, "shuffled", seed=3).samples
    origin = {path: sample.scene for sample in streets for path in sample.images.values()}
    for old, new in zip(streets, shown, strict=True):
        assert origin[new.images["CAM_FRONT"]] != old.scene
        assert new.model_copy(update={"images": old.images}) == old
    by_frame = {sample.frame: sample.images for sample in shown}
    assert all(by_frame[sample.frame] == sample.images for sample in shown)
    assert shown == show(streets, "shuffled", seed=3).samples != show(streets, "shuffled", seed=4).samples


def test_samples_of_a_frame_keep_their_own_cameras(streets):
    pairs = [
        s.model_copy(update={"id": f"{s.id} 2", "images": {**s.images, "CAM_BACK": s.images["CAM_FRONT"]}})
        for s in streets
    ]
    for sample in show([*streets, *pairs], "shuffled").samples:
        assert set(sample.images) == ({"CAM_FRONT", "CAM_BACK"} if sample.id.endswith(" 2") else {"CAM_FRONT"})


def test_whose_pictures_are_shown_does_not_depend_on_who_is_asked(streets):
    shown = show(streets, "shuffled")
    some = shown.only(streets[10:20]).samples
    assert some == shown.samples[10:20]


def test_one_scene_cannot_be_shuffled(streets):
    with pytest.raises(InputError, match="two scenes"):
        show(streets[:2], "shuffled")


def test_black_pictures_are_black_and_as_large_as_before(streets):
    change = show(streets, "black").change
    picture = load_image(streets[0].images["CAM_FRONT"], None, change=change)
    assert picture.size == (32, 18) and picture.getextrema() == ((0, 0),) * 3


@pytest.mark.parametrize("name", ["fogg", "fog:9", "black:2", ""])
def test_unknown_conditions_are_refused(streets, name):
    with pytest.raises(InputError):
        show(streets, name)
