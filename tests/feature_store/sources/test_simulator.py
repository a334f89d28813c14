"""The marketplace on disk: the same for ever, extended purely, read back, well configured."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from feature_store.schemas import ENTITY_TABLES, SOURCE_EVENTS
from feature_store.sources import SourceError, open_source
from feature_store.sources.simulator import (
    MarketConfig,
    World,
    write_simulation,
)
from feature_store.sources.simulator.catalogue import entity_rows
from feature_store.sources.simulator.world import LIFECYCLE, hour_index
from feature_store.sources.simulator.writer import MANIFEST, arrivals
from tests.feature_store.sources.market import (
    SMALL,
    files,
    quiet,
)


class TestDeterminism:
    def test_same_arguments_same_files_and_another_seed_others(self, tmp_path):
        for name in ("a", "b"):
            write_simulation(SMALL, tmp_path / name, 6, quiet)
        write_simulation(dataclasses.replace(SMALL, seed=1), tmp_path / "c", 6, quiet)
        a, b, c = (files(tmp_path / name) for name in "abc")
        assert a == b
        assert set(a) == set(c)
        drawn = [path for path in a if not path.startswith("truth/positions")]
        assert not {a[path] for path in drawn} & {c[path] for path in drawn}

    def test_more_hours_extend_what_is_there(self, tmp_path):
        first = write_simulation(SMALL, tmp_path / "grown", 5, quiet)
        before = files(tmp_path / "grown")
        more = write_simulation(SMALL, tmp_path / "grown", 30, quiet)
        assert (first.last, more.first) == ("2026-11-08T04", "2026-11-08T05")
        whole = write_simulation(SMALL, tmp_path / "whole", 30, quiet)
        assert whole.rows == first.rows + more.rows
        grown = files(tmp_path / "grown")
        assert grown == files(tmp_path / "whole")
        del before[MANIFEST]
        assert before.items() <= grown.items()

    def test_killed_and_repeated_is_undisturbed(self, tmp_path):
        def killed(hour, _rows):
            if hour.endswith("T03"):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write_simulation(SMALL, tmp_path / "a", 6, killed)
        (tmp_path / "a/events/hour=2026-11-08T04").mkdir()
        (tmp_path / "a/events/hour=2026-11-08T04/.part-0.tmp").write_bytes(b"half")
        with pytest.raises(SourceError, match="not finished"):
            open_source("simulator", {"path": tmp_path / "a"}).check()
        write_simulation(SMALL, tmp_path / "a", 6, quiet)
        write_simulation(SMALL, tmp_path / "b", 6, quiet)
        assert files(tmp_path / "a") == files(tmp_path / "b")

    def test_the_same_is_left_alone_and_another_refused(self, tmp_path):
        write_simulation(SMALL, tmp_path / "a", 3, quiet)
        before = files(tmp_path / "a")
        assert write_simulation(SMALL, tmp_path / "a", 3, quiet).unchanged
        with pytest.raises(SourceError, match=r"seed 20261111 there, 5 asked for.*new folder"):
            write_simulation(dataclasses.replace(SMALL, seed=5), tmp_path / "a", 3, quiet)
        with pytest.raises(SourceError, match="3 hours of this simulation, and 2 were asked for"):
            write_simulation(SMALL, tmp_path / "a", 2, quiet)
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine/thesis.txt").write_text("years")
        with pytest.raises(SourceError, match=r"not empty and holds no simulation\.json"):
            write_simulation(SMALL, tmp_path / "mine", 2, quiet)
        assert files(tmp_path / "a") == before


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("market")
    write_simulation(SMALL, folder, 30, quiet)
    return open_source("simulator", {"path": folder})


class TestSource:
    def test_reads_back_what_was_written(self, source):
        source.check()
        assert source.span() == ("2026-11-08T00", "2026-11-09T05")
        assert (source.has_requests, source.time_zone) == (True, "Asia/Shanghai")
        written = {made.hour: made.events for made in arrivals(SMALL, 30)}
        batches = list(source.events("2026-11-08T03", "2026-11-08T04"))
        assert all(batch.schema.equals(SOURCE_EVENTS) for batch in batches)
        read = [row for batch in batches for row in batch.to_pylist()]
        first = hour_index(SMALL.start)
        assert read == [*written[first + 3].to_pylist(), *written[first + 4].to_pylist()]
        total = sum(table.num_rows for table in written.values())
        assert sum(b.num_rows for b in source.events("2026-01-01T00", "2027-01-01T00")) == total

    def test_entities_arrive_when_they_are_born(self, source):
        everything = {
            name: pa.Table.from_batches(source.entities(name, *source.span()), schema)
            for name, schema in ENTITY_TABLES.items()
        }
        keys = (("users", "user_id"), ("items", "item_id"), ("rooms", "room_id"))
        known = {name: pc.count_distinct(everything[name][key]).as_py() for name, key in keys}
        assert known == {"users": 201, "items": 212, "rooms": 61}  # one of them a bot
        first = pc.equal(everything["users"]["hour"], SMALL.start)
        assert everything["users"].filter(first).num_rows == 201
        assert dict(everything["users"]["categorical"][0].as_py()).keys() == {
            "age_band", "device", "city_tier", "lifecycle",
        }  # fmt: skip
        shown = pa.Table.from_batches(source.events(*source.span()))
        for name, key in (("users", "user_id"), ("items", "item_id"), ("rooms", "room_id")):
            seen = set(shown[key].to_pylist()) - {None}
            assert seen <= set(everything[name][key].to_pylist())

    def test_rooms_explain_one_item_at_a_time(self, source):
        rows = pa.Table.from_batches(
            source.entities("room_items", *source.span()), ENTITY_TABLES["room_items"]
        )
        core = rows.filter(rows["core"])
        assert core["valid_to"].null_count == core.num_rows > 60
        shown = rows.filter(pc.invert(rows["core"]))
        length = pc.subtract(
            shown["valid_to"].cast(pa.int64()), shown["valid_from"].cast(pa.int64())
        )
        assert set(length.to_pylist()) == {900_000_000}
        once = shown.group_by(["room_id", "valid_from"]).aggregate([([], "count_all")])
        assert set(once["count_all"].to_pylist()) == {1}

    def test_a_folder_without_a_simulation(self, tmp_path):
        with pytest.raises(SourceError, match=r"no simulation\.json.*simulate_events\.py --out"):
            open_source("simulator", {"path": tmp_path}).span()
        (tmp_path / MANIFEST).write_text("{}")
        with pytest.raises(SourceError, match=r"no manifest.*simulate again"):
            open_source("simulator", {"path": tmp_path}).check()
        (tmp_path / MANIFEST).write_text('{"schema": 9}')
        with pytest.raises(SourceError, match="another version"):
            open_source("simulator", {"path": tmp_path}).check()


class TestEntities:
    def test_a_user_goes_through_the_stages_of_life(self, source):
        users = pa.Table.from_batches(source.entities("users", *source.span()))
        world = World(SMALL)
        seen = {}
        for row in users.sort_by("hour").to_pylist():
            stage = dict(row["categorical"])["lifecycle"]
            hour = hour_index(row["hour"])
            assert stage == LIFECYCLE[world.lifecycle(hour)[int(row["user_id"][1:])]]
            assert seen.get(row["user_id"]) != stage, "a row says something new"
            seen[row["user_id"]] = stage
        assert users.num_rows > 201, "somebody has changed"
        assert set(seen.values()) == set(LIFECYCLE)
        joined = (world.lifecycle(world.first) == 0) & (world.lifecycle(world.first + 720) > 0)
        assert joined.any()

    def test_sold_out_items_come_back_at_midnight(self):
        world = World(MarketConfig())
        gone = np.array([world.sold_out(world.first + hour).sum() for hour in range(24)])
        midnight = 16  # UTC, in Shanghai
        assert gone[midnight] == 0
        assert 10 < gone[midnight - 1] == gone.max() < 200
        assert np.all(np.diff(gone[:midnight]) >= 0)

        def told(hour):
            rows = entity_rows(world, "items", world.first + hour)
            return {row["item_id"]: dict(row["numeric"])["stock"] for row in rows.to_pylist()}

        items, _ = world.supply(world.first)
        out = [hour for hour in range(1, midnight) if gone[hour] > gone[hour - 1]]
        assert set().union(*(told(hour).values() for hour in out)) == {0.0}
        back = told(midnight)
        assert len(back) == gone[midnight - 1]
        assert all(stock == items.stock[int(name[1:])] for name, stock in back.items())


class TestTruthStaysApart:
    def test_the_source_reads_the_same_without_it(self, tmp_path):
        write_simulation(SMALL, tmp_path / "with", 3, quiet)
        write_simulation(SMALL, tmp_path / "without", 3, quiet, with_truth=False)
        kept, bare = (files(tmp_path / name) for name in ("with", "without"))
        hidden = {path for path in kept if path.startswith("truth/")}
        assert len(hidden) == 1 + 2 * 3
        assert bare == {path: kept[path] for path in kept if path not in hidden}

    def test_what_is_hidden_is_in_no_column_of_the_log(self, source):
        batch = next(source.events(*source.span()))
        assert batch.schema.equals(SOURCE_EVENTS)
        for table in ("users", "items", "rooms"):
            rows = pa.Table.from_batches(source.entities(table, *source.span()))
            named = {key for row in rows["numeric"].to_pylist() for key, _ in row}
            assert not named & {"taste", "appeal", "quality", "heat", "thrift", "activity"}


@pytest.mark.parametrize("processes", [2, 3])
def test_the_number_of_processes_changes_nothing(tmp_path, processes):
    write_simulation(SMALL, tmp_path / "one", 5, quiet)
    write_simulation(SMALL, tmp_path / "more", 5, quiet, processes=processes)
    assert files(tmp_path / "one") == files(tmp_path / "more")


class TestConfig:
    def test_from_dict(self):
        assert MarketConfig.from_dict({"users": 7}).users == 7
        assert MarketConfig.from_dict(SMALL.to_dict()) == SMALL
        assert MarketConfig.from_dict({"late_share": 0}).late_share == 0

    @pytest.mark.parametrize(
        ("values", "words"),
        [
            ({"user": 7}, ["'user'", "users"]),
            ({"users": "many"}, ["users", "'many'", "int"]),
            ({"users": True}, ["users", "True"]),
            ({"users": 0}, ["users is 0", "1"]),
            ({"items": 39}, ["items is 39", "40"]),
            ({"late_share": 0.6}, ["late_share", "0.6"]),
            ({"malformed_share": 0.01}, ["malformed_share", "ingest"]),
            ({"position_decay": -1}, ["position_decay", "-1"]),
            ({"trust_bias": 0.7}, ["trust_bias is 0.7", "0.5"]),
            ({"festival": "11-11"}, ["festival is '11-11'", "2026-11-11"]),
            ({"festival": "20261111"}, ["festival is '20261111'"]),
            ({"start": "2026-11-08"}, ["start", "2026-11-08"]),
        ],
    )
    def test_senseless_settings_are_refused(self, values, words):
        with pytest.raises(SourceError) as refusal:
            MarketConfig.from_dict(values)
        for word in words:
            assert word in str(refusal.value)

    def test_the_smallest_and_the_emptiest(self, tmp_path):
        tiny = MarketConfig(
            requests_per_hour=0, users=1, items=4, rooms=4, categories=1, slate_size=1,
            new_items_per_day=0, new_rooms_per_day=0, bot_share=0.0,
        )  # fmt: skip
        assert write_simulation(tiny, tmp_path / "a", 2, quiet).rows == 0
        source = open_source("simulator", {"path": tmp_path / "a"})
        source.check()
        assert list(source.events(*source.span())) == []
        one = dataclasses.replace(tiny, requests_per_hour=3)
        assert write_simulation(one, tmp_path / "b", 30, quiet).rows > 0
