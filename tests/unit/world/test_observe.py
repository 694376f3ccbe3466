"""What counts as seen, where it is, and how it is called."""

import numpy as np
import pytest
from made import LANE, Made, boxes, dimmed, straight_drive

from drivedistill.world.questions.masks import Appearance, hidden, measure
from drivedistill.world.questions.motion import status
from drivedistill.world.questions.observe import SECTORS, called_as, observe
from drivedistill.world.scene import Decision, Head
from drivedistill.world.views import Views


def seen(drive, views, step=0):
    return {item.id: item for item in observe(drive, step, views)}


def test_an_actor_is_seen_where_its_pixels_are():
    drive = straight_drive([Made("sedan", 20, LANE, 8), Made("bus", -15, -5.25, 8)])
    items = seen(drive, boxes(drive))
    assert items[1].camera == "CAM_FRONT" and items[2].camera == "CAM_BACK"
    assert items[1].sector == "front" and items[1].distance == pytest.approx(20 - 2.3)
    x0, y0, x1, y1 = items[1].box
    rows, columns = np.nonzero(boxes(drive).instances["CAM_FRONT"] == 1)
    assert (x0, y0, x1, y1) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_what_is_too_small_or_too_faint_is_not_seen():
    drive = straight_drive([Made("sedan", 20, LANE), Made("sedan", 150, LANE), Made("fallen tire", 60, -5.25)])
    views = boxes(drive)
    assert set(measure(views)) >= {1} and set(seen(drive, views)) == {1}
    assert set(seen(drive, dimmed(views, 1, 8))) == set()
    assert set(seen(drive, dimmed(views, 1, 10))) == {1}


@pytest.mark.parametrize("size", [48, 64, 112])
def test_the_smallest_size_counts_at_any_resolution(size):
    for distance in range(10, 120, 7):
        drive = straight_drive([Made("van", distance, LANE)])
        pixels = sum((mask == 1).sum() for mask in boxes(drive, 0, size).instances.values())
        enough = pixels >= 6 and pixels * 224 * 224 / size**2 >= 24
        assert (1 in seen(drive, boxes(drive, 0, size))) == enough


def test_sectors_go_round_counter_clockwise():
    for index, sector in enumerate(SECTORS):
        angle = np.radians(45 * index)
        drive = straight_drive([Made("van", 15 * np.cos(angle), LANE + 15 * np.sin(angle))])
        item = seen(drive, boxes(drive))[1]
        assert item.sector == sector and item.off_front == pytest.approx(min(45 * index, 360 - 45 * index))


def test_lights_must_be_high_enough():
    for x, expected in ((14.0, True), (60.0, False)):
        drive = straight_drive([], heads=(Head(1001, x, LANE, 3.0, np.pi),), signal="red")
        assert (1001 in seen(drive, boxes(drive, 0, 112))) == expected


def test_the_share_that_others_hide():
    open_road = straight_drive([Made("van", 25, LANE)])
    behind = straight_drive([Made("van", 25, LANE), Made("sedan", 15, LANE), Made("bus", 45, LANE)])
    assert hidden(open_road, 0, boxes(open_road), "CAM_FRONT", 1) == (0.0, 0)
    share, occluder = hidden(behind, 0, boxes(behind), "CAM_FRONT", 1)
    assert 0.3 < share < 1 and occluder == 2
    views = boxes(behind)
    assert hidden(behind, 0, views, "CAM_FRONT", 2) == (0.0, 0)
    views.instances["CAM_FRONT"][views.instances["CAM_FRONT"] == 2] = 1
    assert hidden(behind, 0, views, "CAM_FRONT", 2) == (0.0, 0), "what shows through hides nothing"


@pytest.mark.parametrize(
    ("actor", "expected"),
    [
        (Made("sedan", 20, LANE, 0.1), "Stopped."),
        (Made("sedan", 20, LANE, 0.5), None),
        (Made("sedan", 20, LANE, 5.0), "Going ahead."),
        (Made("sedan", 20, LANE, 5.0, acceleration=-2.0), "Braking."),
        (Made("sedan", 20, LANE, 5.0, indicator=1), "Signalling left."),
        (Made("sedan", 30, 1.75, 5.0, yaw=np.pi, role="oncoming"), "Oncoming."),
        (Made("sedan", -30, 1.75, 5.0, yaw=np.pi, role="oncoming"), "Driving away."),
        (Made("sedan", 30, -9, 5.0, yaw=np.pi / 2, role="crossing"), "Crossing."),
        (Made("sedan", 30, -9, 5.0, yaw=np.radians(50), role="crossing"), None),
        (Made("pedestrian", 20, -7, 1.2, role="walking"), "Going ahead."),
        (Made("pedestrian", 20, -7, 1.2, yaw=np.pi / 2, role="crosser"), "Crossing."),
    ],
)
def test_moving_status(actor, expected):
    assert status(straight_drive([actor]), 1, 0, pixels=500) == expected


def test_lamps_that_are_too_small_decide_nothing():
    assert status(straight_drive([Made("sedan", 20, LANE, 5.0, acceleration=-2.0)]), 1, 0, pixels=50) is None


def test_names_say_no_more_than_can_be_made_out():
    clear, dull, dark = Appearance(60, 60, 120), Appearance(20, 11, 30), Appearance(40, 2, 5)
    assert called_as("sedan", "red", clear, 400) == ("red sedan", "red")
    assert called_as("sedan", "red", clear, 50) == ("red car", "red")
    assert called_as("sedan", "red", dull, 400) == ("sedan", "")
    assert called_as("taxi", "yellow", clear, 400) == ("taxi", "")
    assert called_as("sedan", "red", dark, 400) == ("vehicle", "")


def test_from_afar_nobody_tells_similar_kinds_apart():
    clear = Appearance(60, 60, 120)
    for kind, small in (
        ("child", "pedestrian"),
        ("construction worker", "pedestrian"),
        ("taxi", "car"),
        ("police car", "car"),
    ):
        assert called_as(kind, "red", clear, 99) == (small, "") and called_as(kind, "red", clear, 100) == (kind, "")


def test_headlights_dazzle_at_night():
    for light, expected in (("day", "red sedan"), ("night", "vehicle")):
        drive = straight_drive([Made("sedan", 12, 1.75, 5, yaw=np.pi, role="oncoming")], light=light)
        assert seen(drive, boxes(drive, 0, 112))[1].name == expected


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (Made("sedan", -3, 1.75, 5), "red sedan"),
        (Made("sedan", 0, 1.75, 5), "red sedan"),
        (Made("sedan", -12, LANE, 5), "vehicle"),
        (Made("sedan", 12, 0.0, 5, yaw=np.pi / 2), "red sedan"),
    ],
)
def test_only_headlights_that_point_at_the_camera_dazzle(other, expected):
    drive = straight_drive([other], light="night")
    assert seen(drive, boxes(drive, 0, 112))[1].name == expected


def test_without_pictures_everything_large_enough_is_seen():
    drive = straight_drive([Made("sedan", 20, LANE)], decision=Decision("free"))
    assert set(seen(drive, Views({}, boxes(drive).instances))) == {1}
