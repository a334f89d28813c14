"""What all fits of benchmarks/deep.py share: the task, the encoded arrays, and the result's line.

Runs in the peers' environment as well as in the project's; imports neither.
"""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch


class Arrays(NamedTuple):
    """Encoded rows: dense (B, D), sparse (B, S), sequences (B, L), newest last and 0 in front,
    labels (B, T)."""

    dense: np.ndarray
    sparse: np.ndarray
    sequences: np.ndarray
    labels: np.ndarray


class Fit(NamedTuple):
    """One candidate's fit.

    Attributes:
        seconds: of the epochs, after ``startup`` seconds of a fit of one batch, which imports and
            compiles what is not there yet.
        scores: (B, T), of the held-out rows.
        peak_mb: before these were scored.
        encoding: seconds before the epochs; 0 for what begins with encoded rows.
    """

    seconds: float
    scores: np.ndarray
    version: str
    peak_mb: float
    startup: float
    encoding: float = 0.0


def task_of(path: str) -> dict[str, Any]:
    """The task with what meta.json says of the arrays."""
    task = json.loads(Path(path).read_text())
    meta = json.loads((Path(task["folder"]) / "meta.json").read_text())
    torch.manual_seed(task["seed"])
    return {**task, **meta}


def arrays_of(task: dict[str, Any], part: str) -> Arrays:
    folder = Path(task["folder"])
    return Arrays(*(np.load(folder / f"{part}_{name}.npy") for name in Arrays._fields))


def first(arrays: Arrays, rows: int) -> Arrays:
    return Arrays(*(array[:rows] for array in arrays))


def peak_mb() -> float:
    """The most memory that this process has held. Its parent is small: the number of a process
    begins with its parent's."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def report(fit: Fit, task: dict[str, Any]) -> None:
    """Print the line that deep.py reads."""
    labels = np.load(Path(task["folder"]) / "test_labels.npy")
    if fit.scores.shape != labels.shape or not np.isfinite(fit.scores).all():
        raise SystemExit(f"scores {fit.scores.shape} for labels {labels.shape}, or not finite")
    area = {
        name.removeprefix("label_"): auc(labels[:, place], fit.scores[:, place])
        for place, name in enumerate(task["labels"])
    }
    said = {"seconds": fit.seconds, "startup": fit.startup, "encoding": fit.encoding,
            "peak_mb": fit.peak_mb, "auc": area, "version": fit.version,
            "torch": torch.__version__}  # fmt: skip
    print(json.dumps(said))


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve; ties count one half."""
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]
    positive = labels > 0
    hits = positive.sum()
    pairs = hits * (len(labels) - hits)
    return float((rank[positive].sum() - hits * (hits + 1) / 2) / pairs)
