"""The page: whole, offline, the same every time, and safe against what models write."""

import itertools
import re
from html.parser import HTMLParser

import pytest
from made_runs import NASTY, make_table
from typer.testing import CliRunner

from drivedistill.cli import app
from drivedistill.problems import InputError
from drivedistill.quickstart.plan import RECIPE
from drivedistill.report import write_report
from drivedistill.report.charts import SERIES
from drivedistill.report.evidence import gather
from drivedistill.report.gallery import ROWS
from drivedistill.report.page import DRAWN, page
from drivedistill.yaml_tree import read_tree

SECTIONS = ["summary", "scores", "latency", "training", "mined", "experts", "rsdr", "controls", "answers", "origin"]


class Reader(HTMLParser):
    """Elements, attributes and texts of a page; every element that is opened must be closed."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def text(evidence):
    return page(evidence)


def test_sections_come_in_order_under_headings_in_order(text):
    reader = Reader(text)
    assert not reader.open
    assert [attrs["id"] for tag, attrs in reader.elements if tag == "section"] == SECTIONS
    levels = [int(tag[1]) for tag, _ in reader.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_nothing_is_loaded_from_anywhere(text):
    for tag, attrs in Reader(text).elements:
        for name in ("src", "href", "action", "data", "srcset"):
            value = attrs.get(name, "#")
            assert value.startswith(("#", "data:image/jpeg;base64,")), (tag, value)
        assert tag not in ("link", "iframe", "object", "embed", "base")
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style and "@import" not in style


def test_what_models_write_is_text(text):
    scripts = [tag for tag, _ in Reader(text).elements if tag == "script"]
    assert len(scripts) == 1  # ours
    assert NASTY not in text
    assert "&lt;script&gt;alert(" in text
    assert not [attrs for _, attrs in Reader(text).elements if any(name.startswith("on") for name in attrs)]


def test_same_files_give_the_same_page(folders, text):
    assert page(gather(folders)) == text
    assert page(gather(folders), seed=1) != text


def test_charts_say_what_they_show(text):
    drawings = re.findall(r'<svg [^>]*role="img".*?</svg>', text, re.DOTALL)
    assert len(drawings) >= 8
    assert all("<title>" in drawing and "<desc>" in drawing for drawing in drawings)
    assert not re.search(r'fill="#|stroke="#', text)  # colours are the style sheet's, for light and dark


def test_every_control_has_a_name(text):
    reader = Reader(text)
    assert sum(tag == "select" for tag, _ in reader.elements) == 3
    assert re.search(r"<label>Task <select name=\"task\">", text)
    assert re.search(r'<output aria-live="polite" id="shown">(\d+) of \1 questions shown</output>', text)


def test_every_row_of_the_quickstart_is_drawn_and_quoted():
    rows = len(read_tree(RECIPE)["rows"])
    assert rows <= DRAWN <= SERIES and rows <= ROWS


def test_missing_artefacts_are_one_sentence_with_a_command(tmp_path):
    table = make_table(tmp_path)
    for path in [*table.rglob("metrics.jsonl"), *table.rglob("recipe.yaml"), *table.rglob("results.json")]:
        path.unlink()
    text = page(gather([table]))
    for command in ("score", "bench", "distill", "experts", "probe"):
        assert re.search(rf'<p class="missing">[^<]+<code>drivedistill {command} [^<]*</code> makes it\.</p>', text), (
            command
        )
    assert "Without pictures" not in text  # without a recipe nobody knows where they would be


def test_pictures_that_are_not_here_are_named_once(tmp_path):
    table = make_table(tmp_path)
    (tmp_path / "data" / "test.jsonl").unlink()
    text = page(gather([table]))
    assert text.count("Without pictures: ") == 1
    assert "<img" not in text and 'class="question"' in text
    assert 'class="beside"' not in text  # no empty column where the pictures would be


def test_other_folders_are_refused_together(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError) as error:
        gather([tmp_path / "empty", tmp_path / "nowhere"])
    assert [problem.found for problem in error.value.problems] == ["none of these", "no such folder"]


def test_damaged_results_are_findings_and_leave_no_page(tmp_path):
    (tmp_path / "bench.json").write_text('{"setting": {}, "models": []}', "utf-8")
    with pytest.raises(InputError) as error:
        write_report([tmp_path], tmp_path / "report.html")
    assert "bench.json" in str(error.value)
    assert not (tmp_path / "report.html").exists()


def test_command_writes_the_page_and_says_where(folders, tmp_path):
    out = tmp_path / "new" / "page.html"
    arguments = ["report", *map(str, folders), "--out", str(out)]
    tried = CliRunner().invoke(app, [*arguments, "--dry-run"])
    assert tried.exit_code == 0 and "4 rows, 1 bench run, 1 probe" in tried.output
    assert not out.parent.exists()
    made = CliRunner().invoke(app, [*arguments, "--examples", "2"])
    assert made.exit_code == 0 and str(out) in made.output
    assert "2 of 2 questions shown" in out.read_text("utf-8")
    refused = CliRunner().invoke(app, [*arguments[:-1], str(tmp_path / "page.txt")])
    assert isinstance(refused.exception, InputError)
