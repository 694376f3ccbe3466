"""CIDEr of many sets whose pairs overlap: n-grams are counted once, every set weighs them anew.

The word weights of a set come from its own references, so tasks cannot share them; what costs time, counting n-grams and
finding those that two texts have in common, does not depend on the weights.

Source: `cider_scorer.py` of pycocoevalcap 1.2 (Vedantam et al. 2015, eq. 1 to 4, with clipped counts and a Gaussian of the
difference in length, both in bigrams): n 1 to 4, sigma 6, x10. Equal to 1e-12.

Legend: P distinct pairs, T distinct texts, V distinct n-grams.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from drivedistill.evaluate.measure import Floats

_ORDERS = 4
_SIGMA = 6.0

Ints: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class NGrams:
    """The n-grams of P distinct pairs, in flat arrays."""

    order: Ints
    """`int64[V]`: words of an n-gram, less one."""
    text: Ints
    """Text of each entry; an entry is an n-gram of a text."""
    gram: Ints
    count: Ints
    reference: Ints
    """`int64[P]`: text of the reference."""
    hypothesis: Ints
    """`int64[P]`: text of the hypothesis."""
    shared_pair: Ints
    """Pair of each n-gram that both of its texts contain."""
    shared_gram: Ints
    shared_count: Ints
    """min(count in hypothesis, count in reference) x count in reference."""


def count_ngrams(pairs: Sequence[tuple[str, str]]) -> NGrams:
    """Count the n-grams of tokenised (reference, hypothesis) pairs."""
    from pycocoevalcap.cider.cider_scorer import precook

    number_of = {text: row for row, text in enumerate(dict.fromkeys(text for pair in pairs for text in pair))}
    vocabulary: dict[tuple[str, ...], int] = {}
    found, counts, sizes = array("q"), array("q"), array("q")
    for words in number_of:
        cooked = precook(words, _ORDERS)
        found.extend([vocabulary.setdefault(ngram, len(vocabulary)) for ngram in cooked])
        counts.extend(cooked.values())
        sizes.append(len(cooked))
    gram, count, size = _ints(found), _ints(counts), _ints(sizes)
    text: Ints = np.repeat(np.arange(len(number_of)), size)
    reference = _ints([number_of[reference] for reference, _ in pairs])
    hypothesis = _ints([number_of[hypothesis] for _, hypothesis in pairs])
    # Every n-gram of every hypothesis, looked up among those of its reference.
    asked = size[hypothesis]
    pair: Ints = np.repeat(np.arange(len(pairs)), asked)
    first: Ints = np.cumsum(size) - size
    entry: Ints = np.arange(len(pair)) + np.repeat(first[hypothesis] - np.cumsum(asked) + asked, asked)
    key = text * len(vocabulary) + gram
    by_key = np.argsort(key)
    wanted = reference[pair] * len(vocabulary) + gram[entry]
    place: Ints = np.asarray(np.searchsorted(key, wanted, sorter=by_key))
    shared = np.append(key[by_key], -1)[place] == wanted
    true = count[by_key[place[shared]]]
    clipped = np.minimum(count[entry[shared]], true) * true
    order = _ints([len(ngram) - 1 for ngram in vocabulary])
    return NGrams(order, text, gram, count, reference, hypothesis, pair[shared], gram[entry[shared]], clipped)


def _ints(values: Sequence[int]) -> Ints:
    return np.array(values, dtype=np.int64)


def cider(grams: NGrams, rows: Sequence[int]) -> Floats | None:
    """CIDEr of every pair of a set, with weights from the references of the set.

    Args:
        grams: Of P pairs.
        rows: Which of the pairs make the set, n; a pair that occurs several times is named several times.

    Returns:
        `float64[n]`, 0 to 10; None where no reference has a word. The CIDEr of the set is the mean.
    """
    num_texts = max(grams.reference.max(), grams.hypothesis.max()) + 1
    documents = np.bincount(grams.reference[rows], minlength=num_texts).astype(float)
    frequency = np.bincount(grams.gram, weights=documents[grams.text], minlength=len(grams.order))
    if not frequency.any():
        return None
    weight = np.log(len(rows)) - np.log(np.maximum(1.0, frequency))
    cell = grams.text * _ORDERS + grams.order[grams.gram]
    squares = np.bincount(cell, weights=(grams.count * weight[grams.gram]) ** 2, minlength=num_texts * _ORDERS)
    norm = np.sqrt(squares).reshape(num_texts, _ORDERS)
    bigrams = np.bincount(cell, weights=grams.count, minlength=num_texts * _ORDERS).reshape(-1, _ORDERS)[:, 1]
    cell = grams.shared_pair * _ORDERS + grams.order[grams.shared_gram]
    products = grams.shared_count * weight[grams.shared_gram] ** 2
    dot = np.bincount(cell, weights=products, minlength=len(grams.reference) * _ORDERS).reshape(-1, _ORDERS)
    norms = norm[grams.hypothesis] * norm[grams.reference]
    cosine = np.divide(dot, norms, out=np.zeros_like(norms), where=norms > 0)  # bincount of nothing gives integers
    difference = bigrams[grams.hypothesis] - bigrams[grams.reference]
    found: Floats = 10 * cosine.mean(axis=1) * np.exp(-(difference**2) / (2 * _SIGMA**2))
    return found[rows]
