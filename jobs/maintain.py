"""Keep registry and store from growing without end: prune, age, compact, expire, and remove what is
left over."""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from feature_store.compaction import compact, crowds
from feature_store.maintenance import Aged, MaintenanceRules, age_quarantine, expire
from feature_store.tables import Store, Writer
from feature_store.unreferenced import sweep
from jobs.support.arguments import job_parser, run_hours
from jobs.support.fencing import claim, run_token
from jobs.support.pruning import prune
from jobs.support.records import forget
from jobs.support.settings import Settings, SettingsError, load_settings
from jobs.support.snapshot_tags import Owners
from jobs.support.summary import Summary, main_of, progress
from models.registry import Registry

__all__ = ["Done", "build_parser", "main", "maintain", "run"]

JOB = "maintain"
_STORE: Final = ["store"]
"""Maintenance runs take over from one another as a whole, not by hour."""


@dataclass(frozen=True)
class Done:
    """What became of one table; in a dry run, what would.

    Files that age or compaction put out of use are removed once no kept snapshot names them. An
    hour is skipped, and left for the next run, when somebody is writing it.
    """

    hours_aged: int = 0
    hours_compacted: int = 0
    hours_skipped: int = 0
    files_compacted: int = 0
    snapshots_expired: int = 0
    tags_dropped: int = 0
    files_removed: int = 0
    folders_removed: int = 0
    bytes_removed: int = 0

    def words(self) -> str:
        """What was done, for the log; empty when there was nothing to do."""
        counts = {name.replace("_", " "): count for name, count in asdict(self).items() if count}
        return ", ".join(f"{count:,} {name}" for name, count in counts.items())

    def __add__(self, other: Done) -> Done:
        mine, theirs = asdict(self), asdict(other)
        return Done(**{name: count + theirs[name] for name, count in mine.items()})


def maintain(
    store: Store, registry: Registry, settings: Settings, time_zone: str, hour: str,
    now: dt.datetime, token: str, dry: bool,
) -> Summary:  # fmt: skip
    """Prune the versions of models, then maintain every table, through the data of ``hour`` and
    seen from the instant ``now``.

    Every step is a transaction of its own, and finds by itself what an interrupted run left. The
    versions come first: the snapshots that only they needed can go at once.
    """
    writer, rules = claim(store, JOB, _STORE, token), settings.maintenance
    pruned = prune(
        store, registry, rules, hour, time_zone, settings.evaluation.lag_hours,
        lambda: store.ledger.holding(writer.stage, _STORE, writer.token),
        lambda words: progress(JOB, words), dry,
    )  # fmt: skip
    forgotten = forget(
        store, registry, rules, hour, now, pruned.left,
        lambda: store.ledger.holding(writer.stage, _STORE, writer.token), dry,
    )  # fmt: skip
    owners = Owners(registry, pruned.left)
    tables: dict[str, Done] = {}
    for name in store.existing():
        tables[name] = _maintained(store, name, rules, owners, hour, now, writer, dry)
        words = tables[name].words()
        if words:
            progress(JOB, f"{name}: {words}")
    done = (pruned, forgotten, sum(tables.values(), Done()))
    said = ", ".join(filter(None, (one.words() for one in done)))
    message = ("would be: " if dry else "") + (said or "nothing to do")
    progress(JOB, message)
    return Summary(
        JOB,
        [hour],
        "dry-run" if dry else "done",
        message=message,
        details={
            "tables": {name: asdict(done) for name, done in tables.items()},
            "versions_pruned": pruned.versions,
            "versions_skipped": pruned.skipped,
            "records": asdict(forgotten),
        },
    )


def _maintained(
    store: Store, name: str, rules: MaintenanceRules, owners: Owners, hour: str, now: dt.datetime,
    writer: Writer, dry: bool,
) -> Done:  # fmt: skip
    held = (writer.stage, _STORE, writer.token)
    aged = Aged()
    if name == "quarantine":
        with store.ledger.holding(*held):
            aged = age_quarantine(store, rules.quarantined_from(hour), dry)
    crowded = crowds(store, name, hour, rules.max_files, rules.max_compacted_bytes)
    compacted = crowded
    if not dry:
        with store.ledger.holding(*held):
            compacted = [crowd for crowd in crowded if compact(store, crowd)]
    with store.ledger.holding(*held):
        expired = expire(store, name, rules.snapshots_before(name, now), owners.orphaned, dry)
    with store.ledger.holding(*held):
        without = expired.snapshots if dry else ()
        swept = sweep(store, name, rules.files_before(now), without, dry)
    return Done(
        hours_aged=aged.hours,
        hours_compacted=len(compacted),
        hours_skipped=len(crowded) - len(compacted),
        files_compacted=sum(len(crowd.files) for crowd in compacted),
        snapshots_expired=len(expired.snapshots),
        tags_dropped=len(expired.tags),
        files_removed=swept.files,
        folders_removed=swept.folders,
        bytes_removed=swept.bytes,
    )


def _instant(text: str | None) -> dt.datetime:
    """The reference of ages: ``text`` as ISO 8601 with a time zone, by default the clock's time."""
    if text is None:
        return dt.datetime.now(dt.UTC)
    try:
        instant = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise SettingsError(f"--now {text!r} is no time: {error}") from error
    if instant.tzinfo is None:
        raise SettingsError(f"--now {text!r} has no time zone; write it as 2026-11-12T02:00+00:00")
    return instant


def run(arguments: argparse.Namespace) -> Summary:
    settings = load_settings(arguments)
    zone = settings.open_source().time_zone
    hours = run_hours(arguments, zone)
    now, registry = _instant(arguments.now), Registry(settings.tracking())
    store, token = settings.open_store(), run_token(arguments.run_id)
    return maintain(store, registry, settings, zone, hours[-1], now, token, arguments.dry_run)


def build_parser() -> argparse.ArgumentParser:
    parser = job_parser(
        JOB,
        "Remove model versions and quarantined rows past their retention, rewrite hours of many "
        "small files as one, drop old snapshots that no model version needs, and remove files that "
        "nothing names any more. The last of the hours named is the one that retention is counted "
        "from. With --dry-run it names the versions and counts the rest.",
        "  maintain.py --date 2026-11-11\n  maintain.py --date 2026-11-11 --dry-run\n",
    )
    parser.add_argument(
        "--now",
        metavar="TIME",
        help="what ages of files and snapshots are counted from, as 2026-11-12T02:00+00:00 "
        "[the clock]",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return main_of(JOB, build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
