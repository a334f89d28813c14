"""Copied versions are what registering would have made, on a real server and its database."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from feature_store import hours as hr
from jobs.support.unseen import newest_before
from local.versions import SHOWN, read_versions
from models.registry import Registry
from tests.models.small_versions import small_version

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import many_versions
from small_stack import SmallStack, small_stack

NAME, HOUR, COUNT = "gbdt_ranker", "2026-11-11T05", 40


@pytest.fixture(scope="module")
def place() -> Iterator[SmallStack]:
    """One version that is registered, 39 that are copied; the fifth is champion."""
    known, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
    # pytest's own temporary folders are closed to the database's user, and too long for sockets.
    with tempfile.TemporaryDirectory(prefix="rankmill-many-") as folder:
        try:
            with small_stack(Path(folder), {"source": {"name": "simulator"}}) as made:
                registry = Registry(made.env["MLFLOW_TRACKING_URI"])
                small_version(registry, NAME, HOUR)
                many_versions.copy(made, NAME, COUNT)
                registry.set_alias(NAME, "champion", 5)
                yield made
        finally:
            os.environ.clear()
            os.environ.update(known)
            signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def registry(place: SmallStack) -> Registry:
    return Registry(place.env["MLFLOW_TRACKING_URI"])


def test_every_copy_has_an_hour_a_key_and_a_run_of_its_own(registry: Registry) -> None:
    versions = registry.versions(NAME)
    assert [v.version for v in versions] == list(range(1, COUNT + 1))
    assert [v.tags["data_hour"] for v in versions] == [hr.add(HOUR, -n) for n in range(COUNT)]
    assert len({v.run_id for v in versions} | {v.model_id for v in versions}) == 2 * COUNT
    assert registry.find(NAME, versions[7].tags["run_key"]) == versions[7]
    assert [v.version for v in versions if v.aliases] == [5]
    runs = registry._call("read runs", lambda c: [c.get_run(v.run_id) for v in versions[:9]])
    assert [run.data.metrics for run in runs] == [{"ndcg": 0.5}] * 9


def test_the_newest_before_an_hour_is_found_among_them(registry: Registry) -> None:
    found = newest_before(registry, NAME, hr.add(HOUR, -10))
    assert found is not None
    assert found.version == 12


def test_the_table_of_a_run_shows_the_newest_and_the_champion(place: SmallStack) -> None:
    found = read_versions(place.env["MLFLOW_TRACKING_URI"])
    newest = range(COUNT - SHOWN + 1, COUNT + 1)
    assert [version.version for version in found] == [5, *newest]
    assert (found[0].aliases, found[0].data_hour) == (("champion",), hr.add(HOUR, -4))


def test_a_version_registered_after_them_is_the_next(registry: Registry) -> None:
    assert small_version(registry, NAME, hr.add(HOUR, 1)).version == COUNT + 1
