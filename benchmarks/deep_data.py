"""The logs of benchmarks/deep.py: Arrow tables for ours, and the same rows encoded for the others.

    python benchmarks/deep_data.py NAME LOG FOLDER ROWS      # run by deep.py

Below FOLDER: train.parquet, test.parquet and spec.json, which ours reads; and for either part the
arrays dense (normalised), sparse, sequences and labels as .npy, with meta.json to explain them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pv
import pyarrow.parquet as pq

from models.encoding import Encoder
from models.features import FeatureSpec, SequenceColumn, SparseColumn
from models.row_files import Moments

LENGTH = 50
DAY_MS = 86_400_000
CHINA_MS = 8 * 3_600_000  # the business day of both logs of clicks is UTC+8's
CATEGORICAL = {
    1: "class_worker", 2: "det_ind_code", 3: "det_occ_code", 4: "education", 6: "hs_college",
    8: "major_ind_code", 9: "major_occ_code", 10: "race", 11: "hisp_origin", 12: "sex",
    13: "union_member", 14: "unemp_reason", 15: "full_or_part_emp", 19: "tax_filer_stat",
    20: "region_prev_res", 21: "state_prev_res", 22: "det_hh_fam_stat", 23: "det_hh_summ",
    25: "mig_chg_msa", 26: "mig_chg_reg", 27: "mig_move_reg", 28: "mig_same",
    29: "mig_prev_sunbelt", 31: "fam_under_18", 32: "country_father", 33: "country_mother",
    34: "country_self", 35: "citizenship", 37: "vet_question",
}  # fmt: skip
NUMERIC = {
    0: "age", 5: "wage_per_hour", 16: "capital_gains", 17: "capital_losses", 18: "stock_dividends",
    24: "instance_weight", 30: "num_emp", 36: "own_or_self", 38: "vet_benefits",
    39: "weeks_worked", 40: "year",
}  # fmt: skip
MARITAL, INCOME = 7, 41
USER_TEXTS = ("user_active_degree", "follow_user_num_range", "fans_user_num_range",
              "friend_user_num_range", "register_days_range")  # fmt: skip
USER_NUMBERS = ("follow_user_num", "fans_user_num", "friend_user_num", "register_days")


class Clicks(NamedTuple):
    """The clicked items of all users, one after another in time.

    Attributes:
        item: (C,) texts; ``first``, ``end``: by row where its user's begin, and the end of those
            strictly before the row.
        user: by row the user's number; ``starts`` (users + 1,): where the clicks of each begin.
    """

    item: pa.Array
    user: np.ndarray
    first: np.ndarray
    end: np.ndarray
    starts: np.ndarray

    def sequences(self) -> pa.ListArray:
        """By row the last clicks strictly before it, newest last."""
        kept = np.minimum(self.end - self.first, LENGTH)
        offsets = np.concatenate([[0], np.cumsum(kept)])
        places = np.arange(offsets[-1]) + np.repeat(self.end - kept - offsets[:-1], kept)
        return pa.ListArray.from_arrays(
            pa.array(offsets.astype(np.int32)), self.item.take(pa.array(places))
        )

    def at(self, rows: np.ndarray) -> Clicks:
        return self._replace(user=self.user[rows], first=self.first[rows], end=self.end[rows])


class Log(NamedTuple):
    """A log as a table, which of its rows are held out, and how a model reads it."""

    table: pa.Table
    test: np.ndarray
    dense: tuple[str, ...]
    sparse: tuple[str, ...]
    labels: tuple[str, ...]
    clicks: Clicks | None = None
    item: str = ""


def clicks_before(user: np.ndarray, time: np.ndarray, clicked: np.ndarray, item: Any) -> Clicks:
    """What every row's user had clicked strictly before it; rows at the same time see the same."""
    order = np.lexsort((time, user))
    who, when, hit = user[order], time[order], clicked[order]
    before = np.cumsum(hit) - hit
    other_user = np.append(True, who[1:] != who[:-1])
    other_time = other_user | np.append(True, when[1:] != when[:-1])
    number = np.arange(len(order))
    since_user = np.maximum.accumulate(np.where(other_user, number, 0))
    since_time = np.maximum.accumulate(np.where(other_time, number, 0))
    found = [np.empty(len(order), np.int64) for _ in range(3)]
    values = (np.cumsum(other_user) - 1, before[since_user], before[since_time])
    for target, value in zip(found, values, strict=True):
        target[order] = value
    starts = np.append(before[other_user], hit.sum())
    return Clicks(_one(item.take(pa.array(order[hit]))), found[0], found[1], found[2], starts)


def census(folder: Path) -> Log:
    """Census-Income, two tasks: 40 columns; the published test file is held out."""
    names = [CATEGORICAL.get(i) or NUMERIC.get(i) or f"_{i}" for i in range(42)]
    types = {name: pa.float32() for name in NUMERIC.values()}
    types |= {name: pa.string() for name in names if name not in types}
    parts = [
        pv.read_csv(
            folder / f"census_income_{part}.csv.gz",
            pv.ReadOptions(column_names=names),
            convert_options=pv.ConvertOptions(
                column_types=types, null_values=[" ?"], strings_can_be_null=True
            ),
        )
        for part in ("train", "test")
    ]
    test = np.repeat([False, True], [part.num_rows for part in parts])
    table = pa.concat_tables(parts)
    labels = {
        "label_income": pc.equal(pc.utf8_trim_whitespace(table[f"_{INCOME}"]), "50000+."),
        "label_never_married": pc.equal(
            pc.utf8_trim_whitespace(table[f"_{MARITAL}"]), "Never married"
        ),
    }
    table = table.select([*NUMERIC.values(), *CATEGORICAL.values()])
    for name, values in labels.items():
        table = table.append_column(name, values.cast(pa.float32()))
    return Log(table, test, tuple(NUMERIC.values()), tuple(CATEGORICAL.values()), tuple(labels))


def kuairand(folder: Path) -> Log:
    """Impressions of a week; the last day is held out."""
    log = pv.read_csv(folder / "log_standard_4_25_to_5_01_pure.csv.gz")
    log = log.select(["user_id", "video_id", "tab", "time_ms", "duration_ms", "is_click"])
    log = log.group_by(log.column_names).aggregate([]).sort_by("time_ms")  # no exact duplicates
    users = pv.read_csv(folder / "user_features_pure.csv.gz")
    videos = pv.read_csv(folder / "video_features_basic_pure.csv.gz")
    user = users.take(pc.index_in(log["user_id"], value_set=_one(users["user_id"])))
    video = videos.take(pc.index_in(log["video_id"], value_set=_one(videos["video_id"])))
    time = log["time_ms"].to_numpy()
    items = log["video_id"].cast(pa.string())
    clicked = log["is_click"].to_numpy() > 0
    clicks = clicks_before(log["user_id"].to_numpy(), time, clicked, items)
    columns: dict[str, Any] = {
        "user_id": log["user_id"].cast(pa.string()), "video_id": items,
        "author_id": video["author_id"].cast(pa.string()),
        "tab": log["tab"].cast(pa.string()), "tag": video["tag"].cast(pa.string()),
        **{name: user[name].cast(pa.string()) for name in USER_TEXTS},
        **{name: user[name].cast(pa.float32()) for name in USER_NUMBERS},
        "duration_ms": log["duration_ms"].cast(pa.float32()),
        "label_click": log["is_click"].cast(pa.float32()), "clicked": clicks.sequences(),
    }  # fmt: skip
    day = (time + CHINA_MS) // DAY_MS
    return Log(
        pa.table(columns), day == day.max(), (*USER_NUMBERS, "duration_ms"),
        ("user_id", "video_id", "author_id", "tab", "tag", *USER_TEXTS), ("label_click",),
        clicks, "video_id",
    )  # fmt: skip


def taobao(folder: Path) -> Log:
    """Every page view, and beside it an item drawn by popularity; the last day is held out.

    The sequence is of categories: most items of a day were never seen before it.
    """
    log = pv.read_csv(folder / "user_slice_983_users_9days.csv.gz")
    log = log.filter(pc.equal(log["behavior_type"], "pv")).sort_by("timestamp")
    time = log["timestamp"].to_numpy().astype(np.int64) * 1000
    day = (time + CHINA_MS) // DAY_MS
    usual = np.abs(day - np.median(day)) <= 5  # a few rows are years off
    log, time, day = log.filter(pa.array(usual)), time[usual], day[usual]
    count = log.num_rows
    clicks = clicks_before(
        log["user_id"].to_numpy(), time, np.ones(count, bool), log["category_id"].cast(pa.string())
    )
    rows = np.repeat(np.arange(count), 2)  # every page view, then the drawn item
    drawn = np.random.default_rng(5).integers(0, count, count)
    source = np.stack([np.arange(count), drawn], 1).reshape(-1)
    shown = log.take(pa.array(source))
    clicks = clicks.at(rows)
    columns: dict[str, Any] = {
        "user_id": log["user_id"].take(pa.array(rows)).cast(pa.string()),
        "item_id": shown["item_id"].cast(pa.string()),
        "category_id": shown["category_id"].cast(pa.string()),
        "time_of_day": pa.array(((time[rows] + CHINA_MS) % DAY_MS / 3_600_000).astype(np.float32)),
        "label_click": pa.array(np.tile([1.0, 0.0], count).astype(np.float32)),
        "clicked": clicks.sequences(),
    }
    return Log(
        pa.table(columns), (day == day.max())[rows], ("time_of_day",),
        ("user_id", "item_id", "category_id"), ("label_click",), clicks, "category_id",
    )  # fmt: skip


LOGS: Mapping[str, Callable[[Path], Log]] = {
    "census_income": census, "kuairand": kuairand, "taobao_userbehavior": taobao,
}  # fmt: skip


def spec_of(log: Log, train: pa.Table) -> FeatureSpec:
    """Every column with a table of its own that fits the texts of ``train``."""
    buckets = {name: pc.count_distinct(train[name]).as_py() + 3 for name in log.sparse}
    sequences: tuple[SequenceColumn, ...] = ()
    if log.clicks is not None:
        met = [_one(train[log.item]), pc.list_flatten(train["clicked"]).combine_chunks()]
        buckets[log.item] = pc.count_distinct(pa.concat_arrays(met)).as_py() + 3
        sequences = (SequenceColumn("clicked", buckets[log.item], LENGTH, "vocabulary", log.item),)
    return FeatureSpec(
        dense=log.dense,
        sparse=tuple(SparseColumn(name, buckets[name], "vocabulary") for name in log.sparse),
        sequences=sequences,
        labels=log.labels,
    )


def write(log: Log, folder: Path, rows: int) -> dict[str, Any]:
    """Write both parts of ``log``; ``rows``: how many of each at most, 0 for all."""
    places = {"train": np.flatnonzero(~log.test), "test": np.flatnonzero(log.test)}
    if rows:
        places = {part: _some(where, rows) for part, where in places.items()}
    tables = {part: log.table.take(pa.array(where)) for part, where in places.items()}
    spec = spec_of(log, tables["train"])
    encoder = Encoder(spec)
    moments = Moments(len(spec.dense), len(spec.labels))
    (folder / "spec.json").write_text(spec.to_json())
    for part, table in tables.items():
        pq.write_table(table, folder / f"{part}.parquet", row_group_size=65536)
        encoded = encoder.encode(table, train=True, grow=part == "train")
        if part == "train":
            moments.add(encoded)
        dense = np.nan_to_num((encoded.dense - moments.mean()) * moments.scale()).clip(-8, 8)
        arrays = {**encoded._asdict(), "dense": dense.astype(np.float32)}
        for name in ("dense", "sparse", "sequences", "labels"):
            np.save(folder / f"{part}_{name}.npy", arrays[name])
        if log.clicks is not None:
            np.save(folder / f"{part}_user.npy", log.clicks.user[places[part]])
            before = log.clicks.end - log.clicks.first
            np.save(folder / f"{part}_before.npy", before[places[part]])
    said: dict[str, Any] = {f"{part}_rows": len(where) for part, where in places.items()}
    meta = {
        "dense": spec.dense, "sparse": [(c.name, c.buckets) for c in spec.sparse],
        "labels": spec.labels, "item": log.item,
    }  # fmt: skip
    (folder / "meta.json").write_text(json.dumps(meta))
    if log.clicks is not None:
        codes = encoder.vocabularies[log.item].codes(log.clicks.item)
        np.save(folder / "clicks.npy", codes)
        np.save(folder / "clicks_starts.npy", log.clicks.starts)
        filled = np.count_nonzero(np.load(folder / "train_sequences.npy"), axis=1)
        said["filled"] = round(float(filled.mean()), 1)
    return said


def _some(places: np.ndarray, rows: int) -> np.ndarray:
    """Up to ``rows`` of them, evenly spread, in order."""
    return places[np.linspace(0, len(places) - 1, min(rows, len(places))).astype(np.int64)]


def _one(column: Any) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def main(argv: Sequence[str]) -> int:
    name, source, folder, rows = argv
    print(json.dumps(write(LOGS[name](Path(source)), Path(folder), int(rows))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
