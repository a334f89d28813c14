"""Samples and outcomes drawn for benchmarks/gbdt.py, written as `build_samples` writes them.

Filled are the views that the benchmark's service names, the attributes and the request; other
columns are null, and nobody reads them. An entity has a rate of impressions and one of clicks, from
which its counts in every window are drawn hour by hour, and from those the ratios. Whether an
impression is clicked depends on the rates of user, item and both, on attributes and on the time of
day. Impressions of an hour stop ten minutes before its end, so that every click label is known at
the cut and a plain `lightgbm.train` has the same rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feature_store import hours as hr
from feature_store.schemas import OUTCOMES, SAMPLES, optional
from feature_store.tables import HourWriter, Staged, Store, Writer
from feature_store.views import ATTRIBUTES, VIEWS, FeatureView, window_name

__all__ = ["commit_hours", "open_store"]

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

SLATE: Final = 10
"""Impressions of a request."""
_LAST_MINUTE: Final = 49.9
_WRITER: Final = Writer("build_samples", "bench")
_SHARES: Final = {
    "click": 0.1, "long_view": 0.05, "stay": 0.3, "order": 0.01, "follow": 0.02,
}  # fmt: skip
"""Of the impressions of an entity, how many an action follows on average."""
_FOLLOWING: Final = {"long_view": 0.4, "stay": 0.9, "order": 0.08, "follow": 0.03}
"""Of the clicks that are drawn, how many an action follows."""


@dataclass(frozen=True)
class Market:
    """Who acts, and on what."""

    users: int = 20_000
    items: int = 5_000
    categories: int = 200
    rooms: int = 500


def open_store(folder: Path) -> Store:
    return Store(str(folder / "warehouse"), f"sqlite:///{folder}/catalog.db")


def commit_hours(store: Store, rows: Mapping[str, int], seed: int = 3) -> None:
    """Draw and commit ``rows`` impressions of every hour, with their outcomes."""
    staged = {name: Staged(name) for name in ("samples", "outcomes")}
    store.ledger.take_fence(_WRITER.stage, list(rows), _WRITER.token)
    for number, (hour, count) in enumerate(rows.items()):
        draw = np.random.default_rng([seed, number])
        shown, clicked = samples_of(hour, count, Market(), draw)
        drawn = {"samples": shown, "outcomes": outcomes_of(hour, shown, clicked, draw)}
        for name, of in staged.items():
            writer = HourWriter(store, name, hour)
            writer.write(drawn[name])
            writer.close(of)
    for of in staged.values():
        store.commit(of, _WRITER)


def samples_of(
    hour: str, count: int, market: Market, draw: np.random.Generator
) -> tuple[pa.Table, npt.NDArray[np.bool_]]:
    """The samples of an hour, and which of them are clicked."""
    request = np.arange(count) // SLATE
    user = _popular(int(request[-1]) + 1, market.users, draw)[request]
    item = _popular(count, market.items, draw)
    category, room = item % market.categories, item % market.rooms
    both = (user * 31 + category) % (4 * market.users)
    numbers = {"user_id": user, "item_id": item, "room_id": room, "scene": request % 6}
    columns: dict[str, Any] = {}
    keys = {"user": user, "item": item, "scene": numbers["scene"], "user_category": both}
    for view in VIEWS:
        if view.name in keys:
            columns |= _behaviour(view, keys[view.name], draw)
    columns |= _attributes(numbers, draw)
    at = np.sort(draw.integers(0, int(_LAST_MINUTE * 60e6), count))
    columns |= {
        "hour_of_day": np.full(count, int(hour[-2:]), np.float32),
        "day_of_week": np.full(count, hr.start_of(hour).weekday(), np.float32),
        "scene": _texts("scene", numbers["scene"]), "category": _texts("c", category),
        "target_type": pa.repeat("item", count), **_keys(hour, request, numbers, at),
    }  # fmt: skip
    odds = _odds(user, item, both, columns, int(hour[-2:]))
    clicked = draw.random(count) < 1 / (1 + np.exp(-odds))
    schema = optional(SAMPLES)
    missing = {name: pa.nulls(count, schema.field(name).type) for name in schema.names}
    return pa.table({**missing, **columns}).select(schema.names).cast(schema), clicked


def outcomes_of(
    hour: str, shown: pa.Table, clicked: npt.NDArray[np.bool_], draw: np.random.Generator
) -> pa.Table:
    """The clicks of an hour's samples, and what follows them, all inside of the hour."""
    parts = []
    for action in ("click", *_FOLLOWING):
        share = _FOLLOWING.get(action, 1.0)
        chosen = np.flatnonzero(clicked & (draw.random(len(clicked)) < share))
        at = shown["event_time"].to_numpy()[chosen].astype("datetime64[us]").astype(np.int64)
        time = pa.array(at + draw.integers(1_000_000, 590_000_000, len(chosen)), pa.timestamp("us"))
        ids = shown["sample_id"].take(pa.array(chosen))
        value = pa.array(np.round(draw.gamma(2.0, 15.0, len(chosen)), 2))
        parts.append(pa.table({
            "event_id": pa.array([f"{hour}-{action}-{n}" for n in range(len(chosen))]),
            "sample_id": ids, "action": pa.repeat(action, len(chosen)), "event_time": time,
            "ingested_at": time, "value": value if action in ("stay", "order")
            else pa.nulls(len(chosen), pa.float64()),
            "attribution": pa.repeat("impression_id", len(chosen)),
            "hour": pa.repeat(hour, len(chosen)),
        }).cast(optional(OUTCOMES)))  # fmt: skip
    return pa.concat_tables(parts)


def _popular(count: int, size: int, draw: np.random.Generator) -> Ints:
    return (size * draw.random(count) ** 2.5).astype(np.int64)


def _taste(entity: Ints, salt: int) -> npt.NDArray[np.float64]:
    """A number in [0, 1) that an entity keeps."""
    return (entity * 2654435761 + salt * 40503) % 65_521 / 65_521


def _behaviour(view: FeatureView, mine: Ints, draw: np.random.Generator) -> dict[str, Floats]:
    """The view's columns (rows,), from counts drawn once for every entity."""
    entity, place = np.unique(mine, return_inverse=True)
    busy, appeal = _taste(entity, 1), _taste(entity, 2)
    found: dict[str, npt.NDArray[Any]] = {}
    for minutes in view.windows:
        window = window_name(minutes)
        impressions = draw.poisson(minutes / 60 * 8 * busy**3)
        counts: dict[str, npt.NDArray[Any]] = {"impression": impressions}
        for action in view.actions[1:]:
            share = np.minimum(2 * appeal * _SHARES[action], 1)
            counts[action] = draw.binomial(impressions, share)
        totals = {f"{a}_total": counts[a] * draw.gamma(4.0, 5.0, len(entity)) for a in counts}
        amounts = {f"{a}_amount": totals[f"{a}_total"] for a in view.amounts}
        seen = {**counts, **totals}
        rates = {
            r.name: (seen[r.numerator] + r.prior * r.weight) / (seen[r.denominator] + r.weight)
            for r in view.rates
        }
        found |= {f"{n}_{window}": v for n, v in {**counts, **amounts, **rates}.items()}
    names = [name.removeprefix(f"{view.name}_") for name in view.sample_columns()]
    for name in names:  # trends and ages
        found.setdefault(name, draw.gamma(2.0, 1.0, len(entity)))
    return {f"{view.name}_{name}": found[name].astype(np.float32)[place] for name in names}


def _attributes(numbers: Mapping[str, Ints], draw: np.random.Generator) -> dict[str, Any]:
    """What entities are; one in twenty is not known."""
    found: dict[str, Any] = {}
    for view in ATTRIBUTES:
        mine = numbers[view.key]
        for salt, name in enumerate(view.dense()):
            unknown = draw.random(len(mine)) < 0.05
            values = np.round(100 * _taste(mine, salt + 10)).astype(np.float32)
            found[name] = pa.array(values, mask=unknown)
        for salt, name in enumerate(view.sparse()):
            found[name] = _texts(name, (12 * _taste(mine, salt + 40)).astype(np.int64))
    return found


def _keys(hour: str, request: Ints, numbers: Mapping[str, Ints], at: Ints) -> dict[str, Any]:
    count, start = len(request), int(hr.start_of(hour).timestamp() * 1e6)
    items = _texts("i", numbers["item_id"])
    return {
        "sample_id": pa.array([f"{hour}-{n}" for n in range(count)]),
        "group_id": pa.array([f"{hour}|r|{n}" for n in request]),
        "request_id": pa.array([f"{hour}-{n}" for n in request]),
        "as_of": pa.array(np.full(count, start), pa.timestamp("us")),
        "event_time": pa.array(start + at, pa.timestamp("us")),
        "ingested_at": pa.array(start + at, pa.timestamp("us")),
        "user_id": _texts("u", numbers["user_id"]), "item_id": items, "target_id": items,
        "room_id": _texts("r", numbers["room_id"]),
        "position": (np.arange(count) % SLATE + 1).astype(np.int32),
        "hour": pa.repeat(hour, count),
    }  # fmt: skip


def _texts(prefix: str, numbers: Ints) -> pa.Array:
    known = pa.array([f"{prefix}{n}" for n in range(int(numbers.max(initial=0)) + 1)])
    return known.take(pa.array(numbers))


def _odds(
    user: Ints, item: Ints, both: Ints, columns: Mapping[str, Any], hour: int
) -> npt.NDArray[np.float64]:
    """The log odds of a click."""
    liking = 2.0 * _taste(both, 2) + 1.2 * _taste(user, 2) + 1.6 * _taste(item, 2)
    recent = 3.0 * columns["item_ctr_24h"] + 2.0 * columns["user_category_ctr_24h"]
    evening = 0.5 * np.sin(2 * np.pi * hour / 24) * (_taste(item, 12) - 0.5)
    together: npt.NDArray[np.float64] = 2.5 * (_taste(user, 2) - 0.5) * (_taste(item, 11) > 0.6)
    return -5.2 + liking + recent + evening + together


def hours_before(last: str, count: int) -> Sequence[str]:
    """``count`` hours, the last of them right before ``last``."""
    return hr.hour_range(hr.add(last, -count), hr.add(last, -1))
