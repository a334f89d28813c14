"""What all tests share: the order."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file first, so that another worker does the rest meanwhile."""
    items.sort(key=lambda item: "e2e" not in item.path.parts)
