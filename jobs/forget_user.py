"""Forget users: their rows leave every table, snapshot and model file, and ingestion keeps them
out."""

from __future__ import annotations

import argparse
import datetime as dt
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from feature_store.forgetting import BusyError, Forgetting, Removed
from feature_store.tables import Store
from feature_store.tombstones import Tombstones
from jobs.support.arguments import job_parser
from jobs.support.fencing import one_at_a_time, run_token
from jobs.support.forgotten_models import ForgottenModels
from jobs.support.pretraining import CHECKPOINTS
from jobs.support.settings import Settings, SettingsError, load_settings
from jobs.support.summary import Summary, main_of, progress
from models.registry import Registry, RegistryError

__all__ = ["build_parser", "forget", "main", "run"]

JOB = "forget_user"
_STORE: Final = ["store"]
_LEFT: Final = (f"{JOB}", "promote:")
"""Stages whose fences are left to their holders: they write nothing of users."""

_SWEEPS: Final = 10
_TRIES: Final = 30
_PAUSE_SECONDS: Final = 1.0


def forget(
    store: Store, registry: Registry, settings: Settings, users: Sequence[str], reason: str,
    time_zone: str, token: str, dry: bool,
) -> Summary:  # fmt: skip
    """Forget ``users``: remember that they are to be left out, then sweep the store and the
    registry until nothing of them is found.

    Whoever runs meanwhile is refused at the next commit, as their rows may be of the users.

    Raises:
        BusyError: when hours are being written all the time; run it again.
        RegistryError: when the registry is away, or a version's files cannot be looked into.
    """
    since, tombstones = dt.datetime.now(dt.UTC), Tombstones(store.ledger)
    if not dry:
        since = tombstones.record(users, reason, token)
    models = ForgottenModels(store, registry, users, since, _say, dry)
    forgetting = Forgetting(store, users, time_zone, models.tell, _say)
    models.rows = forgetting.rows_by_hour
    if dry:
        models.scrub()
        removed = forgetting.sweep(forgetting.listed(), dry=True)
        return _summary(removed, models, len(users), dry=True)
    with one_at_a_time(store, JOB, _STORE, token):
        removed = _swept(store, forgetting, models, token)
    _forget_checkpoints(settings)
    if models.unread:
        places = [f"{name} version {number}" for name, number in models.unread]
        raise RegistryError(
            f"everything else is forgotten, but files of {', '.join(places)} could not be looked "
            f"into ({next(iter(models.unread.values()))}): mend or delete them, and run the same "
            "command again"
        )
    return _summary(removed, models, len(users), dry=False)


def _swept(
    store: Store, forgetting: Forgetting, models: ForgottenModels, token: str
) -> dict[str, Removed]:
    total: dict[str, Removed] = {}
    for _ in range(_SWEEPS):
        listed = forgetting.listed()
        _fence_off(store, token)
        rewritten = models.scrub()
        removed = forgetting.sweep(listed, dry=False)
        for name, what in removed.items():
            total[name] = total.get(name, Removed()) + what
        if not removed and not rewritten:
            return total
    raise BusyError(
        f"after {_SWEEPS} sweeps there were new rows in {', '.join(removed) or 'the registry'}: "
        "pause the DAGs, and run the same command again"
    )


def _fence_off(store: Store, token: str) -> None:
    """Refuse the commits of whoever runs now.

    Raises:
        BusyError: when somebody stays inside a commit.
    """
    for _ in range(_TRIES):
        held = store.ledger.take_over(token, _LEFT)
        if not held:
            return
        time.sleep(_PAUSE_SECONDS)
    stage, hour = held[0]
    raise BusyError(
        f"{stage} of {hour} ({len(held)} fences) is inside a commit for {_TRIES} s: the rest is "
        "not looked at before. Run the same command again when it is done"
    )


def _forget_checkpoints(settings: Settings) -> None:
    """Encoded training rows of pre-trainings that were killed; those begin anew."""
    folder = settings.scratch() / CHECKPOINTS
    if folder.is_dir():
        shutil.rmtree(folder)
        _say("checkpoints of interrupted pre-trainings removed")


def _summary(
    removed: Mapping[str, Removed], models: ForgottenModels, users: int, dry: bool
) -> Summary:
    total = sum(removed.values(), Removed())
    versions = {name: sorted(numbers) for name, numbers in models.concerned.items()}
    rewritten = {name: sorted(numbers) for name, numbers in models.rewritten.items()}
    who = "1 user" if users == 1 else f"{users:,} users"
    found = f"{total.rows:,} rows in {sum(bool(r.rows) for r in removed.values())} tables"
    nothing = not removed and not rewritten
    said = f"nothing of {who} is stored" if nothing else f"{who}: {found}"
    message = f"would be removed: {said}" if dry and not nothing else said
    _say(message)
    details: dict[str, Any] = {
        "users": users,
        "rows": {name: what.rows for name, what in removed.items() if what.rows},
        "files_rewritten": total.files,
        "loose_files_removed": total.loose,
        "snapshots_dropped": total.snapshots,
        "bytes_removed": total.bytes,
        "tags_removed": len(total.tags),
        "versions": versions,
        "versions_rewritten": rewritten,
    }
    return Summary(
        JOB, status="dry-run" if dry else "done", rows_in=total.rows, message=message,
        details=details,
    )  # fmt: skip


def _users(arguments: argparse.Namespace) -> list[str]:
    """The identifiers that the arguments name, each once.

    Raises:
        SettingsError: for a file that cannot be read, or none.
    """
    given: list[str] = list(arguments.user or [])
    if arguments.users is not None:
        try:
            given += Path(arguments.users).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"--users {arguments.users} cannot be read: {error}") from error
    users = list(dict.fromkeys(user.strip() for user in given if user.strip()))
    if not users:
        raise SettingsError("name the users by --user, or by --users FILE with one id a line")
    if not arguments.reason.strip():
        raise SettingsError("--reason is empty; say why, for whoever asks later")
    if any(user in arguments.reason.split() for user in users):
        raise SettingsError("--reason names one of the users, and is kept: say it without")
    return users


def _say(message: str) -> None:
    progress(JOB, message)


def run(arguments: argparse.Namespace) -> Summary:
    users, settings = _users(arguments), load_settings(arguments)
    zone, token = settings.open_source().time_zone, run_token(arguments.run_id)
    registry, store = Registry(settings.tracking()), settings.open_store()
    return forget(
        store, registry, settings, users, arguments.reason, zone, token, arguments.dry_run
    )


def build_parser() -> argparse.ArgumentParser:
    parser = job_parser(
        JOB,
        "Remove everything that is stored of users: rows in all tables and their snapshots, "
        "vectors and examples in registered models, and checkpoints. Files are rewritten where "
        "they hold such rows, old snapshots that hold them are dropped at once with their tags, "
        "and ingest_events leaves the users out from now on. The raw log is not touched. Jobs that "
        "run meanwhile are refused at their commit, and are to be run again.",
        "  forget_user.py --user u123 --reason 'request 2026-481'\n"
        "  forget_user.py --users ids.txt --reason 'account closed' --dry-run\n",
        of_hours=False,
    )
    parser.add_argument("--user", action="append", metavar="ID", help="a user; may be repeated")
    parser.add_argument("--users", metavar="FILE", help="a file with one user a line")
    parser.add_argument(
        "--reason", metavar="TEXT", required=True, help="why; kept beside the hashes of the users"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return main_of(JOB, build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
