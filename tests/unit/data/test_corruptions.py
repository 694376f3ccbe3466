"""DriveBench's corruptions: what their formulas say, what chance may depend on, and that they stay what they are.

python tests/unit/data/test_corruptions.py        writes corruptions.json anew, after a change that was meant
"""

import builtins
import colorsys
import hashlib
import itertools
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from drivedistill.cli import app
from drivedistill.data.corruptions import CORRUPTIONS, corruption, external, motion, transmission, weather, write
from drivedistill.data.corruptions.pixels import smear, trail
from drivedistill.data.corruptions.write import write_corrupted
from drivedistill.data.images import load_image
from drivedistill.problems import InputError
from drivedistill.records import CAMERAS, Sample, write_json

GOLDEN = Path(__file__).with_name("corruptions.json")
VIDEO = ("bit_error", "h265")
DRAWN = sorted(set(CORRUPTIONS) - {"brightness", "saturate", "zoom_blur", "color_quant", "h265"})
"""Those with chance in them."""


def scenery(width=96, height=54, seed=0):
    """A sky, a road and coloured things on it, with a little noise: whole numbers only."""
    random = np.random.default_rng(seed)
    down, right = np.mgrid[:height, :width]
    pixels = np.stack([60 + 100 * down // height, 140 - 60 * down // height, 190 - 120 * down // height], axis=2)
    pixels[height // 2 :] = 90 + (5 * right[height // 2 :] // width)[..., None]
    for _ in range(8):
        x, y = random.integers(0, width * 3 // 4), random.integers(height // 4, height * 3 // 4)
        pixels[y : y + height // 5, x : x + width // 8] = random.integers(0, 256, 3)
    pixels[height * 2 // 3 :, width // 2 : width // 2 + max(1, width // 40)] = 235
    return Image.fromarray((pixels + random.integers(-6, 7, pixels.shape)).clip(0, 255).astype(np.uint8))


def drive(folder, scenes=2, frames=3, cameras=CAMERAS, size=(96, 54)):
    """Pictures below `folder`, and a question for every frame."""
    samples = []
    for scene in range(scenes):
        for frame in range(frames):
            images = {}
            for number, camera in enumerate(cameras):
                path = folder / f"{camera}/{scene}-{frame}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                scenery(*size, seed=100 * scene + 10 * number + frame).save(path)
                images[camera] = str(path)
            place = {"dataset": "made", "scene": f"s{scene}", "frame": f"f{frame}", "split": "val"}
            asked = {"regime": "regular", "task": "perception", "question": "What is it?", "answer": "A car."}
            samples.append(Sample(id=f"{scene}-{frame}", images=images, **place, **asked))
    return samples


@pytest.fixture(scope="module")
def six(tmp_path_factory):
    return drive(tmp_path_factory.mktemp("six"))


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return drive(tmp_path_factory.mktemp("two"), scenes=1, frames=2, cameras=CAMERAS[:2])


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return drive(tmp_path_factory.mktemp("one"), scenes=3, frames=1, cameras=CAMERAS[:1])


def level(change, path):
    return np.asarray(change(path, load_image(path, None)))


def shown(samples, name, severity=None, seed=0, image=None):
    """The first picture of the samples under a corruption."""
    path = samples[0].images["CAM_FRONT"]
    change = corruption(name, severity or CORRUPTIONS[name].drivebench, samples, seed)
    return np.asarray(change(path, image or load_image(path, None)))


def all_pictures(samples, change):
    return {
        (sample.scene, sample.frame, camera): level(change, path)
        for sample in samples
        for camera, path in sample.images.items()
    }


def digests(samples, names=CORRUPTIONS):
    """Corruption -> hash of the pictures of all samples at DriveBench's severity."""
    found = {}
    for name in names:
        pictures = all_pictures(samples, corruption(name, CORRUPTIONS[name].drivebench, samples, seed=0))
        found[name] = hashlib.sha256(b"".join(pictures[key].tobytes() for key in sorted(pictures))).hexdigest()
    return found


def golden(folder):
    """Video is left out: it changes with FFmpeg's encoders."""
    libraries = {name: version(name) for name in ("numpy", "pillow")}
    samples = drive(folder, scenes=1, frames=1)
    return {"libraries": libraries, "sha256": digests(samples, [name for name in CORRUPTIONS if name not in VIDEO])}


def test_pictures_are_what_they_were(tmp_path):
    before = json.loads(GOLDEN.read_text("utf-8"))
    libraries = {name: version(name) for name in before["libraries"]}
    if libraries != before["libraries"]:
        pytest.skip(f"made with {before['libraries']}, here is {libraries}: draws and resampling may differ")
    assert golden(tmp_path) == before


def test_the_table_is_drivebenchs():
    groups = {"weather": 5, "external": 2, "sensor": 3, "motion": 2, "transmission": 3}
    rows = CORRUPTIONS.values()
    assert {group: sum(row.group == group for row in rows) for group in groups} == groups
    folders = "Brightness LowLight Snow Fog Rain WaterSplashCorruption LensObstacleCorruption CameraCrash FrameLost"
    folders += " Saturate MotionBlur ZoomBlur BitError ColorQuant H256ABRCompression"
    assert [row.published for row in rows] == folders.split()
    assert [row.drivebench for row in rows] == [4, 4, 4, 5, 5, 4, 5, 4, 4, 5, 4, 4, 2, 4, 4]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_new_picture_of_the_same_size(name, two, tmp_path):
    path = two[0].images["CAM_FRONT"]
    image = load_image(path, None)
    before = image.tobytes()
    for severity in CORRUPTIONS[name].severities:
        change = corruption(name, severity, two, 0)
        changed = change(path, image)
        assert (changed.size, changed.mode) == (image.size, "RGB")
        assert changed is not image
        assert image.tobytes() == before
        assert changed.tobytes() == change(path, image).tobytes()
    [odd] = drive(tmp_path, 1, 1, CAMERAS[:1], (37, 23))
    assert shown([odd], name).shape == (23, 37, 3)
    for number, size in enumerate(((1, 1), (2, 3), (5, 40))):
        [tiny] = drive(tmp_path / str(number), 1, 1, CAMERAS[:1], (8, 8))
        Image.new("RGB", size, (10, 200, 30)).save(tiny.images["CAM_FRONT"])
        assert shown([tiny], name).shape == (size[1], size[0], 3)


def test_neither_path_nor_order_nor_process_matters(two, tmp_path):
    code = "import sys, json; sys.path[:0] = sys.argv[2:]; from pathlib import Path; import test_corruptions as made\n"
    code += "samples = made.drive(Path(sys.argv[1]), 1, 2, made.CAMERAS[:2])\nprint(json.dumps(made.digests(samples)))"
    other = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(other.stdout) == digests(two)
    for name in CORRUPTIONS:
        change = corruption(name, 4, two, 0)
        forth = all_pictures(two, change)
        back = all_pictures(two[::-1], change)
        assert all((forth[key] == back[key]).all() for key in forth)


@pytest.mark.parametrize("name", DRAWN)
def test_another_seed_draws_anew(name, six):
    first, other = (all_pictures(six[:2], corruption(name, 3, six, seed)) for seed in (0, 3))
    assert any((first[key] != other[key]).any() for key in first)


@pytest.mark.parametrize("name", sorted(set(CORRUPTIONS) - {"saturate"}))
def test_more_severe_is_further_from_the_picture(name, six, two):
    samples = two if name in ("h265", "snow", "low_light", "rain") else six
    clean = all_pictures(samples, lambda path, image: image)
    distances = []
    for severity in CORRUPTIONS[name].severities:
        changed = all_pictures(samples, corruption(name, severity, samples, 3))
        distances.append(np.mean([np.abs(changed[key].astype(int) - clean[key]).mean() for key in clean]))
    assert distances[0] > 0
    assert all(low <= 1.01 * high for low, high in itertools.pairwise(distances)), distances  # fog 3 and 4 are alike
    assert distances[4] > 1.2 * distances[0]


def test_saturate_takes_colour_away_then_adds_it(six):
    colourfulness = []
    for severity in range(1, 6):
        pixels = shown(six, "saturate", severity).astype(int)
        colourfulness.append((pixels.max(axis=2) - pixels.min(axis=2)).mean())
    assert colourfulness[1] < colourfulness[0] < colourfulness[2] < colourfulness[3] < colourfulness[4]


def hsv_reference(pixel, change):
    """One pixel by the standard library's conversion."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in pixel))
    return np.array(colorsys.hsv_to_rgb(*change(hue, saturation, value))) * 255


@pytest.mark.parametrize(
    ("name", "severity", "change"),
    [
        ("brightness", 4, lambda h, s, v: (h, s, min(v + 0.4, 1))),
        ("brightness", 1, lambda h, s, v: (h, s, min(v + 0.1, 1))),
        ("saturate", 5, lambda h, s, v: (h, min(20 * s + 0.2, 1), v)),
        ("saturate", 1, lambda h, s, v: (h, 0.3 * s, v)),
    ],
)
def test_colours_change_in_hsv(name, severity, change, one):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 20, 3), dtype=np.uint8)
    pixels[0] = np.arange(0, 240, 12)[:, None]  # gray, and black
    found = shown(one, name, severity, image=Image.fromarray(pixels))
    expected = np.array([[hsv_reference(pixel, change) for pixel in row] for row in pixels.tolist()])
    assert np.abs(found - expected).max() < 0.51


def test_color_quant_keeps_the_upper_bits(one):
    pixels = np.asarray(scenery())
    for severity, bits in ((1, 4), (2, 3), (3, 2), (4, 1)):
        found = shown(one, "color_quant", severity, image=scenery())
        assert (found == pixels >> (8 - bits) << (8 - bits)).all()
    assert set(np.unique(shown(one, "color_quant", 5, image=scenery()))) == {0, 128}


def test_zoom_blur_stretches_a_ramp_by_the_mean_zoom(one):
    right = np.arange(201)
    ramp = Image.fromarray(np.repeat(np.repeat(right[None, :, None] + 20, 9, 0), 3, 2).astype(np.uint8))
    zooms = 1 + 0.02 * np.arange(13)
    slope = (1 + (1 / zooms).sum()) / 14
    found = shown(one, "zoom_blur", 4, image=ramp)[4, 20:-20, 0]
    assert np.abs(found - (120 + (right - 100) * slope)[20:-20]).max() <= 1


def test_a_crash_of_the_only_camera_is_black_in_every_seed(one):
    for severity, seed in itertools.product((1, 4, 5), range(3)):
        assert not shown(one, "camera_crash", severity, seed).any()


def test_a_film_is_made_of_the_frames_that_are_asked(two):
    pytest.importorskip("av")
    last = two[1].images["CAM_FRONT"]
    together, alone = (level(corruption("h265", 5, samples, 0), last) for samples in (two, two[1:]))
    assert (together != alone).any()


def test_zooms_are_those_of_imagecorruptions():
    published = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))
    for (number, step), (end, published_step) in zip(motion.ZOOM, published, strict=True):
        np.testing.assert_allclose(1 + step * np.arange(number), np.arange(1, end, published_step))


def test_motion_blur_is_the_published_sum():
    """`imagecorruptions` at its own scale: 31 rolled pictures, weights of a one-sided Gaussian, edges repeated."""
    pixels = np.random.default_rng(0).random((40, 50, 1), np.float32)
    angle = np.deg2rad(-31.0)
    weights = np.exp(-(np.arange(31.0) ** 2) / (2 * 12.0**2))
    expected = np.zeros_like(pixels)
    for step, weight in enumerate(weights / weights.sum()):
        down, right = np.ceil(step * np.sin(angle) - 0.5), np.ceil(step * np.cos(angle) - 0.5)
        rows = np.clip(np.arange(40) + int(down), 0, 39)
        columns = np.clip(np.arange(50) + int(right), 0, 49)
        expected += np.float32(weight) * pixels[rows][:, columns]
    assert np.abs(smear(pixels, trail(15, 12, -31.0, 1.0)) - expected).max() < 1e-5


@pytest.mark.parametrize("size", [0.05, 0.3, 1.0, 2.4])
def test_a_trail_has_no_gaps_and_its_length(size):
    traces = trail(15, 12, 0.0, size)
    columns = sorted(column for _, column in traces)
    assert sum(traces.values()) == pytest.approx(1)
    assert columns == list(range(round(30 * size) + 1)) or columns[-1] - 31 * size < 1
    assert np.diff(columns).max(initial=1) == 1


@pytest.mark.parametrize(("name", "most"), [("motion_blur", 0.35), ("zoom_blur", 0.1), ("lens_obstacle", 0.3)])
def test_blur_then_shrink_is_shrink_then_blur(name, most, one):
    large = scenery(1600, 900)
    small = large.resize((400, 225), Image.Resampling.BOX)
    shrunk = np.asarray(Image.fromarray(shown(one, name, image=large)).resize((400, 225), Image.Resampling.BOX), int)
    found = shown(one, name, image=small).astype(int)
    effect = np.abs(np.asarray(small, int) - shrunk).mean()
    assert effect > 0.5
    assert np.abs(found - shrunk).mean() < most * effect


def test_fog_lies_between_clear_and_density(one):
    white = shown(one, "fog", 5, image=Image.new("RGB", (96, 54), (255, 255, 255)))
    assert white.max() > 200  # the whole cloud runs from 64 to 255; a picture shows most of it
    assert 64 <= white.min() < 130
    assert (white[..., 0] == white[..., 2]).all()
    cloud = weather._plasma(64, 1.4, np.random.default_rng(0))
    assert (cloud.min(), cloud.max()) == (0, 1)
    smooth, rough = (np.abs(np.diff(weather._plasma(64, decay, np.random.default_rng(0)))).mean() for decay in (2, 1.4))
    assert smooth < rough


@pytest.mark.parametrize("width", [112, 400, 1600])
def test_rain_covers_as_much_of_every_size(width):
    mask = weather._streaks(Image.new("RGB", (width, width * 9 // 16)), 400, 80, np.random.default_rng(0))
    assert mask.mean() == pytest.approx(1 - np.exp(-80 / 400), abs=0.02)


def test_rain_leaves_half_the_contrast(one):
    image = scenery()
    found, clean = shown(one, "rain", image=image).astype(int), np.asarray(image, int)
    offset = found - 0.5 * clean  # the same wherever no streak is
    dry = np.abs(offset - np.median(offset, axis=(0, 1))).max(axis=2) <= 1
    assert 0.7 < dry.mean() < 0.9


@pytest.mark.parametrize("width", [112, 224, 400, 1600])
def test_snow_is_as_dense_at_every_size(width, one):
    black = Image.new("RGB", (width, width * 9 // 16))
    assert shown(one, "snow", image=black).mean() == pytest.approx(82, abs=12)


def test_low_light_is_dark_and_noisy(one):
    image = scenery(1600, 300)
    found = shown(one, "low_light", image=image) / 255
    clean = np.asarray(image) / 255
    ideal = 0.2 * ((clean - clean.min()) / (clean.max() - clean.min())) ** 2
    variance = ideal / 30 + 0.038**2  # Poisson with 30 photons and Gaussian noise
    bright = ideal > 0.12  # where clipping at black cuts off little
    assert (found - ideal)[bright].mean() == pytest.approx(0, abs=0.02)
    assert (found - ideal)[bright].std() == pytest.approx(np.sqrt(variance[bright].mean()), rel=0.15)
    flat = shown(one, "low_light", image=Image.new("RGB", (96, 54), (255, 255, 255)))
    assert flat.mean() == pytest.approx(0.2 * 255, rel=0.05)
    small = shown(one, "low_light", image=image.resize((400, 75), Image.Resampling.BOX)).astype(int)
    shrunk = np.asarray(Image.fromarray((found * 255).astype(np.uint8)).resize((400, 75), Image.Resampling.BOX), int)
    rough, smooth = (np.abs(np.diff(pixels[:25], axis=1)).mean() for pixels in (small, shrunk))
    assert rough == pytest.approx(smooth, rel=0.3)


def hits(samples, name, seed=0):
    """Frame -> cameras whose pictures are touched."""
    changed = all_pictures(samples, corruption(name, CORRUPTIONS[name].drivebench, samples, seed))
    found = {}
    for sample in samples:
        for camera, path in sample.images.items():
            same = (changed[sample.scene, sample.frame, camera] == np.asarray(load_image(path, None))).all()
            found.setdefault((sample.scene, sample.frame), set()).update(() if same else {camera})
    return found


@pytest.mark.parametrize("name", ["water_splash", "lens_obstacle"])
def test_the_lens_of_the_front_camera_is_always_hit(name, tmp_path, one):
    found = hits(drive(tmp_path, 3, 5, size=(48, 27)), name)
    assert all("CAM_FRONT" in cameras and 2 <= len(cameras) <= 6 for cameras in found.values())
    assert len({frozenset(cameras) for cameras in found.values()}) > 5
    assert set(map(len, hits(one, name).values())) == {1}


def test_an_obstacle_blurs_inside_its_ellipse_only(one):
    image = scenery(160, 90)
    found, clean = shown(one, "lens_obstacle", image=image), np.asarray(image)
    touched = (found != clean).any(axis=2)
    assert 0.02 < touched.mean() < 0.8
    rows, columns = np.flatnonzero(touched.any(axis=1)), np.flatnonzero(touched.any(axis=0))
    assert not touched[: rows[0]].any()
    assert touched[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean() > 0.5


def test_drops_are_white_and_as_many_as_said(one):
    image = Image.new("RGB", (1600, 900))
    found = shown(one, "water_splash", image=image)
    area = 40 * np.pi * (25**2 + 10**2 / 12)
    assert found.sum() / 3 / 255 / 0.2 == pytest.approx(area, rel=0.2)
    assert external.SPLASH[3] == (40, 31, 20, 30)


def test_crashed_cameras_are_black_in_every_frame_and_others_whole(six, one):
    for seed in range(6):
        lost = set()
        for severity in range(1, 6):
            change = corruption("camera_crash", severity, six, seed)
            black = {key for key, pixels in all_pictures(six, change).items() if not pixels.any()}
            cameras = {camera for _, _, camera in black}
            assert len(black) == len(cameras) * len(six)
            assert lost <= cameras
            assert 1 <= len(cameras) <= severity
            lost = cameras
        assert hits(six, "camera_crash", seed).popitem()[1] <= lost
    assert not shown(one, "camera_crash", 1).any()


def test_lost_frames_are_drawn_view_by_view(tmp_path):
    samples = drive(tmp_path, 4, 12, size=(8, 8))
    shares, before = [], set()
    for severity in range(1, 6):
        pictures = all_pictures(samples, corruption("frame_lost", severity, samples, 0))
        black = {key for key, pixels in pictures.items() if not pixels.any()}
        assert before <= black  # the same draw, a higher threshold
        shares.append(len(black) / len(pictures))
        before = black
    assert shares == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6], abs=0.07)


def test_noise_is_ffmpegs():
    av = pytest.importorskip("av")
    random = np.random.default_rng(0)
    packets = [random.integers(0, 256, size, dtype=np.uint8).tobytes() for size in (900, 1, 5000)]
    stream = av.open("/dev/null", "w", format="mp4").add_stream("mpeg4")
    for amount in (7, 500):
        noise = av.bitstream.BitStreamFilterContext(f"noise={amount}", stream)
        ours = transmission.with_noise(packets, 0, amount)
        copies = [bytes(bytearray(packet)) for packet in packets]  # the filter writes into what it is given
        theirs = [bytes(changed) for packet in copies for changed in noise.filter(av.Packet(packet))]
        assert ours == theirs
        wrong = sum(a != b for old, new in zip(packets, ours, strict=True) for a, b in zip(old, new, strict=True))
        assert wrong == pytest.approx(5901 / amount, rel=0.5)


@pytest.mark.parametrize("name", VIDEO)
@pytest.mark.parametrize("size", [(96, 54), (37, 23), (451, 251)])
def test_a_film_shows_its_frames_in_order(name, size, tmp_path):
    pytest.importorskip("av")
    samples = drive(tmp_path, 1, 14 if size[0] == 96 else 3, CAMERAS[:1], size)  # 14 is more than a group of twelve
    clean = [np.asarray(load_image(sample.images["CAM_FRONT"], None)).astype(int) for sample in samples]
    change = corruption(name, 1, samples, 0)
    for index, sample in enumerate(samples):
        found = level(change, sample.images["CAM_FRONT"])
        distances = [np.abs(found - picture).mean() for picture in clean]
        assert found.shape == clean[0].shape
        assert name == "bit_error" or int(np.argmin(distances)) == index
    if name == "bit_error":
        firsts = [level(corruption(name, 1, samples, seed), samples[0].images["CAM_FRONT"]) for seed in range(8)]
        whole = [np.abs(first - clean[0]).mean() < 8 for first in firsts]
        assert any(whole)


def test_a_frame_that_cannot_be_decoded_repeats_the_last(tmp_path, monkeypatch):
    pytest.importorskip("av")
    samples = drive(tmp_path, 1, 3, CAMERAS[:1])
    change = corruption("bit_error", 1, samples, 0)
    paths = [sample.images["CAM_FRONT"] for sample in samples]
    monkeypatch.setattr(transmission, "with_noise", lambda packets, start, amount: [packets[0], b"\0" * 40, packets[2]])
    first, second, third = (level(change, path) for path in paths)
    assert (second == first).all()
    assert (third != first).any()
    monkeypatch.setattr(transmission, "with_noise", lambda packets, start, amount: [b"\0" * 40, *packets[1:]])
    assert (level(change, paths[0]) == 128).all()


def test_pictures_of_another_size_are_another_film(tmp_path):
    pytest.importorskip("av")
    samples = drive(tmp_path, 1, 3, CAMERAS[:1])
    scenery(64, 40).save(samples[1].images["CAM_FRONT"])
    change = corruption("h265", 4, samples, 0)
    assert level(change, samples[1].images["CAM_FRONT"]).shape == (40, 64, 3)
    assert level(change, samples[2].images["CAM_FRONT"]).shape == (54, 96, 3)


def test_without_pyav_two_corruptions_say_what_to_install(one, monkeypatch):
    imported = builtins.__import__

    def without(name, *rest, **more):
        if name == "av":
            raise ImportError("No module named 'av'")
        return imported(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    for name in VIDEO:
        with pytest.raises(InputError, match=r"drivedistill\[video\]"):
            corruption(name, 1, one, 0)
    assert shown(one, "fog").shape == (54, 96, 3)


def test_a_picture_of_other_samples_is_refused(six, one):
    change = corruption("rain", 5, one, 0)
    with pytest.raises(InputError, match="name all samples"):
        level(change, six[0].images["CAM_FRONT"])


def test_a_picture_of_two_cameras_is_the_first_ones(one):
    path = one[0].images["CAM_FRONT"]
    shared = one[1].model_copy(update={"images": {"CAM_BACK": path}})
    assert (shown([one[0], shared], "rain") == shown(one, "rain")).all()


def test_lists_are_the_published_ones():
    assert [row[0] for row in weather.LOW_LIGHT] == [0.5, 0.4, 0.3, 0.2, 0.1]
    assert weather.SNOW[3] == (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65)
    assert weather.FOG[4] == (3.0, 1.4)
    assert weather.RAIN[4] == (400, 80, 0.5)
    assert external.OBSTACLE[4] == (71, 0.5, 0.1)
    assert motion.MOTION[3] == (15, 12)
    assert motion.ZOOM[3] == (13, 0.02)
    assert (transmission.BYTES_PER_ERROR[1], transmission.RATE_DIVISOR[3]) == (50_000, 16)


def test_written_pictures_lie_as_published(six, tmp_path):
    out = tmp_path / "out"
    assert write_corrupted(six, out, [("fog", 5), ("rain", 2)], seed=0, limit=2) == 24
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png"))
    assert len(files) == 25
    assert {"Fog/CAM_BACK/0-1.png", "Rain-2/CAM_FRONT/0-0.png", "sheet.png"} <= set(files)
    assert (np.asarray(Image.open(out / "Fog/CAM_FRONT/0-0.png")) == shown(six, "fog")).all()
    with pytest.raises(InputError, match="new or empty"):
        write_corrupted(six, out, [("fog", 5)], seed=0)


def test_the_command_writes_them(made, tmp_path):
    arguments = [
        "data",
        "corrupt",
        str(made / "regular"),
        "--limit",
        "1",
        "--corrupt",
        "zoom_blur",
        "--corrupt",
        "fog:3",
    ]
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "12 pictures" in done.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"ZoomBlur", "Fog-3", "sheet.png"}
    with pytest.raises(InputError, match="one of brightness"):
        CliRunner().invoke(app, [*arguments, "--corrupt", "black", "--out", "x"], catch_exceptions=False)


def test_every_picture_moves_the_bar(six, tmp_path, monkeypatch):
    seen = []

    class Bar(write.Progress):
        def __init__(self, total, *args, **kwargs):
            super().__init__(total, *args, **kwargs)
            seen.append(total)

        def advance(self, loss=None):
            seen.append(1)

    monkeypatch.setattr(write, "Progress", Bar)
    count = write_corrupted(six, tmp_path / "out", [("fog", 5), ("saturate", 5)], seed=0, limit=1)
    assert seen == [count, *[1] * count] and count > 2


def test_two_pictures_of_one_name_are_refused_and_nothing_is_written(six, tmp_path):
    twin = tmp_path / "0-0.png"
    scenery().save(twin)
    samples = [*six, six[0].model_copy(update={"scene": "t", "images": {"CAM_FRONT": str(twin)}})]
    with pytest.raises(InputError, match="as well"):
        write_corrupted(samples, tmp_path / "out", [("fog", 5)], seed=0)
    assert not (tmp_path / "out").exists()


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as made:
        write_json(GOLDEN, golden(Path(made)))
    sys.stdout.write(GOLDEN.read_text("utf-8"))
