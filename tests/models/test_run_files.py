"""Reading back what a run keeps, from a real tracking store."""

from __future__ import annotations

import pytest

from models.registry import Registry, RegistryError
from tests.models.small_versions import small_version

# MLflow's own tables, under SQLAlchemy 2.1; only where the store is a database and no server.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")


def test_a_text_comes_back_and_what_is_not_there_is_none(registry: Registry) -> None:
    version = small_version(registry, "gbdt_ranker", "2026-11-11T05")
    assert registry.run_text(version, "evaluation/page.html") is None
    registry.log_evaluation(version, {}, artefacts={"page.html": "zwölf", "other.html": "13"})
    assert registry.run_text(version, "evaluation/page.html") == "zwölf"
    assert registry.run_text(version, "evaluation/none.html") is None
    assert registry.run_text(version, "page.html") is None


def test_a_run_that_is_gone_is_said(registry: Registry) -> None:
    version = small_version(registry, "gbdt_ranker", "2026-11-11T05")
    gone = type(version)(**{**vars(version), "run_id": "0" * 32})
    with pytest.raises(RegistryError, match=f"refused to read run {'0' * 32}"):
        registry.run_text(gone, "evaluation/page.html")


def test_texts_of_many_come_in_the_order_asked(registry: Registry) -> None:
    hours = [f"2026-11-11T{hour:02d}" for hour in (5, 6, 7)]
    first, second, third = (small_version(registry, "gbdt_ranker", hour) for hour in hours)
    for version, text in ((first, "eins"), (third, "drei")):
        registry.log_evaluation(version, {}, artefacts={"page.html": text})
    asked = [third, second, first, third]
    found = registry.run_texts(asked, "evaluation/page.html")
    assert found == ["drei", None, "eins", "drei"]
    assert registry.run_texts([], "evaluation/page.html") == []
    gone = type(first)(**{**vars(first), "run_id": "0" * 32})
    with pytest.raises(RegistryError, match=f"refused to read run {'0' * 32}"):
        registry.run_texts([first, gone], "evaluation/page.html")
