"""Who was forgotten: kept beside the ledger as salted hashes, so that no hour brings them back."""

from __future__ import annotations

import datetime as dt
import hashlib
import secrets
from collections.abc import Iterable, Sequence
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from feature_store.ledger import Ledger
from feature_store.table_spec import USER_COLUMN

__all__ = ["FORGOTTEN", "Tombstones"]

FORGOTTEN: Final = "forgotten"
"""How ingestion counts rows of users who are."""

_METADATA: Final = sa.MetaData()
_SALT: Final = sa.Table(
    "forgotten_salt",
    _METADATA,
    sa.Column("place", sa.Integer, primary_key=True),
    sa.Column("salt", sa.Text, nullable=False),
)
_USERS: Final = sa.Table(
    "forgotten_users",
    _METADATA,
    sa.Column("user_hash", sa.Text, primary_key=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("forgotten_at", sa.DateTime(timezone=True), nullable=False),
)
_LOCK: Final = 7245002
_BYTES: Final = 16


class Tombstones:
    """The forgotten users of a store, as keyed BLAKE2b hashes; no identifier can be read from them.

    Whoever has the database has the key as well, and can try identifiers that they know.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        with ledger.transaction() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
            _METADATA.create_all(connection)
            known = connection.execute(sa.select(_SALT.c.salt)).scalar()
            if known is None:
                known = secrets.token_hex(_BYTES)
                connection.execute(sa.insert(_SALT).values(place=0, salt=known))
        self._salt = bytes.fromhex(str(known))

    def record(self, users: Sequence[str], reason: str, run_id: str) -> dt.datetime:
        """Remember ``users``; those who are known keep their reason and time.

        Returns:
            When the first of them was recorded.
        """
        now = dt.datetime.now(dt.UTC)
        hashes = [self.hashed(user) for user in users]
        with self._ledger.transaction() as connection:
            query = sa.select(_USERS).where(_USERS.c.user_hash.in_(hashes))
            known = {row.user_hash: row.forgotten_at for row in connection.execute(query)}
        for hashed in hashes:
            if hashed not in known:
                self._add(hashed, reason, run_id, now)
        earliest: dt.datetime = min([now, *(_aware(instant) for instant in known.values())])
        return earliest

    def _add(self, hashed: str, reason: str, run_id: str, now: dt.datetime) -> None:
        row = {"user_hash": hashed, "reason": reason, "run_id": run_id, "forgotten_at": now}
        try:
            with self._ledger.transaction() as connection:
                connection.execute(sa.insert(_USERS).values(row))
        except IntegrityError:
            return  # another run was faster, which is as good

    def hashed(self, user: str) -> str:
        """What stands for ``user`` here, 32 hexadecimal digits."""
        return hashlib.blake2b(user.encode(), digest_size=_BYTES, key=self._salt).hexdigest()

    def hashes(self) -> frozenset[str]:
        """Everybody who was forgotten."""
        with self._ledger.transaction() as connection:
            return frozenset(connection.execute(sa.select(_USERS.c.user_hash)).scalars())

    def without(self, rows: pa.Table, hashes: frozenset[str]) -> pa.Table:
        """``rows`` but those whose user is among ``hashes``."""
        if not hashes or not rows.num_rows:
            return rows
        met: Iterable[str] = pc.unique(pc.drop_null(rows[USER_COLUMN])).to_pylist()
        gone = [user for user in met if self.hashed(user) in hashes]
        if not gone:
            return rows
        theirs = pc.is_in(rows[USER_COLUMN], value_set=pa.array(gone, pa.string()))
        return rows.filter(pc.invert(theirs))


def _aware(instant: dt.datetime) -> dt.datetime:
    """SQLite gives the time back without its zone."""
    return instant if instant.tzinfo else instant.replace(tzinfo=dt.UTC)
