"""The log of an hour's requests: everything that they lead to, as canonical events."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.schemas import SOURCE_EVENTS
from feature_store.sources.simulator.behaviour import ACTIONS, chances, outcomes
from feature_store.sources.simulator.config import MarketConfig
from feature_store.sources.simulator.policies import Policy
from feature_store.sources.simulator.population import Floats, random_stream
from feature_store.sources.simulator.requests import SCENES, SEARCH
from feature_store.sources.simulator.slates import Slates
from feature_store.sources.simulator.text import (
    instants,
    joined_text,
    request_names,
    target_names,
)
from feature_store.sources.simulator.truth import TruthTables, served_in, truth_of
from feature_store.sources.simulator.world import World

__all__ = ["LOOSE_EVENTS", "MAX_LATE_SECONDS", "origin_events"]

# SOURCE_EVENTS as a dirty log has it: nothing can be relied upon to be there.
LOOSE_EVENTS: Final = pa.schema([field.with_nullable(True) for field in SOURCE_EVENTS])
MAX_LATE_SECONDS: Final = 6600.0  # inside the two hours that a log may be late
_WORDINGS: Final = 5  # of a query for a category


def origin_events(
    world: World, hour: int, policy: Policy, with_truth: bool = False
) -> tuple[pa.Table, list[TruthTables]]:
    """Everything that the requests of ``hour`` (since the epoch) lead to, clean, in no particular
    order, ``LOOSE_EVENTS``; much of it arrives in later hours. And the truth, where wanted."""
    parts, truths = [], []
    for chunk, start, served in served_in(world, hour, policy, world.config.uniform_share):
        parts.append(_events(world, hour, chunk, start, served.slates))
        if with_truth:
            truths.append(truth_of(world, hour, start, served))
    return (pa.concat_tables(parts) if parts else LOOSE_EVENTS.empty_table()), truths


def _events(world: World, hour: int, chunk: int, first_request: int, slates: Slates) -> pa.Table:
    config, requests = world.config, slates.requests
    happened = outcomes(world, hour, chunk, slates, chances(world, hour, slates))
    rng = random_stream(config.seed, f"log {chunk}", hour)
    action = np.concatenate([np.full(len(h.impression), i) for i, h in enumerate(happened)])
    impression = np.concatenate([h.impression for h in happened])
    after = np.concatenate([h.after for h in happened])
    value = np.concatenate([h.value for h in happened])
    of = slates.request[impression]
    event_second = requests.second[of] + after
    # a slate is logged in one piece, so its impressions arrive together
    by_request = _lags(rng, len(requests), config)[of]
    lag = np.where(action == 0, by_request, _lags(rng, len(action), config))
    lost = (rng.random(len(action)) < config.lost_impression_share) & (
        action >= ACTIONS.index("cart")
    )
    lost_request = lost & (rng.random(len(action)) < 0.5)
    scene = requests.scene[of]
    request, position = first_request + of, slates.position[impression]
    is_room = slates.is_room[impression]
    item, room = slates.item[impression], slates.room[impression]
    shown = pa.array(action == 0)
    propensity = pa.array(slates.propensity[impression])
    columns = {
        "event_id": pc.binary_join_element_wise(
            joined_text(f"e{hour}-", request), joined_text(np.arange(len(action))), "-"
        ),
        "event_time": instants(hour, event_second),
        "ingested_at": instants(hour, event_second + lag),
        "request_id": pc.if_else(pa.array(lost_request), None, request_names(hour, request)),
        "impression_id": pc.if_else(pa.array(lost), None, request_names(hour, request, position)),
        "user_id": joined_text("u", requests.user[of]),
        "target_type": pa.array(["item", "room"]).take(pa.array(is_room.astype(np.int64))),
        "target_id": target_names(is_room, item, room),
        "item_id": joined_text("i", item),
        "room_id": joined_text("r", room),
        "scene": pa.array(SCENES).take(pa.array(scene)),
        "position": pc.if_else(pa.array(lost), None, pa.array(position.astype(np.int32))),
        "action": pa.array(ACTIONS).take(pa.array(action)),
        "value": pa.array(value, mask=np.isnan(value)),
        "query": _queries(slates).take(pa.array(of)),
        "propensity": pc.if_else(shown, propensity, None),
    }
    return pa.table(columns, schema=LOOSE_EVENTS)


def _queries(slates: Slates) -> pa.Array:
    """The query of each request; null where nothing was searched for."""
    requests = slates.requests
    wording = (requests.second * 1e6).astype(np.int64) % _WORDINGS
    words = joined_text("c", requests.intent, " ", wording)
    return pc.if_else(pa.array(requests.scene == SEARCH), words, None).combine_chunks()


def _lags(rng: np.random.Generator, count: int, config: MarketConfig) -> Floats:
    """Seconds from an event to its arrival: a few, or, for the late share, up to 110 minutes."""
    usual = np.clip(rng.exponential(3.0, count), 0.05, 100.0)
    late = rng.uniform(120.0, MAX_LATE_SECONDS, count)
    return np.where(rng.random(count) < config.late_share, late, usual)
