"""Users, videos and authors of KuaiRand as users, items and rooms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.schemas import ITEMS, ROOMS, TIMESTAMP, USERS
from feature_store.sources.arrow import attribute_map, micros_of
from feature_store.sources.delimited import Delimited, find_files

__all__ = ["Durations", "check_users", "items", "read_videos", "rooms", "users"]

_USER_NUMERIC: Final = (
    "follow_user_num", "fans_user_num", "friend_user_num", "register_days",
    *(f"onehot_feat{i}" for i in range(18)),
)  # fmt: skip
_USER_COLUMNS: Final[Mapping[str, pa.DataType]] = {
    "user_id": pa.int64(),
    "user_active_degree": pa.string(),
    **dict.fromkeys(_USER_NUMERIC, pa.float64()),
}
_VIDEO_COLUMNS: Final[Mapping[str, pa.DataType]] = {
    "video_id": pa.int64(),
    "author_id": pa.int64(),
    "video_type": pa.string(),
    "upload_dt": pa.date32(),
    "upload_type": pa.string(),
    "video_duration": pa.float64(),
    "server_width": pa.float64(),
    "server_height": pa.float64(),
    "music_type": pa.float64(),
    "tag": pa.string(),
}


@dataclass(frozen=True)
class Durations:
    """How long videos are: n ids and n milliseconds."""

    video_ids: npt.NDArray[np.int64]
    milliseconds: npt.NDArray[np.float64]

    def unique(self) -> Durations:
        """Sorted by id, of each video the first."""
        ids, where = np.unique(self.video_ids, return_index=True)
        return Durations(ids, self.milliseconds[where])

    @classmethod
    def first_of(cls, parts: Sequence[Durations]) -> Durations:
        """All parts as one, sorted by id, of each video the first."""
        ids = np.concatenate([part.video_ids for part in parts])
        return cls(ids, np.concatenate([part.milliseconds for part in parts])).unique()

    def of(self, video_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """The milliseconds of each of ``video_ids``, NaN where unknown; self must be sorted."""
        if not len(self.video_ids):
            return np.full(len(video_ids), np.nan)
        place = np.searchsorted(self.video_ids, video_ids)
        place = np.minimum(place, len(self.video_ids) - 1)
        found = self.video_ids[place] == video_ids
        return np.where(found, self.milliseconds[place], np.nan)


def read_videos(path: Path) -> pa.Table:
    """The video files as one table: one row per video, checked."""
    return pa.Table.from_batches(
        [
            batch
            for file in find_files(path, "video_features_basic_*.csv", "KuaiRand's video features")
            for batch in Delimited(file, _VIDEO_COLUMNS).batches()
        ],
        schema=pa.schema(list(_VIDEO_COLUMNS.items())),
    ).filter(pc.field("video_id").is_valid())


def _user_files(path: Path) -> list[Delimited]:
    return [
        Delimited(file, _USER_COLUMNS)
        for file in find_files(path, "user_features_*.csv", "KuaiRand's user features")
    ]


def check_users(path: Path) -> None:
    """Read the user files once; SourceError for what is missing or wrong."""
    for file in _user_files(path):
        for _ in file.batches():
            pass


def users(path: Path, begin: str) -> Iterator[pa.RecordBatch]:
    """One row per user_id, known from hour ``begin``. The one-hot features are small integer codes
    and pass through as numbers: trees split on them either way."""
    for file in _user_files(path):
        for rows in file.batches():
            rows = rows.filter(rows["user_id"].is_valid())
            numeric = attribute_map({name: rows[name] for name in _USER_NUMERIC}, pa.float64())
            categorical = attribute_map({"activity": rows["user_active_degree"]}, pa.string())
            yield _entity(USERS, begin, [rows["user_id"].cast(pa.string())], numeric, categorical)


def items(videos: pa.Table, begin: str, logged: Durations) -> Iterator[pa.RecordBatch]:
    """One row per video. ``duration_s`` is the video file's, else the log's for that video."""
    own = videos["video_duration"].to_numpy()
    duration = np.where(np.isnan(own), logged.of(videos["video_id"].to_numpy()), own) / 1000.0
    numeric = attribute_map(
        {
            "duration_s": pa.array(duration),
            "server_width": videos["server_width"],
            "server_height": videos["server_height"],
            "published_at": videos["upload_dt"].cast(pa.int32()),  # days since the epoch
        },
        pa.float64(),
    )
    music = videos["music_type"].cast(pa.int64()).cast(pa.string())
    categorical = attribute_map(
        {
            "video_type": videos["video_type"],
            "upload_type": videos["upload_type"],
            "music_type": music,
        },
        pa.string(),
    )
    keys = [
        videos["video_id"].cast(pa.string()),
        _first_tags(videos),
        videos["author_id"].cast(pa.string()),
    ]
    yield _entity(ITEMS, begin, keys, numeric, categorical)


def rooms(videos: pa.Table, begin: str) -> Iterator[pa.RecordBatch]:
    """One row per author; its category is the most common of its videos, of equals the first."""
    tagged = pa.table({"author": videos["author_id"], "category": _first_tags(videos)})
    tagged = tagged.filter(pc.field("author").is_valid())
    sizes = tagged.group_by(["author", "category"]).aggregate([([], "count_all")])
    ordered = sizes.sort_by(
        [("author", "ascending"), ("count_all", "descending"), ("category", "ascending")]
    )
    _, first_rows = np.unique(ordered["author"].to_numpy(), return_index=True)
    best = ordered.take(pa.array(first_rows))
    author = best["author"].cast(pa.string())
    videos_of = sizes.group_by("author").aggregate([("count_all", "sum")]).sort_by("author")
    numeric = attribute_map({"videos": videos_of["count_all_sum"]}, pa.float64())
    none = pa.array([{}] * best.num_rows, pa.map_(pa.string(), pa.string()))
    yield _entity(ROOMS, begin, [author, author, best["category"]], numeric, none)


def _first_tags(videos: pa.Table) -> pa.ChunkedArray:
    """``20,43`` is the category ``20``."""
    return pc.replace_substring_regex(videos["tag"], r",.*$", "")


def _entity(
    schema: pa.Schema, begin: str, keys: list[pa.Array], numeric: pa.Array, categorical: pa.Array
) -> pa.RecordBatch:
    """Rows of an entity table: its key and other columns as listed, known from hour ``begin``."""
    count = len(numeric)
    since = pa.repeat(pa.scalar(micros_of(begin), pa.int64()), count).cast(TIMESTAMP)
    flat = [k.combine_chunks() if isinstance(k, pa.ChunkedArray) else k for k in keys]
    arrays = [flat[0], since, *flat[1:], numeric, categorical, pa.repeat(begin, count)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
