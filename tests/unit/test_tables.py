"""Straight columns, in plain text and in Markdown."""

from drivedistill.tables import markdown, plain, with_interval

LINES = [["", "a", "long head"], ["first", "1,000", "2"], ["second one", "3", ""]]


def test_plain_columns_are_straight_and_have_no_blanks_behind():
    assert plain(LINES) == [
        "                a  long head",
        "first       1,000          2",
        "second one      3",
    ]


def test_markdown_says_to_which_side_a_column_is_set():
    assert markdown(LINES, left=2).splitlines() == [
        "|            | a     | long head |",
        "| ---------- | ----- | --------: |",
        "| first      | 1,000 |         2 |",
        "| second one | 3     |           |",
    ]
    assert "| ---------- | ----: |" in markdown(LINES)


def test_an_interval_is_shown_where_there_is_one():
    assert with_interval(0.123, 0.1, 0.156, ".0%") == "12% [10%, 16%]"
    assert with_interval(-1.0, None, None, "+.2f") == "-1.00"
