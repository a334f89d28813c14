"""Open Bandit: the published sample against plain counting, and small files made by hand."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from feature_store import hours
from feature_store.ingestion import IngestRules, judge
from feature_store.schemas import ENTITY_TABLES, SOURCE_EVENTS, optional
from feature_store.sources import SourceError, open_source

DATA = Path(__file__).resolve().parents[4] / "shared" / "data" / "open_bandit"

LOG = (
    ",timestamp,item_id,position,click,propensity_score,user_feature_0,user_feature_1,"
    "user_feature_2,user_feature_3,user-item_affinity_0"
)
ITEMS = ",item_id,item_feature_0,item_feature_1,item_feature_2,item_feature_3"
ROWS = (
    "0,2019-11-24 00:00:34.762830+00:00,14,3,0,0.0125,a,b,c,d,0.0",
    "1,2019-11-24 00:00:53+00:00,15,1,1,0.0125,a,b,c,d,1.0",
    "2,2019-11-24 10:30:00.500000+09:00,14,2,0,0.25,a,b,c,e,0.0",
    "3,2019-11-24 01:30:00.500000+00:00,14,2,0,0.25,a,b,c,e,0.0",
)
ITEM_ROWS = ("0,14,-0.5,brand,shirt,tops", "1,15,,brand,,shoes")


def write(folder, rows=ROWS, items=ITEM_ROWS, header=LOG, **options):
    """The published layout."""
    policy, campaign = options.get("policy", "random"), options.get("campaign", "all")
    deep = folder / policy / campaign
    deep.mkdir(parents=True, exist_ok=True)
    (deep / f"{campaign}.csv").write_text("".join(f"{line}\n" for line in (header, *rows)))
    (deep / "item_context.csv").write_text("".join(f"{line}\n" for line in (ITEMS, *items)))
    return open_source("open_bandit", {"path": folder, **options})


def table(source, first=None, last=None):
    begin, end = source.span()
    return pa.Table.from_batches(source.events(first or begin, last or end), SOURCE_EVENTS)


def rows_of(source, name):
    return pa.Table.from_batches(
        source.entities(name, *source.span()), ENTITY_TABLES[name]
    ).to_pylist()


def test_a_row_becomes_an_impression_and_perhaps_a_click(tmp_path):
    source = write(tmp_path)
    source.check()
    assert source.span() == ("2019-11-24T00", "2019-11-24T01")
    assert (source.has_requests, source.time_zone) == (False, "Asia/Tokyo")
    assert source.windows == {"click": 0}
    events = table(source).to_pylist()
    assert [event["action"] for event in events] == ["impression"] * 4 + ["click"]
    shown, click = events[1], events[4]
    expected = {
        "target_type": "item", "target_id": "15", "item_id": "15", "position": 1,
        "propensity": 0.0125, "scene": "all", "room_id": None, "request_id": None, "value": None,
    }  # fmt: skip
    assert expected.items() <= shown.items()
    assert shown["impression_id"] == click["impression_id"] is not None
    assert shown["event_id"] != click["event_id"]
    assert shown["event_time"] == shown["ingested_at"] == click["event_time"]
    assert events[0]["event_time"].isoformat() == "2019-11-24T00:00:34.762830+00:00"
    assert [event["position"] for event in events[:4]] == [3, 1, 2, 2]


def test_an_offset_is_part_of_the_instant_and_equal_rows_collide(tmp_path):
    events = table(write(tmp_path)).to_pylist()
    assert events[2]["event_time"] == events[3]["event_time"]
    assert events[2]["event_id"] == events[3]["event_id"]  # only the row's number differs
    assert len({event["event_id"] for event in events}) == 4


def test_a_user_is_a_combination_of_features(tmp_path):
    source = write(tmp_path)
    events = table(source).to_pylist()
    ids = [event["user_id"] for event in events[:4]]
    assert ids[0] == ids[1] != ids[2]
    users = rows_of(source, "users")
    assert {user["user_id"] for user in users} == set(ids)
    features = {user["user_id"]: dict(user["categorical"]) for user in users}
    assert features[ids[2]] == {f"user_feature_{i}": x for i, x in enumerate("abce")}
    assert {user["hour"] for user in users} == {"2019-11-24T00"}


def test_items(tmp_path):
    source = write(tmp_path)
    items = rows_of(source, "items")
    assert [(item["item_id"], item["category"]) for item in items] == [
        ("14", "tops"),
        ("15", "shoes"),
    ]
    assert [item["numeric"] for item in items] == [[("item_feature_0", -0.5)], []]
    assert items[0]["categorical"] == [("item_feature_1", "brand"), ("item_feature_2", "shirt")]
    assert rows_of(source, "rooms") == rows_of(source, "room_items") == []
    assert list(source.entities("items", "2019-11-24T01", "2019-11-24T01")) == []
    with pytest.raises(SourceError, match="shops"):
        list(source.entities("shops", *source.span()))


def test_both_layouts_policies_and_campaigns(tmp_path):
    deep = write(tmp_path / "deep", policy="bts", campaign="men")
    assert set(table(deep)["scene"].to_pylist()) == {"men"}
    (tmp_path / "flat").mkdir()
    with gzip.open(tmp_path / "flat" / "bts_men.csv.gz", "wt") as packed:
        packed.write("\n".join((LOG, *ROWS)) + "\n")
    (tmp_path / "flat" / "bts_men_item_context.csv").write_text("\n".join((ITEMS, *ITEM_ROWS)))
    options = {"path": tmp_path / "flat", "policy": "bts", "campaign": "men"}
    flat = open_source("open_bandit", options)
    flat.check()
    assert table(flat).equals(table(deep))
    assert rows_of(flat, "items") == rows_of(deep, "items")
    (tmp_path / "deep" / "bts_men.csv").write_text(LOG)
    with pytest.raises(SourceError, match=r"bts_men\.csv and .*remove one"):
        deep.check()


def test_any_split_of_hours_gives_the_same_rows(tmp_path):
    rows = [f"{i},2019-11-24 0{i % 7}:00:00+00:00,14,1,1,0.5,a,b,c,d,0.0" for i in range(70)]
    source = write(tmp_path, rows)
    whole = sorted(map(str, table(source).to_pylist()))
    assert len(whole) == 140
    for cut in range(1, 7):
        parts = [table(source, None, f"2019-11-24T0{cut - 1}"), table(source, f"2019-11-24T0{cut}")]
        assert sorted(map(str, pa.concat_tables(parts).to_pylist())) == whole
    assert list(source.events("2019-11-23T00", "2019-11-23T23")) == []
    assert list(source.events("2019-11-24T07", "2019-11-24T23")) == []


def test_rows_without_keys_or_times_are_passed_on(tmp_path):
    timeless = ROWS[1].replace("2019-11-24 00:00:53+00:00", "")
    itemless = ROWS[0].replace(",14,", ",,")
    unknown = ROWS[0].replace("a,b,c,d", "a,,c,d")
    source = write(tmp_path, (*ROWS, timeless, itemless, unknown))
    source.check()
    assert source.span() == ("2019-11-24T00", "2019-11-24T01")
    events = table(source)
    reasons = Counter(judge(events.cast(optional(SOURCE_EVENTS)), IngestRules()).to_pylist())
    assert reasons == {None: 6, "null_key": 3}
    assert events["ingested_at"].null_count == 0
    assert dict(rows_of(source, "users")[-1]["categorical"]).keys() == {
        "user_feature_0", "user_feature_2", "user_feature_3",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"header": LOG.replace("propensity_score", "pscore")},
         ["all.csv", "'propensity_score'", "missing", "4 rows", "pscore", "published"]),
        ({"rows": [row.replace(",14,", ",x,") for row in ROWS]},
         ["all.csv", "'item_id'", "3 of 4 rows", "'x', 'x', 'x'", "correct"]),
        ({"rows": [row.replace("53+00:00", "53") for row in ROWS]},
         ["all.csv", "'timestamp'", "UTC", "1 of 4 rows", "'2019-11-24 00:00:53'"]),
        ({"rows": [row.replace(",15,1,", ",15,0,") for row in ROWS]},
         ["all.csv", "'position'", "1, 2 or 3", "1 of 4 rows", "first values 0"]),
        ({"rows": [row.replace(",2,0,", ",4,0,") for row in ROWS]},
         ["'position'", "2 of 4 rows", "4, 4"]),
        ({"rows": [row.replace(",3,0,", ",3,2,") for row in ROWS]},
         ["'click'", "0 or 1", "1 of 4 rows", "first values 2"]),
        ({"rows": [row.replace(",0.25,", ",1.25,") for row in ROWS]},
         ["'propensity_score'", "at most 1", "2 of 4 rows", "1.25"]),
        ({"rows": [row.replace(",0.0125,", ",,") for row in ROWS]},
         ["'propensity_score'", "2 of 4 rows", "None"]),
        ({"rows": [row.replace("0.0125", "nan") for row in ROWS]}, ["'propensity_score'", "nan"]),
        ({"rows": []}, ["all.csv", "'timestamp'", "0 rows"]),
        ({"rows": ["0,1,2"]}, ["all.csv", "11 columns", "again"]),
        ({"items": [row.replace("-0.5", "low") for row in ITEM_ROWS]},
         ["item_context.csv", "'item_feature_0'", "1 of 2 rows", "'low'"]),
        ({"items": [row.replace(",15,", ",14,") for row in ITEM_ROWS]},
         ["item_context.csv", "'item_id'", "1 of 2 rows again"]),
        ({"items": [row.replace(",15,", ",,") for row in ITEM_ROWS]},
         ["item_context.csv", "'item_id'", "1 of 2 rows", "None"]),
    ],
)  # fmt: skip
def test_wrong_files_are_named(tmp_path, change, words):
    with pytest.raises(SourceError) as refusal:
        write(tmp_path, **change).check()
    for word in words:
        assert word in str(refusal.value)


@pytest.mark.parametrize("name", ["all.csv", "item_context.csv"])
def test_missing_and_empty_files_are_named(tmp_path, name):
    source = write(tmp_path)
    file = tmp_path / "random" / "all" / name
    file.write_text("")
    with pytest.raises(SourceError, match=f"{name} is not a readable CSV"):
        source.check()
    file.unlink()
    with pytest.raises(SourceError, match=rf"random/all/{name}.*source\.options\.path"):
        source.check()


@pytest.mark.shared
@pytest.mark.skipif(not DATA.is_dir(), reason="the Open Bandit files are not in ../shared/data")
class TestPublishedSample:
    @pytest.mark.parametrize(
        ("policy", "clicks", "segments"), [("random", 38, 240), ("bts", 42, 253)]
    )
    def test_counts_equal_plain_counting(self, policy, clicks, segments):
        with gzip.open(DATA / f"{policy}_all.csv.gz", "rt") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 10_000
        assert sum(int(row["click"]) for row in rows) == clicks
        source = open_source("open_bandit", {"path": DATA, "policy": policy})
        source.check()
        assert source.span() == ("2019-11-24T00", "2019-11-30T23")
        events = table(source)
        assert Counter(events["action"].to_pylist()) == {"impression": 10_000, "click": clicks}
        shown = events.filter(pc.equal(events["action"], "impression"))
        positions = Counter(int(row["position"]) for row in rows)
        assert Counter(shown["position"].to_pylist()) == positions
        assert set(positions) == {1, 2, 3}
        scores = [float(row["propensity_score"]) for row in rows]
        assert shown["propensity"].to_pylist() == scores
        assert [str(instant) for instant in shown["event_time"].to_pylist()] == [
            row["timestamp"] for row in rows
        ]
        assert len(events["event_id"].unique()) == events.num_rows
        assert len(rows_of(source, "users")) == len(shown["user_id"].unique()) == segments
        assert len(rows_of(source, "items")) == 80
        reasons = judge(events.cast(optional(SOURCE_EVENTS)), IngestRules())
        assert reasons.null_count == events.num_rows

    def test_every_hour_has_rows(self):
        source = open_source("open_bandit", {"path": DATA})
        names = pc.strftime(table(source)["ingested_at"], format="%Y-%m-%dT%H")
        assert set(names.to_pylist()) == set(hours.hour_range(*source.span()))
