"""Graphs with a known answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from models.graph.heterograph import EDGE_COLUMNS


class Planted(NamedTuple):
    """Edges, and the class of every node by its identifier."""

    edges: pa.Table
    classes: dict[str, int]


def edge_table(edges: Iterable[tuple[str, str, str, str, float]]) -> pa.Table:
    return pa.table(dict(zip(EDGE_COLUMNS, map(list, zip(*edges, strict=True)), strict=True)))


def planted(
    classes: int, users: int, items: int, seed: int, degree: int = 8, inside: float = 0.8
) -> Planted:
    """Users and items of classes; an edge stays inside its class with chance ``inside``, else it
    goes anywhere."""
    rng = np.random.default_rng(seed)
    of_user, of_item = rng.integers(0, classes, users), rng.integers(0, classes, items)
    order = np.argsort(of_item, kind="stable")
    starts = np.searchsorted(of_item[order], np.arange(classes + 1))
    user = np.repeat(np.arange(users), degree)
    low, high = starts[of_user[user]], starts[of_user[user] + 1]
    near = order[low + (rng.random(len(user)) * (high - low)).astype(int)]
    item = np.where(rng.random(len(user)) < inside, near, rng.integers(0, items, len(user)))
    edges = pa.table(
        {
            "source_type": ["user"] * len(user),
            "source_id": [f"u{number}" for number in user],
            "target_type": ["item"] * len(user),
            "target_id": [f"i{number}" for number in item],
            "weight": np.ones(len(user)),
        }
    )
    known = {f"u{number}": int(kind) for number, kind in enumerate(of_user)}
    return Planted(edges, known | {f"i{number}": int(kind) for number, kind in enumerate(of_item)})


def macro_f1(vectors: np.ndarray, classes: np.ndarray) -> float:
    """Of classes told by the nearest mean of half of the nodes, on the other half."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    half = np.arange(len(unit)) % 2 == 0
    every = np.unique(classes)
    means = np.stack([unit[half & (classes == kind)].mean(0) for kind in every])
    told = every[np.argmax(unit[~half] @ means.T, axis=1)]
    true = classes[~half]
    hits = [(told == kind) & (true == kind) for kind in every]
    return float(np.mean([
        2 * hit.sum() / ((told == kind).sum() + (true == kind).sum())
        for hit, kind in zip(hits, every, strict=True)
    ]))  # fmt: skip
