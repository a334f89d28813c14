"""A market whose truth is known, for the deep models: tastes for kinds of items, positions that are
looked at less and less, and users whose history says what they like."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models import FeatureSpec, SparseColumn
from models.base import SequenceColumn

KINDS: Final = 6
POSITIONS: Final = 8
CURVE: Final = -0.3 * np.arange(POSITIONS)
"""What a position adds to the logit of a click, from the first to the last."""

SPEC: Final = FeatureSpec(
    dense=("x", "amount"),
    sparse=(
        SparseColumn("user_id", 2048),
        SparseColumn("item_id", 512, kind="vocabulary"),
        SparseColumn("kind", 16),
    ),
    sequences=(
        SequenceColumn("seen_kind", 16, 10, table="kind"),
        SequenceColumn("seen_gap", 16, 10, kind="log"),
    ),
    labels=("label_click", "label_stay"),
    training_only=(SparseColumn("position", 16, kind="integer"),),
)
TASKS: Final = {"stay": {"kind": "log_value", "weight": 0.3, "score": 0.2}, "click": {}}
"""Not in alphabetical order: the outputs' order must not depend on how JSON is written."""
LOOP: Final = {"epochs": 4, "batch_size": 256, "learning_rate": 0.005, "window": 2048}
FAMILIES: Final[Mapping[str, Mapping[str, Any]]] = {
    "wide_deep": {"layers": [32, 16], "crosses": [["kind", "user_id"]], "cross_buckets": 512},
    "shared_bottom": {"bottom_layers": [32], "tower_layers": [8]},
    "mmoe": {"experts": 3, "expert_layers": [32, 16], "gate_units": 8, "tower_layers": [8]},
    "dual_attention": {
        "interests": [{"sequence": ["seen_kind", "seen_gap"], "target": ["kind"]}],
        "layers": [32],
    },
    "live_transformer": {
        "tokens": [["seen_kind", "seen_gap"]],
        "target": ["kind"],
        "layers": [32],
        "hidden": 16,
    },
}


def config(family: str, **more: Any) -> dict[str, Any]:
    """A small configuration of ``family`` for this market."""
    return {"tasks": TASKS, "embedding": 8, **LOOP, **FAMILIES[family], **more}


_WORTH: Final = np.array([-1.5, -0.9, -0.3, 0.3, 0.9, 1.5])


def market(rows: int, seed: int, immature: float = 0.1) -> pa.Table:
    """Impressions; ``truth`` is the probability of a click at the first position.

    Kinds differ in worth, and a user likes one, which most of what they saw is of.
    Shares of both labels are null.
    """
    draw = np.random.default_rng(seed)
    users, items = 200, 300
    liked = np.random.default_rng(0).integers(0, KINDS, users)
    user, item = draw.integers(0, users, rows), draw.integers(0, items, rows)
    kind = item % KINDS
    x = draw.normal(size=rows)
    position = draw.integers(0, POSITIONS, rows)
    logit = x + _WORTH[kind] + 1.2 * (kind == liked[user]) + 0.3
    click = draw.random(rows) < _sigmoid(logit + CURVE[position])
    stay = np.where(click, np.expm1(np.abs(1.5 + 0.7 * x + 0.2 * draw.normal(size=rows))), 0.0)
    seen = [
        np.where(draw.random(n) < 0.7, liked[u], draw.integers(0, KINDS, n))
        for u, n in zip(user, draw.integers(0, 14, rows), strict=True)
    ]
    return pa.table(
        {
            "hour": [f"2026-11-11T{h:02}" for h in np.sort(draw.integers(0, 4, rows))],
            "group_id": [f"g{row // 8}" for row in range(rows)],
            "user_id": [f"u{u}" for u in user],
            "item_id": [f"i{i}" for i in item],
            "kind": [f"k{k}" for k in kind],
            "x": pa.array(x.astype(np.float32), mask=draw.random(rows) < 0.05),
            "amount": draw.lognormal(3, 2, rows).astype(np.float32),
            "position": pa.array((position + 1).astype(np.int32)),
            "seen_kind": pa.array([[f"k{k}" for k in ks] for ks in seen], pa.list_(pa.string())),
            "seen_gap": pa.array(
                [list(range(60 * len(ks), 0, -60)) for ks in seen], pa.list_(pa.int32())
            ),
            "truth": _sigmoid(logit),
            "label_click": _label(click, draw.random(rows) < immature),
            "label_stay": _label(stay, draw.random(rows) < immature),
        }
    )


def batches(table: pa.Table) -> Iterator[pa.RecordBatch]:
    """``table`` as a stream of uneven batches."""
    yield from table.to_batches(700)


def held(batch: pa.RecordBatch) -> npt.NDArray[np.bool_]:
    """One group in eight is kept for early stopping."""
    return np.array([hash_of(group) % 8 == 0 for group in batch.column("group_id").to_pylist()])


def hash_of(group: str) -> int:
    return int(group[1:]) * 2654435761 % 2**32 >> 8


def _label(values: npt.NDArray[Any], hidden: npt.NDArray[np.bool_]) -> pa.Array:
    return pa.array(values.astype(np.float32), mask=hidden)


def _sigmoid(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 1.0 / (1.0 + np.exp(-logits))
