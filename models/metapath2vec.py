"""metapath2vec (Dong et al., KDD 2017): vectors of a graph's nodes, day after day in one space.

A day starts from the vectors of the day before: nodes that are new start at the mean of their
neighbours, and what comes out is turned back onto yesterday's axes. When a day has drifted too far
for that, its vectors get a new ``embedding_version``, so that nobody mixes two spaces.

Shapes: N nodes, D dimensions.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from models.base import (
    CONFIG_FILE,
    SPEC_FILE,
    ConfigError,
    Model,
    ModelError,
    OutputColumn,
    Progress,
    read_json,
    silent,
    write_json,
)
from models.features import FeatureSpec, SparseColumn
from models.graph.alignment import Drift, drift, rotation, unit
from models.graph.heterograph import HeteroGraph
from models.graph.kernels import mean_of_known
from models.graph.metapaths import Metapath, MetapathError
from models.graph.neighbours import NeighbourIndex
from models.graph.report import EmbeddingReport
from models.graph.skipgram import SkipGramConfig, embed, fresh_vectors

__all__ = ["Metapath2Vec", "Metapath2VecConfig", "Neighbours"]

Vectors = npt.NDArray[np.float32]
_TABLE_FILE: Final = "embeddings.parquet"
_ANY: Final = 2**31 - 1
_SPEC: Final = FeatureSpec(
    sparse=(
        SparseColumn("node_type", _ANY, kind="vocabulary"),
        SparseColumn("node_id", _ANY, kind="vocabulary"),
    )
)


@dataclass(frozen=True)
class Metapath2VecConfig:
    """What is walked, how vectors are trained, and when days share a space.

    Attributes:
        metapaths: node types between dashes.
        skip_gram: walks and training; ``typed_negatives`` makes it metapath2vec++.
        keep_days: a node that is not in the graph any more keeps its vector for so many days.
        same_space: mean cosine to yesterday's vectors below which the space is a new one.
    """

    metapaths: tuple[str, ...] = ("user-item-user",)
    skip_gram: SkipGramConfig = field(default_factory=SkipGramConfig)
    keep_days: int = 7
    same_space: float = 0.5

    def __post_init__(self) -> None:
        if not self.metapaths or isinstance(self.metapaths, str):
            raise ConfigError(f"metapaths is {self.metapaths!r}; list at least one")
        if self.keep_days < 0:
            raise ConfigError(f"keep_days is {self.keep_days}; it must not be negative")
        if not -1 <= self.same_space <= 1:
            raise ConfigError(f"same_space is {self.same_space}; a cosine lies in [-1, 1]")
        self.paths()

    def paths(self) -> tuple[Metapath, ...]:
        """The metapaths, parsed; MetapathError for one that is none."""
        return tuple(Metapath.parse(text) for text in self.metapaths)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From plain values, those of ``skip_gram`` in a mapping of their own.

        Raises:
            ConfigError: for an unknown key, or a value that cannot be.
        """
        given = dict(values)
        inner = given.pop("skip_gram", {})
        if not isinstance(inner, Mapping):
            raise ConfigError(f"skip_gram must be a mapping, got {inner!r}")
        try:
            paths = tuple(given.pop("metapaths", cls.metapaths))
            return cls(metapaths=paths, skip_gram=SkipGramConfig(**inner), **given)
        except TypeError as error:
            raise ConfigError(f"configuration of metapath2vec: {error}") from error


@dataclass(frozen=True)
class Neighbours:
    """The nodes nearest to one, best first, with their cosines."""

    ids: tuple[str, ...]
    cosines: tuple[float, ...]


class Metapath2Vec(Model):
    """Vectors of a day's nodes."""

    family: ClassVar[str] = "metapath2vec"
    packages: ClassVar[tuple[str, ...]] = ("numba", "faiss-cpu")
    kind: ClassVar[str] = "embedding"
    options: ClassVar[Mapping[str, str | int | bool]] = MappingProxyType(
        {"k": 10, "of_type": "", "exact": False}
    )

    def __init__(self, config: Metapath2VecConfig) -> None:
        self.config = config
        self.spec = _SPEC
        self.day = ""
        self.embedding_version = ""
        self._nodes = pa.table({}, schema=pa.schema([]))
        self._inner = self._outer = np.zeros((0, config.skip_gram.dimensions), dtype=np.float32)
        self._indexes: dict[tuple[str, bool], tuple[npt.NDArray[np.int64], NeighbourIndex]] = {}

    @classmethod
    def build(cls, config: Mapping[str, Any]) -> Self:
        """An unfitted model of plain configuration values; ConfigError for what cannot be."""
        return cls(Metapath2VecConfig.from_dict(config))

    # Fitting -----------------------------------------------------------------------------------

    def fit_edges(
        self, edges: pa.Table, day: str, earlier: Metapath2Vec | None = None,
        progress: Progress = silent,
    ) -> EmbeddingReport:  # fmt: skip
        """Vectors of the nodes of ``edges``, the graph of ``day`` (2026-11-11).

        Args:
            edges: source_type, source_id, target_type, target_id and weight of undirected edges.
                A metapath that they hold nothing for on this day is left out.
            earlier: the model of a day before, to go on from.

        Raises:
            GraphError: for edges that make no graph.
            MetapathError: when they can be walked by none of the metapaths.
            ConfigError: when ``earlier`` has vectors of another width.
        """
        began = time.monotonic()
        graph = HeteroGraph(edges)
        progress(f"{graph.size:,} nodes, {sum(graph.edges.values()):,} edges")
        paths = self._walkable(graph, progress)
        table = graph.table()
        start, known = self._start(graph, table, earlier)
        trained = embed(graph, paths, self.config.skip_gram, start, progress)
        walked = trained.visits > 0  # what no walk meets has learned nothing
        self.day, self.embedding_version = day, day
        nodes = table.append_column("last_seen", pa.array([day] * len(table)))
        self._nodes = nodes.append_column("visits", pa.array(trained.visits)).filter(
            pa.array(walked)
        )
        self._inner, self._outer = trained.inner[walked], trained.outer[walked]
        moved, kept, aged = None, 0, 0
        if earlier is not None:
            moved = self._align(earlier, known[walked])
            kept, aged = self._keep(earlier)
        self._indexes = {}
        return EmbeddingReport(
            {kind: len(graph.nodes(kind)) for kind in graph.types},
            {"-".join(kind): count for kind, count in graph.edges.items()},
            int((known < 0).sum()), kept, aged, moved, trained, time.monotonic() - began,
        )  # fmt: skip

    def _walkable(self, graph: HeteroGraph, progress: Progress) -> list[Metapath]:
        """The metapaths that a day's graph has edges for; MetapathError when there is none."""
        found, missing = [], []
        for path in self.config.paths():
            try:
                path.check(graph.types, graph.edges)
            except MetapathError as error:
                missing.append(error)
                progress(f"left out: {error}")
            else:
                found.append(path)
        if not found:
            raise missing[0]
        return found

    def _start(
        self, graph: HeteroGraph, table: pa.Table, earlier: Metapath2Vec | None
    ) -> tuple[tuple[Vectors, Vectors] | None, npt.NDArray[np.int64]]:
        """Vectors to start from, and (N,) each node's place in ``earlier``, -1 of a new one."""
        if earlier is None:
            return None, np.full(graph.size, -1)
        if earlier._inner.shape[1] != self.config.skip_gram.dimensions:
            raise ConfigError(
                f"the vectors of {earlier.day} have {earlier._inner.shape[1]} dimensions, "
                f"skip_gram.dimensions is {self.config.skip_gram.dimensions}; start from scratch"
            )
        known = earlier.places(table)
        there = known >= 0
        found = []
        for fresh, before in zip(fresh_vectors(graph.size, self.config.skip_gram),
                                 (earlier._inner, earlier._outer), strict=True):  # fmt: skip
            fresh[there] = before[known[there]]
            total, weight = np.zeros_like(fresh), np.zeros(graph.size)
            for near in graph.adjacencies().values():
                mean_of_known(near.first, near.starts, near.nodes, near.weights, there, fresh,
                              total, weight)  # fmt: skip
            mean = ~there & (weight > 0)
            fresh[mean] = total[mean] / weight[mean, None]
            found.append(fresh)
        return (found[0], found[1]), known

    def _align(self, earlier: Metapath2Vec, known: npt.NDArray[np.int64]) -> Drift:
        """Turn the vectors onto those of ``earlier``; the same space when they fit."""
        there = known >= 0
        before = earlier._inner[known[there]]
        if there.any():
            turn = rotation(self._inner[there], before).astype(np.float32)
            self._inner, self._outer = self._inner @ turn, self._outer @ turn
        found = drift(self._inner[there], before, self.config.skip_gram.seed)
        if found.nodes and found.cosine >= self.config.same_space:
            self.embedding_version = earlier.embedding_version
        return found

    def _keep(self, earlier: Metapath2Vec) -> tuple[int, int]:
        """Take over vanished nodes that are young enough; how many are kept, how many aged out."""
        gone = self.places(earlier._nodes) < 0
        last = dt.date.fromisoformat(self.day) - dt.timedelta(days=self.config.keep_days)
        seen = pc.greater_equal(earlier._nodes["last_seen"], last.isoformat()).to_numpy()
        young = gone & seen & (self.embedding_version == earlier.embedding_version)
        self._nodes = pa.concat_tables([self._nodes, earlier._nodes.filter(pa.array(young))])
        self._inner = np.concatenate([self._inner, earlier._inner[young]])
        self._outer = np.concatenate([self._outer, earlier._outer[young]])
        return int(young.sum()), int((gone & ~young).sum())

    def forget(self, nodes: pa.Table) -> int:
        """Leave out the vectors of each ``node_type`` and ``node_id``; how many had one."""
        gone = self.places(nodes)
        kept = np.ones(len(self._nodes), dtype=bool)
        kept[gone[gone >= 0]] = False
        self._nodes = self._nodes.filter(pa.array(kept))
        self._inner, self._outer = self._inner[kept], self._outer[kept]
        self._indexes = {}
        return int((~kept).sum())

    # Use ---------------------------------------------------------------------------------------

    @property
    def nodes(self) -> pa.Table:
        """node_type, node_id, last_seen and visits of every node that has a vector."""
        return self._nodes

    @property
    def vectors(self) -> Vectors:
        """(N, D) the vectors, in the order of ``nodes``."""
        return self._inner

    def counts(self) -> dict[str, int]:
        """How many nodes of each type have a vector."""
        found = pc.value_counts(self._nodes["node_type"]).to_pylist()
        return {entry["values"]: entry["counts"] for entry in found}

    def places(self, nodes: pa.Table) -> npt.NDArray[np.int64]:
        """(rows,) where each ``node_type`` and ``node_id`` stands in ``nodes``; -1 for unknown."""
        found = np.full(nodes.num_rows, -1)
        for kind in pc.unique(nodes["node_type"]).to_pylist():
            mine = np.flatnonzero(pc.equal(self._nodes["node_type"], kind).to_numpy())
            asked = np.flatnonzero(pc.equal(nodes["node_type"], kind).to_numpy())
            if not len(mine):
                continue
            here = pc.index_in(
                nodes["node_id"].take(pa.array(asked)).cast(pa.string()),
                value_set=self._nodes["node_id"].take(pa.array(mine)).combine_chunks(),
            )
            place = pc.fill_null(here, -1).to_numpy()
            found[asked] = np.where(place >= 0, mine[place], -1)
        return found

    def lookup(self, nodes: pa.Table) -> pa.FixedSizeListArray:
        """The vector of each ``node_type`` and ``node_id``, null for a node without one."""
        place = self.places(nodes)
        flat = np.where((place >= 0)[:, None], self._inner[place], np.float32(0.0))
        width = self._inner.shape[1]
        return pa.FixedSizeListArray.from_arrays(
            pa.array(flat.ravel()), width, mask=pa.array(place < 0)
        )

    def neighbours(
        self, nodes: pa.Table, of_type: str | None = None, k: int = 10, exact: bool = False
    ) -> list[Neighbours | None]:
        """The ``k`` nodes of ``of_type``, else of its own type, nearest to each node; itself left
        out; None for a node without a vector.

        Raises:
            ModelError: when no node has the type.
        """
        place = self.places(nodes)
        wanted = [of_type or kind for kind in nodes["node_type"].to_pylist()]
        found: list[Neighbours | None] = [None] * nodes.num_rows
        for kind in dict.fromkeys(wanted):
            rows = [row for row, name in enumerate(wanted) if name == kind and place[row] >= 0]
            if not rows:
                continue
            own, index = self._index(kind, exact)
            asked = unit(self._inner[place[rows]])
            near, cosines = index.search(asked, min(k + 1, len(own)))
            for row, line, values in zip(rows, near, cosines, strict=True):
                there = [(own[n], c) for n, c in zip(line, values, strict=True)
                         if n >= 0 and own[n] != place[row]][:k]  # fmt: skip
                ids = self._nodes["node_id"].take(pa.array([n for n, _ in there], pa.int64()))
                found[row] = Neighbours(tuple(ids.to_pylist()), tuple(float(c) for _, c in there))
        return found

    def _index(self, kind: str, exact: bool) -> tuple[npt.NDArray[np.int64], NeighbourIndex]:
        if (kind, exact) not in self._indexes:
            own = np.flatnonzero(pc.equal(self._nodes["node_type"], kind).to_numpy())
            if not len(own):
                raise ModelError(
                    f"no node has the type {kind!r}; there are {', '.join(self.counts())}"
                )
            self._indexes[kind, exact] = own, NeighbourIndex(unit(self._inner[own]), exact)
        return self._indexes[kind, exact]

    # Keeping -----------------------------------------------------------------------------------

    def config_dict(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        return {**asdict(self.config), "metapaths": list(self.config.metapaths)}

    def returns(self) -> tuple[OutputColumn, ...]:
        """The vector, and the nearest nodes of the same type."""
        return (
            OutputColumn("vector", "float", True), OutputColumn("neighbours", "string", True),
        )  # fmt: skip

    def probe(self, table: pa.Table) -> npt.NDArray[np.float64]:
        """The length of each node's vector; NaN for a node without one."""
        place = self.places(table)
        lengths = np.linalg.norm(self._inner.astype(np.float64)[place], axis=1)
        return np.where(place >= 0, lengths, np.nan)

    def table(self) -> pa.Table:
        """One row a node: node_type, node_id, last_seen, visits, ``vector`` and ``context``."""
        found = self._nodes
        for name, vectors in (("vector", self._inner), ("context", self._outer)):
            flat = pa.array(np.ascontiguousarray(vectors).ravel())
            lists = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
            found = found.append_column(name, lists)
        return found

    def save(self, folder: Path) -> None:
        """Write vectors, configuration and FeatureSpec below ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(self.table(), folder / _TABLE_FILE, compression="zstd")
        (folder / SPEC_FILE).write_text(self.spec.to_json(), encoding="utf-8")
        write_json(folder / CONFIG_FILE, {
            "family": self.family, "config": self.config_dict(), "day": self.day,
            "embedding_version": self.embedding_version, "counts": self.counts(),
        })  # fmt: skip

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The inverse of :meth:`save`.

        Raises:
            ModelError: for a file that is missing or holds something else.
        """
        body = read_json(folder / CONFIG_FILE)
        model = cls.build(body["config"])
        try:
            table = pq.read_table(folder / _TABLE_FILE)
        except (OSError, pa.ArrowInvalid) as error:
            raise ModelError(
                f"{folder / _TABLE_FILE}: {error}; register the model again"
            ) from error
        model.day, model.embedding_version = body["day"], body["embedding_version"]
        model._nodes = table.drop_columns(["vector", "context"])
        model._inner, model._outer = (_matrix(table[name]) for name in ("vector", "context"))
        return model


def _matrix(lists: pa.ChunkedArray) -> Vectors:
    whole = lists.combine_chunks()
    width = whole.type.list_size
    return np.asarray(whole.flatten().to_numpy().reshape(-1, width).copy(), dtype=np.float32)
