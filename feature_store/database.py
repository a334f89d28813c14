"""The catalog's database as its users see it: waited for while it restarts, named when it fails.

Both the ledger and pyiceberg's catalog go through one SQLAlchemy engine, and so through this.
"""

from __future__ import annotations

import time
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.exc import InterfaceError, OperationalError

__all__ = ["LOCK_WAIT_S", "LedgerError", "patient", "reachable"]

_PAUSES: Final = (0.5, 1.0, 2.0, 4.0)
"""Seconds between tries to connect."""

LOCK_WAIT_S: Final = 600
"""How long a session waits for rows or tables that another one holds: longer than any commit."""


class LedgerError(RuntimeError):
    """The catalog's database cannot be reached or does not answer."""


def reachable(uri: str) -> None:
    """Wait, with backoff and some seconds in all, until the database at ``uri`` answers.

    Raises:
        LedgerError: when it does not, with its address and what to do.
    """
    engine = patient(sa.create_engine(uri))
    try:
        with engine.connect():
            pass
    finally:
        engine.dispose()


def patient(engine: sa.Engine) -> sa.Engine:
    """``engine``, which from now on waits while its database restarts and raises LedgerError, with
    the address and what to do, where the database fails or keeps a lock for too long."""

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Dialect, _record: object, arguments: Any, parameters: Any) -> Any:
        driver: Any = dialect.loaded_dbapi
        for pause in _PAUSES:
            try:
                return driver.connect(*arguments, **parameters)
            except driver.OperationalError:
                time.sleep(pause)
        return driver.connect(*arguments, **parameters)

    @event.listens_for(engine, "connect")
    def limit(connection: Any, _record: object) -> None:
        if engine.dialect.name == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(f"SET lock_timeout = '{LOCK_WAIT_S}s'")
            connection.commit()

    @event.listens_for(engine, "handle_error")
    def named(context: sa.engine.ExceptionContext) -> None:
        error = context.sqlalchemy_exception
        if isinstance(error, OperationalError | InterfaceError) and not context.is_pre_ping:
            raise LedgerError(_sentence(engine, error)) from error

    return engine


def _sentence(engine: sa.Engine, error: OperationalError | InterfaceError) -> str:
    address = engine.url.render_as_string(hide_password=True)
    said = " ".join(str(error.orig).split())
    if "lock timeout" in said:
        return (
            f"the catalog database {address} is locked: a session has held what this one needs for "
            f"{LOCK_WAIT_S} s ({said}). Find it in pg_stat_activity, with state 'idle in "
            "transaction' or 'active', end it, and run the same command again."
        )
    return (
        f"the catalog database {address} does not answer: {said.rstrip('.')}. Start it "
        "(`make run`, or your PostgreSQL server) or correct RANKMILL_CATALOG_URI, and run the "
        "same command again."
    )
