"""What keeps the store from growing without end: snapshots expire, quarantined rows age.

A snapshot is kept for some days after another one took its place, as the current one and those
with a tag are kept anyway: whoever resolved it has so long to read it. Expiring deletes no file;
`feature_store.unreferenced` does, `feature_store.compaction` merges small ones.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.expressions import LessThan
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update.snapshot import ExpireSnapshots, ManageSnapshots

from feature_store import hours as hr
from feature_store.commits import FewCopies
from feature_store.schemas import TABLES
from feature_store.tables import Store

__all__ = ["Aged", "Expired", "MaintenanceRules", "age_quarantine", "expire"]

_HOURS_A_DAY = 24
_MEGABYTE = 1024 * 1024
_CENTURY_DAYS = 36_500


@dataclass(frozen=True)
class MaintenanceRules:
    """What is kept, and for how long.

    Attributes:
        snapshot_days: how long a snapshot is kept after another one took its place.
        table_snapshot_days: the same for single tables, by name.
        quarantine_days: how long rejected rows are kept, counted in the hours of the data.
        unreferenced_hours: files and folders that were written since are never removed.
        hourly_version_days: how long every version of a model is kept, counted back from the hour
            of the run by the last hour of data that a version has seen ...
        daily_version_days: ... and how long the last one of each business day.
        record_days: how long is kept what nothing reads again: pages in MLflow and the runs of
            pruned versions, by the time they were made; fences, by the hours of the data.
        max_files: an hour, or an append-only table, of more files is rewritten as one ...
        max_compacted_mb: ... unless that were larger, in MiB.

    Raises:
        ValueError: for a value that would let files go which somebody may still need.
    """

    snapshot_days: float = 3.0
    table_snapshot_days: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    quarantine_days: float = 30.0
    unreferenced_hours: float = 24.0
    hourly_version_days: float = 2.0
    daily_version_days: float = 90.0
    record_days: float = 90.0
    max_files: int = 8
    max_compacted_mb: float = 128.0

    def __post_init__(self) -> None:
        unknown = sorted(set(self.table_snapshot_days) - set(TABLES))
        if unknown:
            raise ValueError(f"table_snapshot_days names {unknown}; tables are {sorted(TABLES)}")
        for name in (
            "unreferenced_hours", "quarantine_days", "hourly_version_days", "daily_version_days",
            "record_days", "max_files", "max_compacted_mb",
        ):  # fmt: skip
            if not 1 <= getattr(self, name) <= _CENTURY_DAYS:
                raise ValueError(
                    f"{name} must be at least 1 and at most {_CENTURY_DAYS:,}, "
                    f"got {getattr(self, name)!r}"
                )
        if self.daily_version_days < self.hourly_version_days:
            raise ValueError(
                f"daily_version_days ({self.daily_version_days:g}) must not be less than "
                f"hourly_version_days ({self.hourly_version_days:g}): the last version of a day is "
                "kept longer than the others of it"
            )
        least = self.unreferenced_hours / _HOURS_A_DAY
        days = {"snapshot_days": self.snapshot_days, **self.table_snapshot_days}
        for name, value in days.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not least <= value <= _CENTURY_DAYS:
                raise ValueError(
                    f"snapshots of {name} must be kept for a number of days that is at least "
                    f"unreferenced_hours ({least:g} days) and at most {_CENTURY_DAYS:,}, got "
                    f"{value!r}: readers need the time"
                )

    def snapshots_before(self, table: str, now: dt.datetime) -> dt.datetime:
        """Snapshots of ``table`` that were replaced before this instant may go."""
        return now - dt.timedelta(days=self.table_snapshot_days.get(table, self.snapshot_days))

    def files_before(self, now: dt.datetime) -> dt.datetime:
        """Unreferenced files from before this instant may go."""
        return now - dt.timedelta(hours=self.unreferenced_hours)

    def quarantined_from(self, hour: str) -> str:
        """The first hour whose quarantined rows are kept, seen from ``hour``."""
        return hr.add(hour, -round(self.quarantine_days * _HOURS_A_DAY))

    def versions_from(self, hour: str) -> str:
        """The first data hour of which every version is kept, seen from ``hour``."""
        return hr.add(hour, -round(self.hourly_version_days * _HOURS_A_DAY))

    def daily_versions_from(self, hour: str) -> str:
        """The first data hour from which the last version of a day is kept, seen from ``hour``."""
        return hr.add(hour, -round(self.daily_version_days * _HOURS_A_DAY))

    def records_before(self, now: dt.datetime) -> dt.datetime:
        """Pages, and runs of pruned versions, from before this instant may go."""
        return now - dt.timedelta(days=self.record_days)

    def fences_before(self, hour: str) -> str:
        """The first hour whose fences are kept, seen from ``hour``."""
        return hr.add(hour, -round(self.record_days * _HOURS_A_DAY))

    @property
    def max_compacted_bytes(self) -> int:
        """``max_compacted_mb`` in bytes."""
        return int(self.max_compacted_mb * _MEGABYTE)


@dataclass(frozen=True)
class Expired:
    """Snapshots that went, or would, and the tags that held some of them."""

    snapshots: frozenset[int] = frozenset()
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Aged:
    """Hours whose quarantined rows went, or would: how many hours, files and their bytes."""

    hours: int = 0
    files: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class _NotNamed:
    """A requirement of a commit: none but the tags dropped names a snapshot that is to go.

    A catalog applies `expire_snapshots` to whatever it holds by then, and takes a tag that was
    made in between away together with its snapshot.
    """

    snapshots: Collection[int]
    dropped: Collection[str]

    def validate(self, base_metadata: TableMetadata | None) -> None:
        """Refuse the commit, so that it is planned again; the catalog calls it."""
        refs = base_metadata.refs if base_metadata is not None else {}
        for label, ref in refs.items():
            if ref.snapshot_id in self.snapshots and label not in self.dropped:
                raise CommitFailedException(f"snapshot {ref.snapshot_id} is {label!r} by now")


def expire(
    store: Store,
    name: str,
    before: dt.datetime,
    orphaned: Callable[[str], bool],
    dry: bool = False,
) -> Expired:
    """Drop the snapshots of a table that were replaced before an instant, in one commit.

    Kept are the current one and those that a tag names. A tag goes as well when its snapshot is
    due and ``orphaned`` says of its label that nobody needs it: not sooner, as a training tags
    what it reads before its model version exists.

    Args:
        dry: change nothing.
    """
    result = Expired()

    def attempt(table: Table) -> None:
        nonlocal result
        result = _due(table.metadata, before, orphaned)
        if dry or not (result.snapshots or result.tags):
            return
        with FewCopies(table) as transaction:
            requirement = _NotNamed(result.snapshots, result.tags)
            transaction._stage((), (requirement,))
            if result.tags:
                with ManageSnapshots(transaction) as manage:
                    for label in result.tags:
                        manage.remove_tag(label)
            if result.snapshots:
                with ExpireSnapshots(transaction) as expiry:
                    expiry.by_ids(sorted(result.snapshots))

    store.change(name, attempt)
    return result


def _due(metadata: TableMetadata, before: dt.datetime, orphaned: Callable[[str], bool]) -> Expired:
    ordered = sorted(metadata.snapshots, key=lambda snapshot: snapshot.sequence_number or 0)
    instant = before.timestamp() * 1000
    replaced = {
        snapshot.snapshot_id
        for snapshot, successor in itertools.pairwise(ordered)
        if successor.timestamp_ms < instant
    }
    tags = [
        label
        for label, ref in metadata.refs.items()
        if ref.snapshot_ref_type == "tag" and ref.snapshot_id in replaced and orphaned(label)
    ]
    named = {ref.snapshot_id for label, ref in metadata.refs.items() if label not in tags}
    return Expired(frozenset(replaced - named), tuple(sorted(tags)))


def age_quarantine(store: Store, keep_from: str, dry: bool = False) -> Aged:
    """Remove quarantined rows of hours before ``keep_from``, whole hours in one transaction.

    The ledger still says how many rows an hour had, and that it is complete: the hour was judged,
    and ingesting it again, with the same result, is without effect and brings nothing back.
    """
    if "quarantine" not in store.existing():
        return Aged()
    planned = store.iceberg("quarantine").scan(row_filter=LessThan("hour", keep_from))
    files = [task.file for task in planned.plan_files()]
    if files and not dry:
        store.drop_before("quarantine", keep_from)
    return Aged(
        len({file.partition[0] for file in files}),
        len(files),
        sum(file.file_size_in_bytes for file in files),
    )
