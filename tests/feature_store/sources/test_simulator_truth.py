"""The marketplace and its truth: measured rates equal it, and delays and dirt are as declared."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from feature_store import hours
from feature_store.schemas import ACTIONS
from feature_store.sources.simulator import (
    MarketConfig,
    World,
    intensity,
    position_bias,
)
from feature_store.sources.simulator.dirt import UNKNOWN_ACTION
from feature_store.sources.simulator.slates import make_slates
from feature_store.sources.simulator.world import hour_index, random_stream, sigmoid
from feature_store.sources.simulator.writer import HORIZON_HOURS, arrivals
from tests.feature_store.sources.market import (
    CLEAN,
    HOUR_MICROS,
    HOURS,
    SMALL,
    micros,
    numbers,
)


@pytest.fixture(scope="module")
def clean():
    """Two clean days of the default marketplace: its events by arrival hour."""
    config = MarketConfig(**CLEAN)
    return config, dict(arrivals(config, HOURS))


@pytest.fixture(scope="module")
def impressions(clean):
    """Impressions of the clean days: user, item, room, position, is_room, clicked, attraction."""
    config, by_hour = clean
    events = pa.concat_tables(by_hour.values())
    shown = events.filter(pc.equal(events["action"], "impression"))
    clicks = events.filter(pc.equal(events["action"], "click"))["impression_id"]
    # the last hour's clicks are still under way
    shown = shown.filter(pc.less(shown["event_time"].cast(pa.int64()), last_micros(config)))
    user, item, room = (numbers(shown[c]) for c in ("user_id", "item_id", "room_id"))
    is_room = pc.equal(shown["target_type"], "room").to_numpy()
    world = World(config)
    items, rooms = world.supply(world.first + HOURS)
    attraction = np.where(
        is_room,
        world.room_attraction(user, room, item, rooms, items),
        world.item_attraction(user, item, items),
    )
    clicked = pc.is_in(shown["impression_id"], clicks.combine_chunks()).to_numpy()
    return {
        "config": config, "user": user, "item": item, "is_room": is_room, "clicked": clicked,
        "position": shown["position"].to_numpy(), "attraction": attraction,
        "category": items.category[item], "request": shown["request_id"].to_pylist(),
        "time": micros(shown["event_time"]),
    }  # fmt: skip


def last_micros(config):
    return (hour_index(config.start) + HOURS - 1) * HOUR_MICROS


class TestArrival:
    def test_every_event_lies_in_its_hour_of_arrival_in_order(self, clean):
        _, by_hour = clean
        for hour, events in by_hour.items():
            arrived = micros(events["ingested_at"])
            assert set(arrived // HOUR_MICROS) == {hour}
            assert np.all(np.diff(arrived) >= 0)

    def test_delays(self, clean):
        _, by_hour = clean
        events = pa.concat_tables(by_hour.values())
        lag = micros(events["ingested_at"]) - micros(events["event_time"])
        assert lag.min() > 0
        assert lag.max() < 2 * HOUR_MICROS
        late = np.mean(lag > 110e6)
        assert 0.008 < late < 0.012
        shown = events.filter(pc.equal(events["action"], "impression"))
        began = dict(
            zip(shown["impression_id"].to_pylist(), micros(shown["event_time"]), strict=True)
        )
        bounds = {"click": 570, "long_view": 700, "stay": 3500, "cart": 3500, "order": 25200}
        for action, most in bounds.items():
            happened = events.filter(pc.equal(events["action"], action))
            after = np.array(
                [
                    time - began[name]
                    for name, time in zip(
                        happened["impression_id"].to_pylist(),
                        micros(happened["event_time"]),
                        strict=True,
                    )
                    if name in began
                ]
            )
            assert 0 < after.min() <= after.max() <= most * 1e6, action
            crossing = np.median(after)
            assert (crossing > 600e6) == (action == "order")

    def test_a_slate_arrives_together(self, clean):
        _, by_hour = clean
        events = pa.concat_tables(by_hour.values())
        shown = events.filter(pc.equal(events["action"], "impression"))
        slates = shown.group_by("request_id").aggregate(
            [
                ("ingested_at", "count_distinct"),
                ("position", "max"),
                ("target_id", "count_distinct"),
            ]
        )
        assert set(slates["ingested_at_count_distinct"].to_pylist()) == {1}
        assert set(slates["position_max"].to_pylist()) == {10}
        assert set(slates["target_id_count_distinct"].to_pylist()) == {10}

    def test_nothing_arrives_beyond_the_horizon(self):
        dirty = dataclasses.replace(SMALL, too_late_share=0.3, late_share=0.3, duplicate_share=0.2)
        begun = hour_index(SMALL.start)
        for hour, events in arrivals(dirty, HORIZON_HOURS + 4):
            origin = [int(text[1:].split("-")[0]) for text in events["event_id"].to_pylist()]
            assert min(origin) >= max(begun, hour - HORIZON_HOURS)


def mean_ndcg(scores, labels, groups):
    order = np.lexsort((-scores, groups))
    best = np.lexsort((-labels.astype(float), groups))
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    sizes = np.diff(np.append(starts, len(order)))
    rank = np.arange(len(order)) - np.repeat(starts, sizes)
    discount = 1 / np.log2(rank + 2)
    gained, ideal = (np.add.reduceat(labels[o] * discount, starts) for o in (order, best))
    hits = np.add.reduceat(labels[order], starts, dtype=np.int64)
    defined = (hits > 0) & (hits < sizes)
    return np.mean(gained[defined] / ideal[defined])


class TestTruth:
    def test_clicks_follow_the_position_curve(self, impressions):
        config, position = impressions["config"], impressions["position"]
        wanted = sigmoid(impressions["attraction"]) * position_bias(position, config)
        for place in range(1, 11):
            here = position == place
            error = np.sqrt(np.sum(wanted[here] * (1 - wanted[here])))
            assert abs(impressions["clicked"][here].sum() - wanted[here].sum()) < 3 * error, place
        assert np.allclose(position_bias([1, 4], config), [1.0, 4**-0.45])

    @pytest.mark.parametrize("part", ["is_room", "category", "hour"])
    def test_clicks_are_calibrated(self, impressions, part):
        wanted = sigmoid(impressions["attraction"]) * position_bias(
            impressions["position"], impressions["config"]
        )
        key = impressions["time"] // HOUR_MICROS if part == "hour" else impressions[part]
        distance = []
        for value in np.unique(key):
            here = key == value
            error = np.sqrt(np.sum(wanted[here] * (1 - wanted[here])))
            distance.append((impressions["clicked"][here].sum() - wanted[here].sum()) / error)
        assert np.abs(distance).max() < 3.5
        assert np.mean(np.square(distance)) < 2.0

    def test_taste_by_category_beats_popularity(self, impressions):
        cut = np.quantile(impressions["time"], 0.7)
        past = (impressions["time"] < cut) & ~impressions["is_room"]
        now = (impressions["time"] >= cut) & ~impressions["is_room"]
        clicked, user, item = (impressions[name] for name in ("clicked", "user", "item"))

        def score(key, prior):
            size = key.max() + 1
            shown = np.bincount(key[past], minlength=size)
            hits = np.bincount(key[past], clicked[past], minlength=size)
            return ((hits + prior * clicked[past].mean()) / (shown + prior))[key][now]

        requests = np.unique(np.array(impressions["request"])[now], return_inverse=True)[1]
        popular = score(item, 20)
        personal = score(user * 24 + impressions["category"], 5)
        truth = impressions["attraction"][now]
        chance = np.random.default_rng(0).random(len(truth))
        ndcg = [
            mean_ndcg(values, clicked[now], requests)
            for values in (chance, popular, personal, truth)
        ]
        assert np.all(np.diff(ndcg) > 0.03), ndcg

    def test_what_draws_clicks_is_not_what_sells(self):
        world = World(MarketConfig())
        items, _ = world.supply(world.first)
        assert 0.2 < np.corrcoef(items.appeal, items.quality)[0, 1] < 0.4
        assert 0.6 < np.corrcoef(items.rating, items.quality)[0, 1] < 0.95

    def test_attraction_is_that_of_the_slates(self):
        world = World(SMALL)
        user, scene = np.arange(50), np.array([0, 2] * 25)
        slates = make_slates(
            world, world.first, random_stream(1, "t"), user, np.full(50, 1000.0), scene
        )
        items, rooms = world.supply(world.first)
        explained = world.explained(world.first, 1)
        live = slates.is_room
        assert np.array_equal(slates.item[live], explained[slates.room[live]])
        assert set(slates.room[live]) <= set(world.live(world.first))
        assert np.array_equal(items.room[slates.item[~live]], slates.room[~live])
        direct = world.room_attraction(
            slates.user[live], slates.room[live], slates.item[live], rooms, items
        )
        assert np.array_equal(slates.attraction(world, world.first)[live], direct)


class TestRates:
    def test_funnel(self, clean):
        _, by_hour = clean
        events = pa.concat_tables(by_hour.values())
        counts = {x["values"]: x["counts"] for x in pc.value_counts(events["action"]).to_pylist()}
        assert set(counts) == {
            "impression", "click", "long_view", "stay", "cart", "order", "follow",
        }  # fmt: skip
        assert counts["impression"] / 10 / HOURS == pytest.approx(350, rel=0.05)
        bounds = {"long_view": (0.4, 0.8), "cart": (0.08, 0.25), "order": (0.03, 0.1)}
        assert 0.08 < counts["click"] / counts["impression"] < 0.2
        for action, (low, high) in bounds.items():
            assert low < counts[action] / counts["click"] < high, action
        assert 0.01 < counts["follow"] / counts["click"] < 0.1
        amounts = events.filter(pc.equal(events["action"], "order"))["value"]
        assert amounts.null_count == 0
        assert pc.min(amounts).as_py() > 0

    def test_the_evening_has_the_most(self, impressions):
        config = impressions["config"]
        hour = impressions["time"] // HOUR_MICROS
        first = hour_index(config.start)
        shown = np.bincount(hour - first, minlength=24)[:24] / 10
        wanted = np.array([350 * intensity(hours.add(config.start, h)) for h in range(24)])
        assert np.all(np.abs(shown - wanted) < 4 * np.sqrt(wanted) + 1)
        assert np.argmax(wanted) in (12, 13)  # 20 to 21 h in Shanghai
        assert wanted.max() / wanted.min() > 4
        assert wanted.mean() == pytest.approx(350)

    def test_dirt_has_its_shares(self):
        config = MarketConfig(
            duplicate_share=0.02, too_late_share=0.03, future_share=0.01, malformed_share=0.005
        )
        events = pa.concat_tables(table for _, table in arrivals(config, 24))
        rows = events.num_rows
        lag = (
            micros(events["ingested_at"])
            - pc.fill_null(events["event_time"].cast(pa.int64()), 0).to_numpy()
        )
        known = events["event_time"].is_valid().to_numpy()
        found = {
            "too_late": np.sum(known & (lag > 2 * HOUR_MICROS)),
            "future": np.sum(lag < 0),
            "duplicate": rows - len(events["event_id"].unique()),
            "malformed": sum(
                events[name].null_count for name in ("user_id", "target_id", "event_time")
            ) + pc.sum(pc.equal(events["action"], UNKNOWN_ACTION)).as_py(),
        }  # fmt: skip
        # a few of the too late ones arrive after the last hour
        assert found["too_late"] / rows == pytest.approx(0.03, rel=0.25)
        assert found["future"] / rows == pytest.approx(0.01, rel=0.15)
        assert found["duplicate"] / rows == pytest.approx(0.02, rel=0.15)
        assert found["malformed"] / rows == pytest.approx(0.005, rel=0.2)
        assert UNKNOWN_ACTION not in ACTIONS

    def test_the_default_is_a_little_dirty(self):
        config = MarketConfig()
        shares = [getattr(config, name) for name in CLEAN]
        assert all(0 < share < 0.01 for share in shares)
