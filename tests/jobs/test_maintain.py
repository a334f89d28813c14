"""The maintenance job on a store of its own: what it says, what it keeps, what it refuses."""

from __future__ import annotations

import datetime as dt
import shutil
import types
from pathlib import Path
from typing import Any

import pytest

import models.retry
from feature_store import hours as hr
from feature_store.tables import Store
from jobs.support.snapshot_tags import Owners, snapshot_tag
from models.registry import Registry
from tests.feature_store.gate_hours import commit, decide, decided, on_disk
from tests.jobs.conftest import HOUR, Project, Result, event, events
from tests.jobs.gbdt_day import HOURS, NAME, QUICK, clicks, fill, samples

# MLflow's own tables, under SQLAlchemy 2.1; only where the store is a database and no server.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")

AFTER = hr.add(HOUR, 1)
LATER = (dt.datetime.now(dt.UTC) + dt.timedelta(days=10)).isoformat()
MONTHS_ON = "2027-02-01"


@pytest.fixture
def kept(project: Project, migrated: Path) -> Project:
    """A project with an empty registry."""
    shutil.copy(migrated, project.folder / "mlflow.db")
    return project


@pytest.fixture
def ingested(kept: Project) -> Project:
    """Two hours, the first one written twice; one row of each in quarantine."""
    first = [*events(20), event(50, action="teleport")]
    second = [*events(20, AFTER), event(51, AFTER, action="teleport")]
    kept.write([*first[:15], *first[20:], *second])
    ingest(kept)
    kept.write([*first, *second])
    ingest(kept)
    return kept


def ingest(project: Project) -> None:
    for job in ("ingest_events", "validate_events"):
        assert project.run(job, "--from-hour", HOUR, "--to-hour", AFTER).code == 0


def maintain(project: Project, *given: str, date: str = "2026-11-12", now: str = LATER) -> Result:
    result = project.run("maintain", "--date", date, "--now", now, *given)
    assert result.code == 0, result.err
    return result


def done(result: Result, table: str) -> dict[str, Any]:
    """What was done to a table, without what was not."""
    return {
        key: value for key, value in result.summary["details"]["tables"][table].items() if value
    }


def total(result: Result, key: str) -> int:
    return sum(done[key] for done in result.summary["details"]["tables"].values())


def test_a_run_says_what_it_did_and_the_next_one_does_nothing(ingested: Project) -> None:
    before = ingested.state()
    there = on_disk(ingested.store(), "events")
    result = maintain(ingested)
    left = on_disk(ingested.store(), "events")
    assert ingested.state() == before
    events_done = done(result, "events")
    assert events_done["snapshots_expired"] > 0
    assert events_done["files_removed"] == len(there - left) > 0
    assert events_done["bytes_removed"] > 0
    assert f"[maintain] events: {events_done['snapshots_expired']} snapshots expired" in result.out
    assert f"{total(result, 'files_removed')} files removed" in result.summary["message"]
    again = maintain(ingested)
    assert again.summary["message"] == "nothing to do"
    assert not any(done(again, table) for table in again.summary["details"]["tables"])


def test_by_default_nothing_of_today_goes(ingested: Project) -> None:
    result = ingested.run("maintain", "--hour", AFTER)
    assert (result.code, result.summary["message"]) == (0, "nothing to do")
    assert result.summary["hours"] == [AFTER, AFTER]


def test_a_dry_run_says_the_same_and_changes_nothing(ingested: Project) -> None:
    store = ingested.store()
    decide(store, *map(str, range(9)))
    locations = {name: store.iceberg(name).metadata_location for name in store.existing()}
    there = {name: on_disk(store, name) for name in locations}
    dry = maintain(ingested, "--dry-run", date=MONTHS_ON)
    assert dry.summary["status"] == "dry-run"
    assert dry.summary["message"].startswith("would be: ")
    assert {name: store.iceberg(name).metadata_location for name in locations} == locations
    assert {name: on_disk(store, name) for name in locations} == there
    real = maintain(ingested, date=MONTHS_ON)
    for key in ("hours_aged", "hours_compacted", "files_compacted"):
        assert total(real, key) == total(dry, key) > 0, key
    assert done(real, "events") == done(dry, "events")


def test_quarantined_rows_age_and_their_hours_stay_complete(ingested: Project) -> None:
    hours = ingested.state()["quarantine hours"]
    assert done(maintain(ingested), "quarantine").get("hours_aged") is None
    result = maintain(ingested, date=MONTHS_ON)
    assert done(result, "quarantine")["hours_aged"] == 2
    state = ingested.state()
    assert "quarantine rows" not in state
    assert state["quarantine hours"] == hours
    ingest(ingested)
    assert "quarantine rows" not in ingested.state(), "the same hour again brings nothing back"


def test_promotions_become_one_file(kept: Project) -> None:
    store = kept.store()
    decide(store, *map(str, range(9)))
    before = decided(store)
    assert done(maintain(kept), "promotions")["files_compacted"] == 9
    assert decided(store) == before
    store.close()


def test_an_hour_that_is_being_written_is_skipped_and_said(kept: Project) -> None:
    store = kept.store()
    commit(store, HOURS[0], *([number] for number in range(9)))
    known = store.ledger.completions("gate_results", HOURS[0], HOURS[0])
    store.ledger.forget("gate_results", [HOURS[0]])
    result = maintain(kept)
    assert done(result, "gate_results")["hours_skipped"] == 1
    assert "1 hours skipped" in result.out
    store.ledger.complete(list(known.values()))
    assert done(maintain(kept), "gate_results")["hours_compacted"] == 1
    store.close()


def test_a_models_snapshots_are_kept_as_long_as_the_model(kept: Project) -> None:
    kept.configure(train={"gbdt": QUICK})
    fill(kept, "samples", samples, HOURS)
    fill(kept, "outcomes", lambda hour: clicks(hour, lambda n: n % 4 == 0), HOURS)
    trained = kept.run("train_gbdt", "--hour", HOUR)
    assert trained.summary["model"] == {"name": NAME, "version": 1}, trained.err
    snapshot = trained.summary["snapshots"]["outcomes"]
    store, label = kept.store(), snapshot_tag(NAME, HOUR, snapshot)
    store.tag("outcomes", snapshot, "audit-2026")
    fill(kept, "outcomes", lambda hour: clicks(hour, lambda n: n % 4 == 1), HOURS)
    learned_from = store.read("outcomes", HOURS, snapshot_id=snapshot)

    maintain(kept)
    assert sorted(store.iceberg("outcomes").refs()) == ["audit-2026", label, "main"]
    assert store.read("outcomes", HOURS, snapshot_id=snapshot).equals(learned_from)

    registry = Registry(kept.tracking_uri, retries=0)
    registry._delete_version(registry.versions(NAME)[0])
    assert done(maintain(kept), "outcomes")["tags_dropped"] == 1
    assert sorted(store.iceberg("outcomes").refs()) == ["audit-2026", "main"], "made by hand: stays"
    assert done(maintain(kept), "samples") == {}, "its tag names the current snapshot"
    store.close()


def test_an_unreachable_registry_drops_no_tag(
    kept: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models.retry, "time", types.SimpleNamespace(sleep=lambda _: None))
    store: Store = kept.store()
    fill(kept, "samples", samples, HOURS)
    snapshot = store.snapshot_id("samples")
    assert snapshot is not None
    store.tag("samples", snapshot, snapshot_tag(NAME, HOUR, snapshot))
    fill(kept, "samples", lambda hour: samples(hour).slice(1), HOURS)
    given = ("--date", "2026-11-12", "--now", LATER, "--tracking-uri", "http://127.0.0.1:1")
    result = kept.run("maintain", *given)
    assert (result.code, result.summary["status"]) == (1, "failed")
    assert "http://127.0.0.1:1" in result.summary["message"]
    assert len(store.iceberg("samples").refs()) == 2
    assert store.read("samples", HOURS, snapshot_id=snapshot).num_rows
    store.close()


@pytest.mark.parametrize("name", ["gbdt_ranker", "a-b", "v1.2-2026-11-11T05"])
def test_a_tag_names_its_model(kept: Project, name: str) -> None:
    owners = Owners(Registry(kept.tracking_uri, retries=0))
    assert owners.orphaned(snapshot_tag(name, HOUR, 7)), "there is no such model"
    for label in ("audit", f"{name}-{HOUR}", f"{name}-2026-11-11-7", f"x y-{HOUR}-7"):
        assert not owners.orphaned(label)


@pytest.mark.parametrize(
    ("rules", "given", "said"),
    [
        ({"snapshot_days": 0.1}, (), "section 'maintenance': snapshots of snapshot_days must be"),
        ({"snapshot_day": 3}, (), "'snapshot_day'"),
        ({"quarantine_days": "month"}, (), "maintenance.quarantine_days must be float"),
        ({"table_snapshot_days": {"sample": 3}}, (), "table_snapshot_days names ['sample']"),
        ({}, ("--now", "yesterday"), "--now 'yesterday' is no time"),
        ({}, ("--now", "2026-11-12T00:00"), "has no time zone"),
        ({}, ("--tracking-uri", ""), "MLFLOW_TRACKING_URI"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_done(
    ingested: Project, rules: dict[str, Any], given: tuple[str, ...], said: str
) -> None:
    before = on_disk(ingested.store(), "events")
    ingested.configure(maintenance=rules)
    result = ingested.run("maintain", "--date", "2026-11-12", *given)
    assert (result.code, result.summary["status"]) == (2, "bad arguments")
    assert said in result.summary["message"]
    assert on_disk(ingested.store(), "events") == before


def test_hours_must_be_named(kept: Project) -> None:
    result = kept.run("maintain")
    assert result.code == 2
    assert "--date" in result.summary["message"]
