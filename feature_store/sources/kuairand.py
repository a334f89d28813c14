"""KuaiRand, the published short-video log of Kuaishou (Gao et al., CIKM 2022), as it is published.

    PATH/log_standard_*.csv(.gz)            one row per impression and all that followed from it
    PATH/video_features_basic_*.csv(.gz)
    PATH/user_features_*.csv(.gz)

Videos are items and their author is the room's host. A row is an impression, and each outcome in it
an event of its own, attributed by the row itself: every window is 0. Time is ``time_ms`` alone,
because ``date`` and ``hourmin`` disagree with it in up to 18 % of the rows. The log has neither
requests nor positions. Exact duplicate rows give equal event_ids, so that the ingest drops and
counts them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_store import hours
from feature_store.rowhash import row_hashes
from feature_store.schemas import ENTITY_TABLES, SOURCE_EVENTS, TIMESTAMP
from feature_store.sources import kuairand_entities
from feature_store.sources.arrow import hour_of_micros, micros_of, sliced
from feature_store.sources.base import SourceError
from feature_store.sources.delimited import Delimited, find_files

__all__ = ["KuaiRandSource"]

LOG_PATTERN: Final = "log_standard_*.csv"
LOG_COLUMNS: Final[Mapping[str, pa.DataType]] = {
    "user_id": pa.int64(),
    "video_id": pa.int64(),
    "time_ms": pa.int64(),
    "is_click": pa.int64(),
    "is_like": pa.int64(),
    "is_follow": pa.int64(),
    "is_comment": pa.int64(),
    "is_forward": pa.int64(),
    "is_hate": pa.int64(),
    "long_view": pa.int64(),
    "play_time_ms": pa.float64(),
    "duration_ms": pa.float64(),
    "tab": pa.int64(),
}
# Keys may be empty in a few rows, which the ingest quarantines; feedback may not, since an empty
# cell would pass for "did not happen".
_KEYS: Final = ("user_id", "video_id", "time_ms")

_FLAGS: Final[Mapping[str, str]] = {
    "is_click": "click",
    "long_view": "long_view",
    "is_follow": "follow",
    "is_comment": "comment",
    "is_like": "like",
    "is_forward": "share",
    "is_hate": "hate",
}


# Milliseconds that a log can be from, 2000 to 2100: a row with another time is malformed, and the
# log does not begin or end with it.
_TIMES_MS: Final = (946_684_800_000, 4_102_444_800_000)


@dataclass(frozen=True)
class _Scan:
    """What one pass over the log tells: when it begins and ends, and how long its videos are."""

    first_micros: int
    last_micros: int
    durations: kuairand_entities.Durations


class KuaiRandSource:
    """The standard log with its two feature files.

    Args:
        path: the folder of the published files, plain or gzip.
    """

    name: ClassVar[str] = "kuairand"

    def __init__(self, *, path: str | Path) -> None:
        self.path = Path(path)
        self.has_requests = False
        self.time_zone = "Asia/Shanghai"
        self.windows: Mapping[str, int] = dict.fromkeys([*_FLAGS.values(), "stay"], 0)
        self._known_scan: _Scan | None = None
        self._known_authors: tuple[npt.NDArray[np.int64], pa.Array] | None = None

    def check(self, _first: str | None = None, _last: str | None = None, /) -> None:
        """Read all three kinds of files once and raise SourceError for what is missing or wrong."""
        self._known_scan = self._known_authors = None
        self._scan()
        kuairand_entities.read_videos(self.path)
        kuairand_entities.check_users(self.path)

    def span(self) -> tuple[str, str]:
        """The hours of the earliest and the latest ``time_ms``."""
        scan = self._scan()
        return hour_of_micros(scan.first_micros), hour_of_micros(scan.last_micros)

    def events(self, first: str, last: str) -> Iterator[pa.RecordBatch]:
        """See :class:`feature_store.sources.base.Source`; in file order, a batch of log rows at a
        time: its impressions, then its clicks, and so on. A row without a plausible time arrives
        in the first hour of the log, so that it is judged and not lost."""
        low, high = micros_of(first), micros_of(hours.add(last, 1))
        scan = self._scan()
        if high <= scan.first_micros or low > scan.last_micros:
            return
        begin = micros_of(self.span()[0])
        for file in self._logs():
            for rows in file.batches():
                micros = pc.multiply(rows["time_ms"], 1000)
                arrival = pc.if_else(_is_plausible(rows["time_ms"]), micros, begin)
                inside = pc.and_(pc.greater_equal(arrival, low), pc.less(arrival, high))
                kept = rows.append_column("arrival", arrival).filter(inside)
                if kept.num_rows:
                    yield from sliced(self._events_of(kept))

    def entities(self, table: str, first: str, last: str) -> Iterator[pa.RecordBatch]:
        """See :class:`feature_store.sources.base.Source`. Every entity is known from the first hour
        of the log; there are no ``room_items``."""
        if table not in ENTITY_TABLES:
            raise SourceError(f"no entity table {table!r}; they are {', '.join(ENTITY_TABLES)}")
        begin = self.span()[0]
        if not first <= begin <= last or table == "room_items":
            return
        if table == "users":
            batches = kuairand_entities.users(self.path, begin)
        else:
            videos = kuairand_entities.read_videos(self.path)
            if table == "items":
                batches = kuairand_entities.items(videos, begin, self._scan().durations)
            else:
                batches = kuairand_entities.rooms(videos, begin)
        for batch in batches:
            yield from sliced(batch)

    def _logs(self) -> list[Delimited]:
        return [
            Delimited(path, LOG_COLUMNS, may_be_empty=_KEYS, other_columns=True)
            for path in find_files(self.path, LOG_PATTERN, "KuaiRand's standard log")
        ]

    def _scan(self) -> _Scan:
        if self._known_scan is None:
            times: list[int] = []
            durations: list[kuairand_entities.Durations] = []
            for file in self._logs():
                for rows in file.batches():
                    plausible = rows["time_ms"].filter(_is_plausible(rows["time_ms"]))
                    if len(plausible):
                        times += pc.min_max(plausible).as_py().values()
                    durations.append(_durations(rows))
            if not times:
                raise SourceError(
                    f"{self.path}: no row of {LOG_PATTERN} has a time_ms between the years 2000 "
                    "and 2100; it counts milliseconds since 1970, UTC"
                )
            merged = kuairand_entities.Durations.first_of(durations)
            self._known_scan = _Scan(min(times) * 1000, max(times) * 1000, merged)
        return self._known_scan

    def _authors(self) -> tuple[npt.NDArray[np.int64], pa.Array]:
        """Sorted video ids and the author of each, as text."""
        if self._known_authors is None:
            videos = kuairand_entities.read_videos(self.path)
            ids = videos["video_id"].to_numpy()
            order = np.argsort(ids, kind="stable")
            authors = videos["author_id"].combine_chunks().cast(pa.string()).take(pa.array(order))
            self._known_authors = (ids[order], authors)
        return self._known_authors

    def _rooms_of(self, video_ids: pa.Array) -> pa.Array:
        ids, authors = self._authors()
        wanted = pc.fill_null(video_ids, -1).to_numpy()
        place = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
        return authors.take(pa.array(place, mask=ids[place] != wanted))

    def _events_of(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Impressions of ``rows`` and then their outcomes, one action after the other."""
        row_ids = row_hashes(rows.drop_columns(["arrival"]))
        item = rows["video_id"].cast(pa.string())
        count = rows.num_rows
        event_time = pc.multiply(rows["time_ms"], 1000).cast(TIMESTAMP)
        shared = {
            "event_time": event_time,
            "ingested_at": rows["arrival"].cast(TIMESTAMP),
            "impression_id": row_ids,
            "user_id": rows["user_id"].cast(pa.string()),
            "target_type": pa.repeat("item", count),
            "target_id": item,
            "item_id": item,
            "room_id": self._rooms_of(rows["video_id"]),
            "scene": rows["tab"].cast(pa.string()),
        }
        everyone = pa.repeat(True, count)
        parts = [_action(shared, "impression", everyone, None)]
        parts += [
            _action(shared, action, pc.greater(rows[flag], 0), None)
            for flag, action in _FLAGS.items()
        ]
        played = pc.divide(rows["play_time_ms"], 1000.0)
        parts.append(_action(shared, "stay", pc.greater(played, 0.0), played))
        return pa.Table.from_batches(parts).combine_chunks().to_batches()[0]


def _action(
    shared: Mapping[str, pa.Array], action: str, happened: pa.Array, value: pa.Array | None
) -> pa.RecordBatch:
    """The events of one action, for the rows in which it happened."""
    count = len(happened)
    columns = dict(shared)
    columns["event_id"] = pc.binary_join_element_wise(shared["impression_id"], action, "-")
    columns["action"] = pa.repeat(action, count)
    if value is not None:
        columns["value"] = value
    arrays = [
        columns[field.name] if field.name in columns else pa.nulls(count, field.type)
        for field in SOURCE_EVENTS
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=SOURCE_EVENTS).filter(happened)


def _is_plausible(time_ms: pa.Array) -> pa.Array:
    low, high = _TIMES_MS
    inside = pc.and_(pc.greater_equal(time_ms, low), pc.less(time_ms, high))
    return pc.fill_null(inside, False)


def _durations(rows: pa.RecordBatch) -> kuairand_entities.Durations:
    """The durations that a batch gives, of each video the first."""
    known = pc.and_(pc.greater(rows["duration_ms"], 0.0), rows["video_id"].is_valid())
    kept = rows.filter(pc.fill_null(known, False))
    return kuairand_entities.Durations(
        kept["video_id"].to_numpy(), kept["duration_ms"].to_numpy()
    ).unique()
