"""Rows to bin that lie on disk: LightGBM reads them in turn, and memory holds a batch of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import IO, Any, Final

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.base import LABEL_PREFIX, ModelError
from models.down_sampling import SAMPLE_COLUMN

__all__ = ["SpilledRows"]

_BATCH_ROWS: Final = 8192
_COMPRESSION: Final = "lz4"


class SpilledRows(lgb.Sequence):
    """Rows to fit on, whose features are on disk and whose labels are in memory.

    LightGBM reads them twice from first to last, some to choose the bins by and then all to put
    into them, and finds the bins that it finds for a table of the same rows.

    Args:
        matrix: makes the feature columns of a table, numbers in the order of the model.
        file: an empty one, open for reading and writing for as long as the rows are read.
    """

    batch_size = _BATCH_ROWS

    def __init__(self, matrix: Callable[[pa.Table], pa.Table], file: IO[bytes]) -> None:
        self._matrix = matrix
        self._file = file
        self._writer: Any = None
        self._beside: list[pa.Table] = []
        self._rows = 0
        self._read: Iterator[npt.NDArray[np.float64]] = iter(())
        self._start = 0
        self._held: npt.NDArray[np.float64] = np.empty((0, 0))

    def append(self, rows: pa.Table) -> None:
        """Take the next rows.

        Raises:
            ModelError: once rows have been read.
        """
        matrix = self._matrix(rows)
        if not self._beside:
            options = pa.ipc.IpcWriteOptions(compression=_COMPRESSION)
            self._writer = pa.ipc.new_stream(self._file, matrix.schema, options=options)
        if self._writer is None:
            raise ModelError("rows are added to some that were read; add all of them before")
        self._writer.write_table(matrix.combine_chunks(), max_chunksize=_BATCH_ROWS)
        kept = [name for name in rows.column_names if _is_kept(name)]
        self._beside.append(rows.select(kept))
        self._rows += rows.num_rows

    @property
    def beside(self) -> pa.Table:
        """The labels and, where the rows have it, the name of every impression."""
        return pa.concat_tables(self._beside)

    @property
    def num_rows(self) -> int:
        """As a table has it."""
        return self._rows

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, index: Any) -> npt.NDArray[np.float64]:
        """One row (F,), or those of a slice (n, F); NaN where a value is null.

        It is quick for indices that ascend, and starts from the first row again for one that does
        not.
        """
        if isinstance(index, slice):
            start, stop, _ = index.indices(self._rows)
            parts = []
            while start < stop:
                self._hold(start)
                part = self._held[start - self._start : stop - self._start]
                parts.append(part)
                start += len(part)
            return np.concatenate(parts) if len(parts) > 1 else parts[0]
        self._hold(int(index))
        # A view would keep the batch for as long as LightGBM keeps the row.
        row: npt.NDArray[np.float64] = self._held[int(index) - self._start].copy()
        return row

    def _hold(self, index: int) -> None:
        """Have the batch of row ``index`` in memory."""
        if not 0 <= index < self._rows:
            raise IndexError(f"row {index} of {self._rows}")
        if index < self._start or not len(self._held):
            self._start, self._held = 0, np.empty((0, 0))
            self._read = self._batches()
        while index >= self._start + len(self._held):
            self._start += len(self._held)
            self._held = next(self._read)

    def _batches(self) -> Iterator[npt.NDArray[np.float64]]:
        if self._writer is not None:  # once: it would mark an end wherever the file is read
            self._writer.close()
            self._writer = None
        self._file.seek(0)
        with pa.ipc.open_stream(pa.PythonFile(self._file, mode="r")) as reader:
            for batch in reader:
                rows = np.empty((batch.num_rows, batch.num_columns))
                for place, column in enumerate(batch.columns):
                    rows[:, place] = column.to_numpy(zero_copy_only=False)
                yield rows


def _is_kept(name: str) -> bool:
    return name.startswith(LABEL_PREFIX) or name == SAMPLE_COLUMN
