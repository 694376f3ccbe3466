"""The actors' meshes agree with the catalogue, and show what an actor does."""

from __future__ import annotations

import numpy as np
import pytest

from drivedistill.world import meshes
from drivedistill.world.catalogue import COLOURS, KINDS
from drivedistill.world.materials import Draw, Material

WITH_LAMPS = ("sedan", "SUV", "hatchback", "taxi", "pickup", "van", "truck", "bus", "police car", "ambulance")
WITH_LAMPS += ("fire truck", "cement mixer", "motorcyclist")
SEEDED = [kind for kind, entry in KINDS.items() if entry.family in ("person", "animal", "cyclist")]
SEEDED += ["rock", "pile of logs", "pile of cardboard boxes", "fallen sofa", "horse cart"]


def same(one: meshes.Mesh, other: meshes.Mesh) -> bool:
    parts = ("points", "uv", "flags", "materials", "colours")
    return all(np.array_equal(getattr(one, part), getattr(other, part)) for part in parts)


def brightest(mesh: meshes.Mesh, *, x: float, side: int) -> np.ndarray:
    """The brightest lamp colour near an end (x 1 front, -1 rear) on one side (1 left, -1 right, 0 both); not on the roof."""
    middle = mesh.points.mean(axis=1)
    length, width = np.ptp(mesh.points[..., 0]), np.ptp(mesh.points[..., 1])
    on_side = (side == 0) | (middle[:, 1] * side > 0.2 * width)
    there = (mesh.materials == Material.LAMP) & (middle[:, 0] * x > 0.28 * length) & on_side & (middle[:, 2] < 1.4)
    return mesh.colours[there].max(axis=0, initial=0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_mesh_has_the_size_of_its_kind(kind):
    for seed in range(3):
        points = meshes.make(kind, "red", seed).points.reshape(-1, 3)
        low, high = points.min(0), points.max(0)
        assert np.allclose((high - low) / KINDS[kind].size, 1.0, atol=0.13)
        assert abs(low[2]) < 0.02
        assert np.abs((low + high)[:2] / 2).max() < 0.11


@pytest.mark.parametrize("kind", KINDS)
def test_mesh_is_sound(kind):
    mesh = meshes.make(kind, "blue", 7, phase=1.0, braking=True, indicator=1, headlights=True)
    assert 10 < len(mesh) < 900
    assert all(np.isfinite(part).all() for part in (mesh.points, mesh.uv, mesh.colours))
    assert set(mesh.materials) <= set(Material)
    assert not (mesh.flags & (Draw.GROUND | Draw.CUT_OUT)).any()
    assert (mesh.uv >= 0).all()
    assert (mesh.uv <= 1).all()
    assert (mesh.colours >= 0).all()
    shines = mesh.materials == Material.LAMP
    assert (mesh.colours[~shines] <= 1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_same_order_same_mesh(kind):
    assert same(meshes.make(kind, "gray", 11, phase=0.7), meshes.make(kind, "gray", 11, phase=0.7))


@pytest.mark.parametrize("kind", SEEDED)
def test_seeds_differ(kind):
    first = meshes.make(kind, "gray", 0)
    assert any(not same(first, meshes.make(kind, "gray", seed)) for seed in range(1, 5))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if KINDS[kind].painted])
def test_paint_is_the_colour_that_the_name_says(kind):
    for colour, paint in COLOURS.items():
        mesh = meshes.make(kind, colour, 0)
        painted = (mesh.colours == paint).all(axis=1)
        assert painted.sum() > 10


@pytest.mark.parametrize(("kind", "own"), [("taxi", "yellow"), ("police car", "white"), ("ambulance", "white")])
def test_liveries_ignore_the_colour(kind, own):
    assert same(meshes.make(kind, "red", 0), meshes.make(kind, "green", 0))
    assert (meshes.make(kind, "red", 0).colours == COLOURS[own]).all(axis=1).any()


@pytest.mark.parametrize("kind", [*WITH_LAMPS, "log trailer"])
def test_brake_lights_shine_at_the_rear_only_when_braking(kind):
    off, on = (meshes.make(kind, "gray", 0, braking=braking) for braking in (False, True))
    red, green, _ = brightest(on, x=-1, side=0)
    assert red > 1 > 0.2 > green
    assert brightest(off, x=-1, side=0).max() == 0
    assert brightest(on, x=1, side=0).max() == 0


@pytest.mark.parametrize("kind", [kind for kind in WITH_LAMPS if kind != "motorcyclist"])
@pytest.mark.parametrize("side", [1, -1])
def test_indicator_shines_on_its_side_front_and_rear(kind, side):
    mesh = meshes.make(kind, "gray", 0, indicator=side)
    for x in (1, -1):
        red, green, blue = brightest(mesh, x=x, side=side)
        assert red > green > 0.5 > blue
        assert brightest(mesh, x=x, side=-side).max() == 0


@pytest.mark.parametrize("kind", WITH_LAMPS)
def test_headlights_shine_ahead(kind):
    assert brightest(meshes.make(kind, "gray", 0, headlights=True), x=1, side=0).min() > 1
    assert brightest(meshes.make(kind, "gray", 0), x=1, side=0).max() == 0


def test_people_walk():
    stands, walks = meshes.make("pedestrian", "red", 3), meshes.make("pedestrian", "red", 3, phase=np.pi / 2)
    low = [np.ptp(mesh.points[mesh.points[..., 2] < 0.3][:, 0]) for mesh in (stands, walks)]
    assert low[1] > low[0] + 0.2


def test_left_and_right_step_alternate():
    def ahead(phase: float) -> float:
        points = meshes.make("child", "red", 3, phase=phase).points
        feet = points[points[..., 2] < 0.1]
        return float(feet[feet[:, 1] > 0, 0].max() - feet[feet[:, 1] < 0, 0].max())

    assert ahead(np.pi / 2) > 0.1
    assert ahead(3 * np.pi / 2) < -0.1


def test_unknown_kind_is_refused():
    with pytest.raises(KeyError):
        meshes.make("unicorn", "white", 0)


def test_a_fallen_sofa_shows_its_cushions_from_behind():
    sofa = meshes.make("fallen sofa", "red", 0)
    rear = sofa.points[..., 0].min()
    cushions = sofa.colours[:, 0] > 0.5
    upright = cushions & (np.ptp(sofa.points[..., 0], axis=1) < 0.1)
    before = sofa.points[(sofa.points[..., 0] < rear + 0.4).all(axis=1)]
    assert upright.sum() >= 4
    assert sofa.points[upright][..., 2].max() > 0.6
    assert before[np.abs(before[..., 1]) < 0.7, 2].max() < 0.4
