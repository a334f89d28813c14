"""Snapshots, tags and files nobody names: what goes, and above all what stays."""

from __future__ import annotations

import datetime as dt
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.table import Table

from feature_store import hours as hr
from feature_store import unreferenced
from feature_store.compaction import compact, crowds
from feature_store.maintenance import Expired, MaintenanceRules, expire
from feature_store.tables import Store, StoreError
from feature_store.unreferenced import Swept, referenced, sweep
from tests.feature_store.gate_hours import (
    HOURS,
    LATER,
    NOW,
    TABLE,
    age,
    claim,
    commit,
    on_disk,
    staged,
    values,
)

FIRST, SECOND = HOURS[:2]


def nobodys(label: str) -> bool:  # noqa: ARG001
    return True


def somebodys(label: str) -> bool:  # noqa: ARG001
    return False


def snapshots(store: Store) -> set[int]:
    return {snapshot.snapshot_id for snapshot in store.iceberg(TABLE).metadata.snapshots}


def all_hours(store: Store) -> dict[str, list[float]]:
    readable = store.readable_hours(TABLE, HOURS[0], HOURS[-1])
    return {hour: values(store, hour) for hour in readable}


def maintained(store: Store, now: dt.datetime = LATER) -> tuple[Expired, Swept]:
    """Expiry and removal as the job does them, seen from ``now``."""
    rules = MaintenanceRules()
    expired = expire(store, TABLE, rules.snapshots_before(TABLE, now), nobodys)
    return expired, sweep(store, TABLE, rules.files_before(now))


# -- snapshots ------------------------------------------------------------------------------------


def test_readable_hours_keep_their_rows_and_a_second_run_does_nothing(store: Store) -> None:
    for hour in HOURS:
        commit(store, hour, (1, 2))
    for hour in HOURS[::2]:
        commit(store, hour, (3, 4, 5))
    before = all_hours(store)
    assert len(before) == len(HOURS)
    expired, swept = maintained(store)
    assert expired.snapshots and swept.files
    assert snapshots(store) == {store.snapshot_id(TABLE)}
    assert on_disk(store) == referenced(store.iceberg(TABLE))
    assert all_hours(store) == before
    state = store.iceberg(TABLE).metadata_location
    assert maintained(store) == (Expired(), Swept())
    assert store.iceberg(TABLE).metadata_location == state
    commit(store, SECOND, (7,))
    assert values(store, SECOND) == [7], "the table can be written as before"


def test_a_snapshot_is_kept_for_its_days_after_it_was_replaced(store: Store) -> None:
    """Not after it was made: a reader may have resolved it when it was the current one."""
    first = commit(store, FIRST, (1,))
    made = store.iceberg(TABLE).current_snapshot()
    assert made is not None
    last = commit(store, SECOND, (2,))
    replaced = store.iceberg(TABLE).current_snapshot()
    assert replaced is not None and replaced.timestamp_ms > made.timestamp_ms
    instant = dt.datetime.fromtimestamp(replaced.timestamp_ms / 1000, dt.UTC)
    assert expire(store, TABLE, instant, nobodys) == Expired()
    assert snapshots(store) == {first, last}
    late = expire(store, TABLE, instant + dt.timedelta(milliseconds=1), nobodys)
    assert late.snapshots == {first}
    assert snapshots(store) == {last}


def test_a_tagged_snapshot_gives_the_same_rows_for_ever(store: Store) -> None:
    first = commit(store, FIRST, (1, 2))
    store.tag(TABLE, first, "model")
    for number in range(3):
        commit(store, FIRST, (number,))
    rules = MaintenanceRules()
    expired = expire(store, TABLE, LATER, somebodys)
    swept = sweep(store, TABLE, rules.files_before(LATER))
    assert expired.snapshots and not expired.tags and swept.files
    assert snapshots(store) == {first, store.snapshot_id(TABLE)}
    assert values(store, FIRST, snapshot=first) == [1, 2]
    assert values(store, FIRST) == [2]


def test_a_tag_that_nobody_needs_goes_with_its_snapshot_and_files(store: Store) -> None:
    first = commit(store, FIRST, (1, 2))
    [path] = store.files(TABLE, [FIRST])
    store.tag(TABLE, first, "model-a")
    store.tag(TABLE, first, "model-b")
    last = commit(store, FIRST, (3,))
    store.tag(TABLE, last, "model-c")
    one = expire(store, TABLE, LATER, lambda label: label == "model-a")
    assert one.tags == ("model-a",)
    assert first not in one.snapshots, "model-b needs it"
    assert sorted(store.iceberg(TABLE).refs()) == ["main", "model-b", "model-c"]
    assert values(store, FIRST, snapshot=first) == [1, 2]
    other = expire(store, TABLE, LATER, nobodys)
    assert other == Expired(frozenset({first}), ("model-b",)), "the current snapshot keeps its tag"
    sweep(store, TABLE, LATER)
    assert path not in on_disk(store)
    assert values(store, FIRST) == [3]


def test_a_tag_is_not_dropped_before_its_snapshot_is_due(store: Store) -> None:
    """A training tags what it reads before there is a model version to be found."""
    first = commit(store, FIRST, (1,))
    store.tag(TABLE, first, "model-in-training")
    commit(store, FIRST, (2,))
    rules = MaintenanceRules()
    assert expire(store, TABLE, rules.snapshots_before(TABLE, NOW), nobodys) == Expired()
    assert values(store, FIRST, snapshot=first) == [1]


def test_a_tag_made_while_snapshots_expire_is_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit is refused and planned again; pyiceberg alone would drop the tag."""
    first = commit(store, FIRST, (1,))
    commit(store, FIRST, (2,))
    real, tagged = Table._do_commit, []

    def tag_first(table: Table, *updates: Any, **kwargs: Any) -> None:
        if not tagged:
            tagged.append(True)
            store.tag(TABLE, first, "in-between")
        real(table, *updates, **kwargs)

    monkeypatch.setattr(Table, "_do_commit", tag_first)
    expired = expire(store, TABLE, LATER, somebodys)
    assert first not in expired.snapshots and expired.snapshots
    assert store.iceberg(TABLE).refs()["in-between"].snapshot_id == first
    assert values(store, FIRST, snapshot=first) == [1]


# -- files ----------------------------------------------------------------------------------------


def test_what_was_resolved_before_can_be_read_after(store: Store) -> None:
    """Old files, replaced a moment ago: neither they nor their snapshot may go yet."""
    commit(store, FIRST, (1, 2))
    for path in on_disk(store):
        age(path, 50)
    dataset = store.dataset(TABLE, [FIRST])
    commit(store, FIRST, (3,))
    expired, swept = maintained(store, NOW)
    assert (expired, swept) == (Expired(), Swept())
    assert dataset.to_table()["value"].to_pylist() == [1, 2]


def test_what_is_staged_survives_and_can_be_committed(store: Store) -> None:
    commit(store, FIRST, (1,))
    writer = claim(store, SECOND, "slow")
    waiting = staged(store, SECOND, (7, 8))
    spill = Path(store.staging(TABLE) + "-spill")
    (spill / "deeper").mkdir(parents=True)
    assert sweep(store, TABLE, NOW - dt.timedelta(hours=24)) == Swept()
    assert (spill / "deeper").is_dir()
    store.commit(waiting, writer)
    assert values(store, SECOND) == [7, 8]


def test_what_is_committed_between_listing_and_looking_survives(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was staged very long ago, at the worst moment."""
    commit(store, FIRST, (1,))
    writer = claim(store, SECOND, "very slow")
    waiting = staged(store, SECOND, (7, 8))
    age(waiting.files[SECOND][0], 9)
    real = unreferenced._listed

    def then_commit(*arguments: Any) -> Any:
        listed = real(*arguments)
        store.commit(waiting, writer)
        return listed

    monkeypatch.setattr(unreferenced, "_listed", then_commit)
    assert sweep(store, TABLE, NOW - dt.timedelta(hours=24)) == Swept()
    assert values(store, SECOND) == [7, 8]


def test_what_nobody_names_goes_once_it_is_old(store: Store) -> None:
    commit(store, FIRST, (1,))
    left = staged(store, SECOND, (7,)).files[SECOND] + staged(store, SECOND, (8,)).files[SECOND]
    spill = Path(store.staging(TABLE) + "-spill")
    spill.mkdir()
    (spill / f"{SECOND}.parquet").write_bytes(b"1234")
    metadata = Path(store.warehouse) / "rankmill" / TABLE / "metadata"
    lost = metadata / "0000-lost-m0.avro"
    lost.write_bytes(b"12345")
    half = metadata / "00009-half.metadata.json"
    half.write_text('{"format-ver')
    for path in (left[0], Path(left[0]).parent, spill / f"{SECOND}.parquet", spill, lost, half):
        age(path, 2)
    expected = Swept(4, Path(left[0]).stat().st_size + 9 + 12, 2)
    before = NOW - dt.timedelta(hours=24)
    assert sweep(store, TABLE, before, dry=True) == expected
    assert Path(left[0]).exists(), "a dry run removes nothing"
    assert sweep(store, TABLE, before) == expected
    assert not Path(left[0]).parent.exists() and not spill.exists()
    assert Path(left[1]).exists(), "that one is not old"
    assert sweep(store, TABLE, before) == Swept()
    assert values(store, FIRST) == [1]


def test_links_are_neither_followed_nor_removed(store: Store, tmp_path: Path) -> None:
    commit(store, FIRST, (1,))
    outside = tmp_path / "precious"
    outside.mkdir()
    (outside / "file").write_text("precious")
    age(outside / "file", 9)
    data = Path(store.warehouse) / "rankmill" / TABLE / "data"
    folder = data / "linked"
    folder.mkdir()
    (folder / "folder").symlink_to(outside)
    (folder / "file").symlink_to(outside / "file")
    for path in (folder / "folder", folder / "file", folder):
        age(path, 9)
    assert sweep(store, TABLE, NOW) == Swept()
    assert (outside / "file").read_text() == "precious"
    assert (folder / "folder").is_symlink() and (folder / "file").is_symlink()


def test_a_run_killed_between_commit_and_removal_is_finished_by_the_next(store: Store) -> None:
    commit(store, FIRST, (1,))
    commit(store, FIRST, (2,))
    expired = expire(store, TABLE, LATER, nobodys)
    assert expired.snapshots
    assert on_disk(store) > referenced(store.iceberg(TABLE))
    again, swept = maintained(store)
    assert again == Expired() and swept.files
    assert on_disk(store) == referenced(store.iceberg(TABLE))
    assert values(store, FIRST) == [2]


def test_a_dry_run_counts_what_the_real_one_does(store: Store) -> None:
    for number in range(4):
        commit(store, FIRST, (number,))
    there = on_disk(store)
    dry = expire(store, TABLE, LATER, nobodys, dry=True)
    listed = sweep(store, TABLE, LATER, dry.snapshots, dry=True)
    assert on_disk(store) == there and len(snapshots(store)) > 1
    assert expire(store, TABLE, LATER, nobodys) == dry
    real = sweep(store, TABLE, LATER)
    # The real expiry makes a metadata file that the dry one does not, and replaces none here.
    assert real == listed
    assert real.files == len(there - on_disk(store))


def test_a_store_that_is_not_all_of_it_is_left_alone(store: Store, tmp_path: Path) -> None:
    """Two catalogs over one folder: either would take the other's files for left over."""
    commit(store, FIRST, (1,))
    other = Store(store.warehouse, f"sqlite:///{tmp_path}/other.db")
    commit(other, FIRST, (2,))
    there = on_disk(store)
    for catalog in (store, other):
        with pytest.raises(StoreError, match=r"belongs to the table of another catalog"):
            sweep(catalog, TABLE, LATER)
    assert on_disk(store) == there
    assert (values(store, FIRST), values(other, FIRST)) == ([1], [2])
    other.close()


def test_what_a_run_left_that_was_too_late_to_create_the_table_goes(
    store: Store, tmp_path: Path
) -> None:
    other = Store(store.warehouse, f"sqlite:///{tmp_path}/other.db")
    late = other.iceberg(TABLE).metadata_location.removeprefix("file://")
    other.close()
    commit(store, FIRST, (1,))
    age(late, 2)
    assert sweep(store, TABLE, NOW - dt.timedelta(hours=24)).files == 1
    assert not Path(late).exists()


def test_files_outside_the_tables_folder_stop_the_removal(store: Store, tmp_path: Path) -> None:
    """The same folder under another name: paths of the two do not compare."""
    commit(store, FIRST, (1,))
    moved = Store(str(tmp_path / "elsewhere"), f"sqlite:///{tmp_path}/catalog.db")
    commit(moved, SECOND, (2,))
    with pytest.raises(StoreError, match=r"1 files of the table lie outside its folder"):
        sweep(store, TABLE, LATER)
    moved.close()


@pytest.mark.parametrize("part", ["", "/metadata"])
def test_a_folder_that_is_a_link_is_left_alone(store: Store, tmp_path: Path, part: str) -> None:
    commit(store, FIRST, (1,))
    commit(store, FIRST, (2,))
    folder = Path(f"{store.warehouse}/rankmill/{TABLE}{part}")
    folder.rename(tmp_path / "larger-disk")
    folder.symlink_to(tmp_path / "larger-disk")
    expire(store, TABLE, LATER, nobodys)
    there = sorted(tmp_path.rglob("*"))
    with pytest.raises(StoreError, match=r"is not below .*links are not followed"):
        sweep(store, TABLE, LATER)
    assert sorted(tmp_path.rglob("*")) == there


# -- beside writers -------------------------------------------------------------------------------


def test_a_concurrent_committer_loses_nothing(store: Store) -> None:
    """One thread writes, and rewrites, hour after hour; another one maintains all the time."""
    hours = hr.hour_range("2026-11-11T00", "2026-11-11T11")
    store.iceberg(TABLE)
    stop = threading.Event()
    found: list[int] = []

    def upkeep() -> None:
        mine = Store(store.warehouse, str(store.ledger._engine.url))
        while not stop.is_set():
            found.append(len(expire(mine, TABLE, LATER, nobodys).snapshots))
            found.extend(compact(mine, c) for c in crowds(mine, TABLE, hours[-1], 1, 10**9))
            # Files of these seconds are young: nothing staged may be taken for left over.
            sweep(mine, TABLE, NOW - dt.timedelta(hours=1))
        mine.close()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(upkeep)
        try:
            for hour in hours:
                commit(store, hour, (1,), (2,))
                commit(store, hour, (3,), (4, 5))
        finally:
            stop.set()
        running.result()
    assert sum(found), "upkeep came to do something"
    assert store.readable_hours(TABLE, hours[0], hours[-1]) == hours
    for hour in hours:
        assert sorted(values(store, hour)) == [3, 4, 5]
    maintained(store)
    assert sorted(values(store, *hours)) == sorted([3.0, 4.0, 5.0] * len(hours))


# -- rules ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"snapshot_days": 0.5}, "snapshot_days must be kept .* at least .*1 days.*got 0.5"),
        ({"snapshot_days": float("nan")}, "got nan"),
        ({"snapshot_days": float("inf")}, "at most 36,500, got inf"),
        ({"table_snapshot_days": {"samples": "7"}}, "samples must be kept .* got '7'"),
        ({"table_snapshot_days": {"sample": 7}}, r"names \['sample'\]; tables are .*'samples'"),
        ({"unreferenced_hours": 0.0}, "unreferenced_hours must be at least 1 .*got 0.0"),
        ({"quarantine_days": -1.0}, "quarantine_days must be at least 1"),
        ({"max_files": 0}, "max_files must be at least 1 .*got 0"),
    ],
)
def test_rules_that_would_let_too_much_go_are_refused(rules: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        MaintenanceRules(**rules)


def test_a_table_may_have_days_of_its_own() -> None:
    rules = MaintenanceRules(snapshot_days=2, table_snapshot_days={"samples": 7})
    assert rules.snapshots_before("samples", NOW) == NOW - dt.timedelta(days=7)
    assert rules.snapshots_before("events", NOW) == NOW - dt.timedelta(days=2)
