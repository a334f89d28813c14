"""What the tests of the store share: an empty one, with a catalog of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from feature_store.tables import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(str(tmp_path / "warehouse"), f"sqlite:///{tmp_path}/catalog.db")
    yield opened
    opened.close()
