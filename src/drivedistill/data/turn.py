"""How a decoder-only model's processor is asked: one tile per picture or many, and what its template writes around an answer.

    <|im_start|>user\\n PICTURES QUESTION <|im_end|>\\n  <|im_start|>assistant\\n  ANSWER <|im_end|> \\n
                                                       header                            closing

Source: Drive-KD's released code (`image_loader.py`, `qa_loader.py`): one square tile per picture, whatever its shape, and the
whole turn of the assistant supervised, from its header to what closes it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, NamedTuple

from drivedistill.problems import InputError, Problem

Tiles = Literal["one", "dynamic"]
PROBE_ANSWER = "Keep lane."


class Turn(NamedTuple):
    """Token ids around an answer, as a chat template writes them."""

    header: tuple[int, ...]
    """The role's header, which ends the prompt."""
    closing: tuple[int, ...]
    """What follows the answer; the end token is the first of it."""


@lru_cache(maxsize=4)
def turn_of(processor: Any) -> Turn:
    """What a processor's chat template writes around an answer.

    Raises:
        InputError: The template changes the answer, has no end token behind it, or does not begin its turn as a prompt ends.
    """
    asked = [{"role": "user", "content": [{"type": "text", "text": "What now?"}]}]
    answer = {"role": "assistant", "content": [{"type": "text", "text": PROBE_ANSWER}]}
    question = processor.apply_chat_template(asked)
    prompt = processor.apply_chat_template(asked, add_generation_prompt=True)
    whole = processor.apply_chat_template([*asked, answer])
    tokenizer = processor.tokenizer
    if prompt.startswith(question) and whole.startswith(prompt + PROBE_ANSWER):
        header = tokenizer(prompt.removeprefix(question), add_special_tokens=False).input_ids
        closing = tokenizer(whole.removeprefix(prompt + PROBE_ANSWER), add_special_tokens=False).input_ids
        if closing[:1] == [tokenizer.eos_token_id]:
            return Turn(tuple(header), tuple(closing))
    expected = f"a chat template that ends a prompt as it begins an answer, and an answer with {tokenizer.eos_token!r}"
    remedy = "set data.supervise=answer, or mend the template"
    raise InputError(Problem("recipe", "data.supervise", expected, f"{prompt!r} and {whole!r}", remedy))


def can_tile(processor: Any) -> bool:
    """Whether a family cuts pictures into as many tiles or tokens as their shape wants."""
    images = processor.image_processor
    return hasattr(images, "crop_to_patches") or hasattr(images, "merge_size")


def tile_settings(processor: Any, tiles: Tiles, image_size: int) -> dict[str, Any]:
    """Settings of a call with pictures; none where the processor's own decide.

    For one tile InternVL's image processor crops no patches, and Qwen2.5-VL's, which has no tiles, takes so many pixels and no
    others; then equal square pictures get equally many tokens whoever's processor it is.
    """
    images = processor.image_processor
    if tiles == "one" and hasattr(images, "crop_to_patches"):
        return {"crop_to_patches": False}
    if tiles == "one" and hasattr(images, "merge_size"):
        return {"size": {"shortest_edge": image_size**2, "longest_edge": image_size**2}}
    return {}


def tiling(processor: Any) -> dict[str, Any]:
    """What decides how many tokens a picture gets that keeps its shape, by the names of the image processor's settings."""
    images = processor.image_processor.to_dict()
    tokens = {"image_seq_length": getattr(processor, "image_seq_length", None)}
    names = ("size", "min_patches", "max_patches", "patch_size", "merge_size")
    return {name: value for name, value in (tokens | {n: images.get(n) for n in names}).items() if value is not None}
