"""Users forgotten by the store: their rows leave every file of every table, whatever names it.

Files that hold none of their rows stay as they are. The others are rewritten without them and put
in place in one transaction a table, as compaction does; then the snapshots that still name the old
files go, and the files with them. Every step is found by what the files hold, so that a run that
was killed is finished by the next one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from pyiceberg.manifest import DataFile
from pyiceberg.table.refs import MAIN_BRANCH

from feature_store import storage
from feature_store.contents import ContentHashes
from feature_store.ledger import Completion, LedgerError
from feature_store.rewriting import (
    OvertakenError,
    current_files,
    drop_snapshots,
    rewritten_without,
    snapshots_with,
    swap,
)
from feature_store.schemas import TABLES
from feature_store.tables import Store
from feature_store.tiles import day_content, ended_days
from feature_store.unreferenced import files_in_folder
from feature_store.user_rows import TRACES, UserSearch
from feature_store.views import VIEWS

__all__ = ["BusyError", "Forgetting", "Removed"]

_TRIES: Final = 20
_PAUSE_SECONDS: Final = 0.5
_DAYS: Final[Mapping[str, str]] = {view.counts_table: view.day_counts_table for view in VIEWS}
"""By table of hourly counts that of its day tiles; both change together."""


class BusyError(LedgerError):
    """Somebody was inside a commit of hours that had to be rewritten, every time it was tried."""


@dataclass
class Removed:
    """What left a table, or would.

    Attributes:
        rows: of the current snapshot.
        files: that were rewritten, or hold nothing else; ``loose``: no snapshot named.
        bytes: of the files that were removed.
        tags: that named snapshots with such rows.
    """

    rows: int = 0
    files: int = 0
    loose: int = 0
    bytes: int = 0
    snapshots: int = 0
    tags: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.rows or self.files or self.loose or self.snapshots or self.tags)

    def words(self) -> str:
        """For the log."""
        counts = {
            "rows": self.rows, "files": self.files, "loose files": self.loose,
            "snapshots": self.snapshots, "tags": len(self.tags),
        }  # fmt: skip
        found = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
        return f"{found} removed" if found else "completions brought up to date"

    def __add__(self, other: Removed) -> Removed:
        return Removed(
            self.rows + other.rows, self.files + other.files, self.loose + other.loose,
            self.bytes + other.bytes, self.snapshots + other.snapshots, self.tags + other.tags,
        )  # fmt: skip


@dataclass
class _Theirs:
    """What one table has of the users.

    Attributes:
        current: files of the current snapshot, by hour.
        rows: how many, by file of any snapshot.
        loose: files that no snapshot names, and that may also be no whole ones.
        snapshots: that name any of the files.
        stale: hours whose completion was not brought up to date by a run that was killed.
    """

    current: dict[str, list[str]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    loose: list[str] = field(default_factory=list)
    snapshots: frozenset[int] = frozenset()
    stale: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.rows or self.loose or self.snapshots or self.stale)


class Forgetting:
    """Takes users out of a store.

    Args:
        users: their identifiers.
        time_zone: of the business day, for day tiles.
        concerned: told of snapshots before they go, by table.
        say: told of what is done.
    """

    def __init__(
        self, store: Store, users: Iterable[str], time_zone: str,
        concerned: Callable[[str, frozenset[int]], None], say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._store = store
        self._zone = time_zone
        self._concerned = concerned
        self._say = say
        self._search = UserSearch(tuple(sorted(set(users))))
        self._contents = ContentHashes()
        self.rows_by_hour: dict[str, dict[str, int]] = {}
        """By table and hour, how many rows were theirs at the first look."""

    def tables(self) -> list[str]:
        """Those with rows of users that exist: first those that are traced by others, which go
        last, so that whoever finishes a killed run can still trace."""
        named = [name for name in self._store.existing() if TABLES[name].users]
        return sorted(named, key=_rank)

    def listed(self) -> dict[str, dict[str, int]]:
        """The files in the folders of the tables, with their bytes."""
        return {name: files_in_folder(self._store, name) for name in self.tables()}

    def sweep(self, listed: Mapping[str, Mapping[str, int]], dry: bool) -> dict[str, Removed]:
        """Take the users out of every table once.

        Args:
            listed: the files that there were before the fences were taken: whoever wrote those
                that no snapshot names can commit them no more.

        Raises:
            BusyError: when hours were in use every time.
        """
        names = self.tables()
        known = {name: self._of_sources(name, listed.get(name, {})) for name in names}
        removed: dict[str, Removed] = {}
        for name in names:
            if name in _DAYS.values():
                continue  # with its hours
            together = [day for day in (_DAYS.get(name),) if day in names]
            work: dict[str, _Theirs] = {}
            for table in (*together, name):
                mine = known[table] or self._theirs(table, listed.get(table, {}))
                if mine:
                    work[table] = mine
            removed |= self._forgotten(name, work, listed, dry)
        return {name: what for name, what in removed.items() if what}

    def _forgotten(
        self, name: str, work: Mapping[str, _Theirs], listed: Mapping[str, Mapping[str, int]],
        dry: bool,
    ) -> dict[str, Removed]:  # fmt: skip
        """Take what ``work`` holds by table out of a table, and out of its day tiles."""
        removed = {}
        for table, mine in work.items():
            removed[table] = self._counted(table, mine, listed.get(table, {}))
            if mine.snapshots:
                self._concerned(table, mine.snapshots)
        if dry or not work:
            return removed
        try:
            self._taken_out(name, work)
            for table, mine in work.items():
                self._dropped(table, mine)
                self._say(f"{table}: {removed[table].words()}")
        except OvertakenError as error:  # found again by the next sweep
            self._say(f"files of {error} were replaced meanwhile: they are looked at again")
        return removed

    def _of_sources(self, name: str, listed: Mapping[str, int]) -> _Theirs | None:
        """The files of a table that others are traced by, having learned what is in them."""
        spec = TABLES[name]
        if not spec.users.columns or not set(TRACES) & set(spec.schema.names):
            return None
        theirs = self._theirs(name, listed)
        for path in theirs.rows:
            self._search.learn(name, path)
        return theirs

    def _theirs(self, name: str, listed: Mapping[str, int]) -> _Theirs:
        table = self._store.iceberg(name)
        current = current_files(table)
        by_snapshot = snapshots_with(table)
        named = set(current).union(*by_snapshot.values())
        theirs = _Theirs()
        for path in sorted(named):
            count = self._search.count(name, path)
            if count:
                theirs.rows[path] = count
                if path in current:
                    theirs.current.setdefault(_hour(current[path]), []).append(path)
        theirs.snapshots = frozenset(
            number for number, paths in by_snapshot.items() if not paths.isdisjoint(theirs.rows)
        )
        for path in sorted(set(listed) - named):
            if self._is_theirs(name, path):
                theirs.loose.append(path)
        theirs.stale = self._stale(name, current)
        counted = self.rows_by_hour.setdefault(name, {})
        for hour, paths in theirs.current.items():
            counted.setdefault(hour, sum(theirs.rows[path] for path in paths))
        return theirs

    def _is_theirs(self, name: str, path: str) -> bool:
        """Whether a file that no snapshot names holds rows of theirs, or may."""
        try:
            return self._search.count(name, path) > 0
        except FileNotFoundError:
            return False  # whoever wrote it has cleaned up
        except Exception:  # a part of a file, of another's columns, or none of Parquet
            return True

    def _stale(self, name: str, current: Mapping[str, DataFile]) -> tuple[str, ...]:
        """Hours that hold fewer rows than their completion says; aged quarantine holds none."""
        rows: dict[str, int] = {}
        for file in current.values():
            rows[_hour(file)] = rows.get(_hour(file), 0) + file.record_count
        known = self._store.ledger.completions(name, *_ALWAYS)
        kept = [hour for hour in known if name != "quarantine" or hour in rows]
        return tuple(hour for hour in kept if known[hour].rows > rows.get(hour, 0))

    def _counted(self, name: str, theirs: _Theirs, listed: Mapping[str, int]) -> Removed:
        """What taking them out removes."""
        current = [path for paths in theirs.current.values() for path in paths]
        doomed = [*theirs.rows, *theirs.loose]
        labels = [
            label
            for label, ref in self._store.iceberg(name).refs().items()
            if ref.snapshot_id in theirs.snapshots and label != MAIN_BRANCH
        ]
        return Removed(
            rows=sum(theirs.rows[path] for path in current),
            files=len(current),
            loose=len(theirs.loose),
            bytes=sum(listed.get(path, 0) for path in doomed),
            snapshots=len(theirs.snapshots),
            tags=tuple(sorted(labels)),
        )

    # Writing -----------------------------------------------------------------------------------

    def _taken_out(self, name: str, work: Mapping[str, _Theirs]) -> None:
        """Put rewritten files in the place of theirs, and bring completions up to date."""
        made = {
            path: rewritten_without(path, table, self._search)
            for table, mine in work.items()
            for paths in mine.current.values()
            for path in paths
        }
        changed = {hour for mine in work.values() for hour in (*mine.current, *mine.stale)}
        try:
            if changed:
                self._commit(name, work, made, changed)
        except (OvertakenError, BusyError):
            for path in made.values():
                if path is not None:
                    storage.remove(path)
            raise

    def _commit(
        self, name: str, work: Mapping[str, _Theirs], made: Mapping[str, str | None],
        changed: set[str],
    ) -> None:  # fmt: skip
        ledger = self._store.ledger
        for _ in range(_TRIES):
            with ledger.quiet(sorted(changed)) as busy:
                if not busy:
                    valid = self._valid_days(name)
                    snapshots = {
                        table: swap(self._store, table, mine.current, made)
                        for table, mine in work.items()
                    }
                    ledger.complete(self._up_to_date(name, work, snapshots, valid))
                    return
            time.sleep(_PAUSE_SECONDS)
        raise BusyError(
            f"{name} is being written at {', '.join(busy[:5])} ({len(busy)} hours): nothing of it "
            "was changed. Run the same command again when those jobs are done"
        )

    def _up_to_date(
        self, name: str, work: Mapping[str, _Theirs], snapshots: Mapping[str, int | None],
        valid: Mapping[str, list[str]],
    ) -> list[Completion]:  # fmt: skip
        """The completions of what changed, with the rows and content that there are now."""
        found: dict[str, dict[str, Completion]] = {}
        for table, mine in work.items():
            files: dict[str, list[DataFile]] = {}
            for file in current_files(self._store.iceberg(table)).values():
                files.setdefault(_hour(file), []).append(file)
            known = self._store.ledger.completions(table, *_ALWAYS)
            found[table] = {
                hour: replace(
                    known[hour],
                    rows=sum(file.record_count for file in files.get(hour, ())),
                    content_hash=self._content(table, files.get(hour, ()), known[hour]),
                    snapshot_id=snapshots[table],
                )
                for hour in sorted({*mine.current, *mine.stale})
                if hour in known
                and known[hour].rows != sum(file.record_count for file in files.get(hour, ()))
            }
        if valid:
            self._renew_days(name, found, valid)
        return [one for of in found.values() for one in of.values()]

    def _content(self, table: str, files: Iterable[DataFile], known: Completion) -> str:
        if table in _DAYS.values():
            return known.content_hash  # follows from its hours
        paths = [file.file_path.removeprefix(_SCHEME) for file in files]
        return self._contents.of(table, paths, known.content_hash)

    def _valid_days(self, name: str) -> dict[str, list[str]]:
        """Days with a day tile that was made of the hours that the ledger knows, by last hour."""
        if name not in _DAYS:
            return {}
        ledger = self._store.ledger
        known = ledger.completions(name, *_ALWAYS)
        made = ledger.completions(_DAYS[name], *_ALWAYS)
        return {
            last: within
            for last, within in ended_days(sorted(known), self._zone).items()
            if last in made
            and made[last].content_hash
            == day_content({hour: known[hour].content_hash for hour in within})
        }

    def _renew_days(
        self, name: str, found: dict[str, dict[str, Completion]], valid: Mapping[str, list[str]]
    ) -> None:
        """Day tiles that stood for their hours still do: both have lost the same rows."""
        hours, days = found.get(name, {}), found.setdefault(_DAYS[name], {})
        known = self._store.ledger.completions(name, *_ALWAYS)
        made = self._store.ledger.completions(_DAYS[name], *_ALWAYS)
        contents = {hour: one.content_hash for hour, one in (known | hours).items()}
        for last, within in valid.items():
            if not hours.keys().isdisjoint(within):
                hashed = day_content({hour: contents[hour] for hour in within})
                days[last] = replace(days.get(last, made[last]), content_hash=hashed)

    def _dropped(self, name: str, theirs: _Theirs) -> None:
        """Drop the snapshots that name files of theirs, and remove the files."""
        if theirs.snapshots:
            drop_snapshots(self._store, name, set(theirs.rows))
        for path in (*sorted(theirs.rows), *theirs.loose):
            storage.remove(path)


_ALWAYS: Final = ("0", "9")
_SCHEME: Final = "file://"


def _hour(file: DataFile) -> str:
    return str(file.partition[0])


def _rank(name: str) -> tuple[int, int]:
    """Traced tables first, those by which they are traced last and `events` last of all."""
    users = TABLES[name].users
    place = list(TABLES).index(name)
    if users.traced:
        return 0, place
    if users.columns and set(TRACES) & set(TABLES[name].schema.names):
        return 2, -place
    return 1, place
