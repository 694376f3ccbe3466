"""`metrics.jsonl`: what was written is read, lines that were cut are not."""

from __future__ import annotations

from drivedistill.metrics_file import read_metrics, write_metrics


def test_what_was_written_is_read_without_the_line_that_was_cut(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    log = write_metrics(path)
    records = [{"step": step, "loss": 0.5} for step in range(5)]
    for record in records:
        log(record)
    with path.open("a") as file:
        file.write('{"step": 5, "lo')
    assert read_metrics(path) == records


def test_the_end_of_a_file_begins_with_a_whole_record(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 10}\n{"step": 2000}\n')
    assert read_metrics(path, last_bytes=len("10}\n") + len('{"step": 2000}\n')) == [{"step": 2000}]
    path.write_text('{"losses": [1, 2]\n17\n{"step": 1}\n')
    assert read_metrics(path) == [{"step": 1}]
