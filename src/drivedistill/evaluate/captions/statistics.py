"""What one pair of texts adds to BLEU, METEOR and ROUGE-L, and the formulas from sums to scores.

Texts are PTB tokens joined by single spaces. Sources: `bleu_scorer.py` and `rouge.py` of pycocoevalcap 1.2;
`MeteorStats.java` and `MeteorScorer.java` of METEOR 1.5 (Denkowski and Lavie 2014).

Legend: n pairs; sums `[..., k]` may be those of a set, of many drawn sets, or the statistics of single pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from drivedistill.evaluate.measure import Floats, Measure, combined, mean_of

Pair = tuple[str, str]
"""Reference, hypothesis."""

_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_MODULES = np.array([1.0, 0.6, 0.8, 0.6])
"""METEOR 1.5's parameters for English (`Constants.java`); weights of exact, stem, synonym and paraphrase matches."""


def bleu_statistics(pairs: Sequence[Pair]) -> Floats:
    """`float64[n, 10]`: n-grams of the hypothesis for n = 1..4, those of them in the reference, both lengths in tokens."""
    from pycocoevalcap.bleu.bleu_scorer import cook_refs, cook_test

    found = np.empty((len(pairs), 10))
    for row, (reference, hypothesis) in enumerate(pairs):
        cooked = cook_test(hypothesis, cook_refs([reference]))
        found[row] = *cooked["guess"], *cooked["correct"], cooked["testlen"], *cooked["reflen"]
    return found


def bleu(order: int, sums: Floats) -> Floats:
    """BLEU-`order` of sums of `bleu_statistics`, `[..., 10]` to `[...]`.

    Source: `BleuScorer.compute_score`: no smoothing beyond its two constants, one reference, brevity penalty of the set.
    """
    small, tiny = 1e-9, 1e-15
    precision = (sums[..., 4 : 4 + order] + tiny) / (sums[..., :order] + small)
    length_ratio = (sums[..., 8] + tiny) / (sums[..., 9] + small)
    found: Floats = precision.prod(axis=-1) ** (1 / order) * np.exp(np.minimum(0, 1 - 1 / length_ratio))
    return found


def meteor_statistics(lines: Floats) -> Floats:
    """What METEOR's process says about n pairs, as the six sums that its score is made of.

    Args:
        lines: `float64[n, 23]`: lengths of hypothesis and reference; their function words; for each of four modules the
            matched content words of both, then the matched function words of both; chunks; matched words of both.

    Returns:
        `float64[n, 6]`: weighted matches and weighted length of the hypothesis, those of the reference, chunks, and the
        mean of both texts' matched words. A pair that matches from end to end in one chunk counts no chunk
        (`MeteorStats.addStats`).
    """
    lengths, function_words, matches = lines[:, :2], lines[:, 2:4], lines[:, 4:20].reshape(-1, 4, 2, 2)
    by_kind = np.array([_DELTA, 1 - _DELTA])
    weighted_length = _DELTA * (lengths - function_words) + (1 - _DELTA) * function_words
    weighted_matches = np.einsum("nmkt,m,k->nt", matches, _MODULES, by_kind)
    chunks = lines[:, 20]
    perfect = (matches.sum(axis=(1, 2)) == lengths).all(axis=1) & (chunks == 1)
    columns = [weighted_matches[:, 0], weighted_length[:, 0], weighted_matches[:, 1], weighted_length[:, 1]]
    return np.stack([*columns, np.where(perfect, 0, chunks), lines[:, 21:].mean(axis=1)], axis=1)


def meteor(sums: Floats) -> Floats:
    """METEOR of sums of `meteor_statistics`, `[..., 6]` to `[...]`; 0 where nothing matches.

    Source: `MeteorScorer.computeMetrics`: F-mean x (1 - gamma x (chunks / matches) ^ beta).
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, recall = sums[..., 0] / sums[..., 1], sums[..., 2] / sums[..., 3]
        f_mean = 1 / ((1 - _ALPHA) / precision + _ALPHA / recall)
        score = f_mean * (1 - _GAMMA * (sums[..., 4] / sums[..., 5]) ** _BETA)
    found: Floats = np.where(np.isnan(score), 0.0, np.maximum(score, 0.0))
    return found


def rouge_l(pairs: Sequence[Pair]) -> Floats:
    """ROUGE-L of every pair (beta 1.2), `float64[n]`."""
    from pycocoevalcap.rouge.rouge import Rouge

    rouge = Rouge()
    return np.array([rouge.calc_score([hypothesis], [reference]) for reference, hypothesis in pairs], dtype=np.float64)


def measures_of(
    bleu_rows: Floats, meteor_rows: Floats | None, rouge_each: Floats, cider_each: Floats | None, label: str
) -> dict[str, Measure]:
    """The measures of one set of n pairs.

    Args:
        bleu_rows: `bleu_statistics`.
        meteor_rows: `meteor_statistics`; None without METEOR.
        rouge_each: `float64[n]`.
        cider_each: `float64[n]`; None where it does not exist.
        label: Scorers and their versions.
    """
    n = len(bleu_rows)
    found = {f"bleu_{order}": Measure(bleu_rows, partial(bleu, order), label, n) for order in (1, 2, 3, 4)}
    found["rouge_l"] = mean_of(rouge_each.tolist(), label)
    if cider_each is not None:
        found["cider"] = mean_of(cider_each.tolist(), label)
    if meteor_rows is not None:
        found["meteor"] = Measure(meteor_rows, meteor, label, n)
        found["avg"] = combined([found[name] for name in ("bleu_4", "meteor", "rouge_l")], _average, label)
    return found


def _average(bleu_4: Floats, meteor: Floats, rouge_l: Floats) -> Floats:
    """CLKD's average in percent (Table I)."""
    return 100 * (bleu_4 + meteor + rouge_l) / 3
