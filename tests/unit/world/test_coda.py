import json
import re
from dataclasses import replace

import pytest
from made import LANE, Made, boxes, straight_drive

from drivedistill.data.coda_lm import read
from drivedistill.world.action import Action
from drivedistill.world.catalogue import KINDS
from drivedistill.world.dataset.coda import GROUPS, OBJECTS, coda_annotation
from drivedistill.world.dataset.coda_advice import GENERAL, in_the_way, plan_shown
from drivedistill.world.dataset.coda_concern import BINDS, HARMLESS, TELLS
from drivedistill.world.dataset.plan import moments
from drivedistill.world.driving.drive import drive_scene
from drivedistill.world.driving.kinds import CORNER
from drivedistill.world.pictures.render import Renderer
from drivedistill.world.questions.frame import Frame, look
from drivedistill.world.questions.observe import FAMILY_NAMES, SIGN_NAMES
from drivedistill.world.questions.whatif import KEEP
from drivedistill.world.scene import Decision, Head, Sign

TEXT = "description and explanation"
LISTS = {
    "vehicles", "vulnerable_road_users", "traffic signs", "traffic lights", "traffic cones", "barriers", "other objects",
}  # fmt: skip
"""Of a published annotation."""
CATEGORIES = {
    "car", "truck", "tram", "tricycle", "bus", "trailer", "construction_vehicle", "recreational_vehicle",
    "pedestrian", "cyclist", "bicycle", "moped", "motorcycle", "stroller", "wheelchair", "cart",
    "warning_sign", "traffic_sign", "traffic_light", "traffic_cone", "barrier", "bollard", "dog", "cat",
    "sentry_box", "traffic_box", "traffic_island", "debris", "suitcace", "dustbin", "concrete_block", "machinery",
    "chair", "phone_booth", "basket", "cardboard", "carton", "garbage", "garbage_bag", "plastic_bag",
    "stone", "tire", "misc",
}  # fmt: skip
"""The classes of the published evaluation."""
SIZE = 96


def frame_of(actors, **more) -> Frame:
    drive = straight_drive(actors, **more)
    return look(drive, 10, boxes(drive, 10, SIZE))


@pytest.fixture(scope="module")
def annotated():
    """A frame of every corner kind, and its annotation."""
    found = []
    for kind in CORNER:
        drive = next(drive for seed in range(20) if (drive := drive_scene(kind, seed)) is not None)
        frame = look(drive, 40, boxes(drive, 40, SIZE))
        found.append((frame, coda_annotation(frame)))
    return found


def test_annotation_has_the_published_form(annotated):
    for frame, annotation in annotated:
        assert set(annotation) == {"general_perception", "region_perception", "driving_suggestion"}
        general = annotation["general_perception"]
        assert set(general) == {*LISTS, TEXT} == {*GROUPS, TEXT}
        entries = [entry for name in LISTS for entry in general[name]]
        assert all(set(entry) == {"description", "explanation"} and all(entry.values()) for entry in entries)
        regions = annotation["region_perception"]
        assert list(regions) == [str(number) for number in range(1, len(regions) + 1)]
        assert len(entries) <= OBJECTS and {region[TEXT] for region in regions.values()} <= {
            f"{entry['description']} {entry['explanation']}" for entry in entries
        }
        for region in regions.values():
            assert set(region) == {TEXT, "box", "category_name"} and region["category_name"] in CATEGORIES
            x, y, width, height = region["box"]
            assert 0 <= x < x + width <= frame.size[0] and 0 <= y < y + height <= frame.size[1]
        json.dumps(annotation)


def test_texts_are_paragraphs_of_clean_sentences(annotated):
    for _, annotation in annotated:
        general, suggestion = annotation["general_perception"][TEXT], annotation["driving_suggestion"]
        assert 30 <= len(general.split()) <= 150 and 20 <= len(suggestion.split()) <= 70
        for text in (general, suggestion, *(region[TEXT] for region in annotation["region_perception"].values())):
            assert re.fullmatch(r"([A-Z][^.]*\. ?)+", text), text
            assert "  " not in text and ".." not in text and " ," not in text and "None" not in text


def test_only_what_the_front_camera_shows_is_discussed(annotated):
    for frame, annotation in annotated:
        front = {tuple(map(float, item.box)) for item in frame.seen if item.camera == "CAM_FRONT"}
        for region in annotation["region_perception"].values():
            x, y, width, height = region["box"]
            assert (x, y, x + width, y + height) in front


def test_the_reader_reads_what_is_written(annotated, tmp_path):
    (tmp_path / "CODA-LM/Train").mkdir(parents=True)
    (tmp_path / "val/images").mkdir(parents=True)
    for number, (_, annotation) in enumerate(annotated):
        (tmp_path / f"CODA-LM/Train/val_{number:04d}.json").write_text(json.dumps(annotation))
    samples = list(read(tmp_path, "Train", regime="corner"))
    assert len(samples) == sum(2 + len(annotation["region_perception"]) for _, annotation in annotated)


def test_same_frame_same_words_and_another_seed_other_words_about_the_same_facts():
    def told(seed):
        return coda_annotation(frame_of([Made("sedan", 25.0, LANE), Made("child", 18.0, -7.5)], seed=seed))

    assert told(1) == told(1)
    assert len({told(seed)["general_perception"][TEXT] for seed in range(12)}) > 4
    facts = r"\d+|sedan|child|red|left|right|edge|standing still"
    assert len({tuple(re.findall(facts, told(seed)["region_perception"]["1"][TEXT])) for seed in range(12)}) == 1


def test_places_are_those_of_the_road():
    actors = [
        Made("sedan", 30.0, LANE, 10.0),
        Made("truck", 28.0, LANE - 3.5, 10.0, colour="white"),
        Made("van", 60.0, 1.75, 10.0, yaw=3.14159, role="oncoming", colour="blue"),
        Made("SUV", 20.0, -8.3, role="parked", colour="black"),
    ]
    frame = frame_of(actors, decision=Decision("lead", 1))
    text = " ".join(region[TEXT] for region in coda_annotation(frame)["region_perception"].values())
    assert re.search(r"[Rr]ed sedan (is )?about 25 meters ahead in the lane of the ego car", text)
    assert re.search(r"white truck (is )?about \d+ meters ahead in the lane to the right", text)
    assert (
        re.search(r"blue van (is )?about 5 meters ahead in the opposite lanes, coming toward", text) is None
    )  # passed by
    assert "black SUV" not in text  # idle, and there is enough to speak of


def test_the_hazard_comes_first_and_the_reason_is_told():
    actors = [Made("sedan", 12.0, -5.25, 10.0), Made("rock", 45.0, LANE, role="obstacle", hazard=True)]
    frame = frame_of(actors, decision=Decision("obstacle", 2))
    frame = replace(frame, decision=Decision("obstacle", 2), action=Action("go straight", "decelerate"))
    annotation = coda_annotation(frame)
    first = annotation["region_perception"]["1"]
    assert first["category_name"] == "stone" and annotation["general_perception"]["other objects"]
    assert "It blocks the lane of the ego car, so the ego car should" in first[TEXT]
    assert "because a rock blocks its lane" in annotation["driving_suggestion"].lower()


def test_no_action_is_advised_for_a_reason_that_the_picture_does_not_show():
    behind = frame_of([Made("sedan", -12.0, LANE, 10.0)])
    hidden = replace(behind, decision=Decision("merging", 1))
    assert "merg" not in coda_annotation(hidden)["driving_suggestion"]
    assert "nothing that can be made out is in its path" in coda_annotation(hidden)["driving_suggestion"].lower()
    assert coda_annotation(hidden)["region_perception"] == {}
    assert "the road ahead is free" in coda_annotation(behind)["driving_suggestion"].lower()


def test_lights_and_signs_are_told_and_grouped():
    head, sign = Head(1001, 32.0, -8.0, 2.4, 3.14159), Sign(2001, "stop", 30.0, 5.0, 3.14159)
    frame = frame_of([], heads=(head,), signs=(sign,), signal="red")
    annotation = coda_annotation(frame)
    general = annotation["general_perception"]
    assert general["traffic lights"][0]["explanation"] == "It tells the ego car to stop."
    assert "a stop sign" in general["traffic signs"][0]["description"].lower()
    names = {region["category_name"] for region in annotation["region_perception"].values()}
    assert names == {"traffic_light", "traffic_sign"}


@pytest.fixture(scope="module")
def corners():
    """Frames of every corner kind in real pictures, and their annotations."""
    found = []
    for seed in range(12):
        for kind in CORNER:
            drive = drive_scene(kind, 1000 + seed)
            if drive is not None:
                steps = moments(drive)
                step = steps[7 * seed % len(steps)]
                frame = look(drive, step, Renderer(drive).views(step, 96, 96, smooth=1))
                found.append((frame, coda_annotation(frame)))
    assert len(found) > 140
    return found


PEOPLE = r"pedestrian|child|person|stroller|wheelchair user|construction worker|cyclist"
OF_ONE_OBJECT = {
    "what stands does not drive": r"standing still.*(It|The \w+) (drives|moves into|comes|crosses|gets faster)",
    "what comes in our lane is not on the other side": r"ahead in the lane.*coming toward.*other side",
    "what is in our lane is no reason to stay in it": r"in the lane of the ego car.*should stay in its lane",
    "who is parked does not move over": r"(edge of the road, standing still.*(move over|limit the ego car))",
    "people are no things": rf"(There is an?|An?) ({PEOPLE}).*\. It ",
    "what stands outside is not entering": r"(edge of the road|opposite lanes), standing still.*entering",
    "who goes away does not come": r"driving in the same direction.*comes",
    "what is beside the road is not in the lane": r"edge of the road.*the same lane",
}
FORBIDDEN = (
    (r"should change to the", r"should stay in its lane"),
    (r"go straight and accelerate", r"no room to accelerate"),
    (r"go straight and accelerate", r"would (hit|reach)"),
    (r"go straight and keep going at the same speed", r"would (hit|reach)"),
    (r"road ahead is free", r"would (hit|reach)|in the path|no room"),
    (r"nothing that can be made out", r"would (hit|reach)|in the path|no room"),
)
"""Words of a suggestion, and what the picture's text must not say beside them."""


def test_no_object_contradicts_itself(corners):
    for _, annotation in corners:
        for region in annotation["region_perception"].values():
            for rule, pattern in OF_ONE_OBJECT.items():
                assert not re.search(pattern, region[TEXT]), (rule, region[TEXT])


def test_text_and_suggestion_agree(corners):
    for _, annotation in corners:
        general, suggestion = annotation["general_perception"][TEXT], annotation["driving_suggestion"]
        for said, not_beside in FORBIDDEN:
            assert not (re.search(said, suggestion) and re.search(not_beside, general)), (general, suggestion)


def test_whoever_is_reached_is_a_reason_to_do_something(corners):
    reached = 0
    for frame, annotation in corners:
        threats = in_the_way(frame)
        if threats and frame.what_if.touch[KEEP, threats[0].id] < 99 and frame.speed > 1:
            reached += 1
            assert re.search(r"slow down|brake|stop|change to", annotation["driving_suggestion"]), annotation
            if not plan_shown(frame):
                assert f"the {threats[0].name} " in annotation["driving_suggestion"].lower()
    assert reached > 8


def test_the_general_advice_is_rare(corners):
    general = [any(text in annotation["driving_suggestion"] for text in GENERAL) for _, annotation in corners]
    assert sum(general) < 0.05 * len(corners)


def test_categories_tell_no_more_than_the_names(corners):
    vague = 0
    for frame, annotation in corners:
        boxes_of = {tuple(item.box): item for item in frame.seen if item.camera == "CAM_FRONT"}
        for region in annotation["region_perception"].values():
            x, y, width, height = region["box"]
            item = boxes_of[x, y, x + width, y + height]
            if item.name in FAMILY_NAMES.values():
                vague += 1
                assert region["category_name"] in ("car", "pedestrian", "misc")
    assert vague > 5


def test_a_hidden_sign_is_a_reason_to_slow_down():
    sign = Sign(2001, "stop", 35.0, -8.0, 3.14159, hidden_by_bush=True)
    frame = replace(frame_of([], signs=(sign,)), decision=None, faint=frozenset({2001}), seen=(), by_id={})
    assert "behind leaves" in coda_annotation(frame)["driving_suggestion"]
    assert "slow down" in coda_annotation(frame)["driving_suggestion"].lower()


def test_there_are_words_for_everything():
    assert {kind.family for kind in KINDS.values()} <= HARMLESS.keys()
    assert SIGN_NAMES.keys() <= TELLS.keys()
    assert {
        "person",
        "animal",
        "obstacle",
        "crossing",
        "merging",
        "yield",
        "wrong way",
        "light",
    } <= BINDS.keys()
    assert {kind.coda for kind in KINDS.values()} <= CATEGORIES
