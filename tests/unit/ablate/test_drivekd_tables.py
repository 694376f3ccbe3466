"""Drive-KD's published figures: they agree with each other and with what the paper says of them."""

from __future__ import annotations

import functools
from itertools import chain
from pathlib import Path

import pytest

from drivedistill.ablate.card import Table, TableRow, load_table
from drivedistill.ablate.plan import plan
from drivedistill.recipe import Recipe, load_recipe

RECIPES = Path(__file__).parents[3] / "recipes"
THREE = ("Perception", "Reasoning", "Planning")


@functools.cache
def table(number: int) -> Table:
    return load_table(RECIPES / "tables" / f"drivekd_table_{number}.yaml")


def figures(row: TableRow) -> dict[str, float]:
    return row.published["regular"]


def of(number: int, name: str) -> list[float]:
    return [figures(table(number).row(name))[column] for column in THREE if column in figures(table(number).row(name))]


def less(a: list[float], b: list[float]) -> list[float]:
    return [round(x - y, 2) for x, y in zip(a, b, strict=True)]


@functools.cache
def recipes(number: int) -> dict[str, Recipe]:
    path = RECIPES / "tables" / f"drivekd_table_{number}.yaml"
    return {run.row: run.recipe for run in plan(table(number), path, Path("out"))}


# --- the figures ----------------------------------------------------------------------------------------------------


def test_averages_are_the_mean_of_three_capabilities():
    rows = [row for row in chain(table(1).rows, table(2).rows) if "Mean of three" in row.published.get("regular", {})]
    assert len(rows) == 17 + 6
    for row in rows:
        mean = sum(figures(row)[column] for column in THREE) / 3
        assert figures(row)["Mean of three"] == pytest.approx(mean, abs=0.005 + 1e-9), row.name


def test_ratios_of_memory_and_speed_are_those_of_the_paper():
    small, large = (table(1).row(name).published_cost for name in ("multi_1b", "internvl3_78b"))
    assert large["Memory, GB"] / small["Memory, GB"] == pytest.approx(41.85, abs=0.005)
    assert small["Tokens per second"] / large["Tokens per second"] == pytest.approx(11.43, abs=0.0051)
    assert large["First token, s"] / small["First token, s"] == pytest.approx(36.6, abs=0.05)


def test_costs_are_those_of_the_architecture():
    for base, distilled in (("internvl3_1b", "multi_1b"), ("qwen2_5_vl_3b", "multi_3b"), ("internvl3_1b", "single_1b")):
        assert table(1).row(base).published_cost == table(1).row(distilled).published_cost


def test_tables_agree_with_each_other():
    assert of(1, "multi_1b") == of(2, "from_8b_to_1b") == of(3, "agp")
    singles = [of(number, f"single_{name.lower()}") for number in (3,) for name in THREE]
    assert [value for (value,) in singles] == of(1, "single_1b")
    assert [value for name in THREE for value in of(1, f"single_1b_{name.lower()}")] == of(1, "single_1b")
    assert [value for name in THREE for value in of(1, f"single_3b_{name.lower()}")] == of(1, "single_3b")


def test_projection_restores_what_three_teachers_cost():
    assert less(of(3, "agp"), of(3, "sum")) == [1.16, 7.47, 4.48]
    assert of(3, "sum")[1] < of(3, "ce")[1], "below plain fine-tuning"
    assert of(3, "agp")[1] < of(1, "single_1b")[1], "and below a single teacher still"


def test_what_the_paper_says_of_signals():
    single = {name: of(3, f"single_{name}")[0] for name in ("perception", "reasoning", "planning")}
    assert less(of(3, "ce_kl"), of(3, "ce")) == [-1.26, -0.89, -2.27]
    hidden = [of(3, name)[0] for name in ("hidden_first", "hidden_mid", "hidden_penultimate")]
    assert less(hidden, of(3, "ce")) == [0.41, 2.60, -0.59]
    assert less(hidden, [*single.values()]) == [-1.86, -2.67, -7.93]
    assert less([*single.values()], of(3, "ce")) == [2.27, 5.27, 7.34]
    cosine = [of(3, name)[0] for name in ("tv_first_cosine", "full_mid_cosine", "tv_penultimate_cosine")]
    assert less([*single.values()], cosine) == [1.28, 1.45, 1.21]
    blocks = less([single["perception"], single["planning"]], [of(3, "full_first")[0], of(3, "full_penultimate")[0]])
    assert blocks == [0.67, 1.50]
    assert less([single["reasoning"]] * 2, [of(3, "tv_mid")[0], of(3, "tv_mid_narrow")[0]]) == [3.90, 2.89]


# --- the recipes ----------------------------------------------------------------------------------------------------


def test_rows_of_table_3_are_what_their_labels_say():
    found = recipes(3)
    assert found["ce"].teacher is None and found["ce"].distill.drivekd is None
    kl = found["ce_kl"].distill
    assert (kl.weight, kl.temperature, kl.loss, kl.drivekd) == (1, 1, "forward_kl", None)
    assert {name: recipe.distill.weight for name, recipe in found.items() if recipe.distill.weight} == {"ce_kl": 1}
    base = load_recipe(RECIPES / "drivekd_internvl3.yaml")
    assert found["agp"].distill == base.distill
    for name, recipe in found.items():
        lessons = recipe.distill.drivekd.lessons if recipe.distill.drivekd else {}
        (only,) = [recipe.data.sources[0].capabilities]
        assert list(lessons) == only or (not only and len(lessons) in (0, 3)), name
    narrow = found["tv_mid_narrow"].distill.drivekd
    assert narrow is not None and narrow.lessons["reasoning"].layers == [1, -3]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_tables_are_marked_as_not_run_and_have_drivekds_defaults(number):
    card = table(number)
    assert not card.run and "Not run" in card.about and "judge" in card.published_by
    for recipe in recipes(number).values():
        train, data = recipe.train, recipe.data
        assert (train.batch_size, train.accumulate, train.learning_rate, train.weight_decay) == (1, 4, 5e-5, 0)
        assert (train.clip, train.reduction, train.schedule, train.precision) == (None, "samples", "constant", "bf16")
        assert (data.tiles, data.supervise, data.image_size, data.coordinates) == ("one", "turn", 448, "unit")


def test_models_that_are_only_asked_do_not_learn():
    asked = {name: recipe for name, recipe in recipes(1).items() if recipe.train.steps == 0}
    assert len(asked) == 10 and all(recipe.teacher is None for recipe in asked.values())
    assert {row.name for row in table(1).rows if not row.run} == {
        "gpt_5_1", "llama_3_2_11b", "llama_3_2_90b", "single_1b", "single_3b"
    }  # fmt: skip


def test_both_methods_stand_in_one_recipe():
    both = load_recipe(RECIPES / "drivekd_clkd_internvl3.yaml")
    drivekd, experts = both.distill.drivekd, both.model.ffn_experts
    assert drivekd is not None and drivekd.projection is not None and drivekd.projection.per == "window"
    assert len(drivekd.lessons) == 3 and both.mining is not None and both.mining.pool == "window"
    assert both.distill.release is not None and both.distill.weight == 1
    assert experts is not None and (experts.layers, experts.router_bias) == ("all", False)
    assert (experts.kind, experts.router, experts.k) == ("upcycle", "top_k", 2)
