"""BLEU, ROUGE-L, METEOR and CIDEr of whole sets of answers, by the field's own scorers.

CLKD, EM-VLM4AD and DriveLM's challenge all use coco-caption's code on PTB tokens; so do we (`pycocoevalcap`).
BLEU, METEOR and CIDEr are properties of a set, not means over samples: a group is always scored as one, never in
shards. CIDEr even takes its word weights from the references of the set that is scored.

Half of DriveLM's answers have at most two words: BLEU-4 of a single correct "No." is 3e-5.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from drivedistill.evaluate import caption_statistics as statistics
from drivedistill.evaluate.caption_statistics import Pair
from drivedistill.evaluate.java import PUNCTUATION, Meteor, find_java, ptb_tokenize, scorers_folder, scorers_version
from drivedistill.evaluate.measure import Floats, Measure

Tokenizer = Literal["ptb", "approximate"]
Key = TypeVar("Key")


@dataclass(frozen=True)
class CaptionScores:
    """Scores of one set of n pairs; fractions of 1, CIDEr in 0 to 10."""

    n: int
    bleu_1: float
    bleu_2: float
    bleu_3: float
    bleu_4: float
    rouge_l: float
    """Mean of `rouge_l_each`."""
    meteor: float | None
    """Aggregated over the set, not the mean of the segments. None where it was not asked for or cannot be had."""
    cider: float | None
    """None where no reference has a token."""
    rouge_l_each: tuple[float, ...]
    meteor_each: tuple[float, ...] | None
    implementation: str

    @property
    def avg(self) -> float | None:
        """CLKD's average: mean of BLEU-4, METEOR and ROUGE-L, times 100 (Table I). None without METEOR."""
        return None if self.meteor is None else 100 * (self.bleu_4 + self.meteor + self.rouge_l) / 3


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
        meteor: METEOR costs about six seconds to start, and some milliseconds per pair.
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
    scorers_folder()
    texts = list(dict.fromkeys(text for pairs in groups.values() for pair in pairs for text in pair))
    tokenized = dict(zip(texts, _tokenize(texts, tokenizer), strict=True))
    tokens = {key: [(tokenized[ref], tokenized[hyp]) for ref, hyp in pairs] for key, pairs in groups.items()}
    distinct = list(dict.fromkeys(pair for pairs in tokens.values() for pair in pairs))
    row_of = {pair: row for row, pair in enumerate(distinct)}
    bleu, rouge = statistics.bleu_statistics(distinct), np.array(statistics.rouge_l(distinct))
    with_meteor = meteor and tokenizer == "ptb"
    aligned = _aligned(distinct) if with_meteor else None
    label = implementation(tokenizer, meteor=with_meteor)
    found = {}
    for key, pairs in tokens.items():
        rows = [row_of[pair] for pair in pairs]
        alignments = None if aligned is None else aligned[rows]
        found[key] = statistics.measures_of(bleu[rows], rouge[rows], statistics.cider(pairs), alignments, label)
    return found


def _aligned(pairs: Sequence[Pair]) -> Floats:
    with Meteor() as scorer:
        return statistics.meteor_statistics(scorer.align(pairs))


def caption_metrics(pairs: Sequence[Pair], *, meteor: bool = True, tokenizer: Tokenizer = "ptb") -> CaptionScores:
    """Scores of one set of (reference, hypothesis) pairs; see `score_groups`."""
    return score_groups({"": pairs}, meteor=meteor, tokenizer=tokenizer)[""]


def score_groups(
    groups: Mapping[Key, Sequence[Pair]], *, meteor: bool = True, tokenizer: Tokenizer = "ptb"
) -> dict[Key, CaptionScores]:
    """Scores of several sets, each over all of its pairs, with one tokenizer run and one METEOR process.

    Sources: coco-caption (Chen et al. 2015) as packaged in pycocoevalcap 1.2: `bleu_scorer.py` (closest reference
    length, no smoothing), `rouge.py` (beta 1.2), `cider_scorer.py` (n 4, sigma 6, x10), `meteor.py` (1.5, -norm).

    Args:
        groups: Pairs of (reference, hypothesis); a pair may belong to several groups.
        meteor: METEOR costs about six seconds to start, and some milliseconds per pair.
        tokenizer: `ptb` is what the papers use and needs Java. `approximate` splits words with a regular expression:
            numbers near the papers', never METEOR, and labelled as an approximation.

    Returns:
        The scores of each group, under its key.

    Raises:
        ValueError: A group is empty.
        InputError: The scorers or Java are missing.
        RunError: A Java program failed.
    """
    empty = [key for key, pairs in groups.items() if not pairs]
    if empty:
        raise ValueError(f"`groups` must not contain empty groups, got {empty}.")
    scorers_folder()
    texts = list(dict.fromkeys(text for pairs in groups.values() for pair in pairs for text in pair))
    tokenized = dict(zip(texts, _tokenize(texts, tokenizer), strict=True))
    tokens = {key: [(tokenized[ref], tokenized[hyp]) for ref, hyp in pairs] for key, pairs in groups.items()}
    with_meteor = meteor and tokenizer == "ptb"
    meteors = _meteor(tokens) if with_meteor else {}
    label = implementation(tokenizer, meteor=with_meteor)
    rouge_of_pair: dict[Pair, float] = {}
    return {key: _score(pairs, meteors.get(key), rouge_of_pair, label) for key, pairs in tokens.items()}


def rouge_l_each(groups: Mapping[Key, Sequence[Pair]], *, tokenizer: Tokenizer = "ptb") -> dict[Key, tuple[float, ...]]:
    """ROUGE-L of every pair, the same numbers as `score_groups(...)[key].rouge_l_each`, without the other metrics.

    Raises:
        InputError: The scorers or Java are missing.
        RunError: A Java program failed.
    """
    scorers_folder()
    texts = list(dict.fromkeys(text for pairs in groups.values() for pair in pairs for text in pair))
    tokenized = dict(zip(texts, _tokenize(texts, tokenizer), strict=True))
    known: dict[Pair, float] = {}
    return {key: _rouge([(tokenized[a], tokenized[b]) for a, b in pairs], known) for key, pairs in groups.items()}


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


def _tokenize(texts: list[str], tokenizer: Tokenizer) -> list[str]:
    if tokenizer == "ptb":
        return ptb_tokenize(texts)
    if tokenizer == "approximate":
        return [approximate_tokenize(text) for text in texts]
    raise ValueError(f"`tokenizer` must be 'ptb' or 'approximate', got {tokenizer!r}.")


def _meteor(tokens: Mapping[Key, list[Pair]]) -> dict[Key, tuple[float, list[float]]]:
    with Meteor() as scorer:
        return {key: scorer.score(pairs) for key, pairs in tokens.items()}


def _score(
    pairs: list[Pair], meteor: tuple[float, list[float]] | None, rouge_of_pair: dict[Pair, float], label: str
) -> CaptionScores:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider

    references = {number: [reference] for number, (reference, _) in enumerate(pairs)}
    hypotheses = {number: [hypothesis] for number, (_, hypothesis) in enumerate(pairs)}
    bleu, _ = Bleu(4).compute_score(references, hypotheses, verbose=0)
    # The scorer fails where it finds no word to weigh.
    has_words = any(reference for reference, _ in pairs)
    cider = float(Cider().compute_score(references, hypotheses)[0]) if has_words else None
    each = _rouge(pairs, rouge_of_pair)
    return CaptionScores(
        n=len(pairs),
        bleu_1=float(bleu[0]),
        bleu_2=float(bleu[1]),
        bleu_3=float(bleu[2]),
        bleu_4=float(bleu[3]),
        rouge_l=sum(each) / len(pairs),
        meteor=meteor[0] if meteor else None,
        cider=cider,
        rouge_l_each=each,
        meteor_each=tuple(meteor[1]) if meteor else None,
        implementation=label,
    )


def _rouge(pairs: list[Pair], known: dict[Pair, float]) -> tuple[float, ...]:
    """ROUGE-L of tokenized pairs; what was computed before is taken from `known`, which grows."""
    from pycocoevalcap.rouge.rouge import Rouge

    rouge = Rouge()
    for reference, hypothesis in set(pairs) - known.keys():
        known[reference, hypothesis] = float(rouge.calc_score([hypothesis], [reference]))
    return tuple(known[pair] for pair in pairs)
