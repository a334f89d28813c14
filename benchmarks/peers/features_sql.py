"""One hour's features from raw events in plain SQL, for DuckDB and for Spark.

Standard library only: it also runs in the peers' environment. ``views`` are plain mappings with
the fields of a feature view.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# `{seconds}`: a timestamp's seconds since the epoch.
JOINED = """
SELECT e.user_id, e.item_id, e.room_id, e.scene, e.query, e.action, e.value, e.event_time,
  CAST({seconds} AS BIGINT) AS arrived,
  coalesce(i.category, r.category) AS category, r.host_id AS host_id, i.shop AS shop_id
FROM events e LEFT JOIN items i ON e.item_id = i.item_id LEFT JOIN rooms r ON e.room_id = r.room_id
"""


def features(view: Mapping[str, Any], as_of: int, table: str) -> str:
    """Rows of every key whose counts changed at ``as_of`` (seconds), in the view's columns."""
    begin = {minutes: as_of - minutes * 60 for minutes in view["windows"]}
    oldest = min(begin.values())
    sums = [
        f"CAST(sum(CASE WHEN action = '{_action(measure)}' AND arrived >= {since} "
        f"THEN {_amount(measure, view)} ELSE 0 END) AS BIGINT) AS {measure}_{name}"
        for (minutes, since), name in zip(begin.items(), view["window_names"], strict=True)
        for measure in view["measures"]
    ]
    last = [
        f"max(CASE WHEN action = '{action}' AND {view['event_seconds']} >= {oldest} "
        f"THEN event_time END) AS last_{action}_at"
        for action in view["recency"]
    ]
    keys = ", ".join(view["keys"])
    present = " AND ".join(f"{key} IS NOT NULL" for key in view["keys"])
    entered = f"arrived >= {as_of - 3600}"
    left = [f"(arrived >= {since - 3600} AND arrived < {since})" for since in begin.values()]
    actions = ", ".join(f"'{action}'" for action in view["actions"])
    due = f"max(CASE WHEN {' OR '.join([entered, *left])} THEN 1 ELSE 0 END) = 1"
    chosen = f"arrived >= {oldest - 3600} AND arrived < {as_of} AND {present}"
    parts = (
        f"SELECT {keys}, {', '.join([*sums, *last])} FROM {table}",  # noqa: S608
        f"WHERE {chosen} AND action IN ({actions}) GROUP BY {keys} HAVING {due}",
    )
    return " ".join(parts)


def _action(measure: str) -> str:
    return measure.removesuffix("_total")


def _amount(measure: str, view: Mapping[str, Any]) -> str:
    factors: Mapping[str, int] = view["factors"]
    if measure == _action(measure):
        return "1"
    return f"CAST(round(coalesce(value, 0) * {factors[_action(measure)]}) AS BIGINT)"


def with_seconds(views: Sequence[Mapping[str, Any]], seconds: str) -> list[dict[str, Any]]:
    """The views with the engine's words for the seconds of ``event_time``."""
    return [{**view, "event_seconds": seconds} for view in views]
