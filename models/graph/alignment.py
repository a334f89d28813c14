"""One space from day to day: rotation onto yesterday's vectors, and how far they have drifted.

Shapes: N nodes that both days know, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.graph.neighbours import nearest

__all__ = ["Drift", "drift", "rotation"]

Vectors = npt.NDArray[np.float32]
_PROBES = 1000


@dataclass(frozen=True)
class Drift:
    """How today's vectors relate to yesterday's, of the nodes that both know.

    Attributes:
        cosine: mean cosine of a node's two vectors.
        neighbours: share of the ten nearest nodes of yesterday that are among today's.
    """

    nodes: int
    cosine: float
    neighbours: float


def rotation(today: Vectors, before: Vectors) -> npt.NDArray[np.float64]:
    """(D, D) the orthogonal matrix R for which today @ R is nearest to ``before``.

    Of unit vectors, so that frequent nodes weigh no more than others (Schoenemann, A generalized
    solution of the orthogonal Procrustes problem, Psychometrika 1966).
    """
    left, _, right = np.linalg.svd(unit(today).T.astype(np.float64) @ unit(before))
    return np.asarray(left @ right, dtype=np.float64)


def unit(vectors: Vectors) -> Vectors:
    """``vectors`` of length 1; zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1.0), dtype=np.float32)


def drift(today: Vectors, before: Vectors, seed: int) -> Drift:
    """Of (N, D) vectors of the same nodes; neighbours of at most 1,000 of them, drawn."""
    size = len(today)
    if not size:
        return Drift(0, float("nan"), float("nan"))
    now, then = unit(today), unit(before)
    cosine = float((now * then).sum(1, dtype=np.float64).mean())
    probes = np.random.default_rng(seed).permutation(size)[:_PROBES]
    most = min(10, size - 1)
    if not most:
        return Drift(size, cosine, 1.0)
    found = [nearest(vectors, probes, most) for vectors in (now, then)]
    kept = [len(np.intersect1d(a, b)) / most for a, b in zip(*found, strict=True)]
    return Drift(size, cosine, float(np.mean(kept)))
