"""An hour's samples, outcomes and behaviour on Arrow: what one task makes of whole hours.

A ranking group is (run hour, request), or (run hour, user, hour of the event) where impressions
have no request. Its ``as_of`` is the hour of its earliest impression, so that no running statistic
inside a group can tell the labels of the group.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store import storage
from feature_store.attribution import COLUMNS as OUTCOME_COLUMNS
from feature_store.attribution import attribute
from feature_store.derived import EntityFiles, with_derived_keys
from feature_store.keyed_files import rows_of_keys
from feature_store.parts import Part, Target, write_hours
from feature_store.point_in_time import attribute_columns, behaviour_rows, never
from feature_store.schemas import BEHAVIOUR, EVENTS, SAMPLES, optional
from feature_store.sequence_views import BEHAVIOUR_ACTIONS
from feature_store.views import ATTRIBUTES, DERIVED_KEYS, VIEWS, FeatureView
from feature_store.windows import HOUR_MICROS, hour_names, timestamps

__all__ = [
    "ACTED",
    "OUTCOME",
    "SAMPLE",
    "SHOWN",
    "ActionTask",
    "SampleTask",
    "actions",
    "behaviour",
    "impressions",
    "samples",
]

SAMPLE: Final = Target("samples", ("event_id",))
OUTCOME: Final = Target("outcomes", ("event_id", "sample_id"))
ACTED: Final = Target("behaviour", ("user_id", "event_time", "event_id"))

SHOWN: Final = pa.schema(
    [
        *optional(EVENTS),
        *((key.name, pa.string()) for key in DERIVED_KEYS),
        ("sample_id", pa.string()),
        ("group_id", pa.string()),
        ("as_of", EVENTS.field("event_time").type),
        ("hour_of_day", pa.float32()),
        ("day_of_week", pa.float32()),
    ]
)
"""Columns of :func:`impressions`."""


@dataclass(frozen=True)
class SampleTask:
    """Impressions of whole hours.

    Attributes:
        events: files of the hours.
        features: by view the files of its features that any of the hours may read.
        attributes: by attribute view the files of its entity table.
        folder: where the samples go; a fresh path.
    """

    events: Sequence[str]
    entities: EntityFiles
    features: Sequence[Sequence[str]]
    attributes: Sequence[Sequence[str]]
    time_zone: str
    folder: str


@dataclass(frozen=True)
class ActionTask:
    """What users did in whole hours.

    Attributes:
        events: files of the hours.
        earlier: files of the hours before, whose impressions outcomes may belong to.
        windows: seconds from an impression to each declared action.
        lookback: hours of impressions before each hour that count.
        outcomes, behaviour: where the files go; fresh paths.
    """

    events: Sequence[str]
    earlier: Sequence[str]
    entities: EntityFiles
    windows: Mapping[str, int]
    lookback: int
    outcomes: str
    behaviour: str


def read_events(paths: Sequence[str], columns: Sequence[str], actions: Sequence[str]) -> pa.Table:
    """Events of ``actions`` from files, in the declared types."""
    schema = pa.schema([optional(EVENTS).field(name) for name in columns])
    pieces = [schema.empty_table()]
    for path in paths:
        rows = storage.read_table(path, columns)
        rows = rows.filter(pc.is_in(rows["action"], value_set=pa.array(actions)))
        pieces.append(rows.select(schema.names).cast(schema))
    return pa.concat_tables(pieces).combine_chunks()


def samples(task: SampleTask) -> Iterator[Part]:
    """Write every impression with what was known at its group's ``as_of``; a part per hour."""
    events = read_events(task.events, EVENTS.names, ["impression"])
    shown = impressions(with_derived_keys(events, task.entities), task.time_zone)
    # In their final order before they are wide.
    shown = shown.sort_by([(name, "ascending") for name in ("hour", *SAMPLE.sort)])
    columns = {name: shown[name] for name in shown.column_names}
    as_of = pc.cast(shown["as_of"], pa.int64())
    for view, paths in zip(VIEWS, task.features, strict=True):
        columns |= _behaviour_columns(view, paths, shown, as_of)
    for entity, paths in zip(ATTRIBUTES, task.attributes, strict=True):
        keys = shown[entity.key]
        names = [entity.key, "valid_from", "numeric", "categorical", "hour"]
        wanted = pc.unique(pc.drop_null(keys))
        arrived = rows_of_keys(paths, entity.table, names, entity.key, wanted)
        columns |= attribute_columns(entity, arrived, pa.table({"k1": keys, "as_of": as_of}))
    rows = pa.table({name: columns[name] for name in ("event_id", *SAMPLES.names)})
    yield from write_hours(rows, SAMPLE, task.folder)


def impressions(events: pa.Table, time_zone: str) -> pa.Table:
    """Impressions with their group and what the clock says.

    Grain: one row per impression, in the columns of ``SHOWN``.

    Args:
        events: with derived keys; all impressions of their groups.
    """
    shown = events.filter(pc.equal(events["action"], "impression"))
    instant = pc.cast(shown["event_time"], pa.int64()).to_numpy()
    event_hour = hour_names(instant // HOUR_MICROS)
    by_request = pc.binary_join_element_wise(shown["hour"], "r", shown["request_id"], "|")
    by_user = pc.binary_join_element_wise(shown["hour"], "u", shown["user_id"], event_hour, "|")
    group = pc.coalesce(by_request, by_user).combine_chunks()
    codes = group.dictionary_encode().indices.to_numpy()
    earliest = np.full(int(codes.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    np.minimum.at(earliest, codes, instant)
    local = pc.cast(shown["event_time"], pa.timestamp("us", time_zone))
    added = {
        "sample_id": pc.coalesce(shown["impression_id"], shown["event_id"]),
        "group_id": group,
        "as_of": timestamps(earliest[codes] // HOUR_MICROS * HOUR_MICROS),
        "hour_of_day": pc.hour(local),
        "day_of_week": pc.day_of_week(local),
    }
    own = {name: shown[name] for name in shown.column_names}
    return pa.table({name: {**own, **added}[name] for name in SHOWN.names}).cast(SHOWN)


def _behaviour_columns(
    view: FeatureView, paths: Sequence[str], shown: pa.Table, as_of: pa.ChunkedArray
) -> dict[str, np.ndarray]:
    """The view's sample columns for every impression, each in one run of memory."""
    matrix = np.repeat(never(view)[:, None], shown.num_rows, axis=1)
    valid = np.logical_and.reduce([shown[key].is_valid().to_numpy() for key in view.keys])
    rows = np.flatnonzero(valid)
    asked = shown.select(view.keys).append_column("as_of", as_of).take(pa.array(rows))
    for chunk, answers in behaviour_rows(view, paths, asked):
        matrix[:, rows[chunk]] = answers.T
    return dict(zip(view.sample_columns(), matrix, strict=True))


def actions(task: ActionTask) -> Iterator[Part]:
    """Write the hours' attributed outcomes, and the behaviour that sequences are made of."""
    wanted = sorted({*task.windows, *BEHAVIOUR_ACTIONS})
    events = read_events(task.events, EVENTS.names, wanted)
    declared = events.filter(pc.is_in(events["action"], value_set=pa.array(list(task.windows))))
    shown = read_events([*task.earlier, *task.events], OUTCOME_COLUMNS, ["impression"])
    found = attribute(declared.select(OUTCOME_COLUMNS), shown, task.windows, task.lookback)
    yield from write_hours(found, OUTCOME, task.outcomes)
    acted = events.filter(pc.is_in(events["action"], value_set=pa.array(BEHAVIOUR_ACTIONS)))
    acted = behaviour(with_derived_keys(acted, task.entities), found)
    yield from write_hours(acted, ACTED, task.behaviour)


def behaviour(acted: pa.Table, outcomes: pa.Table) -> pa.Table:
    """Rows of table ``behaviour``. Grain: unchanged, one row per event.

    Args:
        acted: events of ``BEHAVIOUR_ACTIONS``, with ``category``.
        outcomes: the same hours' outcomes.
    """
    names = [_names(rows).combine_chunks() for rows in (acted, outcomes)]
    place = pc.index_in(names[0], value_set=names[1])
    samples = outcomes["sample_id"].combine_chunks().take(place)
    return acted.append_column("sample_id", samples).select(BEHAVIOUR.names)


def _names(rows: pa.Table) -> pa.ChunkedArray:
    """What an event is called across hours."""
    return pc.binary_join_element_wise(rows["hour"], rows["event_id"], "|")
