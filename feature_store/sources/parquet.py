"""Logs that are already canonical: Parquet files with the columns of ``SOURCE_EVENTS``.

    PATH/events/**.parquet        needed; `hour=2026-11-11T05` folders are optional
    PATH/users/**.parquet         optional, and so are items, rooms and room_items

An ``hour=`` folder holds what arrived in that hour. Without such folders a row belongs to the hour
of its ``ingested_at``, or of its ``event_time`` where that is null. Times without a time zone are
in UTC. Files are read in the order of their paths, row group after row group. PATH may lie in a
bucket: ``s3://bucket/folder``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store import hours, storage
from feature_store.schemas import ENTITY_TABLES, SOURCE_EVENTS, TIMESTAMP
from feature_store.sources.arrow import (
    MAX_BATCH_ROWS,
    checked_windows,
    checked_zone,
    hour_of_micros,
    micros_of,
)
from feature_store.sources.base import DEFAULT_WINDOWS, SourceError
from feature_store.sources.footers import (
    DataFile,
    arrival_bounds,
    check_file,
    check_folder,
    list_files,
    naming,
)

__all__ = ["ParquetSource"]

# Columns of an entity table that a file may leave out, beside the nullable ones.
_DERIVED = ("valid_from", "hour")
_DAY_HOURS = 24


@dataclass(frozen=True)
class _Span:
    first: str
    last: str


class ParquetSource:
    """Canonical Parquet under one folder.

    Args:
        path: the folder that holds ``events/``, here or in a bucket.
        windows: action to attribution window in seconds; replaces the defaults altogether, so it
            also says which actions the log has.
        time_zone: of the business day.
        has_requests: whether impressions carry a request_id.
    """

    name: ClassVar[str] = "parquet"

    def __init__(
        self,
        *,
        path: str | Path,
        windows: Mapping[str, int] | None = None,
        time_zone: str = "UTC",
        has_requests: bool = True,
    ) -> None:
        if not isinstance(has_requests, bool):
            raise TypeError(f"has_requests is {has_requests!r}; write true or false")
        self.path = str(path).rstrip("/") if storage.in_bucket(str(path)) else str(Path(path))
        self.has_requests = has_requests
        self.time_zone = checked_zone(time_zone, self.name)
        self.windows: Mapping[str, int] = checked_windows(
            DEFAULT_WINDOWS if windows is None else windows, self.name
        )
        self._known_span: _Span | None = None

    def check(self, first: str | None = None, last: str | None = None, /) -> None:
        """Read the footers and raise SourceError for the first file that cannot be read as
        canonical events or entities.

        Of ``hour=`` folders only those of the hours, if any are given. That a log without
        request_id says so is then looked at of a day or more: a quiet hour may have none.
        """
        self._known_span = None
        files = _of(self._event_files(), first, last)
        for file in files:
            check_file(file, SOURCE_EVENTS)
            check_folder(file)
        if not (first and last) or len(hours.hour_range(first, last)) >= _DAY_HOURS:
            self._check_requests(files)
        for table, schema in ENTITY_TABLES.items():
            for file in _of(list_files(f"{self.path}/{table}"), first, last):
                check_file(file, schema, derived=_DERIVED)

    def span(self) -> tuple[str, str]:
        """The first and last hour with arrivals: of the ``hour=`` folders, else of the times."""
        if self._known_span is None:
            self._known_span = self._find_span(self._event_files())
        return self._known_span.first, self._known_span.last

    def events(self, first: str, last: str) -> Iterator[pa.RecordBatch]:
        """See :class:`feature_store.sources.base.Source`. Without ``hour=`` folders, rows that have
        neither time arrive in the first hour of the log, so that they are judged and not lost."""
        low, high = micros_of(first), micros_of(hours.add(last, 1))
        for file in self._event_files():
            if file.hour is not None:
                if first <= file.hour <= last:
                    yield from _read(file, SOURCE_EVENTS)
                continue
            timeless = first <= self.span()[0] <= last
            for group, bounds in enumerate(arrival_bounds(file)):
                if bounds is not None and (bounds[1] < low or bounds[0] >= high):
                    continue
                for batch in _read(file, SOURCE_EVENTS, group):
                    arrival = pc.coalesce(batch["ingested_at"], batch["event_time"]).cast("int64")
                    inside = pc.and_(
                        pc.greater_equal(arrival, pa.scalar(low)), pc.less(arrival, pa.scalar(high))
                    )
                    kept = batch.filter(pc.fill_null(inside, timeless))
                    if kept.num_rows:
                        yield kept

    def entities(self, table: str, first: str, last: str) -> Iterator[pa.RecordBatch]:
        """See :class:`feature_store.sources.base.Source`. The hour of a row is its folder's, else
        its ``hour`` column, else that of its ``valid_from``, but not before the log begins."""
        if table not in ENTITY_TABLES:
            raise SourceError(f"no entity table {table!r}; they are {', '.join(ENTITY_TABLES)}")
        schema = ENTITY_TABLES[table]
        for file in list_files(f"{self.path}/{table}"):
            if file.hour is not None and not first <= file.hour <= last:
                continue
            check_file(file, schema, derived=_DERIVED)
            for batch in _read(file, schema):
                _check_keys(batch, schema, file)
                dated = _dated(batch, file, self.span()[0])
                inside = pc.and_(
                    pc.greater_equal(dated["hour"], first), pc.less_equal(dated["hour"], last)
                )
                kept = dated.filter(inside)
                if kept.num_rows:
                    yield kept

    @property
    def _events(self) -> str:
        return f"{self.path}/events"

    def _event_files(self) -> list[DataFile]:
        files = list_files(self._events)
        if not files:
            raise SourceError(
                f"no Parquet file under {self._events}; "
                "point source.options.path at the folder that holds events/"
            )
        return files

    def _find_span(self, files: list[DataFile]) -> _Span:
        named = [file.hour for file in files if file.hour is not None]
        found = [(hour, hour) for hour in named]
        for file in files:
            if file.hour is None:
                check_file(file, SOURCE_EVENTS)
                found += [
                    (hour_of_micros(low), hour_of_micros(high))
                    for low, high in filter(None, self._exact_bounds(file))
                ]
        if not found:
            raise SourceError(
                f"no row under {self._events} has an ingested_at or an event_time; "
                "fill event_time, in UTC"
            )
        return _Span(min(low for low, _ in found), max(high for _, high in found))

    def _exact_bounds(self, file: DataFile) -> Iterator[tuple[int, int] | None]:
        for group, bounds in enumerate(arrival_bounds(file)):
            if bounds is not None:
                yield bounds
                continue
            for batch in _read(file, SOURCE_EVENTS, group):
                ends = pc.min_max(
                    pc.coalesce(batch["ingested_at"], batch["event_time"]).cast("int64")
                ).as_py()
                yield None if ends["min"] is None else (ends["min"], ends["max"])

    def _check_requests(self, files: list[DataFile]) -> None:
        if not self.has_requests:
            return
        rows = sum(file.footer.num_rows for file in files)
        if rows and all(file.is_all_null("request_id") for file in files):
            raise SourceError(
                f"{self._events}: column 'request_id' is null in all {rows} rows of "
                f"{len(files)} files, but has_requests is true; set source.options.has_requests: "
                "false, and impressions are grouped by user and hour"
            )


def _of(files: list[DataFile], first: str | None, last: str | None) -> list[DataFile]:
    """Those of ``files`` that may hold what arrived in the hours; None is no bound."""
    return [
        file for file in files
        if file.hour is None
        or ((first is None or first <= file.hour) and (last is None or file.hour <= last))
    ]  # fmt: skip


def _read(file: DataFile, schema: pa.Schema, group: int | None = None) -> Iterator[pa.RecordBatch]:
    """Batches of ``file`` with the columns and types of ``schema``; absent ones are null."""
    with naming(file.path), storage.parquet_file(file.path) as parquet:
        present = set(parquet.schema_arrow.names)
        columns = [name for name in schema.names if name in present]
        groups = None if group is None else [group]
        for batch in parquet.iter_batches(MAX_BATCH_ROWS, row_groups=groups, columns=columns):
            arrays = [
                _cast(batch[field.name], field, file)
                if field.name in present
                else pa.nulls(batch.num_rows, field.type)
                for field in schema
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _cast(column: pa.Array, field: pa.Field, file: DataFile) -> pa.Array:
    if column.type == field.type:
        return column
    if pa.types.is_timestamp(column.type) and column.type.tz is None:
        column = column.cast(pa.timestamp(column.type.unit, tz="UTC"))
    try:
        return column.cast(field.type)
    except pa.ArrowInvalid as error:
        raise SourceError(
            f"{file.path}: column {field.name!r} holds {column.type} values that {field.type} "
            f"cannot hold exactly ({error}); write it as {field.type}"
        ) from error


def _check_keys(batch: pa.RecordBatch, schema: pa.Schema, file: DataFile) -> None:
    for field in schema:
        empty = batch[field.name].null_count
        if not field.nullable and field.name not in _DERIVED and empty:
            raise SourceError(
                f"{file.path}: column {field.name!r} is null in {empty} of {batch.num_rows} rows; "
                "an entity needs its key, so fill or remove these rows"
            )


def _dated(batch: pa.RecordBatch, file: DataFile, begin: str) -> pa.RecordBatch:
    """``batch`` with ``hour`` and ``valid_from`` filled; a log that begins at ``begin``."""
    rows = batch.num_rows
    if file.hour is not None:
        hour: pa.Array = pa.array(np.full(rows, file.hour, object), pa.string())
    else:
        micros = pc.max_element_wise(batch["valid_from"].cast(pa.int64()), micros_of(begin))
        since = micros.cast(TIMESTAMP)
        hour = pc.coalesce(batch["hour"], pc.strftime(since, format="%Y-%m-%dT%H"))
    valid_from = pc.coalesce(batch["valid_from"], _starts(hour, file))
    arrays = [
        {"hour": hour, "valid_from": valid_from}.get(name, batch[name])
        for name in batch.schema.names
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=batch.schema)


def _starts(hour: pa.Array, file: DataFile) -> pa.Array:
    """The instants at which hours start, given by their names."""
    coded = hour.dictionary_encode()
    try:
        starts = [hours.start_of(name) for name in coded.dictionary.to_pylist()]
    except hours.HourError as error:
        raise SourceError(f"{file.path}: column 'hour': {error}") from error
    return pa.array(starts, TIMESTAMP).take(coded.indices)
