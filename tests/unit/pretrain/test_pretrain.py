"""Pre-training a tower: what is learnt from, what is read off, that it learns, goes on, and loads."""

import json
import math
import os
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy, smooth_l1_loss
from transformers import InternVLVisionModel
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
from typer.testing import CliRunner

from drivedistill.cli import app
from drivedistill.data.collate import Preparation, Reading, pixels
from drivedistill.data.images import PictureCache
from drivedistill.models.driving_t5 import DrivingT5
from drivedistill.models.presets import build_config, load_vision_weights
from drivedistill.models.pyramid import PyramidConfig, PyramidModel, features_at
from drivedistill.models.vlm_presets import build_tower_config
from drivedistill.pretrain import loop
from drivedistill.pretrain.facts import ATTRIBUTES, Fact, Frame, Place, question_facts, read_frames
from drivedistill.pretrain.lessons import Head, choose_heads, encode
from drivedistill.pretrain.loop import Options, Split, drawn, show
from drivedistill.pretrain.pictures import decode, normalise
from drivedistill.pretrain.readout import Readout
from drivedistill.pretrain.run import pretrain
from drivedistill.problems import InputError, RunError
from drivedistill.recipe import Recipe
from drivedistill.records import CAMERAS, Sample
from drivedistill.signals import Interrupted
from make_driving_data import make
from tiny import pictures

TOWER = {"embedding_size": 8, "hidden_sizes": [8, 16, 16], "depths": [1, 1, 1], "width": 16, "view_width": 4}
STATISTICS = ([0.5] * 3, [0.5] * 3)


@pytest.fixture(scope="module")
def roads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight scenes of three frames."""
    out = tmp_path_factory.mktemp("roads")
    make(out, scenes=8, frames=3, corner=0, size=(80, 48), seed=0)
    return out / "regular"


def recipe(root: Path, **model: object) -> Recipe:
    tree = {"preset": "demo", "overrides": {"vision": TOWER}} | model
    source = {"name": "roads", "format": "drivelm", "root": str(root), "regime": "regular", "templates": ["nothing"]}
    source |= {"fractions": {"train": 0.75, "val": 0.25}}
    return Recipe.model_validate({"name": "drawn", "data": {"image_size": 32, "sources": [source]}, "model": tree})


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return pictures(tmp_path_factory.mktemp("pictures"), size=(160, 80))


def asked(images: dict[str, str], question: str, answer: str | None) -> list[Fact]:
    fields = {"id": "a", "dataset": "d", "scene": "s", "frame": "f", "split": "train", "regime": "regular"}
    sample = Sample(**fields, task="perception", question=question, answer=answer, images=images)
    return list(question_facts(sample))


# --- facts ------------------------------------------------------------------------------------------------------------


def test_question_about_one_object_is_a_fact_at_its_place(images):
    (fact,) = asked(images, "What is <c1,CAM_BACK,40.0,60.0>?", "A car. ")
    assert fact.place == Place(CAMERAS.index("CAM_BACK"), 0.25, 0.75)
    assert (fact.wording, fact.answer, fact.view) == ("What is <OBJ>?", "A car.", None)


def test_multiple_choice_says_its_options_words(images):
    choices = "Please select the correct answer from the following options: A. Left. B. Right."
    (fact,) = asked(images, f"Where is <c1,CAM_BACK,40.0,60.0>? {choices}", "B")
    assert (fact.wording, fact.answer) == ("Where is <OBJ>?", "Right.")


def test_named_camera_is_known(images):
    (fact,) = asked(images, "How many cars are visible in CAM_FRONT_LEFT?", "2")
    assert (fact.place, fact.view) == (None, CAMERAS.index("CAM_FRONT_LEFT"))


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Is <c1,CAM_BACK,1.0,2.0> left of <c2,CAM_BACK,5.0,2.0>?", "Yes."),
        ("What is <c1,CAM_BACK>?", "A car."),
        ("What now?", None),
    ],
)
def test_questions_about_two_objects_or_none_that_can_be_found_teach_nothing(images, question, answer):
    assert not asked(images, question, answer)


def test_frames_know_their_objects_and_the_truth_beside_the_questions(roads, tmp_path):
    source = recipe(roads).data.sources
    plain = read_frames(source)
    assert {name: len(frames) for name, frames in plain.items()} == {"train": 18, "val": 6}
    assert {"Category", "Status", "Visual_description"} <= {fact.kind for fact in plain["train"][0].facts if fact.place}
    root = tmp_path / "roads"
    root.symlink_to(roads)
    moved = [source[0].model_copy(update={"root": root})]
    scenes = json.loads((roads / "QA_dataset_nus" / "v1_1_train_nus.json").read_text())
    rows = [
        {"scene": s, "frame": f, "road": "street", "speed": 9.5, "action": {"lateral": "left"}, "seed": 1}
        for s in scenes
        for f in scenes[s]["key_frames"]
    ]
    (roads / "truth").mkdir()
    try:
        (roads / "truth" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        frames = read_frames(moved)["val"]
    finally:
        (roads / "truth" / "train.jsonl").unlink()
        (roads / "truth").rmdir()
    assert {frame.speed for frame in frames} == {9.5}
    assert Fact("truth: road", "", "street") in frames[0].facts
    assert Fact("truth: lateral", "", "left") in frames[0].facts


def test_every_kind_is_read_whatever_the_model_is_taught(roads):
    (whole,) = recipe(roads).data.sources
    kinds = Counter(fact.kind for frame in read_frames([whole])["train"] for fact in frame.facts)
    asked = next(kind for kind in kinds if kind not in ATTRIBUTES)
    chosen = whole.model_copy(update={"templates": [asked], "without": [asked], "every": {asked: 3}})
    assert Counter(fact.kind for frame in read_frames([chosen])["train"] for fact in frame.facts) == kinds


@pytest.mark.parametrize("numbers", ["62.5.1,51.0", "62.5,.", "1.0.,2"])
def test_a_tag_whose_numbers_are_none_is_no_place(images, numbers):
    assert not asked(images, f"What is <c1,CAM_FRONT,{numbers}>?", "A car.")


def test_a_place_in_a_camera_without_a_picture_is_passed_over(images):
    front = {"CAM_FRONT": images["CAM_FRONT"]}
    assert not asked(front, "What is <c1,CAM_BACK,40.0,60.0>?", "A car.")
    assert not asked(images, "What is <c1,CAM_ROOF,40.0,60.0>?", "A car.")


def test_key_objects_without_a_picture_or_a_place_do_not_stop_the_reading(roads, tmp_path):
    file = "QA_dataset_nus/v1_1_train_nus.json"
    made = json.loads((roads / file).read_text())
    expected = read_frames(recipe(roads).data.sources)
    frame = next(iter(next(iter(made.values()))["key_frames"].values()))
    frame["image_paths"].pop("CAM_BACK", None)
    frame["key_object_infos"] = {
        "<c1,CAM_BACK,40.0,20.0>": {"Category": "Vehicle"},
        "<c2,CAM_FRONT,4.0.1,20.0>": {"Category": "Vehicle"},
        "<c3,CAM_FRONT,40.0,24.0>": {"Category": "Vehicle"},
    }
    frame["QA"] = {"perception": [{"Q": "What now?", "A": "Stop."}]}
    (tmp_path / file).parent.mkdir()
    (tmp_path / file).write_text(json.dumps(made))
    for path in roads.iterdir():
        if not (tmp_path / path.name).exists():
            (tmp_path / path.name).symlink_to(path)
    found = read_frames(recipe(tmp_path).data.sources)
    assert {name: len(frames) for name, frames in found.items()} == {name: len(part) for name, part in expected.items()}
    (mended,) = [f for part in found.values() for f in part if "CAM_BACK" not in f.images]
    assert [fact.place for fact in mended.facts if fact.place] == [Place(0, 0.5, 0.5)]


# --- lessons ----------------------------------------------------------------------------------------------------------


def frames_of(*facts: tuple[str, str, str, Place | None, int]) -> list[Frame]:
    """Frames of one fact each: kind, wording, answer, place, how often."""
    return [Frame({}, [Fact(kind, words, text, place)]) for kind, words, text, place, n in facts for _ in range(n)]


def test_heads_are_chosen_by_how_often_and_how_differently_they_are_answered():
    place = Place(0, 0.5, 0.5)
    seldom = [("seldom", "a?", "x", None, 20), ("seldom", "a?", "y", None, 29)]
    often = [("often", "b?", "x", None, 20), ("often", "b?", "y", None, 30)]
    objects = [("few", "c?", "x", place, 100), ("few", "c?", "y", place, 99)]
    always = [("always", "d?", "x", None, 500)]
    open_question = [("open", "e?", f"{i}", None, 2) for i in range(201)]
    attribute = [("Status", "", "moving", place, 1), ("Status", "", "parked", place, 2)]
    heads = choose_heads(frames_of(*seldom, *often, *objects, *always, *open_question, *attribute))
    assert heads == [Head("Status", "", True, ("parked", "moving")), Head("often", "b?", False, ("y", "x"))]


def test_labels_name_place_head_and_class():
    here, there = Place(0, 0.25, 0.5), Place(3, 1.0, 0.0)
    heads = [Head("Status", "", True, ("parked", "moving")), Head("rain", "Rain in CAM_BACK?", False, ("No.", "Yes."))]
    first = Frame(
        {}, [Fact("Status", "", "moving", here), Fact("other", "?", "x", there)], {here: (math.e, 20.0, -5.0)}
    )
    second = Frame(
        {}, [Fact("Status", "", "flying", there), Fact("rain", "Rain in CAM_BACK?", "Yes.", view=3)], speed=10
    )
    lessons = encode([first, second], heads)
    assert lessons.place_frame.tolist() == [0, 0, 1]
    assert lessons.place_view.tolist() == [0, 3, 3]
    assert lessons.place.tolist() == [[0.25, 0.5], [1.0, 0.0], [1.0, 0.0]]
    assert lessons.place_labels.tolist() == [[0, 0, 1], [2, 0, -1]]
    assert lessons.frame_labels.tolist() == [[1, 1, 1, 3]]
    assert lessons.measures[0].tolist() == pytest.approx([1.0, 1.0, -0.25])
    assert lessons.measures[1:].isnan().all()
    assert lessons.speed.tolist() == [0, 0.5]


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_pictures_are_what_a_model_is_given(images):
    frame = Frame({camera: images[camera] for camera in CAMERAS[:2]})
    seen, present = decode([frame], 32)
    processor = ViTImageProcessorPil(size={"height": 32, "width": 32}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    reading = Reading(family="driving_t5", image_size=32)
    preparation = Preparation(reading, None, processor, PictureCache(0))
    expected = torch.stack([pixels(images[camera], None, preparation) for camera in CAMERAS[:2]])
    assert present.tolist() == [[True, True, False, False, False, False]]
    torch.testing.assert_close(normalise(seen[0, :2], *STATISTICS), expected)


def test_all_missing_pictures_are_named(images, tmp_path):
    frames = [Frame(images), Frame({"CAM_FRONT": str(tmp_path / "a.png"), "CAM_BACK": str(tmp_path / "b.png")})]
    with pytest.raises(InputError) as error:
        decode(frames, 32)
    assert {Path(problem.file).name for problem in error.value.problems} == {"a.png", "b.png"}


# --- readout ----------------------------------------------------------------------------------------------------------

HEADS = [
    Head("count", "How many in CAM_BACK?", False, ("0", "1", "2")),
    Head("Status", "", True, ("parked", "moving")),
    Head("rain", "?", False, ("No.", "Yes.")),
    Head("count", "How many?", False, ("0", "1")),
]


def some_split() -> Split:
    """Three frames with a place in the front and one behind, and frame labels of every head."""
    frames = []
    for index in range(3):
        front, back = Place(0, 0.3, 0.6), Place(3, 0.8, 0.2)
        facts = [Fact("Status", "", "moving", front), Fact("Status", "", "parked", back), Fact("rain", "?", "Yes.")]
        facts += [Fact("count", "How many in CAM_BACK?", f"{index}", view=3), Fact("count", "How many?", f"{index}")]
        frames.append(Frame({}, facts, {front: (10.0, 8.0, index)}, speed=index))
    bytes_ = torch.randint(0, 256, (3, 6, 32, 32, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    present = torch.ones(3, 6, dtype=torch.bool)
    present[2, 3] = False
    return Split(bytes_, present, encode(frames, HEADS), STATISTICS)


def some_readout() -> Readout:
    torch.manual_seed(0)
    return Readout(PyramidModel(PyramidConfig(image_size=32, **TOWER)), HEADS).eval()


def test_loss_is_the_sum_over_kinds_of_mean_cross_entropies():
    split, readout = some_split(), some_readout()
    rows = torch.tensor([2, 0, 1])
    tokens = readout.tower(normalise(split.pictures.flatten(0, 1), *STATISTICS)).last_hidden_state.unflatten(0, (3, 6))
    tokens = tokens * split.present[:, :, None, None]
    grid = tokens[:, :, :-1].flatten(0, 1)
    speed = torch.tensor([[0.0], [1 / 20], [2 / 20]])
    frame = readout.of_frames(torch.cat([tokens[:, :, -1].flatten(1), speed], 1))
    front = features_at(grid, torch.tensor([0, 6, 12]), torch.full((3,), 0.3), torch.full((3,), 0.6))
    back = features_at(grid, torch.tensor([3, 9]), torch.full((2,), 0.8), torch.full((2,), 0.2))
    wanted = torch.tensor([[math.log(10), 8 / 20, left / 20] for left in range(3)])
    count = [cross_entropy(frame[i : i + 1, :3], torch.tensor([i])) for i in range(2)]
    count += [cross_entropy(frame[i : i + 1, 5:7], torch.tensor([i])) for i in range(2)]
    status = readout.at_places(torch.cat([front, back]))
    expected = (
        sum(count) / 4
        + cross_entropy(status, torch.tensor([1, 1, 1, 0, 0]))
        + cross_entropy(frame[:, 3:5], torch.tensor([1, 1, 1]))
        + 2 * smooth_l1_loss(readout.measures(front), wanted)
    )
    torch.testing.assert_close(readout.loss(show(split, rows, range(6), readout), split.lessons), expected)


def test_nothing_is_asked_about_views_that_are_not_shown():
    split, readout = some_split(), some_readout()
    rows = torch.tensor([0, 1])
    shown = show(split, rows, [0, 1], readout)
    assert len(shown.pictures) == 4
    (places, frames), measured, _ = readout(shown, split.lessons)
    assert places.target.tolist() == [1, 1] and len(measured) == 2
    assert 0 not in frames.head.tolist()
    other = replace(split, pictures=split.pictures.clone())
    other.pictures[:, 2:] = 0
    assert torch.equal(
        readout.loss(show(other, rows, [0, 1], readout), split.lessons), readout.loss(shown, split.lessons)
    )


def test_every_epoch_sees_every_frame_once_and_always_the_front():
    options = Options(batch_size=4, views=3)
    steps = [drawn(step, 12, 7, options) for step in range(6)]
    for epoch in (steps[:3], steps[3:]):
        assert sorted(torch.cat([rows for rows, _ in epoch]).tolist()) == list(range(12))
    assert not torch.equal(steps[0][0], steps[3][0])
    assert all(views[0] == 0 and len(set(views)) == 3 for _, views in steps)
    assert len({tuple(views) for _, views in steps}) > 1


# --- the run ----------------------------------------------------------------------------------------------------------

OPTIONS = Options(epochs=6, batch_size=6, views=3)


@pytest.fixture(scope="module")
def done(roads: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("towers") / "tower"
    pretrain(recipe(roads), folder, OPTIONS)
    return folder


def test_loss_falls_and_every_label_is_examined(roads, done):
    facts = json.loads((done / "pretrain.json").read_text())
    assert facts["steps"] == 18 and len(facts["losses"]) == 6
    assert facts["losses"][-1] < 0.9 * facts["losses"][0]
    category = facts["validation"]["kinds"]["Category"]
    assert category["labels"] == sum(
        fact.kind == "Category" for frame in read_frames(recipe(roads).data.sources)["val"] for fact in frame.facts
    )


def test_stopped_run_goes_on_as_if_it_had_not_been(roads, done, tmp_path, monkeypatch):
    class Stop(loop.Progress):
        steps = 0

        def advance(self, loss: float | None = None) -> None:
            Stop.steps += 1
            if Stop.steps == 8:
                os.kill(os.getpid(), signal.SIGINT)
            super().advance(loss)

    monkeypatch.setattr(loop, "Progress", Stop)
    with pytest.raises(Interrupted):
        pretrain(recipe(roads), tmp_path / "tower", OPTIONS)
    assert not (tmp_path / "tower" / "model").exists()
    facts = pretrain(recipe(roads), tmp_path / "tower", OPTIONS, resume=True)
    assert Stop.steps == 18
    assert (tmp_path / "tower/model/model.safetensors").read_bytes() == (done / "model/model.safetensors").read_bytes()
    whole = json.loads((done / "pretrain.json").read_text())
    assert facts | {"seconds": 0} == whole | {"seconds": 0}


def test_tower_sees_the_same_inside_a_model(done, tmp_path):
    tower = PyramidModel.from_pretrained(done / "model").eval()
    seen = torch.randn(2, 3, 32, 32)
    for name in (done, done / "model"):
        torch.manual_seed(1)
        model = DrivingT5(build_config("demo", image_size=32, overrides={"vision": TOWER})).eval()
        load_vision_weights(model, str(name))
        assert torch.equal(model.vision(seen[:, None])[:, 0], tower(seen).last_hidden_state)


def test_tower_of_another_shape_is_refused(done):
    model = DrivingT5(build_config("demo", image_size=32, overrides={"vision": {**TOWER, "width": 24}}))
    with pytest.raises(InputError) as error:
        load_vision_weights(model, str(done))
    assert {"fine.weight", "coarse.weight", "view.weight"} <= {problem.record for problem in error.value.problems}


def test_other_options_cannot_go_on_and_nothing_is_replaced(roads, done):
    with pytest.raises(InputError, match="--resume"):
        pretrain(recipe(roads), done, OPTIONS)
    with pytest.raises(InputError, match="epochs"):
        pretrain(recipe(roads), done, replace(OPTIONS, epochs=7), resume=True)


def test_a_run_whose_loss_is_not_finite_says_what_can_be_done(roads, tmp_path):
    with pytest.raises(RunError, match=r"not finite|nan|inf") as error:
        pretrain(recipe(roads), tmp_path / "tower", replace(OPTIONS, learning_rate=1e30))
    assert "lower --learning-rate and choose a new --out" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({"learning_rate": 0.0}, "--learning-rate"),
        ({"learning_rate": math.inf}, "--learning-rate"),
        ({"batch_size": 1, "views": 1}, "--batch-size"),
    ],
)
def test_options_that_cannot_train_are_refused_before_anything_is_read(tmp_path, changes, option):
    with pytest.raises(InputError) as error:
        pretrain(recipe(tmp_path / "nowhere"), tmp_path / "tower", replace(OPTIONS, **changes))
    assert [problem.record for problem in error.value.problems] == [option]
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in changes.items()]
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe(tmp_path / "nowhere").model_dump_json())
    result = CliRunner().invoke(app, ["pretrain", str(path), "--out", str(tmp_path / "tower"), *flags])
    assert isinstance(result.exception, InputError) and option in str(result.exception)
    assert not (tmp_path / "tower").exists()


@pytest.mark.parametrize(
    ("model", "found"),
    [
        ({"preset": "tiny", "overrides": {}}, "a tower of the kind `convnext`"),
        ({"preset": None, "overrides": {}, "path": "runs/teacher"}, "runs/teacher"),
    ],
)
def test_recipe_with_a_tower_of_another_kind_is_refused(roads, tmp_path, model, found):
    with pytest.raises(InputError) as error:
        pretrain(recipe(roads, **model), tmp_path / "tower", OPTIONS)
    assert found in error.value.problems[0].found
    assert not (tmp_path / "tower").exists()


# --- a VLM's tower ------------------------------------------------------------------------------------------------------

VIT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "patch_size": [4, 4],
}
VLM = {"preset": "world_internvl_small", "overrides": {"vision": VIT}}


def test_tower_of_a_vlm_learns_and_is_saved_as_its_own_class(roads, tmp_path):
    facts = pretrain(recipe(roads, **VLM), tmp_path / "tower", replace(OPTIONS, learning_rate=2e-3))
    assert facts["losses"][-1] < 0.9 * facts["losses"][0]
    assert facts["validation"]["kinds"]["Category"]["labels"] > 0
    tower = InternVLVisionModel.from_pretrained(tmp_path / "tower/model")
    assert type(tower.config).model_type == "internvl_vision" and tower.config.image_size == [32, 32]


def test_grid_of_a_vit_is_read_without_its_class_token_and_every_place_counts():
    config = build_tower_config("world_internvl_small", 32, {"vision": VIT})
    readout = Readout(InternVLVisionModel(config), [])
    tokens = torch.randn(3, 65, 32)
    grid, view = readout._grid_and_view(tokens)
    assert torch.equal(grid, tokens[:, 1:]) and view.shape == (3, 32)
    for place in (1, 30, 64):
        moved = tokens.clone()
        moved[:, place] += 1
        assert not torch.allclose(readout._grid_and_view(moved)[1], view, atol=1e-4)
    tokens[:, 0] += 1
    assert torch.equal(readout._grid_and_view(tokens)[1], view), "nothing downstream reads the class token"


def test_tower_of_a_vlm_has_a_whole_number_of_image_tokens(roads, tmp_path):
    plain = recipe(roads, **VLM)
    odd = plain.model_copy(update={"data": plain.data.model_copy(update={"image_size": 36})})
    with pytest.raises(InputError, match="a multiple of 8"):
        pretrain(odd, tmp_path / "tower", OPTIONS)
    assert not (tmp_path / "tower").exists()


def test_recipe_without_drivelm_is_refused(roads, tmp_path):
    plain = recipe(roads)
    senna = [source.model_copy(update={"format": "senna"}) for source in plain.data.sources]
    with pytest.raises(InputError, match="a source of format drivelm"):
        pretrain(plain.model_copy(update={"data": plain.data.model_copy(update={"sources": senna})}), tmp_path, OPTIONS)


def test_command_line_writes_the_tower_and_says_what_it_learnt(roads, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe(roads).model_dump_json())
    arguments = [str(path), "seed=3", "--out", str(tmp_path / "tower"), "--epochs", "1", "--batch-size", "6"]
    result = CliRunner().invoke(app, ["pretrain", *arguments, "--precision", "no"])
    assert result.exit_code == 0, result.output
    assert "18 frames" in result.output and "Category" in result.output and "3 steps" in result.output
    assert json.loads((tmp_path / "tower/pretrain.json").read_text())["seed"] == 3
