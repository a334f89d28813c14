"""The contract of a source: somebody's files in, canonical events out.

An adapter is one file. It checks its files first, yields Arrow batches of bounded size, and
declares its actions. After the adapter everything is the same for every source.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Protocol

import pyarrow as pa

__all__ = ["DEFAULT_WINDOWS", "Source", "SourceError"]

# Attribution windows in seconds, from the impression to the action. An adapter takes these unless
# its data says otherwise; 0 where one row holds the impression and its outcome.
DEFAULT_WINDOWS: Mapping[str, int] = {
    "click": 600,
    "long_view": 3600,
    "stay": 3600,
    "cart": 3600,
    "favor": 3600,
    "follow": 3600,
    "comment": 3600,
    "like": 3600,
    "share": 3600,
    "hate": 3600,
    "order": 86400,
    "cancel": 86400,
}


class SourceError(ValueError):
    """The files are not what the adapter reads: names file, column, rows, first values, remedy."""


class Source(Protocol):
    """A readable event log. Constructors take the keyword options of the configuration's
    ``source.options`` and read nothing."""

    name: ClassVar[str]
    has_requests: bool
    """Whether impressions carry a request_id; otherwise (user, hour of the event) is the group."""
    time_zone: str
    """The business day's time zone, e.g. ``Asia/Shanghai``."""
    windows: Mapping[str, int]
    """The actions this source declares, each with its attribution window in seconds."""

    def check(self, first: str | None = None, last: str | None = None, /) -> None:
        """Raise SourceError unless every file is there with the columns and types it must have.

        With a first and a last hour, only what arrived in them need be looked at: a log of years
        must not be read anew every hour.
        """

    def span(self) -> tuple[str, str]:
        """The first and the last hour with arrivals, both complete or being filled."""

    def events(self, first: str, last: str) -> Iterator[pa.RecordBatch]:
        """Rows that arrived in hours ``first`` to ``last`` (inclusive), schema ``SOURCE_EVENTS``,
        in the same order at every reading, dirt included: duplicates, late, malformed rows are the
        ingest's to judge, so required columns may hold nulls here."""

    def entities(self, table: str, first: str, last: str) -> Iterator[pa.RecordBatch]:
        """Rows of ``users``, ``items``, ``rooms`` or ``room_items`` that arrived in those hours,
        with that table's schema, ``hour`` included."""
