"""What a simulated marketplace is made of, in one frozen dataclass."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from feature_store import hours
from feature_store.sources.base import SourceError

__all__ = ["TIME_ZONE", "MarketConfig"]

TIME_ZONE = "Asia/Shanghai"
"""The business day of every simulated marketplace, and where its evening peak lies."""

_SHARES = (
    "rooms_share", "search_share", "uniform_share", "bot_share", "late_share",
    "lost_impression_share", "duplicate_share", "too_late_share", "future_share", "malformed_share",
)  # fmt: skip
_MOST = {"uniform_share": 1.0}  # of the others at most a half
_CURVES = {
    "position_decay": (5.0, "0 (no bias)"),
    "trust_bias": (0.5, "0 (no bias)"),
    "taste_drift": (5.0, "0 (no drift)"),
    "festival_volume": (20.0, "1 (an ordinary day)"),
}
_TYPES: Mapping[str, type | tuple[type, ...]] = {"int": int, "float": (int, float), "str": str}
_MAX_MALFORMED = 0.01  # the ingest refuses an hour with more bad rows than this by default


@dataclass(frozen=True)
class MarketConfig:
    """One marketplace. Two equal configurations give equal files, whatever the number of hours.

    Args:
        seed: of everything random.
        start: the first hour, UTC.
        requests_per_hour: mean over the day; the evening has about twice as many.
        users, items, rooms, categories: how many there are at the start.
        new_items_per_day, new_rooms_per_day: how many more arrive each day.
        slate_size: impressions per request.
        rooms_share: share of the requests that ask for live rooms instead of items.
        search_share: share of the requests for items that come with a query.
        position_decay: the position-bias curve is position ** -position_decay.
        trust_bias: how much the top alone draws a click from who does not want it; the trust-bias
            curve is trust_bias / position.
        taste_drift: how far a taste swings in logits, with a period of 5 to 20 days.
        festival: the local date of a shopping festival, e.g. 2026-11-11; empty for none.
        festival_volume: how many times as many requests that day has.
        uniform_share: share of the requests whose candidates are shown in uniformly random order.
        bot_share: share of the requests that come from bots.
        late_share: events that arrive up to 110 minutes after they happened.
        lost_impression_share: carts, orders and follows that do not name their impression.
        duplicate_share, too_late_share, future_share, malformed_share: dirt, as shares of events.
    """

    seed: int = 20261111
    start: str = "2026-11-08T00"
    requests_per_hour: int = 350
    users: int = 2_000
    items: int = 1_500
    rooms: int = 120
    categories: int = 24
    new_items_per_day: int = 12
    new_rooms_per_day: int = 1
    slate_size: int = 10
    rooms_share: float = 0.3
    search_share: float = 0.15
    position_decay: float = 0.45
    trust_bias: float = 0.02
    taste_drift: float = 0.5
    festival: str = ""
    festival_volume: float = 3.0
    uniform_share: float = 0.05
    bot_share: float = 0.002
    late_share: float = 0.01
    lost_impression_share: float = 0.1
    duplicate_share: float = 0.001
    too_late_share: float = 0.001
    future_share: float = 0.001
    malformed_share: float = 0.001

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, _TYPES[str(field.type)]):
                raise SourceError(
                    f"simulator: {field.name} is {value!r}; it must be of type {field.type}"
                )
        try:
            hours.parse(self.start)
        except hours.HourError as error:
            raise SourceError(f"simulator: start: {error}") from error
        self._check_sizes()
        for name in _SHARES:
            share, most = getattr(self, name), _MOST.get(name, 0.5)
            if not 0 <= share <= most:
                raise SourceError(
                    f"simulator: {name} is {share}; a share lies between 0 and {most:g}"
                )
        if self.malformed_share >= _MAX_MALFORMED:
            raise SourceError(
                f"simulator: malformed_share is {self.malformed_share}; choose less than "
                f"{_MAX_MALFORMED}, from which on the ingest refuses whole hours"
            )
        for name, (most, least) in _CURVES.items():
            if not 0 <= getattr(self, name) <= most:
                raise SourceError(
                    f"simulator: {name} is {getattr(self, name)}; choose {least} to {most:g}"
                )
        self._check_festival()

    def _check_festival(self) -> None:
        if not self.festival:
            return
        try:
            known = dt.date.fromisoformat(self.festival).isoformat()
        except ValueError:
            known = ""
        if known != self.festival:
            raise SourceError(
                f"simulator: festival is {self.festival!r}; write its local date, e.g. 2026-11-11"
            )

    def _check_sizes(self) -> None:
        least = {
            "seed": 0, "requests_per_hour": 0, "users": 1, "categories": 1, "slate_size": 1,
            "items": 4 * self.slate_size, "rooms": 4 * self.slate_size,
            "new_items_per_day": 0, "new_rooms_per_day": 0,
        }  # fmt: skip
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise SourceError(
                    f"simulator: {name} is {getattr(self, name)}; the least is {bound}"
                )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MarketConfig:
        """The configuration with ``values`` over the defaults.

        Raises:
            SourceError: for an unknown key or a value that makes no sense, naming both.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise SourceError(
                f"simulator: unknown setting {', '.join(map(repr, unknown))}; "
                f"the settings are {', '.join(known)}"
            )
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, for JSON."""
        return dataclasses.asdict(self)

    @property
    def bots(self) -> int:
        """How many of the users are bots; they come after the others."""
        return max(1, self.users // 500) if self.bot_share else 0

    @property
    def sha(self) -> str:
        """sha256 of the canonical JSON of all fields."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()
