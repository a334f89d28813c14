"""Many small files of a partition rewritten as one: the same rows in the same order."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import parquet_file_to_data_file
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from feature_store import storage
from feature_store.commits import FewCopies
from feature_store.parts import ROW_GROUP
from feature_store.schemas import TABLES
from feature_store.tables import Store, StoreError

__all__ = ["Crowd", "compact", "crowds"]

_SCHEME: Final = "file://"


@dataclass(frozen=True)
class Crowd:
    """A partition of more files than it should have.

    Attributes:
        hour: None for a table without partitions.
        files: in the order in which readers take them.
        bytes: of all of them together.
    """

    table: str
    hour: str | None
    files: tuple[str, ...]
    bytes: int


class _OvertakenError(RuntimeError):
    """Somebody replaced the files while they were rewritten."""


def crowds(store: Store, name: str, through: str, most: int, largest: int) -> list[Crowd]:
    """Partitions of ``name`` with more than ``most`` files, in order.

    Args:
        through: the last hour that is looked at.
        largest: bytes; a partition that has more stays as it is: its files are large already, and
            large hours are split on purpose.
    """
    found: dict[tuple[str, ...], list[DataFile]] = {}
    for task in store.iceberg(name).scan().plan_files():
        values = (task.file.partition[i] for i in range(len(task.file.partition)))
        found.setdefault(tuple(values), []).append(task.file)
    chosen = []
    for partition, files in sorted(found.items()):
        hour = partition[0] if partition else None
        size = sum(file.file_size_in_bytes for file in files)
        if len(files) > most and size <= largest and (hour is None or hour <= through):
            paths = sorted(file.file_path.removeprefix(_SCHEME) for file in files)
            chosen.append(Crowd(name, hour, tuple(paths), size))
    return chosen


def compact(store: Store, crowd: Crowd) -> bool:
    """Rewrite a partition as one file, in one transaction; its completion keeps all but the
    snapshot.

    The rewritten file lies where the first one does, so that rows keep their place among other
    hours as well. Nobody's fence is taken: an hour is left as it is, for the next time, while
    somebody is inside its commit or has withdrawn its completion, when its files are not alike, or
    when they were replaced meanwhile.

    Returns:
        Whether it was rewritten.

    Raises:
        StoreError: when what was written does not have the rows that were read.
    """
    path = _rewritten(crowd)
    if path is None:
        return False
    try:
        done = _swapped(store, crowd, path)
    except _OvertakenError:
        done = False
    if not done:
        storage.remove(path)
    return done


def _rewritten(crowd: Crowd) -> str | None:
    schema = storage.read_schema(crowd.files[0])
    if any(not storage.read_schema(path).equals(schema) for path in crowd.files):
        return None
    rows = sum(storage.read_metadata(path).num_rows for path in crowd.files)
    folder = crowd.files[0].rpartition("/")[0]
    path = f"{folder}/{crowd.hour or 'rows'}-{uuid.uuid4().hex}.parquet"
    with storage.parquet_writer(path, schema) as writer:
        for piece in _row_groups(crowd.files):
            writer.write_table(piece)
    written = storage.read_metadata(path).num_rows
    if written != rows:
        raise StoreError(
            f"{path} has {written} rows instead of the {rows} of the {len(crowd.files)} files of "
            f"{crowd.table} that it was to replace; it was not committed"
        )
    return path


def _row_groups(files: Sequence[str]) -> Iterator[pa.Table]:
    """The rows of ``files`` in order, as one row group each.

    Small files share one; a file of some size has its own, since readers skip row groups by the
    range of keys that a file of a large hour holds.
    """
    waiting: list[pa.RecordBatch] = []
    count = 0
    for path in files:
        with storage.parquet_file(path) as file:
            alone = file.metadata.num_rows >= ROW_GROUP // 2
            for number, batch in enumerate(file.iter_batches(ROW_GROUP)):
                if waiting and (count + batch.num_rows > ROW_GROUP or (alone and not number)):
                    yield pa.Table.from_batches(waiting)
                    waiting, count = [], 0
                waiting.append(batch)
                count += batch.num_rows
        if alone:
            yield pa.Table.from_batches(waiting)
            waiting, count = [], 0
    if waiting:
        yield pa.Table.from_batches(waiting)


def _swapped(store: Store, crowd: Crowd, path: str) -> bool:
    """Replace exactly the files that were read, whoever adds others to the table meanwhile."""

    def attempt(table: Table) -> None:
        there = {
            task.file.file_path.removeprefix(_SCHEME): task.file
            for task in table.scan().plan_files()
        }
        if not there.keys() >= set(crowd.files):
            raise _OvertakenError(crowd.table)
        with FewCopies(table) as transaction:
            made = parquet_file_to_data_file(table.io, transaction.table_metadata, path)
            with transaction.update_snapshot().overwrite() as overwrite:
                if crowd.hour is None:  # else its manifests are not looked at
                    overwrite.delete_by_predicate(AlwaysTrue())
                for file in crowd.files:
                    overwrite.delete_data_file(there[file])
                overwrite.append_data_file(made)

    if crowd.hour is None or TABLES[crowd.table].partition != ("hour",):
        store.change(crowd.table, attempt)  # slices and appended rows have no completion
        return True
    with store.ledger.undisturbed(crowd.hour) as free:
        if not free or not store.ledger.completions(crowd.table, crowd.hour, crowd.hour):
            return False
        snapshot = store.change(crowd.table, attempt).current_snapshot()
        store.ledger.moved(crowd.table, crowd.hour, snapshot and snapshot.snapshot_id)
    return True
