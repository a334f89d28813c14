"""Rows of a matrix as byte strings, the form in which Spark copies them as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["as_bytes", "from_bytes"]


def as_bytes(matrix: npt.NDArray[np.int64] | npt.NDArray[np.float32]) -> pa.BinaryArray:
    """Rows of a matrix (N, K) as N byte strings, native byte order."""
    data = pa.py_buffer(np.ascontiguousarray(matrix))
    offsets = np.arange(len(matrix) + 1, dtype=np.int32) * (matrix.shape[1] * matrix.itemsize)
    buffers = [None, pa.py_buffer(offsets), data]
    return pa.Array.from_buffers(pa.binary(), len(matrix), buffers)


def from_bytes(rows: pa.Array, kind: type[np.generic], width: int) -> npt.NDArray[Any]:
    """The matrix (N, ``width``) behind :func:`as_bytes`; no row may be null."""
    if not len(rows):
        return np.zeros((0, width), kind)
    offsets = np.frombuffer(rows.buffers()[1], np.int32)[rows.offset : rows.offset + len(rows) + 1]
    data = np.frombuffer(rows.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
    return data.view(kind).reshape(len(rows), width)
