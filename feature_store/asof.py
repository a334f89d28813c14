"""The as-of join: the newest row of a key that was known at an instant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.windows import Ints, key_codes

__all__ = ["joined", "latest_known"]

_NEWEST: Final = np.iinfo(np.int64).max


def latest_known(lookups: pa.Table, keys: Sequence[str]) -> Ints:
    """For every row, the index of the newest known row of its key with ``known.as_of <= as_of``.

    Args:
        lookups: key columns; ``as_of``; ``recorded``, which orders known rows of one ``as_of``; and
            ``asked``, which is false for known rows.

    Returns:
        (rows,), -1 where there is none. A known row finds itself.
    """
    codes = key_codes(lookups, keys)
    asked = lookups["asked"].to_numpy().astype(bool)
    recorded = np.where(asked, _NEWEST, lookups["recorded"].to_numpy())
    # Known rows sort before requests of the same instant: `<=`, inclusive.
    order = np.lexsort((recorded, lookups["as_of"].to_numpy(), codes))
    newest = np.maximum.accumulate(np.where(asked[order], -1, np.arange(len(order))))
    found = (newest >= 0) & (codes[order[newest]] == codes[order])
    result = np.full(len(order), -1, np.int64)
    result[order] = np.where(found, order[newest], -1)
    return result


def joined(known: pa.Table, asked: pa.Table, keys: Sequence[str], recorded: Ints) -> Ints:
    """The place in ``known`` of the newest row at or before each row asked; -1 for none.

    Args:
        known, asked: ``keys``, none of them null, and ``as_of``.
        recorded: orders known rows of one ``as_of``, (known rows,).
    """
    count = known.num_rows
    instants = [pc.cast(rows["as_of"], pa.int64()).to_numpy() for rows in (known, asked)]
    lookups = pa.concat_tables([known.select(keys), asked.select(keys)])
    lookups = lookups.append_column("as_of", pa.array(np.concatenate(instants)))
    order = np.concatenate([recorded, np.zeros(asked.num_rows, np.int64)])
    lookups = lookups.append_column("recorded", pa.array(order))
    lookups = lookups.append_column("asked", pa.array(np.arange(lookups.num_rows) >= count))
    return latest_known(lookups, keys)[count:]
