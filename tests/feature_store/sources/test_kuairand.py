"""KuaiRand: the published files against plain counting, and small files made by hand."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from feature_store.schemas import ENTITY_TABLES, SOURCE_EVENTS
from feature_store.sources import SourceError, open_source

DATA = Path(__file__).resolve().parents[4] / "shared" / "data" / "kuairand"

LOG = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,"
    "is_hate,long_view,play_time_ms,duration_ms,profile_stay_time,comment_stay_time,"
    "is_profile_enter,is_rand,tab"
)
VIDEOS = (
    "video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,"
    "server_width,server_height,music_id,music_type,tag"
)
ONE_HOT = ",".join(f"onehot_feat{i}" for i in range(18))
USERS = (
    "user_id,user_active_degree,is_lowactive_period,is_live_streamer,is_video_author,"
    "follow_user_num,follow_user_num_range,fans_user_num,fans_user_num_range,friend_user_num,"
    f"friend_user_num_range,register_days,register_days_range,{ONE_HOT}"
)
HOUR = 1651320000000  # 2022-04-30T12:00Z
LOG_ROWS = (
    f"7,100,20220430,2000,{HOUR + 1000},1,1,1,1,1,1,1,2500,9000,0,0,0,0,4",
    f"7,101,20220430,2000,{HOUR + 2000},0,0,0,0,0,0,0,0,8000,0,0,0,0,1",
    f"7,101,20220430,2000,{HOUR + 2000},0,0,0,0,0,0,0,0,8000,0,0,0,0,1",
    f"7,101,20220430,2000,{HOUR + 2000},0,0,0,0,0,0,0,0,8000,0,0,0,0,2",
    f"8,999,20220430,2100,{HOUR + 3600000},1,0,0,0,0,0,0,10,8000,0,0,0,0,1",
)
VIDEO_ROWS = (
    '100,50,NORMAL,2022-04-10,Web,0.0,9000.0,720.0,1280.0,1,9.0,"20,43"',
    "101,50,AD,2022-04-09,Kmovie,0.0,,960.0,720.0,2,,3",
    "102,50,NORMAL,2022-04-09,Kmovie,0.0,,960.0,720.0,2,4.0,3",
)
USER_ROWS = (
    f"7,full_active,0,1,1,514,500+,150,x,34,y,799,730+,{','.join(['1'] * 17)},",
    f"8,high_active,0,1,1,5,0,1,x,3,y,7,730+,{','.join(['0.0'] * 18)}",
)


def write(folder, log=LOG_ROWS, videos=VIDEO_ROWS, users=USER_ROWS, header=LOG):
    folder.mkdir(exist_ok=True)
    for name, lines in (
        ("log_standard_4_22_to_5_08_pure.csv", (header, *log)),
        ("video_features_basic_pure.csv", (VIDEOS, *videos)),
        ("user_features_pure.csv", (USERS, *users)),
    ):
        (folder / name).write_text("\n".join(lines) + "\n")
    return open_source("kuairand", {"path": folder})


def table(source, first=None, last=None):
    begin, end = source.span()
    return pa.Table.from_batches(source.events(first or begin, last or end), SOURCE_EVENTS)


def rows_of(source, name):
    return pa.Table.from_batches(
        source.entities(name, *source.span()), ENTITY_TABLES[name]
    ).to_pylist()


def test_a_row_becomes_an_impression_and_its_outcomes(tmp_path):
    source = write(tmp_path / "k")
    source.check()
    assert source.span() == ("2022-04-30T12", "2022-04-30T13")
    assert (source.has_requests, source.time_zone) == (False, "Asia/Shanghai")
    assert set(source.windows.values()) == {0}
    events = table(source)
    first = events.filter(pc.equal(events["target_id"], "100"))
    actions = set(first["action"].to_pylist())
    assert actions == {"impression", *source.windows}
    row = first.filter(pc.equal(first["action"], "stay")).to_pylist()[0]
    assert row["value"] == 2.5
    expected = {
        "user_id": "7", "target_type": "item", "target_id": "100", "item_id": "100",
        "room_id": "50", "scene": "4", "request_id": None, "position": None,
    }  # fmt: skip
    assert expected.items() <= row.items()
    assert row["event_time"] == row["ingested_at"]
    assert row["event_time"].timestamp() * 1000 == HOUR + 1000
    assert len(set(first["impression_id"].to_pylist())) == 1
    assert len(set(first["event_id"].to_pylist())) == first.num_rows


def test_duplicates_collide_and_different_rows_do_not(tmp_path):
    events = table(write(tmp_path / "k"))
    same = events.filter(pc.equal(events["target_id"], "101"))
    assert same["action"].to_pylist() == ["impression"] * 3  # no play, no stay
    assert same["event_id"][0] == same["event_id"][1]
    assert same["event_id"][0] != same["event_id"][2]  # another tab
    other = events.filter(pc.equal(events["target_id"], "999"))
    assert other["room_id"].null_count == other.num_rows > 0  # not in the video file


def test_a_column_that_nobody_reads_still_tells_rows_apart(tmp_path):
    row = LOG_ROWS[1]
    changed = row.replace(",0,0,0,0,1", ",0,5,0,0,1")  # comment_stay_time
    ids = table(write(tmp_path / "k", log=(row, changed)))["event_id"].unique()
    assert len(ids) == 2


def test_hours_are_those_of_time_ms(tmp_path):
    source = write(tmp_path / "k")
    assert set(table(source, last="2022-04-30T12")["user_id"].to_pylist()) == {"7"}
    assert set(table(source, first="2022-04-30T13")["user_id"].to_pylist()) == {"8"}
    assert list(source.events("2022-04-29T00", "2022-04-30T11")) == []


def test_entities(tmp_path):
    source = write(tmp_path / "k")
    users, items, rooms = (rows_of(source, name) for name in ("users", "items", "rooms"))
    assert [user["user_id"] for user in users] == ["7", "8"]
    numeric = dict(users[0]["numeric"])
    assert (numeric["follow_user_num"], numeric["register_days"]) == (514.0, 799.0)
    assert "onehot_feat17" not in numeric  # empty
    assert users[0]["categorical"] == [("activity", "full_active")]
    assert {user["hour"] for user in users} == {"2022-04-30T12"}
    assert [(item["category"], item["room_id"]) for item in items] == [
        ("20", "50"),
        *[("3", "50")] * 2,
    ]
    duration = [dict(item["numeric"]).get("duration_s") for item in items]
    assert duration == [9.0, 8.0, None]  # from the video file, from the log, unknown
    assert dict(items[0]["numeric"])["published_at"] == 19092.0
    assert dict(items[0]["categorical"]) == {
        "video_type": "NORMAL", "upload_type": "Web", "music_type": "9",
    }  # fmt: skip
    assert [(room["room_id"], room["category"]) for room in rooms] == [("50", "3")]
    assert rows_of(source, "room_items") == []
    assert list(source.entities("users", "2022-04-30T13", "2022-04-30T13")) == []
    with pytest.raises(SourceError, match="shops"):
        list(source.entities("shops", *source.span()))


def test_several_logs_plain_and_packed(tmp_path):
    source = write(tmp_path / "k", log=LOG_ROWS[:3])
    with gzip.open(tmp_path / "k" / "log_standard_4_08_to_4_21_pure.csv.gz", "wt") as packed:
        packed.write("\n".join((LOG, *LOG_ROWS[3:])) + "\n")
    source.check()
    users = table(source)["user_id"].to_pylist()
    assert Counter(users) == Counter(table(write(tmp_path / "j"))["user_id"].to_pylist())
    assert users[-1] == "7"  # 4_08 comes before 4_22
    (tmp_path / "k" / "log_standard_4_08_to_4_21_pure.csv").write_text(LOG + "\n")
    with pytest.raises(SourceError, match=r"plain and as \.gz"):
        source.check()


def test_rows_without_keys_or_times_are_passed_on(tmp_path):
    nameless = LOG_ROWS[0].replace("7,100", ",100", 1)
    timeless = LOG_ROWS[0].replace(str(HOUR + 1000), "")
    seconds = LOG_ROWS[0].replace(str(HOUR + 1000), "1651320001")
    source = write(tmp_path / "k", log=(*LOG_ROWS, nameless, timeless, seconds))
    source.check()
    assert source.span() == ("2022-04-30T12", "2022-04-30T13")
    events = table(source, last="2022-04-30T12")
    assert events["user_id"].null_count == events["event_time"].null_count == 9
    early = events.filter(pc.less(pc.year(events["event_time"]), 2000))
    assert early.num_rows == 9  # the ingest calls them late
    assert events["ingested_at"].null_count == 0
    assert table(source, first="2022-04-30T13").num_rows == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"header": LOG.replace("time_ms", "millis")},
         ["log_standard", "'time_ms'", "missing", "5 rows", "millis", "published"]),
        ({"log": [r.replace(",2500,", ",x,") for r in LOG_ROWS]},
         ["log_standard", "'play_time_ms'", "1 of 5 rows", "'x'", "correct"]),
        ({"log": [r.replace(f"{HOUR + 2000},0", f"{HOUR + 2000},no") for r in LOG_ROWS]},
         ["'is_click'", "3 of 5 rows", "'no', 'no', 'no'"]),
        ({"log": [r.replace(f"{HOUR + 2000},0", f"{HOUR + 2000},") for r in LOG_ROWS]},
         ["'is_click'", "3 of 5 rows", "None"]),
        ({"log": [r.replace(str(HOUR)[:6], "2022-4") for r in LOG_ROWS]}, ["'time_ms'", "5 of 5"]),
        ({"log": ["7,100,1"]}, ["log_standard", "19 columns", "again"]),
        ({"log": []}, ["time_ms", "milliseconds"]),
        ({"log": [LOG_ROWS[0].replace(str(HOUR + 1000), "1651320001")]}, ["time_ms", "2000"]),
        ({"videos": [r.replace("2022-04", "04/2022") for r in VIDEO_ROWS]},
         ["video_features", "'upload_dt'", "3 of 3 rows"]),
        ({"users": [USER_ROWS[0].replace("7,", "seven,", 1)]},
         ["user_features", "'user_id'", "1 of 1 rows", "'seven'"]),
    ],
)  # fmt: skip
def test_wrong_files_are_named(tmp_path, change, words):
    with pytest.raises(SourceError) as refusal:
        write(tmp_path / "k", **change).check()
    for word in words:
        assert word in str(refusal.value)


@pytest.mark.parametrize("name", ["log_standard", "video_features_basic", "user_features"])
def test_missing_files_are_named(tmp_path, name):
    source = write(tmp_path / "k")
    next((tmp_path / "k").glob(f"{name}_*")).unlink()
    with pytest.raises(SourceError, match=f"{name}.*source.options.path"):
        source.check()


@pytest.mark.shared
@pytest.mark.skipif(not DATA.is_dir(), reason="the KuaiRand files are not in ../shared/data")
class TestPublishedFiles:
    def test_counts_equal_plain_counting(self):
        counted, lines, distinct = Counter(), 0, set()
        with gzip.open(next(DATA.glob("log_standard_*.csv.gz")), "rt") as file:
            for row in csv.DictReader(file):
                lines += 1
                distinct.add(tuple(row.values()))
                counted["stay"] += int(row["play_time_ms"]) > 0
                for column, action in (
                    ("is_click", "click"), ("long_view", "long_view"), ("is_like", "like"),
                    ("is_follow", "follow"), ("is_comment", "comment"), ("is_forward", "share"),
                    ("is_hate", "hate"),
                ):  # fmt: skip
                    counted[action] += int(row[column])
        source = open_source("kuairand", {"path": DATA})
        source.check()
        batches = list(source.events(*source.span()))
        assert max(batch.num_rows for batch in batches) <= 65536
        events = pa.Table.from_batches(batches)
        found = {x["values"]: x["counts"] for x in pc.value_counts(events["action"]).to_pylist()}
        assert found == {**counted, "impression": lines}
        assert lines == 115_574
        assert len(events["impression_id"].unique()) == len(distinct)
        shown = events.filter(pc.equal(events["action"], "impression"))
        assert len(shown["event_id"].unique()) == len(distinct)
        assert pc.sum(events["room_id"].is_null()).as_py() == 0
        stay = events.filter(pc.equal(events["action"], "stay"))["value"]
        assert pc.min(stay).as_py() > 0

    def test_hours_partition_the_log(self):
        source = open_source("kuairand", {"path": DATA})
        assert source.span() == ("2022-04-24T15", "2022-05-01T15")
        parts = [table(source, "2022-04-24T15", "2022-04-28T03"), table(source, "2022-04-28T04")]
        assert sum(part.num_rows for part in parts) == table(source).num_rows

    def test_entities(self):
        source = open_source("kuairand", {"path": DATA})
        assert len(rows_of(source, "users")) == 27_285
        items = rows_of(source, "items")
        assert len(items) == 7_583
        assert len(rows_of(source, "rooms")) == 6_510
