"""Which hours are complete, and who may write: two tables in the catalog's database.

``hours`` records completion apart from the data, since an empty hour leaves nothing in an Iceberg
plan. ``fences`` holds, per stage and hour, the token of the run that may write; whoever starts
later takes it over, and a writer that lost it is refused at its commit.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from feature_store.database import LedgerError, patient

__all__ = ["Completion", "FencedOutError", "Ledger", "LedgerError"]

_METADATA = sa.MetaData()

_HOURS = sa.Table(
    "hours",
    _METADATA,
    sa.Column("table_name", sa.Text, primary_key=True),
    sa.Column("hour", sa.Text, primary_key=True),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("content_hash", sa.Text, nullable=False),
    sa.Column("snapshot_id", sa.BigInteger, nullable=True),
    sa.Column("validated", sa.Boolean, nullable=True),
    sa.Column("completed_at", sa.DateTime(timezone=True), nullable=False),
)

_FENCES = sa.Table(
    "fences",
    _METADATA,
    sa.Column("stage", sa.Text, primary_key=True),
    sa.Column("hour", sa.Text, primary_key=True),
    sa.Column("token", sa.Text, nullable=False),
)


_AT_ONCE = 1000
"""Rows of one statement."""


class FencedOutError(RuntimeError):
    """A later run took this stage and hour over; nothing of this one may be written any more."""


@dataclass(frozen=True)
class Completion:
    """One completed hour of one table; ``validated`` is None until a gate has judged it."""

    table: str
    hour: str
    run_id: str
    rows: int
    content_hash: str
    snapshot_id: int | None
    validated: bool | None


class Ledger:
    """Reads and writes ``hours`` and ``fences`` through one SQLAlchemy engine.

    Raises:
        LedgerError: when the database does not answer, with its address and what to do.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = patient(engine)
        with self._engine.begin() as connection:
            # Two first runs may race to create the tables; the lock makes the second one wait.
            if engine.dialect.name == "postgresql":
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(7245001)"))
            _METADATA.create_all(connection)

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """A transaction on the ledger's database, for what is kept beside it.

        Raises:
            LedgerError: when the database does not answer.
        """
        with self._engine.begin() as connection:
            yield connection

    def _upsert(self, table: sa.Table, rows: Sequence[Mapping[str, object]]) -> sa.Insert:
        keys = [column.name for column in table.primary_key]
        insert = (postgresql if self._engine.dialect.name == "postgresql" else sqlite).insert(table)
        insert = insert.values(list(rows))
        changed = {c.name: insert.excluded[c.name] for c in table.columns if c.name not in keys}
        upsert: sa.Insert = insert.on_conflict_do_update(index_elements=keys, set_=changed)
        return upsert

    def take_fence(self, stage: str, hours: Sequence[str], token: str) -> None:
        """Make ``token`` the one writer of ``stage`` at ``hours``; earlier holders lose their
        right.

        Waits while an earlier holder is inside its commit.
        """
        rows = [{"stage": stage, "hour": hour, "token": token} for hour in sorted(hours)]
        if rows:
            with self._engine.begin() as connection:
                connection.execute(self._upsert(_FENCES, rows))

    @contextmanager
    def holding(self, stage: str, hours: Sequence[str], token: str) -> Iterator[None]:
        """Keep the fence locked for the duration of a commit.

        Raises:
            FencedOutError: when another run has taken any of the hours over.
        """
        wanted = sorted(hours)
        query = (
            sa.select(_FENCES.c.hour, _FENCES.c.token)
            .where(_FENCES.c.stage == stage, _FENCES.c.hour.in_(wanted))
            .order_by(_FENCES.c.hour)
            .with_for_update()
        )
        with self._engine.begin() as connection:
            held: dict[str, str] = {
                str(row.hour): str(row.token) for row in connection.execute(query)
            }
            lost = [hour for hour in wanted if held.get(hour) != token]
            if lost:
                raise FencedOutError(
                    f"{stage} of {lost[0]} ({len(lost)} of {len(wanted)} hours) was taken over by "
                    f"run {held.get(lost[0])!r}; this run ({token!r}) writes nothing. "
                    "Look at the later run's log."
                )
            yield

    def take_over(self, token: str, leave: Sequence[str] = ()) -> list[tuple[str, str]]:
        """Make ``token`` the holder of every fence, but those of stages that begin with one of
        ``leave``: whoever runs now commits nothing any more, whoever starts later takes it back.

        Nobody is waited for.

        Returns:
            Stages and hours that are inside a commit, and were left to their holders.
        """
        mine = sa.select(_FENCES.c.stage, _FENCES.c.hour).where(
            _FENCES.c.token != token, *(sa.not_(_FENCES.c.stage.startswith(s)) for s in leave)
        )
        with self._engine.begin() as connection:
            every = {tuple(row) for row in connection.execute(mine).all()}
            free = {
                tuple(row) for row in connection.execute(mine.with_for_update(skip_locked=True))
            }
            rows = [{"stage": stage, "hour": hour, "token": token} for stage, hour in sorted(free)]
            for start in range(0, len(rows), _AT_ONCE):
                connection.execute(self._upsert(_FENCES, rows[start : start + _AT_ONCE]))
        return sorted(every - free)

    @contextmanager
    def quiet(self, hours: Sequence[str]) -> Iterator[list[str]]:
        """As :meth:`undisturbed`, of many hours; yields those of which a fence is in use."""
        mine = sa.select(_FENCES.c.stage, _FENCES.c.hour).where(_FENCES.c.hour.in_(hours))
        with self._engine.begin() as connection:
            every = {tuple(row) for row in connection.execute(mine)}
            free = {
                tuple(row) for row in connection.execute(mine.with_for_update(skip_locked=True))
            }
            yield sorted({hour for _, hour in every - free})

    @contextmanager
    def undisturbed(self, hour: str) -> Iterator[bool]:
        """Keep every stage's fence at ``hour`` locked, whoever holds it; False when one is in use.

        Nobody loses a fence, and nobody is waited for: a holder that is inside its commit goes
        first, one that comes to its commit meanwhile waits.
        """
        mine = sa.select(_FENCES.c.stage).where(_FENCES.c.hour == hour)
        with self._engine.begin() as connection:
            every = connection.execute(mine).all()
            free = connection.execute(mine.with_for_update(skip_locked=True)).all()
            yield len(free) == len(every)

    def drop_fences(self, before: str, dry: bool = False) -> int:
        """Forget who may write the hours before ``before``; a run that still wants to must start
        anew. Fences of what is no hour stay, and so do those in use.

        Args:
            dry: only count them.

        Returns:
            How many there are, or were.
        """
        old = sa.select(_FENCES.c.stage, _FENCES.c.hour).where(_FENCES.c.hour < before)
        with self._engine.begin() as connection:
            free = connection.execute(old.with_for_update(skip_locked=True)).all()
            if free and not dry:
                keys = sa.tuple_(_FENCES.c.stage, _FENCES.c.hour)
                gone = [(row.stage, row.hour) for row in free]
                for first in range(0, len(gone), _AT_ONCE):
                    some = gone[first : first + _AT_ONCE]
                    connection.execute(sa.delete(_FENCES).where(keys.in_(some)))
        return len(free)

    def moved(self, table: str, hour: str, snapshot_id: int | None) -> None:
        """Record that the same content of ``hour`` lies in another snapshot now."""
        with self._engine.begin() as connection:
            connection.execute(
                sa.update(_HOURS)
                .where(_HOURS.c.table_name == table, _HOURS.c.hour == hour)
                .values(snapshot_id=snapshot_id)
            )

    def complete(self, completions: Sequence[Completion]) -> None:
        """Record completed hours, replacing what was recorded of them before."""
        now = dt.datetime.now(dt.UTC)
        rows = [
            {
                "table_name": c.table,
                "hour": c.hour,
                "run_id": c.run_id,
                "rows": c.rows,
                "content_hash": c.content_hash,
                "snapshot_id": c.snapshot_id,
                "validated": c.validated,
                "completed_at": now,
            }
            for c in completions
        ]
        if rows:
            with self._engine.begin() as connection:
                connection.execute(self._upsert(_HOURS, rows))

    def forget(self, table: str, hours: Sequence[str]) -> None:
        """Withdraw the completion of hours that are about to be replaced by other content."""
        with self._engine.begin() as connection:
            connection.execute(
                sa.delete(_HOURS).where(_HOURS.c.table_name == table, _HOURS.c.hour.in_(hours))
            )

    def validate(self, table: str, verdicts: Mapping[str, bool]) -> None:
        """Record a gate's verdict on completed hours."""
        with self._engine.begin() as connection:
            for verdict in (True, False):
                hours = [hour for hour, passed in verdicts.items() if passed is verdict]
                if hours:
                    connection.execute(
                        sa.update(_HOURS)
                        .where(_HOURS.c.table_name == table, _HOURS.c.hour.in_(hours))
                        .values(validated=verdict)
                    )

    def completions(self, table: str, first: str, last: str) -> dict[str, Completion]:
        """Completed hours of ``table`` in [first, last], validated or not, by hour and in order."""
        query = (
            sa.select(_HOURS)
            .where(_HOURS.c.table_name == table, _HOURS.c.hour.between(first, last))
            .order_by(_HOURS.c.hour)
        )
        with self._engine.begin() as connection:
            rows = connection.execute(query).all()
        return {
            row.hour: Completion(
                row.table_name, row.hour, row.run_id, row.rows, row.content_hash,
                row.snapshot_id, row.validated,
            )
            for row in rows
        }  # fmt: skip

    def readable(self, table: str, first: str, last: str) -> dict[str, Completion]:
        """Hours that a reader may use: completed and validated."""
        return {h: c for h, c in self.completions(table, first, last).items() if c.validated}

    def first_hour(self, table: str) -> str | None:
        """The earliest completed hour of ``table``, None when there is none."""
        query = sa.select(sa.func.min(_HOURS.c.hour)).where(_HOURS.c.table_name == table)
        with self._engine.begin() as connection:
            return connection.execute(query).scalar()

    def last_hour(self, table: str) -> str | None:
        """The latest hour of ``table`` that a reader may use, None when there is none."""
        query = sa.select(sa.func.max(_HOURS.c.hour)).where(
            _HOURS.c.table_name == table, _HOURS.c.validated.is_(True)
        )
        with self._engine.begin() as connection:
            return connection.execute(query).scalar()
