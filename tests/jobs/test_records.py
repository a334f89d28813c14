"""Old pages, runs of pruned versions and fences, removed by the maintenance job."""

from __future__ import annotations

import datetime as dt
import shutil
from pathlib import Path

import pytest

from feature_store import hours as hr
from feature_store.tables import Store
from jobs import maintain as maintenance
from jobs.support.logged_page import LoggedPage, log_page
from jobs.support.settings import load_settings
from models.registry import Registry
from tests.jobs.conftest import Project
from tests.models.small_versions import small_version

# MLflow's own tables, under SQLAlchemy 2.1; only where the store is a database and no server.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")

NAME, PAGES = "gbdt_ranker", "gates"
HOUR = "2026-11-11T05"
NOW = dt.datetime.now(dt.UTC)


@pytest.fixture
def used(project: Project, migrated: Path) -> Project:
    """A version and the run of one that is gone; a page of this store and one of another; fences
    of an hour long ago and of one since."""
    shutil.copy(migrated, project.folder / "mlflow.db")
    registry = Registry(project.tracking_uri, retries=0)
    old, _ = (small_version(registry, NAME, HOUR, number) for number in range(2))
    assert registry.remove(old)
    arguments = maintenance.build_parser().parse_args([*project.arguments(), "--hour", HOUR])
    settings = load_settings(arguments)
    for folder in ("warehouse", "another"):
        store = Store(str(project.folder / folder), f"sqlite:///{project.folder}/{folder}.db")
        store.ledger.take_fence(PAGES, [HOUR], "token")
        page = LoggedPage(PAGES, HOUR, "a page", {}, {}, {"gates.html": folder})
        log_page(PAGES, store, settings, page, [HOUR], "token")
        store.close()
    ledger = project.store().ledger
    for hour in (hr.add(HOUR, -24 * 91), hr.add(HOUR, -24 * 89)):
        ledger.take_fence("ingest_events", [hour], "token")
    return project


def maintain(project: Project, days: float, *given: str) -> dict[str, int]:
    now = (NOW + dt.timedelta(days=days)).isoformat()
    result = project.run("maintain", "--hour", HOUR, "--now", now, *given)
    assert result.code == 0, result.err
    found: dict[str, int] = result.summary["details"]["records"]
    return found


def pages(project: Project) -> list[str]:
    return [path.read_text() for path in project.folder.rglob("gates.html")]


def runs(project: Project) -> int:
    registry = Registry(project.tracking_uri, retries=0)
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=1)
    return len(registry.runs_before(NAME, soon)) + len(registry.runs_before(PAGES, soon))


def test_what_is_younger_stays(used: Project) -> None:
    assert maintain(used, 89) == {"runs": 0, "fences": 1}
    assert (runs(used), sorted(pages(used))) == (4, ["another", "warehouse"])


def test_old_ones_go_but_for_a_version_s_and_another_store_s(used: Project) -> None:
    assert maintain(used, 91) == {"runs": 2, "fences": 1}
    assert (runs(used), pages(used)) == (2, ["another"])
    assert len(Registry(used.tracking_uri, retries=0).versions(NAME)) == 1
    assert maintain(used, 91) == {"runs": 0, "fences": 0}


def test_a_dry_run_counts_and_changes_nothing(used: Project) -> None:
    assert maintain(used, 91, "--dry-run") == {"runs": 3, "fences": 1}
    assert (runs(used), len(pages(used))) == (4, 2)
