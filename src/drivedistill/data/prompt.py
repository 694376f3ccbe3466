"""Words in, words out: the prompt, the tokenizer, and the points inside the text.

A point is written `<c1,CAM_BACK,1088.3,497.5>`: object, camera, x and y in pixels of the picture on disk. Half of what
a driving answer says hangs on such tags, so a tokenizer is accepted only when it gives them back unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from drivedistill.problems import InputError, Problem, unavailable

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

TEMPLATE = "Question: {question} Answer:"
"""EM-VLM4AD's prompt (multi_frame_dataset.py:28), used by every encoder-decoder of this project."""

PROBE = "<c1,CAM_BACK,1088.3,497.5> is {going} ahead; 20% slower.\nWhy?"
"""What a tokenizer must give back unchanged."""

POINT = re.compile(r"<(c\d+),(CAM_[A-Z_]+),(-?\d+(?:\.\d+)?),(-?\d+(?:\.\d+)?)>")
UNIT_DECIMALS = 5
"""DriveBench writes four decimals, which moves every third point by 0.1 pixel at 1600; five come back exactly."""

SizeOf = Callable[[str], tuple[int, int]]
"""Camera -> (width, height) of its picture in pixels."""


def prompt(question: str) -> str:
    """The text an encoder-decoder reads."""
    return TEMPLATE.format(question=question)


def to_unit(text: str, size_of: SizeOf) -> str:
    """Pixels (DriveLM) to 0-1 (DriveBench): every tag's x is divided by the width, y by the height."""
    return _map_points(text, size_of, lambda value, side: f"{value / side:.{UNIT_DECIMALS}f}")


def to_pixels(text: str, size_of: SizeOf) -> str:
    """0-1 back to pixels with one decimal, as DriveLM writes and scores them."""
    return _map_points(text, size_of, lambda value, side: f"{value * side:.1f}")


def _map_points(text: str, size_of: SizeOf, change: Callable[[float, int], str]) -> str:
    def mapped(match: re.Match[str]) -> str:
        name, camera, x, y = match.groups()
        width, height = size_of(camera)
        return f"<{name},{camera},{change(float(x), width)},{change(float(y), height)}>"

    return POINT.sub(mapped, text)


def train_tokenizer(texts: Iterable[str], size: int) -> PreTrainedTokenizerBase:
    """A byte-level BPE tokenizer with T5's special tokens, trained on the train split.

    Bytes make every text exact, whatever its alphabet; digits stay single, so that a coordinate is spelt and not looked
    up. `<pad>` is 0, `</s>` 1, `<unk>` 2, as in T5; `</s>` is appended to every text.

    Args:
        texts: Questions and answers.
        size: Number of tokens, at most; at least 259 (256 bytes and three special tokens).
    """
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = _byte_pairs(texts, size, ["<pad>", "</s>", "<unk>"], unknown="<unk>")
    end = tokenizer.token_to_id("</s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", end)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=4096
    )


def train_chat_tokenizer(
    texts: Iterable[str], size: int, *, pad: str, turn: str, end: str, others: Mapping[str, str]
) -> PreTrainedTokenizerBase:
    """The same for a decoder-only model: the chat template writes the special tokens, and nothing is appended.

    Args:
        texts: Questions and answers.
        size: Number of tokens, at most.
        pad: Fills batches.
        turn: Begins a turn of the chat.
        end: Ends a turn, and an answer.
        others: The family's further tokens by the name of the tokenizer's attribute.
    """
    from transformers import PreTrainedTokenizerFast

    tokenizer = _byte_pairs(texts, size, [pad, turn, end, *others.values()])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        eos_token=end,
        extra_special_tokens={"turn_token": turn, **others},
        model_max_length=4096,
    )


def _byte_pairs(texts: Iterable[str], size: int, special: list[str], unknown: str | None = None) -> Tokenizer:
    """Byte-level BPE with single digits; the special tokens come first."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if size < (least := len(alphabet) + len(special)):
        expected, remedy = f"at least {least} tokens", "raise the number"
        raise InputError(Problem("recipe", "model.tokenizer_size", expected, str(size), remedy))
    tokenizer = Tokenizer(models.BPE(unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """A tokenizer from a directory or hub id, able to write points.

    T5's vocabulary lacks `<`, `{`, `}` and the line break; EM-VLM4AD adds `<` (train.py:252). Added tokens fit into
    T5's 32,128 embedding rows, so nothing is resized.

    Raises:
        InputError: It cannot be loaded, or still changes points.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise InputError(unavailable(name, "a tokenizer (directory or hub id)", error)) from error
    make_exact(tokenizer, name)
    return tokenizer


def require_ends(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """An encoder-decoder needs a padding token to start with and an end token that the tokenizer appends.

    Raises:
        InputError: One of them is missing.
    """
    ids = tokenizer("Stop.").input_ids
    if tokenizer.pad_token_id is None or tokenizer.eos_token_id is None or ids[-1] != tokenizer.eos_token_id:
        found = f"pad {tokenizer.pad_token!r}, end {tokenizer.eos_token!r}, 'Stop.' encoded as {ids}"
        remedy = "use a T5-style tokenizer, or leave `model.tokenizer` empty to train one"
        raise InputError(Problem(name, "tokenizer", "padding, and an end token after every text", found, remedy))


def make_exact(tokenizer: PreTrainedTokenizerBase, name: str) -> list[str]:
    """Add the characters of `PROBE` that the tokenizer does not know; returns those added.

    Raises:
        InputError: The probe still does not come back.
    """
    unknown = [
        character
        for character in sorted(set(PROBE))
        if not character.isspace()
        and tokenizer.unk_token_id in tokenizer(character, add_special_tokens=False).input_ids
    ]
    if unknown:
        tokenizer.add_tokens(unknown)
    back = decode(tokenizer, tokenizer(PROBE).input_ids)
    if _squeeze(back) != _squeeze(PROBE):
        remedy = "use another tokenizer, or leave `model.tokenizer` empty to train one"
        raise InputError(
            Problem(name, "tokenizer", f"{PROBE!r} unchanged after encoding and decoding", repr(back), remedy)
        )
    return unknown


def decode(tokenizer: PreTrainedTokenizerBase, ids: Any) -> str:
    """Text of token ids without special tokens; T5's blank after an added `<` is removed."""
    text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return re.sub(r"<\s+(?=c\d+,)", "<", text)


def _squeeze(text: str) -> str:
    """Blanks removed: sentence-piece vocabularies do not keep line breaks and blanks around added tokens."""
    return re.sub(r"\s+", "", text)
