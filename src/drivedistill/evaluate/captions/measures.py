"""BLEU, ROUGE-L, METEOR and CIDEr of whole sets of answers, by the field's own scorers.

CLKD, EM-VLM4AD and DriveLM's challenge all use coco-caption's code on PTB tokens; so do we (`pycocoevalcap`).
BLEU, METEOR and CIDEr are properties of a set, not means over samples: a group is always scored as one, never in
shards. CIDEr even takes its word weights from the references of the set that is scored.

Half of DriveLM's answers have at most two words: BLEU-4 of a single correct "No." is 3e-5.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Literal, TypeVar

from drivedistill.evaluate.captions import statistics
from drivedistill.evaluate.captions.cider import cider, count_ngrams
from drivedistill.evaluate.captions.java import (
    PUNCTUATION,
    Meteor,
    find_java,
    ptb_tokenize,
    scorers_folder,
    scorers_version,
)
from drivedistill.evaluate.captions.statistics import Pair
from drivedistill.evaluate.measure import Measure

Tokenizer = Literal["ptb", "approximate"]
Key = TypeVar("Key")


def caption_measures(
    groups: Mapping[Key, Sequence[Pair]], *, meteor: bool = True, tokenizer: Tokenizer = "ptb"
) -> dict[Key, dict[str, Measure]]:
    """`bleu_1` .. `bleu_4`, `meteor`, `rouge_l`, `cider` and `avg` of several sets, each over all of its pairs.

    One tokenizer run and one METEOR process serve all sets. A measure's statistics have one row for every pair, in order;
    its value of a single row is the score of that pair.

    Sources: coco-caption (Chen et al. 2015) as packaged in pycocoevalcap 1.2: `bleu_scorer.py` (closest reference
    length, no smoothing), `rouge.py` (beta 1.2), `cider_scorer.py` (n 4, sigma 6, x10), `meteor.py` (1.5, -norm). CIDEr
    takes its word weights from all references of a set; drawing from the set leaves them as they are.

    Args:
        groups: Pairs of (reference, hypothesis); a pair may belong to several groups.
        meteor: METEOR costs about six seconds to start, and a millisecond or two per pair.
        tokenizer: `ptb` is what the papers use and needs Java. `approximate` splits words with a regular expression:
            numbers near the papers', never METEOR, and labelled as an approximation.

    Returns:
        The measures of each group, under its key: fractions of 1, CIDEr of 10, `avg` (CLKD's mean of BLEU-4, METEOR and
        ROUGE-L, Table I) in percent. `meteor` and `avg` are missing where there is no METEOR, `cider` where no reference
        has a token.

    Raises:
        ValueError: A group is empty.
        InputError: The scorers or Java are missing.
        RunError: A Java program failed.
    """
    empty = [key for key, pairs in groups.items() if not pairs]
    if empty:
        raise ValueError(f"`groups` must not contain empty groups, got {empty}.")
    scorers_folder()  # the reason, if they are missing
    with_meteor = meteor and tokenizer == "ptb"
    label = implementation(tokenizer, meteor=with_meteor)
    # METEOR loads its tables while the other metrics are computed.
    with Meteor() if with_meteor else nullcontext() as scorer:
        tokens = _tokens(groups, tokenizer)
        row_of = {
            pair: row for row, pair in enumerate(dict.fromkeys(pair for pairs in tokens.values() for pair in pairs))
        }
        pairs = list(row_of)
        bleu, rouge, grams = statistics.bleu_statistics(pairs), statistics.rouge_l(pairs), count_ngrams(pairs)
        aligned = None if scorer is None else statistics.meteor_statistics(scorer.align(pairs))
    found = {}
    for key, members in tokens.items():
        rows = [row_of[pair] for pair in members]
        alignments = None if aligned is None else aligned[rows]
        found[key] = statistics.measures_of(bleu[rows], alignments, rouge[rows], cider(grams, rows), label)
    return found


def implementation(tokenizer: Tokenizer, *, meteor: bool) -> str:
    """Scorer, tokenizer and Java with their versions: the label of every number made here."""
    scorer = f"pycocoevalcap {scorers_version()}"
    if tokenizer == "approximate":
        return f"{scorer}, approximate word tokenizer (not PTB: do not compare with papers)"
    return f"{scorer}, PTB tokenizer (CoreNLP 3.4.1){', METEOR 1.5' if meteor else ''}, Java {find_java()[1]}"


def approximate_tokenize(text: str) -> str:
    """Lower-cased words without punctuation, near PTB's where no Java can be had; numbers and `<` `>` stay tokens."""
    tokens = re.findall(r",?\d+(?:[.,]\d+)+|\w+(?:[-/]\w+)*|'\w+|[^\w\s]", text.lower())
    return " ".join(token for token in tokens if token not in PUNCTUATION)


def _tokens(groups: Mapping[Key, Sequence[Pair]], tokenizer: Tokenizer) -> dict[Key, list[Pair]]:
    """The groups in tokens; every text is tokenised once."""
    texts = list(dict.fromkeys(text for pairs in groups.values() for pair in pairs for text in pair))
    tokenized = dict(zip(texts, _tokenize(texts, tokenizer), strict=True))
    return {key: [(tokenized[ref], tokenized[hyp]) for ref, hyp in pairs] for key, pairs in groups.items()}


def _tokenize(texts: list[str], tokenizer: Tokenizer) -> list[str]:
    if tokenizer == "ptb":
        return ptb_tokenize(texts)
    if tokenizer == "approximate":
        return [approximate_tokenize(text) for text in texts]
    raise ValueError(f"`tokenizer` must be 'ptb' or 'approximate', got {tokenizer!r}.")
