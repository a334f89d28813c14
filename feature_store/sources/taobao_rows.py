"""Rows of UserBehavior: their columns, and the checks of behaviours, times and keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.sources.base import SourceError

__all__ = [
    "BEGIN",
    "BEHAVIORS",
    "COLUMNS",
    "END",
    "MAY_BE_EMPTY",
    "UnknownBehaviors",
    "distinct_views",
    "nothing_inside",
    "seconds_of",
    "whole",
]

COLUMNS: Final[Mapping[str, pa.DataType]] = {
    "user_id": pa.int64(),
    "item_id": pa.int64(),
    "category_id": pa.int64(),
    "behavior_type": pa.string(),
    "timestamp": pa.int64(),
}
# A key that is empty in a few rows is the ingest's to quarantine; what happened may not be empty.
MAY_BE_EMPTY: Final = ("user_id", "item_id", "category_id", "timestamp")

BEHAVIORS: Final[Mapping[str, str]] = {
    "pv": "click",
    "cart": "cart",
    "fav": "favor",
    "buy": "order",
}

BEGIN: Final = 1_511_539_200  # 2017-11-25T00:00+08:00
"""The first second of the published range."""
END: Final = BEGIN + 9 * 86_400
"""The first second after the published range."""

Ints = npt.NDArray[np.int64]


class UnknownBehaviors:
    """Counts the behaviours of a file that do not exist."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        self.found: Counter[str] = Counter()

    def see(self, behaviors: pa.Array) -> None:
        self.rows += len(behaviors)
        wrong = behaviors.filter(pc.invert(pc.is_in(behaviors, pa.array(list(BEHAVIORS)))))
        if len(wrong):
            entries = pc.value_counts(wrong).to_pylist()
            self.found.update({entry["values"]: entry["counts"] for entry in entries})

    def refuse(self) -> None:
        if self.found:
            first = ", ".join(map(repr, list(self.found)[:3]))
            raise SourceError(
                f"{self.path}: column 'behavior_type' holds an unknown behaviour in "
                f"{self.found.total()} of {self.rows} rows; first values {first}; the known ones "
                f"are {', '.join(BEHAVIORS)}; correct or remove these rows"
            )


def nothing_inside(path: Path, outside: Ints) -> SourceError:
    """What to say of a file without a row in the nine days; ``outside`` counts those before them,
    those after them and those without a time."""
    return SourceError(
        f"{path}: column 'timestamp' of its {outside.sum()} rows never lies in "
        f"the published nine days ({outside[0]} rows are earlier than {BEGIN}, "
        f"{outside[1]} not earlier than {END}, {outside[2]} empty); it counts seconds "
        "since 1970 from 2017-11-25 to 2017-12-03 in UTC+8; use the published file"
    )


def seconds_of(batch: pa.RecordBatch) -> Ints:
    """The timestamps, and a time before the range where there is none."""
    seconds: Ints = pc.fill_null(batch["timestamp"], -1).to_numpy()
    return seconds


def whole(rows: pa.RecordBatch) -> pa.RecordBatch:
    """The rows of the nine days whose keys are all there."""
    keys = ("user_id", "item_id", "timestamp")
    seconds = seconds_of(rows)
    there = pa.array((seconds >= BEGIN) & (seconds < END))
    for key in keys:
        there = pc.and_(there, rows[key].is_valid())
    return rows.filter(there)


def distinct_views(rows: pa.RecordBatch) -> pa.RecordBatch:
    """The `pv` rows of the nine days with all keys, each once, by time, user, item, category: an
    order that does not depend on the file's."""
    rows = whole(rows)
    rows = rows.filter(pc.equal(rows["behavior_type"], list(BEHAVIORS).index("pv")))
    category = pc.fill_null(rows["category_id"], -1).to_numpy()
    keys = [rows[name].to_numpy() for name in ("item_id", "user_id", "timestamp")]
    order = np.lexsort((category, *keys))
    table = np.stack([category, *keys])[:, order]
    new = np.ones(len(order), bool)
    new[1:] = (table[:, 1:] != table[:, :-1]).any(axis=0)
    return rows.take(pa.array(order[new]))
