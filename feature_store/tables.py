"""Iceberg tables: whole hours in, whole hours out.

Writers stage Parquet files under fresh UUID paths and commit them in one transaction per table; a
reader resolves completed, validated hours to a list of files at one snapshot and hands that to
Spark or Arrow. Field nullability is relaxed in the files, as Spark writes every column as optional.
"""

from __future__ import annotations

import contextlib
import random
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import pyarrow as pa
from pyiceberg.exceptions import (
    CommitFailedException,
    NamespaceAlreadyExistsError,
    NoSuchTableError,
    TableAlreadyExistsError,
    ValidationException,
)
from pyiceberg.expressions import (
    And,
    BooleanExpression,
    EqualTo,
    In,
    LessThan,
)
from pyiceberg.io.pyarrow import _pyarrow_to_schema_without_ids
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema, assign_fresh_schema_ids
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform

from feature_store import storage
from feature_store.commits import check_footers, replace_files
from feature_store.database import reachable
from feature_store.hour_writer import HourWriter, conform
from feature_store.ledger import Completion, Ledger
from feature_store.plans import planned_files
from feature_store.schemas import TABLES, TableSpec, optional
from feature_store.staged import Staged, StoreError
from feature_store.table_catalog import TableCatalog

__all__ = ["HourWriter", "Staged", "Store", "StoreError", "Writer"]

_NAMESPACE: Final = "rankmill"
_COMMIT_TRIES: Final = 30
_PROPERTIES: Final = {
    "commit.manifest-merge.enabled": "true",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
    # Statistics of hundreds of feature columns would dominate every commit; only the partition
    # columns are ever used for planning.
    "write.metadata.metrics.default": "none",
    "write.metadata.metrics.column.hour": "full",
    "write.metadata.metrics.column.evaluation": "full",
}
_MERGED: Final = 8
"""So many manifests become one, and one that has grown to their size is left alone. Whoever looks
for an hour reads all of a manifest; one of all hours would cost the more the older a table is."""


@dataclass(frozen=True)
class Writer:
    """Who writes: the stage whose fence is held, and the token of the run."""

    stage: str
    token: str


class Store:
    """The warehouse and its catalog.

    Args:
        warehouse: what holds the tables: a folder, e.g. ``/data/warehouse``, or a place in a
            bucket, ``s3://bucket/warehouse``.
        catalog_uri: SQLAlchemy URL of the catalog's database.

    Raises:
        StoreError: when ``warehouse`` is neither, or its bucket cannot be reached.
        LedgerError: when the database does not answer.
    """

    def __init__(self, warehouse: str, catalog_uri: str) -> None:
        self.warehouse = storage.absolute(warehouse)
        storage.check(self.warehouse)
        reachable(catalog_uri)
        self._catalog = TableCatalog(
            "rankmill", uri=catalog_uri, **storage.catalog_properties(self.warehouse),
            pool_pre_ping="true",  # the database may have been restarted between two commits
        )  # fmt: skip
        self.ledger = Ledger(self._catalog.engine)
        with contextlib.suppress(NamespaceAlreadyExistsError):
            self._catalog.create_namespace(_NAMESPACE)

    def close(self) -> None:
        """Give the database connections back."""
        self._catalog.engine.dispose()

    def iceberg(self, name: str) -> Table:
        """The Iceberg table ``name``, created from its declared schema when it is not there yet."""
        if name not in TABLES:
            raise StoreError(f"no table {name!r}; the store has {sorted(TABLES)}")
        identifier = (_NAMESPACE, name)
        try:
            return self._catalog.load_table(identifier)
        except NoSuchTableError:
            schema, partition = _iceberg_layout(TABLES[name])
        try:
            return self._catalog.create_table(
                identifier, schema, partition_spec=partition, properties=_properties(TABLES[name])
            )
        except TableAlreadyExistsError:
            return self._catalog.load_table(identifier)

    def staging(self, table: str) -> str:
        """A fresh folder path for files of ``table``; nothing sees them before their commit."""
        return f"{self.warehouse}/{_NAMESPACE}/{table}/data/{uuid.uuid4().hex}"

    def spill_folder(self, table: str) -> Path:
        """A fresh folder of this machine for what a writer of ``table`` cannot hold in memory.

        Beside its files where the warehouse is a folder, so that what a killed writer leaves is
        swept with them; else among the system's temporary files.
        """
        if storage.in_bucket(self.warehouse):
            return Path(tempfile.mkdtemp(prefix="rankmill-spill-"))
        folder = Path(f"{self.staging(table)}-spill")
        folder.mkdir(parents=True)
        return folder

    def commit(
        self, staged: Staged, writer: Writer, *, validated: bool | None = True
    ) -> int | None:
        """Replace the staged hours, all of them in one transaction, and record their completion.

        Hours whose content is already there unchanged, in files that can be read, are left as they
        are, snapshot included, so a rerun is without effect; one with a damaged file is replaced,
        and its verdict stands.

        Returns:
            The snapshot that holds the hours; None when the table is still empty.

        Raises:
            FencedOutError: when a later run took the stage over.
        """
        ledger = self.ledger
        with ledger.holding(writer.stage, staged.hours, writer.token):
            known = ledger.completions(staged.table, staged.hours[0], staged.hours[-1])
            same = [h for h in staged.hours if _same(known.get(h), staged, h)]
            kept = self.intact(staged.table, same)
            changed = [h for h in staged.hours if h not in kept]
            if not changed:
                return self.snapshot_id(staged.table)
            ledger.forget(staged.table, changed)
            paths = [path for hour in changed for path in staged.files[hour]]
            snapshot = self._replace(staged.table, In("hour", changed), paths, writer)
            ledger.complete(
                [
                    Completion(
                        staged.table, hour, writer.token, staged.rows[hour],
                        staged.content[hour], snapshot,
                        known[hour].validated if hour in same else validated,
                    )
                    for hour in changed
                ]
            )  # fmt: skip
        return snapshot

    def intact(self, table: str, hours: Sequence[str]) -> set[str]:
        """Those of completed ``hours`` whose files are there, can be read, and hold all rows.

        Hours whose rows have aged have no files, and are as they should be.
        """
        rows, broken = dict.fromkeys(hours, 0), set()
        if not hours:
            return set()
        for hour, file in planned_files(self.iceberg(table), min(hours), max(hours)):
            if hour in rows:
                rows[hour] += file.record_count
                if not storage.intact(file.file_path.removeprefix("file://")):
                    broken.add(hour)
        known = self.ledger.completions(table, min(hours), max(hours))
        whole = {hour for hour in known if rows.get(hour) in (0, known[hour].rows)}
        return whole - broken

    def commit_slice(self, rows: pa.Table, table: str, where: Mapping[str, str]) -> int | None:
        """Replace one partition below the hour (``hour`` and ``evaluation``) in one transaction."""
        path = self._write_loose(rows, table, where["hour"])
        terms: list[BooleanExpression] = [EqualTo(column, value) for column, value in where.items()]
        return self._replace(table, And(*terms) if len(terms) > 1 else terms[0], path, None)

    def append(self, rows: pa.Table, table: str) -> int | None:
        """Add rows to an append-only table, in one transaction."""
        return self._replace(table, None, self._write_loose(rows, table, "rows"), None)

    def _write_loose(self, rows: pa.Table, table: str, name: str) -> list[str]:
        if rows.num_rows == 0:
            return []
        conformed = conform(rows, table, TABLES[table])
        path = f"{self.staging(table)}/{name}.parquet"
        storage.write_table(conformed, path)
        return [path]

    def _replace(
        self, name: str, where: BooleanExpression | None, paths: list[str], writer: Writer | None
    ) -> int | None:
        """One transaction: drop what matches ``where``, add ``paths``; retried when others commit.

        Commits of other hours make the catalog refuse ours; reloading and planning again is the
        remedy, whichever of its two exceptions says so.
        """
        check_footers(name, paths)
        properties = {"rankmill.writer": writer.token} if writer else {}
        attempt = partial(replace_files, where=where, paths=paths, properties=properties)
        snapshot = self.change(name, attempt).current_snapshot()
        return None if snapshot is None else snapshot.snapshot_id

    def change(self, name: str, attempt: Callable[[Table], None]) -> Table:
        """Let ``attempt`` commit to the table; to the table reloaded, when others were faster.

        Returns:
            The table as it is afterwards.

        Raises:
            StoreError: when others were faster every time.
        """
        for number in range(_COMMIT_TRIES):
            try:
                attempt(self._with_declared_columns(name))
            except (CommitFailedException, ValidationException) as error:
                if number == _COMMIT_TRIES - 1:
                    raise StoreError(
                        f"table {name} could not be committed in {_COMMIT_TRIES} tries, others "
                        f"commit to it all the time ({error}); run this again"
                    ) from error
                time.sleep(random.uniform(0.05, 0.2) * min(number + 1, 5))
            else:
                break
        return self.iceberg(name)

    def drop_before(self, name: str, hour: str) -> int | None:
        """Remove the rows of all hours before ``hour``, in one transaction; completions stay."""
        return self._replace(name, LessThan("hour", hour), [], None)

    def existing(self) -> list[str]:
        """The declared tables that the catalog has, in the order of their declaration."""
        there = {identifier[-1] for identifier in self._catalog.list_tables(_NAMESPACE)}
        return [name for name in TABLES if name in there]

    def _with_declared_columns(self, name: str) -> Table:
        """The table as it is declared now: with the properties, and with the columns declared since
        it was made, null in its earlier rows.

        Raises:
            StoreError: when such a column may not be null.
        """
        table, declared = self.iceberg(name), TABLES[name].schema
        missing = [c for c in declared if c.name not in table.schema().column_names]
        required = [c.name for c in missing if not c.nullable]
        if required and table.current_snapshot() is not None:
            raise StoreError(
                f"table {name} in {self.warehouse} was made by another version: it lacks the "
                f"columns {required}, which may not be null. Build this store anew from its source."
            )
        properties = _properties(TABLES[name])
        if not missing and properties.items() <= table.properties.items():
            return table
        with table.transaction() as transaction:
            transaction.set_properties(properties)
            if missing:
                with transaction.update_schema() as update:
                    update.union_by_name(_iceberg_layout(TABLES[name])[0])
        return self.iceberg(name)

    def files(
        self,
        name: str,
        hours: Sequence[str],
        where: Mapping[str, str] | None = None,
        snapshot_id: int | None = None,
    ) -> list[str]:
        """The data files of ``hours`` at a snapshot (the current one by default), by hour.

        Args:
            where: further partition values, e.g. ``{"evaluation": "hourly"}``.
        """
        found = self.files_by_hour(name, hours, where, snapshot_id)
        return [path for hour in sorted(found) for path in sorted(found[hour])]

    def files_by_hour(
        self,
        name: str,
        hours: Sequence[str],
        where: Mapping[str, str] | None = None,
        snapshot_id: int | None = None,
    ) -> dict[str, list[str]]:
        """The data files of each of ``hours``, from one plan; arguments as of :meth:`files`."""
        found: dict[str, list[str]] = {hour: [] for hour in hours}
        if not hours:
            return found
        spec = TABLES[name].partition
        wanted = {spec.index(column): value for column, value in (where or {}).items()}
        table = self.iceberg(name)
        for hour, file in planned_files(table, min(hours), max(hours), snapshot_id):
            mine = all(file.partition[place] == value for place, value in wanted.items())
            if mine and hour in found:
                found[hour].append(file.file_path.removeprefix("file://"))
        return found

    def snapshot_id(self, name: str) -> int | None:
        """The table's current snapshot, None while it is empty."""
        snapshot = self.iceberg(name).current_snapshot()
        return None if snapshot is None else snapshot.snapshot_id

    def readable_hours(self, name: str, first: str, last: str) -> list[str]:
        """Completed and validated hours of ``name`` in [first, last], in order."""
        return list(self.ledger.readable(name, first, last))

    def dataset(
        self,
        name: str,
        hours: Sequence[str],
        where: Mapping[str, str] | None = None,
        snapshot_id: int | None = None,
    ) -> storage.Rows:
        """The rows of ``hours`` as a dataset with the table's declared schema."""
        schema = optional(TABLES[name].schema)
        paths = self.files(name, hours, where, snapshot_id)
        return storage.dataset(paths, schema)

    def read(
        self,
        name: str,
        hours: Sequence[str],
        columns: Sequence[str] | None = None,
        where: Mapping[str, str] | None = None,
        snapshot_id: int | None = None,
    ) -> pa.Table:
        """The rows of ``hours`` as an Arrow table, at a snapshot (the current one by default)."""
        rows = self.dataset(name, hours, where, snapshot_id)
        return rows.to_table(columns=columns and list(columns))

    def read_all(self, name: str) -> pa.Table:
        """Every row of a small append-only table, at its current snapshot."""
        paths = [
            t.file.file_path.removeprefix("file://") for t in self.iceberg(name).scan().plan_files()
        ]
        schema = optional(TABLES[name].schema)
        return storage.dataset(sorted(paths), schema).to_table()

    def batches(
        self, name: str, hours: Sequence[str], columns: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """The rows of ``hours`` as Arrow batches, memory bounded."""
        yield from self.dataset(name, hours).to_batches(columns=columns and list(columns))

    def tag(self, name: str, snapshot_id: int, label: str) -> None:
        """Keep ``snapshot_id`` readable under ``label`` for as long as the tag exists."""

        def attempt(table: Table) -> None:
            if label not in table.refs():
                with table.manage_snapshots() as manage:
                    manage.create_tag(snapshot_id, label)

        self.change(name, attempt)


def _same(known: Completion | None, staged: Staged, hour: str) -> bool:
    return (
        known is not None
        and known.content_hash == staged.content[hour]
        and known.rows == staged.rows[hour]
    )


def _properties(spec: TableSpec) -> dict[str, str]:
    columns = len(spec.schema)
    alone = 4_600 + 80 * columns  # bytes of a manifest of one file, most of them the schema's
    size = str(_MERGED * alone)
    merging = {"min-count-to-merge": str(_MERGED), "target-size-bytes": size}
    return {**_PROPERTIES, **{f"commit.manifest.{key}": value for key, value in merging.items()}}


def _iceberg_layout(spec: TableSpec) -> tuple[Schema, PartitionSpec]:
    schema = assign_fresh_schema_ids(_pyarrow_to_schema_without_ids(optional(spec.schema)))
    fields = [
        PartitionField(schema.find_field(column).field_id, 1000 + i, IdentityTransform(), column)
        for i, column in enumerate(spec.partition)
    ]
    return schema, PartitionSpec(*fields)
