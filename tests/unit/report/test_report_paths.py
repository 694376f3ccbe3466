"""Paths on the page: relative to what it is about, and no others than their names."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from drivedistill.report.page import page
from drivedistill.report.paths import shown_command, shown_path, shown_text, shown_tree
from drivedistill.report.summary import lead

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
        ("x train r.yaml model.path=file:///home/jo/secret/m", "drivedistill train r.yaml model.path=m"),
        ("x train r.yaml data={root:/home/jo/x,n:1}", "drivedistill train r.yaml data={root:x,n:1}"),
        ("x train r.yaml a=/home/jo/work/x:/home/jo/secret/y", "drivedistill train r.yaml a=x:y"),
        ("x train r.yaml -o/home/jo/q -p 1/2", "drivedistill train r.yaml -oq -p 1/2"),
        ("x train r.yaml a=//home/jo/q b=s3://jo/q", "drivedistill train r.yaml a=q b=s3://jo/q"),
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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("made from /home/jo/secret/world, see https://host/page/x", "made from world, see https://host/page/x"),
        ("made from file://localhost/home/jo/secret/world.", "made from world."),
        ("/home/jo/my secret/world 6", "world 6"),
        ("file:///C:/Users/jo/secret/world", "world"),
        ("in /home/jo/work/runs/a with train/test and /srv/my/b", "in runs/a with train/test and b"),
        (r"on C:\Users\jo\runs (and D:/jo/data)", "on runs (and data)"),
        *((text, text) for text in ("/ a", "yes / no", "and/or", "+/- 2", "./a/b", "~/a", "$HOME/a", r"^vision\.", "a: b")),
    ],
)  # fmt: skip
def test_paths_within_a_text_are_shown_alike(text, shown):
    assert shown_text(text, ROOTS) == shown
    assert shown_tree({"about": [text]}, ROOTS) == {"about": [shown]}


def test_what_a_table_says_of_itself_names_no_folder(evidence):
    told = replace(evidence, about="Made from /home/jo/secret/world.")
    assert "secret" not in lead(told) and "Made from world." in lead(told)


def test_no_folder_of_this_machine_is_on_the_page(evidence, folders):
    text = page(evidence)
    assert str(folders[0].parent.parent) not in text
    assert "path: runs/teacher" in text  # the teacher in the recipe of those that learn from it
