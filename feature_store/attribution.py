"""Outcomes: which impression an action belongs to.

By ``impression_id``; else the same request and target; else the user's last impression of the
target inside the action's window (last touch).
"""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F  # noqa: N812

__all__ = ["attribute", "lookback_hours"]

_COLUMNS = ("event_id", "sample_id", "action", "event_time", "ingested_at", "value", "attribution")


def lookback_hours(windows: Mapping[str, int], lateness: int) -> int:
    """How many hours of impressions before H an outcome of H may belong to."""
    return -(-max(windows.values(), default=0) // 3600) + lateness + 1


def attribute(
    outcomes: DataFrame, shown: DataFrame, windows: Mapping[str, int], lookback: int
) -> DataFrame:
    """Outcome events with the impression that each belongs to; the unattributed are left out.

    Grain: one row per attributed outcome event.

    Args:
        outcomes: events of declared actions.
        shown: impression events of the same hours and the lookback before them.
        windows: seconds from an impression to each action, for last touch.
        lookback: only impressions that arrived in an outcome's hour or so many hours before count,
            so that an hour finds the same ones alone as in a range.
    """
    direct = outcomes.where("impression_id IS NOT NULL").select(
        "*", F.col("impression_id").alias("sample_id"), F.lit("impression_id").alias("attribution")
    )
    rest = outcomes.where("impression_id IS NULL")
    candidates = shown.select(
        F.coalesce("impression_id", "event_id").alias("sample_id"),
        F.col("request_id").alias("_request"),
        F.col("user_id").alias("_user"),
        F.col("target_type").alias("_type"),
        F.col("target_id").alias("_target"),
        F.col("event_time").alias("_shown_at"),
        _hours("hour").alias("_shown_hour"),
    )
    known = (_hours("hour") - F.col("_shown_hour")).between(0, lookback)
    target = (F.col("target_type") == F.col("_type")) & (F.col("target_id") == F.col("_target"))
    target = target & known
    by_request = _latest(
        rest.join(candidates, (F.col("request_id") == F.col("_request")) & target), "request"
    )
    unmatched = rest.join(by_request.select("event_id"), "event_id", "left_anti")
    window = F.lit(0).cast("bigint")
    for action, seconds in windows.items():
        window = F.when(F.col("action") == action, F.lit(seconds)).otherwise(window)
    age = F.unix_micros("event_time") - F.unix_micros("_shown_at")
    recent = (age >= 0) & (age <= window.cast("bigint") * 1_000_000)
    by_touch = _latest(
        unmatched.join(candidates, (F.col("user_id") == F.col("_user")) & target & recent),
        "last_touch",
    )
    pieces = [piece.select(*_COLUMNS, "hour") for piece in (direct, by_request, by_touch)]
    return pieces[0].unionByName(pieces[1]).unionByName(pieces[2])


def _hours(column: str) -> Column:
    """Hours since 1970 of an hour's name."""
    return F.unix_seconds(F.to_timestamp(column, "yyyy-MM-dd'T'HH")) / 3600


def _latest(matched: DataFrame, attribution: str) -> DataFrame:
    """Of several impressions of one outcome the latest; ties by sample_id."""
    order = Window.partitionBy("event_id").orderBy(
        F.col("_shown_at").desc(), F.col("sample_id").desc()
    )
    return (
        matched.withColumn("_rank", F.row_number().over(order))
        .where("_rank = 1")
        .withColumn("attribution", F.lit(attribution))
    )
