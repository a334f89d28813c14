"""Versions of models past their retention: found in one listing a name, deleted one by one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from feature_store import hours as hr
from feature_store.hours import HourError
from feature_store.maintenance import MaintenanceRules
from feature_store.tables import Store
from jobs.support import promotions
from jobs.support.plans import DEEP_FAMILIES, DEFAULT_NAME, registered_name
from jobs.support.retention import Registered, prunable
from jobs.support.snapshot_tags import tagged_name
from models import EMBEDDINGS
from models.registry import Registry, Version
from models.removal import Leftover

__all__ = ["Pruned", "model_names", "prune"]

_DAY = 24
_SHOWN = 12
"""Runs of version numbers that a line names before it says how many more there are."""


@dataclass
class Pruned:
    """What became of versions, by name; in a dry run, what would.

    Attributes:
        versions: how many were deleted.
        skipped: how many were left for the next run, since an alias points to them by now, or a
            promotion was deciding.
        left: those that are still there.
    """

    versions: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    left: dict[str, list[Version]] = field(default_factory=dict)

    def words(self) -> str:
        """What was done, for the log; empty when there was nothing to do."""
        counts = {"pruned": sum(self.versions.values()), "skipped": sum(self.skipped.values())}
        return ", ".join(f"{count:,} versions {what}" for what, count in counts.items() if count)


def model_names(store: Store) -> list[str]:
    """The names that models of this store are registered under: the usual ones, and those that its
    tags and its promotions know. Other names of a shared registry are not its business."""
    names = {DEFAULT_NAME, *map(registered_name, DEEP_FAMILIES), *EMBEDDINGS}
    there = store.existing()
    for table in there:
        names |= {name for name in map(tagged_name, store.iceberg(table).refs()) if name}
    if "promotions" in there:
        names |= set(store.read_all("promotions")["name"].to_pylist())
    return sorted(names)


def prune(
    store: Store, registry: Registry, rules: MaintenanceRules, hour: str, time_zone: str,
    lag_hours: Sequence[int], fenced: Callable[[], AbstractContextManager[None]],
    say: Callable[[str], None], dry: bool,
) -> Pruned:  # fmt: skip
    """Delete the versions that :func:`prunable` names, and their files, seen from ``hour``.

    A promoter that is deciding goes first: versions it comes upon are left for the next run.

    Args:
        lag_hours: how far back evaluations look, for the champions that they need.
        fenced: holds the fence of this run, or raises when another took over.
        dry: change nothing.

    Raises:
        RegistryError: for a registry that cannot be reached.
    """
    result = Pruned()
    since = hr.add(rules.versions_from(hour), -_DAY - max(lag_hours, default=0))
    for name in model_names(store):
        versions = registry.versions(name)
        listed = {known: version for version in versions
                  if (known := _registered(version)) is not None}  # fmt: skip
        needed = _of_record(store, name, since) if listed else set()
        planned = prunable(listed, hour, rules, time_zone, needed)
        _announce(name, planned, say, dry)
        gone = set(planned) if dry else _deleted(store, registry, name, planned, listed, fenced)
        numbers = {known.number for known in gone}
        result.left[name] = [item for item in versions if item.version not in numbers]
        if gone:
            result.versions[name] = len(gone)
        skipped = len(planned) - len(gone)
        if skipped:
            result.skipped[name] = skipped
            say(f"{name}: {skipped:,} of them stay until the next run: an alias points to them by "
                "now, or a promotion is deciding")  # fmt: skip
    return result


def _registered(version: Version) -> Registered | None:
    """What the rule knows of a version; None for one that is not ours: it lacks a data hour."""
    try:
        data_hour = hr.parse(version.tags.get("data_hour", ""))
    except HourError:
        return None
    return Registered(version.name, version.version, data_hour, version.aliases)


def _of_record(store: Store, name: str, since: str) -> set[tuple[str, int]]:
    if "promotions" not in store.existing():
        return set()
    return {(name, int(number)) for number in promotions.of_record(store, name, since)}


def _deleted(
    store: Store, registry: Registry, name: str, planned: dict[Registered, str],
    listed: dict[Registered, Version], fenced: Callable[[], AbstractContextManager[None]],
) -> set[Registered]:  # fmt: skip
    for leftover in registry.left_over(name):  # of a run that was killed
        with fenced():
            registry.clear(leftover)
    gone = set()
    for known in planned:
        version = listed[known]
        with fenced():
            # No alias moves between the last look at the aliases and the deletion.
            with store.ledger.undisturbed(promotions.ALIASES[0]) as free:
                removed = free and registry.remove(version)
            if removed:
                registry.clear(Leftover(version.model_id, version.run_id))
                gone.add(known)
    return gone


def _announce(
    name: str, planned: dict[Registered, str], say: Callable[[str], None], dry: bool
) -> None:
    verb = "would prune" if dry else "prunes"
    for why in dict.fromkeys(planned.values()):
        numbers = [known.number for known, reason in planned.items() if reason == why]
        say(f"{name}: {verb} {_ranges(numbers)}: {why}")


def _ranges(numbers: Sequence[int]) -> str:
    """``numbers``, ascending, as ``versions 1-3, 7``; of very many only the first are named."""
    runs = []
    for _, run in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        first, *rest = [number for _, number in run]
        runs.append(f"{first}-{rest[-1]}" if rest else str(first))
    more = f" and more, {len(numbers):,} in all" if len(runs) > _SHOWN else ""
    return f"versions {', '.join(runs[:_SHOWN])}{more}"
