"""Digests of training sets: of a table at once, and of a stream batch by batch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["StreamDigest", "content_digest"]


class StreamDigest:
    """SHA-256 of a stream's names, types, values and nulls, in order, however it is batched.

    Every column is digested by itself, so that nothing has to wait for the end of another. Columns
    may hold texts, numbers, timestamps, and lists of them; NaNs of different bits are different.

        >>> digest = StreamDigest()
        >>> digest.update(pa.record_batch({"a": [1, 2]}))
        >>> digest.rows
        2
    """

    def __init__(self) -> None:
        self.rows = 0
        self._schema: pa.Schema | None = None
        self._columns: list[list[Any]] = []

    def update(self, batch: pa.RecordBatch) -> None:
        """Take the next rows.

        Raises:
            TypeError: for a column of another type, or another schema than that of the batches
                before.
        """
        if self._schema is None:
            self._schema = batch.schema
            self._columns = [[] for _ in batch.schema]
        if batch.schema != self._schema:
            raise TypeError(f"a batch of {batch.schema} follows batches of {self._schema}")
        self.rows += batch.num_rows
        for column, hashers in zip(batch.columns, self._columns, strict=True):
            for place, piece in enumerate(_pieces(column)):
                if place == len(hashers):
                    hashers.append(hashlib.sha256())
                hashers[place].update(piece)

    def hexdigest(self) -> str:
        """The digest of the rows so far."""
        digest = hashlib.sha256(f"{self.rows}\n".encode())
        for field, hashers in zip(self._schema or (), self._columns, strict=True):
            found = " ".join(hasher.hexdigest() for hasher in hashers)
            digest.update(f"{field.name}|{field.type}|{found}\n".encode())
        return digest.hexdigest()


def _pieces(column: pa.Array) -> Iterator[bytes]:
    """A column's validity and values, in as many pieces as its type has."""
    yield column.is_valid().to_numpy(zero_copy_only=False).tobytes()
    if pa.types.is_list(column.type):
        yield pc.fill_null(pc.list_value_length(column), 0).to_numpy().tobytes()
        yield from _pieces(column.flatten())
    else:
        yield from _bytes_of(pa.chunked_array([column]))


def content_digest(table: pa.Table) -> str:
    """SHA-256 of a table's names, types, values and nulls, in order, however it is chunked.

    Columns may hold texts, numbers and timestamps; NaNs of different bits are different.

    Raises:
        TypeError: for a column of another type.
    """
    digest = hashlib.sha256()
    for name in table.column_names:
        column = table[name]
        digest.update(f"{name}|{column.type}|{len(column)}\n".encode())
        for chunk in column.chunks:
            digest.update(chunk.is_valid().to_numpy(zero_copy_only=False).tobytes())
        for piece in _bytes_of(column):
            digest.update(piece)
    return digest.hexdigest()


def _bytes_of(column: pa.ChunkedArray) -> Iterator[bytes]:
    """The values of a column; what lies under a null is not among them."""
    if pa.types.is_string(column.type):
        chunks = [pc.fill_null(chunk, "") for chunk in column.chunks]
        for chunk in chunks:
            yield pc.binary_length(chunk).to_numpy().tobytes()
        for chunk in chunks:
            yield _text_bytes(chunk)
        return
    if pa.types.is_timestamp(column.type):
        column = pc.cast(column, pa.int64())
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise TypeError(f"no digest of a column of type {column.type}")
    for chunk in column.chunks:
        values: npt.NDArray[Any] = pc.fill_null(chunk, 0).to_numpy()
        yield values.tobytes()


def _text_bytes(texts: pa.StringArray) -> bytes:
    if not len(texts):
        return b""
    _, offsets, data = texts.buffers()
    ends = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return memoryview(data)[ends[0] : ends[-1]].tobytes() if data is not None else b""
