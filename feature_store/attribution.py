"""Outcomes: which impression an action belongs to.

By ``impression_id``; else the same request and target; else the user's last impression of the
target inside the action's window (last touch). A request is one user's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.schemas import OUTCOMES, optional
from feature_store.windows import Ints, hour_numbers, key_codes

__all__ = ["COLUMNS", "attribute", "lookback_hours"]

COLUMNS: Final = (
    "event_id", "event_time", "ingested_at", "request_id", "impression_id", "user_id",
    "target_type", "target_id", "action", "value", "hour",
)  # fmt: skip
"""What is read of outcomes and of impressions."""

_TOUCH: Final = ("user_id", "target_type", "target_id")
_REQUEST: Final = ("request_id", *_TOUCH)
_SECOND: Final = 1_000_000
_PAIRS: Final = 4_000_000
"""How many pairs of an outcome and an impression are looked at at once: bounds memory."""


def lookback_hours(windows: Mapping[str, int], lateness: int) -> int:
    """How many hours of impressions before H an outcome of H may belong to."""
    return -(-max(windows.values(), default=0) // 3600) + lateness + 1


def attribute(
    outcomes: pa.Table, shown: pa.Table, windows: Mapping[str, int], lookback: int
) -> pa.Table:
    """Outcome events with the impression that each belongs to; the unattributed are left out.

    Grain: one row per attributed outcome event, in the columns of table ``outcomes``.

    Args:
        outcomes: ``COLUMNS`` of events of declared actions.
        shown: ``COLUMNS`` of the impressions of the same users, of the same hours and the lookback
            before them.
        windows: seconds from an impression to each action, for last touch.
        lookback: only impressions that arrived in an outcome's hour or so many hours before count,
            so that an hour finds the same ones alone as in a range.
    """
    given = outcomes["impression_id"].is_valid().to_numpy()
    requested = ~given & outcomes["request_id"].is_valid().to_numpy()
    sides = _Sides.of(outcomes, shown, windows, lookback)
    found = np.full(outcomes.num_rows, -1, np.int64)
    found[requested] = sides.latest(np.flatnonzero(requested), _REQUEST, None)
    unmatched = ~given & (found < 0)
    found[unmatched] = sides.latest(np.flatnonzero(unmatched), _TOUCH, sides.window)
    sample = pc.if_else(
        pa.array(given),
        outcomes["impression_id"],
        sides.names.take(pa.array(found, mask=found < 0)),
    )
    how = pa.array(["impression_id", "request", "last_touch"]).take(
        pa.array(np.where(given, 0, np.where(unmatched, 2, 1)))
    )
    filled = outcomes.append_column("sample_id", sample).append_column("attribution", how)
    schema = optional(OUTCOMES)
    return filled.select(schema.names).filter(pa.array(given | (found >= 0))).cast(schema)


class _Sides(NamedTuple):
    """Outcomes and impressions as numbers; n outcomes, m impressions."""

    outcomes: pa.Table
    shown: pa.Table
    hour: Ints  # (n,) of arrival, epoch hours
    at: Ints  # (n,) event time, microseconds
    window: Ints  # (n,) microseconds from an impression to the outcome
    shown_hour: Ints  # (m,)
    shown_at: Ints  # (m,)
    names: pa.Array  # (m,) sample_id
    rank: Ints  # (m,) of the sample_id, to break ties
    lookback: int

    @classmethod
    def of(
        cls, outcomes: pa.Table, shown: pa.Table, windows: Mapping[str, int], lookback: int
    ) -> _Sides:
        seconds = pa.array(list(windows.values()), pa.int64())
        place = pc.index_in(outcomes["action"], value_set=pa.array(list(windows), pa.string()))
        names = pc.coalesce(shown["impression_id"], shown["event_id"]).combine_chunks()
        return cls(
            outcomes, shown,
            hour_numbers(outcomes["hour"]),
            pc.cast(outcomes["event_time"], pa.int64()).to_numpy(),
            pc.fill_null(seconds.take(place.combine_chunks()), 0).to_numpy() * _SECOND,
            hour_numbers(shown["hour"]),
            pc.cast(shown["event_time"], pa.int64()).to_numpy(),
            names,
            pc.rank(names, tiebreaker="dense").to_numpy().astype(np.int64),
            lookback,
        )  # fmt: skip

    def latest(self, rows: Ints, keys: tuple[str, ...], window: Ints | None) -> Ints:
        """For each outcome of ``rows`` the latest impression with equal ``keys``; -1 for none.

        Args:
            window: (n,); the impression may be so much older, and not younger, than the outcome.
                None for no such condition.
        """
        result = np.full(len(rows), -1, np.int64)
        candidates = np.flatnonzero(
            np.logical_and.reduce([self.shown[key].is_valid().to_numpy() for key in keys])
        )
        both = pa.concat_tables(
            [self.outcomes.select(keys).take(pa.array(rows)),
             self.shown.select(keys).take(pa.array(candidates))]
        )  # fmt: skip
        codes = key_codes(both, keys)
        mine, theirs = codes[: len(rows)], codes[len(rows) :]
        order = np.lexsort((self.rank[candidates], self.shown_at[candidates], theirs))
        candidates, theirs = candidates[order], theirs[order]
        first = np.searchsorted(theirs, mine, side="left")
        count = np.searchsorted(theirs, mine, side="right") - first
        for chunk in _chunks(count):
            pair = np.repeat(chunk, count[chunk])
            within = np.arange(len(pair)) - np.repeat(
                np.cumsum(count[chunk]) - count[chunk], count[chunk]
            )
            place = first[pair] + within
            fits = self._fit(rows[pair], candidates[place], window)
            # Candidates are in time order: the last that fits is the latest.
            np.maximum.at(result, pair[fits], place[fits])
        return np.where(result >= 0, candidates[result], -1) if len(candidates) else result

    def _fit(self, outcome: Ints, impression: Ints, window: Ints | None) -> Ints:
        back = self.hour[outcome] - self.shown_hour[impression]
        fits = (back >= 0) & (back <= self.lookback)
        if window is not None:
            age = self.at[outcome] - self.shown_at[impression]
            fits &= (age >= 0) & (age <= window[outcome])
        return np.flatnonzero(fits)


def _chunks(count: Ints) -> Iterator[Ints]:
    """Consecutive places with about ``_PAIRS`` pairs each."""
    block = np.cumsum(count) // _PAIRS
    edges = np.flatnonzero(np.diff(block)) + 1
    yield from np.split(np.arange(len(count)), edges)
