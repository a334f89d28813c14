"""What the tests of the simulator share: small marketplaces and plain arrays."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa

from feature_store.sources.simulator import (
    MarketConfig,
)

HOURS = 48
CLEAN = {
    "duplicate_share": 0.0, "too_late_share": 0.0, "future_share": 0.0, "malformed_share": 0.0,
    "bot_share": 0.0,
}  # fmt: skip
SMALL = MarketConfig(requests_per_hour=40, users=200, items=200, rooms=60, categories=6)
HOUR_MICROS = 3_600_000_000


def quiet(_hour, _rows):
    pass


def files(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def micros(column):
    return np.asarray(column.cast(pa.int64()).to_numpy())


def numbers(column):
    return np.array([int(text[1:]) for text in column.to_pylist()])
