"""What Parquet footers tell before a row is read: columns, types, null counts, times."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.parquet as pq

from feature_store import hours, storage
from feature_store.damage import DamagedFileError
from feature_store.sources.arrow import hour_of_micros, micros_of
from feature_store.sources.base import SourceError

__all__ = [
    "DataFile",
    "arrival_bounds",
    "check_file",
    "check_folder",
    "list_files",
    "naming",
]


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Raise SourceError for what shows, while ``path`` is read, that it is no sound Parquet."""
    try:
        yield
    except DamagedFileError as error:
        raise SourceError(
            f"{path} is not a readable Parquet file ({error.reason}); write it again"
        ) from error


@dataclass(frozen=True)
class DataFile:
    """One Parquet file and the ``hour=`` folder that it lies in, if any."""

    path: str
    hour: str | None

    @cached_property
    def footer(self) -> pq.FileMetaData:
        """The file's footer; SourceError when it has none."""
        with naming(self.path):
            return storage.read_metadata(self.path)

    @cached_property
    def schema(self) -> pa.Schema:
        """The file's Arrow schema."""
        return self.footer.schema.to_arrow_schema()

    def statistics(self, group: int, column: str) -> pq.Statistics | None:
        """The statistics of a leaf column in a row group; None where there are none."""
        groups = self.footer.row_group(group)
        for i in range(groups.num_columns):
            chunk = groups.column(i)
            if chunk.path_in_schema == column:
                return chunk.statistics if chunk.is_stats_set else None
        return None

    def is_all_null(self, column: str) -> bool:
        """Whether the footer proves that no row holds ``column``; True for an absent column."""
        if column not in self.schema.names:
            return True
        for group in range(self.footer.num_row_groups):
            stats = self.statistics(group, column)
            if stats is None or not stats.has_null_count:
                return False
            if stats.null_count < self.footer.row_group(group).num_rows:
                return False
        return True


def list_files(folder: str) -> list[DataFile]:
    """The Parquet files below ``folder`` in the order of their paths; hidden ones are left out.

    Raises:
        SourceError: for an ``hour=`` folder that names no hour.
    """
    found = []
    for path in storage.parquet_files(folder):
        parts = path.removeprefix(folder).strip("/").split("/")
        if any(part.startswith((".", "_")) for part in parts):
            continue
        found.append(DataFile(path, _folder_hour(path, parts)))
    return found


def _folder_hour(path: str, parts: Sequence[str]) -> str | None:
    for part in parts[:-1]:
        key, mark, value = part.partition("=")
        if key == "hour" and mark:
            try:
                return hours.parse(value.replace("%3A", ":"))
            except hours.HourError as error:
                raise SourceError(f"{path}: folder {part!r}: {error}") from error
    return None


def check_file(file: DataFile, schema: pa.Schema, derived: Sequence[str] = ()) -> None:
    """Raise SourceError unless ``file`` has what ``schema`` requires, in types that convert.

    Args:
        derived: required columns that the reader can fill by itself.
    """
    for field in schema:
        if field.name not in file.schema.names:
            if field.nullable or field.name in derived:
                continue
            raise SourceError(
                f"{file.path}: required column {field.name!r} ({field.type}) is missing in "
                f"{file.footer.num_rows} rows; the file has {', '.join(file.schema.names)}; "
                f"rename or add the column"
            )
        kind = file.schema.field(field.name).type
        if not _converts(kind, field.type):
            raise SourceError(
                f"{file.path}: column {field.name!r} is {kind} in {file.footer.num_rows} rows, and "
                f"must be {field.type}; first values {_first_values(file, field.name)}; "
                f"write it as {field.type}"
            )


def check_folder(file: DataFile) -> None:
    """Raise SourceError when the footer shows rows that did not arrive in the ``hour=`` folder's
    hour: no run would read them."""
    if file.hour is None:
        return
    first, last = micros_of(file.hour), micros_of(hours.add(file.hour, 1)) - 1
    for bounds in arrival_bounds(file):
        if bounds is not None and (bounds[0] < first or bounds[1] > last):
            raise SourceError(
                f"{file.path}: folder hour={file.hour} holds rows that arrived in "
                f"{hour_of_micros(bounds[0])} to {hour_of_micros(bounds[1])} (ingested_at, or "
                f"event_time without it) among {file.footer.num_rows}; partition the files by hour "
                "of arrival, or put them directly under events/"
            )


def _converts(kind: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether every value of ``kind``, or every one that occurs, has an exact ``wanted``."""
    if kind == wanted or pa.types.is_null(kind):
        return True
    if pa.types.is_dictionary(kind):
        return _converts(kind.value_type, wanted)
    if pa.types.is_string(wanted):
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        return bool(text or pa.types.is_string_view(kind) or pa.types.is_integer(kind))
    if pa.types.is_timestamp(wanted):
        return bool(pa.types.is_timestamp(kind))
    if pa.types.is_integer(wanted):
        return bool(pa.types.is_integer(kind))
    if pa.types.is_floating(wanted):
        return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))
    if pa.types.is_map(wanted):
        return bool(
            pa.types.is_map(kind)
            and _converts(kind.key_type, wanted.key_type)
            and _converts(kind.item_type, wanted.item_type)
        )
    return False


def _first_values(file: DataFile, column: str, count: int = 3) -> str:
    with naming(file.path), storage.parquet_file(file.path) as parquet:
        for batch in parquet.iter_batches(count, columns=[column]):
            return ", ".join(repr(value) for value in batch.column(0).to_pylist())
    return "(none)"


def arrival_bounds(file: DataFile) -> list[tuple[int, int] | None]:
    """Per row group, bounds in microseconds of when its rows arrived, or None where the footer does
    not say: rows without ``ingested_at`` arrive at their ``event_time``."""
    return [_group_bounds(file, group) for group in range(file.footer.num_row_groups)]


def _group_bounds(file: DataFile, group: int) -> tuple[int, int] | None:
    rows = file.footer.row_group(group).num_rows
    column = "event_time" if file.is_all_null("ingested_at") else "ingested_at"
    stats = file.statistics(group, column)
    if stats is None or not stats.has_min_max or not stats.has_null_count:
        return None
    if stats.null_count or rows == 0:
        return None
    return _micros(stats.min), _micros(stats.max)


def _micros(value: dt.datetime) -> int:
    aware = value if value.tzinfo else value.replace(tzinfo=dt.UTC)
    return int(pa.scalar(aware, pa.timestamp("us", tz="UTC")).value)
