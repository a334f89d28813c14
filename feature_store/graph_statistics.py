"""What a graph looks like in numbers: how many nodes and edges of a type, and their degrees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from feature_store.windows import Ints

__all__ = ["Degrees", "EdgeStatistics", "GraphStatistics"]


@dataclass(frozen=True, eq=False)
class Degrees:
    """How many nodes have how many edges.

    Attributes:
        degree: ascending, (D,); 0 for nodes that the cap left without an edge.
        nodes: how many have it, (D,).
    """

    degree: Ints
    nodes: Ints

    @classmethod
    def of(cls, counts: Mapping[int, int]) -> Self:
        """From numbers of nodes by degree."""
        found = sorted(counts.items())
        return cls(*np.array(found, np.int64).reshape(-1, 2).T)

    def _linked(self) -> tuple[Ints, Ints]:
        there = self.degree > 0
        return self.degree[there], self.nodes[there]

    @property
    def isolated(self) -> int:
        """Nodes that the cap left without an edge."""
        return int(self.nodes[self.degree == 0].sum())

    @property
    def count(self) -> int:
        """Nodes with an edge."""
        return int(self._linked()[1].sum())

    def quantile(self, share: float) -> int:
        """The smallest degree that at least ``share`` of the nodes with an edge do not exceed; 0
        where there are no such nodes."""
        degree, nodes = self._linked()
        if not len(degree):
            return 0
        below = np.cumsum(nodes)
        return int(degree[np.searchsorted(below, share * below[-1], side="left")])

    def at_least(self) -> tuple[Ints, npt.NDArray[np.float64]]:
        """Degrees, and the share of the nodes with an edge that have so many or more, (D,) each."""
        degree, nodes = self._linked()
        above = np.cumsum(nodes[::-1])[::-1]
        return degree, above / max(int(nodes.sum()), 1)


@dataclass(frozen=True, eq=False)
class EdgeStatistics:
    """Edges of one type.

    Attributes:
        edges: those that are kept.
        dropped: those that the degree cap left out.
        events: behind the kept ones, or rows that state them.
        source, target: degrees of the nodes at either end, in edges of this type alone.
    """

    edges: int
    dropped: int
    events: int
    source: Degrees
    target: Degrees


@dataclass(frozen=True)
class GraphStatistics:
    """By type of node its degrees, and by name of type of edge how many there are."""

    nodes: Mapping[str, Degrees]
    edges: Mapping[str, EdgeStatistics]

    @property
    def kept(self) -> int:
        """Edges of all types."""
        return sum(of.edges for of in self.edges.values())

    @property
    def dropped(self) -> int:
        """Edges of all types that the degree cap left out."""
        return sum(of.dropped for of in self.edges.values())

    def counts(self) -> dict[str, dict[str, Any]]:
        """Numbers by type, as a summary says them."""
        return {
            "nodes": {name: of.count for name, of in self.nodes.items()},
            "edges": {name: of.edges for name, of in self.edges.items()},
            "dropped": {name: of.dropped for name, of in self.edges.items() if of.dropped},
            "isolated": {name: of.isolated for name, of in self.nodes.items() if of.isolated},
        }
