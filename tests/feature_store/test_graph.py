"""Edges by hand: what is declared, what rules are refused, how events are weighed, what degrees
say."""

from __future__ import annotations

import datetime as dt
import random
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from feature_store import hours as hr
from feature_store.graph import (
    ACTION_WEIGHTS,
    EDGE_TYPES,
    NODE_TYPES,
    EdgeType,
    Fact,
    GraphRules,
)
from feature_store.graph_edges import (
    EVENT_COLUMNS,
    FACTS,
    WEIGHTED,
    counted,
    declared,
    fact_columns,
    stated,
    weighted,
)
from feature_store.graph_statistics import Degrees
from feature_store.schemas import ACTIONS, EDGES, EVENTS, ITEMS, ROOM_ITEMS, optional

LAST = "2026-11-11T15"
KINDS = {edge.name: kind for kind, edge in enumerate(EDGE_TYPES)}
RULES = GraphRules(half_life_days=2.0, action_weights={"click": 0.3, "hate": 0.7, "order": 0})


def at(hour: str, minute: int = 0) -> dt.datetime:
    return hr.start_of(hour) + dt.timedelta(minutes=minute)


def events(count: int, seed: int = 3) -> pa.Table:
    """Few users, items, rooms and queries, so that edges have several events; some lack an end."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        hour = hr.add(LAST, -draw.randrange(60))
        rows.append({
            "user_id": f"u{draw.randrange(4)}",
            "item_id": draw.choice([None, "", "i1", "i2", "i3"]),
            "room_id": draw.choice([None, "r1", "r2"]), "query": draw.choice([None, "", "shoes"]),
            "action": draw.choice(ACTIONS), "hour": hour,
            "event_time": at(hour, draw.randrange(-90, 60)),
        })  # fmt: skip
    schema = pa.schema([optional(EVENTS).field(name) for name in EVENT_COLUMNS])
    return pa.Table.from_pylist(rows, schema=schema)


def by_hand(rows: list[dict[str, Any]], rules: GraphRules) -> dict[tuple[str, str, str], Any]:
    """(weight, events, last_at) by edge."""
    weights = {**ACTION_WEIGHTS, **rules.action_weights}
    found: dict[tuple[str, str, str], Any] = {}
    for row in rows:
        for edge, (one, other) in {
            "user-item": ("user_id", "item_id"), "user-room": ("user_id", "room_id"),
            "query-item": ("query", "item_id"),
        }.items():  # fmt: skip
            weight = weights[row["action"]]
            if not weight or not row[one] or not row[other]:
                continue
            days = (hr.start_of(LAST) - hr.start_of(row["hour"])) / dt.timedelta(days=1)
            before = found.get((edge, row[one], row[other]), (0.0, 0, row["event_time"]))
            found[edge, row[one], row[other]] = (
                before[0] + weight * 0.5 ** (days / rules.half_life_days),
                before[1] + 1,
                max(before[2], row["event_time"]),
            )
    return found


def test_events_weigh_what_a_loop_adds_up() -> None:
    rows = events(600)
    found = weighted(counted(rows, LAST, RULES), RULES)
    got = {
        (EDGE_TYPES[r["kind"]].name, r["source_id"], r["target_id"]): (
            r["weight"], r["events"], r["last_at"],
        )
        for r in found.to_pylist()
    }  # fmt: skip
    expected = by_hand(rows.to_pylist(), RULES)
    assert len(expected) == 4 * 3 + 4 * 2 + 3
    assert got.keys() == expected.keys()
    for edge, (weight, count, last_at) in expected.items():
        assert got[edge] == (pytest.approx(weight, rel=1e-9), count, last_at), edge


def test_weights_are_the_same_however_events_are_split() -> None:
    rows = events(400)
    whole = weighted(counted(rows, LAST, RULES), RULES)
    order = pa.array(random.Random(5).sample(range(400), 400))
    shuffled = rows.take(order)
    pieces = [counted(shuffled.slice(start, 57), LAST, RULES) for start in range(0, 400, 57)]
    again = weighted(pa.concat_tables(pieces[::-1]), RULES)
    keys = [(name, "ascending") for name in ("kind", "source_id", "target_id")]
    assert again.sort_by(keys).equals(whole.sort_by(keys)), "bit for bit"


def test_nothing_that_counts_makes_no_edges() -> None:
    none = counted(events(0), LAST, GraphRules())
    assert none.num_rows == 0
    assert weighted(none, GraphRules()).schema == WEIGHTED


def test_rows_state_edges() -> None:
    mine = [n for n, (kind, _) in enumerate(FACTS) if kind == KINDS["item-room"]]
    [items, offers] = mine
    assert set(fact_columns(offers)) == {"item_id", "room_id", "valid_from", "hour", "core"}
    old, new = hr.add(LAST, -100), hr.add(LAST, -10)

    def item(name: str, room: str | None, hour: str) -> dict[str, Any]:
        return {"item_id": name, "room_id": room, "valid_from": at(hour), "hour": hour}

    rows = [item("i1", "r1", old), item("i2", "", new), item("", "r1", new)]
    found = stated(pa.Table.from_pylist(rows, schema=optional(ITEMS)), items, new)
    assert [(r["source_id"], r["target_id"]) for r in found.to_pylist()] == [
        ("i1", "r1"), ("i2", None)
    ]  # fmt: skip
    rows = [{**item("i1", "r1", hour), "core": core}
            for hour in (old, new) for core in (True, False)]  # fmt: skip
    found = stated(pa.Table.from_pylist(rows, schema=optional(ROOM_ITEMS)), offers, new)
    assert found["known"].to_pylist() == [old, new, new], "what is standing counts for ever"


def test_every_type_is_declared_once_and_leads_somewhere() -> None:
    assert len(KINDS) == len(EDGE_TYPES)
    assert {end for edge in EDGE_TYPES for end in (edge.source, edge.target)} == set(NODE_TYPES)
    assert [edge.name for edge in EDGE_TYPES if edge.capped] == [
        edge.name for edge in EDGE_TYPES if edge.actions
    ]
    assert set(ACTION_WEIGHTS) == set(ACTIONS)
    rows = weighted(counted(events(50), LAST, RULES), RULES)
    assert declared(rows.append_column("hour", pa.repeat(LAST, rows.num_rows))).cast(
        optional(EDGES)
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"source": "shop"}, r"edge shop-item: no nodes \['shop'\]; known"),
        ({"actions": ()}, "edge user-item: give either actions or facts"),
        ({"facts": (Fact("items"),)}, "edge user-item: give either actions or facts"),
        ({"actions": ("clicks",)}, r"edge user-item: no actions \['clicks'\]"),
        ({"target": "category"}, r"edge user-category: events has no columns \['category'\]"),
        ({"actions": (), "facts": (Fact("shops"),)}, "edge user-item: no entity table 'shops'"),
        ({"actions": (), "facts": (Fact("items"),)}, r"items has no columns \['user_id'\]"),
    ],
)
def test_an_edge_that_cannot_be_made_is_refused(given: dict[str, Any], message: str) -> None:
    good = {"source": "user", "target": "item", "actions": ("click",)}
    with pytest.raises(ValueError, match=message):
        EdgeType(**{"description": "x", "capped": True, **good, **given})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"window_days": 0}, "window_days is 0; it must be at least 1"),
        ({"degree_cap": -3}, "degree_cap is -3; it must be at least 1"),
        ({"half_life_days": 0.0}, "half_life_days is 0.0; .* at least 0.014"),
        ({"half_life_days": 0.1, "window_days": 90}, "half_life_days is 0.1; .* window_days 90"),
        ({"half_life_days": float("nan")}, "half_life_days is nan"),
        ({"action_weights": {"clicks": 1}}, r"action_weights names \['clicks'\]; actions are"),
        ({"action_weights": {"click": -1}}, "action_weights.click is -1; it must be 0, or"),
        ({"action_weights": {"click": True}}, "action_weights.click is True"),
        ({"action_weights": {"click": "1"}}, "action_weights.click is '1'"),
        ({"action_weights": dict.fromkeys(ACTIONS, 0)}, "leaves every action at 0"),
    ],
)
def test_rules_that_make_no_sense_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GraphRules(**given)


def test_actions_that_are_left_out_keep_their_weight() -> None:
    weights = GraphRules(action_weights={"order": 8, "like": 0}).weights()
    assert (weights["order"], weights["click"]) == (8.0, 1.0)
    assert {"like", "impression", "hate", "cancel", "stay"}.isdisjoint(weights)


def test_degrees() -> None:
    draw = np.random.default_rng(2)
    sample = np.minimum(draw.zipf(2.0, 500), 300).tolist()
    found = Degrees.of({**Counter(sample), 0: 7})
    assert (found.count, found.isolated) == (500, 7)
    for share in (0.0, 0.25, 0.5, 0.99, 1.0):
        assert found.quantile(share) == np.quantile(sample, share, method="inverted_cdf")
    degree, share = found.at_least()
    assert degree.tolist() == sorted(set(sample))
    assert share.tolist() == [sum(s >= d for s in sample) / 500 for d in degree]
    none = Degrees.of({})
    assert (none.count, none.isolated, none.quantile(0.5)) == (0, 0, 0)
    assert [len(part) for part in none.at_least()] == [0, 0]
