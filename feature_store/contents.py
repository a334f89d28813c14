"""Content hashes of hours from their files, as the jobs that wrote them would have them.

Counts and features are hashed by their rows, so that the hash of an hour without somebody's rows is
that of an hour that never had them; other tables by the bytes of their files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store import storage
from feature_store.counting import digest
from feature_store.rowhash import add_sums, key_hashes, sum_of_rows
from feature_store.views import VIEWS, FeatureView

__all__ = ["EMPTY", "ContentHashes"]

EMPTY: Final = "empty"
"""Of an hour without rows, see ``Staged.add_empty``."""

_SHA256: Final = 64
_HALF: Final = 32


class ContentHashes:
    """Content hashes of hours; what was read of a file is remembered, as files never change."""

    def __init__(self) -> None:
        self._digests: dict[str, int] = {}
        self._shas: dict[str, str] = {}

    def of(self, table: str, paths: Iterable[str], before: str) -> str:
        """That of an hour that consists of ``paths``; in the form of ``before``, its hash with
        other rows: a SHA-256 of one file, or the sum of the digests of parts."""
        paths = sorted(paths)
        if not paths:
            return EMPTY
        if len(before) == _SHA256 and table not in _BY_ROWS:
            shas = [self._sha(path) for path in paths]
            if len(shas) == 1:
                return shas[0]
            return hashlib.sha256("|".join(sorted(shas)).encode()).hexdigest()
        total = 0
        for path in paths:
            total = add_sums(total, self._digest(table, path))
        return f"{total:032x}"

    def _digest(self, table: str, path: str) -> int:
        if path not in self._digests:
            by_rows = _BY_ROWS.get(table)
            if by_rows is None:
                self._digests[path] = int(self._sha(path)[:_HALF], 16)
            else:
                total = 0
                with storage.parquet_file(path) as file:
                    for group in range(file.num_row_groups):
                        total = add_sums(total, by_rows(file.read_row_group(group)))
                self._digests[path] = total
        return self._digests[path]

    def _sha(self, path: str) -> str:
        if path not in self._shas:
            self._shas[path] = storage.sha256(path)
        return self._shas[path]


def _features_digest(view: FeatureView) -> Callable[[pa.Table], int]:
    """As :func:`feature_store.extraction.work` digests the features of ``view``."""

    def of_rows(rows: pa.Table) -> int:
        counts = [rows[name].to_numpy() for name in view.count_columns()]
        times = [
            pc.fill_null(pc.cast(rows[name], pa.int64()), 0).to_numpy()
            for name in view.recency_columns()
        ]
        hashes = key_hashes([rows[key] for key in view.keys])
        return sum_of_rows(np.stack([hashes, *counts, *times], axis=1))

    return of_rows


_BY_ROWS: Final = {
    **{view.counts_table: digest for view in VIEWS},
    **{view.features_table: _features_digest(view) for view in VIEWS},
}
