"""The catalogue that is kept is the one that the views give."""

from __future__ import annotations

from pathlib import Path

import feature_store
from feature_store.catalog import catalogue
from feature_store.views import VIEWS

KEPT = Path(feature_store.__file__).with_name("CATALOG.md")


def test_the_catalogue_is_fresh() -> None:
    assert KEPT.read_text() == catalogue(), "run `make catalog`"


def test_the_catalogue_names_every_view_once() -> None:
    lines = catalogue().splitlines()
    for view in VIEWS:
        assert lines.count(f"### {view.name}") == 1
        assert view.description in lines
