"""Taobao's UserBehavior, the published log of clicks, carts, favourites and purchases (Tianchi).

    PATH/*.csv(.gz), or PATH itself    user_id, item_id, category_id, behavior_type, timestamp

The file has no header line as it is published; one is read where there is one. A `pv` is a look
at an item's page: an impression and a click of it at that second, attributed by the row itself.
`cart`, `fav` and `buy` become cart, favor and order without a value, attributed by last touch.
There are no requests, positions or rooms, and nothing is known of users but their ids. Equal rows
give equal event_ids, so that the ingest drops and counts them.

The log does not say what was shown and not clicked. Beside every distinct `pv` stand ``negatives``
further impressions at the same second: items drawn with the probability of their share of that
hour's `pv`, never one that this user acted on in that hour, no item twice for a user and hour while
others are left (see ``taobao_negatives``). They depend on the seed and their own hour alone, so any
way of cutting the log into ranges of hours gives the same events.

What that means for metrics. The click rate is 1 / (1 + ``negatives``) by construction and says
nothing of Taobao. An item is a negative about as often as it is a click, so popularity tells them
hardly apart (the baseline ``popularity`` lies near chance) and a model learns taste beyond
popularity: against what was really shown it ranks popular items too low, so do not serve it as it
is. An NDCG compares models on the same file, seed and negatives; it compares neither with that of
a log of impressions nor with full-ranking results in the literature. A later cart or order of an
item is attributed to a negative of it when that is the last touch.

The published range is the nine days from 25 November to 3 December 2017 in UTC+8. A row outside of
it keeps its event_time and arrives inside the log: an earlier one two hours after the log begins,
which is later than the default ``ingest.allowed_lateness_hours`` allows, a later one in the log's
last hour. So the ingest quarantines them as late and from the future, and the log's span is that of
its other rows.

The file is sorted by user and may hold 100 million rows: one pass counts the rows of each hour, and
ranges of hours are then read in chunks of whole hours with at most ``CHUNK_ROWS`` rows, each by one
pass over the file. Memory follows the larger of a chunk and an hour, and, for ``items``, the number
of distinct items.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_store import hours
from feature_store.rowhash import row_hashes
from feature_store.schemas import ENTITY_TABLES, ITEMS, SOURCE_EVENTS, TIMESTAMP
from feature_store.sources.arrow import hour_of_micros, micros_of, sliced, with_schema
from feature_store.sources.base import DEFAULT_WINDOWS, SourceError
from feature_store.sources.delimited import Delimited, find_files
from feature_store.sources.taobao_negatives import draw_negatives
from feature_store.sources.taobao_rows import (
    BEGIN,
    BEHAVIORS,
    COLUMNS,
    END,
    MAY_BE_EMPTY,
    UnknownBehaviors,
    distinct_views,
    nothing_inside,
    seconds_of,
    whole,
)

__all__ = ["CHUNK_ROWS", "TaobaoSource"]

_HOUR: Final = 3600
_HOURS: Final = (END - BEGIN) // _HOUR
_EARLY_ARRIVAL: Final = 2  # hours after the log's begin at which earlier rows arrive

CHUNK_ROWS: Final = 2_000_000
"""Rows of the file that are held at a time, unless one hour has more."""
_SLICE_ROWS: Final = 32_768

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Scan:
    """What one pass tells: rows per hour of the nine days by arrival, first and last hour."""

    rows: Ints
    first: int
    last: int


class TaobaoSource:
    """The published file, or a part of it, with drawn negatives.

    Args:
        path: the file, plain or gzip, or the folder that holds it or several parts of it.
        seed: of the draw of negatives.
        negatives: impressions without a click beside each distinct `pv`; 0 for none.
    """

    name: ClassVar[str] = "taobao"

    def __init__(self, *, path: str | Path, seed: int = 2017, negatives: int = 4) -> None:
        for option, value in (("seed", seed), ("negatives", negatives)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise SourceError(
                    f"source 'taobao': {option} is {value!r}; write a whole number, 0 or more"
                )
        self.path = Path(path)
        self.seed = seed
        self.negatives = negatives
        self.has_requests = False
        self.time_zone = "Asia/Shanghai"
        outcomes = [action for action in BEHAVIORS.values() if action != "click"]
        self.windows: Mapping[str, int] = {
            "click": 0,
            **{action: DEFAULT_WINDOWS[action] for action in outcomes},
        }
        self._known_scan: _Scan | None = None

    def check(self, _first: str | None = None, _last: str | None = None, /) -> None:
        """Read the file once and raise SourceError for what is missing or wrong in it."""
        self._known_scan = None
        self._scan()

    def span(self) -> tuple[str, str]:
        """The hours of the earliest and the latest row of the published nine days."""
        scan = self._scan()
        return _name(scan.first), _name(scan.last)

    def events(self, first: str, last: str) -> Iterator[pa.RecordBatch]:
        """See :class:`feature_store.sources.base.Source`; hour by hour, in each the rows of the
        file in their order and then the negatives. A row without a time arrives in the first hour
        of the log, so that it is judged and not lost."""
        scan = self._scan()
        low = max(_number(first), scan.first)
        high = min(_number(last), scan.last)
        for begin, end in _chunks(scan.rows, low, high):
            rows = self._read(begin, end)
            number = rows["hour"].to_numpy()
            for hour in range(begin, end + 1):
                start, stop = np.searchsorted(number, [hour, hour + 1])
                if stop > start:
                    yield from self._hour_events(hour, rows.slice(start, stop - start))

    def entities(self, table: str, first: str, last: str) -> Iterator[pa.RecordBatch]:
        """See :class:`feature_store.sources.base.Source`. Only items, each known from the first
        hour of the log, in the category that the file names first for it."""
        if table not in ENTITY_TABLES:
            raise SourceError(f"no entity table {table!r}; they are {', '.join(ENTITY_TABLES)}")
        begin = self.span()[0]
        if table != "items" or not first <= begin <= last:
            return
        items, categories = self._categories()
        since = pa.scalar(micros_of(begin), pa.int64())
        for start in range(0, len(items), _SLICE_ROWS):
            part = slice(start, start + _SLICE_ROWS)
            columns = {
                "item_id": pa.array(items[part]).cast(pa.string()),
                "category": categories[part].cast(pa.string()),
                "valid_from": pa.repeat(since, len(items[part])).cast(TIMESTAMP),
                "hour": pa.repeat(begin, len(items[part])),
            }
            yield with_schema(columns, len(items[part]), ITEMS)

    def _files(self) -> list[Delimited]:
        if self.path.is_file():
            found = [self.path]
        else:
            found = find_files(self.path, "*.csv", "Taobao's UserBehavior.csv")
        names = list(COLUMNS)
        return [Delimited(path, COLUMNS, may_be_empty=MAY_BE_EMPTY, names=names) for path in found]

    def _scan(self) -> _Scan:
        if self._known_scan is None:
            rows = np.zeros(_HOURS, np.int64)
            outside = np.zeros(3, np.int64)  # earlier, later, without a time
            for file in self._files():
                unknown = UnknownBehaviors(file.path)
                for batch in file.batches():
                    unknown.see(batch["behavior_type"])
                    seconds = seconds_of(batch)
                    numbers = (seconds[(seconds >= BEGIN) & (seconds < END)] - BEGIN) // _HOUR
                    rows += np.bincount(numbers, minlength=_HOURS)
                    empty = batch["timestamp"].null_count
                    outside += (int((seconds < BEGIN).sum()) - empty, (seconds >= END).sum(), empty)
                unknown.refuse()
            if not rows.any():
                raise nothing_inside(self.path, outside)
            first, last = (int(end) for end in np.flatnonzero(rows)[[0, -1]])
            rows[first] += outside[2]
            rows[min(first + _EARLY_ARRIVAL, last)] += outside[0]
            rows[last] += outside[1]
            self._known_scan = _Scan(rows, first, last)
        return self._known_scan

    def _arrivals(self, batch: pa.RecordBatch) -> tuple[Ints, pa.Array]:
        """The hour, numbered from ``BEGIN``, and the instant at which each row arrives."""
        scan = self._scan()
        seconds = seconds_of(batch)
        early = BEGIN + min(scan.first + _EARLY_ARRIVAL, scan.last) * _HOUR
        arrival = np.select(
            [batch["timestamp"].is_null().to_numpy(zero_copy_only=False), seconds < BEGIN],
            [BEGIN + scan.first * _HOUR, early],
            np.where(seconds < END, seconds, BEGIN + scan.last * _HOUR),
        )
        return (arrival - BEGIN) // _HOUR, pa.array(arrival * 1_000_000).cast(TIMESTAMP)

    def _read(self, first: int, last: int) -> pa.Table:
        """The rows that arrive in hours ``first`` to ``last``, by hour, then in file order."""
        parts = []
        for file in self._files():
            for batch in file.batches():
                number, arrival = self._arrivals(batch)
                wanted = pa.array((number >= first) & (number <= last))
                action = pc.index_in(batch["behavior_type"], pa.array(list(BEHAVIORS))).cast(
                    pa.int8()
                )
                kept = batch.set_column(3, "behavior_type", action)
                kept = kept.append_column("arrival", arrival).append_column("hour", number)
                parts.append(kept.filter(wanted))
        rows = pa.Table.from_batches(parts)
        order = np.argsort(rows["hour"].to_numpy(), kind="stable")
        return rows.take(pa.array(order)).combine_chunks()

    def _hour_events(self, hour: int, rows: pa.Table) -> Iterator[pa.RecordBatch]:
        batch = rows.combine_chunks().to_batches()[0]
        for part in sliced(batch, _SLICE_ROWS):
            yield from _logged(part)
        shown = distinct_views(batch)
        acted = whole(batch).select(["user_id", "item_id"])
        users, items = (shown[name].to_numpy() for name in ("user_id", "item_id"))
        drawn = draw_negatives(
            users,
            items,
            (acted["user_id"].to_numpy(), acted["item_id"].to_numpy()),
            self.negatives,
            np.random.default_rng([self.seed, BEGIN // _HOUR + hour]),
        )
        step = max(_SLICE_ROWS // max(self.negatives, 1), 1)
        for start in range(0, shown.num_rows, step):
            yield from _unclicked(shown.slice(start, step), drawn[start : start + step])

    def _categories(self) -> tuple[Ints, pa.Array]:
        """Every item, ascending, and the category that the file names first for it, if any."""
        pending: list[tuple[Ints, Ints]] = []
        size = 0
        for file in self._files():
            for batch in file.batches():
                kept = batch.filter(batch["item_id"].is_valid())
                category = pc.fill_null(kept["category_id"], -1).to_numpy()
                pending.append(_firsts([(kept["item_id"].to_numpy(), category)]))
                size += len(pending[-1][0])
                if size > CHUNK_ROWS + 2 * len(pending[0][0]):
                    pending = [_firsts(pending)]
                    size = len(pending[0][0])
        items, categories = _firsts(pending)
        return items, pa.array(categories, mask=categories < 0)


def _name(number: int) -> str:
    return hour_of_micros((BEGIN + number * _HOUR) * 1_000_000)


def _number(hour: str) -> int:
    return hours.difference(hour, _name(0))


def _chunks(rows: Ints, first: int, last: int) -> list[tuple[int, int]]:
    """Hours ``first`` to ``last`` cut into runs with at most ``CHUNK_ROWS`` rows, or of one hour;
    runs without rows are left out."""
    runs: list[tuple[int, int, int]] = []
    for hour in range(first, last + 1):
        count = int(rows[hour])
        if runs and runs[-1][2] + count <= CHUNK_ROWS:
            runs[-1] = (runs[-1][0], hour, runs[-1][2] + count)
        else:
            runs.append((hour, hour, count))
    return [(begin, end) for begin, end, count in runs if count]


def _firsts(parts: Sequence[tuple[Ints, Ints]]) -> tuple[Ints, Ints]:
    """Keys, ascending and each once, with the value that stands first; a value below 0 only where
    there is no other."""
    if not parts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    keys = np.concatenate([part[0] for part in parts])
    values = np.concatenate([part[1] for part in parts])
    order = np.lexsort((values < 0, keys))  # stable: then in file order
    unique, where = np.unique(keys[order], return_index=True)
    return unique, values[order][where]


def _logged(rows: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The events of rows of the file: their impressions, then one action after the other."""
    names = row_hashes(rows.select(list(COLUMNS)))
    for action, code in (("impression", 0), *((a, i) for i, a in enumerate(BEHAVIORS.values()))):
        happened = pc.equal(rows["behavior_type"], code)
        viewed = code == 0
        batch = _events(rows, rows["item_id"], names, names if viewed else None, action)
        yield from sliced(batch.filter(happened))


def _unclicked(shown: pa.RecordBatch, drawn: Ints) -> Iterator[pa.RecordBatch]:
    """Impressions of the ``drawn`` items (rows x negatives, below 0 for none) beside ``shown``."""
    rows, ranks = np.nonzero(drawn >= 0)
    beside = shown.take(pa.array(rows))
    names = row_hashes(shown.select(list(COLUMNS))).take(pa.array(rows))
    names = pc.binary_join_element_wise(names, pa.array(ranks).cast(pa.string()), "-n")
    items = pa.array(drawn[rows, ranks])
    yield from sliced(_events(beside, items, names, names, "impression"))


def _events(
    rows: pa.RecordBatch, items: pa.Array, names: pa.Array, shown: pa.Array | None, action: str
) -> pa.RecordBatch:
    """One event of ``action`` on ``items`` for each of ``rows``, named by ``names``."""
    count = rows.num_rows
    item = items.cast(pa.string())
    columns = {
        "event_id": pc.binary_join_element_wise(names, action, "-"),
        "event_time": _instants(rows["timestamp"]),
        "ingested_at": rows["arrival"],
        "user_id": rows["user_id"].cast(pa.string()),
        "target_type": pa.repeat("item", count),
        "target_id": item,
        "item_id": item,
        "action": pa.repeat(action, count),
    }
    if shown is not None:
        columns["impression_id"] = shown
    return with_schema(columns, count, SOURCE_EVENTS)


def _instants(seconds: pa.Array) -> pa.Array:
    """Seconds as instants; null where they are beyond what an instant can be."""
    limit = 2**63 // 1_000_000 - 1
    fits = pc.and_(pc.greater_equal(seconds, -limit), pc.less_equal(seconds, limit))
    kept = pc.if_else(fits, seconds, pa.scalar(None, pa.int64()))
    return pc.multiply(kept, 1_000_000).cast(TIMESTAMP)
