"""Canonical Parquet: pruning, types, what is missing, and what is refused."""

from __future__ import annotations

import datetime as dt

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from feature_store.schemas import ENTITY_TABLES, SOURCE_EVENTS, TIMESTAMP
from feature_store.sources import DEFAULT_WINDOWS, SourceError, open_source
from tests.object_store import overwrite


def at(hour, minute=0):
    return dt.datetime(2026, 11, 11, hour, minute, tzinfo=dt.UTC)


def events(*rows, **replaced):
    """Minimal events: (event_id, event_time, ingested_at)."""
    columns = {
        "event_id": pa.array([row[0] for row in rows], pa.string()),
        "event_time": pa.array([row[1] for row in rows], TIMESTAMP),
        "ingested_at": pa.array([row[2] for row in rows], TIMESTAMP),
        "request_id": pa.array(["q"] * len(rows)),
        "user_id": pa.array(["u"] * len(rows)),
        "target_type": pa.array(["item"] * len(rows)),
        "target_id": pa.array(["i"] * len(rows)),
        "action": pa.array(["click"] * len(rows)),
        **replaced,
    }
    return pa.table({name: column for name, column in columns.items() if column is not None})


ROWS = (("a", at(4), at(5)), ("b", at(5, 59), at(6)), ("c", at(6), None), ("d", None, None))


def save(folder, table, name="events/part.parquet", **options):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return open_source("parquet", {"path": folder})


def ids(source, first, last):
    return [
        event for batch in source.events(first, last) for event in batch["event_id"].to_pylist()
    ]


@pytest.mark.parametrize("group", [1, 2, 100])
def test_without_folders_rows_belong_to_their_arrival(tmp_path, group):
    source = save(tmp_path, events(*ROWS), row_group_size=group)
    source.check()
    assert source.span() == ("2026-11-11T05", "2026-11-11T06")
    assert ids(source, "2026-11-11T05", "2026-11-11T05") == ["a", "d"]
    assert ids(source, "2026-11-11T06", "2026-11-11T06") == ["b", "c"]
    assert ids(source, *source.span()) == ["a", "b", "c", "d"]
    assert ids(source, "2026-11-11T07", "2026-11-11T09") == []


def test_a_log_without_arrival_times(tmp_path):
    source = save(tmp_path, events(*ROWS[:3], ingested_at=None))
    assert source.span() == ("2026-11-11T04", "2026-11-11T06")
    batch = next(source.events("2026-11-11T04", "2026-11-11T04"))
    assert batch.schema.equals(SOURCE_EVENTS)
    assert batch["ingested_at"].null_count == batch["position"].null_count == batch.num_rows == 1


def test_folders_are_read_by_name_and_in_order(tmp_path):
    save(tmp_path, events(ROWS[1]), "events/hour=2026-11-11T06/b.parquet")
    save(tmp_path, events(("z", at(6), at(6))), "events/hour=2026-11-11T06/a.parquet")
    save(tmp_path, events(ROWS[3]), "events/hour=2026-11-11T06/c.parquet")
    source = save(tmp_path, events(ROWS[0]), "events/hour=2026-11-11T05/a.parquet")
    save(tmp_path, events(ROWS[0]), "events/hour=2026-11-11T05/.hidden.parquet")
    source.check()
    assert source.span() == ("2026-11-11T05", "2026-11-11T06")
    assert ids(source, "2026-11-11T06", "2026-11-11T06") == ["z", "b", "d"]
    # nothing outside the hours is opened
    (tmp_path / "events/hour=2026-11-11T05/a.parquet").write_bytes(b"PAR1 not")
    assert ids(source, "2026-11-11T06", "2026-11-11T06") == ["z", "b", "d"]
    with pytest.raises(SourceError, match=r"a\.parquet is not a readable Parquet file"):
        source.check()


def test_types_that_convert_exactly(tmp_path):
    loose = events(
        *ROWS[:2],
        event_id=pa.array(["a", "b"]).dictionary_encode(),
        event_time=pa.array([at(4), at(5)]).cast(pa.timestamp("ns", tz="Asia/Shanghai")),
        ingested_at=pa.array([at(5), at(6)]).cast(pa.timestamp("ms")),
        user_id=pa.array([7, 8]),
        position=pa.array([1, 2], pa.int64()),
        value=pa.array([3, 4], pa.int64()),
        query=pa.nulls(2),
        note=pa.array(["ignored", "too"]),
    )
    source = save(tmp_path, loose)
    source.check()
    read = pa.Table.from_batches(source.events(*source.span()))
    assert read.schema.equals(SOURCE_EVENTS)
    assert read["user_id"].to_pylist() == ["7", "8"]
    assert read["event_time"].to_pylist() == [at(4), at(5)]
    assert read["ingested_at"].to_pylist() == [at(5), at(6)]
    assert read["position"].to_pylist() == [1, 2]
    assert source.span() == ("2026-11-11T05", "2026-11-11T06")


@pytest.mark.parametrize(
    ("replaced", "words"),
    [
        ({"user_id": None}, ["part.parquet", "'user_id'", "missing", "2 rows", "rename"]),
        ({"event_time": pa.array(["11:00", "12:00"])},
         ["'event_time'", "string", "2 rows", "'11:00', '12:00'", "timestamp"]),
        ({"value": pa.array(["3", "4"])}, ["'value'", "'3', '4'", "double"]),
        ({"position": pa.array([1.5, 2.0])}, ["'position'", "int32", "1.5"]),
        ({"user_id": pa.array([1.5, 2.0])}, ["'user_id'", "string", "1.5"]),
        ({"request_id": pa.nulls(2, pa.string())}, ["'request_id'", "2 rows", "has_requests"]),
    ],
)  # fmt: skip
def test_wrong_columns_are_named(tmp_path, replaced, words):
    source = save(tmp_path, events(*ROWS[:2], **replaced))
    with pytest.raises(SourceError) as refusal:
        source.check()
    for word in words:
        assert word in str(refusal.value)


def test_values_that_do_not_convert_exactly_are_refused_on_reading(tmp_path):
    nanos = pa.array([1, 2], pa.timestamp("ns", tz="UTC"))
    source = save(tmp_path, events(*ROWS[:2], event_time=nanos))
    with pytest.raises(SourceError, match=r"part\.parquet.*'event_time'.*exactly"):
        list(source.events("1970-01-01T00", "2026-11-11T06"))


def test_no_files(tmp_path):
    with pytest.raises(SourceError, match=r"no Parquet file.*events"):
        open_source("parquet", {"path": tmp_path}).span()
    source = save(tmp_path, events(ROWS[3]))
    with pytest.raises(SourceError, match="event_time"):
        source.span()


def test_folders_must_be_hours_of_arrival(tmp_path):
    source = save(tmp_path, events(ROWS[1]), "events/hour=2026-11-11T05/a.parquet")
    with pytest.raises(SourceError, match=r"hour=2026-11-11T05 holds rows.*2026-11-11T06"):
        source.check()
    save(tmp_path, events(ROWS[1]), "events/hour=11/a.parquet")
    with pytest.raises(SourceError, match=r"'hour=11'.*2026-11-11T05"):
        source.check()


def test_options(tmp_path):
    source = open_source(
        "parquet",
        {
            "path": tmp_path, "windows": {"click": 60}, "time_zone": "Europe/Paris",
            "has_requests": False,
        },
    )  # fmt: skip
    assert (source.windows, source.time_zone) == ({"click": 60}, "Europe/Paris")
    save(tmp_path, events(ROWS[0], request_id=None))
    source.check()
    assert open_source("parquet", {"path": tmp_path}).windows == DEFAULT_WINDOWS


def users(**columns):
    return pa.table({"user_id": ["u1", "u2"], **columns})


def entity_rows(source, name, first, last):
    found = pa.Table.from_batches(source.entities(name, first, last), ENTITY_TABLES[name])
    return [(row["user_id"], row["hour"], row["valid_from"].hour) for row in found.to_pylist()]


def test_entities_are_dated_by_folder_column_or_validity(tmp_path):
    source = save(tmp_path, events(*ROWS))
    assert list(source.entities("rooms", *source.span())) == []
    save(tmp_path, users(), "users/hour=2026-11-11T06/a.parquet")
    assert entity_rows(source, "users", "2026-11-11T05", "2026-11-11T05") == []
    assert entity_rows(source, "users", *source.span()) == [
        ("u1", "2026-11-11T06", 6),
        ("u2", "2026-11-11T06", 6),
    ]
    (tmp_path / "users/hour=2026-11-11T06/a.parquet").unlink()
    since = pa.array([at(2), at(6, 30)], TIMESTAMP)
    save(tmp_path, users(valid_from=since), "users/a.parquet")
    assert entity_rows(source, "users", *source.span()) == [
        ("u1", "2026-11-11T05", 2),
        ("u2", "2026-11-11T06", 6),
    ]
    save(tmp_path, users(hour=["2026-11-11T06", None]), "users/a.parquet")
    assert entity_rows(source, "users", *source.span()) == [
        ("u1", "2026-11-11T06", 6),
        ("u2", "2026-11-11T05", 5),
    ]


def test_attributes_come_through(tmp_path):
    source = save(tmp_path, events(*ROWS))
    numeric = pa.array([[("age", 3.0)], None], pa.map_(pa.string(), pa.float64()))
    save(tmp_path, users(numeric=numeric), "users/a.parquet")
    source.check()
    batch = next(source.entities("users", *source.span()))
    assert batch.schema.equals(ENTITY_TABLES["users"])
    assert batch["numeric"].to_pylist() == [[("age", 3.0)], None]


def test_wrong_entities_are_named(tmp_path):
    source = save(tmp_path, events(*ROWS))
    save(tmp_path, pa.table({"id": ["u"]}), "users/a.parquet")
    with pytest.raises(SourceError, match=r"users.*a\.parquet.*'user_id'.*missing"):
        source.check()
    save(tmp_path, pa.table({"user_id": ["u", None]}), "users/a.parquet")
    with pytest.raises(SourceError, match="'user_id' is null in 1 of 2 rows"):
        list(source.entities("users", *source.span()))
    save(tmp_path, users(hour=["soon", "later"]), "users/a.parquet")
    with pytest.raises(SourceError, match=r"'hour'.*'soon'"):
        list(source.entities("users", *source.span()))
    with pytest.raises(SourceError, match="'shops'"):
        list(source.entities("shops", *source.span()))


def test_a_log_in_a_bucket_is_read_as_one_in_a_folder(tmp_path, bucket):
    save(tmp_path, events(ROWS[0]), "events/hour=2026-11-11T05/a.parquet")
    here = save(tmp_path, users(), "users/hour=2026-11-11T05/a.parquet")
    pafs.copy_files(tmp_path.as_uri(), f"{bucket}/log")
    there = open_source("parquet", {"path": f"{bucket}/log/"})
    assert there.path == f"{bucket}/log"
    there.check()
    assert there.span() == here.span()
    for read in (lambda s: s.events(*s.span()), lambda s: s.entities("users", *s.span())):
        assert list(read(there)) == list(read(here)) != []
    overwrite(f"{bucket}/log/events/hour=2026-11-11T05/a.parquet", b"PAR1 not")
    with pytest.raises(SourceError, match=r"s3://.*a\.parquet is not a readable Parquet file"):
        there.check()
    with pytest.raises(SourceError, match=r"no Parquet file under s3://.*/none/events"):
        open_source("parquet", {"path": f"{bucket}/none"}).check()


def test_an_hour_is_checked_without_the_years_before_it(tmp_path):
    """Broken files of other hours are neither read nor in the way; the whole check finds them."""
    save(tmp_path, events(ROWS[0]), "events/hour=2026-11-11T05/a.parquet")
    source = save(tmp_path, events(ROWS[1]), "events/hour=2026-11-11T06/a.parquet")
    save(tmp_path, users(), "users/hour=2026-11-11T06/a.parquet")
    old = [tmp_path / f"{table}/hour=2026-11-11T04/a.parquet" for table in ("events", "users")]
    for path in old:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"PAR1 not")
    source.check("2026-11-11T05", "2026-11-11T06")
    for path in old:
        with pytest.raises(SourceError, match=str(path)):
            source.check("2026-11-11T04", "2026-11-11T06")
        with pytest.raises(SourceError, match=str(path)):
            source.check()
        path.unlink()
    source.check()


def test_requests_are_asked_for_over_a_day_and_not_of_a_quiet_hour(tmp_path):
    source = save(tmp_path, events(ROWS[0], request_id=None))
    source.check("2026-11-11T05", "2026-11-11T07")
    with pytest.raises(SourceError, match="has_requests: false"):
        source.check("2026-11-11T05", "2026-11-12T04")
