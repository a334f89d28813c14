"""What all candidates of benchmarks/graph.py share: task, graph, quality, and the result's line.

Runs in the peers' environment as well as in the project's; imports neither.
"""

from __future__ import annotations

import json
import resource
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


def task_of(path: str) -> dict[str, Any]:
    return json.loads(Path(path).read_text())


def edges_of(task: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """(E,) the users and the items of the edges, numbered from 0."""
    edges = np.load(Path(task["folder"]) / "edges.npy")
    return edges[0], edges[1]


@dataclass
class Watch:
    """A clock that stands still while quality is looked at.

    Attributes:
        passes: by pass over the walks: seconds so far, tokens so far, Macro-F1.
    """

    task: dict[str, Any]
    began: float = field(default_factory=time.perf_counter)
    away: float = 0.0
    tokens: int = 0
    passes: list[tuple[float, int, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.classes = np.load(Path(self.task["folder"]) / "classes.npy")

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.began - self.away

    def look(self, users: np.ndarray) -> bool:
        """Note the quality of (users, D) vectors; whether there is no time for another pass."""
        before = self.seconds
        begun = time.perf_counter()
        self.passes.append((before, self.tokens, macro_f1(users, self.classes)))
        self.away += time.perf_counter() - begun
        return before > self.task["limit_s"]

    def report(self, version: str) -> None:
        """Print the line that graph.py reads."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"passes": self.passes, "peak_mb": peak, "version": version}))


def macro_f1(vectors: np.ndarray, classes: np.ndarray) -> float:
    """Of classes told by the nearest mean of half of the nodes, on the other half."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    half = np.arange(len(unit)) % 2 == 0
    every = np.unique(classes)
    means = np.stack([unit[half & (classes == kind)].mean(0) for kind in every])
    told = every[np.argmax(unit[~half] @ means.T, axis=1)]
    true = classes[~half]
    scores = []
    for kind in every:
        hits = ((told == kind) & (true == kind)).sum()
        scores.append(2 * hits / max((told == kind).sum() + (true == kind).sum(), 1))
    return float(np.mean(scores))
