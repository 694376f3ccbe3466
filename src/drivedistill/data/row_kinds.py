"""What each token of an answer belongs to: a word, a number, or a part of an object's tag.

Object ids and coordinates are largely noise to a model (which of two cars is `c2`?), and the hardest tokens of a driving
answer are often just these; so mining must be able to see them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from drivedistill.batch import ROW_KINDS

WORD, NUMBER, COORDINATE, ID, CAMERA, END, TEMPLATE = range(len(ROW_KINDS))

_TAG = re.compile(r"(?P<id><\s*c\d+\s*,\s*)(?P<camera>CAM_[A-Z_]+\s*)(?P<point>,[^<>]*>)")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def row_kinds(text: str, tokenizer: Any) -> list[int]:
    """Indices into `ROW_KINDS` of an answer's tokens, its end token last.

    A token that reaches over two parts counts for the one that holds more of its characters. A tokenizer that cannot say
    where its tokens come from (`is_fast` is false) makes everything a word; `mining.exclude` is refused with it.
    """
    if not tokenizer.is_fast:
        return [WORD] * len(tokenizer(text, add_special_tokens=False).input_ids) + [END]
    kind_of = [WORD] * len(text)
    for kind, start, end in _spans(text):
        kind_of[start:end] = [kind] * (end - start)
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True).offset_mapping
    return [_commonest(kind_of[start:end]) for start, end in offsets] + [END]


def _spans(text: str) -> Iterator[tuple[int, int, int]]:
    """(kind, start, end) of everything that is no word; tags come after the numbers inside them."""
    for match in _NUMBER.finditer(text):
        yield NUMBER, *match.span()
    for match in _TAG.finditer(text):
        yield ID, *match.span("id")
        yield CAMERA, *match.span("camera")
        yield COORDINATE, *match.span("point")


def _commonest(kinds: list[int]) -> int:
    return max(sorted(set(kinds)), key=kinds.count) if kinds else WORD
