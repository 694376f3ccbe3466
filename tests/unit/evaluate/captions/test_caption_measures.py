"""Caption metrics: properties, parity with pycocoevalcap 1.2 and METEOR itself, then vectors computed with them."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivedistill.evaluate.captions import java, statistics
from drivedistill.evaluate.captions.cider import cider, count_ngrams
from drivedistill.evaluate.captions.measures import approximate_tokenize, caption_measures
from drivedistill.evaluate.measure import draw_scenes, drawn_values

pytest.importorskip("pycocoevalcap")
BLEU = ("bleu_1", "bleu_2", "bleu_3", "bleu_4")

PAIRS = [
    (
        "The ego vehicle should keep going ahead at the same speed.",
        "The ego vehicle should keep going at the same speed.",
    ),
    ("Going ahead.", "Going ahead."),
    ("No.", "No."),
    (
        "There are many cars and one truck to the back left of the ego car.",
        "There are many cars to the back left of the ego car.",
    ),
    (
        "<c1,CAM_BACK,1088.3,497.5> is in the left lane, and <c2,CAM_BACK,864.2,468.3> is in the ego lane.",
        "< c1,CAM_BACK,1088.3,497.5> is in the left lane, and < c2,CAM_BACK,860.0,470.0> is in the ego lane.",
    ),
]
MORE = [
    ("One truck is moving.", "One truck is parked."),
    ("Turn left.", "Stopped."),
    ("Yes.", "Yes, the traffic light is red."),
    ("Slow down, because of the cones.", "Slow down because of cones."),
]
SHUFFLED = random.Random(0).sample([*PAIRS, *MORE], 9)
ODD = "No.\n\rIt\u2028is\u2029a\x0bwhite\x0cvan\x85 ||| \x00café 中文 \ud800 <b> (30%)"
"""Newlines of all kinds, METEOR's separator, a NUL, accents, a lone surrogate, markup."""

GROUPS = {
    "four": PAIRS[:4],
    "five": PAIRS,
    "first": PAIRS[:1],
    "fourth": PAIRS[3:4],
    "ordered": [*PAIRS, *MORE],
    "shuffled": SHUFFLED,
    "self": [(reference, reference) for reference, _ in PAIRS],
    "with empty": [*PAIRS[:2], ("No.", ""), *PAIRS[3:]],
    "with odd": [*PAIRS[:2], ("No.", ODD), *PAIRS[3:]],
    "odd self": [(ODD, ODD), *PAIRS],
    "nothing": [("", ""), (".", "")],
    "half one": [*PAIRS, *MORE][:5],
    "half two": [*PAIRS, *MORE][5:],
}


WORDS = ["the", "car", "is", "stopped", "stops", "ahead", "no", "<", ",1088.3,497.5", "vehicle"]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join)
SETS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def scores(quick_meteor):
    """All groups in one run, on a machine whose Java speaks German and Latin-1."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LC_ALL", "C")
        patch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=de -Duser.country=DE -Dfile.encoding=ISO-8859-1")
        return caption_measures(GROUPS)


def points(measures):
    return {name: measure.point for name, measure in measures.items()}


def each(measure):
    return measure.value(measure.statistics).tolist()


def by_library(pairs):
    """What pycocoevalcap says about tokenised pairs, and its scores of every pair."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    references = {number: [reference] for number, (reference, _) in enumerate(pairs)}
    hypotheses = {number: [hypothesis] for number, (_, hypothesis) in enumerate(pairs)}
    bleu, bleu_each = Bleu(4).compute_score(references, hypotheses, verbose=0)
    rouge, rouge_each = Rouge().compute_score(references, hypotheses)
    whole, single = dict(zip(BLEU, bleu, strict=True)) | {"rouge_l": rouge}, dict(zip(BLEU, bleu_each, strict=True))
    single["rouge_l"] = rouge_each
    if any(reference for reference, _ in pairs):
        whole["cider"], single["cider"] = Cider().compute_score(references, hypotheses)
    return whole, single


def by_meteor(process, pairs):
    """What METEOR's own EVAL says about tokenised pairs, and about every pair."""
    lines = [" ".join(map(str, row)) for row in process.align(pairs).tolist()]
    process._write("EVAL ||| " + " ||| ".join(lines))
    single = [float(process._read()) for _ in pairs]
    return float(process._read()), single


def tokenized(pairs):
    texts = java.ptb_tokenize([text for pair in pairs for text in pair])
    return list(zip(texts[::2], texts[1::2], strict=True))


def measures_without_java(pairs):
    bleu, rouge = statistics.bleu_statistics(pairs), statistics.rouge_l(pairs)
    weighed = cider(count_ngrams(pairs), range(len(pairs)))
    return statistics.measures_of(bleu, None, rouge, weighed, "")


# --- parity ---


@given(SETS)
def test_bleu_rouge_and_cider_are_the_librarys(pairs):
    found = measures_without_java(pairs)
    whole, single = by_library(pairs)
    assert points(found) == pytest.approx(whole, abs=1e-12)
    for name, values in single.items():
        assert each(found[name]) == pytest.approx(values, abs=1e-12)


@pytest.mark.java
@settings(max_examples=30)
@given(pairs=SETS)
def test_meteor_is_its_own_evaluation_without_java(meteor, pairs):
    each = statistics.meteor_statistics(meteor.align(pairs))
    whole, single = by_meteor(meteor, pairs)
    assert statistics.meteor(each.sum(axis=0)) == pytest.approx(whole, abs=1e-12)
    assert statistics.meteor(each).tolist() == pytest.approx(single, abs=1e-12)


@pytest.mark.java
def test_stems_synonyms_and_paraphrases_weigh_as_in_meteor(meteor):
    pairs = [
        ("the cars stopped", "the car stops"),
        ("the cat sat on the mat", "a cat sits on the mat"),
        ("the pedestrian is walking across the road quickly", "a pedestrian walks rapidly across the street"),
    ]
    lines = meteor.align(pairs)
    assert (lines[:, 8:20].reshape(-1, 3, 4).sum(axis=(0, 2)) > 0).all()  # every module found something
    whole, single = by_meteor(meteor, pairs)
    each = statistics.meteor_statistics(lines)
    assert statistics.meteor(each.sum(axis=0)) == pytest.approx(whole, abs=1e-12)
    assert statistics.meteor(each).tolist() == pytest.approx(single, abs=1e-12)


@pytest.mark.java
def test_real_looking_sets_are_the_librarys(scores, meteor):
    for name in ("with odd", "ordered"):
        pairs = tokenized(GROUPS[name])
        whole, _ = by_library(pairs)
        whole["meteor"] = by_meteor(meteor, pairs)[0]
        whole["avg"] = 100 * (whole["bleu_4"] + whole["meteor"] + whole["rouge_l"]) / 3
        assert points(scores[name]) == pytest.approx(whole, abs=1e-11)


# --- draws ---


@pytest.mark.java
def test_a_drawn_set_is_scored_afresh(scores, meteor):
    measures = scores["ordered"]
    scenes = ["a", "a", "b", "c", "d", "d", "e", "f", "g"]
    draws = draw_scenes(scenes, seed=0)
    pairs = tokenized(GROUPS["ordered"])
    values = {name: drawn_values(measure, draws) for name, measure in measures.items()}
    weighed = by_library(pairs)[1]["cider"]
    for row in (0, 1, 500, 999):
        drawn = [number for number in range(9) for _ in range(int(draws.counts[row, draws.scene[number]]))]
        whole, _ = by_library([pairs[number] for number in drawn])
        whole["meteor"] = by_meteor(meteor, [pairs[number] for number in drawn])[0]
        whole["cider"] = float(np.mean([weighed[number] for number in drawn]))  # word weights are those of the full set
        whole["avg"] = 100 * (whole["bleu_4"] + whole["meteor"] + whole["rouge_l"]) / 3
        assert {name: values[name][row] for name in whole} == pytest.approx(whole, abs=1e-11)


def test_the_mean_of_sentence_bleu_is_another_number():
    measure = measures_without_java([(a.lower(), b.lower()) for a, b in [*PAIRS, *MORE]])["bleu_4"]
    assert abs(measure.point - np.mean(each(measure))) > 0.05


# --- properties ---


@pytest.mark.java
def test_references_against_themselves_are_perfect(scores):
    perfect = points(scores["self"])
    for name in ("bleu_1", "bleu_4", "rouge_l", "meteor"):
        assert perfect[name] == pytest.approx(1.0, abs=1e-6)
    assert perfect["avg"] == pytest.approx(100.0, abs=1e-4)
    assert scores["five"]["cider"].point < perfect["cider"] <= 10


@pytest.mark.java
def test_the_order_of_the_samples_does_not_matter(scores):
    assert points(scores["ordered"]) == pytest.approx(points(scores["shuffled"]), abs=1e-9)
    for name in ("rouge_l", "meteor", "cider"):
        of_pair = dict(zip(GROUPS["ordered"], each(scores["ordered"][name]), strict=True))
        assert [of_pair[pair] for pair in SHUFFLED] == pytest.approx(each(scores["shuffled"][name]), abs=1e-12)


@pytest.mark.java
@pytest.mark.parametrize("group", ["with empty", "with odd"])
def test_an_empty_or_odd_answer_changes_only_its_own_score(scores, group):
    for name in ("rouge_l", "meteor", "bleu_1"):
        plain, changed = each(scores["five"][name]), each(scores[group][name])
        assert plain[:2] + plain[3:] == changed[:2] + changed[3:]
        assert changed[2] < plain[2]


@pytest.mark.java
def test_an_odd_text_equals_itself(scores):
    assert each(scores["odd self"]["rouge_l"])[0] == each(scores["odd self"]["meteor"])[0] == 1.0


@pytest.mark.java
def test_sets_without_a_word_have_no_cider_and_no_crash(scores):
    nothing = scores["nothing"]
    assert "cider" not in nothing
    assert nothing["meteor"].point == 0.0
    assert nothing["bleu_4"].point < 1e-3


@pytest.mark.java
def test_corpus_scores_are_not_means_of_shards(scores):
    whole, one, two = (points(scores[name]) for name in ("ordered", "half one", "half two"))
    n_one, n_two = len(GROUPS["half one"]), len(GROUPS["half two"])
    shards = {name: (one[name] * n_one + two[name] * n_two) / (n_one + n_two) for name in whole}
    for name in ("cider", "bleu_4", "meteor"):
        assert abs(whole[name] - shards[name]) > 1e-3
    assert whole["rouge_l"] == pytest.approx(shards["rouge_l"])


# --- vectors ---


@pytest.mark.java
@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ("four", (0.852144, 0.810550, 0.757954, 0.693953, 0.953925, 0.519842)),
        ("five", (0.896788, 0.861334, 0.820035, 0.772888, 0.953616, 0.561103)),
    ],
)
def test_golden_values_of_pycocoevalcap(scores, group, expected):
    found = points(scores[group])
    assert [found[name] for name in (*BLEU, "rouge_l", "meteor")] == pytest.approx(expected, abs=1e-6)
    assert found["avg"] == pytest.approx(100 * (expected[3] + expected[4] + expected[5]) / 3, abs=1e-4)
    assert {measure.n for measure in scores[group].values()} == {len(GROUPS[group])}


@pytest.mark.java
def test_golden_values_of_single_samples(scores):
    five = scores["five"]
    assert each(five["rouge_l"]) == pytest.approx((0.944272, 1, 1, 0.871429, 0.952381), abs=1e-6)
    assert each(five["meteor"]) == pytest.approx((0.510854, 1, 1, 0.493341, 0.610265), abs=1e-6)
    assert scores["four"]["cider"].point == pytest.approx(5.408664, abs=1e-6)
    first, fourth = ([points(scores[group])[name] for name in BLEU] for group in ("first", "fourth"))
    assert first == pytest.approx((0.904837, 0.853089, 0.790448, 0.710867), abs=1e-6)
    assert fourth == pytest.approx((0.778801, 0.742557, 0.700367, 0.649872), abs=1e-6)


@pytest.mark.java
def test_the_label_names_scorer_tokenizer_and_java(scores):
    for part in ("pycocoevalcap 1.2", "PTB", "METEOR 1.5", "Java"):
        assert all(part in measure.implementation for measure in scores["four"].values())


def test_without_java_the_scores_are_labelled_as_approximate(monkeypatch):
    monkeypatch.setattr(java, "find_java", lambda: pytest.fail("Java was looked for"))
    found = caption_measures({"": PAIRS}, tokenizer="approximate")[""]
    assert "meteor" not in found and "avg" not in found
    assert "approximate" in found["cider"].implementation and "PTB tokenizer" not in found["cider"].implementation
    assert found["bleu_4"].point == pytest.approx(0.772888, abs=0.05)


def test_the_approximate_tokenizer_keeps_pairs_of_numbers_and_drops_punctuation():
    assert approximate_tokenize("No, <c1,CAM_BACK,1088.3,497.5>!") == "no < c1 cam_back ,1088.3,497.5 >"


def test_an_empty_group_is_refused():
    with pytest.raises(ValueError, match="empty groups"):
        caption_measures({"a": PAIRS, "b": []})
