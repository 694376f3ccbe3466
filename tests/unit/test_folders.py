"""A folder is the one before or the new one, whole; whatever happens while it is written."""

import os
import shutil

import pytest

from drivedistill import folders
from drivedistill.folders import clear_up, remove_folder, write_folder


class Killed(BaseException):
    """What `kill -9` is to a test."""


def fill(folder, word):
    """Two files, one of them in a folder of its own."""
    with write_folder(folder) as new:
        (new / "a.txt").write_text(word, "utf-8")
        (new / "deep").mkdir()
        (new / "deep" / "b.txt").write_text(word, "utf-8")


def whole(folder):
    """The word of a folder in which nothing is missing."""
    words = {(folder / name).read_text("utf-8") for name in ("a.txt", "deep/b.txt")}
    assert len(words) == 1
    return words.pop()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_new_folder_takes_the_place_of_the_old_one(tmp_path):
    fill(tmp_path / "new" / "model", "one")
    (tmp_path / "new" / "model" / "more.txt").write_text("of the old one", "utf-8")
    fill(tmp_path / "new" / "model", "two")
    assert whole(tmp_path / "new" / "model") == "two"
    assert names(tmp_path / "new" / "model") == ["a.txt", "deep"] and names(tmp_path / "new") == ["model"]


@pytest.mark.parametrize("error", [OSError("No space left on device"), Killed()], ids=["fails", "killed"])
def test_an_interruption_in_the_middle_leaves_the_old_folder_whole(tmp_path, error):
    fill(tmp_path / "model", "one")
    with pytest.raises(type(error)), write_folder(tmp_path / "model") as new:
        (new / "a.txt").write_text("two", "utf-8")
        raise error
    assert whole(tmp_path / "model") == "one"
    assert names(tmp_path) == ([".writing-model", "model"] if isinstance(error, Killed) else ["model"])
    fill(tmp_path / "model", "three")
    assert whole(tmp_path / "model") == "three" and names(tmp_path) == ["model"]


MOMENTS = [(folders, "flush", 1), (folders, "flush_folder", 1), (os, "fsync", 1), (os, "rename", 1), (os, "rename", 2),
           (shutil, "rmtree", 1)]  # fmt: skip


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("cleared", [False, True], ids=["as-left", "cleared-up"])
@pytest.mark.parametrize(("where", "name", "time"), MOMENTS)
def test_death_at_any_moment_loses_nothing(tmp_path, monkeypatch, where, name, time, after, cleared):
    fill(tmp_path / "model", "one")
    original, times = getattr(where, name), []

    def dying(*arguments, **options):
        times.append(1)
        if after or len(times) < time:
            original(*arguments, **options)
        if len(times) == time:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(where, name, dying)
        with pytest.raises(Killed):
            fill(tmp_path / "model", "two")
    left = [whole(tmp_path / found) for found in (".writing-old-model", "model") if (tmp_path / found).exists()]
    assert left in (["one"], ["two"], ["one", "two"])
    if cleared:
        clear_up(tmp_path)
        assert whole(tmp_path / "model") in left and names(tmp_path) == ["model"]
    fill(tmp_path / "model", "three")
    assert whole(tmp_path / "model") == "three" and names(tmp_path) == ["model"]


def test_what_is_removed_leaves_its_name_first(tmp_path, monkeypatch):
    fill(tmp_path / "model", "one")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda folder: (folder / "a.txt").unlink())
        remove_folder(tmp_path / "model")
    assert names(tmp_path) == [".writing-gone-model"], "half of it, which nobody may take for the whole"
    fill(tmp_path / "model", "two")
    remove_folder(tmp_path / "model")
    assert names(tmp_path) == []
