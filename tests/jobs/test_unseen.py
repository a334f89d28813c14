"""Versions that have not seen an hour: as a listing of all of them finds them, without one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from feature_store import hours as hr
from jobs.support.unseen import newest_before, newest_of
from models.registry import Registry, Version
from tests.models.small_versions import small_version

# MLflow's own tables, under SQLAlchemy 2.1; only where the store is a database and no server.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")

NAME = "gbdt_ranker"
HOUR = "2026-11-11T05"
# Two of one hour, hours in another order than the numbers, a day between, and one of long ago.
SEEN = (*(hr.add(HOUR, -back) for back in (3, 1, 1, 2, 30)), HOUR, hr.add(HOUR, -24 * 40))


@pytest.fixture
def registry(migrated: Path, tmp_path: Path) -> Registry:
    shutil.copy(migrated, tmp_path / "mlflow.db")
    made = Registry(f"sqlite:///{tmp_path}/mlflow.db", retries=0)
    for number, hour in enumerate(SEEN):
        small_version(made, NAME, hour, number)
    small_version(made, "another", hr.add(HOUR, -1))
    return made


def by_listing(registry: Registry, hour: str) -> Version | None:
    found = None
    for version in registry.versions(NAME):
        mine = version.tags["data_hour"], version.version
        if mine[0] < hour and (found is None or mine > (found.tags["data_hour"], found.version)):
            found = version
    return found


@pytest.mark.parametrize("back", [-1, 0, 1, 2, 5, 29, 31, 100, 24 * 39, 24 * 40])
def test_the_newest_before_an_hour_is_that_of_a_listing(registry: Registry, back: int) -> None:
    hour = hr.add(HOUR, -back)
    assert newest_before(registry, NAME, hour) == by_listing(registry, hour)


def test_of_recent_days_no_listing_is_asked_for(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = by_listing(registry, HOUR)

    def refused(_name: str) -> list[Version]:
        raise AssertionError("every version was listed")

    monkeypatch.setattr(registry, "versions", refused)
    assert newest_before(registry, NAME, HOUR) == wanted


@pytest.mark.parametrize("span", [1, 3, 26, 24 * 33])
def test_of_a_range_the_newest_of_every_hour_is_there(registry: Registry, span: int) -> None:
    hours = hr.hour_range(hr.add(HOUR, 2 - span), hr.add(HOUR, 1))
    found = {version.version for version in newest_of(registry, NAME, hours)}
    newest = (by_listing(registry, hour) for hour in hours)
    assert {version.version for version in newest if version is not None} <= found
