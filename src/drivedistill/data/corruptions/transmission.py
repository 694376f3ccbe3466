"""What a link does to pictures: few colours, hard compression, wrong bytes.

The last two make a film of the key frames of a scene and camera at 30 frames a second, which is what the original does:
MPEG-4 (OpenCV's `mp4v`: every twelfth frame whole, finest quantizer 3), and for H.265 that film encoded once more. Many
scenes have one key frame only, and then the film is that frame. They need PyAV, the extra `video`, and give the same
pictures for the same version of it (no threads are used).
"""

from __future__ import annotations

import functools
import io
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from drivedistill.data.corruptions.pixels import scale
from drivedistill.data.corruptions.shot import Shot
from drivedistill.data.images import Size, image_size, load_image
from drivedistill.problems import InputError, Problem

if TYPE_CHECKING:
    from av import VideoFrame

BITS = (4, 3, 2, 1)
"""Bits per channel. None would remain at the fifth severity (a black picture): there it is one bit in all, ours."""

BYTES_PER_ERROR = (100_000, 50_000, 30_000, 20_000, 10_000)
"""For pictures of nuScenes' width; fewer, in proportion, for narrower ones, whose films are smaller."""

FILM_WIDTH = 448
"""Narrower pictures are enlarged (by a whole number) for the film, and shrunk again: blocks of 16 pixels are too large for
them, and FFmpeg conceals the 50 blocks before an error, which can be a whole small picture."""

RATE_DIVISOR = (2, 4, 8, 16, 32)

FRAMES_PER_SECOND = 30
LEAST_RATE = 1000
"""Bits per second; x265 counts in thousands and takes zero for no limit."""
GRAY = (128, 128, 128)
FILMS_KEPT = 48
"""Encoded, a scene of forty frames has 10 megabytes at nuScenes' size."""


def color_quant(image: Image.Image, severity: int, shot: Shot) -> Image.Image:
    """The upper bits of each channel, as Pillow's `posterize`: 4, 3, 2, 1; severity 5 is black and gray (128)."""
    if severity > len(BITS):
        return ImageOps.posterize(image.convert("L"), 1).convert("RGB")
    return ImageOps.posterize(image, BITS[severity - 1])


def require_video(corruption: str) -> None:
    """Find out early whether there is what `bit_error` and `h265` need.

    Raises:
        InputError: There is no PyAV, or it has no encoder for MPEG-4 or H.265.
    """
    try:
        import av
    except ImportError as error:
        found, remedy = str(error), 'pip install "drivedistill[video]"'
        raise InputError(Problem("command line", corruption, "PyAV", found, remedy)) from error
    for name in ("mpeg4", "libx265"):
        try:
            av.Codec(name, "w")
        except ValueError as error:  # av.codec.codec.UnknownCodecError is one
            remedy = "install PyAV's wheel (`pip install --force-reinstall --only-binary :all: av`)"
            found = f"PyAV {av.__version__} without it"
            raise InputError(Problem("command line", corruption, f"PyAV with {name}", found, remedy)) from error


def h265(image: Image.Image, severity: int, shot: Shot) -> Image.Image:
    """H.265 at an average bit rate of a sixteenth of the film's (severity 4), which is also the highest rate.

    An odd last row or column is cut off before, as in the original; here the one beside it takes its place, since a
    picture keeps its size.
    """
    paths, index = _film(shot, image.size)
    film = _compressed(paths, image.size, RATE_DIVISOR[severity - 1])
    frame = next(itertools.islice(_frames(film), index, None))
    return _shrunk(frame.to_image(), image.size)


def bit_error(image: Image.Image, severity: int, shot: Shot) -> Image.Image:
    """Wrong bytes in the film's packets, by the rule of FFmpeg's bitstream filter `noise`.

    The filter has no seed: it begins its sum with 0, ours with a number drawn for the film. A frame that cannot be decoded
    any more is the last one that could, as a player shows it; gray before the first. Damaged frames are shown as the
    decoder conceals them.
    """
    paths, index = _film(shot, image.size)
    film = _plain(paths, image.size)
    amount = round(BYTES_PER_ERROR[severity - 1] * scale(image) * _enlarged(image.size))
    place = shot.place
    start = int(shot.random(place.dataset, place.scene, place.camera).integers(2**32))
    shown = None
    for number, frame in _damaged(film, start, amount):
        if number > index:
            break
        shown = frame
    return Image.new("RGB", image.size, GRAY) if shown is None else _shrunk(shown, image.size)


def with_noise(packets: Sequence[bytes], start: int, amount: int) -> list[bytes]:
    """Overwrite bytes as FFmpeg's bitstream filter `noise=AMOUNT` does.

    A running sum of all bytes, each plus one, modulo 2^32; where it is a multiple of `amount`, about once in so many bytes,
    the byte becomes the sum's lowest eight bits.

    Args:
        packets: In order; the sum runs on from one to the next.
        start: What the sum begins with; FFmpeg's is 0.
        amount: Bytes per error on average.
    """
    result = []
    total = start
    for packet in packets:
        data = np.frombuffer(packet, np.uint8)
        sums = (total + np.cumsum(data.astype(np.int64) + 1)) % 2**32
        if len(data):
            total = int(sums[-1])
        result.append(np.where(sums % amount == 0, sums & 0xFF, data).astype(np.uint8).tobytes())
    return result


def _film(shot: Shot, size: Size) -> tuple[tuple[str, ...], int]:
    """The pictures of the shot's camera and scene with its size, and which of them it is."""
    paths = tuple(path for path in shot.sequence if path == shot.path or image_size(path) == size)
    return paths, paths.index(shot.path)


def _enlarged(size: Size) -> int:
    """By how much a picture is larger in its film."""
    return math.ceil(FILM_WIDTH / size[0])


@functools.lru_cache(FILMS_KEPT)
def _plain(paths: tuple[str, ...], size: Size) -> bytes:
    """The film that both begin with."""
    width, height = large = (size[0] * _enlarged(size), size[1] * _enlarged(size))
    pictures = (load_image(path, None).resize(large, Image.Resampling.BICUBIC) for path in paths)
    options = {"qmin": "3", "g": "12", "b": str(min(64 * FRAMES_PER_SECOND * width * height, 2**30))}
    return _encoded(pictures, "mpeg4", "mp4", options)


@functools.lru_cache(FILMS_KEPT)
def _compressed(paths: tuple[str, ...], size: Size, divisor: int) -> bytes:
    film = _plain(paths, size)
    bits = 8 * sum(len(packet) for packet in _packets(film))
    rate = str(max(LEAST_RATE, bits * FRAMES_PER_SECOND // len(paths) // divisor))
    # No threads: with them, what x265 does depends on the machine. No MP4: x265 gives a film of one frame random dates.
    options = {"b": rate, "maxrate": rate, "bufsize": rate, "x265-params": "pools=none:frame-threads=1:log-level=none"}
    return _encoded((frame.to_image() for frame in _frames(film)), "libx265", "hevc", options)


def _encoded(pictures: Iterator[Image.Image], codec: str, format: str, options: dict[str, str]) -> bytes:
    """A film; of pictures with an odd side the last row or column is left out."""
    import av

    first = next(pictures)
    width, height = first.width // 2 * 2, first.height // 2 * 2
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=format) as container:
        stream = container.add_stream(codec, rate=FRAMES_PER_SECOND, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        for number, picture in enumerate(itertools.chain([first], pictures)):
            frame = av.VideoFrame.from_image(picture.crop((0, 0, width, height)))
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def _frames(film: bytes) -> Iterator[VideoFrame]:
    """The frames of an undamaged film, in order."""
    import av

    with av.open(io.BytesIO(film)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        yield from container.decode(video=0)


def _packets(film: bytes) -> list[bytes]:
    """One packet per frame, in order."""
    import av

    with av.open(io.BytesIO(film)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def _damaged(film: bytes, start: int, amount: int) -> Iterator[tuple[int, Image.Image]]:
    """Number and picture of every frame that can be decoded after `with_noise`."""
    import av

    with av.open(io.BytesIO(film)) as container:
        decoder = container.streams.video[0].codec_context
        decoder.thread_count = 1
        for number, data in enumerate(with_noise(_packets(film), start, amount)):
            packet = av.Packet(len(data))
            packet.update(data)  # handed to the constructor it would lack the zeros that decoders read behind the end
            try:
                frames = decoder.decode(packet)
            except av.error.FFmpegError:
                continue  # this frame is lost
            for frame in frames:  # one: MPEG-4 without B-frames waits for none
                yield number, frame.to_image()


def _shrunk(frame: Image.Image, size: Size) -> Image.Image:
    """A film's frame as a picture: an odd row or column that was cut off is its neighbour's copy."""
    pixels = np.asarray(frame)
    missing = (size[1] * _enlarged(size) - frame.height, size[0] * _enlarged(size) - frame.width)
    whole = Image.fromarray(np.pad(pixels, ((0, missing[0]), (0, missing[1]), (0, 0)), "edge"))
    return whole.reduce(_enlarged(size))
