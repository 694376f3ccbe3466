import json
from pathlib import Path

import pytest

from drivedistill.evaluate.groups import group_scores, read_facts
from drivedistill.evaluate.score_table import format_groups, format_scores, gate
from drivedistill.problems import InputError
from drivedistill.records import write_jsonl
from typed import typed


def facts_file(root: Path, *rows: dict, name: str = "facts.jsonl") -> Path:
    path = root / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def answers(make):
    """Six frames in three scenes: the first four in snow, two of these by night; the right answers are 0, 1, 4."""
    return [
        make(id=f"{n}", scene=f"s{n // 2}", frame=f"f{n}", prediction="A car." if n in (0, 1, 4) else "A bus.")
        for n in range(6)
    ]


@pytest.fixture
def known(tmp_path):
    rows = [
        {
            "frame": f"f{n}",
            "scene": f"s{n // 2}",
            "kind": "snow" if n < 4 else "fog",
            "lamps": n % 2 == 0,
            "n": n,
            "more": {"x": 1},
        }
        for n in range(6)
    ]
    return facts_file(tmp_path, *rows)


def values(scores, name="exact_match"):
    return {row.group: (row.value, row.n) for row in scores if row.name == name}


def groups(answers, path, *fields):
    return group_scores(answers, read_facts([path], fields), fields, tokenizer="approximate")


def test_every_value_of_every_field_is_scored_alone(answers, known):
    found = groups(answers, known, "kind", "lamps")
    assert values(found) == {
        "kind=fog": (0.5, 2), "kind=snow": (0.5, 4), "lamps=False": (1 / 3, 3), "lamps=True": (2 / 3, 3)
    }  # fmt: skip
    assert list(values(found)) == ["kind=fog", "kind=snow", "lamps=False", "lamps=True"]
    assert {"bleu_4", "rouge_l", "cider"} <= {row.name for row in found} and "meteor" not in {row.name for row in found}


def test_groups_are_those_of_a_place_with_the_intervals_of_their_own_scenes(answers, known):
    found = groups([*answers, *(item.model_copy(update={"regime": "corner"}) for item in answers[:1])], known, "kind")
    assert {(row.regime, row.group) for row in found} == {
        ("regular", "kind=snow"),
        ("regular", "kind=fog"),
        ("corner", "kind=snow"),
    }
    exact = {(row.regime, row.group): row for row in found if row.name == "exact_match"}
    assert exact["regular", "kind=snow"].low == 0 and exact["regular", "kind=snow"].high == 1
    assert exact["regular", "kind=fog"].low is None


def test_answers_without_reference_need_no_facts_and_a_field_named_twice_counts_once(answers, known, make):
    more = [*answers, make(id="x", frame="unknown", reference=None)]
    assert values(groups(more, known, "kind", "kind")) == values(groups(answers, known, "kind"))


def test_facts_may_name_no_scene_and_frames_may_repeat_between_scenes(tmp_path, make):
    same = [make(id=f"{scene}", scene=scene, frame="0") for scene in "ab"]
    by_scene = [{"scene": scene, "frame": "0", "kind": scene.upper()} for scene in "ab"]
    assert values(groups(same, facts_file(tmp_path, *by_scene), "kind")) == {"kind=A": (1, 1), "kind=B": (1, 1)}
    assert values(groups(same, facts_file(tmp_path, {"frame": "0", "kind": "C"}), "kind")) == {"kind=C": (1, 2)}


def test_frames_without_facts_are_counted_per_place(answers, tmp_path, make):
    path = facts_file(tmp_path, {"frame": "f0", "kind": "snow"})
    with pytest.raises(InputError) as error:
        groups([*answers, make(id="again", frame="f1")], path, "kind")
    assert [problem.found for problem in error.value.problems] == ["nothing about 5 frames (6 answers), such as f1"]
    elsewhere = make(id="c", frame="f9", regime="corner")
    with pytest.raises(InputError) as error:
        groups([elsewhere, make(id="d", frame="f8")], path, "kind")
    assert [problem.record.split()[0] for problem in error.value.problems] == ["corner", "regular"]


def test_a_set_of_which_nothing_is_known_is_counted_and_has_no_parts(answers, known, make):
    other = [make(id="c", frame="test_0076", dataset="coda_lm"), make(id="d", frame="test_0077", dataset="coda_lm")]
    found = groups([*answers, *other], known, "kind")
    assert [(row.dataset, row.value) for row in found if row.name == "without_facts"] == [("coda_lm", 2)]
    assert {row.dataset for row in found if row.group} == {"drivelm"}


def test_unusable_facts_are_refused_with_all_findings(tmp_path):
    path = facts_file(
        tmp_path,
        {"frame": "a", "kind": "snow", "box": [1]},
        {"frame": "b", "kind": "fog", "box": 1},
        {"frame": "a", "kind": "fog", "box": 1},
    )
    with pytest.raises(InputError) as error:
        read_facts([path], ["kind", "box", "weather"])
    found = [str(problem) for problem in error.value.problems]
    assert (
        len(found) == 3 and "1 of 3 lines" in found[0] and "3 of 3 lines" in found[1] and "two that differ" in found[2]
    )
    assert "choose another --by: box, kind" in found[1]
    with pytest.raises(InputError, match="frame"):
        read_facts([facts_file(tmp_path, {"kind": "snow"})], ["kind"])
    with pytest.raises(InputError, match="no such file"):
        read_facts([tmp_path / "none.jsonl"], ["kind"])


def test_tables_keep_the_parts_apart_and_gates_can_name_them(answers, known):
    parts = groups(answers, known, "kind")
    whole = [row.model_copy(update={"group": "", "value": 0.25}) for row in parts if row.group == "kind=fog"]
    assert format_scores([*whole, *parts]) == format_scores(whole)
    lines = format_groups([*whole, *parts]).splitlines()
    assert lines[0].startswith("By kind: regular drivelm") and [line.split()[:2] for line in lines[2:]] == [
        ["fog", "2"],
        ["snow", "4"],
    ]
    assert format_groups(whole) == ""
    assert gate([*whole, *parts], ["exact_match=30"]) and not gate([*whole, *parts], ["exact_match=20"])
    assert not gate([*whole, *parts], ["kind=snow.exact_match=50"])
    assert "kind=snow.exact_match" in gate([*whole, *parts], ["regular.kind=snow.exact_match=51"])[0]


def test_score_writes_parts_and_confusion_matrices(tmp_path, make, capsys):
    labels = ["KEEP, STRAIGHT", "STOP, STRAIGHT", "KEEP, LEFT_TURN", "STOP, STRAIGHT"]
    said = ["KEEP, STRAIGHT", "KEEP, STRAIGHT", "KEEP, LEFT_TURN", "Blue."]
    rows = [
        make(
            id=f"{n}",
            frame=f"{n}",
            scene=f"{n}",
            task="planning",
            reference=label,
            meta_action=label,
            prediction=answer,
        )
        for n, (label, answer) in enumerate(zip(labels, said, strict=True))
    ]
    write_jsonl(tmp_path / "a.jsonl", rows)
    facts = facts_file(tmp_path, *({"frame": f"{n}", "kind": "snow" if n else "fog"} for n in range(4)))
    usual = ("score", str(tmp_path / "a.jsonl"), "--tokenizer", "approximate")
    assert typed(*usual, "--facts", str(facts), "--by", "kind") == 0
    shown = capsys.readouterr().out
    assert "By kind: regular drivelm challenge greedy" in shown and "constant = always 'STOP, STRAIGHT'" in shown
    (table,) = json.loads((tmp_path / "a.meta_actions.json").read_text())
    assert table["speed"]["counts"] == [[2, 0, 0, 0, 0], [0] * 5, [0] * 5, [1, 0, 0, 0, 1]]
    assert table["path"]["counts"] == [[2, 0, 0, 0, 0, 1], [0] * 6, [0] * 6, [0] * 6, [0, 0, 0, 0, 1, 0]]
    assert table["speed"]["answers"][-1] == "unparsable" and table["n"] == 4
    assert table["f1"]["KEEP"] == {"F1": 0.8, "constant": 0.0, "published": 0.8} and table["f1"]["LEFT_CHANGE"] == {}
    scores = json.loads((tmp_path / "a.results.json").read_text())
    assert {row["group"] for row in scores} == {"", "kind=snow", "kind=fog"}
    assert typed(*usual, "--by", "kind") == 2 and "--by without --facts" in capsys.readouterr().err
