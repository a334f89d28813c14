"""A 128-bit name for a row, from the values of all its columns, and a digest of many; vectorised.

Each column is folded into two independent chains with the 64-bit finaliser of SplitMix64 (Steele,
Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014). Rows that are equal
in every column get equal names; among n different rows, some two share one with a probability of
about n**2 / 2**129.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["add_sums", "key_hashes", "row_hashes", "sum_of_rows"]

_SEEDS = (0x243F6A8885A308D3, 0x13198A2E03707344)  # digits of pi
_NULL = 0xA4093822299F31D0
_STEP = np.uint64(0x9E3779B97F4A7C15)
_HEX = np.array([f"{byte:02x}".encode() for byte in range(256)], "S2").view(np.uint16)


def row_hashes(rows: pa.RecordBatch) -> pa.Array:
    """The names of ``rows``, n strings of 32 hexadecimal digits.

    Columns may be integers, floats or strings, with nulls; their order matters, so pass them in a
    fixed one.

    Raises:
        TypeError: for a column of another type.
    """
    count = rows.num_rows
    chains = [np.full(count, seed, np.uint64) for seed in _SEEDS]
    for column in rows.columns:
        words = _words(column)
        for i, chain in enumerate(chains):
            chains[i] = _mix((chain ^ words[i % len(words)]) + _STEP)
    data = np.column_stack(chains).astype(">u8").view(np.uint8)  # n x 16
    digits = np.ascontiguousarray(_HEX[data])  # n x 16 pairs of digits
    offsets = np.arange(count + 1, dtype=np.int32) * 32
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(digits)]
    return pa.Array.from_buffers(pa.string(), count, buffers)


def key_hashes(columns: Sequence[pa.ChunkedArray]) -> npt.NDArray[np.int64]:
    """64 bits of each composite key, (rows,); texts without nulls."""
    chain = np.full(len(columns[0]), _SEEDS[0], np.uint64)
    for column in columns:
        coded = _whole(column).dictionary_encode()
        words = _folded_texts(coded.dictionary)
        chain = _mix((chain ^ words[coded.indices.to_numpy()]) + _STEP)
    return chain.view(np.int64)


def _folded_texts(texts: pa.Array) -> npt.NDArray[np.uint64]:
    """64 bits of each text: its length and its bytes, eight at a time, (texts,)."""
    _, ends, data = texts.buffers()
    offsets = np.frombuffer(ends, np.int32)[texts.offset :][: len(texts) + 1].astype(np.int64)
    padded = np.concatenate([np.frombuffer(data or b"", np.uint8), np.zeros(8, np.uint8)])
    # The eight bytes from any place on; reading beyond a text's end is masked below.
    windows: npt.NDArray[np.uint64] = np.ndarray((len(padded) - 7,), "<u8", padded, strides=(1,))
    lengths = np.diff(offsets)
    chain = _mix(lengths.astype(np.uint64) + _STEP)
    for start in range(0, int(lengths.max(initial=0)), 8):
        longer = np.flatnonzero(lengths > start)
        words = windows[offsets[longer] + start]
        missing = np.clip(8 - (lengths[longer] - start), 0, 7).astype(np.uint64) * np.uint64(8)
        words = words << missing >> missing
        chain[longer] = _mix((chain[longer] ^ words) + _STEP)
    return chain


def _whole(column: pa.ChunkedArray) -> pa.Array:
    whole = column.combine_chunks()
    return pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole


def sum_of_rows(values: npt.NDArray[np.int64]) -> int:
    """The sum of 128-bit names of the rows of (N, K) integers, modulo 2**128 by halves.

    Independent of how rows are ordered and split: the sums of parts, each half added modulo 2**64,
    are the sum of the whole, see :func:`add_sums`.
    """
    chains = [np.full(len(values), seed, np.uint64) for seed in _SEEDS]
    for column in np.ascontiguousarray(values.T).view(np.uint64):
        words = _mix(column + _STEP)
        chains = [_mix((chain ^ words) + _STEP) for chain in chains]
    high, low = (int(chain.sum(dtype=np.uint64)) for chain in chains)
    return high << 64 | low


def add_sums(one: int, other: int) -> int:
    """The sum of rows of two parts together."""
    low = (1 << 64) - 1
    high = (one >> 64) + (other >> 64) & low
    return high << 64 | ((one & low) + (other & low) & low)


def _words(column: pa.Array) -> list[npt.NDArray[np.uint64]]:
    """One or two 64-bit words per value, equal exactly where the values are."""
    if pa.types.is_string(column.type):
        return _text_words(column)
    if pa.types.is_integer(column.type):
        values = pc.fill_null(column, 0).cast(pa.int64()).to_numpy().view(np.uint64)
    elif pa.types.is_floating(column.type):
        plain = pc.fill_null(column, 0.0).cast(pa.float64()).to_numpy() + 0.0  # -0.0 becomes 0.0
        values = plain.view(np.uint64)
    else:
        raise TypeError(f"cannot hash a column of type {column.type}; read it as text or a number")
    empty = column.is_null().to_numpy(zero_copy_only=False)
    return [np.where(empty, np.uint64(_NULL), _mix(values + _STEP))]


def _text_words(column: pa.Array) -> list[npt.NDArray[np.uint64]]:
    coded = column.dictionary_encode()
    words = np.full((len(coded.dictionary) + 1, 2), _NULL, np.uint64)  # the last row is for null
    for i, text in enumerate(coded.dictionary.to_pylist()):
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        words[i] = np.frombuffer(digest, np.uint64)
    codes = pc.fill_null(coded.indices, len(coded.dictionary)).to_numpy()
    return [words[codes, 0], words[codes, 1]]


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
