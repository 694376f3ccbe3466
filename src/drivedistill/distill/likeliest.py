"""What is kept of a teacher's dense row: its k likeliest tokens, the mass of all others, and its loss on the true token.

One token takes `4 k + 4` bytes below 65,536 tokens of vocabulary (260 for k = 64), else `6 k + 4`:

    ids         uint16[k] or uint32[k]   likeliest first
    log_probs   float16[k]               under softmax(logits / T) over the whole vocabulary
    log_tail    float16                  log of the probability that all other tokens share; -inf where k is all of them
    gold_loss   float16                  cross-entropy on the true token at temperature 1

A log-probability is a logit less the log-normaliser, so that neither has to be kept. Half precision moves a probability
by at most 0.4 % down to e^-16; what is read back is scaled so that every row sums to one again, without which
the divergence of equal rows would not be zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import log_softmax

from drivedistill.batch import TopK
from drivedistill.distill.losses import cross_entropy

LARGEST = float(np.finfo(np.float16).max)
FIELDS = ("ids", "log_probs", "log_tail", "gold_loss")


def token_type(k: int, vocabulary: int) -> np.dtype[Any]:
    """The record of one token."""
    ids = "<u2" if vocabulary < 2**16 else "<u4"
    return np.dtype([("ids", ids, (k,)), ("log_probs", "<f2", (k,)), ("log_tail", "<f2"), ("gold_loss", "<f2")])


def likeliest(logits: Tensor, gold: Tensor, k: int, temperature: float) -> TopK:
    """Cut dense rows down.

    Args:
        logits: `float[N, V]`, before any temperature.
        gold: `int64[N]`, the true tokens.
        k: Tokens kept, at most V.
        temperature: T of the log-probabilities.
    """
    log_p = log_softmax(logits.float() / temperature, dim=-1)
    log_probs, ids = log_p.topk(k, dim=-1)
    # Summed over the others: one minus the sum of the first loses all digits of a small tail.
    log_tail = log_p.scatter(1, ids, -torch.inf).logsumexp(dim=-1)
    return TopK(ids, log_probs, log_tail, cross_entropy(logits, gold), temperature)


def pack(top: TopK, vocabulary: int) -> NDArray[Any]:
    """`[N]` records of `token_type` from rows, rounded to half precision."""
    records = np.empty(len(top.ids), token_type(top.ids.shape[1], vocabulary))
    for name in FIELDS:
        values = getattr(top, name)
        if name != "ids":  # what half precision has no number for; -inf stays
            values = torch.where(values.isfinite(), values.clamp(-LARGEST, LARGEST), values)
        records[name] = values.cpu().numpy()
    return records


def unpack(records: NDArray[Any], temperature: float) -> TopK:
    """Rows from `[N]` records; every row's probabilities sum to one."""
    ids = torch.from_numpy(records["ids"].astype(np.int64))
    log_probs, log_tail, gold_loss = (torch.from_numpy(records[name].astype(np.float32)) for name in FIELDS[1:])
    total = torch.cat([log_probs, log_tail[:, None]], dim=1).logsumexp(dim=1)
    return TopK(ids, log_probs - total[:, None], log_tail - total, gold_loss, temperature)


def captured_mass(records: NDArray[Any]) -> NDArray[np.float64]:
    """`float64[N]`: the probability of the tokens that are kept, 1 where these are all."""
    return 1.0 - np.exp(records["log_tail"].astype(np.float64))
