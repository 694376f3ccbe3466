"""The recipe: unknown keys refused, every finding at once, numbers as people write them, exact round trip."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from drivedistill.problems import InputError
from drivedistill.recipe import Recipe, load_recipe, save_recipe
from drivedistill.yaml_tree import read_tree, set_field

CARD = """
name: card
data:
  sources:
    - {name: a, format: drivelm, root: data/a, regime: regular}
    - {name: b, format: coda_lm, root: data/b, regime: corner}
model: {preset: tiny}
train: {learning_rate: 1e-4}
"""


@pytest.fixture
def card(tmp_path) -> Path:
    path = tmp_path / "card.yaml"
    path.write_text(CARD)
    return path


def findings(path: Path, *overrides: str) -> dict[str, str]:
    """Field -> what was expected, of every problem."""
    with pytest.raises(InputError) as caught:
        load_recipe(path, list(overrides))
    for problem in caught.value.problems:
        assert problem.file
        assert problem.expected
        assert problem.found
        assert problem.remedy
    return {problem.record: problem.expected for problem in caught.value.problems}


def test_number_without_a_dot_is_a_number(card):
    assert yaml.safe_load("1e-4") == "1e-4"  # YAML 1.1 reads a text
    assert load_recipe(card).train.learning_rate == 1e-4
    assert load_recipe(card, ["train.learning_rate=3e-5"]).train.learning_rate == 3e-5


def test_defaults_are_filled_in(card):
    recipe = load_recipe(card)
    assert (recipe.seed, recipe.teacher, recipe.train.clip, recipe.data.layout) == (0, None, 1.0, "compact")


@pytest.mark.parametrize(
    ("override", "field"),
    [
        ("train.lerning_rate=1", "train.lerning_rate"),
        ("trian={}", "trian"),
        ("train.learning_rate=-1e-4", "train.learning_rate"),
        ("train.learning_rate=0", "train.learning_rate"),
        ("train.learning_rate=.nan", "train.learning_rate"),
        ("train.learning_rate=nan", "train.learning_rate"),
        ("train.learning_rate=.inf", "train.learning_rate"),
        ("train.learning_rate=quick", "train.learning_rate"),
        ("train.learning_rates={'fusion': -1}", "train.learning_rates.fusion"),
        ("train.weight_decay=-0.1", "train.weight_decay"),
        ("train.weight_decay=.nan", "train.weight_decay"),
        ("train.batch_size=0", "train.batch_size"),
        ("train.batch_size=2.5", "train.batch_size"),
        ("train.batch_size=[8]", "train.batch_size"),
        ("train.steps=-1", "train.steps"),
        ("train.epochs=0", "train.epochs"),
        ("train.decay=1.5", "train.decay"),
        ("train.schedule=cosin", "train.schedule"),
        ("train.precision=fp16", "train.precision"),
        ("distill.temperature=0", "distill.temperature"),
        ("distill.weight=-1", "distill.weight"),
        ("distill.loss=kl", "distill.loss"),
        ("data.image_size=0", "data.image_size"),
        ("data.sources=[]", "data.sources"),
        ("data.sources.1.regime=rare", "data.sources.1.regime"),
        ("data.sources.1.format=codalm", "data.sources.1.format"),
        ("data.sources.0.fractions={train: 0.5, val: 0.1}", "data.sources.0.fractions"),
        ("data.sources.0.fractions={train: 1.5, val: -0.5}", "data.sources.0.fractions.val"),
        ("data.sources.0.split_by=file", "data.sources.0.files"),
        ("model.path=somewhere", "model"),
        ("model.preset=null", "model"),
        ("model.frozen=['(']", "model.frozen.0"),
        ("model.lora={targets: '*q'}", "model.lora.targets"),
        ("train.learning_rates={'[': 1e-4}", "train.learning_rates.["),
        ("teacher={}", "teacher"),
        ("name=../elsewhere", "name"),
        ("name=..", "name"),
        ("name=", "name"),
        ("data=5", "data"),
        ("model=null", "model"),
        ("model.lora={init: loftq}", "model.lora.init"),
        ("model={path: runs/a, lora: {init: loftq}}", "model.lora.init"),
        ("model.lora={expert_targets: expert_up}", "model.lora.dropout"),
        ("model.overrides.ffn_experts={}", "model.overrides.ffn_experts"),
        ("model.ffn_experts={k: 5}", "model.ffn_experts.k"),
        ("model={path: runs/a, shrink: {}}", "model.shrink"),
        ("model.shrink={decoder: half}", "model.shrink"),
        ("model={path: runs/a, shrink: {decoder: some}}", "model.shrink.decoder"),
        ("model={path: runs/a, shrink: {decoder: [1, 0]}}", "model.shrink.decoder"),
        ("model={path: runs/a, shrink: {decoder: [0, -1]}}", "model.shrink.decoder.1"),
        ("model.ffn_experts={layers: [x]}", "model.ffn_experts.layers.0"),
        ("distill.release={end: 0.1}", "distill.release"),
        ("distill.on=regular", "distill.on"),
        ("distill.on=mined", "distill.on"),
        ("distill.signal=vision", "distill.signal"),
    ],
)
def test_bad_value_is_refused_and_its_field_named(card, override, field):
    assert list(findings(card, override)) == [field]


def test_all_findings_come_at_once_from_the_file_and_the_command_line(card):
    card.write_text(CARD.replace("seed", "sed") + "bogus: 1\nsed: 2\n")
    found = findings(card, "train.learning_rate=-1", "no-equals", "data.sources.7.limit=3", "train.batch_size=x")
    assert set(found) == {
        "bogus",
        "sed",
        "no-equals",
        "data.sources.7.limit=3",
        "train.learning_rate",
        "train.batch_size",
    }


@pytest.mark.parametrize("value", ["*", "[", "a: b: c", "2026-13-45"])
def test_value_that_is_no_yaml_is_called_so(card, value):
    assert findings(card, f"about={value}") == {f"about={value}": "a YAML value"}
    assert load_recipe(card, [f"about='{value}'"]).about == value


def test_table_recipe_is_one_finding(card):
    card.write_text("name: t\nabout: a\nbase: b.yaml\nrows: [{name: a}]\n")
    with pytest.raises(InputError, match="drivedistill ablate") as caught:
        load_recipe(card)
    assert len(caught.value.problems) == 1


TEACHER = "teacher={path: runs/teacher}"


@pytest.mark.parametrize(
    "field",
    [
        "shrink={decoder: half}",
        "adapter_experts={}",
        "ffn_experts={}",
        "lora={}",
        "frozen=[vision]",
        "gradient_checkpointing=true",
    ],
)
def test_what_would_change_a_teacher_is_refused(card, field):
    assert list(findings(card, TEACHER, f"teacher.{field}")) == [f"teacher.{field.partition('=')[0]}"]


def test_fields_that_do_not_fit_together_are_all_named(card):
    found = findings(
        card,
        TEACHER,
        "teacher.lora={}",
        "model.dtype=bfloat16",
        "distill={weight: 0.5, release: {end: 0.6}}",
        "mining={warmup: 0.7, anneal: 0.4}",
        "train.batch_size=1",
    )
    assert list(found) == ["model.dtype", "teacher.lora", "distill.release.end", "mining.pool", "mining.warmup"]
    sections = findings(card, "model.path=runs/a", "data.sources.1.split_by=file")
    assert list(sections) == ["data.sources.1.files", "model"]


def test_alternatives_of_a_field_are_one_finding(card):
    found = findings(card, "model={path: runs/a, shrink: {decoder: some}}", "train=fast")
    assert found == {
        "model.shrink.decoder": "'half', 'first_half' or 'alternate' or a valid list",
        "train": "a mapping, e.g. {key: value}",
    }


@pytest.mark.parametrize("change", ["loss=reverse_kl", "temperature=2", "weight=0.5", "release=null", "on=all"])
def test_base_recipes_lose_their_teacher_with_one_override(card, change):
    assert load_recipe(card, [f"distill.{change}", "teacher=null"]).teacher is None


def test_override_sets_nested_fields_lists_and_absent_sections(card):
    changes = [
        "data.sources.1.limit=7",
        "model.lora.r=4",
        "train.trackers=[tensorboard]",
        "about=a=b: c",
        "train.steps=5",
    ]
    recipe = load_recipe(card, [change.replace("a=b: c", "'a=b: c'") for change in changes])
    assert recipe.data.sources[1].limit == 7
    assert recipe.data.sources[0].limit is None
    assert recipe.model.lora is not None
    assert recipe.model.lora.r == 4
    assert recipe.train.trackers == ["tensorboard"]
    assert recipe.about == "a=b: c"
    assert recipe.train.steps == 5


def test_override_removes_a_section(card):
    card.write_text(CARD + "teacher: {path: runs/teacher}\n")
    assert load_recipe(card).teacher is not None
    assert load_recipe(card, ["teacher=null"]).teacher is None


@pytest.mark.parametrize(
    "override",
    [
        "train.learning_rate",
        "=5",
        "data.sources.x.limit=1",
        "data.sources.9.limit=1",
        "name.sub=1",
        "train.steps=[",
        "",
    ],
)
def test_override_that_leads_nowhere_is_named_with_a_remedy(card, override):
    assert override in findings(card, override)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("name: [", "YAML"),
        ("- a\n- b\n", "list"),
        ("", "NoneType"),
        ("just text", "str"),
        (b"\xff\xfe\x00", "utf-8"),
        ("name: !!python/object/apply:os.getcwd []", "YAML"),
        ("name: a\ntrain: {steps: 3}\ntrain: {epochs: 1}\n", r"line 3, column 1(.|\n)*`train` for the second time"),
        ("name: a\ntrain: {steps: 3, steps: 4}\n", r"line 2, column 19(.|\n)*`steps` for the second time"),
    ],
)
def test_file_that_is_no_recipe_is_refused(tmp_path, content, words):
    path = tmp_path / "card.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=words):
        load_recipe(path)


def test_missing_recipe_and_folder_are_refused(tmp_path):
    for path in (tmp_path / "absent.yaml", tmp_path):
        with pytest.raises(InputError, match="recipes/"):
            load_recipe(path)


def test_saved_recipe_loads_as_the_same_and_holds_every_default(card, tmp_path):
    recipe = load_recipe(card, ["about='Übung: ☃ # kein Kommentar'", "model.lora={}", "train.clip=null"])
    save_recipe(recipe, tmp_path / "saved.yaml")
    assert load_recipe(tmp_path / "saved.yaml") == recipe
    saved = yaml.safe_load((tmp_path / "saved.yaml").read_text("utf-8"))
    assert set(saved) == set(Recipe.model_fields)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["card.yaml", "saved.yaml"]


def test_recipe_cannot_be_changed_after_loading(card):
    recipe = load_recipe(card)
    with pytest.raises(ValueError, match="frozen"):
        recipe.train.steps = 3


def test_on_and_no_are_words_in_files_and_on_the_command_line(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("distill: {on: trusted, other: no}\nflags: [true, False, yes]\n")
    tree = read_tree(path)
    assert tree == {"distill": {"on": "trusted", "other": "no"}, "flags": [True, False, "yes"]}
    set_field(tree, "distill={on: mined, weight: 2.0, release: null}")
    assert tree["distill"] == {"on": "mined", "weight": 2.0, "release": None}
    set_field(tree, "flags=true")
    assert tree["flags"] is True
