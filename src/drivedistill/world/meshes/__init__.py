"""Low-poly meshes, made of code: no asset is stored anywhere."""

from __future__ import annotations

from collections.abc import Callable

from drivedistill.world.meshes.animals import animal
from drivedistill.world.meshes.fittings import Order
from drivedistill.world.meshes.lorries import bus, truck
from drivedistill.world.meshes.people import person, wheelchair_user, with_stroller
from drivedistill.world.meshes.props import (
    cardboard_boxes,
    construction_barrier,
    fallen_sofa,
    fallen_tire,
    pile_of_logs,
    rock,
    traffic_cone,
    warning_triangle,
)
from drivedistill.world.meshes.riders import cyclist, motorcyclist
from drivedistill.world.meshes.shape import Mesh, Shape
from drivedistill.world.meshes.special_vehicles import (
    ambulance,
    cement_mixer,
    excavator,
    fire_truck,
    horse_cart,
    log_trailer,
    overturned_car,
)
from drivedistill.world.meshes.vehicles import car, van

_MAKERS: dict[str, Callable[[Order], Shape]] = {
    **dict.fromkeys(("sedan", "SUV", "hatchback", "taxi", "pickup", "police car"), car),
    "van": van,
    "truck": truck,
    "bus": bus,
    "ambulance": ambulance,
    "fire truck": fire_truck,
    "cement mixer": cement_mixer,
    "excavator": excavator,
    "log trailer": log_trailer,
    "horse cart": horse_cart,
    "cyclist": cyclist,
    "motorcyclist": motorcyclist,
    **dict.fromkeys(("pedestrian", "child", "construction worker"), person),
    "person with a stroller": with_stroller,
    "wheelchair user": wheelchair_user,
    **dict.fromkeys(("dog", "deer", "cow", "sheep", "horse"), animal),
    "pile of cardboard boxes": cardboard_boxes,
    "fallen tire": fallen_tire,
    "pile of logs": pile_of_logs,
    "fallen sofa": fallen_sofa,
    "rock": rock,
    "overturned car": overturned_car,
    "warning triangle": warning_triangle,
    "traffic cone": traffic_cone,
    "construction barrier": construction_barrier,
}


def make(
    kind: str,
    colour: str,
    seed: int,
    *,
    phase: float = 0.0,
    braking: bool = False,
    indicator: int = 0,
    headlights: bool = False,
) -> Mesh:
    """The mesh of an actor, in its own coordinates.

    Args:
        kind: A key of `catalogue.KINDS`.
        colour: A key of `catalogue.COLOURS`; vehicles with a livery of their own ignore it.
        seed: Of clothes, coats and heaps.
        phase: Of the walk in radians, two steps are 2 pi; 0: it stands.
        braking: Brake lights are lit.
        indicator: 1 left, -1 right, 0 off.
        headlights: They are lit.

    Raises:
        KeyError: kind or colour does not exist.
    """
    return _MAKERS[kind](Order(kind, colour, seed, phase, braking, indicator, headlights)).mesh()
