"""Sequences against a loop over every row, and the bytes that carry them through Spark."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.sequence_views import ELEMENTS, SEQUENCE_VIEWS, SequenceView
from feature_store.sequences import ASKED, KNOWN, pack, sequences, unpack
from feature_store.windows import HOUR_MICROS

VIEWS = {view.name: view for view in SEQUENCE_VIEWS}
MINUTE = 60_000_000

# Short sequences and lookbacks, so that their ends are met often.
SHORT = [
    replace(VIEWS["user_items"], length=3, lookback_hours=3),
    replace(VIEWS["user_rooms"], length=2, lookback_hours=2),
    replace(VIEWS["room_core_items"], length=2),
    replace(VIEWS["room_live_items"], length=2, lookback_hours=2),
]

# Few keys, instants (half hours) and ties, so that all of them meet often.
known_row = st.fixed_dictionaries({
    "key": st.sampled_from(["a", "b"]),
    "happened": st.integers(0, 9),
    "arrived": st.integers(-1, 5),  # half hours after it happened; before it: from the future
    "lasts": st.sampled_from([None, 0, 1, 3]),
    "tie": st.sampled_from(["x", "y", "z", "xx"]),
    "action": st.sampled_from(["click", "order", "follow", "stay", "stay", "core", "explain"]),
    "room_id": st.sampled_from([None, "r", "ß"]),
    "category": st.sampled_from([None, "", "c"]),
    "stay": st.sampled_from([None, 1, 1500]),
    "link": st.sampled_from([None, "s1", "s2"]),
})  # fmt: skip
worlds = st.lists(known_row, max_size=40)
requests = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 6)), min_size=1, max_size=6
)


def as_known(drawn: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of ``KNOWN``; of one version there is one row, as the tables have it."""
    rows: dict[Any, dict[str, Any]] = {}
    for row in drawn:
        at = row["happened"] * 30 * MINUTE
        known = at + row["arrived"] * 30 * MINUTE
        ends = None if row["lasts"] is None else at + row["lasts"] * 15 * MINUTE
        if row["action"] not in ("core", "explain"):
            ends = None
        version = (row["key"], at, row["tie"], max(known, at), ends)
        rows[version] = {
            **{name: row[name] for name in KNOWN.names if name in row},
            "known": known, "at": at, "ends": ends,
            "item_id": None if row["tie"] == "z" else f"i{row['tie']}",
        }  # fmt: skip
    return list(rows.values())


def usable(view: SequenceView, row: dict[str, Any], as_of: int) -> bool:
    """Whether ``as_of`` may know of a row: it arrived and happened before, not too long ago."""
    since = max(row["known"], row["at"])
    recent = view.lookback_hours is None or since >= as_of - view.lookback_hours * HOUR_MICROS
    return since < as_of and recent


def newest_version(rows: list[dict[str, Any]]) -> dict[str, Any]:
    def order(row: dict[str, Any]) -> tuple[Any, ...]:
        return max(row["known"], row["at"]), row["at"], row["ends"] is not None, row["ends"] or 0

    return max(rows, key=order)


def current(
    view: SequenceView, rows: list[dict[str, Any]], key: str, as_of: int
) -> list[dict[str, Any]]:
    """The newest usable version of every element of ``key``."""
    versions: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        if row["key"] == key and usable(view, row, as_of):
            at = None if view.once else row["at"]
            versions.setdefault((row["tie"], at), []).append(row)
    return [newest_version(group) for group in versions.values()]


def naive(
    view: SequenceView, rows: list[dict[str, Any]], key: str, as_of: int
) -> list[dict[str, Any]]:
    """The sequence by the book, one row after the other."""
    collected = [r for r in rows if r["action"] in view.actions and r[view.collects] is not None]
    elements = [
        row
        for row in current(view, collected, key, as_of)
        if view.ended_minutes is None
        or row["ends"] is None
        or row["ends"] > as_of - view.ended_minutes * MINUTE
    ]
    elements.sort(key=lambda row: (row["at"], row["tie"]))
    stays = [r for r in rows if r["action"] == "stay" and r["link"] is not None]
    stays = current(view, stays, key, as_of)
    found = []
    for row in elements[-view.length :]:
        mine = [s["stay"] or 0 for s in stays if s["link"] == row["link"]]
        stayed = float(np.float32(sum(mine) / 1000))  # as it is stored
        made = {"gap": (as_of - row["at"]) // 1_000_000, "stay": stayed}
        found.append({name: made.get(name, row.get(name)) for name in view.elements})
    return found


def computed(
    view: SequenceView, rows: list[dict[str, Any]], asked: list[tuple[str, int]], at_once: int = 2
) -> list[list[dict[str, Any]]]:
    """The same from the kernel, through the bytes and back."""
    known = pa.Table.from_pylist(rows, schema=KNOWN)
    wanted = [{"key": key, "as_of": as_of, "hour": "h"} for key, as_of in asked]
    answers = []
    for found in sequences(view, known, pa.Table.from_pylist(wanted, schema=ASKED), at_once):
        packed = pa.table(pack(view, found))
        lists = pa.table(unpack(view, packed))
        for answer in lists.to_pylist():
            places = range(len(answer[view.elements[0]]))
            answers.append([{name: answer[name][i] for name in view.elements} for i in places])
    return answers


@pytest.mark.parametrize("view", SHORT, ids=lambda view: view.name)
@settings(max_examples=250, deadline=None)
@given(drawn=worlds, asked=requests)
def test_sequences_equal_a_loop(
    view: SequenceView, drawn: list[dict[str, Any]], asked: list[tuple[str, int]]
) -> None:
    """1,000 worlds in all, with late, duplicate and future rows."""
    rows = as_known(drawn)
    wanted = [(key, as_of * HOUR_MICROS) for key, as_of in asked]
    assert computed(view, rows, wanted) == [naive(view, rows, *one) for one in wanted]


@pytest.mark.parametrize("view", SHORT, ids=lambda view: view.name)
@settings(max_examples=100, deadline=None)
@given(drawn=worlds, other=worlds, as_of=st.integers(0, 6), seed=st.integers(0, 99))
def test_what_arrives_later_changes_nothing(
    view: SequenceView,
    drawn: list[dict[str, Any]],
    other: list[dict[str, Any]],
    as_of: int,
    seed: int,
) -> None:
    """Rows that arrived or happened at as_of or after it are exchanged for others, in any order."""
    instant = as_of * HOUR_MICROS
    rows = as_known(drawn)
    before = [row for row in rows if max(row["known"], row["at"]) < instant]
    after = [row for row in as_known(other) if max(row["known"], row["at"]) >= instant]
    changed = [*before, *after]
    random.Random(seed).shuffle(changed)
    wanted = [("a", instant), ("b", instant)]
    assert computed(view, changed, wanted) == computed(view, rows, wanted)


def click(at: int, tie: str, **given: Any) -> dict[str, Any]:
    row = {**dict.fromkeys(KNOWN.names), "key": "u", "known": at, "at": at, "tie": tie}
    return {**row, "action": "click", "item_id": f"i-{tie}", **given}


def test_a_row_counts_from_the_instant_after_it_arrived() -> None:
    view, hour = VIEWS["user_items"], HOUR_MICROS
    rows = [click(hour - 1, "before"), click(hour, "at it"), click(5, "late", known=hour)]
    [found] = computed(view, rows, [("u", hour)])
    assert [element["item_id"] for element in found] == ["i-before"]
    assert found[0]["gap"] == 0, "whole seconds"


def test_the_lookback_ends_with_its_first_instant() -> None:
    view = VIEWS["user_items"]
    as_of = view.lookback_hours * HOUR_MICROS + 7
    [found] = computed(view, [click(6, "too old"), click(7, "in")], [("u", as_of)])
    assert [element["item_id"] for element in found] == ["i-in"]
    assert found[0]["gap"] == view.lookback_hours * 3600


def test_rows_of_one_instant_are_ordered_by_event_id() -> None:
    rows = [click(5, tie) for tie in ("b", "ab", "a", "B")]
    for order in (rows, rows[::-1]):
        [found] = computed(VIEWS["user_items"], order, [("u", HOUR_MICROS)])
        assert [e["item_id"] for e in found] == ["i-B", "i-a", "i-ab", "i-b"]


def test_a_long_history_is_cut_to_the_newest() -> None:
    """Many rows that arrived too late stand at the end, so that the first look finds too little."""
    view = VIEWS["user_items"]
    late = [click(1000 + i, f"l{i:04}", known=2 * HOUR_MICROS) for i in range(1000)]
    early = [click(i, f"e{i:04}") for i in range(400)]
    [found] = computed(view, [*late, *early], [("u", HOUR_MICROS)])
    assert [e["item_id"] for e in found] == [f"i-e{i:04}" for i in range(350, 400)]


def test_stays_are_summed_per_impression_and_known_in_time() -> None:
    def stay(at: int, tie: str, seconds: float, link: str, **given: Any) -> dict[str, Any]:
        return click(at, tie, action="stay", stay=int(seconds * 1000), link=link, **given)

    rows = [
        click(10, "c1", link="s1"), click(20, "c2", link="s2"), click(30, "c3"),
        stay(15, "t1", 2.5, "s1"), stay(25, "t2", 4, "s1"),
        stay(26, "t3", 9, "s2", known=HOUR_MICROS), stay(27, "t4", 9, "s3"),
        stay(28, "t5", 9, "s1", key="v"),
    ]  # fmt: skip
    first, second = computed(
        VIEWS["user_items"], rows, [("u", HOUR_MICROS), ("u", 2 * HOUR_MICROS)]
    )
    assert [e["stay"] for e in first] == [6.5, 0.0, 0.0]
    assert [e["stay"] for e in second] == [6.5, 9.0, 0.0]


def test_a_stay_is_counted_once_and_no_longer_than_its_lookback() -> None:
    view = VIEWS["user_items"]
    stay = {"action": "stay", "link": "s1"}
    rows = [
        click(10, "c", link="s1"), click(5, "old", stay=9000, **stay),
        click(20, "t", stay=2000, **stay), click(20, "t", stay=3000, known=30, **stay),
    ]  # fmt: skip
    instants = [25, 31, view.lookback_hours * HOUR_MICROS + 7]
    found = computed(view, rows, [("u", instant) for instant in instants])
    assert [[e["stay"] for e in sequence] for sequence in found] == [[11.0], [12.0], [3.0]]


def test_what_a_room_explains_is_there_until_half_an_hour_after_its_end() -> None:
    hour = 10 * HOUR_MICROS

    def explained(item: str, begin: int, end: int | None) -> dict[str, Any]:
        at, ends = hour + begin * MINUTE, None if end is None else hour + end * MINUTE
        row = {**dict.fromkeys(KNOWN.names), "key": "r", "known": hour, "at": at, "ends": ends}
        return {**row, "tie": item, "item_id": item, "action": "explain"}

    rows = [
        explained("over", 0, 30), explained("just", 10, 31), explained("on", 50, None),
        explained("next", 60, 75), explained("corrected", 5, None), explained("corrected", 5, 20),
    ]  # fmt: skip
    [found] = computed(VIEWS["room_live_items"], rows, [("r", hour + HOUR_MICROS)])
    assert [(e["item_id"], e["gap"]) for e in found] == [("just", 50 * 60), ("on", 10 * 60)]


def test_a_core_product_is_there_once() -> None:
    def core(item: str, hour: int, end: int | None = None) -> dict[str, Any]:
        at = hour * HOUR_MICROS
        row = {**dict.fromkeys(KNOWN.names), "key": "r", "known": at, "at": at, "ends": end}
        return {**row, "tie": item, "item_id": item, "action": "core"}

    rows = [core("a", 1), core("b", 2, end=3 * HOUR_MICROS), core("a", 4), core("c", 9)]
    [early, late] = computed(
        VIEWS["room_core_items"], rows, [("r", 4 * HOUR_MICROS), ("r", 5 * HOUR_MICROS)]
    )
    assert [e["item_id"] for e in early] == ["a", "b"]
    assert [e["item_id"] for e in late] == ["b", "a"]


def test_nothing_known_and_nothing_asked() -> None:
    for view in SEQUENCE_VIEWS:
        assert computed(view, [], [("u", HOUR_MICROS)]) == [[]]
        assert computed(view, [click(1, "x")], []) == []


@pytest.mark.parametrize(("wrong", "word"), [
    ({"elements": ("item_id", "colour")}, "colour"),
    ({"elements": ()}, "no elements"),
    ({"key": "item_id"}, "item_id"),
    ({"lookback_hours": None}, "set them"),
])  # fmt: skip
def test_a_view_that_cannot_be_made_is_refused(wrong: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        replace(VIEWS["user_items"], **wrong)


def test_views_have_names_of_their_own() -> None:
    columns = [column for view in SEQUENCE_VIEWS for column in view.columns()]
    assert len(columns) == len(set(columns))
    assert {element for view in SEQUENCE_VIEWS for element in view.elements} == set(ELEMENTS)
