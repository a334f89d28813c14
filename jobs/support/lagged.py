"""What a ranker loses by features that are an hour older than they could be.

A sample knows what was published by the start of its hour. Where publishing fails or is slow, a
ranker is served what was published the hour before; so scored, the same rows tell what that costs.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from feature_store.historical import get_historical_features
from feature_store.schemas import SAMPLE_KEYS
from feature_store.services import FeatureService
from feature_store.tables import Store
from feature_store.views import DERIVED_KEYS, VIEWS
from jobs.support.contenders import ByLabel, Contender

__all__ = ["lagged"]

_TIME: Final = "asked_at"
_KEYS: Final = frozenset(
    (*(field.name for field in SAMPLE_KEYS), "scene", *(key.name for key in DERIVED_KEYS))
)
"""Keys of views that samples keep, or that are looked up by what they keep."""


def lagged(one: Contender, store: Store, time_zone: str, hours: int = 1) -> Contender:
    """``one``, served behaviour features that are so many hours older.

    What the request says, attributes, sequences and node vectors stay as they are, and so does what
    is counted by a query, which samples do not keep.

    Raises:
        StoreError: on scoring, when features of the earlier hours are not published.
    """
    service = _behaviour(one.reads)

    def score(table: pa.Table, labels: Sequence[str]) -> ByLabel:
        return one.score(_older(table, store, service, time_zone, hours), labels)

    return replace(one, role=f"{one.role} lagged {hours}h", score=score)


def _behaviour(reads: Sequence[str]) -> FeatureService:
    """A service of the views that the columns ``reads`` are of."""
    read = set(reads)
    views = tuple(
        view.name
        for view in VIEWS
        if read.intersection(view.sample_columns()) and _KEYS.issuperset(view.keys)
    )
    return FeatureService("lagged", "what counts change by the hour", "rankmill", views=views)


def _older(
    table: pa.Table, store: Store, service: FeatureService, time_zone: str, hours: int
) -> pa.Table:
    """``table`` with the columns of ``service`` as they were so many hours before."""
    asked_at = pc.subtract(table["as_of"], pa.scalar(dt.timedelta(hours=hours)))
    there = set(table.column_names)
    keys = dict.fromkeys((*service.key_columns(), "item_id", "room_id"))
    frame = table.select([name for name in keys if name in there]).append_column(_TIME, asked_at)
    found = get_historical_features(store, frame, service, _TIME, time_zone=time_zone)
    for name in service.columns():
        if name in there:
            place = table.schema.get_field_index(name)
            column = pc.cast(found[name], table.schema.field(name).type)
            table = table.set_column(place, name, column)
    return table
