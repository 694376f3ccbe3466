"""Published UniRepLKNet weights for `LargeKernelModel`: training form, merged form, or one of our own checkpoints.

The published checkpoints are pickles, which this package never opens. Whoever has one converts it once, elsewhere:

    weights = torch.load("unireplknet_n_in1k_224_acc81.64.pth", weights_only=True)
    safetensors.torch.save_file(weights.get("model", weights), "FOLDER/model.safetensors")

Names as in the published code (AILab-CVC/UniRepLKNet, unireplknet.py); timm's conversion renames them and is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from transformers.utils import cached_file

from drivedistill.models.large_kernel import LargeKernelModel
from drivedistill.problems import InputError, Problem, unavailable

_BATCH_NORM_EPS = 1e-5
_BLOCK = re.compile(r"(stages\.\d+\.\d+)\.(.+)")
_Named = Callable[[str], Tensor]
_OTHER = "name weights of the same variant, or change the preset or model.overrides to match them"


def load_large_kernel_weights(model: LargeKernelModel, name: str) -> None:
    """Fill the network from a directory or hub id with a `model.safetensors`; see the module for the names in it.

    Raises:
        InputError: There is no such file, or it holds another network; every difference is listed.
    """
    try:
        tensors = load_file(str(cached_file(name, "model.safetensors")))
    except (OSError, ValueError, SafetensorError) as error:
        what = "UniRepLKNet weights in model.safetensors (published .pth files are pickles and must be converted)"
        raise InputError(unavailable(name, what, error)) from error
    try:
        found = merge_published(tensors)
    except KeyError as error:
        remedy = "use the names of the published code; timm's differ"
        raise InputError(Problem(name, str(error.args[0]), "a tensor", "nothing", remedy)) from error
    wanted = model.state_dict()
    problems = [Problem(name, key, "a tensor", "nothing", _OTHER) for key in sorted(wanted.keys() - found.keys())]
    for key in sorted(found.keys() - wanted.keys()):
        problems.append(Problem(name, key, "no such tensor", "a tensor that the model has no place for", _OTHER))
    for key in sorted(wanted.keys() & found.keys()):
        if (expected := tuple(wanted[key].shape)) != (shape := tuple(found[key].shape)):
            problems.append(Problem(name, key, f"shape {expected}", f"shape {shape}", _OTHER))
    if problems:
        raise InputError(problems)
    model.load_state_dict(found)


def merge_published(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published names, in training or merged form, to the names and values of `LargeKernelModel`.

    Batch norms are folded into the layers before them, dilated branches into the large kernel, the layer scale and
    GRN's bias into the last linear layer. Tensors that are ours already pass unchanged; a classification head is left out.

    Raises:
        KeyError: A block lacks a tensor.
    """
    merged: dict[str, Tensor] = {}
    blocks: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if match := _BLOCK.fullmatch(key):
            blocks.setdefault(match[1], {})[match[2]] = value.float() if value.is_floating_point() else value
        elif not key.startswith("head."):
            merged[key] = value.float()
    for prefix, block in blocks.items():
        ours = block if "depthwise.weight" in block else _merged_block(prefix, block)
        merged |= {f"{prefix}.{key}": value for key, value in ours.items()}
    return merged


def _merged_block(prefix: str, block: dict[str, Tensor]) -> dict[str, Tensor]:
    def named(key: str) -> Tensor:
        if key not in block:
            raise KeyError(f"{prefix}.{key}")
        return block[key]

    large = any(key.startswith("dwconv.lk_origin") for key in block)
    weight, bias = _depthwise(block, named, "dwconv.lk_origin" if large else "dwconv")
    project, offset = named("pwconv2.0.weight"), block.get("pwconv2.0.bias")
    offset = project.new_zeros(len(project)) if offset is None else offset
    if "act.1.beta" in block:  # GRN adds it to every position, so it can be added behind the linear layer
        offset = offset + project @ block["act.1.beta"].flatten()
    if "pwconv2.2.running_var" in block:
        project, offset = _folded(project, offset, named, "pwconv2.2")
    scale = block.get("gamma", project.new_ones(len(project)))
    return {
        "depthwise.weight": weight,
        "depthwise.bias": bias,
        "squeeze.down.weight": named("se.down.weight"),
        "squeeze.down.bias": named("se.down.bias"),
        "squeeze.up.weight": named("se.up.weight"),
        "squeeze.up.bias": named("se.up.bias"),
        "expand.weight": named("pwconv1.1.weight"),
        "expand.bias": named("pwconv1.1.bias"),
        "response.gamma": named("act.1.gamma").flatten(),
        "project.weight": project * scale[:, None],
        "project.bias": offset * scale,
    }


def _depthwise(block: dict[str, Tensor], named: _Named, conv: str) -> tuple[Tensor, Tensor]:
    """One kernel for the block's depthwise convolution, its dilated branches and its batch norms."""
    weight = named(f"{conv}.weight")
    bias = block.get(f"{conv}.bias", weight.new_zeros(len(weight)))
    if "dwconv.origin_bn.running_var" in block:
        weight, bias = _folded(weight, bias, named, "dwconv.origin_bn")
        for key in sorted(block):
            if match := re.fullmatch(r"dwconv\.dil_conv_k(\d+)_(\d+)\.weight", key):
                kernel, offset = _folded(block[key], 0, named, f"dwconv.dil_bn_k{match[1]}_{match[2]}")
                weight, bias = weight + _spread(kernel, int(match[2]), weight.shape[-1]), bias + offset
    if "norm.running_var" in block:
        weight, bias = _folded(weight, bias, named, "norm")
    return weight, bias


def _folded(weight: Tensor, bias: Tensor | float, named: _Named, norm: str) -> tuple[Tensor, Tensor]:
    """A layer and the batch norm behind it as one layer."""
    factor = named(f"{norm}.weight") / (named(f"{norm}.running_var") + _BATCH_NORM_EPS).sqrt()
    offset = named(f"{norm}.bias") + (bias - named(f"{norm}.running_mean")) * factor
    return weight * factor.view(-1, *[1] * (weight.ndim - 1)), offset


def _spread(kernel: Tensor, dilation: int, side: int) -> Tensor:
    """A dilated depthwise kernel as a dense one of `side` x `side`, with zeros between its values."""
    dense = functional.conv_transpose2d(kernel, torch.ones(1, 1, 1, 1), stride=dilation)
    margin = (side - dense.shape[-1]) // 2
    return functional.pad(dense, [margin] * 4)
