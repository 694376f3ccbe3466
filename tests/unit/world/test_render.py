from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
from box_world import box, corners, fingerprint
from made import Made, straight_drive

from drivedistill.records import CAMERAS
from drivedistill.world import meshes
from drivedistill.world.catalogue import KINDS
from drivedistill.world.driving.drive import drive_scene
from drivedistill.world.materials import Material
from drivedistill.world.pictures import render as rendering
from drivedistill.world.pictures.lamps import DISCS, MOST_LAMPS, nearest, signal_lamps, vehicle_glows, vehicle_lamps
from drivedistill.world.pictures.render import Renderer
from drivedistill.world.rig import camera, project
from drivedistill.world.scene import HEAD_IDS, LIGHTS, Head

TRAFFIC = [
    Made("sedan", 18.0, -1.75, 8.0, acceleration=-3.0),
    Made("van", 35.0, 5.25, -9.0, role="oncoming", indicator=1),
    Made("pedestrian", 14.0, -9.0, 1.4, role="walking"),
    Made("bus", -25.0, -5.25, 10.0),
]
HEADS = (Head(HEAD_IDS, 30.0, -6.0, 3.0, np.pi),)


@pytest.fixture
def made_shapes(monkeypatch):
    """Every actor is a box of its size; gives the list of what was asked for."""
    asked = []

    def make(kind, colour, seed, **details):
        asked.append((kind, details))
        length, width, height = KINDS[kind].size
        return box((-length / 2, length / 2), (-width / 2, width / 2), (0.0, height), Material.CAR, (0.5, 0.1, 0.1))

    monkeypatch.setattr(meshes, "make", make, raising=False)
    rendering._shape.cache_clear()
    yield asked
    rendering._shape.cache_clear()


def world_corners(drive, actor, step):
    x, y, yaw = drive.poses[actor, step]
    length, width, height = KINDS[drive.scene.actors[actor - 1].kind].size
    local = corners((-length / 2, length / 2), (-width / 2, width / 2), (0.0, height))
    turned = local[:, :2] @ np.array([[np.cos(yaw), np.sin(yaw)], [-np.sin(yaw), np.cos(yaw)]])
    return np.concatenate([turned + np.array([x, y]), local[:, 2:]], axis=1)


def test_actors_stand_where_the_log_says(made_shapes):
    drive = straight_drive([Made("sedan", 14.0, -1.0, 5.0, yaw=0.5)], speed=4.0)
    renderer = Renderer(drive)
    for step in (0, 20):
        mask = renderer.views(step, 160, 160, pictures=False).instances["CAM_FRONT"] == 1
        pixels, _ = project(camera("CAM_FRONT", drive.poses[0, step], 160, 160), world_corners(drive, 1, step))
        rows, columns = np.nonzero(mask)
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(found, [*pixels.min(0), *pixels.max(0)], atol=1.0)


def test_a_drive_gives_the_same_views_whatever_was_rendered_before(made_shapes):
    drive = straight_drive(TRAFFIC, weather="rain", light="night", heads=HEADS, signal="red")
    used = Renderer(drive)
    for step in (60, 3, 31):
        used.views(step, 48, 48)
    one, other = used.views(30, 64, 48), Renderer(drive).views(30, 64, 48)
    assert fingerprint(one) == fingerprint(other)
    alone = used.views(30, 64, 48, pictures=False)
    for name in CAMERAS:
        np.testing.assert_array_equal(one.instances[name], alone.instances[name])


def test_far_actors_are_left_out_and_all_others_keep_their_ids(made_shapes):
    drive = straight_drive([Made("sedan", 500.0, -1.75), *TRAFFIC])
    views = Renderer(drive).views(0, 224, 224, pictures=False)
    seen = set().union(*(np.unique(mask) for mask in views.instances.values()))
    assert {0, 2, 3, 4, 5} <= seen
    assert 1 not in seen and "sedan" in {kind for kind, _ in made_shapes}


def test_brake_lamps_indicators_headlights_and_steps_reach_the_meshes(made_shapes):
    Renderer(straight_drive(TRAFFIC, light="night")).views(30, 48, 48, pictures=False)
    details = dict(made_shapes)
    assert details["sedan"]["braking"] and not details["bus"]["braking"]
    assert details["van"]["indicator"] == 1 and details["sedan"]["indicator"] == 0
    assert details["bus"]["headlights"] and not details["pedestrian"]["headlights"]
    assert 0.0 < details["pedestrian"]["phase"] <= 6.3 and details["sedan"]["phase"] == 0.0
    assert details["pedestrian"]["phase"] == round(details["pedestrian"]["phase"], 1)
    asked = len(made_shapes)
    Renderer(straight_drive(TRAFFIC, light="night")).views(30, 48, 48, pictures=False)
    assert len(made_shapes) == asked


def test_headlights_are_off_on_a_dry_day():
    glows = vehicle_glows(straight_drive(TRAFFIC), 0)
    assert {tuple(colour) for colour in glows[:, 3:6]} == {(1.0, 0.05, 0.03), (1.0, 0.5, 0.02)}
    assert len(vehicle_lamps(straight_drive(TRAFFIC), 0)) == 0
    assert len(vehicle_lamps(straight_drive(TRAFFIC, light="night"), 0)) == 3


def test_lamps_of_a_vehicle_shine_away_from_it():
    drive = straight_drive([Made("sedan", 20.0, 3.0, 5.0, yaw=0.7, acceleration=-3.0, indicator=-1)], light="night")
    glows = vehicle_glows(drive, 0)
    away = glows[:, :2] - (20.0, 3.0)
    assert np.all((away * glows[:, 8:]).sum(axis=1) > 2.0)
    amber = glows[glows[:, 4] == 0.5]
    assert len(amber) == 2
    assert np.all(
        np.cross([np.cos(0.7), np.sin(0.7), 0.0], np.pad(amber[:, :2] - (20.0, 3.0), ((0, 0), (0, 1))))[:, 2] < 0
    )


@pytest.mark.parametrize("signal", ["red", "yellow", "green"])
def test_a_traffic_light_shows_its_colour_under_its_id(made_shapes, signal):
    drive = straight_drive([], heads=HEADS, signal=signal)
    views = Renderer(drive).views(0, 400, 400)
    mask, picture = views.instances["CAM_FRONT"] == HEAD_IDS, views.pictures["CAM_FRONT"].astype(float)
    assert 20 < mask.sum() < 400
    lit = picture[mask][np.argsort(picture[mask].sum(axis=1))[-4:]].mean(axis=0)
    red, green = lit[0] > 150, lit[1] > 120
    assert (red, green) == {"red": (True, False), "yellow": (True, True), "green": (False, True)}[signal]
    lamps = signal_lamps(signal)
    heights = lamps.points[lamps.materials == Material.LAMP][..., 2]
    assert heights.mean() == pytest.approx(DISCS[signal][0], abs=0.05)


def test_red_is_on_top_and_green_below(made_shapes):
    rows = {}
    for signal in DISCS:
        views = Renderer(straight_drive([], heads=HEADS, signal=signal, light="night")).views(0, 400, 400)
        mask, picture = views.instances["CAM_FRONT"] == HEAD_IDS, views.pictures["CAM_FRONT"].astype(float)
        housing = np.nonzero(mask)[0]
        brightest = np.argmax(np.where(mask, picture.sum(axis=2), 0.0)) // 400
        rows[signal] = (brightest - housing.min()) / np.ptp(housing)
    assert rows["red"] < 0.35 < rows["yellow"] < 0.65 < rows["green"]


@pytest.mark.parametrize("weather", ["clear", "fog"])
@pytest.mark.parametrize("light", LIGHTS)
def test_a_yellow_light_and_its_glow_are_between_orange_and_yellow(made_shapes, weather, light):
    def hues(signal):
        drive = straight_drive([], heads=HEADS, signal=signal, weather=weather, light=light)
        picture = Renderer(drive).views(0, 240, 240).pictures["CAM_FRONT"]
        dark = Renderer(replace(drive, signals=(None,) * len(drive.signals))).views(0, 240, 240).pictures["CAM_FRONT"]
        added = np.abs(picture.astype(int) - dark).max(axis=2)
        lit = picture[added > 0.5 * added.max()].astype(float)  # the disc and the core of its glow
        top, low = lit.max(axis=1), lit.min(axis=1)
        middle = np.degrees(np.arctan2(np.sqrt(3) * (lit[:, 1] - lit[:, 2]), 2 * lit[:, 0] - lit[:, 1] - lit[:, 2]))
        return middle[top - low > 40] % 360

    yellow, green, red = hues("yellow"), hues("green"), (hues("red") + 180) % 360 - 180
    assert len(yellow) > 5
    assert 22 < yellow.min() < yellow.max() < 58.5
    assert red.max() + 10 < yellow.min() and yellow.max() + 50 < green.min()


def test_street_lamps_light_the_road(monkeypatch):
    drive = straight_drive([], light="night")
    lit = Renderer(drive).views(0, 64, 64).pictures["CAM_BACK"].astype(float)
    furniture = import_module("drivedistill.world.surroundings.furniture")
    monkeypatch.setattr(furniture, "LAMP_STRENGTH", 0.0)
    unlit = Renderer(drive).views(0, 64, 64).pictures["CAM_BACK"].astype(float)
    assert (lit - unlit)[40:].mean() > 5


def test_only_the_nearest_lamps_are_kept():
    lamps = np.zeros((40, 7))
    lamps[:, 0] = np.arange(40)[::-1]
    assert set(nearest(lamps, np.array([5.0, 0.0, 0.0]))[:, 0]) == set(range(MOST_LAMPS))


@pytest.mark.parametrize("kind", ["queue", "snow"])
def test_a_simulated_drive_shows_its_actors(kind):
    drive = next(filter(None, (drive_scene(kind, seed) for seed in range(20))))
    views = Renderer(drive).views(30, 96, 96)
    ids = {actor.id for actor in drive.scene.actors} | {item.id for item in (*drive.scene.heads, *drive.scene.signs)}
    seen = set().union(*(np.unique(mask).tolist() for mask in views.instances.values())) - {0}
    assert seen <= ids and len(seen) >= 2
    assert all(picture.std() > 8 for picture in views.pictures.values())
