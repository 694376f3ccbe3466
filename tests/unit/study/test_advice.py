"""The advice: of the published curves Drive-KD's own choice, and doubts where curves show nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import yaml

from drivedistill.drivekd_sections import DriveKD, Lesson
from drivedistill.study.advice import advise, choose_layers, named, snippet, words
from drivedistill.study.curves import Curve, Curves
from drivedistill.study.table import report

DEPTH = 28


def curve(values: Sequence[float], spread: float = 0.002, scenes: int = 100) -> Curve:
    numbers = [float(value) for value in values]
    return Curve(list(numbers), [v - spread for v in numbers], [v + spread for v in numbers], 3 * scenes, scenes)


def through(*points: tuple[int, float]) -> list[float]:
    """Straight lines between points whose layers count from 1, as published."""
    places, values = zip(*points, strict=True)
    return [float(value) for value in np.interp(range(1, points[-1][0] + 1), places, values)]


def published() -> Curves:
    """Drive-KD's pre-study of InternVL3-8B, read off its figure."""
    similarity = {
        "perception": curve(through((1, 0.97), (21, 0.85), (25, 0.85), (28, 0.81))),
        "reasoning": curve(through((1, 1.0), (28, 0.98))),
        "planning": curve(through((1, 0.98), (24, 0.84), (27, 0.885), (28, 0.76))),
    }
    hidden = through((1, 0.17), (2, 0.14), (10, 0.25), (27, 0.25), (28, 0.34))
    maps = through((1, 0.028), (3, 0.02), (4, 0.02), (5, 0.003), (27, 0.003), (28, 0.007))
    dispersion = {
        signal: dict.fromkeys(similarity, curve(values))
        for signal, values in {"hidden": hidden, "full": maps, "text_to_vision": maps}.items()
    }
    return Curves(
        layers=DEPTH,
        change=curve(through((1, 0.64), (2, 0.92), (17, 0.96), (27, 0.9), (28, 0.39))),
        alignment=curve(through((1, 0.29), (2, 0.45), (20, 0.57), (25, 0.61), (27, 0.69), (28, 0.78), (29, 0.6))),
        similarity=similarity,
        dispersion=dispersion,
        margin={"all": curve(through((1, 0.54), (10, 0.66)))},
    )


def test_the_published_curves_lead_to_drive_kds_own_choice() -> None:
    found = published()
    choices = advise(found)
    assert {name: choice.lesson for name, choice in choices.items()} == DriveKD().lessons
    assert [choice.rule for choice in choices.values()] == ["where fusion begins", "flat", "late peak"]
    assert not any(choice.doubts for choice in choices.values())
    said = words(found)
    assert said.advised_against and said.margin == pytest.approx(0.6)
    text = report("InternVL3-8B", found, choices, said)
    assert "In doubt" not in text and "advised against" in text


def test_general_questions_do_not_speak_against_words() -> None:
    found = published()
    found.margin["all"] = curve(through((1, 0.65), (10, 0.78)))
    assert not words(found).advised_against
    assert "weight" not in snippet(advise(found), words(found))


def test_the_snippet_is_the_recipe_of_the_advice() -> None:
    found = published()
    tree = yaml.safe_load(snippet(advise(found), words(found)))
    assert DriveKD(**tree["distill"]["drivekd"]) == DriveKD() and tree["distill"]["weight"] == 0


FALLING = through((1, 0.9), (10, 0.5))
RISING = list(range(10))


@pytest.mark.parametrize(
    ("similarity", "alignment", "expected"),
    [
        (through((1, 0.9), (10, 0.86)), RISING, ("flat", None)),
        ([*[0.9] * 9, 0.1], RISING, ("flat", None)),  # the last layer's own fall does not count
        (FALLING, RISING, ("where fusion begins", 0)),
        (FALLING, None, ("where fusion begins", 0)),
        (FALLING, RISING[::-1], ("where fusion begins", 6)),  # the least aligned third of 0 to 8
        (through((1, 0.9), (4, 0.5), (6, 0.8), (10, 0.3)), RISING, ("late peak", 5)),
        (through((1, 0.9), (4, 0.5), (6, 0.6), (7, 0.5), (9, 0.6), (10, 0.5)), RISING, ("late peak", 8)),  # of two
        (through((1, 0.9), (2, 0.5), (3, 0.8), (10, 0.3)), RISING, ("where fusion begins", 0)),  # a peak, but early
        (through((1, 0.9), (8, 0.5), (9, 0.51), (10, 0.3)), RISING, ("where fusion begins", 0)),  # a ripple
        (through((1, 0.5), (10, 0.9)), RISING, ("where fusion begins", 2)),  # rises to the end: no fall behind it
        (through((1, 0.9), (5, 0.5), (9, 0.8), (10, 0.79)), RISING, ("where fusion begins", 0)),  # hardly any fall
        ([0.7], [0.1], ("flat", 0)),
        ([0.7, 0.2], [0.1, 0.2], ("flat", None)),
    ],
)
def test_shapes(similarity: list[float], alignment: list[float] | None, expected: tuple[str, int | None]) -> None:
    assert choose_layers(similarity, alignment) == expected


def test_layers_are_named_so_that_another_depth_understands_them() -> None:
    assert [named(layer, 28) for layer in (None, 0, 3, 13, 14, 25, 26, 27)] == [
        "intermediate", "first", [3, 3], [13, 13], [-14, -14], [-3, -3], "penultimate", "last",
    ]  # fmt: skip
    for layer in (3, 25):
        assert Lesson(layers=named(layer, 28)).layers == named(layer, 28)


def test_signals_follow_the_steadier_one() -> None:
    found = published()
    found.dispersion["hidden"]["planning"] = curve([0.0001] * DEPTH)
    choice = advise(found)["planning"]
    assert choice.lesson == Lesson(signal="hidden", layers="penultimate") and not choice.doubts
    assert "planning: {signal: hidden, layers: penultimate}" in snippet(advise(found), words(found))
    found.dispersion["hidden"]["planning"] = curve([0.004] * DEPTH)
    choice = advise(found)["planning"]
    assert choice.lesson.signal == "attention" and "neither signal" in choice.doubts[0]
    for signal in ("hidden", "full"):
        found.dispersion[signal]["reasoning"] = curve([0.0] * DEPTH)
    assert "neither signal" in advise(found)["reasoning"].doubts[0]


def test_doubts_are_said() -> None:
    found = published()
    similarity = found.similarity
    similarity["planning"] = curve(similarity["planning"].values, spread=0.1)  # type: ignore[arg-type]
    similarity["perception"] = curve(similarity["perception"].values, spread=0.1)  # type: ignore[arg-type]
    similarity["reasoning"] = curve(similarity["reasoning"].values, scenes=29)  # type: ignore[arg-type]
    doubts = {name: " ".join(choice.doubts) for name, choice in advise(found).items()}
    assert "peak's interval is not clear" in doubts["planning"]
    assert "not clear of that of the layer of lowest" in doubts["perception"]
    assert "29 scenes, fewer than 30" in doubts["reasoning"]
    for name in similarity:
        similarity[name] = curve([0.99] * DEPTH)
    assert all("do not tell them apart" in choice.doubts[-1] for choice in advise(found).values())


def test_a_higher_layer_that_is_aligned_is_owned_up_to() -> None:
    found = published()
    found.similarity["perception"] = curve(through((1, 0.7), (13, 0.9), (28, 0.6)))
    (doubt,) = advise(found)["perception"].doubts
    assert "layer 12 has a higher similarity (0.900)" in doubt


def test_where_layers_see_no_image_tokens_the_highest_similarity_decides() -> None:
    found = Curves(**(vars(published()) | {"alignment": None}))
    choice = advise(found)["perception"]
    assert choice.lesson.layers == "first" and choice.lesson.block == "text_to_vision"
    assert any("not known where fusion begins" in doubt for doubt in choice.doubts)
    assert "no alignment" in report("t5", found, advise(found), words(found))


def test_one_question_of_a_capability_gets_no_advice() -> None:
    found = published()
    nothing: list[float | None] = [None] * DEPTH
    for by_name in (found.similarity, *found.dispersion.values()):
        by_name["planning"] = Curve(nothing, nothing, nothing, 1, 1)
    choices = advise(found)
    assert list(choices) == ["perception", "reasoning"]
    assert "planning: one question only" in report("m", found, choices, words(found))
