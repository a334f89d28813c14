"""A small world of events and entities for graphs, and the edges that a plain loop finds in it."""

from __future__ import annotations

import datetime as dt
import random
from typing import Any

from feature_store import hours as hr
from feature_store.graph import ACTION_WEIGHTS, GraphRules
from feature_store.views import BOTS

ZONE, DATE = "Asia/Shanghai", "2026-11-10"
DAY = hr.date_hours(DATE, ZONE)
BEFORE = hr.date_hours("2026-11-09", ZONE)
LAST = DAY[-1]
HOURS = hr.hour_range(hr.add(BEFORE[0], -5), LAST)  # the store begins before the window
RULES = GraphRules(window_days=2, half_life_days=0.75, degree_cap=6)
Edge = tuple[str, str, str, str]
Sums = tuple[float, int, dt.datetime]
"""Weight, events and last_at of an edge."""


def at(hour: str, minute: float = 0) -> dt.datetime:
    return hr.start_of(hour) + dt.timedelta(minutes=minute)


def events_of(hour: str, draw: random.Random) -> list[dict[str, Any]]:
    """What people did; an eager robot clicks all that it is shown, a crawler clicks everything."""
    rows: list[dict[str, Any]] = []

    def add(user: str, item: str | None, room: str | None, action: str, query: str | None) -> None:
        minute = draw.uniform(0, 60)
        rows.append({
            "event_id": f"{hour}-{len(rows)}", "ingested_at": at(hour, minute), "hour": hour,
            "event_time": at(hour, minute - draw.choice([0, 5, 90])), "user_id": user,
            "target_type": "item", "target_id": item or room, "item_id": item, "room_id": room,
            "action": action, "value": 1.5, "query": query,
        })  # fmt: skip

    actions = [*ACTION_WEIGHTS, "impression", "click", "click"]
    for _ in range(draw.randrange(40)):
        item = draw.choice([None, *(f"i{draw.randrange(30)}" for _ in range(5))])
        room = draw.choice([None, f"r{draw.randrange(9)}"]) if item else "r0"
        query = draw.choice([None, None, "", "red shoes", "hat", f"q{draw.randrange(12)}"])
        add(f"u{min(draw.randrange(40), draw.randrange(40))}", item, room, draw.choice(actions),
            query)  # fmt: skip
    if hour == DAY[3]:
        for number in range(BOTS.min_impressions):
            add("robot", f"i{number % 30}", "r1", "impression", None)
            add("robot", f"i{number % 30}", "r1", "click", None)
    if hour == DAY[5]:
        for number in range(30):
            add("crawler", f"i{number}", f"r{number % 9}", "click", "hat")
    return rows


def entities() -> dict[str, list[dict[str, Any]]]:
    """Items change category and room, one loses both, and one is corrected from before its start;
    explained products of several days."""

    def item(number: int, hour: str, category: str | None, room: str | None, since: int = 0) -> Any:
        return {"item_id": f"i{number}", "valid_from": at(hour, since), "hour": hour,
                "category": category, "room_id": room}  # fmt: skip

    def offer(room: int, number: int, hour: str, core: bool) -> Any:
        return {"room_id": f"r{room}", "item_id": f"i{number}", "valid_from": at(hour),
                "core": core, "hour": hour}  # fmt: skip

    start = HOURS[0]
    items = [item(number, start, f"c{number % 4}", f"r{number % 9}") for number in range(31)]
    items += [item(0, DAY[2], "c9", "r8"), item(1, DAY[2], None, None), item(2, DAY[2], "", None),
              item(3, DAY[2], "late", "r7", 5), item(3, DAY[2], "early", "r6", 1),
              item(4, DAY[3], "corrected", "r5", -100 * 60)]  # fmt: skip
    rooms = [{"room_id": f"r{number}", "valid_from": at(start), "hour": start,
              "host_id": f"h{number // 2}"} for number in range(9)]  # fmt: skip
    rooms.append({**rooms[0], "hour": DAY[1], "valid_from": at(DAY[1]), "host_id": "h9"})
    offers = [offer(5, 29, start, True), offer(5, 28, start, False), offer(6, 30, BEFORE[0], False)]
    offers += [offer(1, 2, hour, False) for hour in DAY[::6]]
    return {"items": items, "rooms": rooms, "room_items": offers}


def acted_by_hand(rows: list[dict[str, Any]]) -> dict[Edge, Sums]:
    """(weight, events, last_at) of the edges of the events in the window."""
    found: dict[Edge, Sums] = {}
    for row in rows:
        weight = ACTION_WEIGHTS[row["action"]]
        robot = row["user_id"] == "robot" and row["hour"] == DAY[3]
        if robot or not weight or not BEFORE[0] <= row["hour"] <= LAST:
            continue
        days = hr.difference(LAST, row["hour"]) / 24
        decayed = weight * 0.5 ** (days / RULES.half_life_days)
        for source, target in (("user", "item"), ("user", "room"), ("query", "item")):
            ends = [row["query" if end == "query" else f"{end}_id"] for end in (source, target)]
            if all(ends):
                edge = source, ends[0], target, ends[1]
                sums = found.get(edge, (0.0, 0, row["event_time"]))
                found[edge] = (
                    sums[0] + decayed, sums[1] + 1, max(sums[2], row["event_time"])
                )  # fmt: skip
    return found


def stated_by_hand(
    known: dict[str, list[dict[str, Any]]],
) -> dict[Edge, Sums]:
    newest: dict[str, dict[str, Any]] = {}
    stating: list[tuple[Edge, dt.datetime]] = []
    for row in sorted([*known["items"], *known["rooms"]],
                      key=lambda row: (row["hour"], row["valid_from"])):  # fmt: skip
        if row["hour"] <= LAST:
            newest[row.get("item_id") or row["room_id"]] = row
    for name, row in newest.items():
        for source, target in (("item", "room"), ("item", "category"), ("room", "host")):
            column = target if target == "category" else f"{target}_id"
            mine = ("item" if "item_id" in row else "room") == source
            if mine and row.get(column):
                stating.append(((source, name, target, row[column]), row["valid_from"]))
    for row in known["room_items"]:
        if row["hour"] <= LAST and (row["core"] or row["hour"] >= BEFORE[0]):
            edge = "item", row["item_id"], "room", row["room_id"]
            stating.append((edge, row["valid_from"]))
    found: dict[Edge, Sums] = {}
    for edge, since in stating:
        sums = found.get(edge, (1.0, 0, since))
        found[edge] = 1.0, sums[1] + 1, max(sums[2], since)
    return found


def heaviest(edges: dict[Edge, Sums], end: int) -> set[Edge]:
    """Those that the nodes at one end keep."""
    by_node: dict[Any, list[tuple[float, str, Edge]]] = {}
    for edge, (weight, *_) in edges.items():
        node = edge[0], edge[2], edge[end]
        by_node.setdefault(node, []).append((-weight, edge[4 - end], edge))
    return {edge for of in by_node.values() for *_, edge in sorted(of)[: RULES.degree_cap]}
