"""The catalog of the Iceberg tables, which reads a table's metadata once."""

from __future__ import annotations

from typing import Any

from pyiceberg.catalog.sql import IcebergTables, SqlCatalog
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata

__all__ = ["TableCatalog"]


class TableCatalog(SqlCatalog):  # type: ignore[misc]  # pyiceberg's classes are Any to mypy
    """A catalog that asks the database where a table's metadata is, and reads it if it has moved.

    A metadata file is never written twice, and names every snapshot that is kept: reading it anew
    for each look at a table costs the more the longer snapshots are kept.
    """

    def __init__(self, name: str, **properties: str) -> None:
        super().__init__(name, **properties)
        self._known: dict[tuple[str, str], tuple[str, TableMetadata, Any]] = {}

    def _convert_orm_to_iceberg(self, orm_table: IcebergTables) -> Table:
        identifier = orm_table.table_namespace, orm_table.table_name
        location, metadata, io = self._known.get(identifier, ("", None, None))
        if location and location == orm_table.metadata_location:
            return Table(identifier, metadata, location, io, self)
        table: Table = super()._convert_orm_to_iceberg(orm_table)
        self._known[identifier] = table.metadata_location, table.metadata, table.io
        return table
