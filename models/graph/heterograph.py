"""A heterogeneous graph in memory: nodes numbered type by type, neighbours by edge type.

Shapes: N nodes, E directed edges (each undirected edge twice).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.errors import ModelError
from models.graph.kernels import alias_tables
from models.graph.metapaths import EdgeType

__all__ = ["EDGE_COLUMNS", "Adjacency", "GraphError", "HeteroGraph"]

EDGE_COLUMNS: Final = ("source_type", "source_id", "target_type", "target_id", "weight")
_MOST: Final = 2**31 - 1


class GraphError(ModelError):
    """Edges that make no graph."""


@dataclass(frozen=True)
class Adjacency:
    """The neighbours of one type that nodes of another type have.

    Attributes:
        first: number of the first node of the type that edges leave.
        starts: (nodes of that type + 1,) where each one's neighbours begin.
        nodes: (E,) neighbours; ``weights`` (E,) positive.
    """

    first: int
    starts: npt.NDArray[np.int64]
    nodes: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float64]

    def choices(self) -> npt.NDArray[np.uint32]:
        """(E, 3) tables to draw neighbours from; see :mod:`models.graph.kernels`."""
        return alias_tables(self.starts, self.nodes, self.weights)


class HeteroGraph:
    """Typed nodes and undirected weighted typed edges.

    Attributes:
        ids: by node type the identifiers, sorted; nodes are numbered in this order, type after
            type.
        edges: by edge type, ends in alphabetical order, how many edges there are.
    """

    def __init__(self, table: pa.Table) -> None:
        """Build the graph of an edge table (:data:`EDGE_COLUMNS`); equal edges add up.

        Raises:
            GraphError: for a missing column, a null, a weight that is not positive and finite, no
                edge at all, or more nodes than can be numbered.
        """
        table = _checked(table)
        self.ids: dict[str, pa.Array] = {}
        self._first: dict[str, int] = {}
        ends = [(table[f"{end}_type"], table[f"{end}_id"]) for end in ("source", "target")]
        count = 0
        for kind in sorted(
            {*pc.unique(ends[0][0]).to_pylist(), *pc.unique(ends[1][0]).to_pylist()}
        ):
            found = [ids.filter(pc.equal(types, kind)) for types, ids in ends]
            unique = pc.unique(pa.chunked_array([c for part in found for c in part.chunks]))
            self.ids[kind] = unique.take(pc.sort_indices(unique))
            self._first[kind] = count
            count += len(unique)
        if count > _MOST:
            raise GraphError(f"{count:,} nodes are more than {_MOST:,}; split the graph")
        self.size = count
        self.edges: dict[EdgeType, int] = {}
        self._adjacent: dict[EdgeType, Adjacency] = {}
        for kind, part in _by_type(table):
            self._add(kind, part)

    def _add(self, kind: EdgeType, part: pa.Table) -> None:
        source, target = kind
        ends = [
            pc.index_in(part[f"{end}_id"], value_set=self.ids[of]).to_numpy() + self._first[of]
            for end, of in (("source", source), ("target", target))
        ]
        weights = part["weight"].to_numpy().astype(np.float64)
        left, right = (end.astype(np.int64) for end in ends)
        if source == target:
            left, right = np.minimum(left, right), np.maximum(left, right)
        left, right, weights = _summed(left, right, weights)
        self.edges[source, target] = len(left)
        if source == target:
            other = left != right  # a loop is one neighbour, not two
            left, right, weights = (
                np.concatenate([left, right[other]]),
                np.concatenate([right, left[other]]),
                np.concatenate([weights, weights[other]]),
            )
        else:
            self._adjacent[target, source] = self._adjacency(target, right, left, weights)
        self._adjacent[source, target] = self._adjacency(source, left, right, weights)

    def _adjacency(
        self,
        kind: str,
        left: npt.NDArray[np.int64],
        right: npt.NDArray[np.int64],
        weights: npt.NDArray[np.float64],
    ) -> Adjacency:
        first = self._first[kind]
        order = np.lexsort((right, left))
        degrees = np.bincount(left - first, minlength=len(self.ids[kind]))
        starts = np.concatenate([[0], np.cumsum(degrees)]).astype(np.int64)
        return Adjacency(first, starts, right[order].astype(np.int32), weights[order])

    @property
    def types(self) -> tuple[str, ...]:
        """The node types, in the order in which their nodes are numbered."""
        return tuple(self.ids)

    def nodes(self, kind: str) -> range:
        """The numbers of the nodes of a type."""
        return range(self._first[kind], self._first[kind] + len(self.ids[kind]))

    def kinds(self) -> npt.NDArray[np.uint8]:
        """(N,) the place in ``types`` of every node's type."""
        sizes = [len(ids) for ids in self.ids.values()]
        return np.repeat(np.arange(len(sizes), dtype=np.uint8), sizes)

    def neighbours(self, step: EdgeType) -> Adjacency:
        """The neighbours of the second type that nodes of the first one have."""
        return self._adjacent[step]

    def adjacencies(self) -> Mapping[EdgeType, Adjacency]:
        """Every direction of every edge type."""
        return self._adjacent

    def table(self) -> pa.Table:
        """``node_type`` and ``node_id`` of every node, in the order of their numbers."""
        kinds = pa.DictionaryArray.from_arrays(self.kinds(), pa.array(self.types)).cast(pa.string())
        chunks = [ids.cast(pa.string()) for ids in self.ids.values()]
        return pa.table({"node_type": kinds, "node_id": pa.chunked_array(chunks)})


def _checked(table: pa.Table) -> pa.Table:
    missing = [name for name in EDGE_COLUMNS if name not in table.schema.names]
    if missing:
        raise GraphError(f"the edges lack the columns {', '.join(missing)}")
    if not table.num_rows:
        raise GraphError("there are no edges; build the graph of a day with events")
    for name in EDGE_COLUMNS:
        if table[name].null_count:
            raise GraphError(f"{table[name].null_count:,} edges have no {name}")
    weights = table["weight"].to_numpy()
    wrong = ~(np.isfinite(weights) & (weights > 0))
    if wrong.any():
        first = weights[wrong][:3].tolist()
        raise GraphError(f"{wrong.sum():,} weights are not positive and finite, e.g. {first}")
    texts = [
        pc.cast(table[name], pa.large_string()) if name.endswith("_id") else
        pc.cast(table[name], pa.string())
        for name in EDGE_COLUMNS[:-1]
    ]  # fmt: skip
    return pa.table([*texts, table["weight"]], names=EDGE_COLUMNS)


def _by_type(table: pa.Table) -> Iterator[tuple[EdgeType, pa.Table]]:
    """The edges of each type, whichever end was written first."""
    pairs = table.group_by(["source_type", "target_type"]).aggregate([]).to_pylist()
    found: dict[EdgeType, list[pa.Table]] = {}
    for pair in sorted(pairs, key=lambda p: (p["source_type"], p["target_type"])):
        source, target = pair["source_type"], pair["target_type"]
        mine = pc.and_(
            pc.equal(table["source_type"], source), pc.equal(table["target_type"], target)
        )
        part = table.filter(mine).select(["source_id", "target_id", "weight"])
        if source > target:
            part = part.rename_columns(["target_id", "source_id", "weight"])
            source, target = target, source
        found.setdefault((source, target), []).append(
            part.select(["source_id", "target_id", "weight"])
        )
    for kind, parts in sorted(found.items()):
        yield kind, pa.concat_tables(parts)


def _summed(
    left: npt.NDArray[np.int64], right: npt.NDArray[np.int64], weights: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Edges in order, each pair of ends once, its weights added up."""
    order = np.lexsort((right, left))
    left, right, weights = left[order], right[order], weights[order]
    fresh = np.ones(len(left), dtype=bool)
    fresh[1:] = (left[1:] != left[:-1]) | (right[1:] != right[:-1])
    begin = np.flatnonzero(fresh)
    return left[begin], right[begin], np.add.reduceat(weights, begin)


def joined_tables(
    steps: Sequence[Adjacency],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
    """Tables of several adjacencies one after another: first row of each, starts, choices."""
    rows, starts, choices, edges, count = [], [], [], 0, 0
    for adjacency in steps:
        rows.append(count)
        # The last start of one is the end of its last row, so it is kept and never a row itself.
        starts.append(adjacency.starts + edges)
        choices.append(adjacency.choices())
        edges += len(adjacency.nodes)
        count += len(adjacency.starts)
    return np.array(rows, dtype=np.int64), np.concatenate(starts), np.concatenate(choices)
