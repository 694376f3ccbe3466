"""Comparisons of regimes from made-up sums: verdicts, intervals, the figure."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from drivedistill.experts.figure import figure
from drivedistill.experts.observe import CONTROLS, TOKENS, WEIGHTS, Cell, Layer, Use
from drivedistill.experts.report import as_json, compare_regimes, dead, label, reading, verdict
from drivedistill.experts.table import report, sentences
from drivedistill.records import Sample

E = 4

WORDS = {
    "more": " more effective experts; none of 6 random routers shows as much.",
    "fewer": " fewer effective experts; none of 6 random routers shows as much.",
    "more, random routers too": " more effective experts; random routers show as much, so it need not be learnt.",
    "no difference shown": "adapter: no difference in effective experts shown",
    "too few scenes": "adapter: too few scenes for a verdict (28 regular and 28 corner; ",
    "one regime only": "adapter: questions of one regime only, nothing to compare.",
}
"""Verdict -> how a sentence puts it."""


def test_experts_that_disagree_use_one_each_and_all_together() -> None:
    """Two tokens, each sure of another expert: one expert per token, two of their mean."""
    sums = np.array([2.0, *(2.0,) * 4, 2.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0])
    assert reading("exp_entropy", sums, E) == 1
    assert reading("of_mean", sums, E) == pytest.approx(2)
    assert dead(sums, E, "top_k") == [2, 3]


def test_dead_is_less_than_a_hundredth_of_an_even_share() -> None:
    def sums(selected: list[float]) -> Any:
        return np.array([1000.0, *(0.0,) * 4, 2000.0, *(250.0,) * 4, *selected])

    assert dead(sums([991.0, 1000.0, 4.9, 4.1]), E, "top_k") == [2, 3]  # an even share: 500
    assert dead(sums([991.0, 999.0, 5.1, 4.9]), E, "top_k") == [3]


def made_up(gap: float, scenes: int = 40, chance: float = 0.0, regimes: tuple[str, ...] = ("regular", "corner")) -> Use:
    """One layer, ten tokens per question; exp_entropy is 2 +- 0.1, and `gap` more of corner cases, `chance` by chance."""
    given = [
        Sample(
            id=f"{regime}{number}",
            dataset="drawn",
            scene=f"{regime}{number}",
            frame="f",
            split="test",
            regime=regime,
            task="planning",
            question="?",
            answer="!",
            images={},
        )
        for regime in regimes
        for number in range(scenes)
    ]
    cells = sorted({(sample.dataset, sample.regime, sample.task) for sample in given})

    def sums(entropy: float) -> list[float]:
        return [10.0, 10 * entropy, 20.0, 20.0, 30.0, 20.0, *(2.5,) * E, *(5.0,) * E]

    own = [2 + gap * (s.regime == "corner") + 0.1 * (-1) ** number for number, s in enumerate(given)]
    random = np.array([[sums(2 + chance * (cell[1] == "corner")) for cell in cells]] * 3)
    layer = Layer(
        "adapter", "adapter", "all", "top_k", E, 0.5, np.array([sums(value) for value in own]),
        dict.fromkeys(CONTROLS, random),
    )  # fmt: skip
    return Use(given, [Cell(*cell) for cell in cells], [layer])


@pytest.mark.parametrize(
    ("expected", "options"),
    [
        ("more", {"gap": 0.5}),
        ("fewer", {"gap": -0.5}),
        ("no difference shown", {"gap": 0.0}),
        ("more, random routers too", {"gap": 0.5, "chance": 0.6}),
        ("more", {"gap": 0.5, "chance": -0.6}),
        ("more", {"gap": 0.5, "scenes": 30}),
        ("too few scenes", {"gap": 0.5, "scenes": 28}),
        ("one regime only", {"gap": 0.5, "regimes": ("corner",)}),
    ],
)
def test_verdicts(expected: str, options: dict[str, Any]) -> None:
    use = made_up(**options)
    found = compare_regimes(use)
    assert [verdict(item) for item in found] == [expected]
    assert WORDS[expected] in next(sentences(found))
    if found[0].differences:
        assert found[0].differences["exp_entropy"].value == pytest.approx(options["gap"])
    json.dumps(as_json("m", use, found), allow_nan=False)
    assert WORDS[expected].strip() in " ".join(report("m", found).split())


def test_the_interval_is_that_of_a_difference_of_means() -> None:
    """Against drawing by hand: scenes with replacement, the two means anew."""
    use = made_up(0.05, scenes=30)
    found = compare_regimes(use, seed=3)[0].differences["exp_entropy"]
    generator = np.random.default_rng(5)
    values = use.layers[0].sums[:, 1] / use.layers[0].sums[:, TOKENS]
    corner = np.array([sample.regime == "corner" for sample in use.samples])
    draws = []
    for _ in range(2000):
        chosen = generator.integers(60, size=60)
        draws.append(values[chosen][corner[chosen]].mean() - values[chosen][~corner[chosen]].mean())
    assert found.low == pytest.approx(np.quantile(draws, 0.025), abs=0.006)
    assert found.high == pytest.approx(np.quantile(draws, 0.975), abs=0.006)


def test_a_scene_that_two_data_sets_ask_about_is_drawn_as_one() -> None:
    once = made_up(0.05, scenes=10)
    other = [s.model_copy(update={"dataset": "senna", "id": f"{s.id} senna"}) for s in once.samples]
    cells = [*once.cells, *(cell._replace(dataset="senna") for cell in once.cells)]
    [layer] = once.layers
    controls = {name: np.concatenate([sums, sums], axis=1) for name, sums in layer.controls.items()}
    both = replace(layer, sums=np.concatenate([layer.sums, layer.sums]), controls=controls)
    (found, *_), (expected, *_) = (compare_regimes(use) for use in (Use([*once.samples, *other], cells, [both]), once))
    assert found.parts["corner"].scenes == expected.parts["corner"].scenes == 10
    # Asking everything twice tells nothing new.
    assert found.differences["exp_entropy"].low == pytest.approx(expected.differences["exp_entropy"].low)
    assert found.differences["exp_entropy"].high == pytest.approx(expected.differences["exp_entropy"].high)


def test_the_figure_is_well_formed_and_as_tall_as_the_numbers() -> None:
    use = made_up(0.1)
    corner = [sample.regime == "corner" for sample in use.samples]
    weights = slice(WEIGHTS, WEIGHTS + E)
    use.layers[0].sums[:, weights] = np.where(np.array(corner)[:, None], [2.5, 2.5, 4, 1], [4, 3, 2, 1])
    root = ET.fromstring(figure(compare_regimes(use)))
    heights = {
        regime: [float(bar.get("height", "")) for bar in root.iter() if bar.get("fill") == colour][1:]  # [0]: legend
        for regime, colour in {"regular": "#4477aa", "corner": "#ee7733"}.items()
    }
    assert heights == {"regular": [120, 90, 60, 30], "corner": [75, 75, 120, 30]}


def test_labels_name_place_and_block() -> None:
    layer = made_up(0).layers[0]
    assert label(layer) == "adapter"
    name = "language_model.encoder.block.3.layer.1.DenseReluDense"
    assert label(Layer(name, "encoder", *tuple(vars(layer).values())[2:])) == "encoder 3"
