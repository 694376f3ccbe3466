"""The world is what it was: the hash of a small data set, which changes with the generator's version only.

python tests/unit/world/test_golden.py        writes golden.json anew; raise world.VERSION with it after a release
"""

import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import pytest

from drivedistill.records import write_json
from drivedistill.world import VERSION
from drivedistill.world.dataset.folder import Settings
from drivedistill.world.dataset.write import write_world

GOLDEN = Path(__file__).with_name("golden.json")


def described(out):
    manifest = write_world(out, Settings(keyframes=24, seed=0, size=96))
    return {key: manifest[key] for key in ("version", "libraries", "data_hash")}


def test_the_data_are_those_of_the_version(tmp_path):
    golden = json.loads(GOLDEN.read_text("utf-8"))
    libraries = {name: version(name) for name in golden["libraries"]}
    if libraries != golden["libraries"]:
        pytest.skip(f"made with {golden['libraries']}, here is {libraries}: pixels and draws may differ")
    found = described(tmp_path / "world")
    assert found == golden, "the world has changed: raise world.VERSION and write golden.json anew"


def test_the_golden_file_is_of_this_version():
    assert json.loads(GOLDEN.read_text("utf-8"))["version"] == VERSION


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write_json(GOLDEN, described(Path(folder) / "world"))
    sys.stdout.write(GOLDEN.read_text("utf-8"))
