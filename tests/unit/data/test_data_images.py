import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from drivedistill.data import images
from drivedistill.data.images import PictureCache, image_problem, image_size, load_image
from drivedistill.problems import InputError
from drivedistill.records import Region


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


@pytest.fixture
def gray(tmp_path):
    return save(tmp_path / "gray.png", np.full((900, 1600, 3), 100, np.uint8))


@pytest.fixture
def jpeg(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (90, 160, 3), np.uint8)
    return save(tmp_path / "noise.jpg", noise)


def region(*box):
    return Region(camera="CAM_FRONT", box=box)


def red(image, least=40):
    pixels = np.asarray(image).astype(int)
    return (pixels[..., 0] - pixels[..., 1] >= least) & (pixels[..., 0] - pixels[..., 2] >= least)


def claim(path, width, height):
    """A PNG of a few bytes that claims to be `width` x `height`."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )
    return path


def test_rectangle_at_224_pixels_has_one_full_pixel_on_every_side(gray):
    drawn = red(load_image(gray, (224, 224), region(400, 225, 800, 450)), least=150)
    left, right, top, bottom = 56, 168, 56, 168
    assert drawn[top : bottom + 1, left].all() and drawn[top : bottom + 1, right].all()
    assert drawn[top, left : right + 1].all() and drawn[bottom, left : right + 1].all()
    assert drawn.sum() == 4 * 112


def test_official_rectangle_survives_at_224_pixels_only_faintly(gray):
    full = load_image(gray, (224, 224), region(400, 225, 800, 450), "full")
    assert red(full, least=30).sum() >= 4 * 100
    assert not red(full, least=150).any()


def test_official_rectangle_is_two_pixels_wide_on_the_full_picture(gray):
    official = load_image(gray, None, region(400, 225, 800, 450), "full")
    assert official.size == (1600, 900)
    assert red(official, 150).sum() == 801 * 451 - 797 * 447
    assert np.array_equal(official, load_image(gray, None, region(400, 225, 800, 450), "target"))


@pytest.mark.parametrize("drawing", ["target", "full"])
@pytest.mark.parametrize("box", [(-50, -50, 5000, 5000), (1599, 899, 1, 1), (0.2, 0.2, 0.1, 0.1), (9000, 10, 5, 5)])
def test_box_is_clipped_and_never_vanishes(gray, box, drawing):
    assert red(load_image(gray, (224, 224), region(*box), drawing), least=10).any()


def test_no_region_leaves_no_red(gray):
    assert not red(load_image(gray, (224, 224)), 1).any()


def test_scaling_ignores_the_aspect_ratio_and_is_bilinear(jpeg):
    expected = Image.open(jpeg).convert("RGB").resize((32, 48), Image.Resampling.BILINEAR)
    assert np.array_equal(load_image(jpeg, (32, 48)), expected)


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P", "1", "LA", "I;16", "RGB"])
def test_every_mode_becomes_rgb_of_the_same_brightness(tmp_path, mode):
    path = tmp_path / f"a.{'tif' if mode == 'CMYK' else 'png'}"
    if mode == "I;16":
        Image.fromarray(np.full((8, 8), 200 * 256 + 17, np.uint16)).save(path)
    else:
        Image.new("RGB", (8, 8), (200, 200, 200)).convert(mode).save(path)
    image = load_image(path, None)
    assert image.mode == "RGB" and abs(float(np.asarray(image).mean()) - 200) < {"1": 60, "P": 8}.get(mode, 2)


def test_exif_orientation_is_left_alone(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "a.jpg", np.zeros((10, 20, 3), np.uint8), exif=exif)
    assert load_image(path, None).size == image_size(path) == (20, 10)


def test_good_picture_has_no_problem(jpeg):
    assert image_problem(jpeg) is None and image_problem(jpeg, decode=False) is None


@pytest.mark.parametrize(
    ("name", "content", "words", "header_tells"),
    [
        ("absent.jpg", None, "no such file", True),
        ("zero.jpg", b"", "0 bytes", True),
        ("text.jpg", b"not a picture", "UnidentifiedImageError", True),
        ("page.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "UnidentifiedImageError", True),
        ("cut.jpg", "cut", "truncated", False),
    ],
)
def test_bad_picture_is_one_problem_with_a_remedy(tmp_path, jpeg, name, content, words, header_tells):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(jpeg.read_bytes()[:2000] if content == "cut" else content)
    problem = image_problem(path)
    assert problem.file == str(path) and words in problem.found and problem.remedy
    assert (image_problem(path, decode=False) is not None) == header_tells
    with pytest.raises(InputError):
        load_image(path, (8, 8))


def test_folder_is_no_picture(tmp_path):
    assert image_problem(tmp_path) is not None


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(8001, 8000), (10_000, 10_000), (20_000, 10_000)])
def test_bombs_below_between_and_above_pillows_thresholds_are_refused(tmp_path, size):
    path = claim(tmp_path / "bomb.png", *size)
    for problem in (image_problem(path), image_problem(path, decode=False)):
        assert "at most 64 million pixels" in problem.expected and problem.remedy == "scale the picture down"


@pytest.mark.filterwarnings("error")
def test_bomb_is_refused_where_warnings_are_errors(tmp_path):
    assert "64 million" in image_problem(claim(tmp_path / "bomb.png", 10_000, 10_000)).expected


def test_pixel_limit_is_inclusive(jpeg):
    assert image_problem(jpeg, max_pixels=160 * 90) is None
    assert "160 x 90 pixels" in image_problem(jpeg, max_pixels=160 * 90 - 1).found


def test_float_pixels_are_refused(tmp_path):
    path = save(tmp_path / "a.tif", np.zeros((4, 4), np.float32))
    assert "floating-point" in image_problem(path).found


def test_cache_returns_the_same_picture_and_keeps_its_bound(tmp_path):
    paths = [save(tmp_path / f"{index}.png", np.full((500, 500, 3), index, np.uint8)) for index in range(3)]
    cache = PictureCache(megabytes=2)
    first = cache.load(paths[0], (500, 500))
    assert cache.load(paths[0], (500, 500)) is first
    cache.load(paths[1], (500, 500))
    cache.load(paths[0], (500, 500))
    cache.load(paths[2], (500, 500))
    assert cache.bytes == 1_500_000
    assert cache.load(paths[0], (500, 500)) is first
    cache.load(paths[1], (1000, 1000))
    assert cache.bytes == 1_500_000


def test_cache_tells_sizes_regions_and_drawings_apart(gray):
    cache = PictureCache(megabytes=10)
    small, large = region(10, 10, 500, 500), region(10, 10, 900, 800)
    asked = [
        ((64, 64), None, "target"),
        ((32, 32), None, "target"),
        ((64, 64), small, "target"),
        ((64, 64), small, "full"),
    ]
    asked.append(((64, 64), large, "target"))
    pictures = [cache.load(gray, *key) for key in asked]
    assert len({picture.tobytes() for picture in pictures}) == 5
    for picture, (size, where, drawing) in zip(pictures, asked, strict=True):
        assert np.array_equal(picture, load_image(gray, size, where, drawing))


def test_cache_of_zero_keeps_nothing(jpeg):
    cache = PictureCache(megabytes=0)
    assert cache.load(jpeg, None) is not cache.load(jpeg, None) and cache.bytes == 0


# --- JPEGs at a reduced scale -----------------------------------------------------------------------------------------


def photo(path, width, height, **options):
    """Noise at several scales, much as a street looks to a decoder."""
    draw, pixels = np.random.default_rng(0), np.full((height, width, 3), 128.0)
    for step, strength in ((4, 8), (16, 15), (64, 30)):
        coarse = draw.normal(0, strength, (height // step + 2, width // step + 2, 3)).clip(-127, 127) + 128
        fine = Image.fromarray(coarse.astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
        pixels += np.asarray(fine, float) - 128
    return save(path, pixels.clip(0, 255).astype(np.uint8), **options)


def reduced(path, size, *args):
    return np.asarray(load_image(path, size, *args, jpeg_scale="reduced")).astype(int)


def full(path, size, *args):
    return np.asarray(load_image(path, size, *args)).astype(int)


@pytest.fixture(params=["simplejpeg", "Pillow"])
def binding(request, monkeypatch):
    """Both ways to the pixels of a reduced JPEG."""
    if request.param == "Pillow":
        monkeypatch.setattr(images, "decode_jpeg", None)
    else:
        pytest.importorskip("simplejpeg")
    return request.param


OPTIONS = pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}])


@OPTIONS
@pytest.mark.parametrize("side", [8, 28, 50, 56])
def test_reduced_jpegs_look_like_full_ones(tmp_path, side, options, binding):
    path = photo(tmp_path / "a.jpg", 401, 225, quality=85, **options)
    found, expected = reduced(path, (side, side)), full(path, (side, side))
    assert found.shape == (side, side, 3)
    assert 0 < np.abs(found - expected).mean() < 3
    assert abs(found.mean() - expected.mean()) < 0.5
    assert np.array_equal(found, reduced(path, (side, side)))


@OPTIONS
@pytest.mark.parametrize(("side", "scale"), [(8, 8), (28, 4), (50, 2), (56, 2)])
def test_both_bindings_make_the_same_pixels_of_a_half_a_quarter_or_an_eighth(
    tmp_path, side, scale, options, monkeypatch
):
    simplejpeg, shapes = pytest.importorskip("simplejpeg"), []

    def decode(*args, **kwargs):
        shapes.append((made := simplejpeg.decode_jpeg(*args, **kwargs)).shape)
        return made

    path = photo(tmp_path / "a.jpg", 401, 225, quality=85, **options)
    monkeypatch.setattr(images, "decode_jpeg", decode)
    quick = reduced(path, (side, side))
    assert shapes == [(-(-225 // scale), -(-401 // scale), 3)]
    monkeypatch.setattr(images, "decode_jpeg", None)
    assert np.array_equal(quick, reduced(path, (side, side)))


def test_what_is_left_is_scaled_as_pillow_does(tmp_path, binding):
    path = photo(tmp_path / "a.jpg", 400, 240)
    with Image.open(path) as image:
        image.draft(None, (112, 120))
        assert image.size == (200, 120)
        expected = np.asarray(image.resize((56, 60), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(reduced(path, (56, 60)) - expected).max() <= 1


@pytest.mark.parametrize("size", [(57, 57), (112, 56), (401, 225), (500, 300), None])
def test_a_jpeg_less_than_four_times_as_large_is_decoded_in_full(tmp_path, size):
    path = photo(tmp_path / "a.jpg", 401, 225)
    assert np.array_equal(reduced(path, size), full(path, size))


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.bmp", "a.tif", "a.ppm"])
def test_other_formats_are_decoded_in_full(tmp_path, name):
    path = photo(tmp_path / name, 320, 200)
    assert np.array_equal(reduced(path, (20, 20)), full(path, (20, 20)))


def test_a_changed_picture_and_a_rectangle_on_the_full_one_see_every_pixel(tmp_path):
    path = photo(tmp_path / "a.jpg", 400, 240)
    where = region(40, 40, 200, 100)
    assert np.array_equal(reduced(path, (40, 40), where, "full"), full(path, (40, 40), where, "full"))
    sizes = []

    def change(name, image):
        sizes.append(image.size)
        return image

    load_image(path, (40, 40), change=change, jpeg_scale="reduced")
    assert sizes == [(400, 240)]


def test_a_rectangle_lies_at_the_same_place_whatever_the_scale(tmp_path):
    path = save(tmp_path / "a.jpg", np.full((900, 1600, 3), 100, np.uint8))
    where = region(400, 225, 800, 450)
    assert np.array_equal(red(reduced(path, (224, 224), where), 150), red(full(path, (224, 224), where), 150))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_reduced_jpegs_of_other_modes_become_rgb(tmp_path, mode, binding):
    path = photo(tmp_path / "rgb.png", 400, 240)
    with Image.open(path) as image:
        image.convert(mode).save(tmp_path / "a.jpg", quality=95)
    assert np.abs(reduced(tmp_path / "a.jpg", (40, 40)) - full(tmp_path / "a.jpg", (40, 40))).mean() < 2


def test_reduced_jpegs_ignore_the_orientation_and_refuse_what_is_cut_off(tmp_path, binding):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = photo(tmp_path / "a.jpg", 400, 240, exif=exif)
    plain = photo(tmp_path / "plain.jpg", 400, 240)
    assert np.array_equal(reduced(path, (40, 20)), reduced(plain, (40, 20)))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError) as scaled:
        reduced(path, (40, 20))
    assert scaled.value.problems == [image_problem(path)]


def test_cache_tells_the_scales_apart(tmp_path):
    path, cache = photo(tmp_path / "a.jpg", 400, 240), PictureCache(10)
    for scale in ("full", "reduced", "full"):
        found = cache.load(path, (40, 40), jpeg_scale=scale)
        assert np.array_equal(found, load_image(path, (40, 40), jpeg_scale=scale))
