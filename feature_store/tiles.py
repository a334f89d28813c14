"""Tile files: what an hour's features are computed from, and how little of it is read.

Counts lie in files sorted by ``key_hash``: one set per hour, and one per day once the day is over.
A run reads the tiles that enter or leave a window whole, which names the keys that are due, and of
all others only the rows of those keys: whole days from day tiles, the rest from hourly ones.

Keys of one view that share all 64 bits of their hash would be counted as one: among a hundred
million keys the chance that any two do is 3 in 10,000.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_store import hours as hr
from feature_store import storage
from feature_store.views import FeatureView
from feature_store.windows import Ints, epoch_hour

__all__ = [
    "HASHES",
    "History",
    "KeyRange",
    "day_content",
    "day_tile",
    "ended_days",
    "found_tiles",
    "key_ranges",
    "plan_history",
    "read_tiles",
]

KeyRange = tuple[int, int]
"""Key hashes from the first to the last, both included."""

HASHES: Final[KeyRange] = (-(2**63), 2**63 - 1)
_COUNTED: Final = ("key_hash", "tile", "action", "n", "total", "last_at")


def key_ranges(count: int) -> list[KeyRange]:
    """All key hashes in ``count`` ranges of equal width, in order."""
    edges = [HASHES[0] + (2**64 * i) // count for i in range(count)]
    return list(zip(edges, [edge - 1 for edge in edges[1:]] + [HASHES[1]], strict=True))


@dataclass(frozen=True)
class History:
    """The tiles that features of some hours need, besides those of the hours themselves.

    Attributes:
        changing: hours with tiles that leave a window meanwhile.
        days: last hours of the days that are read as day tiles.
        hours: the other hours.
    """

    changing: list[str]
    days: list[str]
    hours: list[str]


def ended_days(hours: Sequence[str], time_zone: str) -> dict[str, list[str]]:
    """The business days that lie in ``hours`` (consecutive) as a whole: last hour to hours."""
    found = {}
    for date, within in groupby(hours, lambda hour: hr.day_of(hour, time_zone)):
        day = list(within)
        if day == hr.date_hours(date.isoformat(), time_zone):
            found[day[-1]] = day
    return found


def plan_history(
    view: FeatureView, first: str, last: str, start: str, days: Mapping[str, Sequence[str]]
) -> History:
    """What features as of (first, last + 1h] need of the hours before ``first``.

    A day tile stands for its day when no window begins inside that day, or at its end: then the
    day is in a window as a whole or not at all, and nothing of it leaves a window now.

    Args:
        start: first hour of the store.
        days: days with a valid day tile, by last hour.
    """
    span = epoch_hour(last) - epoch_hour(first) + 1
    earliest = max(start, hr.add(first, -view.span_hours))
    before = hr.hour_range(earliest, hr.add(first, -1))
    begins = [hr.add(first, 1 + -minutes // 60) for minutes in view.windows]
    changing = {
        hour
        for begin in begins
        for hour in hr.hour_range(hr.add(begin, -1), hr.add(begin, span - 2))
        if earliest <= hour < first
    }
    whole = [
        day for day, within in days.items()
        if within[0] >= earliest and day < first and changing.isdisjoint(within)
    ]  # fmt: skip
    inside = {hour for day in whole for hour in days[day]}
    rest = [hour for hour in before if hour not in inside and hour not in changing]
    return History(sorted(changing), sorted(whole), rest)


def day_content(contents: Mapping[str, str]) -> str:
    """What a day tile is made of, by hour: the day tile's content hash, since nothing else is."""
    lines = "".join(f"{hour}|{content}\n" for hour, content in sorted(contents.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def read_tiles(paths: Iterable[str], keys: Sequence[str], within: KeyRange = HASHES) -> pa.Table:
    """Rows of tile files: what is counted, and ``keys``.

    Args:
        within: range of key hashes; row groups outside of it are not read.
    """
    columns = [*_COUNTED, *keys]
    pieces = [_empty(keys)]
    for file, group in _groups(paths, within):
        rows = file.read_row_group(group, columns=columns).select(columns)
        if within != HASHES:
            hashes = rows["key_hash"]
            inside = pc.and_(pc.greater_equal(hashes, within[0]), pc.less_equal(hashes, within[1]))
            rows = rows.filter(inside)
        pieces.append(rows)
    return pa.concat_tables(pieces)


def found_tiles(
    paths: Iterable[str],
    within: KeyRange,
    columns: Sequence[str],
    find: Callable[[Ints], tuple[Ints, Ints]],
) -> Iterator[tuple[pa.Table, Ints]]:
    """``columns`` of the rows of tile files that ``find`` finds by their key hashes, row group by
    row group, with what it says of each: memory is bounded by a row group. Actions are coded.

    Args:
        within: the range of what is wanted; row groups outside of it are not read.
        find: of key hashes, which rows are wanted, and a number for each of those.
    """
    for file, group in _groups(paths, within, ["action"]):
        hashes = file.read_row_group(group, columns=["key_hash"])["key_hash"].to_numpy()
        rows, place = find(hashes)
        if len(rows):
            tiles = file.read_row_group(group, columns=list(columns))
            yield tiles if len(rows) == len(hashes) else tiles.take(pa.array(rows)), place


def _empty(keys: Sequence[str]) -> pa.Table:
    kinds = {"action": pa.string(), "tile": _TIME, "last_at": _TIME}
    columns = {name: pa.array([], kinds.get(name, pa.int64())) for name in _COUNTED}
    return pa.table(columns | {key: pa.array([], pa.string()) for key in keys})


_TIME: Final = pa.timestamp("us", tz="UTC")


def _groups(
    paths: Iterable[str], within: KeyRange, coded: Sequence[str] = ()
) -> Iterator[tuple[pq.ParquetFile, int]]:
    """Row groups with keys in the range ``within``; columns ``coded`` are dictionaries."""
    for path in paths:
        file = storage.parquet_file(path, read_dictionary=coded)
        for group in range(file.num_row_groups):
            if _overlaps(file, group, within):
                yield file, group


def _overlaps(file: pq.ParquetFile, group: int, within: KeyRange) -> bool:
    place = file.schema_arrow.get_field_index("key_hash")
    known = file.metadata.row_group(group).column(place).statistics
    if known is None or not known.has_min_max:
        return True
    return bool(known.max >= within[0] and known.min <= within[1])


def day_tile(tiles: pa.Table, keys: Sequence[str], start: str) -> pa.Table:
    """One row per key and action from the tiles of a day that starts at hour ``start``."""
    summed = tiles.group_by(["key_hash", *keys, "action"], use_threads=False).aggregate(
        [("n", "sum"), ("total", "sum"), ("last_at", "max")]
    )
    counted = dict(
        zip(("n", "total", "last_at"), ("n_sum", "total_sum", "last_at_max"), strict=True)
    )
    begin = pa.scalar(hr.start_of(start), _TIME)
    rows = pa.table(
        {
            "key_hash": summed["key_hash"],
            **{key: summed[key] for key in keys},
            "tile": pa.repeat(begin, summed.num_rows),
            "action": summed["action"],
            **{name: summed[column] for name, column in counted.items()},
        }
    )
    return rows.sort_by([("key_hash", "ascending"), *((k, "ascending") for k in (*keys, "action"))])
