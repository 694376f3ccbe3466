"""What every verb begins with."""

from __future__ import annotations

import pytest

from drivedistill import cli

KEPT = ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")


@pytest.mark.parametrize("own", [None, "7"])
def test_prepared_matrix_products_are_few_unless_the_user_says_otherwise(own, monkeypatch):
    seen = {}
    for name in KEPT:
        monkeypatch.delenv(name, raising=False)
        if own:
            monkeypatch.setenv(name, own)
    monkeypatch.setattr(cli, "app", lambda **_: seen.update({name: cli.os.environ[name] for name in KEPT}))
    cli.main()
    assert seen == dict.fromkeys(KEPT, own or "64")
