"""Versions that have not seen an hour, found without a listing of all that there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from feature_store import hours as hr
from models.registry import Registry, Version

__all__ = ["newest_before", "newest_of"]

_DAYS: Final = 3
"""UTC days that are looked at one by one, the latest first, before all versions are."""
_MOST_DAYS: Final = 31
_HOURS_A_DAY: Final = 24


def newest_before(registry: Registry, name: str, hour: str) -> Version | None:
    """The version of ``name`` that has seen most, and not ``hour``: the last by data hour, then by
    number; None without one."""
    first = hr.add(hour, -_DAYS * _HOURS_A_DAY)
    for day in reversed(hr.days_of(first, hour)):
        found = _last(registry.of_time(name, "data_hour", day), hour)
        if found is not None:
            return found
    return _last(registry.versions(name), hour)


def newest_of(registry: Registry, name: str, hours: Sequence[str]) -> list[Version]:
    """Versions of ``name``, among them for each of ``hours`` the newest that has not seen it."""
    first, last = min(hours), max(hours)
    days = hr.days_of(first, last)
    if len(days) > _MOST_DAYS:
        return registry.versions(name)
    earlier = newest_before(registry, name, first)
    later = [version for day in days for version in registry.of_time(name, "data_hour", day)]
    return [*([] if earlier is None else [earlier]), *later]


def _last(versions: Sequence[Version], hour: str) -> Version | None:
    unseen = [version for version in versions if version.tags["data_hour"] < hour]
    return max(unseen, key=lambda v: (v.tags["data_hour"], v.version), default=None)
