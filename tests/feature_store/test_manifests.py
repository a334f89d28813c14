"""What is read to find an hour's files does not grow with the hours that a table holds."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from feature_store import hours as hr
from feature_store import tables
from feature_store.schemas import TABLES
from feature_store.tables import Store

TABLE, MERGED, COMMITS = "gate_results", 3, 70


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    monkeypatch.setattr(tables, "_MERGED", MERGED)
    return str(tmp_path / "warehouse"), f"sqlite:///{tmp_path}/catalog.db"


def add(store: Store, hour: str) -> None:
    rows = [{"gate": "g", "value": 1.0, "level": "pass", "message": "", "hour": hour}]
    store.append(pa.Table.from_pylist(rows, schema=TABLES[TABLE].schema), TABLE)


def test_a_manifest_grows_to_a_size_and_no_further(place: tuple[str, str]) -> None:
    store = Store(*place)
    hours = [hr.add("2026-11-11T05", number) for number in range(COMMITS)]
    for hour in hours:
        add(store, hour)
    table = store.iceberg(TABLE)
    snapshot = table.current_snapshot()
    assert snapshot is not None
    manifests = snapshot.manifests(table.io)
    most = int(table.properties["commit.manifest.target-size-bytes"])
    assert max(manifest.manifest_length for manifest in manifests) <= most
    entries = [len(manifest.fetch_manifest_entry(table.io)) for manifest in manifests]
    assert sum(entries) == COMMITS
    assert MERGED < max(entries) < 0.75 * COMMITS, "merged, and not into one"
    assert len(manifests) < COMMITS / 4
    assert sorted(store.files_by_hour(TABLE, hours)) == hours
    store.close()


def test_a_table_that_is_there_gets_its_properties_with_a_commit(
    place: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr(tables, "_MERGED", 20)
        store = Store(*place)
        add(store, "2026-11-11T05")
        made = store.iceberg(TABLE)
        store.close()
    store = Store(*place)
    add(store, "2026-11-11T06")
    table = store.iceberg(TABLE)
    assert made.properties["commit.manifest.min-count-to-merge"] == "20"
    assert table.properties["commit.manifest.min-count-to-merge"] == str(MERGED)
    assert len(table.metadata.snapshots) == 2
    location = table.metadata_location
    store.close()
    store = Store(*place)
    assert store.iceberg(TABLE).metadata_location == location
    store.close()
