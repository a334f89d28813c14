"""What all tests share: their order, and one Spark session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from jobs.support.session import spark_session
from tests.object_store import ObjectStore, running_store
from tests.session import SETTINGS


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file first, so that another worker does the rest meanwhile."""
    items.sort(key=lambda item: "e2e" not in item.path.parts)


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """A session as the jobs make it. Starting one takes as long as most that is asked of it."""
    with spark_session("tests", SETTINGS) as session:
        yield session


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """A store behind the S3 protocol; every test takes a prefix of its own in its bucket."""
    with running_store(tmp_path_factory.mktemp("objects")) as store:
        yield store
