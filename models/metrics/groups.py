"""What is ranked together, and a value for each of it.

Groups are int64 codes, strings, or :class:`Groups` that several metrics share. Rows of a group need
not be neighbours; where they are, nothing is sorted and nothing copied.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.kernels import group_order, group_runs

__all__ = ["GroupValues", "Groups", "group_codes", "grouped", "groups_of_sizes"]

_ROWS_AT_ONCE: Final = 1 << 18

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Column: TypeAlias = npt.NDArray[Any] | pa.Array | pa.ChunkedArray | Sequence[str]


@dataclass(frozen=True)
class Groups:
    """Rows by group.

    Attributes:
        order: rows (N,) group by group; empty where they already lie so.
        starts: (G + 1,) where each group begins in that order; the last is N.
        ids: (G,) what each group was called.
    """

    order: Ints
    starts: Ints
    ids: npt.NDArray[np.generic]

    @property
    def rows(self) -> int:
        return int(self.starts[-1])

    @property
    def sizes(self) -> Ints:
        """Rows of each group (G,)."""
        return np.diff(self.starts)


class GroupValues(NamedTuple):
    """One value a group: ``values`` (G,) or (G, K), ``groups`` (G,) ids, ``sizes`` (G,) rows.

    Two rankers of the same groups give values in the same order, so that their difference is
    paired. A group is NaN, whatever the metric, when no order of it is better than another: it has
    no row, or all of its labels are equal.
    """

    values: Floats
    groups: npt.NDArray[np.generic]
    sizes: Ints

    @property
    def undefined(self) -> int:
        """How many groups are NaN."""
        first = self.values if self.values.ndim == 1 else self.values[:, 0]
        return int(np.isnan(first).sum())

    def means(self) -> Floats:
        """Means over the groups that are not NaN, () or (K,); NaN without any."""
        if self.undefined == len(self.values):
            return np.full(self.values.shape[1:], np.nan)
        means: Floats = np.nanmean(self.values, axis=0)
        return means


def group_codes(*columns: Column) -> Ints:
    """Codes 0 .. G-1, one a distinct combination of the columns' values, by first appearance.

    Columns are combined as columns: ("a", "bc") and ("ab", "c") stay two groups. A null is a value
    of its own.

    Raises:
        ValueError: without columns, or for columns of different lengths.
    """
    if not columns:
        raise ValueError("group_codes needs at least one column")
    codes, _ = _encode(columns[0])
    for column in columns[1:]:
        more, more_count = _encode(column)
        if len(more) != len(codes):
            raise ValueError(f"columns of {len(codes)} and {len(more)} rows cannot be combined")
        codes, _ = _encode(codes * np.int64(max(more_count, 1)) + more)
    return codes


def _encode(column: Column) -> tuple[Ints, int]:
    """Dense codes by first appearance, and how many there are."""
    values = column if isinstance(column, pa.Array | pa.ChunkedArray) else pa.array(column)
    if isinstance(values, pa.Array):
        values = pa.chunked_array([values])
    if len(values) == 0:
        return np.empty(0, dtype=np.int64), 0
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    encoded = values.dictionary_encode(null_encoding="encode").combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0)
    codes = pc.cast(encoded.indices, pa.int64()).to_numpy(zero_copy_only=False)
    return codes, len(encoded.dictionary)


def groups_of_sizes(sizes: npt.ArrayLike) -> Groups:
    """Groups of neighbouring rows: the first ``sizes[0]`` rows, and so on; ids are 0 .. G-1.

    Raises:
        ValueError: for a negative size.
    """
    counts = np.asarray(sizes, dtype=np.int64)
    if len(counts) and counts.min() < 0:
        raise ValueError(f"a group has {counts.min()} rows; sizes must not be negative")
    starts = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=starts[1:])
    return Groups(np.empty(0, dtype=np.int64), starts, np.arange(len(counts)))


def grouped(groups: Column | Groups) -> Groups:
    """The groups of a column, for several metrics to share.

    Whole numbers come in ascending order, everything else by first appearance.
    """
    if isinstance(groups, Groups):
        return groups
    if isinstance(groups, np.ndarray) and groups.dtype.kind in "iu":
        numbers = np.ascontiguousarray(groups, dtype=np.int64)
        starts = group_runs(numbers)
        if len(starts):
            return Groups(np.empty(0, dtype=np.int64), starts, groups[starts[:-1]])
        top = int(numbers.max()) + 1
        if int(numbers.min()) >= 0 and top <= 2 * len(numbers) + 1024:
            order, starts = group_order(numbers, top)
            used = np.flatnonzero(np.diff(starts))
            return Groups(order, np.append(starts[used], np.int64(len(numbers))), used)
    return _encoded(groups)


def _encoded(groups: Column) -> Groups:
    codes, count = _encode(groups)
    order, starts = np.empty(0, dtype=np.int64), group_runs(codes)
    first = starts[:-1]
    if not len(starts):
        order, starts = group_order(codes, count)
        first = order[starts[:-1]]
    return Groups(order, starts, _take(groups, first))


def _take(groups: Column, rows: Ints) -> npt.NDArray[np.generic]:
    if isinstance(groups, np.ndarray):
        taken: npt.NDArray[np.generic] = groups[rows]
        return taken
    values = groups if isinstance(groups, pa.Array | pa.ChunkedArray) else pa.array(groups)
    return np.asarray(values.take(pa.array(rows)).to_pylist())


def checked_floats(values: npt.ArrayLike, what: str) -> Floats:
    """``values`` (N,) as they are, or copied into doubles; refused with NaN or another shape."""
    array = np.ascontiguousarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"{what} have shape {array.shape}; one value a row is wanted")
    if len(array) and np.isnan(array.min()):  # min() passes NaN on, and needs no array of its own
        count = int(np.isnan(array).sum())
        raise ValueError(f"{count} of {len(array)} {what} are NaN; leave those rows out first")
    return array


def checked_rows(
    labels: npt.ArrayLike, scores: npt.ArrayLike, groups: Column | Groups | None = None
) -> tuple[Floats, Floats]:
    """Labels and scores (N,) of as many rows as the ``groups`` have."""
    y, s = checked_floats(labels, "labels"), checked_floats(scores, "scores")
    lengths = [len(y), len(s)]
    if groups is not None:
        lengths.append(groups.rows if isinstance(groups, Groups) else len(groups))
    if len(set(lengths)) > 1:
        raise ValueError(f"labels, scores and groups have {lengths} rows; they must be equal")
    return y, s


def binary(labels: Floats) -> None:
    """Refuse labels other than 0 and 1."""
    if not ((labels == 0) | (labels == 1)).all():
        odd = labels[(labels != 0) & (labels != 1)][0]
        raise ValueError(f"a label is {odd}; AUC and log loss want 0 and 1")


def over_groups(groups: Groups, work: Callable[[int, int], None]) -> None:
    """Call ``work(first, last)`` for ranges that together are all groups, on every core.

    A group is the work of one call alone: what is written for it is the same to the last bit with
    any number of threads. A pool, and not numba's parallel loops: their default threading layer
    must not be entered from two threads at once.
    """
    count = len(groups.starts) - 1
    parts = max(1, -(-groups.rows // _ROWS_AT_ONCE))
    rows = np.linspace(0, groups.rows, parts + 1)[1:-1]
    bounds = [0, *np.searchsorted(groups.starts[:-1], rows).tolist(), count]
    spans = list(pairwise(bounds))
    threads = _threads()
    if len(spans) == 1 or threads == 1:
        for first, last in spans:
            work(first, last)
        return
    with ThreadPoolExecutor(max_workers=threads) as pool:
        list(pool.map(lambda span: work(*span), spans))


def _threads() -> int:
    return os.cpu_count() or 1
