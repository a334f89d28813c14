"""Files of the tables that cannot be read: which one, what it held, and what makes it again."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import pyarrow as pa

from feature_store.schemas import ENTITY_TABLES, TABLES
from feature_store.sequence_views import SEQUENCE_VIEWS
from feature_store.staged import StoreError

__all__ = ["MADE_BY", "DamagedFileError", "is_damage", "naming"]

_OTHERS: Final = {
    **dict.fromkeys(("events", "quarantine", *ENTITY_TABLES), "ingest_events"),
    "gate_results": "validate_events",
    **dict.fromkeys(("samples", "outcomes", "behaviour"), "build_samples"),
    **{view.table: "build_samples" for view in SEQUENCE_VIEWS},
    "edges": "build_graph",
    "node_embeddings": "embed_graph",
    **dict.fromkeys(("evaluations", "evaluation_groups"), "evaluate"),
    "promotions": "promote",
}
MADE_BY: Final[Mapping[str, str]] = {
    table: _OTHERS.get(table, "extract_features") for table in TABLES
}
"""The job that writes a table."""

_OF_DAYS: Final = ("build_graph", "embed_graph")
_PLACE: Final = re.compile(r"/rankmill/(\w+)/data/\w+/(\d{4}-\d\d-\d\dT\d\d)?[^/]*$")


class DamagedFileError(StoreError):
    """A file that a table names is gone, cut short, or not what was written.

    Its message is one line: it comes out of Spark's tasks as a text only.

    Attributes:
        reason: what Arrow says.
    """

    def __init__(self, path: str, error: Exception) -> None:
        self.reason = " ".join(str(error).split()).rstrip(".")
        gone = isinstance(error, FileNotFoundError)
        what = "is gone" if gone else f"is damaged ({self.reason})"
        super().__init__(f"{path} {what}. {_remedy(path)}")


def _remedy(path: str) -> str:
    place = _PLACE.search(path)
    if place is None or place[1] not in MADE_BY:
        return "Write it again, or restore it from a backup."
    table, hour = place[1], place[2]
    if hour is None or table == "promotions":
        return f"It belongs to table {table}; restore it from a backup."
    job = MADE_BY[table]
    how = f"--hour {hour}"
    if job in _OF_DAYS:
        how = f"--date D of the business day that ends with {hour}"
    return (
        f"It holds {hour} of table {table}. Make that again with: spark-submit jobs/{job}.py "
        f"{how}; then run this command again."
    )


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Raise DamagedFileError for what shows, while ``path`` is read, that the file is damaged."""
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        if not is_damage(error):
            raise
        raise DamagedFileError(path, error) from error


def is_damage(error: Exception) -> bool:
    """Whether an error of reading speaks of the file, and not of the way to it.

    Arrow's own findings (no footer, a page that fails its checksum, a stream that ends) bear no
    number of the system's; a bucket's bear the name of who did not answer.
    """
    if isinstance(error, pa.ArrowInvalid | FileNotFoundError):
        return True
    return isinstance(error, OSError) and error.errno is None and "AWS Error" not in str(error)
