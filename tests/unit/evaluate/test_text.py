"""Caption metrics: properties, then the values of research vectors computed with pycocoevalcap 1.2 itself."""

import random

import pytest

from drivedistill.evaluate import java
from drivedistill.evaluate.text import approximate_tokenize, caption_metrics, rouge_l_each, score_groups

pytest.importorskip("pycocoevalcap")

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


@pytest.fixture(scope="module")
def scores():
    """All groups in one run, on a machine whose Java speaks German and Latin-1."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LC_ALL", "C")
        patch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=de -Duser.country=DE -Dfile.encoding=ISO-8859-1")
        return score_groups(GROUPS)


@pytest.mark.java
def test_references_against_themselves_are_perfect(scores):
    perfect = scores["self"]
    for value in (perfect.bleu_1, perfect.bleu_4, perfect.rouge_l, perfect.meteor):
        assert value == pytest.approx(1.0, abs=1e-6)
    assert perfect.avg == pytest.approx(100.0, abs=1e-4)
    assert scores["five"].cider < perfect.cider <= 10


@pytest.mark.java
def test_the_order_of_the_samples_does_not_matter(scores):
    ordered, shuffled = scores["ordered"], scores["shuffled"]
    for name in ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "meteor", "cider"):
        assert getattr(ordered, name) == pytest.approx(getattr(shuffled, name), abs=1e-9)
    each = dict(zip(GROUPS["ordered"], ordered.rouge_l_each, strict=True))
    assert [each[pair] for pair in SHUFFLED] == list(shuffled.rouge_l_each)


@pytest.mark.java
def test_rouge_l_alone_is_the_same(scores):
    alone = rouge_l_each({name: GROUPS[name] for name in ("five", "with odd")})
    assert alone == {name: scores[name].rouge_l_each for name in ("five", "with odd")}


@pytest.mark.java
@pytest.mark.parametrize("group", ["with empty", "with odd"])
def test_an_empty_or_odd_answer_changes_only_its_own_score(scores, group):
    for each in ("rouge_l_each", "meteor_each"):
        plain, changed = getattr(scores["five"], each), getattr(scores[group], each)
        assert plain[:2] + plain[3:] == changed[:2] + changed[3:]
        assert changed[2] < plain[2]


@pytest.mark.java
def test_an_odd_text_equals_itself(scores):
    assert scores["odd self"].rouge_l_each[0] == scores["odd self"].meteor_each[0] == 1.0


@pytest.mark.java
def test_sets_without_a_word_have_no_cider_and_no_crash(scores):
    nothing = scores["nothing"]
    assert nothing.cider is None
    assert nothing.meteor == 0.0
    assert nothing.bleu_4 < 1e-3


@pytest.mark.java
def test_corpus_scores_are_not_means_of_shards(scores):
    whole, one, two = scores["ordered"], scores["half one"], scores["half two"]
    for name in ("cider", "bleu_4", "meteor"):
        shards = (getattr(one, name) * one.n + getattr(two, name) * two.n) / whole.n
        assert abs(getattr(whole, name) - shards) > 1e-3
    assert whole.rouge_l == pytest.approx((one.rouge_l * one.n + two.rouge_l * two.n) / whole.n)


@pytest.mark.java
@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ("four", (0.852144, 0.810550, 0.757954, 0.693953, 0.953925, 0.519842)),
        ("five", (0.896788, 0.861334, 0.820035, 0.772888, 0.953616, 0.561103)),
    ],
)
def test_golden_values_of_pycocoevalcap(scores, group, expected):
    found = scores[group]
    values = (found.bleu_1, found.bleu_2, found.bleu_3, found.bleu_4, found.rouge_l, found.meteor)
    assert values == pytest.approx(expected, abs=1e-6)
    assert found.avg == pytest.approx(100 * (expected[3] + expected[4] + expected[5]) / 3, abs=1e-4)


@pytest.mark.java
def test_golden_values_of_single_samples(scores):
    five = scores["five"]
    assert five.rouge_l_each == pytest.approx((0.944272, 1, 1, 0.871429, 0.952381), abs=1e-6)
    assert five.meteor_each == pytest.approx((0.510854, 1, 1, 0.493341, 0.610265), abs=1e-6)
    assert scores["four"].cider == pytest.approx(5.408664, abs=1e-6)
    bleu = [(s.bleu_1, s.bleu_2, s.bleu_3, s.bleu_4) for s in (scores["first"], scores["fourth"])]
    assert bleu[0] == pytest.approx((0.904837, 0.853089, 0.790448, 0.710867), abs=1e-6)
    assert bleu[1] == pytest.approx((0.778801, 0.742557, 0.700367, 0.649872), abs=1e-6)


@pytest.mark.java
def test_the_label_names_scorer_tokenizer_and_java(scores):
    for part in ("pycocoevalcap 1.2", "PTB", "METEOR 1.5", "Java"):
        assert part in scores["four"].implementation


def test_without_java_the_scores_are_labelled_as_approximate(monkeypatch):
    monkeypatch.setattr(java, "find_java", lambda: pytest.fail("Java was looked for"))
    found = caption_metrics(PAIRS, tokenizer="approximate")
    assert found.meteor is None and found.avg is None
    assert "approximate" in found.implementation and "PTB tokenizer" not in found.implementation
    assert found.bleu_4 == pytest.approx(0.772888, abs=0.05)


def test_the_approximate_tokenizer_keeps_pairs_of_numbers_and_drops_punctuation():
    assert approximate_tokenize("No, <c1,CAM_BACK,1088.3,497.5>!") == "no < c1 cam_back ,1088.3,497.5 >"


def test_an_empty_group_is_refused():
    with pytest.raises(ValueError, match="empty groups"):
        score_groups({"a": PAIRS, "b": []})
