"""The page in Chromium, wide and narrow, light and dark: no sideways scrolling, no complaint, filters by keyboard."""

import pytest
from browser import CHROMIUM, browser

from drivedistill.report import write_report

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt-get install chromium)"),
]

VISIBLE = "[...document.querySelectorAll('.question')].filter(q => q.checkVisibility()).length"
SHOWN = "document.getElementById('shown').textContent"


@pytest.fixture(scope="module")
def file(folders, tmp_path_factory):
    path = tmp_path_factory.mktemp("browser") / "report.html"
    write_report(folders, path)
    return path


@pytest.fixture(scope="module")
def window():
    with browser() as found:
        yield found


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_page_fits_and_nothing_complains(window, file, width, dark):
    window.open(file, width=width, dark=dark)
    assert window.ask("document.documentElement.scrollWidth") == width
    ink, paper = window.ask("[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]")
    assert (sum(map(int, ink[4:-1].split(","))) > sum(map(int, paper[4:-1].split(",")))) is dark
    assert window.ask("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert window.ask("document.querySelectorAll('figure.chart svg').length") >= 8
    assert window.errors == []


CHOOSE = """([name, value]) => {
    const select = document.querySelector(`select[name=${name}]`);
    select.value = value;
    select.dispatchEvent(new Event('change', {bubbles: true}));
}"""
FRAMES_AGREE = """[...document.querySelectorAll('.frame')].every(
    frame => frame.checkVisibility() === !!frame.querySelector('.question:not([hidden])'))"""


def test_filters_hide_and_show(window, file):
    window.open(file, width=1280)
    everything = window.ask(VISIBLE)
    window.ask(f"({CHOOSE})(['regime', 'corner'])")
    corner = window.ask(VISIBLE)
    assert 0 < corner < everything
    assert window.ask(SHOWN) == f"{corner} of {everything} questions shown"
    window.ask(f"({CHOOSE})(['outcome', 'all right'])")
    assert 0 <= window.ask(VISIBLE) < corner
    assert window.ask(FRAMES_AGREE)
    window.ask("document.querySelector('#filters button').click()")
    window.ask("new Promise(done => setTimeout(done, 50))")
    assert window.ask(VISIBLE) == everything


def test_keyboard_reaches_everything(window, file):
    window.open(file, width=1280)
    window.press("Tab", 9)
    assert window.ask("document.activeElement.className") == "skip"
    assert window.ask("document.activeElement.getBoundingClientRect().left >= 0")  # it shows itself
    window.ask("document.querySelector('#filters select').focus()")
    everything = window.ask(VISIBLE)
    window.press("ArrowDown", 40)
    assert window.ask("document.activeElement.value") == "perception"
    assert window.ask(VISIBLE) < everything
    assert window.ask("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    for _ in range(3):
        window.press("Tab", 9)
    assert window.ask("document.activeElement.textContent") == "Show all"
    window.press("Enter", 13)
    window.ask("new Promise(done => setTimeout(done, 50))")
    assert window.ask(VISIBLE) == everything


def test_without_the_script_everything_is_there(window, file):
    window.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        window.open(file, width=390)
        tree = window.send("DOM.getDocument", depth=-1)["root"]["nodeId"]
        found = window.send("DOM.querySelectorAll", nodeId=tree, selector=".question[hidden]")["nodeIds"]
        form = window.send("DOM.querySelectorAll", nodeId=tree, selector="#filters[hidden]")["nodeIds"]
        assert (len(found), len(form)) == (0, 1)
    finally:
        window.send("Emulation.setScriptExecutionDisabled", value=False)
