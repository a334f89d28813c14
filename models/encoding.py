"""From Arrow record batches to the arrays that deep models read, by a FeatureSpec.

Every conversion runs on whole columns. Shapes: B rows, D numbers (dense columns, and the widths of
pre-trained ones), S sparse columns, Q places of all sequences together, X training-only columns, T
tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.errors import SpecError, TrainingRefused
from models.features import (
    SPACE_COLUMN,
    Column,
    FeatureSpec,
    PretrainedColumn,
    SequenceColumn,
    SparseColumn,
    encode_sparse,
)

__all__ = ["Encoder", "Rows", "Vocabulary"]

Codes = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
_T = TypeVar("_T", bound=np.generic)

_UNKNOWN: Final = 1
_FIRST: Final = 2  # the first number of a vocabulary


class Rows(NamedTuple):
    """Encoded rows.

    Attributes:
        dense: (B, D) float32; NaN where nothing is known. Dense columns as sign(x) log(1 + |x|),
            then the numbers of pre-trained ones as they are.
        sparse: (B, S) int32 codes, 0 where nothing is known.
        sequences: (B, Q) int32 codes, one block of ``length`` a column, newest last, 0 in front.
        extra: (B, X) int32 codes of the columns that only training reads.
        labels: (B, T) float32; NaN where a label is not mature.
    """

    dense: Floats
    sparse: Codes
    sequences: Codes
    extra: Codes
    labels: Floats

    @property
    def size(self) -> int:
        """B."""
        return len(self.dense)

    def at(self, places: npt.NDArray[np.int64] | slice) -> Rows:
        """The rows at ``places``, in that order; views where ``places`` is a slice."""
        return Rows(
            self.dense[places], self.sparse[places], self.sequences[places], self.extra[places],
            self.labels[places],
        )  # fmt: skip


@dataclass
class Vocabulary:
    """The texts that a table's rows stand for, numbered from 2 in the order they were met.

    Attributes:
        capacity: numbers below it are used; texts beyond are unknown (1).
    """

    capacity: int
    texts: pa.StringArray = field(default_factory=lambda: pa.array([], pa.string()))

    def grow(self, met: pa.Array | pa.ChunkedArray) -> int:
        """Number the texts of ``met`` that are new, while there is room; how many got a number."""
        distinct = pc.drop_null(pc.unique(met)).cast(pa.string())
        new = distinct.filter(pc.is_null(pc.index_in(distinct, value_set=self.texts)))
        new = new[: max(self.capacity - _FIRST - len(self.texts), 0)]
        if len(new):
            self.texts = pa.concat_arrays([self.texts, _one(new)])
        return len(new)

    def codes(self, column: pa.Array | pa.ChunkedArray) -> Codes:
        """0 for null, 1 for a text without a number, else its number."""
        place = pc.index_in(column.cast(pa.string()), value_set=self.texts)
        known = pc.add(place, _FIRST)
        found = pc.if_else(pc.is_null(column), 0, pc.fill_null(known, _UNKNOWN))
        return _numpy(found, np.int32)


class Encoder:
    """Encodes tables as ``spec`` says; keeps the vocabularies by embedding table.

    Args:
        vocabularies: as an earlier encoder left them; new ones are empty.
    """

    def __init__(
        self, spec: FeatureSpec, vocabularies: Mapping[str, Vocabulary] | None = None
    ) -> None:
        self.spec = spec
        given = vocabularies or {}
        self.vocabularies: dict[str, Vocabulary] = {}
        for table, columns in spec.tables().items():
            if columns[0].kind == "vocabulary":
                kept = given.get(table)
                texts = kept.texts if kept is not None else pa.array([], pa.string())
                self.vocabularies[table] = Vocabulary(columns[0].buckets, texts)

    def encode(
        self, batch: pa.Table | pa.RecordBatch, *, train: bool = False, grow: bool = False
    ) -> Rows:
        """The rows of ``batch``.

        Args:
            train: read labels and training-only columns as well; else both are empty.
            grow: number texts that no vocabulary holds yet.

        Raises:
            SpecError: for a table that does not fit the spec.
            TrainingRefused: for an infinite number; the column is named.
        """
        table = pa.Table.from_batches([batch]) if isinstance(batch, pa.RecordBatch) else batch
        self.spec.check(table)
        if grow:
            self._grow(table)
        count = table.num_rows
        extra = self.spec.training_only if train else ()
        labels = self.spec.labels if train else ()
        _require(table, [*labels, *(column.name for column in extra)])
        return Rows(
            dense=self._numbers(table),
            sparse=self._sparse(table, self.spec.sparse),
            sequences=self._sequences(table),
            extra=self._sparse(table, extra),
            labels=_stacked([_label(table[name], name) for name in labels], count, np.float32),
        )

    def _grow(self, table: pa.Table) -> None:
        for name, columns in self.spec.tables().items():
            if name in self.vocabularies:
                for column in columns:
                    met = table[column.name]
                    if isinstance(column, SequenceColumn):
                        met = pc.list_flatten(met)
                    self.vocabularies[name].grow(met)

    def _codes(self, values: pa.Array | pa.ChunkedArray, column: Column) -> Codes:
        if column.kind == "vocabulary":
            return self.vocabularies[column.embedding].codes(values)
        if column.kind == "hash":
            return encode_sparse(values, column.buckets)
        if column.kind == "log":
            filled = _numpy(pc.fill_null(values, 0), np.float64)
            steps = np.floor(np.log2(1.0 + np.maximum(filled, 0.0)))
            codes: Codes = np.minimum(1 + steps, column.buckets - 1).astype(np.int32)
            return codes
        whole = np.nan_to_num(_numpy(pc.fill_null(values, 0), np.float64))
        return np.clip(whole, 0, column.buckets - 1).astype(np.int32)

    def _numbers(self, table: pa.Table) -> Floats:
        found = np.empty((table.num_rows, self.spec.numbers), np.float32)
        end = len(self.spec.dense)
        for place, name in enumerate(self.spec.dense):
            found[:, place] = _number(table[name], name)
        _squash(found[:, :end])
        for column in self.spec.pretrained:
            _fill_pretrained(found[:, end : end + column.width], table, column)
            end += column.width
        return found

    def _sparse(self, table: pa.Table, columns: Sequence[SparseColumn]) -> Codes:
        found = [self._codes(table[column.name], column) for column in columns]
        return _stacked(found, table.num_rows, np.int32)

    def _sequences(self, table: pa.Table) -> Codes:
        width = sum(column.length for column in self.spec.sequences)
        found = np.zeros((table.num_rows, width), np.int32)
        start = 0
        for column in self.spec.sequences:
            block = found[:, start : start + column.length]
            lists = _one(table[column.name])
            _fill_newest(block, lists, self._codes(lists.flatten(), column))
            start += column.length
        return found


def _fill_newest(block: Codes, lists: pa.Array, codes: Codes) -> None:
    """Write the last codes of every list at the right end of its row of ``block``."""
    sizes = _numpy(pc.fill_null(pc.list_value_length(lists), 0), np.int64)
    ends = np.cumsum(sizes)
    kept = np.minimum(sizes, block.shape[1])
    row = np.repeat(np.arange(len(sizes)), kept)
    before = np.cumsum(kept) - kept
    step = np.arange(len(row)) - before[row]
    source = (ends - kept)[row] + step
    block[row, (block.shape[1] - kept)[row] + step] = codes[source]


def _fill_pretrained(block: Floats, table: pa.Table, column: PretrainedColumn) -> None:
    """Write the rows' lists into ``block``; NaN for a null, another space, or another width."""
    lists = _one(table[column.name])
    sizes = _numpy(pc.fill_null(pc.list_value_length(lists), 0), np.int64)
    there = sizes == column.width
    if column.space:
        same = pc.equal(table[SPACE_COLUMN].cast(pa.string()), column.space)
        there &= _numpy(pc.fill_null(same, False), np.bool_)
    block[:] = np.nan
    kept = lists.filter(pa.array(there)).flatten()
    block[there] = _number(kept, column.name).reshape(-1, column.width)


def _squash(values: Floats) -> None:
    """sign(x) log(1 + |x|), in place: counts and amounts of any size become comparable."""
    sizes = np.abs(values)
    np.log1p(sizes, out=sizes)
    np.copysign(sizes, values, out=values)


def _number(column: pa.Array | pa.ChunkedArray, name: str) -> Floats:
    values = _numpy(pc.fill_null(column.cast(pa.float32()), np.nan), np.float32)
    if np.isinf(values).any():
        raise TrainingRefused(
            f"column {name!r} holds {int(np.isinf(values).sum())} infinite values in "
            f"{len(values):,} rows; mend the feature view, or leave the column out"
        )
    return values


def _label(column: pa.ChunkedArray, name: str) -> Floats:
    values = _numpy(pc.fill_null(column.cast(pa.float32()), np.nan), np.float32)
    wrong = np.isinf(values) | (values < 0)
    if wrong.any():
        raise TrainingRefused(
            f"label {name!r} holds {values[wrong][0]}; labels are 0, 1, or an amount from 0 on"
        )
    return values


def _require(table: pa.Table, names: Sequence[str]) -> None:
    there = set(table.column_names)
    missing = [name for name in names if name not in there]
    if missing:
        raise SpecError(
            f"the training table lacks {', '.join(missing)}; labels are label_<task>, of actions "
            "that the source declares"
        )


def _stacked(columns: Sequence[npt.NDArray[_T]], rows: int, kind: type[_T]) -> npt.NDArray[_T]:
    found = np.empty((rows, len(columns)), kind)
    for place, column in enumerate(columns):
        found[:, place] = column
    return found


def _one(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _numpy(column: pa.Array | pa.ChunkedArray, kind: type[_T]) -> npt.NDArray[_T]:
    return np.asarray(_one(column).to_numpy(zero_copy_only=False), dtype=kind)
