"""What real logs contain and should not: every kind by its own share, on separate rows."""

from __future__ import annotations

import itertools
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.schemas import TIMESTAMP
from feature_store.sources.simulator.config import MarketConfig
from feature_store.sources.simulator.population import Floats, random_stream

__all__ = ["UNKNOWN_ACTION", "soil"]

UNKNOWN_ACTION: Final = "teleport"
# Too late and from the future by any reading of the allowed two hours.
_TOO_LATE_SECONDS = (3.1 * 3600, 5 * 3600)
_FUTURE_SECONDS = (2.1 * 3600, 48 * 3600)
_REPEAT_SECONDS = (0.001, 1200)


def soil(events: pa.Table, config: MarketConfig, hour: int) -> pa.Table:
    """``events`` of one hour of requests with the configured dirt; duplicates at the end."""
    count = events.num_rows
    rng = random_stream(config.seed, "dirt", hour)
    lot = rng.random(count)
    shares = [
        config.malformed_share,
        config.too_late_share,
        config.future_share,
        config.duplicate_share,
    ]
    upper = np.cumsum([0.0, *shares])
    malformed, too_late, future, repeated = (
        (lot >= low) & (lot < high) for low, high in itertools.pairwise(upper)
    )
    ill = _malformed(events, malformed, rng.integers(0, 4, count))
    event_time, arrival = _micros(events["event_time"]), _micros(events["ingested_at"])
    late = event_time + _micros_in(rng, _TOO_LATE_SECONDS, count)
    ahead = arrival + _micros_in(rng, _FUTURE_SECONDS, count)
    ill = _with(ill, "ingested_at", pa.array(np.where(too_late, late, arrival)).cast(TIMESTAMP))
    ahead_time = pc.if_else(pa.array(future), pa.array(ahead).cast(TIMESTAMP), ill["event_time"])
    ill = _with(ill, "event_time", ahead_time)
    on_time = arrival - event_time < 120_000_000
    again = np.flatnonzero(repeated & on_time)
    copies = events.take(pa.array(again))
    copied = arrival[again] + _micros_in(rng, _REPEAT_SECONDS, len(again))
    return pa.concat_tables([ill, _with(copies, "ingested_at", pa.array(copied).cast(TIMESTAMP))])


def _malformed(
    events: pa.Table, which: npt.NDArray[np.bool_], kind: npt.NDArray[np.int64]
) -> pa.Table:
    """Rows ``which`` spoiled in one of four ways: unknown action, no user, no target, no time."""
    for code, name in enumerate(("action", "user_id", "target_id", "event_time")):
        wrong = UNKNOWN_ACTION if name == "action" else None
        chosen = pa.array(which & (kind == code))
        events = _with(
            events, name, pc.if_else(chosen, pa.scalar(wrong, events[name].type), events[name])
        )
    return events


def _with(events: pa.Table, name: str, column: pa.Array) -> pa.Table:
    place = events.schema.get_field_index(name)
    return events.set_column(place, events.schema.field(place), column)


def _micros(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    return np.asarray(column.cast(pa.int64()).to_numpy(), np.int64)


def _micros_in(
    rng: np.random.Generator, seconds: tuple[float, float], count: int
) -> npt.NDArray[np.int64]:
    drawn: Floats = rng.uniform(*seconds, count) * 1e6
    return np.round(drawn).astype(np.int64)
