"""Which versions of a model need not be kept any more: the rule, without a registry or a store."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from feature_store import hours as hr
from feature_store.maintenance import MaintenanceRules

__all__ = ["Registered", "prunable"]


@dataclass(frozen=True)
class Registered:
    """What the rule knows of a version: ``data_hour`` is the last hour that it has seen."""

    name: str
    number: int
    data_hour: str
    aliases: tuple[str, ...] = ()


def prunable(
    versions: Iterable[Registered],
    hour: str,
    rules: MaintenanceRules,
    time_zone: str,
    of_record: Collection[tuple[str, int]] = (),
) -> dict[Registered, str]:
    """The versions that may go, seen from ``hour``, and why; by name, then number.

    Of every name are kept: those that saw data of ``rules.versions_from(hour)`` or later; of each
    business day in ``time_zone`` the last (by data hour, then number), for as long as it saw data
    of ``rules.daily_versions_from(hour)`` or later; those with an alias; the newest by data hour
    and the newest by number; and ``of_record``, by name and number.
    """
    by_name: dict[str, list[Registered]] = {}
    for version in versions:
        by_name.setdefault(version.name, []).append(version)
    recent, quarter = rules.versions_from(hour), rules.daily_versions_from(hour)
    found: dict[Registered, str] = {}
    for name, mine in sorted(by_name.items()):
        days = _last_of_days(mine, time_zone)
        last = set(days.values())
        newest = {max(mine, key=_age), max(mine, key=lambda version: version.number)}
        for version in sorted(mine, key=lambda version: version.number):
            needed = version.aliases or version in newest or (name, version.number) in of_record
            if needed or version.data_hour >= recent:
                continue
            if version.data_hour < quarter:
                found[version] = f"saw nothing since {quarter}"
            elif version not in last:
                found[version] = f"saw nothing since {recent}, and is not the last of its day"
    return found


def _last_of_days(versions: Iterable[Registered], time_zone: str) -> dict[dt.date, Registered]:
    ordered = sorted(versions, key=_age)
    return {hr.day_of(version.data_hour, time_zone): version for version in ordered}


def _age(version: Registered) -> tuple[str, int]:
    return version.data_hour, version.number
