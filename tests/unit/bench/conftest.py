"""Tiny models of every family as directories, and eight questions."""

from __future__ import annotations

import pytest

import tiny
from drivedistill.subject import save_subject


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    return tiny.samples(tiny.pictures(tmp_path_factory.mktemp("pictures")))


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """Family -> directory of a tiny model with random weights."""
    folders = {}

    def save(family):
        if family not in folders:
            root = tmp_path_factory.mktemp(family)
            subject = tiny.subject(family, root)
            save_subject(subject, subject.model, root / "model", "")
            folders[family] = str(root / "model")
        return folders[family]

    return save
