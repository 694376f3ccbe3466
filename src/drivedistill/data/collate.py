"""Samples to `Batch`: the only place where targets are shifted, rows are chosen and decoder inputs are made.

Shift: `targets[b, t]` is the token that position t must predict, `IGNORE` elsewhere. Nobody else shifts, and `labels` is
never handed to a Hugging Face model, which would shift again. A one-off mask would miss the first answer token, and in
a driving answer that token often carries the decision.

A sample's tensors do not depend on its batch, apart from padding, which comes last and is masked.
Legend: B samples, C cameras, L question tokens, T answer tokens (encoder-decoder) or all tokens (decoder-only).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from drivedistill.batch import IGNORE, Batch, RoleInputs
from drivedistill.data.choices import in_words
from drivedistill.data.images import Drawing, JpegScale, PictureCache
from drivedistill.data.points import picture_size, points
from drivedistill.data.prior import family
from drivedistill.data.prompt import prompt, to_unit
from drivedistill.data.row_kinds import TEMPLATE, row_kinds
from drivedistill.data.sequences import extend, join
from drivedistill.data.turn import Tiles, Turn, tile_settings, turn_of
from drivedistill.problems import InputError, Problem
from drivedistill.records import CAMERAS, Region, Sample

TEXT, IMAGE, PADDING = 0, 1, 2
NAMED = re.compile(r"\bCAM_[A-Z_]+")
"""A camera, in an object's tag or in words."""
Family = Literal["driving_t5", "hf_vlm"]


class Reading(BaseModel):
    """How a model reads samples; saved as `reading.json` beside its weights, so that predicting reads as training did."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: Family
    image_size: int
    jpeg_scale: JpegScale = "full"
    region_drawing: Drawing = "target"
    coordinates: Literal["pixel", "unit"] = "pixel"
    choices: Literal["letter", "words"] = "letter"
    views: Literal["all", "named"] = "all"
    """`named`: only those of the cameras that the question names, see `views`."""
    points: bool = False
    """driving_t5: the places that a question names are inputs of their own, see `data/points.py`."""
    tiles: Tiles = "one"
    supervise: Literal["answer", "turn"] = "answer"
    """Both for hf_vlm, see `data/turn.py`."""
    max_question_tokens: int = 512
    max_answer_tokens: int = 512


class FeatureReader(Protocol):
    """Finds what a frozen vision tower made of a picture, which then need not be decoded."""

    @property
    def shape(self) -> tuple[int, int]:
        """P and D_v: tokens of a view and their width."""

    def read(self, path: str, region: Region | None, drawing: Drawing) -> Tensor:
        """`float[P, D_v]` of a picture with a region drawn into it."""


@dataclass(frozen=True)
class Preparation:
    """What turns samples into one model's tensors."""

    reading: Reading
    tokenizer: Any
    processor: Any
    """driving_t5: an image processor; hf_vlm: the model's own processor (tokenizer, images, chat template)."""
    pictures: PictureCache
    features: FeatureReader | None = None
    """driving_t5: read instead of pictures."""
    blind: bool = False
    """Leave every picture out; for controls, which ask what a model knows without looking."""


def collate(samples: Sequence[Sample], preparations: dict[str, Preparation]) -> Batch:
    """Make a batch.

    Args:
        samples: Samples with answers.
        preparations: By role; `student` is required, `teacher` only where it reads differently.

    Raises:
        InputError: A sample has no answer or no picture, or a text is longer than the model's limit.
        ValueError: The roles do not supervise the same tokens.
    """
    refuse_unlabelled(samples)
    inputs = {role: ENCODE[item.reading.family](samples, item) for role, item in preparations.items()}
    student = inputs["student"]
    gold = student.targets.flatten()[student.rows]
    for role, other in inputs.items():
        if not torch.equal(other.targets.flatten()[other.rows], gold):
            raise ValueError(f"`{role}` supervises other tokens than `student`; their tokenizers or prompts differ.")
    width = student.targets.shape[1]
    return Batch(
        ids=[sample.id for sample in samples],
        regimes=[sample.regime for sample in samples],
        capabilities=[sample.capability for sample in samples],
        templates=[family(sample) for sample in samples],
        gold=gold,
        sample_of_row=student.rows // width,
        row_kind=_row_kinds(samples, preparations["student"]),
        inputs=inputs,
    )


def questions(samples: Sequence[Sample], preparation: Preparation) -> dict[str, Tensor]:
    """Model inputs without answers, for generation. Decoder-only inputs are padded on the left, as `generate` needs."""
    if preparation.reading.family == "driving_t5":
        return _driving_t5_inputs(samples, preparation)
    prompts = [_vlm_prompt(sample, preparation) for sample in samples]
    return join(prompts, preparation.tokenizer.pad_token_id, left=True)


def refuse_unlabelled(samples: Sequence[Sample]) -> None:
    """Refuse samples that cannot be learnt from.

    Raises:
        InputError: Samples without an answer, all of them listed.
    """
    problems = [
        Problem(sample.dataset, f"sample {sample.id}", "an answer", "none", "choose a file with answers to learn from")
        for sample in samples
        if sample.answer is None
    ]
    if problems:
        raise InputError(problems)


def refuse_long(samples: Sequence[Sample], preparation: Preparation) -> None:
    """Find texts over the model's limits before the first step, not at step 30,000.

    Raises:
        InputError: Questions or answers that are too long, all of them listed.
    """
    reading = preparation.reading
    limits = {"question": reading.max_question_tokens, "answer": reading.max_answer_tokens}
    problems: list[Problem] = []
    for what, write in (("question", _question), ("answer", _answer)):
        texts = [write(sample, reading) for sample in samples]
        lengths = _lengths(list(dict.fromkeys(texts)), preparation.tokenizer)
        found = zip(samples, map(lengths.__getitem__, texts), strict=True)
        problems += [_too_long(s, what, length, limits[what]) for s, length in found if length > limits[what]]
    if problems:
        raise InputError(problems)


def _lengths(texts: list[str], tokenizer: Any) -> dict[str, int]:
    """Tokens of every text with its end token, in portions that fit into memory."""
    ended = bool(texts) and tokenizer(texts[0]).input_ids[-1:] == [tokenizer.eos_token_id]
    lengths: dict[str, int] = {}
    for start in range(0, len(texts), 5_000):
        portion = texts[start : start + 5_000]
        encoded = tokenizer(portion).input_ids
        lengths |= {text: len(ids) + (not ended) for text, ids in zip(portion, encoded, strict=True)}
    return lengths


# --- encoder-decoder: pictures and question go to the encoder, the answer to the decoder ---------------------------


def _encode_driving_t5(samples: Sequence[Sample], preparation: Preparation) -> RoleInputs:
    tokenizer, reading = preparation.tokenizer, preparation.reading
    model = _driving_t5_inputs(samples, preparation)
    answers = [
        _ids(tokenizer(_answer(sample, reading)).input_ids, reading.max_answer_tokens, sample, "answer")
        for sample in samples
    ]
    targets = pad_sequence(answers, batch_first=True, padding_value=IGNORE)
    start = torch.full((len(samples), 1), tokenizer.pad_token_id)  # T5 starts its decoder with the pad token
    previous = torch.cat([start, targets[:, :-1]], dim=1)
    model["decoder_input_ids"] = previous.masked_fill(previous == IGNORE, tokenizer.pad_token_id)
    model["decoder_attention_mask"] = (targets != IGNORE).long()
    return RoleInputs(model, targets, _rows(targets))


def _driving_t5_inputs(samples: Sequence[Sample], preparation: Preparation) -> dict[str, Tensor]:
    """`input_ids, attention_mask: int64[B, L]`, `view_mask: bool[B, C]`, and what the views show (see `_seen`).

    With `reading.points` also `points: float32[B, R, 3]`, the places that the questions name (see `data/points.py`).
    """
    tokenizer, reading = preparation.tokenizer, preparation.reading
    texts = [
        _ids(tokenizer(_question(sample, reading)).input_ids, reading.max_question_tokens, sample, "question")
        for sample in samples
    ]
    name, seen, present = _seen(samples, preparation)
    ids = pad_sequence(texts, batch_first=True, padding_value=tokenizer.pad_token_id)
    lengths = torch.tensor([len(text) for text in texts])
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    inputs = {"input_ids": ids, "attention_mask": mask, name: seen, "view_mask": present}
    if reading.points:
        inputs["points"] = torch.zeros(len(samples), 0, 3) if preparation.blind else points(samples)
    return inputs


def _seen(samples: Sequence[Sample], preparation: Preparation) -> tuple[str, Tensor, Tensor]:
    """`pixel_values: float[B, C, 3, H, W]` or `vision_features: float[B, C, P, D_v]`, and which views exist."""
    features, reading = preparation.features, preparation.reading
    name, shape = ("vision_features", features.shape) if features else ("pixel_values", (3, *_side(reading)))
    seen = torch.zeros(len(samples), len(CAMERAS), *shape)
    present = torch.zeros(len(samples), len(CAMERAS), dtype=torch.bool)
    for b, sample in enumerate(samples):
        for camera, path, region in () if preparation.blind else views(sample, preparation.reading):
            c = CAMERAS.index(camera)
            present[b, c] = True
            if features:
                seen[b, c] = features.read(path, region, reading.region_drawing)
            else:
                seen[b, c] = pixels(path, region, preparation)
    return name, seen, present


def pixels(path: str, region: Region | None, preparation: Preparation) -> Tensor:
    """One view as a driving_t5 model is given it: `float[3, H, W]`, scaled, with its region drawn, normalised."""
    shades, picture = _shades(preparation.processor), np.asarray(_picture(path, region, preparation))
    found = np.empty((3, *picture.shape[:2]), np.float32)
    for c in range(3):
        shades[c].take(picture[..., c], out=found[c], mode="clip")  # which is quicker than looking for wrong indices
    return torch.from_numpy(found)


@lru_cache(maxsize=4)
def _shades(processor: Any) -> NDArray[np.float32]:
    """`[3, 256]`: what an image processor makes of every value of a channel, bit by bit; looked up, not calculated again."""
    ramp: NDArray[np.uint8] = np.arange(256, dtype=np.uint8).reshape(256, 1, 1).repeat(3, axis=2)
    made = processor(Image.fromarray(ramp), do_resize=False, return_tensors="np").pixel_values[0, :, :, 0]
    return np.ascontiguousarray(made, np.float32)


# --- decoder-only: one sequence of pictures, question and answer ----------------------------------------------------


def _encode_vlm(samples: Sequence[Sample], preparation: Preparation) -> RoleInputs:
    tokenizer, reading = preparation.tokenizer, preparation.reading
    sequences: list[dict[str, Tensor]] = []
    targets: list[Tensor] = []
    for sample in samples:
        inputs = _vlm_prompt(sample, preparation)
        text = _answer(sample, reading)
        ids = [*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
        _ids(ids, reading.max_answer_tokens, sample, "answer")
        header, closing = _turn(preparation)
        if tuple(inputs["input_ids"][0, inputs["input_ids"].shape[1] - len(header) :].tolist()) != header:
            raise ValueError(f"the prompt of sample {sample.id} does not end with the tokens of its turn's header.")
        answer = torch.tensor([*ids[:-1], *closing])
        length = inputs["input_ids"].shape[1]
        inputs = {key: extend(key, value, answer, length) for key, value in inputs.items()}
        # The token before the first supervised one predicts it; the last answer token predicts nothing.
        shifted = torch.full_like(inputs["input_ids"][0], IGNORE)
        shifted[length - len(header) - 1 : -1] = inputs["input_ids"][0, length - len(header) :]
        sequences.append(inputs)
        targets.append(shifted)
    model = join(sequences, tokenizer.pad_token_id, left=False)
    padded = pad_sequence(targets, batch_first=True, padding_value=IGNORE)
    kinds = torch.where(model["input_ids"] == preparation.processor.image_token_id, IMAGE, TEXT)
    kinds[model["attention_mask"] == 0] = PADDING
    return RoleInputs(model, padded, _rows(padded), kinds.to(torch.int8))


def _turn(preparation: Preparation) -> Turn:
    """What is supervised besides the words of an answer."""
    if preparation.reading.supervise == "turn":
        return turn_of(preparation.processor)
    return Turn((), (preparation.tokenizer.eos_token_id,))


def _vlm_prompt(sample: Sample, preparation: Preparation) -> dict[str, Tensor]:
    """The processor's tensors for one sample: every view announced by its camera, then the question."""
    processor, reading = preparation.processor, preparation.reading
    shown = () if preparation.blind else views(sample, preparation.reading)
    pictures = {camera: _picture(path, region, preparation) for camera, path, region in shown}
    content: list[dict[str, str]] = []
    for camera in pictures:
        content += [{"type": "text", "text": f"{camera}: "}, {"type": "image"}]
    question = _question(sample, reading)
    if processor.image_token in question:
        found = f"the image token {processor.image_token!r} inside the text"
        remedy = "remove it from the question; pictures are placed by the template"
        raise InputError(
            Problem(sample.dataset, f"sample {sample.id}", "a question without image tokens", found, remedy)
        )
    content.append({"type": "text", "text": question})
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    _ids(preparation.tokenizer(question).input_ids, reading.max_question_tokens, sample, "question")
    settings = tile_settings(processor, reading.tiles, reading.image_size)
    seen = {"images": [list(pictures.values())], **settings} if pictures else {}
    return dict(processor(text=[text], return_tensors="pt", **seen))


# --- shared ---------------------------------------------------------------------------------------------------------


def _row_kinds(samples: Sequence[Sample], preparation: Preparation) -> Tensor:
    header, closing = _turn(preparation)
    kinds: list[int] = []
    for sample in samples:
        words = row_kinds(_answer(sample, preparation.reading), preparation.tokenizer)
        kinds += [*[TEMPLATE] * len(header), *words, *[TEMPLATE] * (len(closing) - 1)]
    return torch.tensor(kinds, dtype=torch.int8)


def _rows(targets: Tensor) -> Tensor:
    return (targets.flatten() != IGNORE).nonzero().squeeze(1)


def written(sample: Sample, reading: Reading) -> tuple[str, str]:
    """Question and answer as the tokenizer is given them."""
    return _question(sample, reading), _answer(sample, reading)


def _question(sample: Sample, reading: Reading) -> str:
    """The question as the tokenizer sees it; a decoder-only model's chat template comes around it later."""
    text = _write(sample, worded(sample, reading).question, reading)
    return prompt(text) if reading.family == "driving_t5" else text


def _answer(sample: Sample, reading: Reading) -> str:
    return _write(sample, worded(sample, reading).answer or "", reading)


def worded(sample: Sample, reading: Reading) -> Sample:
    """The sample with the question that a model is asked and the answer that it is to give, see `data/choices.py`."""
    return in_words(sample) if reading.choices == "words" else sample


def _write(sample: Sample, text: str, reading: Reading) -> str:
    if reading.coordinates == "pixel":
        return text
    return to_unit(text, lambda camera: picture_size(sample, camera))


def views(sample: Sample, reading: Reading | None = None) -> Iterator[tuple[str, str, Region | None]]:
    """Camera, picture and the region drawn into it, for every view of a sample in nuScenes order.

    With a `reading` that says `named` only views of the cameras that the question, as the model reads it, names; all where it
    names none of them (DriveBench's `tools/preprocess.py`, which looks at objects' tags alone).

    Raises:
        InputError: The sample has no picture.
    """
    if not sample.images:
        remedy = "remove the sample, or give it a picture"
        raise InputError(Problem(sample.dataset, f"sample {sample.id}", "at least one picture", "none", remedy))
    named: set[str] = set()
    if reading is not None and reading.views == "named":
        named = set(NAMED.findall(worded(sample, reading).question)) & sample.images.keys()
    for camera in CAMERAS:
        if camera in (named or sample.images):
            region = sample.region if sample.region and sample.region.camera == camera else None
            yield camera, sample.images[camera], region


def _picture(path: str, region: Region | None, preparation: Preparation) -> Image.Image:
    reading = preparation.reading
    size = _side(reading) if reading.tiles == "one" else None
    return preparation.pictures.load(path, size, region, reading.region_drawing, reading.jpeg_scale)


def _side(reading: Reading) -> tuple[int, int]:
    return reading.image_size, reading.image_size


def _ids(ids: list[int], limit: int, sample: Sample, what: str) -> Tensor:
    if len(ids) > limit:
        raise InputError(_too_long(sample, what, len(ids), limit))
    return torch.tensor(ids, dtype=torch.long)


def _too_long(sample: Sample, what: str, length: int, limit: int) -> Problem:
    remedy = f"raise data.max_{what}_tokens, or remove the sample"
    place = f"sample {sample.id}"
    return Problem(sample.dataset, place, f"at most {limit} {what} tokens", f"{length} tokens", remedy)


ENCODE: dict[str, Callable[[Sequence[Sample], Preparation], RoleInputs]] = {
    "driving_t5": _encode_driving_t5,
    "hf_vlm": _encode_vlm,
}
