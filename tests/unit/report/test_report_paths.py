"""Paths on the page: relative to what it is about, and no others than their names."""

import shlex
from pathlib import Path

import pytest

from drivedistill.report.page import page
from drivedistill.report.paths import shown_command, shown_path, shown_tree

ROOTS = [Path("/home/jo/work/runs"), Path("/home/jo/work")]


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/home/jo/work/runs/clkd/seed-0", "runs/clkd/seed-0"),  # the outermost root
        ("/home/jo/work/bench", "bench"),
        ("/home/jo/workshop/data", "data"),  # begins alike, lies elsewhere
        ("/srv/data/nuscenes", "nuscenes"),
        ("runs/clkd", "runs/clkd"),
        ("facebook/bart-base", "facebook/bart-base"),
        ("/", "/"),
        (r"C:\Users\jo\runs\clkd", "clkd"),
    ],
)
def test_a_path_is_relative_or_its_name(path, shown):
    assert shown_path(path, ROOTS) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/opt/venv/bin/drivedistill train runs/a/recipe.yaml", "drivedistill train runs/a/recipe.yaml"),
        ("/opt/cli/__main__.py train /home/jo/work/runs/a --out=/home/jo/b", "drivedistill train runs/a --out=b"),
        ("x train r.yaml data.sources.0.root=/srv/data/nu", "drivedistill train r.yaml data.sources.0.root=nu"),
        ("x score a.jsonl --judge http://localhost:8000/v1", "drivedistill score a.jsonl --judge http://localhost:8000/v1"),
        ('x train r.yaml data={"root": "/srv/nu", "n": 1}', 'drivedistill train r.yaml data={"root": "nu", "n": 1}'),
        ("x train it's.yaml", "drivedistill train it's.yaml"),
    ],
)  # fmt: skip
def test_a_command_is_typed_without_the_own_folders(text, shown):
    assert shown_command(text, ROOTS) == shown


def test_a_path_with_spaces_stays_one_word():
    words = ["/opt/my venv/drivedistill", "train", "/home/jo/work/my runs/a", "--set=/srv/two words/b", "#1 x"]
    shown = shlex.split(shown_command(shlex.join(words), ROOTS))
    assert shown == ["drivedistill", "train", "my runs/a", "--set=b", "#1 x"]


def test_paths_deep_in_a_recipe_are_shown_alike():
    tree = {"data": {"sources": [{"root": "/srv/nu", "n": 2}], "frozen": ["^vision\\."]}}
    assert shown_tree(tree, ROOTS) == {"data": {"sources": [{"root": "nu", "n": 2}], "frozen": ["^vision\\."]}}


def test_no_folder_of_this_machine_is_on_the_page(evidence, folders):
    text = page(evidence)
    assert str(folders[0].parent.parent) not in text
    assert "path: runs/teacher" in text  # the teacher in the recipe of those that learn from it
