"""From a source's rows to an hour of events: arrival, judgement, duplicates, quarantine.

Two passes bound memory by one bucket of one hour: the first judges every row and spills it by
arrival hour, the second removes duplicates hour by hour. Nothing is committed before every hour
was judged.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_store import hours as hr
from feature_store.schemas import ACTIONS, ENTITY_TABLES, SOURCE_EVENTS, TARGET_TYPES, optional
from feature_store.sources.base import Source
from feature_store.table_spec import USER_COLUMN
from feature_store.tables import HourWriter, Staged, Store
from feature_store.tombstones import FORGOTTEN, Tombstones

__all__ = ["IngestRules", "IngestedHours", "RowsRefusedError", "judge", "stage_hours"]

DUPLICATE_HOURS: Final = 2
"""How many hours of the source before H are searched for event_ids of H."""

_BUCKET_ROWS: Final = 1_000_000
_SECOND: Final = 1_000_000
_UNPLACED: Final = ("late", "future")


class RowsRefusedError(ValueError):
    """More bad rows than the configured share; nothing was committed."""


@dataclass(frozen=True)
class IngestRules:
    """What is let through.

    Attributes:
        allowed_lateness_hours: how long after it happened an event may arrive.
        max_bad_share: share of an hour's rows that may be malformed before the hour is refused.
        min_bad_rows: so many malformed rows are never too many (small hours).
    """

    allowed_lateness_hours: float = 2.0
    max_bad_share: float = 0.01
    min_bad_rows: int = 10


@dataclass
class IngestedHours:
    """What became of the rows of a range of hours."""

    staged: dict[str, Staged] = field(default_factory=dict)
    rows_in: int = 0
    rows_out: int = 0
    rejected: Counter[str] = field(default_factory=Counter)


def judge(rows: pa.Table, rules: IngestRules) -> pa.Array:
    """Why each row is rejected, null where it is not; the first reason that applies.

    Args:
        rows: columns of ``SOURCE_EVENTS`` with ``ingested_at`` filled in.
    """
    lateness = pc.subtract(
        pc.cast(rows["ingested_at"], pa.int64()), pc.cast(rows["event_time"], pa.int64())
    )
    keys = [c.name for c in SOURCE_EVENTS if not c.nullable]
    null_key = pc.is_null(rows[keys[0]])
    for key in keys[1:]:
        null_key = pc.or_(null_key, pc.is_null(rows[key]))
    bad_value = pc.or_(pc.less(rows["value"], 0), pc.invert(pc.is_finite(rows["value"])))
    allowed = int(rules.allowed_lateness_hours * 3600 * _SECOND)
    reasons = (
        ("null_key", null_key),
        ("unknown_action", pc.invert(pc.is_in(rows["action"], pa.array(ACTIONS)))),
        ("unknown_target_type", pc.invert(pc.is_in(rows["target_type"], pa.array(TARGET_TYPES)))),
        ("bad_value", bad_value),
        ("bad_position", pc.less(rows["position"], 1)),
        ("future", pc.less(lateness, 0)),
        ("late", pc.greater(lateness, allowed)),
    )
    conditions = pc.make_struct(
        *(pc.fill_null(condition, False) for _, condition in reasons),
        field_names=[reason for reason, _ in reasons],
    )
    return pc.case_when(conditions, *(pa.scalar(reason) for reason, _ in reasons))


def _arrival_hour(rows: pa.Table, fallback: str) -> pa.Array:
    """The hour each row arrived in, as text; ``fallback`` where no time is known at all."""
    encoded = pc.dictionary_encode(pc.floor_temporal(rows["ingested_at"], unit="hour"))
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0) if encoded.num_chunks else pa.array([], pa.string())
    names = pc.strftime(encoded.dictionary, format="%Y-%m-%dT%H")
    return pc.fill_null(names.take(encoded.indices), fallback)


class _Spill:
    """Judged rows on disk by arrival hour, so that an hour can be looked at as a whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, pq.ParquetWriter] = {}
        self.rows: Counter[str] = Counter()

    def add(self, rows: pa.Table) -> None:
        """Append rows (with columns ``hour`` and ``reason``); an hour keeps their order."""
        rows = rows.take(pc.sort_indices(rows["hour"]))
        runs = pc.run_end_encode(rows["hour"].combine_chunks())
        start = 0
        for hour, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
            piece = rows.slice(start, end - start)
            if hour not in self._writers:
                path = self._folder / f"{hour}.parquet"
                self._writers[hour] = pq.ParquetWriter(path, piece.schema, compression="lz4")
            self._writers[hour].write_table(piece)
            self.rows[hour] += piece.num_rows
            start = end

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()

    def read(
        self, hour: str, bucket: int, buckets: int, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """The rows of ``hour`` whose event_id falls into ``bucket`` of ``buckets``."""
        path = self._folder / f"{hour}.parquet"
        if not self.rows[hour]:
            return _SPILLED.empty_table().select(columns or _SPILLED.names)
        if buckets == 1:
            return pq.read_table(path, columns=columns and list(columns))
        pieces = [
            piece.filter(pa.array(_buckets(piece["event_id"], buckets) == bucket))
            for batch in pq.ParquetFile(path).iter_batches(columns=columns and list(columns))
            for piece in [pa.Table.from_batches([batch])]
        ]
        return pa.concat_tables(pieces)


_SPILLED: Final = SOURCE_EVENTS.append(pa.field("hour", pa.string())).append(
    pa.field("reason", pa.string())
)


def _buckets(ids: pa.ChunkedArray, buckets: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    codes = (zlib.crc32((text or "").encode()) % buckets for text in ids.to_pylist())
    return np.fromiter(codes, dtype=np.int64, count=len(ids))


@dataclass
class _Remembered:
    """Leaves forgotten users out, and counts their rows of the hours from ``first`` on."""

    tombstones: Tombstones
    first: str
    hashes: frozenset[str]
    rows: int = 0

    def without(self, rows: pa.Table) -> pa.Table:
        kept = self.tombstones.without(rows, self.hashes)
        if kept.num_rows < rows.num_rows and "hour" in rows.column_names:
            before = pc.sum(pc.greater_equal(rows["hour"], self.first)).as_py()
            self.rows += before - (pc.sum(pc.greater_equal(kept["hour"], self.first)).as_py() or 0)
        return kept


def _judged(
    source: Source, first: str, last: str, rules: IngestRules, fallback: str
) -> Iterator[pa.Table]:
    for batch in source.events(hr.add(first, -DUPLICATE_HOURS), last):
        rows = pa.Table.from_batches([batch]).cast(optional(SOURCE_EVENTS))
        arrived = pc.coalesce(rows["ingested_at"], rows["event_time"])
        rows = rows.set_column(rows.schema.get_field_index("ingested_at"), "ingested_at", arrived)
        hour = _arrival_hour(rows, fallback)
        reason = judge(rows, rules)
        yield rows.append_column("hour", hour).append_column("reason", reason)


def stage_hours(
    source: Source, store: Store, first: str, last: str, rules: IngestRules
) -> IngestedHours:
    """Stage events, quarantine and entities of hours ``first`` to ``last``; commits nothing.

    Raises:
        RowsRefusedError: when an hour has more malformed rows than ``rules`` allow.
        SourceError: when the source's files are not what its adapter reads.
    """
    source.check(hr.add(first, -DUPLICATE_HOURS), last)
    result = IngestedHours()
    hours = hr.hour_range(first, last)
    tombstones = Tombstones(store.ledger)
    remembered = _Remembered(tombstones, first, tombstones.hashes())
    folder = store.spill_folder("events")
    spill = _Spill(folder)
    try:
        bad = _spill_all(source, spill, first, last, rules, remembered)
        spill.close()
        where = f"source {source.name} at {getattr(source, 'path', 'its files')}"
        _refuse_bad_hours(bad, spill, hours, rules, where)
        events, quarantine = Staged("events"), Staged("quarantine")
        for hour in hours:
            _stage_hour(store, spill, hour, events, quarantine, result)
    finally:
        spill.close()
        shutil.rmtree(folder)
    if remembered.rows:
        result.rejected[FORGOTTEN] = remembered.rows
        result.rows_in += remembered.rows
    result.staged = _stage_entities(source, store, first, last, remembered)
    result.staged |= {"quarantine": quarantine, "events": events}
    return result


def _spill_all(
    source: Source, spill: _Spill, first: str, last: str, rules: IngestRules,
    remembered: _Remembered,
) -> dict[str, Counter[str]]:  # fmt: skip
    """Judge and spill every row but those of forgotten users; how many malformed rows each hour
    has, by reason."""
    bad: dict[str, Counter[str]] = {}
    fallback = source.span()[0]
    for judged in _judged(source, first, last, rules, fallback):
        rows = remembered.without(judged)
        spill.add(rows)
        rejected = rows.filter(pc.is_valid(rows["reason"]))
        counts = rejected.group_by(["hour", "reason"]).aggregate([([], "count_all")])
        for row in counts.to_pylist():
            if row["reason"] not in _UNPLACED:
                bad.setdefault(row["hour"], Counter())[row["reason"]] += row["count_all"]
    return bad


def _refuse_bad_hours(
    bad: dict[str, Counter[str]],
    spill: _Spill,
    hours: Sequence[str],
    rules: IngestRules,
    where: str,
) -> None:
    for hour in hours:
        count = sum(bad.get(hour, Counter()).values())
        if count <= max(rules.max_bad_share * spill.rows[hour], rules.min_bad_rows):
            continue
        rows = spill.read(hour, 0, 1)
        reason, _ = bad[hour].most_common(1)[0]
        worst = rows.filter(pc.equal(rows["reason"], reason)).slice(0, 3)
        raise RowsRefusedError(
            f"{where}, hour {hour}: {count} of {spill.rows[hour]} rows are malformed "
            f"({dict(bad[hour])}), more than the allowed share of {rules.max_bad_share:g}. "
            f"First rows with {reason} "
            f"(column {_column_of(reason, worst)}): {_as_json(worst)}. Correct the source, or "
            "raise ingest.max_bad_share when the loss is meant; nothing was committed."
        )


_COLUMNS: Final = {
    "unknown_action": "action",
    "unknown_target_type": "target_type",
    "bad_value": "value",
    "bad_position": "position",
}


def _column_of(reason: str, rows: pa.Table) -> str:
    """The column, or columns, that made rows be rejected for ``reason``."""
    keys = [c.name for c in SOURCE_EVENTS if not c.nullable]
    return _COLUMNS.get(reason) or ", ".join(k for k in keys if rows[k].null_count)


def _as_json(rows: pa.Table) -> list[str]:
    columns = [column for column in rows.column_names if column not in ("hour", "reason")]
    return [
        json.dumps({k: v for k, v in row.items() if v is not None}, default=str, sort_keys=True)
        for row in rows.select(columns).to_pylist()
    ]


def _stage_hour(
    store: Store,
    spill: _Spill,
    hour: str,
    events: Staged,
    quarantine: Staged,
    result: IngestedHours,
) -> None:
    """One arrival per event_id, the earliest; those already in the two hours before are dropped."""
    kept, rejected = HourWriter(store, "events", hour), HourWriter(store, "quarantine", hour)
    buckets = -(-spill.rows[hour] // _BUCKET_ROWS) or 1
    for bucket in range(buckets):
        rows = spill.read(hour, bucket, buckets)
        result.rows_in += rows.num_rows
        good = rows.filter(pc.is_null(rows["reason"]))
        bad = rows.filter(pc.is_valid(rows["reason"]))
        before = [
            _good_ids(spill.read(hr.add(hour, -back), bucket, buckets, ["event_id", "reason"]))
            for back in range(1, DUPLICATE_HOURS + 1)
        ]
        unique = _without_duplicates(good, before)
        result.rejected["duplicate"] += good.num_rows - unique.num_rows
        result.rejected.update(bad["reason"].to_pylist())
        result.rows_out += unique.num_rows
        kept.write(unique)
        rejected.write(_quarantined(bad))
    kept.close(events)
    rejected.close(quarantine)


def _good_ids(rows: pa.Table) -> pa.ChunkedArray:
    return rows.filter(pc.is_null(rows["reason"]))["event_id"]


def _without_duplicates(rows: pa.Table, before: Sequence[pa.ChunkedArray]) -> pa.Table:
    for ids in before:
        rows = rows.filter(pc.invert(pc.is_in(rows["event_id"], ids.combine_chunks())))
    order = pc.sort_indices(
        rows, sort_keys=[("event_id", "ascending"), ("ingested_at", "ascending")]
    )
    rows = rows.take(order)
    ids = rows["event_id"].combine_chunks()
    if len(ids) > 1:
        first = pc.not_equal(ids.slice(1), ids.slice(0, len(ids) - 1))
        keep = pa.concat_arrays([pa.array([True]), first])
        rows = rows.filter(keep)
    by_time = [("event_time", "ascending"), ("event_id", "ascending")]
    return rows.take(pc.sort_indices(rows, sort_keys=by_time))


def _quarantined(rows: pa.Table) -> pa.Table:
    order = [(c, "ascending") for c in ("reason", "event_id", "event_time", "ingested_at")]
    rows = rows.take(pc.sort_indices(rows, sort_keys=order))
    return pa.table(
        {
            "event_id": rows["event_id"],
            "reason": rows["reason"],
            "row_json": pa.array(_as_json(rows), pa.string()),
            "hour": rows["hour"],
        }
    )


def _stage_entities(
    source: Source, store: Store, first: str, last: str, remembered: _Remembered
) -> dict[str, Staged]:
    """Every entity table's rows by the hour they arrived in, sorted by key and time."""
    staged: dict[str, Staged] = {}
    for name, schema in ENTITY_TABLES.items():
        batches = list(source.entities(name, first, last))
        rows = pa.Table.from_batches(batches) if batches else optional(schema).empty_table()
        rows = remembered.without(rows) if USER_COLUMN in schema.names else rows
        keys = [(c.name, "ascending") for c in schema if not pa.types.is_map(c.type)]
        rows = rows.take(pc.sort_indices(rows, sort_keys=keys))
        staged[name] = Staged(name)
        for hour in hr.hour_range(first, last):
            writer = HourWriter(store, name, hour)
            writer.write(rows.filter(pc.equal(rows["hour"], hour)))
            writer.close(staged[name])
    return staged
