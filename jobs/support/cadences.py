"""Cadences: when the model that serves an hour was fitted, and what it was fitted from."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from feature_store import hours as hr

__all__ = ["BASELINE", "CADENCES", "Cadence", "cadences"]


@dataclass(frozen=True)
class Cadence:
    """A rule of when and how models come about.

    Attributes:
        about: a sentence for a reader.
        every: hours between fits, from the start of the business day on; None for one fit a day.
        way: as in ``GBDTConfig``; ``continue`` and ``refit`` go on from the cadence's last model.
        renewed: the fit at the start of the business day is from nothing, whatever the way.
    """

    name: str
    about: str
    every: int | None = 1
    way: str = "retrain"
    renewed: bool = False

    def moments(self, hour: str, time_zone: str, after: str | None = None) -> list[str]:
        """When fits are due so that ``hour`` is served, in order: a model knows what arrived before
        its moment.

        Args:
            after: moment of the last model that there is.
        """
        start = _day_start(hour, time_zone)
        newest = start
        if self.every is not None:
            since = hr.difference(hour, start)
            newest = hr.add(start, since - since % self.every)
        due = {start, newest} if self.renewed else {newest}
        return sorted(moment for moment in due if after is None or moment > after)

    def goes_on(self, moment: str, time_zone: str) -> bool:
        """Whether the fit at ``moment`` goes on from the last model."""
        if self.way == "retrain":
            return False
        return not (self.renewed and moment == _day_start(moment, time_zone))


def _day_start(hour: str, time_zone: str) -> str:
    return hr.date_hours(hr.day_of(hour, time_zone).isoformat(), time_zone)[0]


BASELINE: Final = "daily"
"""What the others are compared with."""

_DECLARED: Final = (
    Cadence(BASELINE, "grown anew at the start of the business day", every=None),
    Cadence("hourly", "grown anew every hour"),
    Cadence("every_3h", "grown anew every three hours", every=3),
    Cadence("every_6h", "grown anew every six hours", every=6),
    Cadence("hourly_continue", "new trees on the last hour's", way="continue"),
    Cadence("hourly_refit", "new leaf values of the last hour's trees", way="refit"),
    Cadence("daily_continue", "daily's trees, new ones on them each hour", way="continue",
            renewed=True),
    Cadence("daily_refit", "daily's trees, new leaf values each hour", way="refit", renewed=True),
)  # fmt: skip

CADENCES: Final[Mapping[str, Cadence]] = MappingProxyType({one.name: one for one in _DECLARED})


def cadences(names: str) -> tuple[Cadence, ...]:
    """The cadences of a comma-separated list, with the baseline, in the order of their declaration.

    Raises:
        argparse.ArgumentTypeError: for a name that is not declared.
    """
    wanted = {BASELINE, *(name.strip() for name in names.split(","))}
    unknown = sorted(wanted - set(CADENCES))
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no cadences {unknown} are declared; there are {', '.join(CADENCES)}"
        )
    return tuple(one for one in _DECLARED if one.name in wanted)
