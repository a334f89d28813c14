"""How rows are changed for a behavioural check: pure functions of a table of feature rows.

Shapes: N rows come in, M go out. What a change means for a column follows from the feature views:
which columns are somebody's history, and what they say of a key that was never seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feature_store.embedding_views import EMBEDDING_VIEWS, SIMILARITIES
from feature_store.point_in_time import never
from feature_store.sequence_views import SEQUENCE_VIEWS
from feature_store.views import ATTRIBUTES, VIEWS, dense_columns, window_name
from models.metrics import group_codes, grouped

__all__ = [
    "CTR_COLUMNS",
    "DENSE_COLUMNS",
    "HOST_COUNTS",
    "ITEM_COLUMNS",
    "SALES_COLUMNS",
    "USER_COLUMNS",
    "Changed",
    "higher_ctr",
    "new_item",
    "new_user",
    "permuted",
    "popular_host",
    "reordered",
    "sold_out",
    "without_numbers",
]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_SEED: Final = 20_260_101
_STRANGER: Final = "never seen"
_DAY: Final = 24 * 60
_TIMES: Final = 10.0
_MORE: Final = 1.2


class Changed(NamedTuple):
    """Rows (M) after a change: which of the N each was, ``place`` (M,), and which of them are the
    ones that it is about, ``marked`` (M,)."""

    rows: pa.Table
    place: Ints
    marked: Bools


def _history(*keys: str) -> tuple[str, ...]:
    """Every column that says what was known of one of ``keys``, and the keys themselves."""
    wanted = set(keys)
    views = (c for v in VIEWS if wanted & {*v.keys} for c in v.sample_columns())
    sequences = (c for v in SEQUENCE_VIEWS if v.key in wanted for c in v.columns())
    vectors = (v.name for v in EMBEDDING_VIEWS if v.key in wanted)
    cosines = (s.name for s in SIMILARITIES if wanted & {s.left.key, s.right.key})
    return (*views, *sequences, *vectors, *cosines, *keys)


_USER: Final = next(view for view in ATTRIBUTES if view.key == "user_id")
_ITEM: Final = next(view for view in VIEWS if view.name == "item")
_TARGETS: Final = ("item_id", "room_id", "host_id")
_RECENT: Final = tuple(window for window in _ITEM.windows if window <= _DAY)
_NEVER: Final[Mapping[str, float]] = {
    column: float(value)
    for view in VIEWS
    for column, value in zip(view.sample_columns(), never(view), strict=True)
}
_LISTS: Final = frozenset(column for view in SEQUENCE_VIEWS for column in view.columns())

USER_COLUMNS: Final = (*_history("user_id"), *_USER.dense(), *_USER.sparse())
"""What says anything of the user."""

ITEM_COLUMNS: Final = _history(*_TARGETS)
"""The history of an item, a room, a host. What is declared of a new one is known: its attributes,
its category and its shop stay."""

HOST_COUNTS: Final = tuple(
    f"{view.name}_{name}_{window_name(window)}"
    for view in VIEWS
    if view.name in ("room", "host")
    for window in view.windows
    for name in (*view.actions, *(f"{action}_amount" for action in view.amounts))
)
"""How often a room or host was shown, clicked, bought from; not its rates."""

CTR_COLUMNS: Final = tuple(
    f"{view.name}_{rate.name}_{window_name(window)}"
    for view in VIEWS
    if {*view.keys} & {*_TARGETS}
    for window in view.windows
    for rate in view.rates
    if rate.name == "ctr"
)
"""The click-through rates of what is ranked."""

DENSE_COLUMNS: Final = (*dense_columns(), *(one.name for one in SIMILARITIES))


def permuted(rows: pa.Table, columns: Sequence[str]) -> Changed:
    """The columns of every row come from another row, one and the same; keys and labels stay."""
    order = pa.array(_random().permutation(rows.num_rows))
    return _all(rows, {name: rows[name].take(order) for name in columns})


def reordered(rows: pa.Table, columns: Sequence[str]) -> Changed:
    """Half of the rows, in another order: neither neighbours nor batches are what they were."""
    del columns
    place = _random().permutation(rows.num_rows)[: max(1, rows.num_rows // 2)]
    return Changed(rows.take(pa.array(place)), place, np.ones(len(place), np.bool_))


def new_user(rows: pa.Table, columns: Sequence[str]) -> Changed:
    """Every row is asked for by somebody of whom nothing is known."""
    return _all(rows, {name: _never_seen(rows[name], name) for name in columns})


def new_item(rows: pa.Table, columns: Sequence[str]) -> Changed:
    """In every group of two or more, one row is of an item, room and host without a history."""
    marked = np.zeros(rows.num_rows, np.bool_)
    marked[_one_of_each(rows)] = True
    fresh = {name: _never_seen(rows[name], name) for name in columns}
    return _some(rows, fresh, marked)


def without_numbers(rows: pa.Table, columns: Sequence[str]) -> Changed:
    """An outage: the columns are null in every row."""
    return _all(rows, {name: pa.nulls(rows.num_rows, rows.schema.field(name).type)
                       for name in columns})  # fmt: skip


def higher_ctr(rows: pa.Table, columns: Sequence[str]) -> Changed:
    """Click-through rates are 20 % higher, at most 1."""
    return _all(rows, {name: _typed(np.minimum(_numbers(rows, name) * _MORE, 1.0), rows, name)
                       for name in columns})  # fmt: skip


def popular_host(rows: pa.Table, columns: Sequence[str]) -> Changed:
    """In every group that shows several hosts, the counts of one of them are tenfold.

    A host is what ``host_id`` names where rows carry it, else ``room_id``. Nothing is marked where
    rows carry neither.
    """
    marked = _one_host_of_each(rows)
    raised = {name: _typed(_numbers(rows, name) * _TIMES, rows, name) for name in columns}
    return _some(rows, raised, marked)


def sold_out(rows: pa.Table, columns: Sequence[str]) -> Changed:
    """No item was clicked or bought for a day, while its impressions went on.

    A rate becomes what it is without clicks, by the impressions that the rows tell (0 where they
    tell none); no rate and no trend becomes higher, and no click or order younger than a day.
    """
    stopped = {name: _typed(_SALES[name](rows, name), rows, name) for name in columns}
    return _all(rows, stopped)


def _gone(rows: pa.Table, name: str) -> Floats:
    return np.where(np.isnan(_numbers(rows, name)), np.nan, 0.0)


def _aged(rows: pa.Table, name: str) -> Floats:
    older: Floats = np.maximum(_numbers(rows, name), _DAY / 60)  # NaN, never, stays
    return older


@dataclass(frozen=True)
class _Unclicked:
    """The CTR of a window without clicks."""

    impressions: str
    prior: float
    weight: float

    def __call__(self, rows: pa.Table, name: str) -> Floats:
        if self.impressions not in rows.column_names:
            return _gone(rows, name)
        shown = _numbers(rows, self.impressions)
        return np.fmin(_numbers(rows, name), self.prior * self.weight / (shown + self.weight))


@dataclass(frozen=True)
class _AtMost:
    """No more than ``most``: what a conversion rate is without clicks, a trend without any."""

    most: float

    def __call__(self, rows: pa.Table, name: str) -> Floats:
        return np.minimum(_numbers(rows, name), self.most)


@dataclass(frozen=True)
class _Falling:
    """The trend of a window without clicks against a longer one, whose clicks are ``long``."""

    long: str
    share: float
    weight: float

    def __call__(self, rows: pa.Table, name: str) -> Floats:
        if self.long not in rows.column_names:
            return _AtMost(1.0)(rows, name)
        usual = _numbers(rows, self.long) * self.share
        return np.fmin(_numbers(rows, name), self.weight / (usual + self.weight))


def _sales() -> dict[str, Callable[[pa.Table, str], Floats]]:
    """By column of the item's view how its sales stop."""
    found: dict[str, Callable[[pa.Table, str], Floats]] = {}
    for name in map(window_name, _RECENT):
        found |= dict.fromkeys((f"item_{what}_{name}" for what in ("click", "order")), _gone)
        found |= {f"item_{action}_amount_{name}": _gone for action in _ITEM.amounts}
        for rate in _ITEM.rates:
            if rate.numerator == "click":
                shown = f"item_{rate.denominator}_{name}"
                found[f"item_{rate.name}_{name}"] = _Unclicked(shown, rate.prior, rate.weight)
            elif rate.numerator == "order":
                found[f"item_{rate.name}_{name}"] = _AtMost(rate.prior)
    for trend in _ITEM.trends:
        short, long = window_name(trend.short), window_name(trend.long)
        falls = _Falling(f"item_{trend.action}_{long}", trend.short / trend.long, trend.weight)
        stop = _AtMost(1.0) if trend.long in _RECENT else falls
        found[f"item_{trend.action}_trend_{short}_{long}"] = stop
    ages = (action for action in _ITEM.recency if action in ("click", "order"))
    return {**found, **{f"item_hours_since_{action}": _aged for action in ages}}


_SALES: Final = _sales()
SALES_COLUMNS: Final = tuple(_SALES)
"""What an item's clicks and orders of the last day say."""


def _random() -> np.random.Generator:
    return np.random.default_rng(_SEED)


def _all(rows: pa.Table, changed: Mapping[str, pa.Array | pa.ChunkedArray]) -> Changed:
    return _some(rows, changed, np.ones(rows.num_rows, np.bool_))


def _some(
    rows: pa.Table, changed: Mapping[str, pa.Array | pa.ChunkedArray], marked: Bools
) -> Changed:
    """``changed`` columns in the rows that are ``marked``, all else as it was."""
    kept = np.arange(rows.num_rows)
    for name, column in changed.items():
        field = rows.schema.field(name)
        if not marked.all():
            pool = pa.chunked_array([*_chunks(rows[name]), *_chunks(column)], field.type)
            column = pool.take(pa.array(kept + marked * rows.num_rows))
        rows = rows.set_column(rows.column_names.index(name), field, column)
    return Changed(rows, kept, marked)


def _chunks(column: pa.Array | pa.ChunkedArray) -> list[pa.Array]:
    return column.chunks if isinstance(column, pa.ChunkedArray) else [column]


def _never_seen(column: pa.ChunkedArray, name: str) -> pa.Array:
    """What a column says of a key that was never seen, (rows,)."""
    count = len(column)
    if name in _NEVER:
        defaults = pa.array(np.full(count, _NEVER[name], np.float32), from_pandas=True)
        return defaults.cast(column.type)
    if name in _LISTS:
        return pa.array([[]] * count, column.type)
    if name in ("user_id", *_TARGETS):
        return pa.array([_STRANGER] * count, column.type)
    return pa.nulls(count, column.type)


def _numbers(rows: pa.Table, name: str) -> Floats:
    """A column as doubles, NaN for null, (rows,)."""
    values: Floats = rows[name].cast(pa.float64()).to_numpy()
    return values


def _typed(values: Floats, rows: pa.Table, name: str) -> pa.Array:
    kind = rows.schema.field(name).type
    return pa.array(values, from_pandas=True).cast(kind, safe=False)


def _one_of_each(rows: pa.Table) -> Ints:
    """A row of each group of two or more: the g-th has its (g modulo size)-th."""
    by = grouped(rows["group_id"])
    several = np.flatnonzero(by.sizes > 1)
    place = by.starts[:-1][several] + several % by.sizes[several]
    return by.order[place] if len(by.order) else place


def _one_host_of_each(rows: pa.Table) -> Bools:
    """The rows of one host in every group that has another one, or rows without any; (rows,)."""
    key = next((name for name in ("host_id", "room_id") if name in rows.column_names), None)
    if key is None:
        return np.zeros(rows.num_rows, np.bool_)
    groups, pairs = group_codes(rows["group_id"]), group_codes(rows["group_id"], rows[key])
    chosen = _one_of_each(rows)
    chosen = chosen[rows[key].is_valid().to_numpy()[chosen]]
    alone = np.bincount(pairs)[pairs[chosen]] == np.bincount(groups)[groups[chosen]]
    return np.isin(pairs, pairs[chosen[~alone]])
