"""Who serves which hour: versions by their number, the newest of a name, or its champion then."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from feature_store.tables import Store
from jobs.support.judged_hours import Served, Serving
from jobs.support.promotions import history
from jobs.support.summary import RefusedError
from jobs.support.unseen import newest_of
from models.registry import Registry

__all__ = ["CHAMPION", "Asked", "asked", "serving_of"]

CHAMPION: Final = "champion"
_FORM: Final = re.compile(r"([A-Za-z0-9_.-]+)(?:/(\d+)|@(\w+))?")


@dataclass(frozen=True)
class Asked:
    """A model as it was asked for.

    Attributes:
        text: the words themselves, which are its role.
        version: that serves every hour; None for the newest, or the champion, of each hour.
    """

    text: str
    name: str
    version: int | None = None
    champion: bool = False


def asked(text: str) -> tuple[Asked, ...]:
    """``gbdt_ranker,gbdt_ranker@champion,mmoe_ranker/3`` as models.

    Raises:
        ValueError: for a text of another form, or a model that is named twice.
    """
    found = []
    for part in text.split(","):
        match = _FORM.fullmatch(part.strip())
        if match is None or match[3] not in (None, CHAMPION):
            raise ValueError(
                f"{part!r} is no model; write NAME for the newest version before each hour, "
                f"NAME@{CHAMPION} for who served then, or NAME/3 for version 3"
            )
        version = int(match[2]) if match[2] else None
        found.append(Asked(part.strip(), match[1], version, match[3] is not None))
    if len({one.text for one in found}) < len(found):
        raise ValueError(f"{text!r} names a model twice")
    return tuple(found)


def serving_of(
    store: Store, registry: Registry, models: Sequence[Asked], hours: Sequence[str]
) -> tuple[Serving, list[str]]:
    """Who serves each of ``hours``, those left out in which any model has no version yet; and a
    sentence for each model that hours were left out for.

    Raises:
        RefusedError: when no hour is left.
    """
    found: dict[str, list[Served]] = {hour: [] for hour in hours}
    absent = []
    for one in models:
        at = _numbers(store, registry, one, hours)
        numbers = {hour: at(hour) for hour in hours}
        without = [hour for hour, number in numbers.items() if number is None]
        if without:
            absent.append(f"{one.text} has no version before {len(without)} of {len(hours)} hours")
        for hour, number in numbers.items():
            if number is None:
                found.pop(hour, None)
            elif hour in found:
                found[hour].append(Served(one.text, one.name, number))
    if not found:
        raise RefusedError(
            f"no hour of {hours[0]} to {hours[-1]} is served by all models: {'; '.join(absent)}. "
            "Name versions that were fitted before these hours, or later hours"
        )
    return {hour: tuple(served) for hour, served in found.items()}, absent


def _numbers(
    store: Store, registry: Registry, one: Asked, hours: Sequence[str]
) -> Callable[[str], int | None]:
    """The version of ``one`` at any of ``hours``, None where it has none yet."""
    if one.version is not None:
        registry.get(one.name, one.version)  # says what is wrong with a number that is not there
        pairs = [("", one.version)]
    elif one.champion:
        done = [row for row in history(store, one.name) if row["stage"] == "done"]
        pairs = [(row["hour"], row["champion"]) for row in done if row["champion"] is not None]
    else:
        versions = newest_of(registry, one.name, hours)
        pairs = sorted((v.tags["data_hour"], v.version) for v in versions)
    moments = [moment for moment, _ in pairs]

    def before(hour: str) -> int | None:
        place = bisect_left(moments, hour)
        return int(pairs[place - 1][1]) if place else None

    return before
