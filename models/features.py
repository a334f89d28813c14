"""FeatureSpec: which columns a model reads, checked against tables, hashed, and kept as JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.errors import SpecError

__all__ = [
    "SPACE_COLUMN",
    "Column",
    "FeatureSpec",
    "PretrainedColumn",
    "SequenceColumn",
    "SparseColumn",
    "encode_sparse",
]

SPACE_COLUMN: Final = "embedding_version"
"""The column that says in which space a row's pre-trained numbers are."""

_SPEC_VERSION: Final = 1
_SPARSE_KINDS: Final = ("hash", "vocabulary", "integer")
_SEQUENCE_KINDS: Final = ("hash", "vocabulary", "log")
_HASH: Final = "blake2b-64-le % (buckets - 1) + 1; null is 0"


@dataclass(frozen=True)
class SparseColumn:
    """A column of codes 0 .. ``buckets`` - 1; 0 is null.

    Attributes:
        kind: how a value becomes a code. ``hash``: a text, hashed into 1 .. buckets - 1.
            ``vocabulary``: a text, numbered from 2 in the order in which training met it; 1 is
            every text that it did not meet, or met once the numbers were used up. ``integer``: a
            whole number from 1 on, larger ones as buckets - 1.
        table: the embedding table that it reads, shared by columns that name the same; its own
            name by default.
    """

    name: str
    buckets: int
    kind: str = "hash"
    table: str = ""

    def __post_init__(self) -> None:
        _check_column(self.name, self.buckets, self.kind, _SPARSE_KINDS)

    @property
    def embedding(self) -> str:
        """The embedding table that it reads."""
        return self.table or self.name


@dataclass(frozen=True)
class SequenceColumn:
    """A list of codes, of which the last ``length`` are kept; 0 pads it in front.

    Attributes:
        kind: ``hash`` and ``vocabulary`` as of a SparseColumn; ``log``: a number x of 0 or more,
            such as seconds, as 1 + floor(log2(1 + x)), at most buckets - 1.
        table: as of a SparseColumn.
    """

    name: str
    buckets: int
    length: int
    kind: str = "hash"
    table: str = ""

    def __post_init__(self) -> None:
        _check_column(self.name, self.buckets, self.kind, _SEQUENCE_KINDS)
        if self.length < 1:
            raise SpecError(f"sequence {self.name!r} has length {self.length}; keep at least 1")

    @property
    def embedding(self) -> str:
        """The embedding table that it reads."""
        return self.table or self.name


@dataclass(frozen=True)
class PretrainedColumn:
    """A list of ``width`` numbers learned elsewhere, such as a node embedding.

    Attributes:
        space: where the numbers mean what the model has learned of them; empty when there is but
            one. A row whose ``SPACE_COLUMN`` says another has none.
    """

    name: str
    width: int
    space: str = ""

    def __post_init__(self) -> None:
        if self.width < 1:
            raise SpecError(f"pre-trained {self.name!r} has width {self.width}; it is at least 1")


@dataclass(frozen=True)
class FeatureSpec:
    """What a model reads, in the order in which it reads it. Plain JSON; travels with the model.

    ``dense`` are numeric columns, ``sparse`` identifiers, ``labels`` the label columns that the
    training tables hold (``label_click``, ...) and ``training_only`` what else only training reads,
    such as the position of an impression; prediction needs neither.
    """

    dense: tuple[str, ...] = ()
    sparse: tuple[SparseColumn, ...] = ()
    sequences: tuple[SequenceColumn, ...] = ()
    pretrained: tuple[PretrainedColumn, ...] = ()
    labels: tuple[str, ...] = ()
    training_only: tuple[SparseColumn, ...] = ()

    def __post_init__(self) -> None:
        names = [*self.columns, *self.labels, *(column.name for column in self.training_only)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise SpecError(f"columns named more than once in a FeatureSpec: {', '.join(twice)}")
        for table, columns in self.tables().items():
            first = columns[0]
            for other in columns[1:]:
                if (other.buckets, other.kind) != (first.buckets, first.kind):
                    raise SpecError(
                        f"columns {first.name!r} and {other.name!r} share table {table!r}, but "
                        f"have {first.buckets} buckets ({first.kind}) and {other.buckets} "
                        f"({other.kind}); give them the same"
                    )

    def tables(self) -> dict[str, list[Column]]:
        """The columns that read each embedding table, in reading order; training's come last."""
        found: dict[str, list[Column]] = {}
        columns: tuple[Column, ...] = (*self.sparse, *self.sequences, *self.training_only)
        for column in columns:
            found.setdefault(column.embedding, []).append(column)
        return found

    @property
    def columns(self) -> tuple[str, ...]:
        """The feature columns in reading order: dense, sparse, sequences, pretrained and, where
        those have a space, the column that says it."""
        spaces = {column.space for column in self.pretrained} - {""}
        return (
            *self.dense,
            *(column.name for column in self.sparse),
            *(column.name for column in self.sequences),
            *(column.name for column in self.pretrained),
            *((SPACE_COLUMN,) if spaces else ()),
        )

    @property
    def numbers(self) -> int:
        """How many numbers a row has: a dense column is one, a pre-trained one its width."""
        return len(self.dense) + sum(column.width for column in self.pretrained)

    @property
    def sha(self) -> str:
        """SHA-256 of the canonical JSON, in hexadecimal."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Canonical JSON (sorted keys, no spaces), hashing rule included."""
        body = {**asdict(self), "schema_version": _SPEC_VERSION, "hash": _HASH}
        for kind in ("sparse", "sequences", "pretrained", "training_only"):
            body[kind] = [_without_defaults(column) for column in body[kind]]
        if not body["training_only"]:
            del body["training_only"]
        return json.dumps(body, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> FeatureSpec:
        """The inverse of :meth:`to_json`.

        Raises:
            SpecError: for an unknown key, version or hashing rule.
        """
        body = json.loads(text)
        version, rule = body.pop("schema_version", _SPEC_VERSION), body.pop("hash", _HASH)
        if version != _SPEC_VERSION or rule != _HASH:
            raise SpecError(
                f"FeatureSpec of version {version} with hashing {rule!r} cannot be read here "
                f"(version {_SPEC_VERSION}, {_HASH!r}); load it with the release that wrote it"
            )
        known = {item.name for item in fields(cls)}
        unknown = sorted(set(body) - known)
        if unknown:
            raise SpecError(f"unknown keys in a FeatureSpec: {', '.join(unknown)}")
        try:
            return cls(
                dense=tuple(body.get("dense", ())),
                sparse=tuple(SparseColumn(**item) for item in body.get("sparse", ())),
                sequences=tuple(SequenceColumn(**item) for item in body.get("sequences", ())),
                pretrained=tuple(PretrainedColumn(**item) for item in body.get("pretrained", ())),
                labels=tuple(body.get("labels", ())),
                training_only=tuple(SparseColumn(**c) for c in body.get("training_only", ())),
            )
        except TypeError as error:
            raise SpecError(f"a FeatureSpec holds a column with other keys: {error}") from error

    def check(self, table: pa.Table) -> None:
        """Refuse a table that lacks one of the feature columns or holds another type.

        Columns that the spec does not name are ignored.

        Raises:
            SpecError: naming every missing column and every column of another type.
        """
        present = {item.name: item.type for item in table.schema}
        missing = [name for name in self.columns if name not in present]
        wanted = [
            *((name, "a number", _is_number) for name in self.dense),
            *((column.name, *_sparse_type(column)) for column in self.sparse),
            *((column.name, *_sequence_type(column)) for column in self.sequences),
            *((column.name, "a list of numbers", _is_number_list) for column in self.pretrained),
            *((name, "a text", _is_identifier) for name in self.columns if name == SPACE_COLUMN),
        ]
        other = [
            f"{name} is {present[name]}, not {kind}"
            for name, kind, fits in wanted
            if name in present and not fits(present[name])
        ]
        if missing or other:
            parts = [f"missing: {', '.join(missing)}"] if missing else []
            parts += [f"different: {'; '.join(other)}"] if other else []
            raise SpecError(
                f"the table does not fit the FeatureSpec {self.sha[:12]} ({'; '.join(parts)}); "
                "build it with the feature views that the model was trained on"
            )

    def require(self, other: FeatureSpec) -> None:
        """Refuse ``other`` unless it says the same.

        Raises:
            SpecError: naming the columns that differ.
        """
        if self.sha == other.sha:
            return
        mine, theirs = _described(self), _described(other)
        parts = [
            f"{word}: {', '.join(names)}"
            for word, names in (
                ("only here", [name for name in mine if name not in theirs]),
                ("only there", [name for name in theirs if name not in mine]),
                ("different", [n for n in mine if n in theirs and mine[n] != theirs[n]]),
            )
            if names
        ]
        what = "; ".join(parts) or "the same columns in another order"
        raise SpecError(
            f"FeatureSpec {self.sha[:12]} is not {other.sha[:12]} ({what}); use a version that was "
            "trained on these columns"
        )


Column = SparseColumn | SequenceColumn


def _check_column(name: str, buckets: int, kind: str, known: tuple[str, ...]) -> None:
    if kind not in known:
        raise SpecError(f"column {name!r} has kind {kind!r}; known are {', '.join(known)}")
    fewest = 3 if kind == "vocabulary" else 2
    if buckets < fewest:
        raise SpecError(f"column {name!r} has {buckets} buckets; it needs at least {fewest}")


def _without_defaults(column: dict[str, object]) -> dict[str, object]:
    """A column as JSON: a hashed one with a table of its own says no more than it ever did."""
    defaults = {"kind": "hash", "table": "", "space": ""}
    return {key: value for key, value in column.items() if defaults.get(key) != value}


def _described(spec: FeatureSpec) -> dict[str, str]:
    """By column what a spec says of it."""
    columns: tuple[Column | PretrainedColumn, ...]
    columns = (*spec.sparse, *spec.sequences, *spec.pretrained)
    return {
        **dict.fromkeys(spec.dense, "dense"),
        **{column.name: repr(column) for column in columns},
        **{column.name: f"training only: {column}" for column in spec.training_only},
        **dict.fromkeys(spec.labels, "label"),
    }


def _sparse_type(column: SparseColumn) -> tuple[str, Callable[[pa.DataType], bool]]:
    if column.kind == "integer":
        return "a whole number", _is_number
    return "an identifier", _is_identifier


def _sequence_type(column: SequenceColumn) -> tuple[str, Callable[[pa.DataType], bool]]:
    if column.kind == "log":
        return "a list of numbers", _is_number_list
    return "a list of identifiers", lambda kind: _is_list(kind) and _is_identifier(kind.value_type)


def _is_number_list(kind: pa.DataType) -> bool:
    return _is_list(kind) and _is_number(kind.value_type)


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)
    )


def _is_identifier(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def encode_sparse(column: pa.Array | pa.ChunkedArray, buckets: int) -> npt.NDArray[np.int32]:
    """Codes of a column of strings: null is 0, anything else 1 .. ``buckets`` - 1.

    The code is the 8-byte BLAKE2b digest of the UTF-8 text, read little-endian, modulo
    ``buckets`` - 1, plus 1: the same in every process and on every machine. Each distinct text is
    hashed once.

    Raises:
        SpecError: for a column that does not hold strings, or fewer than 2 buckets.
    """
    if not _is_identifier(column.type):
        raise SpecError(f"sparse codes are made of strings, not of {column.type}; cast the column")
    if buckets < 2:
        raise SpecError(f"{buckets} buckets; sparse codes need at least 2")
    if isinstance(column, pa.Array):
        column = pa.chunked_array([column])
    if len(column) == 0:
        return np.empty(0, dtype=np.int32)
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    parts = [_chunk_codes(chunk, buckets) for chunk in encoded.unify_dictionaries().chunks]
    return np.concatenate(parts) if len(parts) > 1 else parts[0]


def _chunk_codes(chunk: pa.DictionaryArray, buckets: int) -> npt.NDArray[np.int32]:
    texts = chunk.dictionary.to_pylist()
    # One slot more than there are texts: the last is where nulls point.
    lookup = np.zeros(len(texts) + 1, dtype=np.int32)
    for i, text in enumerate(texts):
        if text is not None:
            digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
            lookup[i] = int.from_bytes(digest, "little") % (buckets - 1) + 1
    indices = pc.fill_null(chunk.indices.cast(pa.int64()), len(texts))
    codes: npt.NDArray[np.int32] = lookup[indices.to_numpy(zero_copy_only=False)]
    return codes
