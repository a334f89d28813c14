"""Nearest neighbours by cosine: an index for many nodes, exact for few or on request."""

from __future__ import annotations

import faiss
import numpy as np
import numpy.typing as npt

__all__ = ["NeighbourIndex", "nearest"]

Vectors = npt.NDArray[np.float32]
_EXACT_UP_TO = 20_000
_LINKS, _BUILD, _SEARCH = 32, 80, 128


class NeighbourIndex:
    """The nodes nearest to a vector, among (N, D) vectors of length 1.

    ``exact`` compares with all of them. Otherwise more than 20,000 are searched through a graph of
    neighbours (HNSW; Malkov and Yashunin, TPAMI 2020), which may miss one.
    """

    def __init__(self, vectors: Vectors, exact: bool = False) -> None:
        size, width = vectors.shape
        self.exact = exact or size <= _EXACT_UP_TO
        self._index = faiss.IndexFlatIP(width) if self.exact else _graph(width)
        self._index.add(np.ascontiguousarray(vectors, dtype=np.float32))

    def search(self, wanted: Vectors, k: int) -> tuple[npt.NDArray[np.int64], Vectors]:
        """(queries, k) places and cosines of the nearest, best first; -1 where there are fewer."""
        cosines, places = self._index.search(np.ascontiguousarray(wanted, dtype=np.float32), k)
        return places, cosines


def nearest(vectors: Vectors, probes: npt.NDArray[np.int64], k: int) -> npt.NDArray[np.int64]:
    """(probes, k) the nodes nearest to nodes ``probes`` of unit ``vectors`` but themselves."""
    places, _ = NeighbourIndex(vectors).search(vectors[probes], k + 1)
    others = places != probes[:, None]
    # A node is missing from its own list where others stand at the very same place.
    others[others.all(1), -1] = False
    return np.asarray(places[others].reshape(len(probes), k))


def _graph(width: int) -> faiss.IndexHNSWFlat:
    index = faiss.IndexHNSWFlat(width, _LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = _BUILD
    index.hnsw.efSearch = _SEARCH
    return index
