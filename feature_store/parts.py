"""Files that tasks write of one hour of one table, and what they add up to."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store import storage
from feature_store.rowhash import add_sums
from feature_store.schemas import TABLES, optional
from feature_store.staged import Staged

__all__ = ["ROW_GROUP", "Part", "Target", "staged_parts", "write_hours", "write_part"]

ROW_GROUP: Final = 1 << 17
"""Rows of a row group of files sorted by key hash: what a range of hashes skips."""


@dataclass(frozen=True)
class Part:
    """A file of one hour of one table, written and not visible yet.

    Attributes:
        digest: 128 bits; the digests of an hour's parts add up to its content hash, see
            ``rowhash.add_sums``. A sum of row names where an hour may be split in any way, else 128
            bits of the SHA-256 of the file.
    """

    table: str
    hour: str
    path: str
    rows: int
    digest: int


def write_part(
    folder: str, table: str, hour: str, rows: pa.Table, digest: int | None = None
) -> Part:
    """Write ``rows`` in the declared columns and types of ``table``, under a fresh name.

    A fresh name, since an attempt that Spark repeats must not overwrite what another one returned.
    """
    path = f"{folder}/{hour}-{uuid.uuid4().hex}.parquet"
    schema = optional(TABLES[table].schema)
    rows = rows.select(schema.names).cast(schema)
    storage.write_table(rows, path, row_group_size=ROW_GROUP)
    if digest is None:
        digest = int(storage.sha256(path)[:32], 16)
    return Part(table, hour, path, rows.num_rows, digest)


@dataclass(frozen=True)
class Target:
    """A table that rows go to.

    Attributes:
        sort: columns that order an hour's rows totally, before ``unpack``.
        unpack: turns the rows of one file into the table's declared columns, where they are not in
            them yet.
        digest: of a file's rows, where an hour's content must not depend on how it was split.
    """

    table: str
    sort: tuple[str, ...]
    unpack: Callable[[pa.Table], pa.Table] | None = None
    digest: Callable[[pa.Table], int] | None = None


def write_hours(rows: pa.Table, target: Target, folder: str) -> Iterator[Part]:
    """Write ``rows``, in order, as one part per ``hour`` that has any."""
    if not rows.num_rows:
        return
    by = [(column, "ascending") for column in ("hour", *target.sort)]
    order = pc.sort_indices(rows, sort_keys=by)
    if np.any(np.diff(order.to_numpy().astype(np.int64)) != 1):  # wide rows are not copied again
        rows = rows.take(order)
    rows = rows.combine_chunks()
    hours = rows["hour"].combine_chunks().dictionary_encode()
    starts = np.flatnonzero(np.diff(hours.indices.to_numpy(), prepend=-1))
    for start, end in zip(starts, [*starts[1:], rows.num_rows], strict=True):
        hour, mine = rows["hour"][int(start)].as_py(), rows.slice(start, end - start)
        mine = target.unpack(mine) if target.unpack else mine
        digest = target.digest(mine) if target.digest else None
        yield write_part(folder, target.table, hour, mine, digest)


def staged_parts(
    parts: Iterable[Part], tables: Sequence[str], hours: Sequence[str]
) -> list[Staged]:
    """``parts`` as the staged ``hours`` of ``tables``; hours without any part are empty."""
    staged = {table: Staged(table) for table in tables}
    digests: dict[tuple[str, str], int] = {}
    for part in parts:
        of = staged[part.table]
        of.files.setdefault(part.hour, []).append(part.path)
        of.rows[part.hour] = of.rows.get(part.hour, 0) + part.rows
        place = part.table, part.hour
        digests[place] = add_sums(digests.get(place, 0), part.digest)
    for (table, hour), digest in digests.items():
        staged[table].content[hour] = f"{digest:032x}"
    return [of.add_empty(hours) for of in staged.values()]
