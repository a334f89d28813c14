"""Training sets: labelled samples of a range of hours at a cut, with what they were made from.

A recipe says all that a training set follows from. It travels with the model, so that the same rows
can be read again, bit for bit, for as long as the snapshots it names are kept.

A set with sequences is read as a stream, an hour at a time: its lists would fill the memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import pyarrow as pa
import pyarrow.dataset as ds

from feature_store import storage
from feature_store.digests import StreamDigest, content_digest
from feature_store.embedding_sets import TABLE as EMBEDDINGS_TABLE
from feature_store.embedding_sets import Beside, with_embeddings
from feature_store.embedding_views import SPACE
from feature_store.labels import LABELS, labelled
from feature_store.recipes import (
    RECIPE_LABELS,
    Lineage,
    RebuildError,
    Recipe,
    lineage,
    outcome_range,
)
from feature_store.schemas import SAMPLE_KEYS, TABLES, optional
from feature_store.sequence_sets import Placed, placed, sequence_files
from feature_store.sequence_views import SEQUENCE_VIEWS, SequenceView
from feature_store.services import SERVICES, FeatureService
from feature_store.tables import Store, StoreError
from feature_store.waiting_outcomes import WaitingOutcomes

__all__ = [
    "BATCH_ROWS",
    "FEATURE_COLUMNS",
    "RECIPE_LABELS",
    "STREAMED",
    "Lineage",
    "MovingSet",
    "RebuildError",
    "Recipe",
    "build",
    "content_digest",
    "lineage",
    "rebuild",
    "training_batches",
    "training_set",
]

_RANKING: Final = SERVICES["ranking"]
FEATURE_COLUMNS: Final[tuple[str, ...]] = _RANKING.columns()
BATCH_ROWS: Final = 8192
"""Rows of a batch of a streamed training set, at most."""
PIECE_ROWS: Final = 2**16
"""Rows that are labelled at once, about, where an hour need not be held as a whole."""
_SCANNED: Final = 2**16
STREAMED: Final = "stream"
"""How the digest of a streamed training set is called where it is kept."""
_OUTCOME: Final = ("sample_id", "action", "event_time", "ingested_at", "value")


def training_set(
    store: Store,
    first: str,
    last: str,
    cut: str,
    windows: Mapping[str, int],
    service: FeatureService = _RANKING,
    labels: Sequence[str] = RECIPE_LABELS,
    time_zone: str = "UTC",
) -> pa.Table:
    """Samples of hours [first, last] with the labels that are known at ``cut``.

    Args:
        cut: hour; only outcomes that arrived before it are used, and what is still open there is
            null.
        windows: the source's declared actions with their attribution windows in seconds.
        service: whose feature columns and node embeddings are read; its sequences are not.
        labels: names in ``LABELS``.
        time_zone: of the business day, before which node embeddings were made.

    Returns:
        The sample keys, the service's columns, ``hour`` and a ``label_<name>`` column per declared
        label, in the order of the hours; then the node embeddings.
    """
    origin = lineage(store, first, last, cut, replace(service, sequences=()), time_zone)
    recipe = Recipe(
        cut, service.name, service.columns(), windows, origin, tuple(labels), (),
        service.vectors, service.similarities, time_zone,
    )  # fmt: skip
    return build(store, recipe)


def build(store: Store, recipe: Recipe) -> pa.Table:
    """The training set of a recipe, read at the snapshots that it names, without its sequences.

    Node embeddings come last: vectors, ``embedding_version`` beside them, and similarities.

    Raises:
        StoreError: for a column that ``samples`` does not have, or a label that is not declared.
    """
    _check(recipe)
    origin = recipe.lineage
    snapshot = origin.snapshots.get("samples")
    samples = store.read("samples", origin.hours, _columns(recipe), snapshot_id=snapshot)
    outcomes = _outcomes(store, recipe)
    rows = labelled(samples, outcomes, recipe.cut, recipe.windows, recipe.labels)
    return with_embeddings(store, rows, recipe.vectors, recipe.similarities, **_embedded(recipe))


def training_batches(
    store: Store, recipe: Recipe, rows: int = BATCH_ROWS
) -> Iterator[pa.RecordBatch]:
    """The training set of a recipe, hour after hour, in batches of at most ``rows`` rows.

    The rows, columns and order of :func:`build`, then a list column ``<view>_<element>`` for every
    sequence view of the recipe, newest last and never null. An hour's samples and sequences, the
    vectors of the nodes in it, and the outcomes are held at a time; without sequences no more than
    a piece of an hour's samples.

    Raises:
        StoreError: for a column that ``samples`` does not have, or a label or sequence view that is
            not declared.
    """
    _check(recipe)
    origin = recipe.lineage
    views, outcomes = _views(recipe), WaitingOutcomes(_outcomes(store, recipe))
    snapshot = origin.snapshots.get("samples")
    shown = store.files_by_hour("samples", origin.hours, snapshot_id=snapshot)
    beside = [(v, sequence_files(store, v, origin.hours, origin.snapshots)) for v in views]
    for hour in origin.hours:
        schema = optional(TABLES["samples"].schema)
        read = storage.dataset(shown[hour], schema)
        most = None if views else max(PIECE_ROWS // rows, 1) * rows
        for samples in _pieces(read, _columns(recipe), most):
            known = outcomes.take(samples["sample_id"])
            table = labelled(samples, known, recipe.cut, recipe.windows, recipe.labels)
            lists: list[Placed | Beside] = [placed(table, v, files[hour]) for v, files in beside]
            if recipe.vectors or recipe.similarities:
                lists.insert(0, Beside(
                    store, table, recipe.vectors, recipe.similarities, **_embedded(recipe)
                ))  # fmt: skip
            yield from _sliced(table, lists, rows)


def _pieces(read: ds.Dataset, columns: list[str], most: int | None) -> Iterator[pa.Table]:
    """The rows in order, in tables of ``most`` rows and a last one; in one table for None."""
    if most is None:
        yield read.to_table(columns=columns)
        return
    held: list[pa.RecordBatch] = []
    missing = most
    # Few ahead: a batch of all columns is a hundred megabytes.
    for batch in read.to_batches(
        columns=columns, batch_size=min(most, _SCANNED), batch_readahead=1, fragment_readahead=1
    ):
        start = 0
        while start < batch.num_rows:
            held.append(batch.slice(start, missing))
            start, missing = start + held[-1].num_rows, missing - held[-1].num_rows
            if not missing:
                yield pa.Table.from_batches(held)
                held, missing = [], most
    if held:
        yield pa.Table.from_batches(held)


def _sliced(
    table: pa.Table, lists: Sequence[Placed | Beside], rows: int
) -> Iterator[pa.RecordBatch]:
    table = table.combine_chunks()
    for start in range(0, table.num_rows, rows):
        [part] = table.slice(start, rows).to_batches()
        columns = dict(zip(part.schema.names, part.columns, strict=True))
        for view in lists:
            columns |= view.columns(start, start + rows)
        yield pa.RecordBatch.from_pydict(columns)


class MovingSet:
    """Training sets of one recipe over hours that move on, each of which is read once.

    What a sample says follows from its hour alone and is kept until it is dropped; labels follow
    from the cut, and are joined anew for each. Files are those of the recipe's snapshots, whoever
    writes to the tables meanwhile.

    Args:
        recipe: of all hours that will be asked for; its sequences are not read.

    Raises:
        StoreError: for a column that ``samples`` does not have, or a label that is not declared.
    """

    def __init__(self, store: Store, recipe: Recipe) -> None:
        _check(recipe)
        self._store, self._recipe = store, recipe
        origin = recipe.lineage
        snapshots = origin.snapshots
        self._files = {
            name: store.files_by_hour(name, hours, snapshot_id=snapshots.get(name))
            for name, hours in (("samples", origin.hours), ("outcomes", origin.outcome_hours))
        }
        self._held: dict[tuple[str, str], pa.Table] = {}

    def hours(self, first: str, last: str) -> list[str]:
        """The hours of samples in [first, last], in order."""
        return [hour for hour in self._recipe.lineage.hours if first <= hour <= last]

    def rows(
        self, first: str, last: str, cut: str, labels: Sequence[str] | None = None
    ) -> pa.Table:
        """Samples of [first, last] with the labels known at ``cut``: the rows, columns and order of
        :func:`build`.

        Args:
            labels: names in ``LABELS``; those of the recipe by default.
        """
        names = self._recipe.labels if labels is None else labels
        samples = self._between("samples", first, last)
        outcomes = self._between("outcomes", *outcome_range(first, cut))
        rows = labelled(samples, outcomes, cut, self._recipe.windows, names)
        beside = [rows.schema.get_field_index(name) for name in self._beside()]
        own = [place for place in range(rows.num_columns) if place not in beside]
        return rows.select([*own, *beside])

    def drop_before(self, hour: str) -> None:
        """Let go of the samples before ``hour``, and of the outcomes that only those have."""
        first = {"samples": hour, "outcomes": outcome_range(hour, hour)[0]}
        self._held = {key: rows for key, rows in self._held.items() if key[1] >= first[key[0]]}

    def _beside(self) -> list[str]:
        """The columns of node embeddings, which stand behind the labels."""
        vectors = self._recipe.vectors
        return [*vectors, *([SPACE] if vectors else []), *self._recipe.similarities]

    def _between(self, table: str, first: str, last: str) -> pa.Table:
        there = [hour for hour in self._files[table] if first <= hour <= last]
        for hour in there:
            if (table, hour) not in self._held:
                self._held[table, hour] = self._read(table, self._files[table][hour])
        return pa.concat_tables([self._read(table, []), *(self._held[table, h] for h in there)])

    def _read(self, table: str, files: Sequence[str]) -> pa.Table:
        read = storage.dataset(sorted(files), optional(TABLES[table].schema))
        if table == "outcomes":
            return read.to_table(columns=list(_OUTCOME))
        rows = read.to_table(columns=_columns(self._recipe))
        vectors, cosines = self._recipe.vectors, self._recipe.similarities
        return with_embeddings(self._store, rows, vectors, cosines, **_embedded(self._recipe))


def _check(recipe: Recipe) -> None:
    known = TABLES["samples"].schema.names
    absent = [column for column in recipe.columns if column not in known]
    if absent:
        raise StoreError(f"samples have no columns {absent}; read them with the code that had them")
    unknown = [name for name in recipe.labels if name not in LABELS]
    if unknown:
        raise StoreError(f"no labels {unknown} are declared; there are {sorted(LABELS)}")


def _views(recipe: Recipe) -> tuple[SequenceView, ...]:
    declared = {view.name: view for view in SEQUENCE_VIEWS}
    unknown = [name for name in recipe.sequences if name not in declared]
    if unknown:
        raise StoreError(f"no sequence views {unknown} are declared; there are {sorted(declared)}")
    return tuple(declared[name] for name in recipe.sequences)


def _columns(recipe: Recipe) -> list[str]:
    return [*(field.name for field in SAMPLE_KEYS), *recipe.columns, "hour"]


def _embedded(recipe: Recipe) -> dict[str, Any]:
    origin = recipe.lineage
    snapshot = origin.snapshots.get(EMBEDDINGS_TABLE)
    hours = origin.embedding_hours
    return {"hours": hours, "time_zone": recipe.time_zone, "snapshot_id": snapshot}


def _outcomes(store: Store, recipe: Recipe) -> pa.Table:
    origin = recipe.lineage
    snapshot = origin.snapshots.get("outcomes")
    return store.read("outcomes", origin.outcome_hours, _OUTCOME, snapshot_id=snapshot)


def rebuild(store: Store, body: Mapping[str, Any]) -> pa.Table:
    """The training set that ``handoff.json`` of a model describes, the very same rows and bits.

    Args:
        body: the hand-off; its ``training_set`` holds the recipe, ``rows`` and ``sha256``, and
            ``digest`` where the rows were streamed. Those come with their sequences.

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
    if stored.get("digest") == STREAMED:
        table, found = _collected(training_batches(store, recipe))
    else:
        table = build(store, recipe)
        found = content_digest(table)
    if found != stored["sha256"]:
        raise RebuildError(
            f"the rebuilt training set has {table.num_rows} rows and digest {found[:12]}, the "
            f"model was trained on {stored['rows']} rows and {stored['sha256'][:12]}; the files "
            "of its snapshots were altered, or the code makes other labels of them"
        )
    return table


def _collected(batches: Iterator[pa.RecordBatch]) -> tuple[pa.Table, str]:
    """A stream as a table, and its digest."""
    digest, parts = StreamDigest(), []
    for batch in batches:
        digest.update(batch)
        parts.append(batch)
    return (pa.Table.from_batches(parts) if parts else pa.table({})), digest.hexdigest()
