"""One simulated business day in numbers, for people to look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from feature_store import hours as hr
from feature_store.sources.base import SourceError
from feature_store.sources.simulator.behaviour import ACTIONS
from feature_store.sources.simulator.config import TIME_ZONE, MarketConfig
from feature_store.sources.simulator.population import Floats
from feature_store.sources.simulator.world import World, hour_index, position_bias
from feature_store.sources.simulator.writer import read_manifest

__all__ = ["MarketDay", "market_day"]

_COLUMNS = ("action", "request_id", "target_type", "item_id", "position", "event_time")


@dataclass(frozen=True)
class MarketDay:
    """What a day's log shows, beside what the marketplace was told to do. Hours are local, 0-23."""

    date: str
    requests: Floats  # (24,) that were logged
    expected_requests: Floats  # (24,)
    funnel: dict[str, int]  # events by action
    positions: Floats  # (slate,) from 1
    click_rate: Floats  # (slate,) of items, relative to the first position
    position_curve: Floats  # (slate,) the truth
    categories: list[str]  # the most clicked ones, then "others"
    category_share: Floats  # (24, categories) of the hour's clicks on items


def market_day(folder: Path, date: str) -> MarketDay:
    """The business day ``date`` of the simulation in ``folder``, by time of the event.

    Raises:
        SourceError: when the folder does not hold all of its hours.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise SourceError(f"{folder} holds no simulation")
    config = MarketConfig.from_dict(manifest["config"])
    wanted = hr.date_hours(date, TIME_ZONE)
    last = hr.add(config.start, int(manifest["hours"]) - 1)
    if not (config.start <= wanted[0] and wanted[-1] <= last):
        raise SourceError(
            f"the simulation holds {config.start} to {last} (UTC), and {date} in {TIME_ZONE} is "
            f"{wanted[0]} to {wanted[-1]}; choose another day, or simulate more hours"
        )
    events = _events(folder, wanted)
    local = np.asarray(events["event_time"].cast(pa.int64()).to_numpy()) // 3_600_000_000
    local = local - hour_index(wanted[0])
    inside = (local >= 0) & (local < 24)
    events, local = events.filter(pa.array(inside)), local[inside]
    counts = {row["values"]: row["counts"] for row in pc.value_counts(events["action"]).to_pylist()}
    world = World(config)
    top, share = _categories(world, events, local, hour_index(wanted[-1]))
    positions = np.arange(1, config.slate_size + 1)
    shown, clicked = (_by_position(events, a, config.slate_size) for a in ("impression", "click"))
    rate = clicked / np.maximum(shown, 1)
    return MarketDay(
        date=date,
        requests=_requests(events, local),
        expected_requests=np.array([world.volume(hour_index(hour)) for hour in wanted]),
        funnel={action: counts.get(action, 0) for action in ACTIONS},
        positions=positions.astype(np.float64),
        click_rate=rate / max(rate[0], 1e-12),
        position_curve=position_bias(positions, config),
        categories=top,
        category_share=share,
    )


def _events(folder: Path, hours: list[str]) -> pa.Table:
    """The day's well-formed events; what comes two hours late is not waited for."""
    files = [folder / "events" / f"hour={hour}" / "part-0.parquet" for hour in hours]
    table = ds.dataset([str(path) for path in files], format="parquet").to_table(list(_COLUMNS))
    known = pc.and_(pc.is_valid(table["event_time"]), pc.is_in(table["action"], pa.array(ACTIONS)))
    return table.filter(known)


def _requests(events: pa.Table, local: np.ndarray) -> Floats:
    first = pc.and_(pc.equal(events["action"], "impression"), pc.equal(events["position"], 1))
    chosen = pc.fill_null(first, False).to_numpy()
    return np.bincount(local[chosen], minlength=24).astype(np.float64)


def _by_position(events: pa.Table, action: str, size: int) -> Floats:
    items = pc.and_(pc.equal(events["target_type"], "item"), pc.equal(events["action"], action))
    position = events.filter(items)["position"].drop_null().to_numpy()
    return np.bincount(position, minlength=size + 1)[1:].astype(np.float64)


def _categories(
    world: World, events: pa.Table, local: np.ndarray, last: int, most: int = 6
) -> tuple[list[str], Floats]:
    """The most clicked categories, and each one's share of the clicks on items by hour."""
    clicks = pc.and_(pc.equal(events["target_type"], "item"), pc.equal(events["action"], "click"))
    number = pc.utf8_slice_codeunits(events.filter(clicks)["item_id"], 1).cast(pa.int64())
    category = world.supply(last)[0].category[number.to_numpy()]
    place = local[clicks.to_numpy()] * world.config.categories + category
    counts = np.bincount(place, minlength=24 * world.config.categories).reshape(24, -1)
    top = np.argsort(-counts.sum(axis=0), kind="stable")[:most]
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    others = 1.0 - share[:, top].sum(axis=1, keepdims=True)
    names = [f"c{number}" for number in top.tolist()]
    return [*names, "others"], np.concatenate([share[:, top], others], axis=1)
