"""Whole hours in, whole hours out; unchanged reruns; late and concurrent writers."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from feature_store import hours as hr
from feature_store import storage
from feature_store.damage import DamagedFileError
from feature_store.ledger import FencedOutError
from feature_store.schemas import GATE_RESULTS, PROMOTIONS, TABLES, TableSpec
from feature_store.tables import HourWriter, Staged, Store, StoreError, Writer
from tests.object_store import overwrite

TABLE, STAGE = "gate_results", "validate_events"
HOURS = hr.hour_range("2026-11-11T05", "2026-11-11T08")
FIRST, SECOND = HOURS[:2]


@pytest.fixture(params=["tmp_path", "bucket"], ids=["folder", "bucket"])
def warehouse(request: pytest.FixtureRequest) -> str:
    """Where tables may lie."""
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def store(warehouse: str, tmp_path: Path) -> Iterator[Store]:
    opened = Store(warehouse, f"sqlite:///{tmp_path}/catalog.db")
    yield opened
    opened.close()


def rows(hour: str, *values: float) -> pa.Table:
    listed = [
        {"gate": f"g{i}", "value": v, "level": "pass", "message": "", "hour": hour}
        for i, v in enumerate(values)
    ]
    return pa.Table.from_pylist(listed, schema=GATE_RESULTS)


def staged(store: Store, content: dict[str, tuple[float, ...]]) -> Staged:
    made = Staged(TABLE)
    for hour, values in content.items():
        writer = HourWriter(store, TABLE, hour)
        writer.write(rows(hour, *values))
        writer.close(made)
    return made


def claim(store: Store, hours: list[str], run: str = "run") -> Writer:
    store.ledger.take_fence(STAGE, hours, run)
    return Writer(STAGE, run)


def commit(store: Store, content: dict[str, tuple[float, ...]], **other: Any) -> int | None:
    return store.commit(staged(store, content), claim(store, list(content)), **other)


def values(store: Store, *hours: str) -> list[float]:
    return sorted(store.read(TABLE, list(hours))["value"].to_pylist())


def test_a_rerun_replaces_its_own_hours_only(store: Store) -> None:
    commit(store, {FIRST: (1, 2), SECOND: (3,)})
    commit(store, {FIRST: (4, 5, 6)})
    assert values(store, FIRST) == [4, 5, 6]
    assert values(store, SECOND) == [3]
    assert {h: c.rows for h, c in store.ledger.completions(TABLE, FIRST, SECOND).items()} == {
        FIRST: 3, SECOND: 1}  # fmt: skip
    assert len(store.files(TABLE, [FIRST, SECOND])) == 2


def test_an_unchanged_rerun_keeps_the_snapshot_and_the_verdict(store: Store) -> None:
    content = {FIRST: (1.0, 2.0), SECOND: ()}
    first = commit(store, content, validated=None)
    store.ledger.validate(TABLE, {FIRST: True, SECOND: True})
    before = store.iceberg(TABLE).metadata_location
    assert commit(store, content, validated=None) == first
    assert store.iceberg(TABLE).metadata_location == before
    assert store.readable_hours(TABLE, FIRST, SECOND) == [FIRST, SECOND]
    assert commit(store, {FIRST: (1.0, 2.5)}, validated=None) != first
    assert store.readable_hours(TABLE, FIRST, SECOND) == [SECOND], "new content is to be judged"


def test_a_rerun_replaces_an_unchanged_hour_whose_file_is_damaged(store: Store) -> None:
    content = {FIRST: (1.0, 2.0), SECOND: (3.0,)}
    commit(store, content, validated=None)
    store.ledger.validate(TABLE, {FIRST: True, SECOND: True})
    [path], [other] = store.files(TABLE, [FIRST]), store.files(TABLE, [SECOND])
    sound = storage.read_bytes(path)
    for damage in (sound[: len(sound) // 2], b"", None):
        if damage is None:
            storage.remove(path)
        else:
            overwrite(path, damage)
        with pytest.raises(DamagedFileError) as told:
            values(store, FIRST, SECOND)
        assert path in str(told.value)
        assert f"{FIRST} of table {TABLE}. Make that again with: spark-submit" in str(told.value)
        assert f"validate_events.py --hour {FIRST};" in str(told.value)
        assert store.intact(TABLE, [FIRST, SECOND]) == {SECOND}
        commit(store, content, validated=None)
        assert values(store, FIRST, SECOND) == [1, 2, 3]
        assert store.readable_hours(TABLE, FIRST, SECOND) == [FIRST, SECOND], "the same content"
        [path] = store.files(TABLE, [FIRST])
    assert store.files(TABLE, [SECOND]) == [other]


def test_an_earlier_snapshot_still_reads_the_earlier_hour(store: Store) -> None:
    first = commit(store, {FIRST: (1,)})
    assert first is not None
    store.tag(TABLE, first, "model-1")
    store.tag(TABLE, first, "model-1")  # a rerun tags again
    commit(store, {FIRST: (2,)})
    assert store.iceberg(TABLE).refs()["model-1"].snapshot_id == first
    [path] = store.files(TABLE, [FIRST], snapshot_id=first)
    assert storage.read_table(path)["value"].to_pylist() == [1]
    assert values(store, FIRST) == [2]


def test_empty_hours_are_complete(store: Store) -> None:
    assert commit(store, {FIRST: (), SECOND: ()}) is None
    assert store.snapshot_id(TABLE) is None
    assert store.readable_hours(TABLE, FIRST, SECOND) == [FIRST, SECOND]
    assert store.read(TABLE, [FIRST]).schema.names == GATE_RESULTS.names
    assert store.read(TABLE, [FIRST]).num_rows == 0
    commit(store, {FIRST: (1,), SECOND: (2,)})
    commit(store, {FIRST: ()})
    assert values(store, FIRST, SECOND) == [2], "an hour that became empty is emptied"
    assert store.ledger.completions(TABLE, FIRST, FIRST)[FIRST].rows == 0


def test_staged_files_are_not_seen(store: Store) -> None:
    commit(store, {FIRST: (1,)})
    staged(store, {FIRST: (9,), SECOND: (9,)})
    assert values(store, FIRST, SECOND) == [1]
    assert store.readable_hours(TABLE, FIRST, SECOND) == [FIRST]


def test_a_late_writer_is_refused_at_its_commit(store: Store) -> None:
    late = claim(store, [FIRST, SECOND], "early")
    waiting = staged(store, {FIRST: (1,), SECOND: (1,)})
    newer = claim(store, [SECOND], "newer")
    store.commit(staged(store, {SECOND: (2,)}), newer)
    before = store.snapshot_id(TABLE)
    with pytest.raises(FencedOutError, match="newer"):
        store.commit(waiting, late)
    assert store.snapshot_id(TABLE) == before
    assert values(store, FIRST, SECOND) == [2]
    assert store.readable_hours(TABLE, FIRST, SECOND) == [SECOND]


def test_a_commit_that_fails_leaves_no_hour_complete(store: Store) -> None:
    """Half of what is staged is no Parquet: neither the data nor the completion changes."""
    commit(store, {FIRST: (1,)})
    broken = staged(store, {SECOND: (2,)})
    overwrite(broken.files[SECOND][0], b"PAR1")
    with pytest.raises(DamagedFileError, match=rf"{broken.files[SECOND][0]} is damaged"):
        store.commit(broken, claim(store, [SECOND]))
    assert values(store, FIRST, SECOND) == [1]
    assert store.readable_hours(TABLE, FIRST, SECOND) == [FIRST]


def test_a_file_without_a_declared_column_is_refused(store: Store) -> None:
    """Iceberg would read the column back as null, the partition's own included."""
    made = staged(store, {FIRST: (1,)})
    storage.write_table(rows(FIRST, 1).drop_columns(["hour"]), made.files[FIRST][0])
    with pytest.raises(StoreError, match=r"lacks the columns \['hour'\] of table gate_results"):
        store.commit(made, claim(store, [FIRST]))
    assert store.snapshot_id(TABLE) is None
    assert store.readable_hours(TABLE, FIRST, FIRST) == []


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (rows(FIRST, 1).drop_columns(["level"]), r"lack the columns \['level'\]"),
        (rows(FIRST, 1).set_column(1, "value", pa.array(["much"])), "do not fit"),
        (rows(FIRST, 1).set_column(0, "gate", pa.array([None], pa.string())), "have a null gate"),
    ],
)
def test_rows_that_do_not_fit_are_refused(store: Store, table: pa.Table, said: str) -> None:
    with pytest.raises(StoreError, match=said):
        HourWriter(store, TABLE, FIRST).write(table)


def test_equal_rows_have_equal_content(store: Store) -> None:
    one, two = (staged(store, {FIRST: (1, 2)}) for _ in range(2))
    assert one.content == two.content
    assert one.files != two.files
    assert staged(store, {FIRST: (2, 1)}).content != one.content


def test_a_slice_replaces_its_partition_only(store: Store) -> None:
    def part(evaluation: str, ndcg: float) -> pa.Table:
        schema = TABLES["evaluation_groups"].schema
        texts = [f.name for f in schema if pa.types.is_string(f.type)]
        row = {**dict.fromkeys(texts, "x"), "evaluation": evaluation, "hour": FIRST}
        return pa.Table.from_pylist([{**row, "ndcg_at_10": ndcg}], schema=schema)

    for evaluation, ndcg in (("hourly", 0.1), ("offline", 0.2), ("hourly", 0.3)):
        where = {"hour": FIRST, "evaluation": evaluation}
        store.commit_slice(part(evaluation, ndcg), "evaluation_groups", where)
    assert sorted(store.read_all("evaluation_groups")["ndcg_at_10"].to_pylist()) == [0.2, 0.3]
    hourly = store.read("evaluation_groups", [FIRST], where={"evaluation": "hourly"})
    assert hourly["ndcg_at_10"].to_pylist() == [0.3]


def test_appending_keeps_what_is_there(store: Store) -> None:
    assert store.append(PROMOTIONS.empty_table(), "promotions") is None
    texts = [f.name for f in PROMOTIONS if pa.types.is_string(f.type)]
    for number in range(3):
        row = {**dict.fromkeys(texts, str(number)), "decided_at": hr.start_of(FIRST)}
        store.append(pa.Table.from_pylist([row], schema=PROMOTIONS), "promotions")
    assert sorted(store.read_all("promotions")["version"].to_pylist()) == ["0", "1", "2"]


def test_an_unknown_table_is_named(store: Store) -> None:
    with pytest.raises(StoreError, match=r"no table 'event'; the store has .*'events'"):
        store.iceberg("event")


def _commit_hours(warehouse: str, uri: str, hours: list[str]) -> None:
    store = Store(warehouse, uri)
    for hour in hours:
        commit(store, {hour: (float(hour[-2:]),)})
    store.close()


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_concurrent_commits_of_different_hours_all_land(tmp_path: Path, kind: str) -> None:
    hours = hr.hour_range("2026-11-11T00", "2026-11-11T07")
    place = (str(tmp_path / "warehouse"), f"sqlite:///{tmp_path}/catalog.db")
    store = Store(*place)
    store.iceberg(TABLE)
    pool = (
        ThreadPoolExecutor(2)
        if kind == "threads"
        else ProcessPoolExecutor(2, multiprocessing.get_context("spawn"))
    )
    with pool:
        for done in [pool.submit(_commit_hours, *place, hours[i::2]) for i in range(2)]:
            done.result()
    assert values(store, *hours) == [float(h[-2:]) for h in hours]
    assert store.readable_hours(TABLE, hours[0], hours[-1]) == hours
    assert all(c.snapshot_id for c in store.ledger.completions(TABLE, "0", "9").values())
    store.close()


# -- tables made by an earlier version ----------------------------------------------------------


def declare_without(monkeypatch: pytest.MonkeyPatch, column: str) -> None:
    """As if TABLE had not had ``column`` when it was made."""
    schema = pa.schema([field for field in GATE_RESULTS if field.name != column])
    monkeypatch.setitem(TABLES, TABLE, TableSpec(schema))


def test_a_column_that_may_be_null_is_added(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as earlier:
        declare_without(earlier, "detail_json")
        commit(store, {FIRST: (1,)})
    commit(store, {SECOND: (2,)})
    found = store.read(TABLE, [FIRST, SECOND])
    assert found.schema.names == GATE_RESULTS.names
    assert sorted(found["value"].to_pylist()) == [1, 2]
    assert store.iceberg(TABLE).scan().to_arrow()["detail_json"].null_count == 2


def test_a_column_that_may_not_be_null_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        declare_without(earlier, "level")
        store.iceberg(TABLE)
    commit(store, {FIRST: (1,)})  # an empty table has no rows to be null in
    with monkeypatch.context() as later:
        added = GATE_RESULTS.append(pa.field("owner", pa.string(), nullable=False))
        later.setitem(TABLES, TABLE, TableSpec(added))
        made = Staged(TABLE)
        writer = HourWriter(store, TABLE, SECOND)
        table = rows(SECOND, 2)
        writer.write(table.append_column("owner", pa.array(["a"])))
        writer.close(made)
        with pytest.raises(StoreError, match=r"lacks the columns \['owner'\].*Build this store"):
            store.commit(made, claim(store, [SECOND]))
    assert values(store, FIRST, SECOND) == [1]
