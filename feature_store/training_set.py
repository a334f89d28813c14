"""Training sets: labelled samples of a range of hours at a cut, with what they were made from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from feature_store import hours as hr
from feature_store.labels import labelled
from feature_store.schemas import SAMPLE_KEYS
from feature_store.tables import Store
from feature_store.views import dense_columns, sparse_columns

__all__ = ["FEATURE_COLUMNS", "Lineage", "lineage", "training_set"]

FEATURE_COLUMNS: tuple[str, ...] = (*(name for name, _ in sparse_columns()), *dense_columns())
_LATE_HOURS = 3
"""Outcomes of an impression may have arrived before a late impression did: look so far back."""


@dataclass(frozen=True)
class Lineage:
    """The exact data behind a training set.

    Attributes:
        hours: completed hours of samples that were read.
        snapshots: Iceberg snapshot by table.
        content_sha: digest of the content hashes of every hour read.
    """

    hours: tuple[str, ...]
    snapshots: Mapping[str, int]
    content_sha: str


def lineage(store: Store, first: str, cut: str) -> Lineage:
    """What ``training_set(first, ..., cut)`` reads, from the catalog alone."""
    last = hr.add(cut, -1)
    samples = store.ledger.readable("samples", first, last)
    outcomes = store.ledger.readable("outcomes", hr.add(first, -_LATE_HOURS), last)
    digest = hashlib.sha256()
    for completion in (*samples.values(), *outcomes.values()):
        digest.update(f"{completion.table}|{completion.hour}|{completion.content_hash}\n".encode())
    snapshots = {name: store.snapshot_id(name) for name in ("samples", "outcomes")}
    known = {name: snapshot for name, snapshot in snapshots.items() if snapshot is not None}
    return Lineage(tuple(samples), known, digest.hexdigest())


def training_set(
    store: Store,
    first: str,
    last: str,
    cut: str,
    windows: Mapping[str, int],
    columns: Sequence[str] = FEATURE_COLUMNS,
    snapshots: Mapping[str, int] | None = None,
) -> pa.Table:
    """Samples of hours [first, last] with the labels that are known at ``cut``.

    Args:
        cut: hour; only outcomes that arrived before it are used, and what is still open there is
            null.
        windows: the source's declared actions with their attribution windows in seconds.
        snapshots: Iceberg snapshot to read by table, as a lineage names them; else the current one.

    Returns:
        The sample keys, ``columns`` and a ``label_<name>`` column per declared label, in the order
        of the hours.
    """
    hours = store.readable_hours("samples", first, last)
    keys = [field.name for field in SAMPLE_KEYS]
    at = snapshots or {}
    samples = store.read("samples", hours, [*keys, *columns, "hour"], snapshot_id=at.get("samples"))
    known = store.readable_hours("outcomes", hr.add(first, -_LATE_HOURS), hr.add(cut, -1))
    outcomes = store.read("outcomes", known, snapshot_id=at.get("outcomes"))
    return labelled(samples, outcomes, cut, windows)
