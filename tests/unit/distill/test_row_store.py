"""Rows on disk: found again bit for bit, whatever was cut off or killed; damage is noticed."""

from __future__ import annotations

import pickle
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivedistill.distill.row_store import RowStore
from drivedistill.problems import InputError

SHAPE = (3, 5)


def row(number: int) -> np.ndarray:
    return np.random.default_rng(number).standard_normal(SHAPE).astype(np.float32)


def filled(folder, numbers, dtype="float32") -> RowStore:
    folder.mkdir(parents=True, exist_ok=True)
    store = RowStore(folder, SHAPE, dtype)
    for number in numbers:
        store.append({f"k{number}": row(number)[None]})
    return store


def again(store: RowStore) -> RowStore:
    """As another process opens it."""
    return RowStore(store.folder, store.shape, store.dtype)


def test_rows_come_back_bit_for_bit_in_any_order(tmp_path):
    filled(tmp_path, range(4)).append({"a": row(10)[None], "b": row(11)[None]})
    store = RowStore(tmp_path, SHAPE)
    assert len(store) == 6
    for key, number in {"b": 11, "k2": 2, "a": 10, "k0": 0}.items():
        assert np.array_equal(store.read(key), row(number)[None])
    assert "k9" not in store
    with pytest.raises(KeyError):
        store.read("k9")


def test_a_store_sees_what_it_appended_itself(tmp_path):
    store = filled(tmp_path, [0])
    assert np.array_equal(store.read("k0")[0], row(0))
    store.append({"k1": row(1)[None]})
    assert np.array_equal(store.read("k1")[0], row(1))


def test_half_precision_takes_half_the_room(tmp_path):
    store = filled(tmp_path, range(3), "float16")
    assert (tmp_path / "rows.bin").stat().st_size == 3 * store.row_bytes == 3 * 15 * 2
    assert np.array_equal(again(store).read("k1")[0], row(1).astype(np.float16))


def test_a_reader_may_change_its_copy(tmp_path):
    store = filled(tmp_path, [0])
    store.read("k0")[:] = 0
    assert np.array_equal(store.read("k0")[0], row(0))


def test_another_process_is_handed_names_and_opens_the_files_itself(tmp_path):
    store = filled(tmp_path, range(8))
    store.append({f"more{number}": np.zeros((1, *SHAPE)) for number in range(1000)})
    store.read("k7")
    sent = pickle.dumps(store)
    assert len(sent) < 500
    assert np.array_equal(pickle.loads(sent).read("k7")[0], row(7))
    assert pickle.loads(sent) == store


@settings(max_examples=20)
@given(st.integers(0, 240), st.integers(0, 320), st.binary(max_size=30))
def test_whatever_was_cut_off_is_mended_and_written_again(tmp_path_factory, rows_kept, index_kept, junk):
    folder = tmp_path_factory.mktemp("cut")
    filled(folder, range(4))
    for name, kept in (("rows.bin", rows_kept), ("index.jsonl", index_kept)):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:kept])
    with (folder / "index.jsonl").open("ab") as file:
        file.write(junk)
    store = RowStore(folder, SHAPE)
    store.mend()
    there = [number for number in range(4) if f"k{number}" in store]
    assert len(there) == len(store) == (folder / "index.jsonl").read_bytes().count(b"\n")
    assert len(store) <= rows_kept // 60
    for number in set(range(4)) - set(there):
        store.append({f"k{number}": row(number)[None]})
    assert (folder / "rows.bin").stat().st_size <= 4 * store.row_bytes
    for number in range(4):
        assert np.array_equal(again(store).read(f"k{number}")[0], row(number))


RECORD = np.dtype([("ids", "<u2", (3,)), ("loss", "<f2")])
LENGTHS = (2, 1, 4, 3)


def records(number: int) -> np.ndarray:
    """As many records as `LENGTHS` says, of named fields."""
    chance = np.random.default_rng(number)
    made = np.zeros(LENGTHS[number], RECORD)
    made["ids"] = chance.integers(0, 2**16, (len(made), 3))
    made["loss"] = chance.standard_normal(len(made))
    return made


@settings(max_examples=15)
@given(st.integers(0, 80), st.integers(0, 320), st.binary(max_size=30))
def test_keys_with_several_rows_are_whole_or_not_there(tmp_path_factory, rows_kept, index_kept, junk):
    folder = tmp_path_factory.mktemp("several")
    whole = RowStore(folder, (), RECORD)
    assert whole.row_bytes == 8
    for numbers in ((0, 1), (2, 3)):
        whole.append({f"k{number}": records(number) for number in numbers})
    before = {name: (folder / name).read_bytes() for name in ("rows.bin", "index.jsonl")}
    assert len(before["rows.bin"]) == 8 * sum(LENGTHS)
    (folder / "rows.bin").write_bytes(before["rows.bin"][:rows_kept])
    (folder / "index.jsonl").write_bytes(before["index.jsonl"][:index_kept] + junk)
    store = RowStore(folder, (), RECORD)
    store.mend()
    there = [number for number in range(4) if f"k{number}" in store]
    assert there == list(range(len(there)))
    assert 8 * sum(LENGTHS[: len(there)]) <= rows_kept
    for number in range(len(there), 4):
        store.append({f"k{number}": records(number)})
    assert {name: (folder / name).read_bytes() for name in before} == before
    for number in range(4):
        assert np.array_equal(again(store).read(f"k{number}"), records(number))
        assert again(store).rows_of(f"k{number}") == LENGTHS[number]


def test_a_lost_row_is_not_taken_for_the_one_that_follows_it(tmp_path):
    store = filled(tmp_path, range(3))
    with (tmp_path / "rows.bin").open("ab") as file:
        file.truncate(store.row_bytes)
    store = again(store)
    store.mend()
    store.append({"new": row(9)[None]})
    assert {key for key in ("k0", "k1", "k2", "new") if key in again(store)} == {"k0", "new"}


def test_no_line_is_written_before_its_rows_are_on_the_disk(tmp_path, monkeypatch):
    def broken(number):
        raise OSError("no space left on device")

    store = filled(tmp_path, range(2))
    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr("os.fsync", broken)
        store.append({"k2": row(2)[None]})
    assert [len(line) > 0 for line in (tmp_path / "index.jsonl").read_text().splitlines()] == [True, True]
    store = again(store)
    store.mend()
    store.append({"k3": row(3)[None]})
    assert np.array_equal(again(store).read("k3")[0], row(3))


def test_mending_a_whole_store_changes_no_byte(tmp_path):
    store = filled(tmp_path, range(3))
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    again(store).mend(verify=True)
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == before


def test_a_flipped_bit_is_noticed_and_only_that_row_forgotten(tmp_path):
    store = filled(tmp_path, range(3))
    content = bytearray((tmp_path / "rows.bin").read_bytes())
    content[store.row_bytes + 7] ^= 1
    (tmp_path / "rows.bin").write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        again(store).read("k1")
    store = again(store)
    store.mend(verify=True)
    assert [key for key in ("k0", "k1", "k2") if key in again(store)] == ["k0", "k2"]
    store.append({"k1": row(1)[None]})
    assert np.array_equal(again(store).read("k1")[0], row(1))


WRITER = """
import sys
from pathlib import Path
import numpy as np
from drivedistill.distill.row_store import RowStore
store = RowStore(Path(sys.argv[1]), (3, 5))
store.mend()
for number in range(100_000):
    if f"k{number}" not in store:
        store.append({f"k{number}": np.random.default_rng(number).standard_normal((1, 3, 5)).astype(np.float32)})
"""


def test_a_writer_that_is_killed_at_any_moment_costs_no_row_that_counted(tmp_path):
    chance, counted = random.Random(0), 0
    for _ in range(4):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)])
        end = time.monotonic() + 60
        while len(RowStore(tmp_path, SHAPE)) < counted + 3:
            assert writer.poll() is None
            assert time.monotonic() < end
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.01))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        store = RowStore(tmp_path, SHAPE)
        assert len(store) >= counted + 3
        counted = len(store)
        for number in range(counted):
            assert np.array_equal(store.read(f"k{number}")[0], row(number))
    store.mend()
    assert (tmp_path / "rows.bin").stat().st_size == counted * store.row_bytes
