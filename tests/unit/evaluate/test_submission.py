"""DriveLM's submission forms, and everything that can be wrong with one."""

import json

import pytest

from drivedistill.evaluate.submission import ASKED, read_submission
from drivedistill.problems import InputError
from drivedistill.records import Sample


def sample(number, **fields):
    place = {"dataset": "drivelm", "scene": "s", "frame": "f", "split": "challenge", "regime": "regular"}
    texts = {"task": "planning", "question": f"Question {number}?", "answer": "Yes.", "images": {}, "tags": (0,)}
    return Sample(id=f"s_f_{number}", **(place | texts | fields))


SAMPLES = [sample(number) for number in range(3)]
ROWS = [
    {"id": f"s_f_{n}", "question": f"<image>\nQuestion {n}?", "gt_answer": "No.", "answer": "Yes."} for n in range(3)
]


@pytest.fixture
def read(tmp_path):
    def read_value(value, samples=SAMPLES):
        path = tmp_path / "output.json"
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return read_submission(path, samples)

    return read_value


def test_both_forms_give_the_same_predictions_in_the_order_of_the_reference(read):
    listed = read(ROWS[::-1])
    wrapped = read({"method": "output", "team": "t", "results": ROWS})
    assert listed == wrapped
    assert [item.id for item in listed] == [item.id for item in SAMPLES]
    assert {(item.model, item.decode, item.reference) for item in listed} == {("output", "unknown", "Yes.")}
    assert listed[0].tags == (0,) and listed[0].extra == {}


def test_the_method_names_the_model(read):
    assert read({"method": "llama_adapter_v2", "results": ROWS})[0].model == "llama_adapter_v2"


def test_an_empty_answer_is_an_answer(read):
    assert read([{**row, "answer": ""} for row in ROWS])[0].prediction == ""


def test_another_wording_of_a_question_is_kept(read):
    assert read([{**ROWS[0], "question": "Other?"}, *ROWS[1:]])[0].extra == {ASKED: "Other?"}


def test_unknown_missing_repeated_and_malformed_entries_are_all_listed(read):
    with pytest.raises(InputError) as caught:
        read([ROWS[0], ROWS[0], {"id": "x_y_9", "answer": "A"}, {"id": "s_f_1", "answer": 3}, "text"])
    found = [(problem.record, problem.found) for problem in caught.value.problems]
    assert [record for record, _ in found[:4]] == [f"results[{number}]" for number in (1, 2, 3, 4)]
    assert "again" in found[0][1] and "unknown id x_y_9" in found[1][1]
    assert {record for record, _ in found[4:]} == {"s_f_1", "s_f_2"}


@pytest.mark.parametrize("value", ["{", '"text"', "{}", '{"results": 3}'])
def test_a_file_of_another_form_is_explained(read, value):
    with pytest.raises(InputError, match=r"JSON"):
        read(value)


def test_a_missing_file_is_explained(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_submission(tmp_path / "none.json", SAMPLES)
