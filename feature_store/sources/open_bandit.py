"""Open Bandit, the published fashion recommendations of ZOZOTOWN (Saito et al., NeurIPS 2021).

    PATH/POLICY/CAMPAIGN/CAMPAIGN.csv(.gz)       as it is published: one row per impression
    PATH/POLICY/CAMPAIGN/item_context.csv(.gz)
    PATH/POLICY_CAMPAIGN.csv(.gz)                or all in one folder
    PATH/POLICY_CAMPAIGN_item_context.csv(.gz)

A row is an impression of an item at position 1, 2 or 3, with the probability (``propensity``) that
the policy ``random`` or ``bts`` had of showing it there; a click in it is an event at the same
instant, attributed by the row itself. Timestamps carry their offset and are instants (+00:00, with
the fewest impressions at four in the morning in Japan).

The log has no users and no requests. The user of a row is the combination of its four user
features: a segment (240 of them in 10,000 rows), not a person. So a ranking group (segment, hour)
holds impressions of many people, user statistics are those of the segment, and an NDCG says how
well clicked items stand above others shown to such people in that hour, not on one page.
The affinities in the file belong to an impression, not to an entity, and are not read. Rows equal
in all that is read give equal event_ids, whatever their number in the first column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import pyarrow as pa
import pyarrow.compute as pc

from feature_store import hours
from feature_store.rowhash import row_hashes
from feature_store.schemas import ENTITY_TABLES, ITEMS, SOURCE_EVENTS, TIMESTAMP, USERS
from feature_store.sources.arrow import (
    attribute_map,
    hour_of_micros,
    micros_of,
    sliced,
    with_schema,
)
from feature_store.sources.base import SourceError
from feature_store.sources.delimited import Delimited, find_files

__all__ = ["OpenBanditSource"]

POLICIES: Final = ("random", "bts")
CAMPAIGNS: Final = ("all", "men", "women")
POSITIONS: Final = (1, 2, 3)

_SEGMENT: Final = tuple(f"user_feature_{i}" for i in range(4))
LOG_COLUMNS: Final[Mapping[str, pa.DataType]] = {
    "timestamp": TIMESTAMP,
    "item_id": pa.int64(),
    "position": pa.int64(),
    "click": pa.int64(),
    "propensity_score": pa.float64(),
    **dict.fromkeys(_SEGMENT, pa.string()),
}
# Of these a few may be empty; the ingest quarantines rows without a time or an item.
_LOG_MAY_BE_EMPTY: Final = ("timestamp", "item_id", *_SEGMENT)

ITEM_COLUMNS: Final[Mapping[str, pa.DataType]] = {
    "item_id": pa.int64(),
    "item_feature_0": pa.float64(),
    **{f"item_feature_{i}": pa.string() for i in range(1, 4)},
}
_CATEGORY: Final = "item_feature_3"  # the parent of item_feature_2: 7 values for 80 items


@dataclass(frozen=True)
class _Scan:
    """What one pass over the log tells: when it begins and ends, and its segments, as USERS."""

    first_micros: int
    last_micros: int
    segments: pa.Table


class OpenBanditSource:
    """The impressions of one policy in one campaign.

    Args:
        path: the folder of the published files, plain or gzip.
        policy: whose impressions are read: ``random`` or ``bts`` (Bernoulli Thompson sampling).
        campaign: ``all``, ``men`` or ``women``; the scene of every event.
    """

    name: ClassVar[str] = "open_bandit"

    def __init__(self, *, path: str | Path, policy: str = "random", campaign: str = "all") -> None:
        for option, value, known in (
            ("policy", policy, POLICIES),
            ("campaign", campaign, CAMPAIGNS),
        ):
            if value not in known:
                raise SourceError(
                    f"source 'open_bandit': {option} is {value!r}; write one of {', '.join(known)}"
                )
        self.path = Path(path)
        self.policy = policy
        self.campaign = campaign
        self.has_requests = False
        self.time_zone = "Asia/Tokyo"
        self.windows: Mapping[str, int] = {"click": 0}
        self._known_scan: _Scan | None = None

    def check(self, _first: str | None = None, _last: str | None = None, /) -> None:
        """Read both files once and raise SourceError for what is missing or wrong."""
        self._known_scan = None
        self._scan()
        self._items()

    def span(self) -> tuple[str, str]:
        """The hours of the earliest and the latest timestamp."""
        scan = self._scan()
        return hour_of_micros(scan.first_micros), hour_of_micros(scan.last_micros)

    def events(self, first: str, last: str) -> Iterator[pa.RecordBatch]:
        """See :class:`feature_store.sources.base.Source`; in file order, a batch of rows at a time:
        its impressions, then its clicks. A row without a timestamp arrives in the first hour of the
        log, so that it is judged and not lost."""
        low, high = micros_of(first), micros_of(hours.add(last, 1))
        scan = self._scan()
        if high <= scan.first_micros or low > scan.last_micros:
            return
        begin = pa.scalar(micros_of(self.span()[0]))
        for rows in self._log().batches():
            arrival = pc.coalesce(rows["timestamp"].cast(pa.int64()), begin)
            inside = pc.and_(pc.greater_equal(arrival, low), pc.less(arrival, high))
            kept = rows.append_column("arrival", arrival.cast(TIMESTAMP)).filter(inside)
            impressions = self._events_of(kept, "impression")
            clicks = self._events_of(kept, "click").filter(pc.equal(kept["click"], 1))
            yield from sliced(impressions)
            yield from sliced(clicks)

    def entities(self, table: str, first: str, last: str) -> Iterator[pa.RecordBatch]:
        """See :class:`feature_store.sources.base.Source`. Segments are users; they and the items
        are known from the first hour of the log."""
        if table not in ENTITY_TABLES:
            raise SourceError(f"no entity table {table!r}; they are {', '.join(ENTITY_TABLES)}")
        begin = self.span()[0]
        if not first <= begin <= last or table not in ("users", "items"):
            return
        rows = self._scan().segments if table == "users" else self._items()
        batch = _users(rows, begin) if table == "users" else _items(rows, begin)
        yield from sliced(batch)

    def _find(self, published: str, flat: str, what: str) -> Path:
        """The file in the published folders, or in PATH itself.

        Raises:
            SourceError: when it is in neither or in both.
        """
        folder = self.path / self.policy / self.campaign
        name = f"{self.policy}_{self.campaign}{flat}"
        in_folder = any((folder / f"{published}{end}").exists() for end in ("", ".gz"))
        in_path = any((self.path / f"{name}{end}").exists() for end in ("", ".gz"))
        if in_folder and in_path:
            raise SourceError(f"{self.path} holds {name} and {folder / published}; remove one")
        if in_folder:
            return find_files(folder, published, what)[0]
        if in_path:
            return find_files(self.path, name, what)[0]
        raise SourceError(
            f"{self.path} holds neither {folder.relative_to(self.path) / published} nor {name} "
            f"({what}), plain or .gz; point source.options.path at the folder of the published "
            "files, and source.options.policy and campaign at those that are there"
        )

    def _log(self) -> Delimited:
        path = self._find(f"{self.campaign}.csv", ".csv", "Open Bandit's log")
        return Delimited(path, LOG_COLUMNS, may_be_empty=_LOG_MAY_BE_EMPTY)

    def _scan(self) -> _Scan:
        if self._known_scan is None:
            file = self._log()
            rules = _Rules(file.path)
            times: list[int] = []
            segments: pa.Table | None = None
            for rows in file.batches():
                rules.see(rows)
                if rows["timestamp"].null_count < rows.num_rows:
                    times += pc.min_max(rows["timestamp"].cast(pa.int64())).as_py().values()
                found = pa.Table.from_batches([rows.select(list(_SEGMENT))])
                segments = _distinct(
                    found if segments is None else pa.concat_tables([segments, found])
                )
            rules.refuse()
            if not times or segments is None:
                raise SourceError(
                    f"{file.path}: column 'timestamp' is empty in all {rules.rows} rows; "
                    "use the published file"
                )
            self._known_scan = _Scan(min(times), max(times), segments)
        return self._known_scan

    def _items(self) -> pa.Table:
        path = self._find("item_context.csv", "_item_context.csv", "Open Bandit's items")
        rows = pa.Table.from_batches(
            Delimited(path, ITEM_COLUMNS, may_be_empty=[*ITEM_COLUMNS][1:]).batches(),
            pa.schema(ITEM_COLUMNS.items()),
        )
        ids = rows["item_id"]
        again = rows.num_rows - len(ids.unique())
        if again:
            raise SourceError(
                f"{path}: column 'item_id' names {again} of {rows.num_rows} rows again; "
                "an item is described once, so use the published file"
            )
        return rows

    def _events_of(self, rows: pa.RecordBatch, action: str) -> pa.RecordBatch:
        """One event of ``action`` per row."""
        count = rows.num_rows
        names = row_hashes(_hashable(rows))
        item = rows["item_id"].cast(pa.string())
        columns = {
            "event_id": pc.binary_join_element_wise(names, action, "-"),
            "event_time": rows["timestamp"],
            "ingested_at": rows["arrival"],
            "impression_id": names,
            "user_id": _segment_ids(rows),
            "target_type": pa.repeat("item", count),
            "target_id": item,
            "item_id": item,
            "scene": pa.repeat(self.campaign, count),
            "position": rows["position"].cast(pa.int32()),
            "action": pa.repeat(action, count),
            "propensity": rows["propensity_score"],
        }
        return with_schema(columns, count, SOURCE_EVENTS)


class _Rules:
    """What the columns' types do not say: counts the rows that break a rule, keeps first values."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        self.bad: dict[str, tuple[int, list[object]]] = {}

    def see(self, rows: pa.RecordBatch) -> None:
        self.rows += rows.num_rows
        score = rows["propensity_score"]
        for name, good in (
            ("position", pc.is_in(rows["position"], pa.array(POSITIONS))),
            ("click", pc.is_in(rows["click"], pa.array([0, 1]))),
            ("propensity_score", pc.and_(pc.greater(score, 0.0), pc.less_equal(score, 1.0))),
        ):
            wrong = rows[name].filter(pc.invert(good))
            if len(wrong):
                count, values = self.bad.get(name, (0, []))
                first = [*values, *wrong[:3].to_pylist()][:3]
                self.bad[name] = (count + len(wrong), first)

    def refuse(self) -> None:
        """Raise SourceError for the first column with bad values."""
        wanted = {
            "position": "1, 2 or 3, the place on the page",
            "click": "0 or 1",
            "propensity_score": "above 0 and at most 1, the probability of being shown",
        }
        for name, (count, values) in self.bad.items():
            raise SourceError(
                f"{self.path}: column {name!r} must be {wanted[name]}, and {count} of {self.rows} "
                f"rows hold something else; first values {', '.join(map(repr, values))}; "
                "correct or remove these rows"
            )


def _hashable(rows: pa.RecordBatch) -> pa.RecordBatch:
    """The columns that name a row; instants as numbers."""
    columns = {name: rows[name] for name in LOG_COLUMNS}
    columns["timestamp"] = rows["timestamp"].cast(pa.int64())
    return pa.RecordBatch.from_pydict(columns)


def _segment_ids(rows: pa.RecordBatch) -> pa.Array:
    """One name per combination of user features."""
    return row_hashes(rows.select(list(_SEGMENT)))


def _distinct(segments: pa.Table) -> pa.Table:
    """Every combination of user features once."""
    return segments.group_by(list(_SEGMENT)).aggregate([])


def _users(segments: pa.Table, begin: str) -> pa.RecordBatch:
    ordered = segments.sort_by([(name, "ascending") for name in _SEGMENT])
    rows = ordered.combine_chunks().to_batches()[0]
    categorical = {name: rows[name] for name in _SEGMENT}
    columns = {
        "user_id": _segment_ids(rows),
        "categorical": attribute_map(categorical, pa.string()),
    }
    return _known_from(begin, columns, rows.num_rows, USERS)


def _items(rows: pa.Table, begin: str) -> pa.RecordBatch:
    categorical = {f"item_feature_{i}": rows[f"item_feature_{i}"] for i in (1, 2)}
    columns = {
        "item_id": rows["item_id"].combine_chunks().cast(pa.string()),
        "category": rows[_CATEGORY].combine_chunks(),
        "numeric": attribute_map({"item_feature_0": rows["item_feature_0"]}, pa.float64()),
        "categorical": attribute_map(categorical, pa.string()),
    }
    return _known_from(begin, columns, rows.num_rows, ITEMS)


def _known_from(
    begin: str, columns: Mapping[str, pa.Array], count: int, schema: pa.Schema
) -> pa.RecordBatch:
    """Rows of an entity table that are known from hour ``begin``."""
    since = pa.repeat(pa.scalar(micros_of(begin), pa.int64()), count).cast(TIMESTAMP)
    dated = {**columns, "valid_from": since, "hour": pa.repeat(begin, count)}
    return with_schema(dated, count, schema)
