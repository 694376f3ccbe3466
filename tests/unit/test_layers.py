"""The house rules that no single test would notice: who imports whom, what is never imported, what must stay quick."""

from __future__ import annotations

import ast
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import drivedistill
from drivedistill.recipe import load_recipe

PACKAGE = Path(drivedistill.__file__).parent
ROOT = PACKAGE.parents[1]
FILES = {path.relative_to(PACKAGE).as_posix().removesuffix(".py"): path for path in sorted(PACKAGE.rglob("*.py"))}

LAYERS = {
    **dict.fromkeys(
        (
            "__init__",
            "problems",
            "records",
            "yaml_tree",
            "recipe",
            "section",
            "drivekd_sections",
            "sections",
            "batch",
            "progress",
            "signals",
            "metrics_file",
            "tables",
            "folders",
            "precision",
            "cost",
        ),
        0,
    ),
    **dict.fromkeys(("data", "models"), 1),
    **dict.fromkeys(("distill", "checkpoint", "machine"), 2),
    "subject": 2.4,
    "from_preset": 2.45,
    "build": 2.5,
    "teaching": 2.6,
    **dict.fromkeys(
        ("ranks", "optimize", "task_gradients", "step", "train", "runs", "evaluate", "dry_run", "preflight", "world"), 3
    ),
    "pretrain": 3,
    **dict.fromkeys(("bench", "experts", "study"), 3.5),
    **dict.fromkeys(("report", "deploy"), 4),
    **dict.fromkeys(("ablate", "quickstart", "cli"), 5),
}
"""Room -> layer of the design; imports only go down, or stay inside the room."""

MAY_IMPORT_BESIDE = {
    ("records", "problems"),
    ("recipe", "problems"),
    ("recipe", "records"),
    ("recipe", "section"),
    ("recipe", "sections"),
    ("sections", "problems"),
    ("sections", "section"),
    ("sections", "drivekd_sections"),
    ("drivekd_sections", "section"),
    ("drivekd_sections", "problems"),
    ("drivekd_sections", "records"),
    ("sections", "records"),
    ("recipe", "yaml_tree"),
    ("yaml_tree", "problems"),
    ("step", "optimize"),
    ("step", "ranks"),
    ("step", "task_gradients"),
    ("task_gradients", "ranks"),
    ("train", "step"),
    ("train", "optimize"),
    ("train", "ranks"),
    ("train", "task_gradients"),
    ("runs", "step"),
    ("runs", "train"),
    ("runs", "optimize"),
    ("dry_run", "runs"),
    ("dry_run", "train"),
    ("dry_run", "preflight"),
    ("preflight", "runs"),
    ("preflight", "step"),
    ("preflight", "train"),
    ("preflight", "ranks"),
    ("pretrain", "optimize"),
    ("cli", "ablate"),
    ("cli", "quickstart"),
    ("quickstart", "ablate"),
}
"""Neighbours on one floor: layers 0 and 3 are stories with an order of their own."""


def room(module: str) -> str:
    """`drivedistill.data.images` and `data/images` to `data`."""
    return module.removeprefix("drivedistill.").replace("/", ".").partition(".")[0]


def imports(path: Path) -> set[str]:
    """Full names of everything that a file imports, inside functions too; `if TYPE_CHECKING` does not count."""
    tree = ast.parse(path.read_text("utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name} imports relatively"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def ours(name: str) -> set[str]:
    """Rooms of this package that a file imports."""
    found = set()
    for module in imports(FILES[name]):
        inside = module.removeprefix("drivedistill.")
        if module.startswith("drivedistill.") and room(inside) in ROOMS:
            found.add(room(inside))
    return found - {room(name)}


ROOMS = {room(name) for name in FILES}


def test_every_room_has_a_layer():
    assert not ROOMS - LAYERS.keys(), "name the layer of a new file in LAYERS"


@pytest.mark.parametrize("name", FILES)
def test_imports_only_go_down(name):
    mine = room(name)
    for other in ours(name):
        down = LAYERS[other] < LAYERS[mine] or (mine, other) in MAY_IMPORT_BESIDE
        assert down, f"{name} (layer {LAYERS[mine]}) imports {other} (layer {LAYERS[other]})"


def test_the_world_is_a_house_of_its_own():
    importers = {room(name) for name in FILES if "world" in ours(name)}
    assert importers <= {"cli", "quickstart"}
    used = {other for name in FILES if room(name) == "world" for other in ours(name)}
    assert used <= {"data", "problems", "progress", "records", "signals"}


def test_walk_sees_imports_inside_functions(tmp_path):
    file = tmp_path / "module.py"
    file.write_text("def f():\n    from drivedistill.train import fit\n    import torch.nn\n")
    assert imports(file) == {"drivedistill.train", "drivedistill.train.fit", "torch.nn"}


@pytest.mark.parametrize("name", FILES)
def test_no_pickle_no_torchvision_no_remote_code(name):
    forbidden = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "torchvision"}
    assert not {module.partition(".")[0] for module in imports(FILES[name])} & forbidden
    for node in ast.walk(ast.parse(FILES[name].read_text("utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        assert given.get("trust_remote_code", "False") == "False"
        if ast.unparse(node.func) in ("torch.load", "torch.save"):
            assert given.get("weights_only") == "True"
        if ast.unparse(node.func).endswith((".load", "load_all")) and "yaml" in ast.unparse(node.func):
            assert "safe" in ast.unparse(node.func)
        assert ast.unparse(node.func) not in ("eval", "exec", "np.load", "numpy.load")


def modules_after(code: str) -> set[str]:
    """Names of `sys.modules` after running `code` in a fresh interpreter."""
    show = "\nimport sys\nprint('\\n'.join(sys.modules))"
    environment = {**os.environ, "DRIVEDISTILL_DEBUG": ""}
    found = subprocess.run(
        [sys.executable, "-c", code + show], capture_output=True, text=True, check=True, env=environment
    )
    return set(found.stdout.split())


HEAVY = {"torch", "transformers", "accelerate", "peft", "tokenizers", "pycocoevalcap", "matplotlib", "datasets"}


def test_command_line_without_a_verb_loads_nothing_heavy():
    assert not modules_after("import drivedistill, drivedistill.cli") & (HEAVY | {"numpy", "PIL", "pydantic", "yaml"})


def test_reading_and_scoring_load_no_torch():
    light = ["recipe", "records", "data", "data.mixture", "data.check", "data.prompt", "evaluate.score"]
    light += ["evaluate.submission", "evaluate.score_table", "report"]
    code = "\n".join(f"import drivedistill.{name}" for name in light)
    assert not modules_after(code) & HEAVY


def test_quickstart_leaves_the_heavy_work_to_its_commands():
    assert not modules_after("import drivedistill.quickstart.plan, drivedistill.quickstart.run") & HEAVY


def test_help_answers_at_once():
    fastest = 9.0
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        shown = subprocess.run(
            [sys.executable, "-m", "drivedistill.cli", "--help"], capture_output=True, text=True, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)  # processor time, since others may use the cores
        fastest = min(fastest, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert "distill" in shown.stdout
    assert fastest < 0.5


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_loads_and_says_what_it_is(path):
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert recipe.about
    assert "# Run:" in path.read_text("utf-8") or "Run" in recipe.about


def test_files_fit_on_a_few_screens():
    sizes = {name: len(path.read_text("utf-8").splitlines()) for name, path in FILES.items()}
    assert {name: lines for name, lines in sizes.items() if lines > 420} == {}
