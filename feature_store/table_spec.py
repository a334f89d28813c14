"""What a table declares: its columns, its partition, and how its rows tell whose they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pyarrow as pa

__all__ = ["NOBODY", "OF_USER", "USER_COLUMN", "USER_NODE", "TableSpec", "UserRows"]

USER_COLUMN: Final = "user_id"
"""What every column of users is called, in tables as in the JSON of rejected rows."""

USER_NODE: Final = "user"
"""The type of nodes that are users."""


@dataclass(frozen=True)
class UserRows:
    """Which rows of a table are somebody's: those that any of these says so of.

    Attributes:
        columns: hold the user's id.
        nodes: (type, id): the id is a user's where the type is ``USER_NODE``.
        json: texts of JSON objects with the id under ``USER_COLUMN``.
        traced: hold the name of an event, a sample or a group that is the user's, as tables with
            the same column and ``columns`` say.
    """

    columns: tuple[str, ...] = ()
    nodes: tuple[tuple[str, str], ...] = ()
    json: tuple[str, ...] = ()
    traced: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.columns or self.nodes or self.json or self.traced)


NOBODY: Final = UserRows()
OF_USER: Final = UserRows(columns=(USER_COLUMN,))


@dataclass(frozen=True)
class TableSpec:
    """A table's columns, its identity partition columns (the first, if any, is `hour`), and whose
    its rows are."""

    schema: pa.Schema
    partition: tuple[str, ...] = ("hour",)
    users: UserRows = NOBODY
