"""Recipes: all that a training set follows from, down to the snapshots that it is read at."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Final

from feature_store import hours as hr
from feature_store.embedding_sets import TABLE as EMBEDDINGS_TABLE
from feature_store.embedding_sets import embedding_hours
from feature_store.services import FeatureService
from feature_store.tables import Store

__all__ = ["RECIPE_LABELS", "Lineage", "RebuildError", "Recipe", "lineage", "outcome_range"]

_LATE_HOURS: Final = 3
"""Outcomes of an impression may have arrived before a late impression did: look so far back."""

RECIPE_LABELS: Final = ("click", "long_view", "conversion", "stay", "follow")
"""The labels of a recipe that names none: those that there were before recipes named theirs."""


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
        embedding_hours: partitions of node embeddings that were read.
    """

    hours: tuple[str, ...]
    outcome_hours: tuple[str, ...]
    snapshots: Mapping[str, int]
    content_sha: str
    embedding_hours: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """All that a training set follows from; plain JSON.

    Attributes:
        cut: hour; what is known before it counts.
        service: name of the feature service; ``columns`` are those it had then, in order.
        windows: the source's declared actions with their attribution windows in seconds.
        labels: names in ``LABELS``; one whose actions the source does not declare is left out.
        sequences: names of the sequence views that are read along.
        vectors: names of the embedding views, and ``similarities`` of what is compared; they are of
            the business day before, in ``time_zone``.
    """

    cut: str
    service: str
    columns: tuple[str, ...]
    windows: Mapping[str, int]
    lineage: Lineage
    labels: tuple[str, ...] = RECIPE_LABELS
    sequences: tuple[str, ...] = ()
    vectors: tuple[str, ...] = ()
    similarities: tuple[str, ...] = ()
    time_zone: str = "UTC"

    def to_dict(self) -> dict[str, Any]:
        """The recipe as JSON holds it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Recipe:
        """The inverse of :meth:`to_dict`.

        Raises:
            RebuildError: for a recipe that lacks something.
        """
        needed = {f.name for f in fields(cls) if f.default is MISSING}
        lacking = sorted(needed - set(body))
        origin = dict(body.get("lineage") or {})
        always = {f.name for f in fields(Lineage) if f.default is MISSING}
        lacking += sorted(always - set(origin))
        if lacking:
            raise RebuildError(f"the recipe of the training set lacks {lacking}")
        for name in {"hours", "outcome_hours", "embedding_hours"} & set(origin):
            origin[name] = tuple(origin[name])
        chosen = {f.name: body[f.name] for f in fields(cls) if f.name in body}
        for name in {"columns", "labels", "sequences", "vectors", "similarities"} & set(chosen):
            chosen[name] = tuple(chosen[name])
        return cls(**{**chosen, "lineage": Lineage(**origin)})


def outcome_range(first: str, cut: str) -> tuple[str, str]:
    """The first and the last hour whose outcomes samples from ``first`` on have at ``cut``."""
    return hr.add(first, -_LATE_HOURS), hr.add(cut, -1)


def lineage(
    store: Store, first: str, last: str, cut: str, service: FeatureService | None = None,
    time_zone: str = "UTC", days: int | None = None,
) -> Lineage:  # fmt: skip
    """What a training set of samples [first, last] at ``cut`` reads, from the catalog alone.

    Args:
        service: whose sequences and node embeddings are read along, if it has any; those are of the
            business day before in ``time_zone``.
        days: read no more than so many of the embedded days, the oldest; None for all of them.
    """
    ledger = store.ledger
    samples = ledger.readable("samples", first, last)
    outcomes = ledger.readable("outcomes", *outcome_range(first, cut))
    tables = [view.table for view in service.sequence_views()] if service else []
    sequences = [row for name in tables for row in ledger.readable(name, first, last).values()]
    embedded: list[str] = []
    if service and (service.vectors or service.similarities):
        embedded = embedding_hours(store, first, last, time_zone)[:days]
        tables.append(EMBEDDINGS_TABLE)
    vectors = [ledger.readable(EMBEDDINGS_TABLE, hour, hour)[hour] for hour in embedded]
    digest = hashlib.sha256()
    for completion in (*samples.values(), *outcomes.values(), *sequences, *vectors):
        digest.update(f"{completion.table}|{completion.hour}|{completion.content_hash}\n".encode())
    snapshots = {name: store.snapshot_id(name) for name in ("samples", "outcomes", *tables)}
    known = {name: snapshot for name, snapshot in snapshots.items() if snapshot is not None}
    return Lineage(tuple(samples), tuple(outcomes), known, digest.hexdigest(), tuple(embedded))
