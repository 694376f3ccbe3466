r"""Taps: what chosen layers of a language model looked at, while every layer keeps its fast attention.

.. math:: \bar A = \frac1H \sum_h \text{softmax}(q_h k_h^T / \sqrt d + \text{mask}), \qquad \bar A \in [0, 1]^{Q \times K}

A tapped layer computes its output as always (SDPA makes no maps) and, beside it, the head-averaged map of the rows that are
asked for, from the very queries and keys that it used: rotated, grouped, masked. Drive-KD's code asks eager attention for
every layer's map of every head instead, and SDPA's `output_attentions` would silently give none.

A decoder-only model is tapped in its self-attention; a T5 reader in its decoder's cross-attention, which is its text looking
at what the encoder made of pictures and question.

Legend: B samples, H heads, S positions, Q asked queries, K asked keys, d width of a head.
Source: Drive-KD (arXiv 2601.21288), trainer.py 1003-1032 and 145-169 of its released code.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from drivedistill.batch import Map, RoleInputs, Tap
from drivedistill.models.fusion import IMAGE, PADDING, TEXT
from drivedistill.problems import InputError, Problem

CHUNK_BYTES = 64 * 2**20
"""Maps of single heads that exist at once; more rows than that are done one portion after the other and, for gradients,
computed again."""


@dataclass
class Asked:
    """Hangs on an attention layer while a model is tapped."""

    queries: Tensor
    """`int64[B, Q]`: positions, -1 behind the last."""
    keys: Tensor
    """`int64[B, K]`"""
    taken: Tensor | None = None
    """`float32[B, Q, K]`"""
    over: bool = False
    """The forward has ended; gradient checkpointing still computes the map again, nobody keeps it."""


def tappable(model: Any) -> None:
    """Refuse a model whose layers are not known.

    Raises:
        InputError: Attention maps cannot be read off this kind of model; it is named.
    """
    kind = model.config.model_type
    if kind not in LANGUAGE_MODEL:
        expected = f"a model whose attention can be tapped: {', '.join(LANGUAGE_MODEL)}"
        found, remedy = f"model_type `{kind}` ({type(model).__name__})", "use another model, or remove distill.drivekd"
        raise InputError(Problem("recipe", "distill.drivekd", expected, found, remedy))


def depth(model: Any) -> int:
    """How many layers of a model can be tapped."""
    tappable(model)
    return len(_layers(model))


def width(model: Any) -> int:
    """Of a hidden state."""
    config = model.config
    return int(config.text.d_model if config.model_type == "driving_t5" else config.get_text_config().hidden_size)


def begin(model: Any, inputs: RoleInputs, taps: Iterable[Tap]) -> Callable[[], dict[Tap, Map]]:
    """Tap layers during the next forward.

    Args:
        model: A bare model of a supported family.
        inputs: What it is going to be given.
        taps: What is wanted.

    Returns:
        To be called after the forward: the maps, with gradient where the forward had one.
    """
    taps = list(taps)
    layers, where = _layers(model), places(model, inputs) if taps else {}
    stop = [_remember(layers[tap.layer]) for tap in taps if tap.signal == "hidden"]
    by_layer = {tap.layer: [t for t in taps if t.layer == tap.layer and t.signal == "attention"] for tap in taps}
    looking = {index: wanted for index, wanted in by_layer.items() if wanted}
    if looking:
        _install(_owner(model))
    for index, layer in enumerate(layers):  # a layer keeps it to the next forward: gradient checkpointing runs it again
        _attention(model, layer).asked = [Asked(*where[tap.block]) for tap in looking.get(index, ())]
    apart = getattr(model, "apart", None)
    if taps and apart:
        model.apart = False  # every layer is called once

    def end() -> dict[Tap, Map]:
        if apart is not None:
            model.apart = apart
        hidden = iter(stop)
        found = {}
        for tap in taps:
            queries, keys = where[tap.block]
            if tap.signal == "hidden":
                found[tap] = Map(next(hidden)(), queries, queries[:, :0])
                continue
            asked = _attention(model, layers[tap.layer]).asked[looking[tap.layer].index(tap)]
            if asked.taken is None:
                raise RuntimeError(f"layer {tap.layer} of {type(model).__name__} did not go through its attention.")
            found[tap] = Map(asked.taken, queries, keys)
            asked.taken, asked.over = None, True
        return found

    return end


def _remember(layer: nn.Module) -> Callable[[], Tensor]:
    """The output of a block at its next forward."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, given: Any, output: Any) -> None:
        if not kept:  # not what gradient checkpointing runs again
            kept.append(output[0] if isinstance(output, tuple) else output)

    handle = layer.register_forward_hook(keep)

    def taken() -> Tensor:
        handle.remove()
        return kept.pop()

    return taken


class _Enough(Exception):
    """The last layer that matters has been run."""


@contextmanager
def no_further(model: Any, layer: int) -> Iterator[None]:
    """Leave a forward without gradient when a layer has been run: who shows the first one need not think to the end."""

    def stop(*_: Any) -> None:
        raise _Enough

    handle = _layers(model)[layer].register_forward_hook(stop)
    try:
        yield
    except _Enough:
        pass
    finally:
        handle.remove()


@contextmanager
def entering(model: Any) -> Iterator[list[Tensor]]:
    """What the first layer is given, `float[B, S, d]` of every forward inside: the embeddings, pictures among them."""
    given: list[Tensor] = []
    handle = _layers(model)[0].register_forward_pre_hook(lambda _, positional: given.append(positional[0]))
    try:
        yield given
    finally:
        handle.remove()


# --- where ------------------------------------------------------------------------------------------------------------

LANGUAGE_MODEL: dict[str, Callable[[Any], Any]] = {
    "driving_t5": lambda model: model.language_model.decoder,
    "internvl": lambda model: model.model.language_model,
    "qwen2_5_vl": lambda model: model.model.language_model,
    "llava": lambda model: model.model.language_model,
}


def _owner(model: Any) -> Any:
    """The part whose attention implementation decides."""
    return LANGUAGE_MODEL[model.config.model_type](model)


def _layers(model: Any) -> list[Any]:
    part = _owner(model)
    return list(part.block if hasattr(part, "block") else part.layers)


def _attention(model: Any, layer: Any) -> Any:
    return layer.layer[1].EncDecAttention if model.config.model_type == "driving_t5" else layer.self_attn


def places(model: Any, inputs: RoleInputs) -> dict[str, tuple[Tensor, Tensor]]:
    """By block, the positions of queries and keys: `int64[B, Q]` and `int64[B, K]`, -1 behind the last."""
    if model.config.model_type == "driving_t5":
        names = ("input_ids", "attention_mask", "view_mask")
        kinds = model.token_kind(*(inputs.model[name] for name in names), inputs.model.get("points"))
        written = positions(inputs.model["decoder_attention_mask"].bool())
        return {"text_to_vision": (written, positions(kinds == IMAGE)), "full": (written, positions(kinds != PADDING))}
    assert inputs.token_kind is not None
    kinds, every = inputs.token_kind, positions(inputs.token_kind != PADDING)
    return {"text_to_vision": (positions(kinds == TEXT), positions(kinds == IMAGE)), "full": (every, every)}


def positions(mask: Tensor) -> Tensor:
    """`bool[B, S]` to `int64[B, most]`: where it is true, in order, -1 behind the last."""
    counts = mask.sum(dim=1)
    most = int(counts.max()) if len(counts) else 0
    order = torch.argsort((~mask).to(torch.int8), dim=1, stable=True)[:, :most]
    return torch.where(torch.arange(most, device=mask.device) < counts[:, None], order, -1)


# --- how --------------------------------------------------------------------------------------------------------------


def _install(part: Any) -> None:
    """Give a language model attention that can be tapped, on top of what it has."""
    now = part.config._attn_implementation
    if now.startswith("tapped_"):
        return
    name = f"tapped_{now}"
    if now not in ("sdpa", "eager"):
        found, remedy = f"attention `{now}` in {type(part).__name__}", "load the model with model.attention=sdpa"
        raise InputError(Problem("recipe", "model.attention", "sdpa or eager, which can be tapped", found, remedy))
    AttentionInterface.register(name, partial(_tapped, now))
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[now])
    part.set_attn_implementation(name)


def _tapped(
    underlying: str,
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """The layer's own attention; what was asked of the layer is computed beside it."""
    if underlying == "sdpa":
        plain = ALL_ATTENTION_FUNCTIONS["sdpa"]
    else:
        plain = sys.modules[type(module).__module__].eager_attention_forward
    for asked in getattr(module, "asked", ()):
        scale = options.get("scaling")
        bias = _bias(module, query, key, attention_mask, options)
        scaled = query * (query.shape[-1] ** -0.5 if scale is None else scale)
        made = average_map(scaled, key, bias, asked.queries, asked.keys)
        asked.taken = None if asked.over else made
    return plain(module, query, key, value, attention_mask, **options)


def _bias(module: Any, query: Tensor, key: Tensor, mask: Tensor | None, options: dict[str, Any]) -> Tensor | None:
    """What is added to the scores: `float[B or 1, H or 1, S, S']`; None: nothing."""
    causal = options.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    length, others = query.shape[2], key.shape[2]
    lowest = torch.finfo(torch.float32).min
    if mask is None and causal and length > 1:
        mask = torch.ones(length, others, dtype=torch.bool, device=query.device).tril(others - length)[None, None]
    if mask is not None:
        mask = mask[..., :others]
        if mask.dtype == torch.bool:
            mask = torch.zeros_like(mask, dtype=torch.float32).masked_fill_(~mask, lowest)
    position = options.get("position_bias")
    if position is None:
        return mask
    return position if mask is None else position + mask


def average_map(query: Tensor, key: Tensor, bias: Tensor | None, queries: Tensor, keys: Tensor) -> Tensor:
    """The head-averaged map of some rows, by portions of rows that fit `CHUNK_BYTES`.

    Args:
        query: `float[B, H, S, d]`, scaled.
        key: `float[B, G, S', d]`, H a multiple of G.
        bias: `float[B or 1, H or 1, S or 1, S']`, added to the scores.
        queries: `int64[B, Q]`, the rows asked for, -1 behind the last.
        keys: `int64[B, K]`, the columns asked for.

    Returns:
        `float32[B, Q, K]`; rows and columns behind the last are zero. Each row of a whole map sums to 1.
    """
    batch, heads, _, _ = query.shape
    most = max(1, CHUNK_BYTES // max(1, batch * heads * key.shape[2] * 4))
    portions = queries.split(most, dim=1) if queries.shape[1] else (queries,)
    if len(portions) == 1:
        return _rows_of_map(query, key, bias, queries, keys)
    again = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad)
    made = [
        checkpoint(_rows_of_map, query, key, bias, rows, keys, use_reentrant=False, preserve_rng_state=False)
        if again
        else _rows_of_map(query, key, bias, rows, keys)
        for rows in portions
    ]
    return torch.cat(made, dim=1)


def _rows_of_map(query: Tensor, key: Tensor, bias: Tensor | None, queries: Tensor, keys: Tensor) -> Tensor:
    batch, heads, length, size = query.shape
    groups, others, count = key.shape[1], key.shape[2], queries.shape[1]
    rows = queries.clamp_min(0)
    chosen = query.gather(2, rows[:, None, :, None].expand(batch, heads, count, size))
    chosen = chosen.reshape(batch, groups, heads // groups * count, size)
    scores = torch.matmul(chosen, key.transpose(2, 3)).float().reshape(batch, heads, count, others)
    if bias is not None:
        bias = bias.expand(batch, -1, length, others)
        scores = scores + bias.gather(2, rows[:, None, :, None].expand(batch, bias.shape[1], count, others))
    average = torch.softmax(scores, dim=-1).mean(dim=1)
    average = average.gather(2, keys.clamp_min(0)[:, None].expand(batch, count, keys.shape[1]))
    return average * ((queries >= 0)[:, :, None] & (keys >= 0)[:, None])
