"""The rows that are about given users: found in tables and files, as their declarations say."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import reduce
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_store import storage
from feature_store.schemas import TABLES
from feature_store.table_spec import USER_COLUMN, USER_NODE

__all__ = ["TRACES", "UserSearch"]

TRACES: Final = tuple(dict.fromkeys(c for spec in TABLES.values() for c in spec.users.traced))
"""Columns that name what is a user's: where the user is named beside them, they are learned."""

_BY_HOUR: Final = ("event_id",)
"""Names that are unique within an hour only."""


@dataclass
class UserSearch:
    """Finds the rows of some users, and learns the names of what is theirs on the way.

    A file that was looked at is not read again: files of tables never change.

    Attributes:
        traced: by column of ``TRACES``, names of the users' events, samples and groups so far.
    """

    users: tuple[str, ...]
    traced: dict[str, set[str]] = field(default_factory=lambda: {name: set() for name in TRACES})
    _counts: dict[tuple[str, int], int] = field(default_factory=dict)
    _learned: set[str] = field(default_factory=set)

    def count(self, table: str, path: str) -> int:
        """How many rows of a file of ``table`` are theirs; reads the columns that tell, of row
        groups that may have any.

        Raises:
            OSError, ArrowInvalid: for a file that is gone, or no whole Parquet file.
        """
        columns = TABLES[table].users.traced
        place = path, sum(len(self.traced[name]) for name in columns)
        if place not in self._counts:
            with storage.parquet_file(path) as file:
                names = self._columns(table)
                self._counts[place] = sum(
                    pc.sum(self.mask(table, file.read_row_group(group, columns=names))).as_py() or 0
                    for group in self._groups(table, file)
                )
        return self._counts[place]

    def learn(self, table: str, path: str) -> None:
        """Remember the names of what is theirs in a file of ``table``, if it names users."""
        known = [name for name in TRACES if name in TABLES[table].schema.names]
        if not TABLES[table].users.columns or not known or path in self._learned:
            return
        with storage.parquet_file(path) as file:
            names = sorted({*self._columns(table), *known, "hour"})
            for group in self._groups(table, file):
                rows = file.read_row_group(group, columns=names)
                mine = rows.filter(self.mask(table, rows))
                for name in known:
                    found = pc.unique(pc.drop_null(_named(mine, name)))
                    self.traced[name].update(found.to_pylist())
        self._learned.add(path)

    def mask(self, table: str, rows: pa.Table) -> pa.ChunkedArray:
        """(rows,) which rows of ``table`` are theirs; never null."""
        spec, users = TABLES[table].users, pa.array(self.users, pa.string())
        found = [pc.is_in(rows[name], value_set=users) for name in spec.columns]
        for kind, name in spec.nodes:
            of_users = pc.fill_null(pc.equal(rows[kind], USER_NODE), False)
            found.append(pc.and_(of_users, pc.is_in(rows[name], value_set=users)))
        found += [self._in_json(rows[name]) for name in spec.json]
        for name in spec.traced:
            known = pa.array(sorted(self.traced[name]), pa.string())
            found.append(pc.is_in(_named(rows, name), value_set=known))
        return reduce(pc.or_, found)

    def _in_json(self, texts: pa.ChunkedArray) -> pa.ChunkedArray:
        """Which JSON objects are of one of the users; only those that hold the id are parsed."""
        wanted = {json.dumps(user): user for user in self.users}
        found = []
        for chunk in texts.chunks:
            likely = reduce(pc.or_, (pc.match_substring(chunk, text) for text in wanted))
            likely = pc.fill_null(likely, False)
            found.append(pa.array([
                flag and json.loads(text).get(USER_COLUMN) in self.users
                for flag, text in zip(likely.to_pylist(), chunk.to_pylist(), strict=True)
            ], pa.bool_()))  # fmt: skip
        return pa.chunked_array(found, pa.bool_())

    @staticmethod
    def _columns(table: str) -> list[str]:
        """What must be read to tell."""
        spec = TABLES[table].users
        hour = ("hour",) if set(_BY_HOUR) & set(spec.traced) else ()
        ends = (column for pair in spec.nodes for column in pair)
        return [*dict.fromkeys((*spec.columns, *ends, *spec.json, *spec.traced, *hour))]

    def _groups(self, table: str, file: pq.ParquetFile) -> Iterable[int]:
        """The row groups that may have rows of them, as far as their bounds say."""
        spec = TABLES[table].users
        leaves = file.metadata.schema
        places = [n for n in range(len(leaves)) if leaves.column(n).path in spec.columns]
        for group in range(file.num_row_groups):
            of = file.metadata.row_group(group)
            bounds = (of.column(place).statistics for place in places)
            bounded = not (spec.nodes or spec.json or spec.traced)
            if not bounded or any(self._within(known) for known in bounds):
                yield group

    def _within(self, known: pq.Statistics | None) -> bool:
        if known is None or not known.has_min_max:
            return True
        return any(known.min <= user <= known.max for user in self.users)


def _named(rows: pa.Table, column: str) -> pa.ChunkedArray:
    """The names in a column, unique over all hours."""
    if column not in _BY_HOUR:
        return rows[column]
    return pc.binary_join_element_wise(rows["hour"], rows[column], "|")
