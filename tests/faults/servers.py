"""Servers that are gone, or hold on to what a job needs."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator

import sqlalchemy as sa

from local.stack import LocalError
from tests.e2e.stack import Running
from tests.faults.small_store import SmallStore
from tests.faults.trials import Dealt, Trial
from tests.faults.victim import Victim, strike
from tests.faults.worlds import Bucket

__all__ = ["database_killed", "database_locked", "job_killed", "mlflow_killed", "store_cut_off"]

AWAY_S = (1.0, 4.0, 30.0)
"""How long a server is away: a job may wait for it, or give up before it is back."""


def job_killed(store: SmallStore, trial: Trial, at: float) -> Dealt:
    """SIGKILL to the JVM, the Python process, or the whole group."""

    @contextlib.contextmanager
    def struck(victim: Victim) -> Iterator[str]:
        yield strike(victim, trial.way)

    return store.meet(trial, at, struck)


def database_killed(store: SmallStore, trial: Trial, at: float) -> Dealt:
    """SIGKILL to PostgreSQL, all of it; it comes back after seconds."""

    @contextlib.contextmanager
    def away(_victim: Victim) -> Iterator[str]:
        store.run.kill("postgres")
        try:
            yield "postgres"
        finally:
            _start_again(store.run)

    return store.meet(trial, at, away, trial.chance.choice(AWAY_S))


def _start_again(run: Running) -> None:
    """Start the server; what is left of the last one may still hold its memory for a moment."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return run.start_database()
        except LocalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def database_locked(store: SmallStore, trial: Trial, at: float) -> Dealt:
    """A session holds the catalog's tables, and the job's fences, for seconds."""
    engine = sa.create_engine(store.run.env["RANKMILL_CATALOG_URI"])

    @contextlib.contextmanager
    def locked(_victim: Victim) -> Iterator[str]:
        with engine.connect() as session:
            _lock(session, "iceberg_tables, hours, fences")
            yield "tables"
            session.rollback()

    try:
        return store.meet(trial, at, locked, trial.chance.uniform(2.0, 8.0))
    finally:
        engine.dispose()


def _lock(session: sa.Connection, tables: str) -> None:
    """Lock all of ``tables``. As in any migration, none is held for long while another is waited
    for: a job may hold the one and need the other, until its patience of ten minutes ends."""
    deadline = time.monotonic() + 60
    while True:
        try:
            session.execute(sa.text("SET LOCAL lock_timeout = '500ms'"))
            session.execute(sa.text(f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE"))
            return
        except sa.exc.OperationalError:
            session.rollback()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def mlflow_killed(store: SmallStore, trial: Trial, at: float) -> Dealt:
    """SIGKILL to the tracking server; it comes back after seconds."""

    @contextlib.contextmanager
    def away(_victim: Victim) -> Iterator[str]:
        store.run.kill("mlflow")
        try:
            yield "mlflow"
        finally:
            store.run.start_mlflow()
            store.run.wait_for_mlflow()

    return store.meet(trial, at, away, trial.chance.choice(AWAY_S))


def store_cut_off(store: SmallStore, trial: Trial, at: float) -> Dealt:
    """The bucket's server hangs (SIGSTOP), or dies and comes back after seconds."""
    assert isinstance(store.world, Bucket)
    server = store.world.server
    hangs = trial.number % 2 == 0

    @contextlib.contextmanager
    def away(_victim: Victim) -> Iterator[str]:
        process = server.process
        assert process is not None
        if hangs:
            process.send_signal(signal.SIGSTOP)
        else:
            server.stop(signal.SIGKILL)
        try:
            yield "store hangs" if hangs else "store killed"
        finally:
            if hangs:
                process.send_signal(signal.SIGCONT)
            else:
                server.start()

    return store.meet(trial, at, away, trial.chance.choice(AWAY_S))
