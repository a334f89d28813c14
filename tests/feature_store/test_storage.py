"""Files in a bucket as in a folder; damaged ones, and stores that cannot be reached."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from feature_store import storage
from feature_store.compaction import compact, crowds
from feature_store.damage import MADE_BY, DamagedFileError
from feature_store.schemas import PROMOTIONS
from feature_store.staged import StoreError
from feature_store.tables import Store
from feature_store.unreferenced import Swept, sweep
from tests.feature_store.test_tables import HOURS, commit, staged, values
from tests.object_store import BUCKET, ObjectStore, free_ports, overwrite

FIRST, SECOND = HOURS[:2]
ROWS = pa.table({"number": range(5000), "text": [f"row {n}" for n in range(5000)]})
LATER = dt.timedelta(minutes=1)
LONG_AGO = dt.datetime(2026, 11, 11, tzinfo=dt.UTC)


@pytest.fixture
def there(bucket: str, tmp_path: Path) -> Store:
    """A store in the bucket."""
    return Store(bucket, f"sqlite:///{tmp_path}/catalog.db")


def filled(schema: pa.Schema, known: dict[str, Any]) -> dict[str, Any]:
    """A row with something in every column that may not be null."""
    zeros = {pa.string(): "", pa.int64(): 0, pa.float64(): 0.0, pa.bool_(): False}
    return {f.name: None if f.nullable else zeros.get(f.type) for f in schema} | known


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/a//b/", "s3://bucket/a/b"),
        ("/folder/../other/", "/other"),
        ("file:///folder", "/folder"),
    ],
)
def test_a_warehouse_has_one_name(given: str, meant: str) -> None:
    assert storage.absolute(given) == meant


@pytest.mark.parametrize("given", ["s3a://bucket/folder", "hdfs://host/folder", "s3:///folder"])
def test_a_place_for_no_tables_is_refused(given: str) -> None:
    with pytest.raises(StoreError, match="s3://bucket/folder"):
        storage.absolute(given)


@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_a_damaged_page_is_an_error(place: str, bucket: str, tmp_path: Path) -> None:
    """Uncompressed, so that nothing but the checksum notices."""
    path = f"{bucket if place == 'bucket' else tmp_path}/deeper/rows.parquet"
    with storage.parquet_writer(path, ROWS.schema, compression="none") as writer:
        writer.write_table(ROWS)
    sound = storage.read_bytes(path)
    at = sound.index(b"row 4321")
    overwrite(path, sound[:at] + b"row 1234" + sound[at + 8 :])
    for read in (
        lambda: storage.read_table(path),
        lambda: storage.parquet_file(path).read(),
        lambda: storage.dataset([path], ROWS.schema).to_table(),
    ):
        with pytest.raises(DamagedFileError, match=rf"{path} is damaged .*CRC"):
            read()


def test_every_table_is_made_by_a_job() -> None:
    there = {path.stem for path in (Path(storage.__file__).parents[1] / "jobs").glob("*.py")}
    assert set(MADE_BY.values()) <= there


def test_names_values_and_digests_of_files(bucket: str, tmp_path: Path) -> None:
    paths = [f"{place}/rows.parquet" for place in (bucket, str(tmp_path))]
    for path in paths:
        storage.write_table(ROWS, path)
        assert storage.read_table(path) == ROWS
        assert storage.read_table(path, ["text"]).column_names == ["text"]
        assert storage.read_schema(path) == ROWS.schema
        assert storage.read_metadata(path).num_rows == ROWS.num_rows
    assert storage.sha256(paths[0]) == storage.sha256(paths[1])
    assert [path for path, _ in storage.objects(bucket)] == paths[:1]
    for path in [*paths, *paths]:  # the second time they are gone
        storage.remove(path)
        with pytest.raises(FileNotFoundError):
            storage.read_bytes(path)
    assert list(storage.objects(bucket)) == []


def test_small_files_of_a_bucket_become_one_and_the_old_ones_go(there: Store) -> None:
    for value in range(3):
        decision = {"decision_id": f"d{value}", "name": "gbdt_ranker", "decided_at": LONG_AGO}
        there.append(pa.Table.from_pylist([filled(PROMOTIONS, decision)], PROMOTIONS), "promotions")
    before = there.read_all("promotions").to_pylist()
    [crowd] = crowds(there, "promotions", FIRST, 2, 1 << 20)
    assert compact(there, crowd)
    assert len(crowds(there, "promotions", FIRST, 0, 1 << 20)[0].files) == 1
    assert sorted(map(str, there.read_all("promotions").to_pylist())) == sorted(map(str, before))


def test_what_nothing_names_is_swept_from_a_bucket(there: Store) -> None:
    commit(there, {FIRST: (1,)})
    lost = staged(there, {SECOND: (2,)}).files[SECOND][0]
    table, now = "gate_results", dt.datetime.now(dt.UTC)
    assert sweep(there, table, now - LATER) == Swept()
    size = len(storage.read_bytes(lost))
    assert sweep(there, table, now + LATER, dry=True) == Swept(1, size, 0)
    assert sweep(there, table, now + LATER) == Swept(1, size, 0)
    assert sweep(there, table, now + LATER) == Swept()
    assert values(there, FIRST) == [1]


def test_what_a_writer_spills_stays_on_this_machine(there: Store) -> None:
    folder = there.spill_folder("events")
    assert folder.is_dir() and folder.is_absolute()
    folder.rmdir()


def test_a_store_that_does_not_answer_is_named(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"http://127.0.0.1:{free_ports(1)[0]}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    with pytest.raises(StoreError, match=rf"{address} does not answer .*AWS_ENDPOINT_URL"):
        Store(bucket, f"sqlite:///{tmp_path}/catalog.db")


def test_a_bucket_that_is_not_there_is_named(bucket: str, tmp_path: Path) -> None:
    assert bucket.startswith(f"s3://{BUCKET}/")
    with pytest.raises(StoreError, match="has no bucket 'absent'; create it"):
        Store("s3://absent/warehouse", f"sqlite:///{tmp_path}/catalog.db")


def test_a_wrong_key_is_refused_without_being_shown(
    bucket: str, object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody-else")
    with pytest.raises(StoreError, match="AWS_SECRET_ACCESS_KEY") as refused:
        Store(bucket, f"sqlite:///{tmp_path}/catalog.db")
    assert object_store.secret not in str(refused.value)
