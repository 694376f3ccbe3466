"""Pictures from disk: decoded, checked, scaled, with the region's red rectangle.

Pictures become 8-bit RGB whatever they were (gray, palette, CMYK, 16 bit; transparency is dropped). Pixels stay as they
lie on disk: an EXIF orientation is not applied, because boxes and points refer to the stored pixels.

A large JPEG can be decoded at a half, a quarter or an eighth: the inverse cosine transform makes fewer pixels, which is where
the time goes. `jpeg_scale: reduced` does so and belongs to a model's way of reading, since pixels differ a little.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from drivedistill.problems import InputError, Problem, missing_file
from drivedistill.records import Region

try:
    from simplejpeg import decode_jpeg
except ImportError:  # the extra `fast`
    decode_jpeg = None

Drawing = Literal["target", "full"]
JpegScale = Literal["full", "reduced"]
Size = tuple[int, int]
Change = Callable[[str, Image.Image], Image.Image]
"""A picture's path and its pixels as they lie on disk (RGB) -> the same picture under other conditions, as large as before.
A pure function: whoever asks twice, in whatever process, sees the same picture."""
Decode = Callable[[str | Path, Size | None, int], tuple[Image.Image, Size]]

MAX_PIXELS = 64_000_000
"""Larger pictures are refused before they are decoded. A nuScenes picture has 1.4 million pixels."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM")
"""What is decoded. Pillow's other readers are not needed, and some of them start programs (EPS)."""

SPARE = 2
"""A reduced JPEG stays at least so many times as large as the picture that is asked for; what is left is antialiased."""

OFFICIAL_WIDTH = 2
"""Line width in CODA-LM's `convert2vqa.py`, in pixels of the full picture."""


def decode_picture(
    path: str | Path, wanted: Size | None = None, max_pixels: int = MAX_PIXELS
) -> tuple[Image.Image, Size]:
    """A picture's pixels.

    Args:
        path: The picture.
        wanted: Width and height of the picture that will be made of it, where a reduced JPEG will do; None: in full.
        max_pixels: Larger pictures are refused.

    Returns:
        An RGB picture, of the size that is wanted where it was reduced, else in full; and the size of the picture on disk.

    Raises:
        InputError: The picture is missing, empty, too large, cut off or not decodable.
    """
    with _open(Path(path), max_pixels) as image:
        full, scale = image.size, 1
        if wanted is not None and image.format == "JPEG":
            spare = min(full[0] // (SPARE * wanted[0]), full[1] // (SPARE * wanted[1]))
            scale = max((part for part in (2, 4, 8) if part <= spare), default=1)
        try:
            return _rgb(image) if wanted is None or scale == 1 else _reduced(Path(path), image, scale, wanted), full
        except Exception as error:  # decoders raise whatever they like on damaged pixels
            found = f"{type(error).__name__}: {error}"
            remedy = "fetch the picture again, or remove its questions"
            raise InputError(Problem(str(path), "", "a picture that can be decoded", found, remedy)) from error


def load_image(
    path: str | Path,
    size: Size | None,
    region: Region | None = None,
    drawing: Drawing = "target",
    max_pixels: int = MAX_PIXELS,
    change: Change | None = None,
    jpeg_scale: JpegScale = "full",
    decode: Decode = decode_picture,
) -> Image.Image:
    """Decode a picture, scale it and draw its region.

    Args:
        path: The picture.
        size: Width and height in pixels, reached by bilinear scaling with antialiasing; the aspect ratio is not kept
            (EM-VLM4AD). None keeps the picture's size.
        region: A box in pixels of the picture on disk; drawn as a red rectangle.
        drawing: `target` draws after scaling, so that the line is never thinner than a pixel. `full` draws two pixels
            on the full picture, as CODA-LM does; at 224 pixels little of it remains.
        max_pixels: Larger pictures are refused.
        change: Made to the full picture before anything else: a corruption, a control.
        jpeg_scale: `reduced` decodes a JPEG that is at least four times as large as `size` at the smallest of 1/2, 1/4
            and 1/8 that leaves twice `size`. Every other picture is decoded in full and comes out bit by bit as with
            `full`; so does one that is changed or drawn into at full size.
        decode: `decode_picture`, or a wrapper of it.

    Returns:
        An RGB picture.

    Raises:
        InputError: The picture is missing, empty, too large, cut off or not decodable.
    """
    whole = jpeg_scale == "full" or size is None or change is not None or (region is not None and drawing == "full")
    image, full = decode(path, None if whole else size, max_pixels)
    if change is not None:
        image = change(str(path), image)
    if region is not None and drawing == "full":
        _draw(image, region, full, OFFICIAL_WIDTH)
    if size is not None and size != full:
        image = image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)
    if region is not None and drawing == "target":
        scale = min(image.width / full[0], image.height / full[1])
        _draw(image, region, full, max(1, round(OFFICIAL_WIDTH * scale)))
    return image


def image_size(path: str | Path, max_pixels: int = MAX_PIXELS) -> Size:
    """Width and height in pixels, from the file's header.

    Raises:
        InputError: The picture is missing, empty, too large or of an unknown format.
    """
    with _open(Path(path), max_pixels) as image:
        return image.size


def image_problem(path: str | Path, *, decode: bool = True, max_pixels: int = MAX_PIXELS) -> Problem | None:
    """What is wrong with a picture, or None.

    Args:
        path: The picture.
        decode: Decode every pixel; otherwise only the header is read, which does not find a picture that is cut off.
        max_pixels: Larger pictures are refused.
    """
    try:
        if decode:
            decode_picture(path, None, max_pixels)
        else:
            image_size(path, max_pixels)
    except InputError as error:
        return error.problems[0]
    return None


class PictureCache:
    """The pictures used last, decoded and scaled; safe to share between threads.

    Args:
        megabytes: Bound on the pixels kept (three bytes each); 0 keeps nothing.
        change: Made to every picture; see `load_image`.
    """

    def __init__(self, megabytes: int, change: Change | None = None) -> None:
        self.limit = megabytes * 1_000_000
        self.change = change
        self.bytes = 0
        self._pictures: OrderedDict[tuple[object, ...], Image.Image] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> tuple[int, Change | None]:
        """A loading process begins with an empty cache of its own."""
        return self.limit, self.change

    def __setstate__(self, state: tuple[int, Change | None]) -> None:
        limit, change = state
        self.__init__(limit // 1_000_000, change)  # type: ignore[misc]

    def decode(self, path: str | Path, wanted: Size | None, max_pixels: int = MAX_PIXELS) -> tuple[Image.Image, Size]:
        """`decode_picture`, for those who watch it."""
        return decode_picture(path, wanted, max_pixels)

    def load(
        self,
        path: str | Path,
        size: Size | None,
        region: Region | None = None,
        drawing: Drawing = "target",
        jpeg_scale: JpegScale = "full",
    ) -> Image.Image:
        """`load_image`, remembered. The picture is shared: copy it before you change it."""
        key = (str(path), size, region.box if region else None, drawing if region else None, jpeg_scale)
        with self._lock:
            if key in self._pictures:
                self._pictures.move_to_end(key)
                return self._pictures[key]
        image = load_image(path, size, region, drawing, change=self.change, jpeg_scale=jpeg_scale, decode=self.decode)
        with self._lock:
            if key not in self._pictures and _bytes(image) <= self.limit:
                self._pictures[key] = image
                self.bytes += _bytes(image)
            while self.bytes > self.limit:
                self.bytes -= _bytes(self._pictures.popitem(last=False)[1])
        return image


def _bytes(image: Image.Image) -> int:
    return image.width * image.height * 3


def _open(path: Path, max_pixels: int) -> Image.Image:
    """A picture whose header was read and whose size is allowed."""
    remedy = "fetch the picture again, or remove its questions"
    if not path.is_file():
        raise InputError(missing_file(path, "a picture", "check the data root; unpack the pictures into it"))
    if path.stat().st_size == 0:
        raise InputError(Problem(str(path), "", "a picture", "an empty file (0 bytes)", remedy))
    expected = f"a picture of at most {max_pixels / 1e6:g} million pixels"
    try:
        image = Image.open(path, formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(Problem(str(path), "", expected, str(error), "scale the picture down")) from error
    except Exception as error:  # decoders raise whatever they like on damaged headers
        found = f"{type(error).__name__}: {error}"
        raise InputError(Problem(str(path), "", f"a picture ({', '.join(FORMATS)})", found, remedy)) from error
    if image.width * image.height > max_pixels:
        found = f"{image.width} x {image.height} pixels"
        image.close()
        raise InputError(Problem(str(path), "", expected, found, "scale the picture down"))
    return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels; 8 or 16 bits per channel are read")
    if image.mode.startswith("I"):
        # Pillow would clip 16-bit gray at 255 instead of scaling it.
        return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    image.load()
    return image if image.mode == "RGB" else image.convert("RGB")  # converting would copy megabytes


def _reduced(path: Path, image: Image.Image, scale: int, size: Size) -> Image.Image:
    """A JPEG decoded at 1/scale, then scaled bilinearly with antialiasing: by torch, whose result is Pillow's within one
    grey level and which is several times as quick on a processor with AVX2.
    """
    import torch  # reading and scoring load none

    pixels = _quickly(path, image, scale)
    if pixels is None:
        image.draft(None, (SPARE * size[0], SPARE * size[1]))
        pixels = np.array(_rgb(image))
    channels = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)  # in this order torch knows them as channels-last
    smaller = torch.nn.functional.interpolate(channels, (size[1], size[0]), mode="bilinear", antialias=True)
    return Image.fromarray(smaller.permute(0, 2, 3, 1)[0].numpy())


def _quickly(path: Path, image: Image.Image, scale: int) -> NDArray[np.uint8] | None:
    """The same pixels from a quicker binding of the same library; None where it is not installed or does not like the file."""
    if decode_jpeg is None or image.mode != "RGB":
        return None
    width, height = (-(-side // scale) for side in image.size)
    try:
        return decode_jpeg(path.read_bytes(), min_height=height, min_width=width)
    except ValueError:  # Pillow knows what is wrong with it, or reads it nevertheless
        return None


def _draw(image: Image.Image, region: Region, full: Size, width: int) -> None:
    """Draw the region in place: scaled from `full` to the picture's size, clipped, at least one pixel."""
    x, y, w, h = region.box
    across, down = image.width / full[0], image.height / full[1]
    left, right = (min(max(round(edge * across), 0), image.width - 1) for edge in (x, x + w))
    top, bottom = (min(max(round(edge * down), 0), image.height - 1) for edge in (y, y + h))
    ImageDraw.Draw(image).rectangle((left, top, right, bottom), outline=(255, 0, 0), width=width)
