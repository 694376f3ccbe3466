"""Building blocks: sizes, winding, copies."""

from __future__ import annotations

import numpy as np
import pytest

from drivedistill.world.materials import Draw, Material
from drivedistill.world.meshes.many import copies, join, panels
from drivedistill.world.meshes.shape import EMPTY, Mesh, Shape

GRAY = (0.2, 0.2, 0.2)


def bounds(mesh: Mesh) -> np.ndarray:
    points = mesh.points.reshape(-1, 3)
    return np.array([points.min(0), points.max(0)])


def outward(mesh: Mesh, middle: tuple[float, float, float]) -> np.ndarray:
    """How far each triangle's front looks away from a point inside."""
    first, second, third = mesh.points.transpose(1, 0, 2)
    return (np.cross(second - first, third - first) * (mesh.points.mean(axis=1) - middle)).sum(axis=1)


def test_box_has_its_size_and_looks_outward():
    box = Shape().box((1, 3), (-1, 1), (0, 2), Material.MATT, GRAY, bottom=True).mesh()
    assert bounds(box).tolist() == [[1, -1, 0], [3, 1, 2]]
    assert len(box) == 12
    assert (outward(box, (2, 0, 1)) > 0).all()


def test_box_takes_its_edges_in_any_order():
    one = Shape().box((3, 1), (1, -1), (0, 2), Material.MATT, GRAY).mesh()
    other = Shape().box((1, 3), (-1, 1), (0, 2), Material.MATT, GRAY).mesh()
    assert np.array_equal(one.points, other.points)


def test_box_tapers_toward_its_top():
    box = Shape().box((0, 4), (-1, 1), (0, 1), Material.MATT, GRAY, taper=(1.0, 0.5, 0.25)).mesh()
    top = box.points[box.points[..., 2] == 1]
    assert (top.min(0).tolist(), top.max(0).tolist()) == ([0.5, -0.75, 1], [3, 0.75, 1])


@pytest.mark.parametrize("end", [(0.0, 0.0, 3.0), (2.0, -1.0, 0.5), (0.0, 4.0, 0.0), (0.0, 0.0, -2.0)])
def test_every_point_of_a_cylinder_keeps_its_distance_from_the_axis(end):
    start = np.array([1.0, 2.0, 3.0])
    tube = Shape().cylinder(tuple(start), tuple(start + end), 0.5, Material.MATT, GRAY, sides=7).mesh()
    axis = np.array(end) / np.linalg.norm(end)
    offsets = tube.points.reshape(-1, 3) - start
    along = offsets @ axis
    assert np.allclose(np.linalg.norm(offsets - along[:, None] * axis, axis=1), 0.5)
    assert sorted({round(value, 6) for value in along}) == [0.0, round(float(np.linalg.norm(end)), 6)]


def test_ball_is_round_and_has_no_empty_triangle():
    ball = Shape().ball((1, 2, 3), 2.0, Material.MATT, GRAY).mesh()
    assert np.allclose(np.linalg.norm(ball.points - [1, 2, 3], axis=2), 2.0)
    sides = np.cross(ball.points[:, 1] - ball.points[:, 0], ball.points[:, 2] - ball.points[:, 0])
    assert np.linalg.norm(sides, axis=1).min() > 1e-3


def test_added_shape_is_turned_then_moved():
    part = Shape().triangle([(1, 0, 0), (2, 0, 0), (1, 0, 1)], Material.WOOD, GRAY)
    mesh = Shape().add(part, 10, 20, 30, np.pi / 2).mesh()
    assert np.allclose(mesh.points, [[(10, 21, 30), (10, 22, 30), (10, 21, 31)]])
    assert np.allclose(part.mesh().points[0, 0], (1, 0, 0))


def test_fitted_fills_its_size_and_flipped_stands_on_its_top():
    shape = Shape().box((1, 3), (5, 6), (-2, 2), Material.MATT, GRAY, taper=(0.5, 0.5, 0.2))
    assert np.allclose(bounds(shape.fitted((4, 3, 2)).mesh()), [[-2, -1.5, 0], [2, 1.5, 2]])
    flipped = shape.flipped().mesh()
    assert bounds(flipped)[:, 2].tolist() == [0, 4]
    assert np.allclose(sorted(flipped.points[flipped.points[..., 2] == 0][:, 0])[0], 1.5)


def test_copies_are_scaled_turned_moved_and_tinted():
    mesh = Shape().triangle([(1, 0, 0), (2, 0, 0), (1, 0, 1)], Material.MATT, (0.5, 0.5, 0.5)).mesh()
    places = np.array([(0, 0, 0), (10.0, 0, 0)])
    twice = copies(mesh, places, [0, np.pi / 2], [1.0, 2.0], [(1, 1, 1), (0, 1, 2)])
    assert np.allclose(twice.points[1], [(10, 2, 0), (10, 4, 0), (10, 2, 2)])
    assert np.allclose(twice.colours, [(0.5, 0.5, 0.5), (0, 0.5, 1)])
    assert len(twice.uv) == len(twice.flags) == len(twice.materials) == 2


def test_join_keeps_order_and_allows_nothing():
    one = panels(np.zeros((1, 4, 3)), Material.PAINT, GRAY)
    other = panels(np.zeros((2, 4, 3)), Material.WOOD, GRAY, flags=Draw.PLAIN)
    assert join([one, EMPTY, other]).materials.tolist() == [Material.PAINT] * 2 + [Material.WOOD] * 4
    assert len(join([])) == 0
    assert len(Shape().mesh()) == 0
