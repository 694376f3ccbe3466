"""What the sections say: from the numbers, and only what the numbers show."""

import itertools
import re
import shutil
from base64 import b64decode
from dataclasses import replace
from io import BytesIO
from statistics import fmean, stdev

import pytest
from made_runs import make_bench, make_table
from PIL import Image

from drivedistill.evaluate.difference import Difference
from drivedistill.records import Score, write_jsonl
from drivedistill.report.choice import OUTCOMES, _outcomes, choose, examples
from drivedistill.report.evidence import gather
from drivedistill.report.free_text import free_text_sets
from drivedistill.report.pictures import data_uri, find_samples
from drivedistill.report.quality import gap, in_words, pooled, right
from drivedistill.report.roles import parts_of, roles_of
from drivedistill.report.scores import scores
from drivedistill.report.summary import faster, looking, summary


@pytest.fixture(scope="module")
def roles(evidence):
    return roles_of(evidence.rows)


def test_parts_are_given_out_by_recipes(evidence, roles):
    assert [row.name for row in roles.players()] == ["teacher", "student", "dis", "clkd"]
    assert roles.full is not None and roles.full.name == "clkd"
    assert parts_of(roles.full.recipe) == {"distillation", "experts", "mining", "release"}
    turned = roles_of(list(reversed(evidence.rows)))
    assert (turned.teacher, turned.plain, turned.full) == (roles.teacher, roles.plain, roles.full)


def test_the_row_with_the_most_parts_is_the_full_one(evidence, roles):
    run = roles.full.runs[0]
    some = replace(run, recipe=run.recipe.model_copy(update={"mining": None}))
    half = replace(roles.full, name="half", label="half", runs=(some,))
    assert roles_of([half, *evidence.rows]).full is roles.full
    assert roles_of([half, roles.plain]).full is half


def test_words_claim_only_what_the_interval_shows():
    common = {"mean": -0.05, "sd": None, "n": 400, "num_runs": (1, 1), "verdict": None}
    assert in_words(Difference(low=-0.08, high=-0.02, num_scenes=90, **common)) == "−5.0 [−8.0, −2.0] points"
    assert in_words(Difference(low=-0.08, high=0.0, num_scenes=90, **common)).endswith("points, no difference shown")
    assert in_words(Difference(low=-0.08, high=-0.02, num_scenes=29, **common)).endswith("too few scenes for a verdict")
    assert in_words(Difference(low=None, high=None, num_scenes=90, **common)) == "−5.0 points, without an interval"


def test_answers_are_those_to_clean_pictures_of_the_test_split(folders, tmp_path):
    run = tmp_path / "student"
    shutil.copytree(folders[1], run)
    (gathered,) = gather([run]).rows
    clean = gathered.runs[0].answers
    longer = [item.model_copy(update={"id": f"{item.id}{more}"}) for item in clean for more in "ab"]
    for name, changes in (
        ("black", {"condition": "black"}),
        ("val", {"split": "val"}),
        ("eval", {"decode": "teacher_forced"}),
    ):
        write_jsonl(run / "predictions" / f"{name}.jsonl", [item.model_copy(update=changes) for item in longer])
    (run / "predictions" / "test-greedy.results.judge.jsonl").write_text('{"not": "answers"}\n', "utf-8")
    assert gather([run]).rows[0].runs[0].answers == clean


def test_faster_only_where_the_interval_says_so(evidence, roles, tmp_path):
    assert faster(evidence, roles).startswith("clkd answers 2.00 [1.90, 2.10] times as fast as teacher")
    models = {row.label: str(row.runs[0].folder) for row in evidence.rows}
    make_bench(tmp_path / "slow", {models["teacher"]: (40.0, None), models["clkd"]: (40.0, (1.0, 0.9, 1.1))})
    slow = replace(evidence, benches=gather([tmp_path / "slow"]).benches)
    assert faster(slow, roles).startswith("No difference in speed is shown between clkd and teacher")
    assert "drivedistill bench" in faster(replace(evidence, benches=[]), roles)


def test_quality_is_that_of_the_answers(evidence, roles):
    answers = [item for item in roles.full.runs[0].answers if item.regime == "corner"]
    share = 100 * fmean(item.prediction == item.reference for item in answers)
    found = right(roles.full, "corner", set())
    assert found.value == pytest.approx(share)
    assert found.low < share < found.high
    assert (found.n, found.scenes) == (40, 20)
    text = summary(evidence, roles).body
    assert "clkd answers right: " in text and f"{share:.1f}" in text
    assert "too few scenes for a verdict" in text  # 20 of each regime


def test_no_difference_is_claimed_where_the_interval_covers_zero(evidence, roles):
    found = gap(roles.plain, roles.student, "regular", set())
    assert found.low <= 0 <= found.high
    assert gap(roles.student, roles.plain, "regular", set()).mean == pytest.approx(-found.mean)
    worse = gap(roles.student, roles.teacher, "regular", set())
    assert worse.high < 0
    assert gap(roles.full, replace(roles.student, runs=()), "regular", set()) == "answers are missing"


def test_looking_compares_with_black_pictures_and_the_prior(evidence, roles):
    text = looking(evidence, roles)
    assert "instead of black ones" in text
    assert "is not shown to look" in text  # too few scenes, however large the difference
    assert "drivedistill probe" in looking(replace(evidence, probes=[]), roles)


def test_free_text_is_neither_right_nor_wrong(roles):
    answers = roles.student.runs[0].answers
    assert free_text_sets(answers) == set()
    told = [item.model_copy(update={"reference": f"story {place}"}) for place, item in enumerate(answers)]
    assert len(free_text_sets(told)) == 2
    found = examples({"student": told}, roles, free_text_sets(told))
    assert {outcome for one in found for outcome in one.outcomes} == {"free text"}


def seeds(values, half):
    common = {"name": "exact_match", "unit": "fraction", "n": 100, "dataset": "d", "split": "test", "regime": "regular",
              "task": "all", "decode": "greedy", "implementation": "equality"}  # fmt: skip
    return [Score(value=value, low=value - half, high=value + half, **common) for value in values]


def test_interval_of_several_seeds_knows_of_scenes_and_seeds():
    one = pooled(seeds([0.5], 0.1))
    assert (one.low, one.high) == (pytest.approx(40), pytest.approx(60))
    same = pooled(seeds([0.5, 0.5, 0.5], 0.1))
    assert (same.low, same.high) == (pytest.approx(40), pytest.approx(60))
    apart = pooled(seeds([0.4, 0.5, 0.6], 0.1))
    assert apart.value == pytest.approx(50)
    assert apart.high - apart.low > 20
    only_seeds = pooled(seeds([0.4, 0.5, 0.6], 0.0))  # Student's interval of three values: 4.303 standard errors
    assert only_seeds.high - 50 == pytest.approx(4.303 * 100 * stdev([0.4, 0.5, 0.6]) / 3**0.5, rel=0.01)


def test_best_student_is_marked_by_a_sign(evidence, roles):
    body = scores(evidence, roles).body
    regular = body[: body.index("Corner cases, DriveLM")]
    rows = re.findall(r'<tr><th scope="row">(\w+)</th>(.*?)</tr>', regular)
    marked = {name for name, cells in rows if "★" in cells}
    assert marked == {"clkd"}  # the teacher is better, and no student


def test_table_has_seeds_published_figures_and_its_differences(tmp_path):
    evidence = gather([make_table(tmp_path)])
    assert [(row.label, row.seeds) for row in evidence.rows] == [("#2 Student", [0, 1])]
    body = scores(evidence, roles_of(evidence.rows)).body
    assert "2 seeds" in body and "paper 61.5" in body
    assert "later minus #2 Student" in body and "−1.50 ▼" in body


def test_rows_of_one_name_are_told_apart(folders, tmp_path):
    shutil.copytree(folders[0], tmp_path / "again" / folders[0].name)
    found = gather([folders[0], tmp_path / "again" / folders[0].name]).rows
    assert [row.name for row in found] == ["teacher", "again/teacher"]


def test_gallery_is_drawn_by_its_rule(evidence, roles):
    found = examples({row.name: row.answered()[0] for row in evidence.rows}, roles, set())
    assert len(found) == 80
    chosen = choose(found, frames=16, most=36, seed=0)
    assert chosen == choose(list(reversed(found)), frames=16, most=36, seed=0)
    assert len({one.question.id for one in chosen}) == len(chosen) <= 36
    assert len({one.frame for one in chosen}) <= 16
    assert {one.question.regime for one in chosen} == {"regular", "corner"}
    assert {one.question.task for one in chosen} == {"perception", "planning"}
    there = {outcome for one in found for outcome in one.outcomes}
    assert {outcome for one in chosen for outcome in one.outcomes} == there
    assert there <= set(OUTCOMES)


def test_outcomes_say_who_is_right(evidence, roles):
    for one in examples({row.name: row.answered()[0] for row in evidence.rows}, roles, set()):
        students = [value for name, value in one.right.items() if name != "teacher"]
        assert ("all right" in one.outcomes) == all(one.right.values())
        assert ("students differ" in one.outcomes) == (len(set(students)) > 1)
        assert ("a student right, teacher wrong" in one.outcomes) == (not one.right["teacher"] and any(students))


def test_some_outcome_holds_whoever_is_right():
    for number in range(1, 4):
        for values in itertools.product((True, False, None), repeat=number):
            named = dict(zip("abc", values, strict=False))
            for teacher in (None, "a", "no row"):
                assert _outcomes(named, teacher) and set(_outcomes(named, teacher)) <= set(OUTCOMES)


@pytest.mark.parametrize("size", [(60, 40), (400, 300)])
def test_an_embedded_picture_says_nothing_but_pixels(tmp_path, size):
    exif = Image.Exif()
    exif[0x010E] = "secret place"
    plain, telling, noted = (tmp_path / f"{name}.jpg" for name in ("plain", "telling", "noted"))
    Image.new("RGB", size, "red").save(plain)
    Image.new("RGB", size, "red").save(telling, exif=exif)
    Image.new("RGB", size, "red").save(noted, comment=b"secret place")
    for path in (telling, noted):
        assert b"secret place" in path.read_bytes()
        head, _, code = data_uri(path).partition(",")
        assert head == "data:image/jpeg;base64" and b"secret place" not in b64decode(code)
        with Image.open(BytesIO(b64decode(code))) as shown:
            assert shown.size == ((60, 40) if size == (60, 40) else (112, 84)) and not shown.getexif()
    if size == (60, 40):
        assert b64decode(data_uri(plain).partition(",")[2]) == plain.read_bytes()


def test_pictures_are_those_of_the_split(evidence):
    library = find_samples(evidence.rows, "test")
    assert len(library.samples) == 80 and not library.missing
    assert find_samples(evidence.rows, "dream").samples == {}
