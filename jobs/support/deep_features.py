"""What a deep ranker reads of a feature service: its columns, who and what is shown, sequences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from feature_store.embedding_sets import Space
from feature_store.embedding_views import EMBEDDING_VIEWS, SIMILARITIES
from feature_store.sequence_views import SEQUENCE_VIEWS, SequenceView
from feature_store.services import FeatureService
from jobs.support.settings import PretrainSettings
from models import FeatureSpec, SparseColumn
from models.base import PretrainedColumn, SequenceColumn

__all__ = ["POSITION", "deep_spec", "reading"]

POSITION: Final = SparseColumn("position", 64, kind="integer")
"""Where an impression stood, which only training reads."""
_ACTIONS: Final = 16
_LOGARITHMS: Final = 32
"""Codes of a number by its logarithm: up to 2 ** 31 seconds."""


def deep_spec(
    service: FeatureService, labels: Sequence[str], settings: PretrainSettings,
    space: Space | None = None,
) -> FeatureSpec:  # fmt: skip
    """The FeatureSpec of a deep ranker that learns ``labels`` from ``service``; of node vectors it
    reads those of ``space``, and none without one.

    An identifier has one embedding table, wherever it stands: shown, clicked, or offered in a room.
    Only training reads the position, which nobody knows when the ranking is still to be made.
    """
    identifiers = {
        "user_id": settings.user_buckets,
        "item_id": settings.item_buckets,
        "room_id": settings.room_buckets,
    }
    buckets = {**dict(service.sparse()), **identifiers}
    sequences = tuple(c for view in service.sequence_views() for c in _columns(view, buckets))
    shared = {*identifiers, *(column.table for column in sequences)}
    return FeatureSpec(
        dense=(*service.dense(), *service.similarities),
        sparse=tuple(
            SparseColumn(name, size, table=name if name in shared else "")
            for name, size in buckets.items()
        ),
        sequences=sequences,
        pretrained=tuple(
            PretrainedColumn(name, space.width, space.version)
            for name in (service.vectors if space else ())
        ),
        labels=tuple(labels),
        training_only=(POSITION,),
    )


def _columns(view: SequenceView, buckets: dict[str, int]) -> Iterator[SequenceColumn]:
    for element, name in zip(view.elements, view.columns(), strict=True):
        if element in ("gap", "stay"):
            yield SequenceColumn(name, _LOGARITHMS, view.length, kind="log")
        elif element in buckets:
            yield SequenceColumn(name, buckets[element], view.length, table=element)
        else:
            yield SequenceColumn(name, _ACTIONS, view.length)


def reading(service: FeatureService, specs: Iterable[FeatureSpec]) -> FeatureService:
    """``service`` with the sequences, node vectors and similarities that models of ``specs`` read
    anything of, and no others."""
    read = {name for spec in specs for name in spec.columns}
    return replace(
        service,
        sequences=tuple(v.name for v in SEQUENCE_VIEWS if read.intersection(v.columns())),
        vectors=tuple(view.name for view in EMBEDDING_VIEWS if view.name in read),
        similarities=tuple(one.name for one in SIMILARITIES if one.name in read),
    )
