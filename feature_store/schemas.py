"""Every table of the store: its columns, its partition and its grain. Declared once, never
inferred.

Times are microseconds in UTC, identifiers are strings, money and durations inside counts are exact
integers (cents, milliseconds).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pyarrow as pa

from feature_store.sequence_views import ELEMENTS, SEQUENCE_VIEWS, SequenceView
from feature_store.table_spec import NOBODY, OF_USER, USER_COLUMN, TableSpec, UserRows
from feature_store.views import VIEWS, FeatureView, dense_columns, sparse_columns

__all__ = [
    "ACTIONS",
    "BEHAVIOUR",
    "EDGES",
    "ENTITY_TABLES",
    "EVALUATIONS",
    "EVALUATION_GROUPS",
    "EVENTS",
    "GATE_RESULTS",
    "ITEMS",
    "NODE_EMBEDDINGS",
    "OUTCOMES",
    "OUTCOME_ACTIONS",
    "PROMOTIONS",
    "QUARANTINE",
    "ROOMS",
    "ROOM_ITEMS",
    "SAMPLES",
    "SAMPLE_KEYS",
    "SOURCE_EVENTS",
    "TABLES",
    "TARGET_TYPES",
    "TIMESTAMP",
    "USERS",
    "TableSpec",
    "optional",
    "with_hour",
]

TIMESTAMP: Final = pa.timestamp("us", tz="UTC")

OUTCOME_ACTIONS: Final = (
    "click", "long_view", "stay", "cart", "favor", "order", "cancel",
    "follow", "comment", "like", "share", "hate",
)  # fmt: skip
ACTIONS: Final = ("impression", *OUTCOME_ACTIONS)
TARGET_TYPES: Final = ("item", "room")


def _field(name: str, kind: pa.DataType, required: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=not required)


def optional(schema: pa.Schema) -> pa.Schema:
    """``schema`` with every column nullable, as files and frames hold it."""
    return pa.schema([column.with_nullable(True) for column in schema])


def with_hour(schema: pa.Schema) -> pa.Schema:
    """``schema`` plus the identity partition column ``hour``: the run that learned of the row."""
    return schema.append(_field("hour", pa.string(), required=True))


# What a source adapter yields: one row per event, as it arrived. `ingested_at` may be null for a
# historical file, which is then taken as having arrived when it happened.
SOURCE_EVENTS: Final = pa.schema(
    [
        _field("event_id", pa.string(), required=True),
        _field("event_time", TIMESTAMP, required=True),
        _field("ingested_at", TIMESTAMP),
        _field("request_id", pa.string()),
        _field("impression_id", pa.string()),
        _field("user_id", pa.string(), required=True),
        _field("target_type", pa.string(), required=True),  # item | room
        _field("target_id", pa.string(), required=True),
        _field("item_id", pa.string()),
        _field("room_id", pa.string()),  # live room, or the item's host
        _field("scene", pa.string()),
        _field("position", pa.int32()),  # 1-based
        _field("action", pa.string(), required=True),
        _field("value", pa.float64()),  # seconds of stay, or amount of an order
        _field("query", pa.string()),
        _field("propensity", pa.float64()),
    ]
)

EVENTS: Final = with_hour(
    SOURCE_EVENTS.set(
        SOURCE_EVENTS.get_field_index("ingested_at"),
        _field("ingested_at", TIMESTAMP, required=True),
    )
)

# One row per rejected source row: its columns as text (whatever they held), and why.
QUARANTINE: Final = with_hour(
    pa.schema(
        [
            _field("event_id", pa.string()),
            _field("reason", pa.string(), required=True),
            _field("row_json", pa.string(), required=True),
        ]
    )
)

_ATTRIBUTES: Final = [
    _field("numeric", pa.map_(pa.string(), pa.float64())),
    _field("categorical", pa.map_(pa.string(), pa.string())),
]


def _entity(key: str, *columns: pa.Field) -> pa.Schema:
    """One row per entity and `valid_from`; free attributes by name in two maps."""
    return with_hour(
        pa.schema(
            [
                _field(key, pa.string(), required=True),
                _field("valid_from", TIMESTAMP, required=True),
                *columns,
                *_ATTRIBUTES,
            ]
        )
    )


USERS: Final = _entity("user_id")
ITEMS: Final = _entity("item_id", _field("category", pa.string()), _field("room_id", pa.string()))
ROOMS: Final = _entity("room_id", _field("host_id", pa.string()), _field("category", pa.string()))

# What a room explained and when; `valid_to` is null while it is still being explained. Core items
# are the room's standing offer.
ROOM_ITEMS: Final = with_hour(
    pa.schema(
        [
            _field("room_id", pa.string(), required=True),
            _field("item_id", pa.string(), required=True),
            _field("valid_from", TIMESTAMP, required=True),
            _field("valid_to", TIMESTAMP),
            _field("core", pa.bool_(), required=True),
        ]
    )
)

ENTITY_TABLES: Final = {"users": USERS, "items": ITEMS, "rooms": ROOMS, "room_items": ROOM_ITEMS}

# One row per gate and hour: what was measured, what was expected, and the verdict.
GATE_RESULTS: Final = with_hour(
    pa.schema(
        [
            _field("gate", pa.string(), required=True),
            _field("value", pa.float64()),
            _field("expected", pa.float64()),
            _field("level", pa.string(), required=True),  # pass | warn | fail | accepted
            _field("message", pa.string(), required=True),
            _field("detail_json", pa.string()),  # what was counted; later hours are judged by it
        ]
    )
)

# What identifies a sample, besides its features.
SAMPLE_KEYS: Final = (
    _field("sample_id", pa.string(), required=True),  # impression_id, else the event_id
    _field("group_id", pa.string(), required=True),  # the ranking group, unique over all hours
    _field("as_of", TIMESTAMP, required=True),
    _field("event_time", TIMESTAMP, required=True),
    _field("ingested_at", TIMESTAMP, required=True),
    _field("request_id", pa.string()),
    _field("user_id", pa.string(), required=True),
    _field("target_id", pa.string(), required=True),
    _field("item_id", pa.string()),
    _field("room_id", pa.string()),
    _field("position", pa.int32()),
    _field("propensity", pa.float64()),
)

# One row per impression, written once and without outcomes.
SAMPLES: Final = with_hour(
    pa.schema(
        [
            *SAMPLE_KEYS,
            *(_field(name, pa.string()) for name, _ in sparse_columns()),
            *(_field(name, pa.float32()) for name in dense_columns()),
        ]
    )
)

# One row per outcome that could be attributed to an impression.
OUTCOMES: Final = with_hour(
    pa.schema(
        [
            _field("event_id", pa.string(), required=True),
            _field("sample_id", pa.string(), required=True),
            _field("action", pa.string(), required=True),
            _field("event_time", TIMESTAMP, required=True),
            _field("ingested_at", TIMESTAMP, required=True),
            _field("value", pa.float64()),
            _field("attribution", pa.string(), required=True),  # impression_id|request|last_touch
        ]
    )
)

# One row per action that sequences are made of, and per stay. Compact, since every hour reads those
# of days.
BEHAVIOUR: Final = with_hour(
    pa.schema(
        [
            _field("user_id", pa.string(), required=True),
            _field("event_time", TIMESTAMP, required=True),
            _field("event_id", pa.string(), required=True),
            _field("ingested_at", TIMESTAMP, required=True),
            _field("action", pa.string(), required=True),
            _field("item_id", pa.string()),
            _field("room_id", pa.string()),
            _field("category", pa.string()),
            _field("value", pa.float64()),  # seconds of stay, or amount of an order
            _field("sample_id", pa.string()),  # the impression that it is attributed to, if any
        ]
    )
)

# One row per edge of a business day's graph, `hour` the day's last. An edge has no direction and is
# stored once, under the ends of its type as feature_store/graph.py declares them.
EDGES: Final = with_hour(
    pa.schema(
        [
            _field("source_type", pa.string(), required=True),
            _field("source_id", pa.string(), required=True),
            _field("target_type", pa.string(), required=True),
            _field("target_id", pa.string(), required=True),
            _field("weight", pa.float64(), required=True),  # above 0
            _field("events", pa.int64(), required=True),  # or rows that state the edge
            _field("last_at", TIMESTAMP, required=True),  # newest event_time or valid_from
        ]
    )
)

# One row per node of a business day's graph, `hour` the day's last. Only vectors of one
# `embedding_version` lie in one space.
NODE_EMBEDDINGS: Final = with_hour(
    pa.schema(
        [
            _field("node_type", pa.string(), required=True),
            _field("node_id", pa.string(), required=True),
            _field("embedding_version", pa.string(), required=True),  # the day that began the space
            _field("last_seen", pa.string(), required=True),  # the last day whose graph had it
            _field("visits", pa.int64(), required=True),  # of a pass of walks on that day
            _field("vector", pa.list_(pa.float32()), required=True),
        ]
    )
)

# `hour` is the run that judged; `judged_hour` the hour whose samples were scored.
_SCORED: Final = [
    _field("evaluation", pa.string(), required=True),  # hourly | offline | daily
    _field("judged_hour", pa.string(), required=True),
    _field("name", pa.string(), required=True),
    _field("version", pa.string(), required=True),
    _field("role", pa.string(), required=True),
    _field("label", pa.string(), required=True),
]

EVALUATIONS: Final = with_hour(
    pa.schema(
        [
            *_SCORED,
            _field("metric", pa.string(), required=True),
            _field("segment", pa.string(), required=True),
            _field("value", pa.float64()),
            _field("low", pa.float64()),
            _field("high", pa.float64()),
            _field("groups", pa.int64(), required=True),
            _field("immature", pa.int64(), required=True),
            _field("data_hour", pa.string()),
            _field("cut", pa.string(), required=True),
        ]
    )
)

EVALUATION_GROUPS: Final = with_hour(
    pa.schema(
        [
            *_SCORED,
            _field("group_id", pa.string(), required=True),
            _field("ndcg_at_10", pa.float64(), required=True),
        ]
    )
)

# Append-only: an intent before the alias moves, done after it.
PROMOTIONS: Final = with_hour(  # `hour` is the decision hour
    pa.schema(
        [
            _field("decision_id", pa.string(), required=True),
            _field("stage", pa.string(), required=True),  # intent | done
            _field("decided_at", TIMESTAMP, required=True),
            _field("name", pa.string(), required=True),
            _field("action", pa.string(), required=True),  # promote | keep | rollback
            _field("version", pa.string(), required=True),  # the candidate judged
            _field("champion", pa.string()),  # the champion after the decision
            _field("previous", pa.string()),  # the champion before it
            _field("reason", pa.string(), required=True),
            _field("evidence_json", pa.string(), required=True),
        ]
    )
)


def _counts(view: FeatureView) -> pa.Schema:
    """One row per key, half-hour of arrival and action: exact integer sums.

    Of a day: one row per key and action, `tile` its first half-hour and `hour` its last hour; valid
    only while its content hash is the one of the day's hours.
    """
    return with_hour(
        pa.schema(
            [
                *(_field(key, pa.string(), required=True) for key in view.keys),
                _field("key_hash", pa.int64(), required=True),
                _field("tile", TIMESTAMP, required=True),
                _field("action", pa.string(), required=True),
                _field("n", pa.int64(), required=True),
                _field("total", pa.int64(), required=True),
                _field("last_at", TIMESTAMP, required=True),
            ]
        )
    )


def _features(view: FeatureView) -> pa.Schema:
    """One row per key whose counts changed or left a window, and `as_of` (`hour` plus one)."""
    return with_hour(
        pa.schema(
            [
                *(_field(key, pa.string(), required=True) for key in view.keys),
                _field("as_of", TIMESTAMP, required=True),
                *(_field(column, pa.int64(), required=True) for column in view.count_columns()),
                *(_field(column, TIMESTAMP) for column in view.recency_columns()),
            ]
        )
    )


def _sequences(view: SequenceView) -> pa.Schema:
    """One row per key and `as_of` of the hour's samples that has elements, newest last."""
    return with_hour(
        pa.schema(
            [
                _field(view.key, pa.string(), required=True),
                _field("as_of", TIMESTAMP, required=True),
                *(_field(name, pa.list_(ELEMENTS[name]), required=True) for name in view.elements),
            ]
        )
    )


def _users(keys: Sequence[str]) -> UserRows:
    """Whose the rows of a table with such ``keys`` are."""
    return OF_USER if USER_COLUMN in keys else NOBODY


TABLES: Final[dict[str, TableSpec]] = {
    "events": TableSpec(EVENTS, users=OF_USER),
    "quarantine": TableSpec(QUARANTINE, users=UserRows(json=("row_json",))),
    **{name: TableSpec(s, users=_users(s.names)) for name, s in ENTITY_TABLES.items()},
    "gate_results": TableSpec(GATE_RESULTS),
    "samples": TableSpec(SAMPLES, users=OF_USER),
    "outcomes": TableSpec(OUTCOMES, users=UserRows(traced=("event_id", "sample_id"))),
    "behaviour": TableSpec(BEHAVIOUR, users=OF_USER),
    **{v.table: TableSpec(_sequences(v), users=_users([v.key])) for v in SEQUENCE_VIEWS},
    **{v.counts_table: TableSpec(_counts(v), users=_users(v.keys)) for v in VIEWS},
    **{v.day_counts_table: TableSpec(_counts(v), users=_users(v.keys)) for v in VIEWS},
    **{v.features_table: TableSpec(_features(v), users=_users(v.keys)) for v in VIEWS},
    "edges": TableSpec(EDGES, users=UserRows(nodes=tuple(
        (f"{end}_type", f"{end}_id") for end in ("source", "target")
    ))),
    "node_embeddings": TableSpec(
        NODE_EMBEDDINGS, users=UserRows(nodes=(("node_type", "node_id"),))
    ),
    "evaluations": TableSpec(EVALUATIONS, ("hour", "evaluation")),
    "evaluation_groups": TableSpec(
        EVALUATION_GROUPS, ("hour", "evaluation"), UserRows(traced=("group_id",))
    ),
    "promotions": TableSpec(PROMOTIONS, ()),
}  # fmt: skip
