"""Node embeddings beside a training set's rows: the vectors of the day before each row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from feature_store import hours as hr
from feature_store.embedding_views import (
    EMBEDDING_VIEWS,
    SIMILARITIES,
    SPACE,
    EmbeddingView,
    Similarity,
    embedding_views,
)
from feature_store.tables import Store, StoreError
from feature_store.windows import timestamps

__all__ = [
    "TABLE",
    "Beside",
    "Space",
    "beside_keys",
    "embedding_hour",
    "embedding_hours",
    "newest_space",
    "with_embeddings",
]

T = TypeVar("T")

TABLE: Final = "node_embeddings"
_COMPARED: Final = 65_536
"""Rows whose vectors are compared at once."""
_LATE_HOURS: Final = 3
"""A sample may have been shown so long before the hour that it arrived in."""

Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Space:
    """Where vectors live.

    Attributes:
        version: ``embedding_version``; vectors of two versions must not meet.
        width: numbers of a vector.
    """

    version: str
    width: int


def embedding_hour(hour: str, time_zone: str) -> str:
    """The partition whose vectors a sample as of ``hour`` has: the last hour of the business day
    before."""
    return hr.add(hr.date_hours(hr.day_of(hour, time_zone).isoformat(), time_zone)[0], -1)


def embedding_hours(store: Store, first: str, last: str, time_zone: str) -> list[str]:
    """The partitions that samples of run hours [first, last] have vectors in."""
    begin = embedding_hour(hr.add(first, -_LATE_HOURS), time_zone)
    return store.readable_hours(TABLE, begin, embedding_hour(last, time_zone))


def newest_space(store: Store, hours: Sequence[str], snapshot_id: int | None) -> Space | None:
    """The space of the newest of some partitions that has any vector."""
    for hour in sorted(hours, reverse=True):
        rows = store.dataset(TABLE, [hour], snapshot_id=snapshot_id)
        one = rows.head(1, columns=[SPACE, "vector"])
        if one.num_rows:
            return Space(one[SPACE][0].as_py(), len(one["vector"][0]))
    return None


def with_embeddings(
    store: Store, rows: pa.Table, views: Sequence[str], similarities: Sequence[str], *,
    hours: Sequence[str], time_zone: str, snapshot_id: int | None = None,
) -> pa.Table:  # fmt: skip
    """``rows`` with the columns of :class:`Beside`."""
    if not views and not similarities:
        return rows
    beside = Beside(
        store, rows, views, similarities, hours=hours, time_zone=time_zone, snapshot_id=snapshot_id
    )
    for name, column in beside.columns().items():
        rows = rows.append_column(name, column)
    return rows


def beside_keys(
    store: Store, keys: Mapping[str, pa.Array], as_of: npt.NDArray[np.int64],
    views: Sequence[str], similarities: Sequence[str], time_zone: str,
) -> dict[str, pa.Array]:  # fmt: skip
    """The columns of :class:`Beside` for ``keys`` as of some instants (microseconds), from every
    day that is embedded."""
    rows, hours = pa.table({**keys, "as_of": timestamps(as_of)}), []
    if len(as_of) and (views or similarities):
        ends = timestamps(np.array([as_of.min(), as_of.max()])).to_pylist()
        first, last = (embedding_hour(hr.hour_of(end), time_zone) for end in ends)
        hours = store.readable_hours(TABLE, first, last)
    return Beside(store, rows, views, similarities, hours=hours, time_zone=time_zone).columns()


class Beside:
    """The vectors and similarities of some rows, those of the day before each row's ``as_of``.

    A node without a vector on that day has null, and so has every row of a day that was not
    embedded. Of the table only the vectors of nodes that the rows name are held.

    Args:
        rows: have ``as_of`` and the keys of the views.
        views: names in ``EMBEDDING_VIEWS``; with any, ``embedding_version`` comes along.
        similarities: names in ``SIMILARITIES``.
        hours: partitions of ``node_embeddings`` that may be read.
        time_zone: of the business day.

    Raises:
        StoreError: for a view or similarity that is not declared.
    """

    def __init__(
        self, store: Store, rows: pa.Table, views: Sequence[str], similarities: Sequence[str], *,
        hours: Sequence[str], time_zone: str, snapshot_id: int | None = None,
    ) -> None:  # fmt: skip
        self._views = _declared("embedding views", views, {v.name: v for v in EMBEDDING_VIEWS})
        self._cosines = _declared("similarities", similarities, {s.name: s for s in SIMILARITIES})
        needed = {view.name: view for view in embedding_views(views, similarities)}
        self._day = np.full(rows.num_rows, -1)  # of which day a row's vectors are; -1 of none
        self._places = {name: np.full(rows.num_rows, -1) for name in needed}
        self._days: list[_Vectors] = []
        for hour, mine in _by_partition(rows, time_zone):
            if hour not in hours:
                continue
            asked = rows.take(pa.array(mine)) if len(mine) < rows.num_rows else rows
            day = _Vectors(store, hour, snapshot_id, asked, list(needed.values()))
            self._day[mine] = len(self._days)
            for name, view in needed.items():
                self._places[name][mine] = day.places(view, asked)
            self._days.append(day)

    def columns(self, start: int = 0, stop: int | None = None) -> dict[str, pa.Array]:
        """Of rows [start, stop): a float32 list a view, ``embedding_version`` where any was asked
        for, a float32 a similarity."""
        own = slice(start, stop)
        found = {view.name: self._lists(view, own) for view in self._views}
        if self._views:
            versions = [day.version for day in self._days]
            places = self._day[own]
            codes = pa.array(places, pa.int64(), mask=places < 0)
            found[SPACE] = pa.array(versions, pa.string()).take(codes)
        return found | {one.name: self._cosine(one, own) for one in self._cosines}

    def _lists(self, view: EmbeddingView, own: slice) -> pa.Array:
        days, places = self._day[own], self._places[view.name][own]
        width = np.array([day.matrix.shape[1] for day in self._days] or [0])
        known = places >= 0
        sizes = np.where(known, width[days], 0)
        ends = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
        flat = np.empty(int(ends[-1]), np.float32)
        for number, day in enumerate(self._days):
            mine = known & (days == number)
            flat[np.repeat(mine, sizes)] = day.matrix[places[mine]].ravel()
        return pa.ListArray.from_arrays(pa.array(ends), pa.array(flat), mask=pa.array(~known))

    def _cosine(self, one: Similarity, own: slice) -> pa.Array:
        left, right = self._places[one.left.name][own], self._places[one.right.name][own]
        both = (left >= 0) & (right >= 0)
        values = np.zeros(len(left), np.float32)
        for number, day in enumerate(self._days):
            mine = np.flatnonzero(both & (self._day[own] == number))
            for begin in range(0, len(mine), _COMPARED):
                rows = mine[begin : begin + _COMPARED]
                values[rows] = np.einsum("rd,rd->r", day.unit[left[rows]], day.unit[right[rows]])
        return pa.array(values, mask=~both)


def _declared(what: str, names: Sequence[str], known: Mapping[str, T]) -> list[T]:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise StoreError(f"no {what} {unknown} are declared; there are {sorted(known)}")
    return [known[name] for name in names]


def _by_partition(rows: pa.Table, time_zone: str) -> Iterator[tuple[str, Places]]:
    """The partitions that rows have their vectors in, each with the rows' places."""
    as_of = pa.chunked_array(rows["as_of"]).combine_chunks().dictionary_encode()
    moments = (hr.hour_of(moment) for moment in as_of.dictionary.to_pylist())
    wanted = [embedding_hour(hour, time_zone) for hour in moments]
    codes = as_of.indices.to_numpy()
    for hour in sorted(set(wanted)):
        among = np.flatnonzero([one == hour for one in wanted])
        yield hour, np.flatnonzero(np.isin(codes, among))


class _Vectors:
    """The vectors of one partition of the nodes that some rows name; ``unit`` of length 1."""

    def __init__(
        self, store: Store, hour: str, snapshot_id: int | None, rows: pa.Table,
        views: Sequence[EmbeddingView],
    ) -> None:  # fmt: skip
        wanted = ds.scalar(False)
        for view in views:
            ids = pc.drop_null(pc.unique(rows[view.key]))
            wanted |= (ds.field("node_type") == view.node_type) & ds.field("node_id").isin(ids)
        dataset = store.dataset(TABLE, [hour], snapshot_id=snapshot_id)
        self._nodes = dataset.to_table(
            columns=["node_type", "node_id", SPACE, "vector"], filter=wanted
        )
        lists = self._nodes["vector"].combine_chunks()
        width = len(lists[0]) if len(lists) else 0
        self.version = self._nodes[SPACE][0].as_py() if width else None
        self.matrix = np.asarray(lists.flatten(), np.float32).reshape(len(lists), width)
        lengths = np.linalg.norm(self.matrix, axis=1, keepdims=True)
        self.unit = self.matrix / np.where(lengths > 0, lengths, np.float32(1.0))

    def places(self, view: EmbeddingView, rows: pa.Table) -> Places:
        """(rows,) where the node of each row stands in ``matrix``; -1 without a vector."""
        mine = np.flatnonzero(pc.equal(self._nodes["node_type"], view.node_type).to_numpy())
        if not len(mine):
            return np.full(rows.num_rows, -1)
        ids = self._nodes["node_id"].take(pa.array(mine)).combine_chunks()
        here = pc.index_in(rows[view.key], value_set=ids, skip_nulls=True)
        place = pc.fill_null(here, -1).to_numpy().astype(np.int64)
        return np.where(place >= 0, mine[place], -1)
