"""Rows to edges, on Arrow tables with NumPy.

Events are counted per edge, hour of arrival and action first, in exact integers, and weighed once
all counts of an edge have met, in a fixed order: any split of the rows gives the same weights, bit
for bit. ``kind`` is a type's place in ``EDGE_TYPES``.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.graph import EDGE_TYPES, EdgeType, GraphRules
from feature_store.schemas import ACTIONS, EDGES, EVENTS, TIMESTAMP
from feature_store.windows import epoch_hour, hour_numbers, key_codes

__all__ = [
    "COUNTED",
    "EVENT_COLUMNS",
    "FACTS",
    "STATED",
    "WEIGHTED",
    "counted",
    "declared",
    "fact_columns",
    "stated",
    "weighted",
]

EVENT_COLUMNS: Final = tuple(
    name
    for name in EVENTS.names
    if name in {"user_id", "action", "event_time", "hour"}
    or any(edge.actions and name in edge.columns for edge in EDGE_TYPES)
)
"""What is read of events."""

COUNTED: Final = pa.schema(
    [
        ("kind", pa.int32()),
        ("source_id", pa.string()),
        ("target_id", pa.string()),
        ("age", pa.int32()),  # hours that the hour of arrival lies before the day's last
        ("action", pa.int32()),  # its place in ACTIONS
        ("n", pa.int64()),
        ("last_at", TIMESTAMP),
    ]
)

WEIGHTED: Final = pa.schema(
    [
        ("kind", pa.int32()),
        ("source_id", pa.string()),
        ("target_id", pa.string()),
        ("weight", pa.float64()),
        ("events", pa.int64()),
        ("last_at", TIMESTAMP),
    ]
)

FACTS: Final = tuple((kind, fact) for kind, edge in enumerate(EDGE_TYPES) for fact in edge.facts)
"""Every fact, and the kind of edge that it states."""

STATED: Final = pa.schema(
    [
        ("fact", pa.int32()),  # its place in FACTS
        ("source_id", pa.string()),
        ("target_id", pa.string()),
        ("known", pa.string()),  # the hour of arrival
        ("last_at", TIMESTAMP),
    ]
)

_EDGE: Final = ("kind", "source_id", "target_id")
_HOURS_A_DAY: Final = 24.0


def counted(events: pa.Table, last: str, rules: GraphRules) -> pa.Table:
    """Events per edge, hour of arrival and action: rows of ``COUNTED``.

    Args:
        events: ``EVENT_COLUMNS``, of hours up to ``last``.
        last: the day's last hour.
    """
    events = events.filter(pc.is_in(events["action"], pa.array(list(rules.weights()))))
    age = epoch_hour(last) - hour_numbers(events["hour"])
    place = pc.index_in(events["action"], value_set=pa.array(ACTIONS))
    rows = events.append_column("age", pa.array(age.astype(np.int32)))
    rows = rows.append_column("place", pc.cast(place, pa.int32()))
    pieces = [_counted_of(rows, kind, edge) for kind, edge in enumerate(EDGE_TYPES) if edge.actions]
    return pa.concat_tables(pieces)


def _counted_of(rows: pa.Table, kind: int, edge: EdgeType) -> pa.Table:
    source, target = edge.columns
    named = pc.and_(_named(rows[source]), _named(rows[target]))
    counts = pc.and_(pc.is_in(rows["action"], pa.array(edge.actions)), named)
    by = [source, target, "age", "place"]
    mine = rows.select([*by, "event_time"]).filter(counts)
    summed = mine.group_by(by, use_threads=False).aggregate([([], "count_all"),
                                                             ("event_time", "max")])  # fmt: skip
    return pa.table(
        [
            pa.array(np.full(summed.num_rows, kind, np.int32)),
            *(summed[column] for column in (*by, "count_all", "event_time_max")),
        ],
        names=COUNTED.names,
    ).cast(COUNTED)


def _named(ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whether an end is named; an empty query, say, is none."""
    return pc.fill_null(pc.not_equal(ids, ""), False)


def weighted(counts: pa.Table, rules: GraphRules) -> pa.Table:
    """Edges from all their counts: rows of ``WEIGHTED``, one per edge.

    An event weighs ``weight of its action * 0.5 ** (age / half life)``; one that arrived in the
    day's last hour has the age 0.

    Args:
        counts: rows of ``COUNTED``, in any split, with all those of an edge.
    """
    if not counts.num_rows:
        return WEIGHTED.empty_table()
    by = [*_EDGE, "age", "action"]
    rows = counts.group_by(by, use_threads=False).aggregate([("n", "sum"), ("last_at", "max")])
    codes = key_codes(rows, _EDGE)
    order = np.lexsort((rows["action"].to_numpy(), rows["age"].to_numpy(), codes))
    rows, codes = rows.take(pa.array(order)), codes[order]
    by_place = np.array([rules.weights().get(action, 0.0) for action in ACTIONS])
    decay = 0.5 ** (rows["age"].to_numpy() / _HOURS_A_DAY / rules.half_life_days)
    n = rows["n_sum"].to_numpy()
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    last_at = np.maximum.reduceat(pc.cast(rows["last_at_max"], pa.int64()).to_numpy(), starts)
    weight = np.bincount(codes, weights=by_place[rows["action"].to_numpy()] * decay * n)
    ends = rows.select(_EDGE).take(pa.array(starts))
    return pa.table(
        [
            *ends.columns,
            pa.array(weight),
            pa.array(np.add.reduceat(n, starts)),
            pa.array(last_at).cast(TIMESTAMP),
        ],
        schema=WEIGHTED,
    )


def fact_columns(number: int) -> tuple[str, ...]:
    """What is read of the table of fact ``number``."""
    kind, fact = FACTS[number]
    standing = () if fact.standing is None else (fact.standing,)
    return (*EDGE_TYPES[kind].columns, "valid_from", "hour", *standing)


def stated(rows: pa.Table, number: int, first: str) -> pa.Table:
    """What rows of an entity table state: rows of ``STATED``, with targets that may be null.

    Args:
        rows: ``fact_columns`` of fact ``number``.
        first: the window's first hour.
    """
    kind, fact = FACTS[number]
    source, target = EDGE_TYPES[kind].columns
    if fact.standing is not None:
        inside = pc.greater_equal(rows["hour"], first)
        rows = rows.filter(pc.or_(inside, pc.fill_null(rows[fact.standing], False)))
    rows = rows.filter(_named(rows[source]))
    ends = [rows[source], pc.if_else(_named(rows[target]), rows[target], None)]
    facts = pa.array(np.full(rows.num_rows, number, np.int32))
    return pa.table(
        [facts, *ends, rows["hour"], rows["valid_from"]], names=STATED.names
    ).cast(STATED)  # fmt: skip


def declared(edges: pa.Table) -> pa.Table:
    """``edges`` in the columns of table ``edges``; rows of ``WEIGHTED`` and ``hour``, in order."""
    kinds = edges["kind"]
    for end in ("source", "target"):
        names = pa.array([getattr(edge, end) for edge in EDGE_TYPES])
        edges = edges.append_column(f"{end}_type", names.take(kinds.combine_chunks()))
    return edges.select(EDGES.names)
