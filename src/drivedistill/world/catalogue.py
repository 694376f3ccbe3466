"""Everything that can stand or move in the world: its size, what people call it, how the data sets file it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Family = Literal["vehicle", "cyclist", "person", "animal", "debris", "works"]


@dataclass(frozen=True)
class Kind:
    """A kind of actor."""

    size: tuple[float, float, float]
    """length, width, height in metres"""
    family: Family
    coda: str
    """Category of CODA-LM."""
    painted: bool = False
    """Its colour is part of its name: "red sedan"."""
    plural: str = ""
    """Where adding an s is wrong, or the name is plural already."""


def _vehicle(length: float, width: float, height: float, coda: str = "car", *, painted: bool = False) -> Kind:
    return Kind((length, width, height), "vehicle", coda, painted)


KINDS: dict[str, Kind] = {
    "sedan": _vehicle(4.6, 1.82, 1.45, painted=True),
    "SUV": _vehicle(4.7, 1.95, 1.75, painted=True),
    "hatchback": _vehicle(4.0, 1.75, 1.5, painted=True),
    "taxi": _vehicle(4.6, 1.82, 1.45),
    "pickup": _vehicle(5.5, 1.98, 1.8, painted=True),
    "van": _vehicle(5.6, 2.05, 2.4, painted=True),
    "truck": _vehicle(8.6, 2.5, 3.5, "truck", painted=True),
    "bus": Kind((11.0, 2.55, 3.1), "vehicle", "bus", True, "buses"),
    "police car": _vehicle(4.7, 1.85, 1.48),
    "ambulance": _vehicle(5.9, 2.2, 2.7, "truck"),
    "fire truck": _vehicle(8.2, 2.5, 3.2, "truck"),
    "cement mixer": _vehicle(8.2, 2.5, 3.5, "construction_vehicle"),
    "excavator": _vehicle(5.2, 2.6, 3.7, "construction_vehicle"),
    "log trailer": _vehicle(6.0, 2.2, 2.3, "trailer"),
    "horse cart": _vehicle(4.6, 1.8, 1.9, "cart"),
    "cyclist": Kind((1.75, 0.6, 1.75), "cyclist", "cyclist"),
    "motorcyclist": Kind((2.1, 0.75, 1.6), "cyclist", "motorcycle"),
    "pedestrian": Kind((0.5, 0.6, 1.75), "person", "pedestrian"),
    "child": Kind((0.4, 0.45, 1.2), "person", "pedestrian", plural="children"),
    "person with a stroller": Kind((1.9, 0.7, 1.7), "person", "stroller", plural="people with strollers"),
    "wheelchair user": Kind((1.1, 0.7, 1.35), "person", "wheelchair"),
    "construction worker": Kind((0.5, 0.6, 1.8), "person", "pedestrian"),
    "dog": Kind((0.9, 0.3, 0.7), "animal", "dog"),
    "deer": Kind((1.6, 0.5, 1.6), "animal", "misc", plural="deer"),
    "cow": Kind((2.3, 0.8, 1.5), "animal", "misc"),
    "sheep": Kind((1.2, 0.5, 0.9), "animal", "misc", plural="sheep"),
    "horse": Kind((2.3, 0.6, 1.7), "animal", "misc"),
    "pile of cardboard boxes": Kind((1.6, 1.8, 1.0), "debris", "carton", plural="piles of cardboard boxes"),
    "fallen tire": Kind((0.7, 0.7, 0.25), "debris", "tire"),
    "pile of logs": Kind((1.4, 3.4, 0.5), "debris", "debris", plural="piles of logs"),
    "fallen sofa": Kind((0.9, 2.0, 0.9), "debris", "misc"),
    "rock": Kind((1.6, 1.8, 0.9), "debris", "stone"),
    "overturned car": Kind((4.6, 2.0, 1.5), "debris", "car"),
    "warning triangle": Kind((0.3, 0.5, 0.45), "works", "warning_sign"),
    "traffic cone": Kind((0.4, 0.4, 0.75), "works", "traffic_cone"),
    "construction barrier": Kind((0.4, 2.0, 1.05), "works", "barrier"),
}

COLOURS: dict[str, tuple[float, float, float]] = {
    "white": (0.64, 0.64, 0.64),
    "black": (0.03, 0.03, 0.035),
    "silver": (0.48, 0.49, 0.51),
    "gray": (0.20, 0.205, 0.215),
    "red": (0.55, 0.03, 0.03),
    "blue": (0.03, 0.09, 0.40),
    "green": (0.03, 0.22, 0.08),
    "yellow": (0.75, 0.50, 0.03),
    "orange": (0.72, 0.22, 0.02),
    "brown": (0.20, 0.10, 0.05),
}
"""Paint, as linear reflectance."""


def name(kind: str, colour: str) -> str:
    """What a person would call it: "red sedan", "fire truck"."""
    return f"{colour} {kind}" if KINDS[kind].painted else kind


def plural(kind: str) -> str:
    """More than one of the kind."""
    return KINDS[kind].plural or f"{kind}s"


def with_article(noun: str) -> str:
    """The noun with a or an."""
    return f"{'an' if noun[0] in 'aeiou' or noun.startswith('SUV') else 'a'} {noun}"
