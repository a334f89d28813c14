"""A table's metadata is read once for as long as it is the table's, and changed by nobody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.serializers import FromInputFile

from feature_store.commits import replace_files
from feature_store.schemas import TABLES
from feature_store.tables import Store

TABLE = "gate_results"


@pytest.fixture
def place(tmp_path: Path) -> tuple[str, str]:
    return str(tmp_path / "warehouse"), f"sqlite:///{tmp_path}/catalog.db"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The locations of the metadata files that are read."""
    read, found = FromInputFile.table_metadata, []

    def watched(file: Any, *given: Any, **named: Any) -> Any:
        found.append(file.location)
        return read(file, *given, **named)

    monkeypatch.setattr(FromInputFile, "table_metadata", staticmethod(watched))
    return found


def add(store: Store, gate: str) -> None:
    rows = [{"gate": gate, "value": 1.0, "level": "pass", "message": "", "hour": "2026-11-11T05"}]
    store.append(pa.Table.from_pylist(rows, schema=TABLES[TABLE].schema), TABLE)


def test_a_file_is_read_once_and_another_writers_is_seen(
    place: tuple[str, str], reads: list[str]
) -> None:
    mine, other = Store(*place), Store(*place)
    add(mine, "a")
    mine.iceberg(TABLE)
    reads.clear()
    assert len({mine.iceberg(TABLE).metadata_location for _ in range(3)}) == 1
    assert not reads
    add(other, "b")
    reads.clear()
    assert sorted(mine.read_all(TABLE)["gate"].to_pylist()) == ["a", "b"]
    assert len(reads) == len(set(reads)) == 1
    add(mine, "c")  # on what the other wrote
    assert sorted(other.read_all(TABLE)["gate"].to_pylist()) == ["a", "b", "c"]
    for store in (mine, other):
        store.close()


def test_a_transaction_leaves_the_metadata_of_the_table_as_it_is(place: tuple[str, str]) -> None:
    store = Store(*place)
    add(store, "a")
    table = store.iceberg(TABLE)
    before, known = table.metadata, table.metadata.model_copy(deep=True)
    [path] = store.files(TABLE, ["2026-11-11T05"])
    replace_files(table, None, [path], {"rankmill.writer": "run"})
    assert before == known
    assert len(store.iceberg(TABLE).metadata.snapshots) == len(known.snapshots) + 1
    store.close()
