"""Training sets: labelled samples of a range of hours at a cut, with what they were made from.

A recipe says all that a training set follows from. It travels with the model, so that the same rows
can be read again, bit for bit, for as long as the snapshots it names are kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_store import hours as hr
from feature_store.labels import labelled
from feature_store.schemas import SAMPLE_KEYS, TABLES
from feature_store.services import SERVICES, FeatureService
from feature_store.tables import Store, StoreError

__all__ = [
    "FEATURE_COLUMNS",
    "Lineage",
    "RebuildError",
    "Recipe",
    "build",
    "content_digest",
    "lineage",
    "rebuild",
    "training_set",
]

_RANKING: Final = SERVICES["ranking"]
FEATURE_COLUMNS: Final[tuple[str, ...]] = _RANKING.columns()
_LATE_HOURS = 3
"""Outcomes of an impression may have arrived before a late impression did: look so far back."""


class RebuildError(RuntimeError):
    """A training set that cannot be made again as it was."""


@dataclass(frozen=True)
class Lineage:
    """The exact data behind a training set.

    Attributes:
        hours: completed hours of samples that were read.
        outcome_hours: completed hours of outcomes that were read.
        snapshots: Iceberg snapshot by table.
        content_sha: digest of the content hashes of every hour read.
    """

    hours: tuple[str, ...]
    outcome_hours: tuple[str, ...]
    snapshots: Mapping[str, int]
    content_sha: str


@dataclass(frozen=True)
class Recipe:
    """All that a training set follows from; plain JSON.

    Attributes:
        cut: hour; what is known before it counts.
        service: name of the feature service; ``columns`` are those it had then, in order.
        windows: the source's declared actions with their attribution windows in seconds.
    """

    cut: str
    service: str
    columns: tuple[str, ...]
    windows: Mapping[str, int]
    lineage: Lineage

    def to_dict(self) -> dict[str, Any]:
        """The recipe as JSON holds it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Recipe:
        """The inverse of :meth:`to_dict`.

        Raises:
            RebuildError: for a recipe that lacks something.
        """
        lacking = sorted({f.name for f in fields(cls)} - set(body))
        origin = dict(body.get("lineage") or {})
        lacking += sorted({f.name for f in fields(Lineage)} - set(origin))
        if lacking:
            raise RebuildError(f"the recipe of the training set lacks {lacking}")
        for name in ("hours", "outcome_hours"):
            origin[name] = tuple(origin[name])
        chosen = {f.name: body[f.name] for f in fields(cls)}
        chosen["columns"] = tuple(body["columns"])
        return cls(**{**chosen, "lineage": Lineage(**origin)})


def lineage(store: Store, first: str, last: str, cut: str) -> Lineage:
    """What a training set of samples [first, last] at ``cut`` reads, from the catalog alone."""
    samples = store.ledger.readable("samples", first, last)
    outcomes = store.ledger.readable("outcomes", hr.add(first, -_LATE_HOURS), hr.add(cut, -1))
    digest = hashlib.sha256()
    for completion in (*samples.values(), *outcomes.values()):
        digest.update(f"{completion.table}|{completion.hour}|{completion.content_hash}\n".encode())
    snapshots = {name: store.snapshot_id(name) for name in ("samples", "outcomes")}
    known = {name: snapshot for name, snapshot in snapshots.items() if snapshot is not None}
    return Lineage(tuple(samples), tuple(outcomes), known, digest.hexdigest())


def training_set(
    store: Store,
    first: str,
    last: str,
    cut: str,
    windows: Mapping[str, int],
    service: FeatureService = _RANKING,
) -> pa.Table:
    """Samples of hours [first, last] with the labels that are known at ``cut``.

    Args:
        cut: hour; only outcomes that arrived before it are used, and what is still open there is
            null.
        windows: the source's declared actions with their attribution windows in seconds.
        service: whose feature columns are read.

    Returns:
        The sample keys, the service's columns, ``hour`` and a ``label_<name>`` column per declared
        label, in the order of the hours.
    """
    origin = lineage(store, first, last, cut)
    return build(store, Recipe(cut, service.name, service.columns(), windows, origin))


def build(store: Store, recipe: Recipe) -> pa.Table:
    """The training set of a recipe, read at the snapshots that it names.

    Raises:
        StoreError: for a column that ``samples`` does not have.
    """
    known = TABLES["samples"].schema.names
    absent = [column for column in recipe.columns if column not in known]
    if absent:
        raise StoreError(f"samples have no columns {absent}; read them with the code that had them")
    keys = [field.name for field in SAMPLE_KEYS]
    origin = recipe.lineage
    samples = store.read(
        "samples",
        origin.hours,
        [*keys, *recipe.columns, "hour"],
        snapshot_id=origin.snapshots.get("samples"),
    )
    outcomes = store.read(
        "outcomes", origin.outcome_hours, snapshot_id=origin.snapshots.get("outcomes")
    )
    return labelled(samples, outcomes, recipe.cut, recipe.windows)


def rebuild(store: Store, body: Mapping[str, Any]) -> pa.Table:
    """The training set that ``handoff.json`` of a model describes, the very same rows and bits.

    Args:
        body: the hand-off; its ``training_set`` holds the recipe, ``rows`` and ``sha256``.

    Raises:
        RebuildError: when the hand-off has no recipe, its snapshots are gone, or what they hold is
            not what the model was trained on.
    """
    stored = body.get("training_set")
    if not isinstance(stored, Mapping):
        raise RebuildError(
            "the hand-off does not say what its training set was made of; versions say so since "
            "they carry `training_set`: train the hour again"
        )
    recipe = Recipe.from_dict(stored["recipe"])
    for table, snapshot in recipe.lineage.snapshots.items():
        if store.iceberg(table).snapshot_by_id(snapshot) is None:
            raise RebuildError(
                f"snapshot {snapshot} of table {table} is not there; it is kept for as long as "
                "its tag is, in the warehouse that the model was trained from"
            )
    table = build(store, recipe)
    found = content_digest(table)
    if found != stored["sha256"]:
        raise RebuildError(
            f"the rebuilt training set has {table.num_rows} rows and digest {found[:12]}, the "
            f"model was trained on {stored['rows']} rows and {stored['sha256'][:12]}; the files "
            "of its snapshots were altered, or the code makes other labels of them"
        )
    return table


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
