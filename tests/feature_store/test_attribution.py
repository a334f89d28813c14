"""Which impression an outcome belongs to."""

from __future__ import annotations

import datetime as dt
import random
from typing import Any

import pyarrow as pa
import pytest

from feature_store import attribution
from feature_store import hours as hr
from feature_store.attribution import attribute
from feature_store.schemas import EVENTS, optional

START = "2026-11-01T00"


def at(hour: int, minute: int = 0) -> dt.datetime:
    return hr.start_of(hr.add(START, hour)) + dt.timedelta(minutes=minute)


def frame(rows: list[dict[str, Any]], *added: str) -> pa.Table:
    schema = optional(EVENTS)
    for name in added:
        schema = schema.append(pa.field(name, pa.string()))
    return pa.Table.from_pylist(rows, schema=schema)


def test_an_outcome_belongs_to_an_impression_that_its_own_hour_can_know() -> None:
    """A range of hours reads impressions that an hour alone does not: they must not count."""

    def row(event_id: str, action: str, hour: int, request: str | None = None) -> dict[str, Any]:
        target = {"user_id": "u", "target_type": "item", "target_id": event_id[-1]}
        known = {"event_id": event_id, "action": action, "event_time": at(hour)}
        known |= {"hour": hr.add(START, hour), "request_id": request}
        return {**dict.fromkeys(EVENTS.names), **known, **target}

    late = {"event_time": at(4, 59)}  # arrived after what followed from it
    shown = [
        row("s1", "impression", 2, "q1"), row("s2", "impression", 1, "q2"),
        {**row("s3", "impression", 6, "q3"), **late}, {**row("s4", "impression", 6), **late},
    ]  # fmt: skip
    outcomes = [
        row("in reach 1", "click", 5, "q1"), row("too long ago 2", "click", 5, "q2"),
        row("not known yet 3", "click", 5, "q3"), row("nor by touch 4", "click", 5),
    ]  # fmt: skip
    found = attribute(frame(outcomes), frame(shown), {"click": 600}, lookback=3)
    assert found["event_id"].to_pylist() == ["in reach 1"]


def test_outcomes_find_their_impression() -> None:
    def row(event_id: str, action: str, minute: int, **given: Any) -> dict[str, Any]:
        known = {"event_id": event_id, "action": action, "event_time": at(0, minute)}
        target = {"user_id": "u", "target_type": "item", "target_id": "i", "hour": START}
        return {**dict.fromkeys(EVENTS.names), **known, **target, **given}

    shown = [
        row("s1", "impression", 0, impression_id="first", request_id="q1"),
        row("s2", "impression", 5, impression_id="second", request_id="q2"),
        row("s3", "impression", 6, target_id="other"),
        row("s4", "impression", 30, impression_id="later"),
    ]
    outcomes = [
        row("named", "click", 7, impression_id="first", request_id="q2"),
        row("by request", "click", 7, request_id="q1"),
        row("by touch", "click", 7),
        row("of a request without it", "click", 7, request_id="q9"),
        row("other target", "click", 7, target_id="other"),
        row("too late", "click", 16),
        row("long window", "order", 29),
        row("before any", "order", -1),
        row("somebody else", "click", 7, user_id="v"),
        row("the room of that name", "click", 7, target_type="room"),
    ]
    found = attribute(frame(outcomes), frame(shown), {"click": 600, "order": 3600}, lookback=5)
    got = {r["event_id"]: (r["sample_id"], r["attribution"]) for r in found.to_pylist()}
    assert got == {
        "named": ("first", "impression_id"),
        "by request": ("first", "request"),
        "by touch": ("second", "last_touch"),
        "of a request without it": ("second", "last_touch"),
        "other target": ("s3", "last_touch"),
        "long window": ("second", "last_touch"),
    }


def test_pairs_are_looked_at_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often the same users act on the same targets, and whoever comes first."""
    draw = random.Random(2)

    def row(number: int, action: str) -> dict[str, Any]:
        hour = draw.randrange(5)
        return {
            **dict.fromkeys(EVENTS.names), "event_id": f"{action}{number}", "action": action,
            "event_time": at(hour, draw.randrange(12) * 5), "ingested_at": at(hour, 59),
            "hour": hr.add(START, hour), "request_id": draw.choice([None, "q1", "q2"]),
            "user_id": draw.choice("uv"), "target_type": "item", "target_id": draw.choice("ij"),
        }  # fmt: skip

    shown = [row(n, "impression") for n in range(80)]
    outcomes = [row(n, draw.choice(["click", "order"])) for n in range(80)]
    windows, lookback = {"click": 600, "order": 7200}, 2
    whole = attribute(frame(outcomes), frame(shown), windows, lookback)
    monkeypatch.setattr(attribution, "_PAIRS", 7)
    assert attribute(frame(outcomes), frame(shown), windows, lookback).equals(whole)
    expected = {}
    for outcome in outcomes:
        known = [s for s in shown if 0 <= hr.difference(outcome["hour"], s["hour"]) <= lookback]
        touch = ("user_id", "target_type", "target_id")
        mine = [s for s in known if all(s[key] == outcome[key] for key in touch)]
        same = [
            s for s in mine if outcome["request_id"] and s["request_id"] == outcome["request_id"]
        ]
        age = {
            s["event_id"]: (outcome["event_time"] - s["event_time"]).total_seconds() for s in mine
        }
        near = [s for s in mine if 0 <= age[s["event_id"]] <= windows[outcome["action"]]]
        for how, found in (("request", same), ("last_touch", near)):
            if found and outcome["event_id"] not in expected:
                best = max(found, key=lambda s: (s["event_time"], s["event_id"]))
                expected[outcome["event_id"]] = (best["event_id"], how)
    got = {r["event_id"]: (r["sample_id"], r["attribution"]) for r in whole.to_pylist()}
    assert got == expected
    assert {how for _, how in got.values()} == {"request", "last_touch"}
