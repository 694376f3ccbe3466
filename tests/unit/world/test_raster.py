import numpy as np
import pytest
from box_world import STILL, box, corners, fingerprint, model, quads

from drivedistill.records import CAMERAS
from drivedistill.world.materials import Draw
from drivedistill.world.pictures.look import look
from drivedistill.world.pictures.snapshot import masks, snapshot
from drivedistill.world.rig import camera, project
from drivedistill.world.scene import Conditions

CAR = ((10.0, 14.0), (-1.0, 1.0), (0.0, 1.5))


def front(boxes, size=64, smooth=2, ego=STILL):
    return masks(model(boxes), ego, size, size, smooth=smooth).instances["CAM_FRONT"]


def turns_left(a, b, c):
    return (b[0] - a[0]) * (c[1] - b[1]) > (b[1] - a[1]) * (c[0] - b[0])


def hull(points):
    """Convex hull of points[n, 2], in order."""
    points = sorted(map(tuple, points))
    chains = []
    for order in (points, points[::-1]):
        chain = []
        for point in order:
            while len(chain) > 1 and not turns_left(chain[-2], chain[-1], point):
                chain.pop()
            chain.append(point)
        chains += chain[:-1]
    return np.array(chains)


def test_the_nearer_box_is_seen_whatever_the_order():
    near, far = box(*CAR), box((30.0, 34.0), (-4.0, 4.0), (0.0, 4.0))
    one, other = front([near, far]), front([far, near])
    assert set(np.unique(one)) == {0, 1, 2}
    swapped = np.array([0, 2, 1])[other]
    np.testing.assert_array_equal(one, swapped)


def test_a_hidden_box_has_no_pixels():
    wall, behind = box((8.0, 9.0), (-6.0, 6.0), (0.0, 6.0)), box((20.0, 24.0), (-1.0, 1.0), (0.0, 1.5))
    assert set(np.unique(front([wall, behind]))) == {0, 1}


@pytest.mark.parametrize("name", CAMERAS)
def test_a_mask_is_where_the_rig_projects_the_box(name):
    ego, size = np.array([3.0, -2.0, 0.4]), 160
    view = camera(name, ego, size, size)
    x, y = view.position[:2] + 9.0 * view.axes[2, :2] / np.hypot(*view.axes[2, :2])
    extent = (x - 0.8, x + 0.8), (y - 0.7, y + 0.7), (0.0, 1.7)
    mask = masks(model([box(*extent)]), ego, size, size).instances[name] == 1
    pixels, depth = project(view, corners(*extent))
    assert np.all(depth > 0)
    rows, columns = np.nonzero(mask)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(found, [*pixels.min(0), *pixels.max(0)], atol=1.0)
    outline = hull(pixels)
    edges = np.roll(outline, -1, axis=0) - outline
    area = 0.5 * abs(np.sum(outline[:, 0] * np.roll(outline[:, 1], -1) - outline[:, 1] * np.roll(outline[:, 0], -1)))
    assert abs(mask.sum() - area) <= 0.5 * np.abs(edges).sum()


def test_what_crosses_the_near_plane_is_cut_and_what_lies_behind_is_gone():
    along = box((-30.0, 30.0), (-3.0, -1.2), (0.0, 3.0))
    mask = front([along], 96) == 1
    assert mask[:, 60:].mean() > 0.5
    assert not mask[:, :50].any()
    assert not (front([box((-14.0, -10.0), (-1.0, 1.0), (0.0, 1.5))]) == 1).any()


def test_a_box_around_the_camera_fills_the_picture():
    around = (-20.0, 20.0), (-20.0, 20.0), (0.2, 20.0)
    assert np.all(front([box(*around)]) == 1)


def test_a_one_sided_face_is_seen_from_its_front_only():
    away = np.array([[(10, -1, 0), (10, 1, 0), (10, 1, 1.5), (10, -1, 1.5)]], float)  # its normal points along x
    for board, seen in ((away[:, ::-1], True), (away, False)):
        assert (front([quads(board, 0, (1, 1, 1), int(Draw.PLAIN))]) == 1).any() == seen
        assert (front([quads(board, 0, (1, 1, 1), int(Draw.TWO_SIDED))]) == 1).any()


def test_skipping_what_is_out_of_sight_changes_nothing():
    rng = np.random.default_rng(4)
    places = rng.uniform(-30.0, 30.0, (40, 2))
    boxes = [box((x, x + 1.5), (y, y + 1.5), (0.0, rng.uniform(1, 6))) for x, y in places if max(abs(x), abs(y)) > 4]
    sky = look(Conditions("clear", "day", True), 5)._replace(sun=(0.8, 0.0, 0.6))
    for ego in np.array([[0.0, 0.0, 0.0], [2.0, 3.0, 2.5]]):
        stage = model(boxes)
        sparing = snapshot(stage, ego, sky, 64, 64)
        stage.spheres[:, 3] = 1e6
        assert fingerprint(sparing) == fingerprint(snapshot(stage, ego, sky, 64, 64))


def test_more_samples_move_borders_by_a_pixel_at_most():
    boxes = [box(*CAR), box((7.0, 8.0), (2.0, 3.0), (0.0, 2.0)), box((40.0, 45.0), (-9.0, 9.0), (0.0, 8.0))]
    one, two, three = (front(boxes, 96, smooth) for smooth in (1, 2, 3))
    np.testing.assert_array_equal(one, three)  # the middle of three samples is the middle of the pixel
    inside = np.ones_like(one, bool)
    for shift in (-1, 0, 1):
        for axis in (0, 1):
            inside &= np.roll(one, shift, axis) == one
    np.testing.assert_array_equal(one[inside], two[inside])
    assert inside.mean() > 0.8


def test_a_cut_out_shows_what_is_behind_its_holes():
    sheet = box((8.0, 8.0), (-3.0, 3.0), (0.0, 3.0), flags=Draw.TWO_SIDED | Draw.CUT_OUT)
    stage = model([sheet, box(*CAR)])
    whole = masks(stage, STILL, 64, 64).instances["CAM_FRONT"]
    stage.atlas[:, :2, 3] = 0  # its lower half
    holed = masks(stage, STILL, 64, 64).instances["CAM_FRONT"]
    assert set(np.unique(whole)) == {0, 1}
    assert set(np.unique(holed)) == {0, 1, 2}
    assert np.all(whole[holed == 1] == 1)
