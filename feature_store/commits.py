"""One transaction on an Iceberg table: files out, files in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyiceberg.expressions import BooleanExpression
from pyiceberg.table import Table, Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update import _apply_table_update, _TableMetadataUpdateContext

from feature_store import storage
from feature_store.schemas import TABLES
from feature_store.staged import StoreError

__all__ = ["FewCopies", "check_footers", "replace_files"]


class FewCopies(Transaction):  # type: ignore[misc]  # pyiceberg's classes are Any to mypy
    """A transaction that builds its metadata once per change, and copies none of it.

    pyiceberg copies all of it, snapshot by snapshot, each of the twenty times that a commit looks
    at it: most of a commit's time, and all of its growth with the table's age. Whoever looks
    changes nothing in place; what is committed is a copy, which the catalog makes.
    """

    def __init__(self, table: Table) -> None:
        super().__init__(table)
        self._built: tuple[Any, Any, TableMetadata] | None = None

    @property
    def table_metadata(self) -> TableMetadata:
        base, updates = self._table.metadata, self._updates
        if self._built is None or self._built[0] is not base or self._built[1] is not updates:
            self._built = base, updates, _updated(base, updates)
        return self._built[2]


def _updated(metadata: TableMetadata, updates: Sequence[Any]) -> TableMetadata:
    context = _TableMetadataUpdateContext()
    for update in updates:
        metadata = _apply_table_update(update, metadata, context)
    return metadata


def replace_files(
    table: Table,
    where: BooleanExpression | None,
    paths: list[str],
    properties: Mapping[str, str],
) -> None:
    """Drop what matches ``where``, which is whole files, and add ``paths``, in one transaction."""
    present = where is not None and any(table.scan(row_filter=where).plan_files())
    with FewCopies(table) as transaction:
        if present and where is not None:
            transaction.delete(where, snapshot_properties=dict(properties))
        if paths:
            transaction.add_files(
                paths, snapshot_properties=dict(properties), check_duplicate_files=False
            )


def check_footers(name: str, paths: Sequence[str]) -> None:
    """Refuse files that lack a declared column: Iceberg would read it back as null.

    Raises:
        StoreError: naming the file and the columns.
    """
    wanted: list[Any] = TABLES[name].schema.names
    for path in paths:
        found = storage.read_schema(path).names
        missing = [column for column in wanted if column not in found]
        if missing:
            raise StoreError(f"{path} lacks the columns {missing} of table {name}")
