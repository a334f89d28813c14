"""What was written and is not visible yet: files, rows and content of the hours of one table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["Staged", "StoreError"]


class StoreError(RuntimeError):
    """What was staged does not fit its table, or an hour that is needed is not there."""


@dataclass
class Staged:
    """Files of one table, ready to be committed: paths, row counts and content hashes by hour."""

    table: str
    files: dict[str, list[str]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    content: dict[str, str] = field(default_factory=dict)

    @property
    def hours(self) -> list[str]:
        return sorted(self.rows)

    def add_empty(self, hours: Iterable[str]) -> Staged:
        """Record the hours that have no rows, so that they are complete as well."""
        for hour in hours:
            self.files.setdefault(hour, [])
            self.rows.setdefault(hour, 0)
            self.content.setdefault(hour, "empty")
        return self
