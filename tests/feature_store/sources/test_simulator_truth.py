"""The marketplace and its truth: measured rates equal it, and delays and dirt are as declared."""

from __future__ import annotations

import dataclasses
from collections import Counter

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
from feature_store.sources.simulator.log import origin_events
from feature_store.sources.simulator.policies import LoggingPolicy
from feature_store.sources.simulator.requests import SEARCH, make_requests
from feature_store.sources.simulator.truth import served_in
from feature_store.sources.simulator.world import hour_index, trust_bias
from feature_store.sources.simulator.writer import HORIZON_HOURS, arrivals
from tests.feature_store.sources.market import (
    CLEAN,
    HOUR_MICROS,
    HOURS,
    SMALL,
    micros,
)

RATED = ("click", "long_view", "stay", "cart", "order", "cancel", "follow", "comment", "like",
         "share", "hate")  # fmt: skip


@pytest.fixture(scope="module")
def clean():
    """Two clean days of the default marketplace: its events by arrival hour."""
    config = MarketConfig(**CLEAN)
    return config, {made.hour: made.events for made in arrivals(config, HOURS)}


@pytest.fixture(scope="module")
def told():
    """What the requests of two days lead to, bots and a festival included: events and truth."""
    config = MarketConfig(**{**CLEAN, "bot_share": 0.01, "festival": "2026-11-09"})
    world = World(config)
    events, impressions, slates, hour_of = [], [], [], []
    for hour in range(world.first, world.first + HOURS):
        happened, truths = origin_events(world, hour, LoggingPolicy(world), with_truth=True)
        events.append(happened)
        impressions += [truth.impressions for truth in truths]
        slates += [truth.slates for truth in truths]
        hour_of += [hour] * sum(truth.impressions.num_rows for truth in truths)
    return (
        config,
        pa.concat_tables(events),
        pa.concat_tables(impressions),
        pa.concat_tables(slates),
        np.array(hour_of),
    )


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
        bounds = {"click": 570, "long_view": 700, "stay": 3500, "cart": 3500, "order": 25200,
                  "cancel": 70000, "like": 3500, "hate": 60}  # fmt: skip
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
            assert (np.median(after) > 600e6) == (action in ("order", "cancel"))

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
        assert Counter(slates["position_max"].to_pylist()).most_common(1)[0][0] == 10
        assert slates["position_max"].equals(slates["target_id_count_distinct"].cast(pa.int32()))

    def test_nothing_arrives_beyond_the_horizon(self):
        dirty = dataclasses.replace(SMALL, too_late_share=0.3, late_share=0.3, duplicate_share=0.2)
        begun = hour_index(SMALL.start)
        for made in arrivals(dirty, HORIZON_HOURS + 4):
            origin = [int(text[1:].split("-")[0]) for text in made.events["event_id"].to_pylist()]
            assert min(origin) >= max(begun, made.hour - HORIZON_HOURS)

    def test_requests_come_in_sessions(self):
        world = World(MarketConfig())
        requests = make_requests(world, world.first + 12)
        assert len(requests) == pytest.approx(world.volume(world.first + 12), rel=0.15)
        assert requests.second.min() >= 0
        assert requests.second.max() < 3600
        same = (np.diff(requests.user) == 0) & (np.diff(requests.intent) == 0)
        assert 0.5 < same.mean() < 0.7, "two and a half requests a session"
        apart = np.diff(requests.second)[same]
        assert apart.min() > 0
        assert 30 < np.mean(apart) < 80


def rates(told, action):
    """What happened to each impression (0 or 1), and how likely it was."""
    _, events, impressions, _, _ = told
    # half of what lost its impression still has its request and target
    mine = events.filter(pc.equal(events["action"], action))
    happened = pc.is_in(impressions["impression_id"], mine["impression_id"].combine_chunks())
    lost = 0.1 if action not in ("click", "long_view", "stay") else 0.0
    return happened.to_numpy(), (1 - lost) * impressions[f"p_{action}"].to_numpy()


def distances(happened, wanted, key):
    """Standard errors between what happened and the truth, for every value of ``key``."""
    found = []
    for value in np.unique(key):
        here = key == value
        error = np.sqrt(np.sum(wanted[here] * (1 - wanted[here])))
        found.append((happened[here].sum() - wanted[here].sum()) / max(error, 1e-9))
    return np.array(found)


class TestCalibration:
    @pytest.mark.parametrize("action", RATED)
    def test_rates_equal_the_truth(self, told, action):
        happened, wanted = rates(told, action)
        assert happened.sum() > 50
        assert abs(distances(happened, wanted, np.zeros(len(wanted)))[0]) < 3
        position = told[2]["position"].to_numpy()
        for key in (position, told[4]):
            apart = distances(happened, wanted, key)
            # of n independent distances the largest is above 4 in one case of 16,000 / n
            assert np.abs(apart).max() < 4
            assert (np.abs(apart) > 3).sum() <= 1
            assert np.mean(np.square(apart)) < 1 + 3 * np.sqrt(2 / len(apart))

    @pytest.mark.parametrize("flag", ["random", "bot"])
    def test_clicks_of_a_part_equal_the_truth(self, told, flag):
        happened, wanted = rates(told, "click")
        assert np.abs(distances(happened, wanted, told[2][flag].to_numpy())).max() < 3

    def test_nobody_hates_what_they_clicked(self, told):
        events = told[1]
        clicked, hated = (
            set(events.filter(pc.equal(events["action"], action))["impression_id"].to_pylist())
            for action in ("click", "hate")
        )
        assert hated - {None}
        assert not hated & clicked

    def test_stays_have_their_mean(self, told):
        _, events, impressions, _, _ = told
        stays = events.filter(pc.equal(events["action"], "stay"))["value"].to_numpy()
        error = stays.std() * np.sqrt(len(stays))
        assert abs(stays.sum() - impressions["p_stay_seconds"].to_numpy().sum()) < 3 * error

    def test_the_click_is_the_look_and_the_wish_or_the_trust(self, told):
        config, _, impressions, _, _ = told
        people = impressions.filter(pc.invert(impressions["bot"]))
        position, wanted = (people[n].to_numpy() for n in ("position", "wanted"))
        look, trust = position_bias(position, config), trust_bias(position, config)
        assert np.allclose(people["p_click"].to_numpy(), look * (wanted + trust * (1 - wanted)))
        assert np.allclose(position_bias([1, 4], config), [1.0, 4**-0.45])
        assert np.allclose(trust_bias([1, 4], config), [0.02, 0.005])

    def test_the_best_slate_is_what_is_wanted_most(self, told):
        _, _, impressions, slates, _ = told
        best = dict(zip(slates["request_id"].to_pylist(), slates["best"].to_pylist(), strict=True))
        shown = {}
        people = impressions.filter(pc.invert(impressions["bot"]))  # bots want everything alike
        for row in people.slice(0, 4000).to_pylist():
            shown.setdefault(row["request_id"], []).append((row["wanted"], row["target_id"]))
        complete = 0
        for request, pairs in list(shown.items())[:-1]:
            inside = [(-wanted, target) for wanted, target in pairs if target in best[request]]
            order = [target for _, target in sorted(inside)]
            there = [target for target in best[request] if target in set(order)]
            assert there == order
            complete += len(order) == len(pairs)
            outside = [wanted for wanted, target in pairs if target not in best[request]]
            assert max(outside, default=0) <= min(-w for w, _ in inside) if inside else True
        assert len(shown) > 300
        assert complete < len(shown) / 2, "the policy in charge does not know the best"

    def test_propensities_are_those_of_the_mixture(self, told):
        config, _, impressions, _, _ = told
        random = impressions["random"].to_numpy()
        requests = impressions.filter(impressions["random"])["request_id"]
        share = (
            pc.count_distinct(requests).as_py()
            / pc.count_distinct(impressions["request_id"]).as_py()
        )
        assert share == pytest.approx(config.uniform_share, rel=0.1)
        candidates = dict(
            zip(told[3]["request_id"].to_pylist(), told[3]["candidates"].to_pylist(), strict=True)
        )
        count = np.array([candidates[name] for name in impressions["request_id"].to_pylist()])
        propensity = impressions["propensity"].to_numpy()
        agreed = 1 - config.uniform_share + config.uniform_share / count
        assert np.allclose(propensity[~random], agreed[~random])
        rare = np.isclose(propensity, config.uniform_share / count)
        assert np.all(rare | np.isclose(propensity, agreed))
        assert 0.9 < rare[random].mean() < 1, "few of a random order agree with the policy"


class TestWorld:
    def test_what_draws_clicks_is_not_what_sells(self):
        world = World(MarketConfig())
        items, _ = world.supply(world.first)
        assert 0.2 < np.corrcoef(items.appeal, items.quality)[0, 1] < 0.4
        assert 0.6 < np.corrcoef(items.rating, items.quality)[0, 1] < 0.95

    def test_tastes_drift_and_return(self):
        world = World(MarketConfig(taste_drift=0.5))
        user = np.arange(100)
        now, later = (world.tastes(user, world.first + h) for h in (0, 24 * 4))
        assert 0.2 < np.abs(later - now).mean() < 0.6
        turn = world.first + round(world.users.period[0])
        back = world.tastes(user[:1], turn)
        assert np.abs(back - now[:1]).max() < 0.02
        still = World(MarketConfig(taste_drift=0.0))
        assert np.array_equal(still.tastes(user, still.first), still.tastes(user, still.first + 96))

    def test_a_festival_spikes_and_turns_the_taste(self):
        world = World(MarketConfig(festival="2026-11-09"))
        usual = World(MarketConfig())
        midnight = hour_index("2026-11-08T16")
        assert world.volume(midnight) == pytest.approx(12 * usual.volume(midnight))
        assert world.volume(midnight + 20) == pytest.approx(3 * usual.volume(midnight + 20))
        assert world.volume(midnight - 1) == usual.volume(midnight - 1)
        users = np.arange(200)

        def share(hour):
            weight = np.exp(world.tastes(users, hour))
            return (weight / weight.sum(axis=1, keepdims=True)).mean(axis=0)

        within = np.abs(share(midnight + 6) - share(midnight)).sum() / 2
        before = np.abs(share(midnight - 6) - share(midnight - 12)).sum() / 2
        assert within > 0.2 > 5 * before

    def test_display_makes_some_hot_for_a_day(self):
        world = World(MarketConfig(items=3000))
        items, _ = world.supply(world.first)
        today, tomorrow = (world.display(world.first + h)[0] / items.heat for h in (0, 23))
        assert set(np.round(today, 6)) == {1.0, 8.0}
        assert 0.02 < (today > 1).mean() < 0.04
        assert (today != tomorrow).any()

    def test_a_search_says_what_it_is_about(self, told):
        _, events, _, _, _ = told
        shown = events.filter(pc.equal(events["action"], "impression"))
        searched = shown.filter(pc.is_valid(shown["query"]))
        assert set(searched["scene"].to_pylist()) == {"search"}
        assert shown.filter(pc.equal(shown["scene"], "search")).num_rows == searched.num_rows
        world = World(told[0])
        items, _ = world.supply(world.first + HOURS - 1)
        number = np.array([int(text[1:]) for text in searched["item_id"].to_pylist()])
        asked = np.array([int(text[1:].split(" ")[0]) for text in searched["query"].to_pylist()])
        assert (items.category[number] == asked).mean() > 0.8

    def test_attraction_knows_the_intent(self):
        world = World(SMALL)
        user, item = np.zeros(2, np.int64), np.array([3, 3])
        items, _ = world.supply(world.first)
        own = items.category[3]
        intent = np.array([own, (own + 1) % SMALL.categories])
        no = np.zeros(2, bool)
        wanted, other = world.item_attraction(user, item, intent, no, world.first)
        searched, _ = world.item_attraction(user, item, intent, ~no, world.first)
        assert searched > wanted > other

    def test_scenes_are_served_what_they_ask_for(self):
        world = World(MarketConfig())
        hour = world.first + 15
        assert world.sold_out(hour).any()
        for _, _, served in served_in(world, hour, LoggingPolicy(world), 0.3):
            slates = served.slates
            scene = slates.requests.scene[slates.request]
            assert np.array_equal(slates.is_room, scene == 2)
            assert set(slates.room[slates.is_room]) <= set(world.live(hour))
            items, _ = world.supply(hour)
            assert np.array_equal(
                items.room[slates.item[~slates.is_room]], slates.room[~slates.is_room]
            )
            assert not world.sold_out(hour)[slates.item[~slates.is_room]].any()
            assert np.array_equal(slates.searched, scene == SEARCH)


class TestRates:
    def test_funnel(self, clean):
        _, by_hour = clean
        events = pa.concat_tables(by_hour.values())
        counts = {x["values"]: x["counts"] for x in pc.value_counts(events["action"]).to_pylist()}
        assert set(counts) == {"impression", *RATED}
        assert counts["impression"] / 10 / HOURS == pytest.approx(350, rel=0.05)
        bounds = {"long_view": (0.4, 0.8), "cart": (0.08, 0.25), "order": (0.03, 0.1),
                  "follow": (0.01, 0.1), "like": (0.1, 0.3), "cancel": (0.001, 0.01)}  # fmt: skip
        assert 0.08 < counts["click"] / counts["impression"] < 0.2
        for action, (low, high) in bounds.items():
            assert low < counts[action] / counts["click"] < high, action
        amounts = events.filter(pc.equal(events["action"], "order"))["value"]
        assert amounts.null_count == 0
        assert pc.min(amounts).as_py() > 0

    def test_the_evening_has_the_most(self, clean):
        config, by_hour = clean
        events = pa.concat_tables(by_hour.values())
        first = pc.and_(pc.equal(events["action"], "impression"), pc.equal(events["position"], 1))
        hour = micros(events.filter(first)["event_time"]) // HOUR_MICROS - hour_index(config.start)
        shown = np.bincount(hour, minlength=24)[:24]
        wanted = np.array([350 * intensity(hours.add(config.start, h)) for h in range(24)])
        # sessions of 2.5 requests with a geometric spread: four times a Poisson variance
        assert np.all(np.abs(shown - wanted) < 4 * np.sqrt(4 * wanted) + 1)
        assert np.argmax(wanted) in (12, 13)  # 20 to 21 h in Shanghai
        assert wanted.max() / wanted.min() > 4
        assert wanted.mean() == pytest.approx(350)

    def test_bots_have_their_share(self, told):
        config, _, impressions, _, _ = told
        requests = impressions.group_by("request_id").aggregate([("bot", "max")])["bot_max"]
        assert pc.mean(requests.cast(pa.int8())).as_py() == pytest.approx(0.01, rel=0.4)
        bots = impressions.filter(impressions["bot"])
        assert pc.mean(bots["p_click"]).as_py() == pytest.approx(0.8)
        assert pc.max(bots["p_order"]).as_py() == 0
        assert config.bots == 4

    def test_dirt_has_its_shares(self):
        config = MarketConfig(
            duplicate_share=0.02, too_late_share=0.03, future_share=0.01, malformed_share=0.005
        )
        events = pa.concat_tables(made.events for made in arrivals(config, 24))
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
