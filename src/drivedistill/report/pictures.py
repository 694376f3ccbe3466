"""Pictures of frames as data URIs, small, with the places that questions name."""

from __future__ import annotations

import io
import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from drivedistill.data.images import image_size, load_image
from drivedistill.data.mixture import load_source
from drivedistill.data.prior import NUMBER, OBJECT
from drivedistill.problems import InputError, Problem
from drivedistill.records import Prediction, Sample
from drivedistill.report.evidence import ReportRow
from drivedistill.report.markup import Html, el
from drivedistill.sections import Source

SIDE = 112
"""Longest side of an embedded picture, pixels."""
ORDER = ("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT")
"""As one looks around: ahead above, behind below."""
_SAYS_MORE = re.compile(rb"\xff[\xe1-\xed\xef\xfe]")
"""Marks of JPEG segments with anything but pixels and their colours: EXIF (where, when, whose camera), XMP, comments."""


@dataclass(frozen=True)
class Library:
    """Questions with their pictures, as far as the data are here."""

    samples: dict[str, Sample]
    """By id."""
    missing: tuple[Problem, ...]
    """Why sources could not be read."""


def find_samples(rows: Sequence[ReportRow], split: str) -> Library:
    """Read the questions of a split of the rows' own data, for their pictures.

    Args:
        rows: Runs with a recipe.
        split: Of their sources.
    """
    sources = {
        _key(source, split): source
        for row in rows
        if row.recipe is not None
        for source in row.recipe.data.sources
        if split in (source.files if source.split_by == "file" else source.fractions)
    }
    samples: dict[str, Sample] = {}
    missing: list[Problem] = []
    for source in sources.values():
        try:
            found = load_source(_only(source, split)).get(split, [])
        except InputError as error:  # a report can be made where the data are not
            missing.append(error.problems[0])
            continue
        samples |= {sample.id: sample for sample in found}
    return Library(samples, tuple(missing))


def _key(source: Source, split: str) -> tuple[str, ...]:
    """What is read for a split: a source of the same key has the same questions in it."""
    if source.split_by == "file":
        return source.format, str(source.root), source.files[split]
    return source.format, str(source.root), source.file, source.split_by, str(source.fractions), str(source.seed)


def _only(source: Source, split: str) -> Source:
    """The source with no other file than the split's, and all of its questions."""
    changes: dict[str, object] = {"every": {}, "templates": [], "without": [], "limit": None}
    if source.split_by == "file":
        changes["files"] = {name: file for name, file in source.files.items() if name == split}
    return source.model_copy(update=changes)


def views(sample: Sample, asked: Sequence[Prediction], samples: Sequence[Sample]) -> Html:
    """The pictures of a frame, with marks where the questions about it name a place or a region.

    Args:
        sample: Any question of the frame; its pictures are shown.
        asked: The questions that are shown beside the pictures.
        samples: These questions as the data set has them.
    """
    cameras = [camera for camera in ORDER if camera in sample.images]
    cameras += [camera for camera in sample.images if camera not in cameras]
    pictures = [_view(camera, Path(sample.images[camera]), asked, samples) for camera in cameras]
    return el("div", *pictures, class_="views", data_count=str(len(pictures)))


def _view(camera: str, path: Path, asked: Sequence[Prediction], samples: Sequence[Sample]) -> Html:
    name = camera.removeprefix("CAM_").replace("_", " ").lower()
    try:
        width, height = image_size(path)
        source = data_uri(path)
    except InputError as error:
        return el(
            "figure", el("p", f"{path.name}: {error.problems[0].found}", class_="missing"), el("figcaption", name)
        )
    marks = []
    for label, x, y in _places(asked, camera):
        where = f"left:{_percent(x, width)};top:{_percent(y, height)}"
        marks.append(el("span", el("b", label), class_="mark", style=where, aria_hidden="true"))
    for region in dict.fromkeys(one.region for one in samples if one.region and one.region.camera == camera):
        x, y, w, h = region.box
        where = f"left:{_percent(x, width)};top:{_percent(y, height)};"
        size = f"width:{_percent(w, width)};height:{_percent(h, height)}"
        marks.append(el("span", class_="region", style=where + size, aria_hidden="true"))
    image = el("img", src=source, alt=f"View {name}", width=SIDE, height=round(SIDE * height / width))
    return el("figure", el("div", image, *marks, class_="view"), el("figcaption", name))


def _places(asked: Sequence[Prediction], camera: str) -> list[tuple[str, float, float]]:
    """Objects that questions name in a picture: name, x, y in pixels; each once. What is no number is no place."""
    found = dict.fromkeys(place for item in asked for place in OBJECT.findall(item.question) if place[1] == camera)
    whole = [place for place in found if all(NUMBER.fullmatch(number) for number in place[2:])]
    return [(label, float(x), float(y)) for label, _, x, y in whole]


def _percent(value: float, whole: float) -> str:
    return f"{min(100.0, max(0.0, 100 * value / whole)):.1f}%"


def data_uri(path: Path) -> str:
    """A picture inside the page: a small JPEG as it lies on disk, if it says nothing but pixels; another one made anew."""
    width, height = image_size(path)
    raw = path.read_bytes()
    if max(width, height) > SIDE or not raw.startswith(b"\xff\xd8") or _SAYS_MORE.search(raw):
        scale = min(1.0, SIDE / max(width, height))
        picture = load_image(path, (max(1, round(width * scale)), max(1, round(height * scale))))
        picture.info.clear()  # the comment would be written again
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=85)
        raw = buffer.getvalue()
    return f"data:image/jpeg;base64,{b64encode(raw).decode()}"
