"""Features from day tiles and the rows of due keys alone equal features from every tile."""

from __future__ import annotations

import datetime as dt
import itertools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from feature_store import hours as hr
from feature_store.extraction import Part, Unit, feature_rows, work
from feature_store.rowhash import add_sums, sum_of_rows
from feature_store.schemas import TABLES, optional
from feature_store.tiles import (
    HASHES,
    day_content,
    ended_days,
    found_tiles,
    key_ranges,
    plan_history,
    read_tiles,
)
from feature_store.views import VIEWS, FeatureView

START, ZONE = "2026-11-01T16", "Asia/Shanghai"  # midnight there
HOURS = hr.hour_range(START, hr.add(START, 18 * 24 - 1))
NUMBER = next(n for n, view in enumerate(VIEWS) if view.name == "user_category")
VIEW = VIEWS[NUMBER]
COUNTED = ("key_hash", "tile", "action", "n", "total", "last_at")


class Files:
    """Tiles of few keys over 18 days, as hourly and day files."""

    def __init__(self, folder: Path) -> None:
        self.folder, draw = folder, random.Random(5)
        hashes = {(f"u{u}", f"c{c}"): draw.randrange(*HASHES) for u in range(30) for c in range(3)}
        self.hours = {hour: self.write(hour, hashes, draw) for hour in HOURS}
        self.ended = ended_days(HOURS, ZONE)
        self.days = {}
        for last, within in self.ended.items():
            paths = [self.hours[hour] for hour in within]
            unit = Unit(NUMBER, within[0], last, str(folder), paths, day=True)
            [part] = work(unit)
            self.days[last] = part.path

    def write(self, hour: str, hashes: dict[tuple[str, str], int], draw: random.Random) -> str:
        rows: dict[Any, dict[str, Any]] = {}
        for _ in range(draw.randrange(6)):
            (user, category), key_hash = draw.choice(list(hashes.items()))
            tile = hr.start_of(hour) + dt.timedelta(minutes=30 * draw.randrange(2))
            row = {
                "user_id": user, "category": category, "key_hash": key_hash, "tile": tile,
                "action": draw.choice(VIEW.actions), "n": draw.randint(1, 5),
                "total": draw.randint(0, 9000), "hour": hour,
                "last_at": tile + dt.timedelta(minutes=draw.randint(-120, 29)),
            }  # fmt: skip
            rows[key_hash, tile, row["action"]] = row
        schema = optional(TABLES[VIEW.counts_table].schema)
        table = pa.Table.from_pylist(list(rows.values()), schema=schema)
        path = self.folder / f"{hour}.parquet"
        # small row groups, so that ranges of keys skip some of them
        pq.write_table(table.sort_by("key_hash"), path, row_group_size=2)
        return str(path)

    def unit(self, first: str, last: str, **given: Any) -> Unit:
        """As the job plans it: tiles that change, and of the past day tiles where they serve."""
        past = plan_history(VIEW, first, last, START, self.ended)
        changed = [self.hours[h] for h in (*past.changing, *hr.hour_range(first, last))]
        older = [*(self.days[d] for d in past.days), *(self.hours[h] for h in past.hours)]
        return Unit(NUMBER, first, last, str(self.folder / "out"), changed, older, **given)

    def plain(self, first: str, last: str, **given: Any) -> Unit:
        """The same from every hour's tiles."""
        hours = [h for h in HOURS if hr.add(first, -VIEW.span_hours) <= h <= last]
        paths = [self.hours[hour] for hour in hours]
        return Unit(NUMBER, first, last, str(self.folder / "plain"), paths, **given)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("tiles"))


def rows_of(unit: Unit, view: FeatureView = VIEW) -> dict[str, list[dict[str, Any]]]:
    found = {hour: rows for hour, rows, _ in feature_rows(unit, view)}
    keys = [(key, "ascending") for key in view.keys]
    return {hour: rows.sort_by(keys).to_pylist() for hour, rows in found.items()}


@pytest.mark.parametrize("back", [1, 5, 14, 23, 24, 25, 40])
def test_an_hour_from_day_tiles_equals_one_from_all_tiles(files: Files, back: int) -> None:
    hour = HOURS[-back]
    unit = files.unit(hour, hour)
    assert rows_of(unit) == rows_of(files.plain(hour, hour))
    assert len(plan_history(VIEW, hour, hour, START, files.ended).days) >= 9
    assert len(unit.changed) + len(unit.past) < 140, "of 360 hours"


def test_an_hour_that_writes_every_living_key(files: Files) -> None:
    [last] = [day for day in files.ended if HOURS[-30] <= day < HOURS[-1]]
    planned = files.unit(last, last, bases=[last])
    whole = Unit(NUMBER, last, last, "", [*planned.past, *planned.changed], bases=[last])
    found = rows_of(whole)
    assert found == rows_of(files.plain(last, last, bases=[last]))
    assert len(found[last]) > 60, "many keys that did not change"


def test_a_range_of_hours(files: Files) -> None:
    first, last = HOURS[-30], HOURS[-1]
    together = rows_of(files.plain(first, last))
    assert rows_of(files.unit(first, last)) == together
    apart: dict[str, list[dict[str, Any]]] = {}
    for hour in hr.hour_range(first, last):
        apart |= rows_of(files.unit(hour, hour))
    assert apart == together


def test_ranges_of_keys_are_the_whole(files: Files) -> None:
    hour = HOURS[-5]
    [whole] = work(files.unit(hour, hour))
    parts: list[Part] = []
    for keys in key_ranges(5):
        parts += work(files.unit(hour, hour, within=keys))
    assert sum(part.rows for part in parts) == whole.rows
    digest = 0
    for part in parts:
        digest = add_sums(digest, part.digest)
    assert digest == whole.digest, "whatever the split"
    found = pa.concat_tables(pq.read_table(part.path) for part in parts)
    keys_first = [(key, "ascending") for key in VIEW.keys]
    assert found.sort_by(keys_first).equals(pq.read_table(whole.path).sort_by(keys_first))


def test_only_what_is_asked_for_is_read(files: Files) -> None:
    paths = list(files.hours.values())[:100]
    everything = read_tiles(paths, VIEW.keys)
    hashes = np.unique(everything["key_hash"].to_numpy())
    low, high = int(hashes[10]), int(hashes[20])
    some = read_tiles(paths, VIEW.keys, (low, high))
    assert set(some["key_hash"].to_pylist()) == set(hashes[10:21].tolist())
    wanted = hashes[[12, 15]]

    def find(found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = np.flatnonzero(np.isin(found, wanted))
        return rows, np.searchsorted(wanted, found[rows])

    seen = 0
    for rows, place in found_tiles(paths, (low, high), ["n", "key_hash"], find):
        assert rows["key_hash"].to_pylist() == wanted[place].tolist()
        seen += rows.num_rows
    own = everything.filter(pc.is_in(everything["key_hash"], pa.array(wanted)))
    assert seen == own.num_rows > 3
    assert read_tiles([], VIEW.keys).schema == some.schema == everything.schema


def test_key_ranges_cover_every_hash_once() -> None:
    for count in (1, 2, 3, 7):
        ranges = key_ranges(count)
        assert (ranges[0][0], ranges[-1][1]) == HASHES
        assert all(a[1] + 1 == b[0] for a, b in itertools.pairwise(ranges))


def test_a_day_counts_only_with_the_hours_it_was_made_of() -> None:
    contents = {"2026-11-11T00": "a", "2026-11-11T01": "b"}
    assert day_content(contents) == day_content(dict(reversed(contents.items())))
    assert day_content(contents) != day_content({**contents, "2026-11-11T01": "c"})


def test_ended_days_are_whole_business_days() -> None:
    assert list(ended_days(HOURS[:47], ZONE)) == [HOURS[23]]
    assert ended_days(HOURS[1:24], ZONE) == {}
    autumn = hr.date_hours("2026-10-25", "Europe/Berlin")
    assert len(autumn) == 25
    assert ended_days(autumn, "Europe/Berlin") == {autumn[-1]: autumn}


def test_digests_tell_rows_apart_and_not_their_order() -> None:
    rows = np.random.default_rng(1).integers(-(2**62), 2**62, (50, 4))
    assert sum_of_rows(rows[::-1]) == sum_of_rows(rows)
    assert sum_of_rows(rows[:, ::-1]) != sum_of_rows(rows)
    changed = rows.copy()
    changed[7, 2] += 1
    assert sum_of_rows(changed) != sum_of_rows(rows)
    assert add_sums(sum_of_rows(rows[:9]), sum_of_rows(rows[9:])) == sum_of_rows(rows)
