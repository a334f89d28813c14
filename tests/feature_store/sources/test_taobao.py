"""Taobao: small files made by hand, the draw of negatives, and the published sample."""

from __future__ import annotations

import csv
import gzip
import itertools
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from feature_store import hours
from feature_store.ingestion import IngestRules, judge
from feature_store.schemas import ENTITY_TABLES, SOURCE_EVENTS, optional
from feature_store.sources import DEFAULT_WINDOWS, SourceError, open_source, taobao
from feature_store.sources.taobao_negatives import draw_negatives

DATA = Path(__file__).resolve().parents[4] / "shared" / "data" / "taobao_userbehavior"

HEADER = "user_id,item_id,category_id,behavior_type,timestamp"
BEGIN = 1511539200  # 2017-11-25T00:00+08:00
NOON = BEGIN + 12 * 3600  # 2017-11-25T04Z
ROWS = (
    f"1,100,7,pv,{NOON + 5}",
    f"1,101,7,cart,{NOON + 6}",
    f"1,102,8,fav,{NOON + 7}",
    f"1,100,7,buy,{NOON + 8}",
    f"2,200,9,pv,{NOON + 9}",
    f"2,201,9,pv,{NOON + 3600}",
)


def write(folder, rows=ROWS, header=None, name="UserBehavior.csv", **options):
    folder.mkdir(exist_ok=True)
    lines = [header, *rows] if header else rows
    (folder / name).write_text("".join(line + "\n" for line in lines))
    return open_source("taobao", {"path": folder, **options})


def table(source, first=None, last=None):
    begin, end = source.span()
    return pa.Table.from_batches(source.events(first or begin, last or end), SOURCE_EVENTS)


def of(events, action):
    return events.filter(pc.equal(events["action"], action))


def is_negative():
    return pc.match_substring(pc.field("event_id"), "-n")


def crowd(users=40, items=30, each=6, seed=1, span=3):
    """Views of many users in ``span`` hours; item 0 is the most popular, then item 1, ..."""
    random = np.random.default_rng(seed)
    share = 1.0 / np.arange(1, items + 1)
    return [
        f"{user},{random.choice(items, p=share / share.sum())},3,pv,{NOON + int(second)}"
        for user in range(users)
        for second in random.integers(span * 3600, size=each)
    ]


def pairs(events):
    """(user, hour) to the items of ``events``, a list."""
    found = defaultdict(list)
    names = pc.strftime(events["ingested_at"], format="%Y-%m-%dT%H").to_pylist()
    users, items = (events[name].to_pylist() for name in ("user_id", "item_id"))
    for user, hour, item in zip(users, names, items, strict=True):
        found[user, hour].append(item)
    return found


def test_each_behaviour_becomes_its_events(tmp_path):
    source = write(tmp_path / "t", negatives=0)
    source.check()
    assert source.span() == ("2017-11-25T04", "2017-11-25T05")
    assert (source.has_requests, source.time_zone) == (False, "Asia/Shanghai")
    later = {action: DEFAULT_WINDOWS[action] for action in ("cart", "favor", "order")}
    assert source.windows == {"click": 0, **later}
    events = table(source)
    by_action = Counter(events["action"].to_pylist())
    assert by_action == {"impression": 3, "click": 3, "cart": 1, "favor": 1, "order": 1}
    shown, clicked = of(events, "impression").to_pylist()[0], of(events, "click").to_pylist()[0]
    assert shown["impression_id"] == clicked["impression_id"] is not None
    assert shown["event_id"] != clicked["event_id"]
    expected = {
        "user_id": "1", "target_type": "item", "target_id": "100", "item_id": "100",
        "room_id": None, "request_id": None, "position": None, "value": None, "propensity": None,
    }  # fmt: skip
    assert expected.items() <= shown.items()
    assert shown["event_time"] == shown["ingested_at"]
    assert shown["event_time"].timestamp() == NOON + 5
    order = of(events, "order").to_pylist()[0]
    assert (order["item_id"], order["value"], order["impression_id"]) == ("100", None, None)
    assert len(events["event_id"].unique()) == events.num_rows


def test_header_or_none_plain_or_packed_one_file_or_parts(tmp_path):
    expected = table(write(tmp_path / "plain"))
    assert table(write(tmp_path / "headed", header=HEADER)).equals(expected)
    (tmp_path / "packed").mkdir()
    with gzip.open(tmp_path / "packed" / "UserBehavior.csv.gz", "wt") as packed:
        packed.write("\n".join(ROWS) + "\n")
    for path in (tmp_path / "packed", tmp_path / "packed" / "UserBehavior.csv.gz"):
        source = open_source("taobao", {"path": path})
        source.check()
        assert table(source).equals(expected)
    write(tmp_path / "parts", ROWS[:2], name="a.csv")
    assert table(write(tmp_path / "parts", ROWS[2:], HEADER, name="b.csv")).equals(expected)
    reordered = [",".join(reversed(row.split(","))) for row in ROWS]
    header = ",".join(reversed(HEADER.split(",")))
    assert table(write(tmp_path / "reordered", reordered, header)).equals(expected)


def test_equal_rows_collide_and_do_not_change_the_draw(tmp_path):
    rows = crowd()
    single, double = write(tmp_path / "1", rows), write(tmp_path / "2", [*rows, *rows[:50]])
    ids = table(double)["event_id"]
    assert len(ids) == len(table(single)["event_id"]) + 100  # an impression and a click each
    assert set(ids.to_pylist()) == set(table(single)["event_id"].to_pylist())


def test_rows_outside_the_nine_days_are_quarantined_and_do_not_stretch_the_span(tmp_path):
    end = BEGIN + 9 * 86400
    inside = [f"1,{i},7,pv,{BEGIN + i * 3600}" for i in range(4)] + [f"1,9,7,pv,{end - 1}"]
    outside = [BEGIN - 1, BEGIN - 7200, BEGIN - 7 * 86400, 0, -5, end, end + 5, 2**62, -(2**62)]
    source = write(tmp_path / "t", [*inside, *(f"2,50,7,cart,{time}" for time in outside)])
    source.check()
    assert source.span() == ("2017-11-24T16", "2017-12-03T15")
    events = of(table(source), "cart")
    assert events.num_rows == len(outside)
    reasons = Counter(judge(events.cast(optional(SOURCE_EVENTS)), IngestRules()).to_pylist())
    assert reasons == {"late": 5, "future": 2, "null_key": 2}
    kept = of(table(source), "impression")
    assert "50" not in kept["item_id"].to_pylist()  # nobody's negative either


def test_rows_without_keys_or_times_are_passed_on(tmp_path):
    holes = (f",100,7,pv,{NOON}", f"3,,7,pv,{NOON}", "3,100,7,pv,", f"3,100,,pv,{NOON}")
    source = write(tmp_path / "t", [*crowd(), *holes])
    source.check()
    events = table(source)
    reasons = Counter(judge(events.cast(optional(SOURCE_EVENTS)), IngestRules()).to_pylist())
    assert reasons == {None: events.num_rows - 6, "null_key": 6}
    assert events["ingested_at"].null_count == 0
    # only the row without a category has negatives
    assert events.filter(is_negative()).num_rows == 4 * (len(crowd()) + 1)


def test_any_split_of_hours_gives_the_same_rows(tmp_path, monkeypatch):
    source = write(tmp_path / "t", crowd(span=5))
    first, last = source.span()
    whole = table(source)
    assert whole.num_rows > 1000
    names = hours.hour_range(first, last)
    for cut in names[1:]:
        parts = [table(source, first, hours.add(cut, -1)), table(source, cut, last)]
        assert pa.concat_tables(parts).equals(whole)
    monkeypatch.setattr(taobao, "CHUNK_ROWS", 60)  # some hours in a chunk, some alone
    assert table(open_source("taobao", {"path": tmp_path / "t"})).equals(whole)
    assert table(source, "2017-11-01T00", "2017-12-31T00").equals(whole)
    assert list(source.events("2017-11-01T00", hours.add(first, -1))) == []
    assert list(source.events(hours.add(last, 1), "2017-12-31T00")) == []


def test_the_order_of_the_file_does_not_change_the_draw(tmp_path):
    rows = crowd()
    events = [table(write(tmp_path / "a", rows)), table(write(tmp_path / "b", rows[::-1]))]
    assert set(map(str, events[0].to_pylist())) == set(map(str, events[1].to_pylist()))


def test_negatives_stand_beside_their_view_and_are_never_acted_on(tmp_path):
    touched = [row.replace(",pv,", ",fav,") for row in crowd(users=10, seed=2)]
    source = write(tmp_path / "t", crowd() + touched)
    events = table(source)
    drawn, logged = (events.filter(mask) for mask in (is_negative(), ~is_negative()))
    assert drawn.num_rows == 4 * of(logged, "click").num_rows
    assert set(drawn["action"].to_pylist()) == {"impression"}
    assert drawn["event_time"].unique().to_pylist() == (
        of(logged, "click").sort_by("event_time")["event_time"].unique().to_pylist()
    )
    acted, found = pairs(logged), pairs(drawn)
    assert found.keys() <= acted.keys()
    for key, items in found.items():
        assert not set(items) & set(acted[key])
    assert len(events["event_id"].unique()) == events.num_rows


def test_negatives_of_a_user_and_hour_are_distinct_where_possible(tmp_path):
    found = pairs(table(write(tmp_path / "t", crowd(span=1, each=3))).filter(is_negative()))
    assert all(len(set(items)) == len(items) == 12 for items in found.values())
    # 3 items in the hour: user 1 saw one, so 8 places share 2; user 2 saw all, and gets none
    rows = [f"1,100,7,pv,{NOON}", f"1,100,7,pv,{NOON + 1}"]
    rows += [f"2,{100 + i},7,pv,{NOON + 2 + i}" for i in range(3)]
    drawn = table(write(tmp_path / "few", rows)).filter(is_negative())
    assert Counter(drawn["user_id"].to_pylist()) == {"1": 8}
    assert Counter(drawn["item_id"].to_pylist()) == {"101": 4, "102": 4}


def test_the_seed_changes_the_negatives_alone(tmp_path):
    rows = crowd()
    one, same, other = (
        table(write(tmp_path / "t", rows, seed=seed)) for seed in (1, 1, 2)
    )  # fmt: skip
    assert one.equals(same)
    assert not one.equals(other)
    assert one.filter(~is_negative()).equals(other.filter(~is_negative()))
    assert table(write(tmp_path / "t", rows, negatives=7)).filter(is_negative()).num_rows == (
        7 * len(rows)
    )


def test_negatives_follow_popularity():
    views = np.array([400, 200, 100, 50])
    items = np.repeat([10, 20, 30, 40], views)
    users = np.arange(len(items))  # everybody saw one item
    random = np.random.default_rng(0)
    drawn = draw_negatives(users, items, (users, items), 1, random)[:, 0]
    for seen, times in zip([10, 20, 30, 40], views, strict=True):
        others = np.array([10, 20, 30, 40]) != seen
        share = views[others] / views[others].sum()
        got = np.array([(drawn[items == seen] == item).sum() for item in [10, 20, 30, 40]])
        assert got[~others] == 0
        error = np.sqrt(share * (1 - share) * times)
        assert (np.abs(got[others] - share * times) < 4 * error).all()


def test_items_with_one_view_each_are_drawn_alike():
    three = np.arange(3)
    drawn = np.concatenate(
        [
            draw_negatives(three, three, (three, three), 1, np.random.default_rng(i))
            for i in range(900)
        ]
    )[:, 0]
    assert (np.abs(np.bincount(drawn) - 900) < 4 * np.sqrt(900 / 2)).all()


def test_equal_hours_have_draws_of_their_own(tmp_path):
    rows = crowd(span=1)
    cells = [row.rsplit(",", 1) for row in rows]
    later = [f"{rest},{int(time) + 3600}" for rest, time in cells]
    events = table(write(tmp_path / "t", [*rows, *later])).filter(is_negative())
    items = events["item_id"].to_pylist()
    assert items[: len(items) // 2] != items[len(items) // 2 :]


def test_the_exact_draw_has_the_same_distribution(monkeypatch):
    """Two of three free items a user: with rejection first, and with exponential races alone."""
    weights = {1: 3000, 2: 1000, 3: 500}
    users = np.r_[np.repeat(np.arange(3000), 2), 10_000 + np.arange(4500)]
    items = np.r_[np.full(6000, 9), np.repeat(list(weights), list(weights.values()))]
    expected = Counter()
    for pair in itertools.permutations(weights, 2):
        first, second = (weights[item] for item in pair)
        expected[frozenset(pair)] += first / 4500 * second / (4500 - first)
    for rounds in (16, 0):
        monkeypatch.setattr("feature_store.sources.taobao_negatives._ROUNDS", rounds)
        drawn = draw_negatives(users, items, (users, items), 1, np.random.default_rng(3))
        found = Counter(map(frozenset, drawn[:6000].reshape(3000, 2).tolist()))
        assert found.keys() == expected.keys()
        for pair, share in expected.items():
            error = np.sqrt(3000 * share * (1 - share))
            assert abs(found[pair] - 3000 * share) < 4 * error


def test_items_are_known_from_the_first_hour_in_their_first_category(tmp_path, monkeypatch):
    rows = [*ROWS, f"3,100,55,pv,{NOON}", f"3,300,,pv,{NOON}", f"4,300,5,pv,{NOON}", "4,400,,fav,0"]
    source = write(tmp_path / "t", rows)
    expected = {"100": "7", "101": "7", "102": "8", "200": "9", "201": "9", "300": "5", "400": None}

    def items(*span):
        batches = source.entities("items", *(span or source.span()))
        return pa.Table.from_batches(batches, ENTITY_TABLES["items"]).to_pylist()

    assert {item["item_id"]: item["category"] for item in items()} == expected
    assert {item["hour"] for item in items()} == {"2017-11-25T04"}
    assert {hours.hour_of(item["valid_from"]) for item in items()} == {"2017-11-25T04"}
    assert items("2017-11-25T05", "2017-11-25T05") == []
    for name in ("users", "rooms", "room_items"):
        assert list(source.entities(name, *source.span())) == []
    with pytest.raises(SourceError, match="shops"):
        list(source.entities("shops", *source.span()))
    monkeypatch.setattr(taobao, "CHUNK_ROWS", 1)
    for part, row in enumerate(rows):
        write(tmp_path / "p", [row], name=f"{part:02}.csv")
    source = open_source("taobao", {"path": tmp_path / "p"})
    assert {item["item_id"]: item["category"] for item in items()} == expected


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"header": HEADER.replace("timestamp", "time")},
         ["UserBehavior.csv", "'timestamp'", "missing", "6 rows", "time", "published"]),
        ({"rows": [row.rsplit(",", 1)[0] for row in ROWS]},
         ["UserBehavior.csv", "no header", "4 cells", "1,100,7,pv", "behavior_type"]),
        ({"rows": [row.replace(",200,", ",x,") for row in ROWS]},
         ["UserBehavior.csv", "'item_id'", "1 of 6 rows", "'x'", "correct"]),
        ({"header": "user,item,category,behavior,time"}, ["'user_id'", "1 of 7 rows", "'user'"]),
        ({"rows": [row.replace(",buy,", ",order,") for row in ROWS]},
         ["UserBehavior.csv", "'behavior_type'", "1 of 6 rows", "'order'", "pv, cart, fav, buy"]),
        ({"rows": [row.replace(",fav,", ",,") for row in ROWS]},
         ["'behavior_type'", "1 of 6 rows", "None"]),
        ({"rows": [f"{row}000" for row in ROWS]},
         ["'timestamp'", "6 rows", "6 not earlier than 1512316800", "seconds", "published"]),
        ({"rows": [ROWS[0], "1,2"]}, ["UserBehavior.csv", "5 columns", "again"]),
        ({"rows": []}, ["UserBehavior.csv", "not a readable CSV", "again"]),
        ({"rows": [], "header": HEADER}, ["'timestamp'", "0 rows"]),
    ],
)  # fmt: skip
def test_wrong_files_are_named(tmp_path, change, words):
    with pytest.raises(SourceError) as refusal:
        write(tmp_path / "t", **change).check()
    for word in words:
        assert word in str(refusal.value)


def test_missing_files_are_named(tmp_path):
    source = write(tmp_path / "t")
    (tmp_path / "t" / "UserBehavior.csv").unlink()
    with pytest.raises(SourceError, match=r"UserBehavior\.csv.*source\.options\.path"):
        source.check()


@pytest.mark.shared
@pytest.mark.skipif(not DATA.is_dir(), reason="the Taobao sample is not in ../shared/data")
class TestPublishedSample:
    def test_counts_equal_plain_counting(self):
        counted, outside = Counter(), Counter()
        with gzip.open(next(DATA.glob("*.csv.gz")), "rt") as file:
            for row in csv.DictReader(file):
                counted[row["behavior_type"]] += 1
                inside = BEGIN <= int(row["timestamp"]) < BEGIN + 9 * 86400
                outside[row["behavior_type"]] += not inside
        assert counted.total() == 100_001
        assert outside.total() == outside["pv"] == 44
        source = open_source("taobao", {"path": DATA})
        source.check()
        assert source.span() == ("2017-11-24T16", "2017-12-03T15")
        batches = list(source.events(*source.span()))
        assert max(batch.num_rows for batch in batches) <= 65536
        events = pa.Table.from_batches(batches)
        found = Counter(events["action"].to_pylist())
        views = counted["pv"]
        assert found == {
            "impression": views + 4 * (views - 44), "click": views, "cart": counted["cart"],
            "favor": counted["fav"], "order": counted["buy"],
        }  # fmt: skip
        assert len(events["event_id"].unique()) == events.num_rows
        reasons = Counter(judge(events.cast(optional(SOURCE_EVENTS)), IngestRules()).to_pylist())
        assert reasons == {None: events.num_rows - 88, "late": 88}

    def test_every_hour_has_one_click_in_five(self):
        source = open_source("taobao", {"path": DATA})
        events = table(source, "2017-11-25T00", "2017-12-03T15")
        names = pc.strftime(events["ingested_at"], format="%Y-%m-%dT%H").to_pylist()
        found = Counter(zip(names, events["action"].to_pylist(), strict=True))
        for hour in hours.hour_range("2017-11-25T00", "2017-12-03T15"):
            assert 5 * found[hour, "click"] == found[hour, "impression"] > 0

    def test_negatives_are_not_what_the_user_acted_on(self):
        source = open_source("taobao", {"path": DATA})
        events = table(source, "2017-12-01T00", "2017-12-01T23")
        drawn, acted = (pairs(events.filter(mask)) for mask in (is_negative(), ~is_negative()))
        assert not any(set(items) & set(acted[key]) for key, items in drawn.items())

    def test_items(self):
        source = open_source("taobao", {"path": DATA})
        rows = sum(batch.num_rows for batch in source.entities("items", *source.span()))
        assert rows == 64_467
