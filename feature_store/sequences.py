"""Sequences: the newest elements of a key that were known before an instant, newest last.

The inner loop runs on whole Arrow tables with NumPy. A row of behaviour, or of a room's offer, can
be used by the ``as_of`` in (since, until]; where a sequence starts and ends in its key's rows is a
binary search, and only the rows around its end are looked at.

Between Spark and Python a sequence travels as bytes, one row per key and ``as_of``: Spark checks a
batch's size after every row that it hands to Python, at a cost that grows with a list column's
batch. :func:`pack` and :func:`unpack` are each other's inverse.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.sequence_views import ELEMENTS, STAY, SequenceView
from feature_store.windows import HOUR_MICROS, Ints

__all__ = ["ASKED", "KNOWN", "PACKED_TEXTS", "Sequences", "pack", "sequences", "unpack"]

_SECOND: Final = 1_000_000
_MINUTE: Final = 60 * _SECOND
_MILLISECONDS: Final = 1000
_ALWAYS: Final = np.iinfo(np.int64).max
_NO_TEXT: Final = -1
_NO_LINK: Final = -1
_REQUESTS: Final = 20_000
_LOOKED_AT: Final = 4_000_000
"""How many requests are answered, and how many rows are looked at, at a time: bounds memory."""

KNOWN: Final = pa.schema(
    [
        ("key", pa.string()),
        ("known", pa.int64()),  # microseconds: when it arrived, or any instant of that hour
        ("at", pa.int64()),  # microseconds: when it happened, or is valid from
        ("ends", pa.int64()),  # microseconds: valid to; null while it lasts, and for behaviour
        ("tie", pa.string()),  # orders rows of one instant: the event_id, or the item
        ("action", pa.string()),
        ("item_id", pa.string()),
        ("room_id", pa.string()),
        ("category", pa.string()),
        ("stay", pa.int64()),  # milliseconds, of a stay
        ("link", pa.string()),  # what a stay and its element share: the impression; may be null
    ]
)
"""Rows that elements come from."""

ASKED: Final = pa.schema([("key", pa.string()), ("as_of", pa.int64()), ("hour", pa.string())])
"""Requests: whose sequence, as of which instant (microseconds), for which run hour's samples."""

PACKED_TEXTS: Final = tuple(name for name, kind in ELEMENTS.items() if kind == pa.string())


class Sequences(NamedTuple):
    """Sequences of R requests with E elements in all.

    Attributes:
        asked: rows of ``ASKED``.
        offsets: (R + 1,); the elements of request r are ``elements[offsets[r]:offsets[r + 1]]``.
        elements: the view's element columns, newest last within a request.
    """

    asked: pa.Table
    offsets: Ints
    elements: pa.Table


@dataclass(frozen=True)
class _Usable:
    """Rows that may be elements, sorted by key, then time; n rows of m keys.

    ``as_of`` in (since, until] may use a row.
    """

    row: Ints  # (n,) its place in the known rows
    code: Ints  # (n,) its key
    at: Ints  # (n,)
    since: Ints  # (n,)
    until: Ints  # (n,)

    @classmethod
    def of(cls, view: SequenceView, known: pa.Table, codes: Ints, row: Ints) -> _Usable:
        """The known rows ``row``, each until a newer version of it is known or it is too old.

        Versions are rows of one key, tie and time; of any time, where an item is there once.
        """
        rows = known.select(["tie", "known", "at", "ends"]).take(pa.array(row))
        tie = pc.rank(rows["tie"], tiebreaker="dense").to_numpy().astype(np.int64)
        code, at = codes[row], rows["at"].to_numpy()
        ends = pc.fill_null(rows["ends"], _ALWAYS).to_numpy()
        since = np.maximum(rows["known"].to_numpy(), at)
        until = np.full(len(row), _ALWAYS)
        if view.lookback_hours is not None:
            until = since + view.lookback_hours * HOUR_MICROS
        if view.ended_minutes is not None:
            last = np.minimum(ends, _ALWAYS - view.ended_minutes * _MINUTE)
            until = np.minimum(until, last + view.ended_minutes * _MINUTE - 1)
        open_first = np.where(ends == _ALWAYS, np.iinfo(np.int64).min, ends)
        version = (tie, code) if view.once else (tie, at, code)
        order = np.lexsort((open_first, at, since, *version))
        same = np.ones(max(len(order) - 1, 0), bool)
        for column in version:
            same &= column[order[1:]] == column[order[:-1]]
        older, newer = order[:-1][same], order[1:][same]
        until[older] = np.minimum(until[older], since[newer])
        order = np.lexsort((open_first, since, tie, at, code))
        return cls(*(column[order] for column in (row, code, at, since, until)))


class _Places:
    """Where (group, instant) lies in rows that are sorted by group, then by an instant of theirs.

    Args:
        group: (n,) in ascending order.
        instant: (n,); ascending within a group, or taken as the latest so far of its group.
    """

    def __init__(self, group: Ints, instant: Ints) -> None:
        self._distinct, rank = np.unique(instant, return_inverse=True)
        self._width = len(self._distinct) + 1
        self._ranks = np.maximum.accumulate(group * self._width + rank) if len(rank) else rank

    def before(self, group: Ints, instant: Ints) -> Ints:
        """How many of the rows precede each (group, instant)."""
        wanted = group * self._width + np.searchsorted(self._distinct, instant)
        return np.searchsorted(self._ranks, wanted)


def _expand(low: Ints, high: Ints) -> tuple[Ints, Ints]:
    """(request, place) for every place in [low, high) of each request, in order."""
    size = high - low
    request = np.repeat(np.arange(len(size)), size)
    first = np.cumsum(size) - size
    return request, np.arange(len(request)) - (first - low)[request]


def _newest(rows: _Usable, begin: Ints, end: Ints, as_of: Ints, length: int) -> tuple[Ints, Ints]:
    """(request, place in ``rows``) of the newest ``length`` usable rows, in order.

    Looks at the last rows of each key first, and at more of those whose sequence is not full.

    Args:
        begin, end: (R,) the rows of each request's key that may be usable.
    """
    found: list[tuple[Ints, Ints]] = []
    pending, width = np.flatnonzero(end > begin), length
    while len(pending):
        low = np.maximum(begin[pending], end[pending] - width)
        total = np.cumsum(end[pending] - low)
        parts = np.split(np.arange(len(pending)), np.flatnonzero(np.diff(total // _LOOKED_AT)) + 1)
        again = []
        for part in parts:
            mine = pending[part]
            of, place = _expand(low[part], end[mine])
            asked = as_of[mine][of]
            fits = (rows.since[place] < asked) & (asked <= rows.until[place])
            of, place = of[fits], place[fits]
            count = np.bincount(of, minlength=len(mine))
            complete = (count >= length) | (low[part] == begin[mine])
            from_end = np.cumsum(count)[of] - np.arange(len(of))
            keep = complete[of] & (from_end <= length)
            found.append((mine[of[keep]], place[keep]))
            again.append(mine[~complete])
        pending, width = np.concatenate(again), width * 4
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    request, place = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.argsort(request, kind="stable")
    return request[order], place[order]


class _Stays:
    """Milliseconds stayed on each impression of a key, as known at an instant."""

    def __init__(self, view: SequenceView, known: pa.Table, codes: Ints) -> None:
        link = known["link"].combine_chunks().dictionary_encode()
        linked = link.is_valid().to_numpy(zero_copy_only=False)
        of_link = pc.fill_null(link.indices, 0).to_numpy()
        pair = codes * (len(link.dictionary) + 1) + of_link
        self._pair = np.where(linked, np.unique(pair, return_inverse=True)[1], _NO_LINK)
        stays = pc.and_(pc.equal(known["action"], STAY), pa.array(linked))
        rows = _Usable.of(view, known, codes, np.flatnonzero(stays.to_numpy()))
        amount = pc.fill_null(known["stay"], 0).to_numpy()[rows.row]
        pair = self._pair[rows.row]
        self._sums = [self._running(pair, when, amount) for when in (rows.since, rows.until)]

    @staticmethod
    def _running(pair: Ints, instant: Ints, amount: Ints) -> tuple[_Places, Ints]:
        order = np.lexsort((instant, pair))
        running = np.concatenate([[0], np.cumsum(amount[order])])
        return _Places(pair[order], instant[order]), running

    def of(self, row: Ints, as_of: Ints) -> Ints:
        """Of the known rows ``row``, each at its own instant: what began less what ended."""
        pair, never = self._pair[row], np.full_like(as_of, np.iinfo(np.int64).min)
        begun, ended = (
            running[places.before(pair, as_of)] - running[places.before(pair, never)]
            for places, running in self._sums
        )
        return np.where(pair == _NO_LINK, 0, begun - ended)


def sequences(
    view: SequenceView, known: pa.Table, asked: pa.Table, at_once: int = _REQUESTS
) -> Iterator[Sequences]:
    """The sequences of ``view`` for the requests ``asked``, some at a time and in their order.

    Of several versions of one element the newest that was known counts. Elements are ordered by
    time, then tie; nothing that arrived, happened or begins at or after a request's ``as_of`` has
    any influence on its sequence.

    Args:
        known: rows of ``KNOWN``, in any order.
        asked: rows of ``ASKED``.
        at_once: requests per result.
    """
    known = known.combine_chunks()
    keys = known["key"].combine_chunks().dictionary_encode()
    codes = keys.indices.to_numpy().astype(np.int64)
    collected = pc.is_in(known["action"], value_set=pa.array(view.actions))
    collected = pc.and_(collected, pc.is_valid(known[view.collects]))
    rows = _Usable.of(view, known, codes, np.flatnonzero(collected.to_numpy()))
    happened, too_old = _Places(rows.code, rows.at), _Places(rows.code, rows.until)
    stays = _Stays(view, known, codes) if STAY in view.elements else None
    for start in range(0, asked.num_rows, at_once):
        part = asked.slice(start, at_once)
        of_key = pc.index_in(part["key"], value_set=keys.dictionary)
        code = pc.fill_null(of_key, len(keys.dictionary)).to_numpy().astype(np.int64)
        as_of = part["as_of"].to_numpy()
        begin = too_old.before(code, as_of)
        end = np.maximum(happened.before(code, as_of), begin)
        request, found = _newest(rows, begin, end, as_of, view.length)
        row, instant = rows.row[found], as_of[request]
        gap = np.minimum((instant - rows.at[found]) // _SECOND, np.iinfo(np.int32).max)
        made = {"gap": pa.array(gap.astype(np.int32))}
        if stays is not None:
            seconds = stays.of(row, instant) / _MILLISECONDS
            made["stay"] = pa.array(seconds.astype(np.float32))
        plain = [name for name in view.elements if name not in made]
        elements = {**made, **_columns(known.select(plain).take(pa.array(row)))}
        offsets = np.searchsorted(request, np.arange(part.num_rows + 1))
        yield Sequences(part, offsets, pa.table(elements).select(list(view.elements)))


def _columns(rows: pa.Table) -> dict[str, pa.Array]:
    return {name: rows[name].combine_chunks() for name in rows.column_names}


def pack(view: SequenceView, found: Sequences) -> dict[str, pa.Array]:
    """``numbers`` and one column per text of ``PACKED_TEXTS``, as bytes; (R,) each.

    ``numbers`` are, per element, its int32 or float32 values and the length of each of its texts;
    a text's column is the texts of all elements in a row, without anything between them.
    """
    values, packed = [], {}
    for name in view.elements:
        column = found.elements[name].combine_chunks()
        if name not in PACKED_TEXTS:
            values.append(column.to_numpy().view(np.int32))
            continue
        length = pc.fill_null(pc.binary_length(column), _NO_TEXT)
        values.append(length.to_numpy())
        text = pc.fill_null(column, "")
        starts = np.frombuffer(text.buffers()[1], np.int32)[text.offset :][: len(text) + 1]
        bounds = starts[found.offsets] if len(text) else np.zeros(len(found.offsets), np.int32)
        packed[name] = _binary(bounds, text.buffers()[2])
    matrix = np.ascontiguousarray(np.stack(values, axis=1))
    bounds = found.offsets * (matrix.itemsize * matrix.shape[1])
    absent = {name: pa.nulls(found.asked.num_rows, pa.binary()) for name in PACKED_TEXTS}
    return {"numbers": _binary(bounds, pa.py_buffer(matrix)), **absent, **packed}


def _binary(bounds: Ints | npt.NDArray[np.int32], data: pa.Buffer | None) -> pa.BinaryArray:
    offsets = pa.py_buffer(bounds.astype(np.int32))
    return pa.Array.from_buffers(pa.binary(), len(bounds) - 1, [None, offsets, data])


def unpack(view: SequenceView, rows: pa.Table) -> dict[str, pa.Array]:
    """The view's elements as list columns, from rows with the columns of :func:`pack`."""
    width = len(view.elements)
    numbers, size = _joined(rows["numbers"])
    matrix = numbers.view(np.int32).reshape(-1, width)
    offsets = np.concatenate([[0], np.cumsum(size // (matrix.itemsize * width))]).astype(np.int32)
    lists = {}
    for name, values in zip(view.elements, matrix.T, strict=True):
        if name in PACKED_TEXTS:
            column = _texts(_joined(rows[name])[0], values)
        else:
            column = pa.array(np.ascontiguousarray(values).view(ELEMENTS[name].to_pandas_dtype()))
        lists[name] = pa.ListArray.from_arrays(pa.array(offsets), column)
    return lists


def _joined(packed: pa.ChunkedArray) -> tuple[npt.NDArray[np.uint8], Ints]:
    """All bytes of a binary column without nulls, and how many each row has."""
    column = packed.combine_chunks()
    if not len(column):
        return np.zeros(0, np.uint8), np.zeros(0, np.int64)
    bounds = np.frombuffer(column.buffers()[1], np.int32)[column.offset :][: len(column) + 1]
    data = column.buffers()[2]
    whole = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    return whole[bounds[0] : bounds[-1]], np.diff(bounds).astype(np.int64)


def _texts(data: npt.NDArray[np.uint8], length: npt.NDArray[np.int32]) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(np.maximum(length, 0))]).astype(np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(data))]
    texts = pa.Array.from_buffers(pa.string(), len(length), buffers)
    return pc.if_else(pa.array(length != _NO_TEXT), texts, pa.scalar(None, pa.string()))
