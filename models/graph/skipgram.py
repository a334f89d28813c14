"""Skip-gram with negative sampling over walks that are made while it runs.

metapath2vec (Dong et al., KDD 2017) learns from walks along metapaths with noise of any type;
metapath2vec++ (section 3.3) tells a context from noise of its own type. Walks live for one round
and never leave memory: what is held is the graph, the vectors, and a round's walks.

Nodes are dealt to ``parts``. In a round, blocks of pairs that share no vector are trained side by
side, one after another where they do (Ji et al., TPDS 2019; Zhu et al., GraphVite, WWW 2019). So
the vectors follow from the seed alone, however many cores there are.

Shapes: N nodes, D dimensions, W walks of length L a round.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from models.base import Progress, silent
from models.errors import ConfigError, TrainingRefused
from models.graph.heterograph import HeteroGraph, joined_tables
from models.graph.kernels import alias_tables, count_visits, train_block, walk
from models.graph.metapaths import Metapath, MetapathError

__all__ = ["Embedded", "SkipGramConfig", "Vectors", "Walker", "embed", "fresh_vectors"]

Vectors = npt.NDArray[np.float32]
_TELL_SECONDS = 10.0
_ROUNDS_AT_LEAST = 40  # the learning rate falls once a round
_STRETCH = 6
"""2 to this power nodes that follow one another belong to one part. Were they dealt one by one, a
core would fetch ahead into rows that another writes, and two cores be slower than one."""


@dataclass(frozen=True)
class SkipGramConfig:
    """How walks are made and vectors trained.

    Attributes:
        dimensions: of a vector.
        walks_per_node: walks that begin at every node of a metapath's first type, a pass.
        walk_length: nodes of a walk.
        window: of both sides, shrunk at random at every center.
        negatives: nodes that the contexts of a center are told from.
        noise_pool: nodes of a type that the centers of a walk draw them from.
        typed_negatives: from the context's own type (metapath2vec++).
        power: noise is drawn in proportion to visits to this power.
        learning_rate, final_rate: falling linearly from one to the other.
        parts: a power of two; as many blocks can be trained at once.
        walks_a_round: at most.
        seed: of everything that is drawn.
    """

    dimensions: int = 64
    walks_per_node: int = 10
    walk_length: int = 40
    window: int = 5
    negatives: int = 5
    noise_pool: int = 32
    typed_negatives: bool = True
    power: float = 0.75
    learning_rate: float = 0.025
    final_rate: float = 0.0001
    parts: int = 2
    walks_a_round: int = 16384
    seed: int = 7

    def __post_init__(self) -> None:
        for name in (
            "dimensions",
            "walks_per_node",
            "window",
            "negatives",
            "noise_pool",
            "walks_a_round",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.walk_length < 2:
            raise ConfigError(f"walk_length is {self.walk_length}; a walk has at least 2 nodes")
        if self.parts < 1 or self.parts & (self.parts - 1):
            raise ConfigError(f"parts is {self.parts}; it must be a power of two")
        if not 0 < self.final_rate <= self.learning_rate:
            raise ConfigError(
                f"the learning rate falls from {self.learning_rate} to {self.final_rate}; both "
                "must be positive, the second no larger"
            )


@dataclass(frozen=True)
class Embedded:
    """What training left.

    Attributes:
        inner: (N, D) the vectors of the nodes; ``outer`` (N, D) those as context.
        losses: of a pair, by round in which any was looked at.
        tokens: nodes of all walks; ``pairs`` trained; ``visits`` (N,) of one pass.
        seconds: by step, ``tables``, ``walk`` and ``train``.
    """

    inner: Vectors
    outer: Vectors
    losses: tuple[float, ...]
    tokens: int
    pairs: int
    visits: npt.NDArray[np.int64]
    seconds: dict[str, float] = field(default_factory=dict)


class Walker:
    """Walks along metapaths of one graph."""

    def __init__(self, graph: HeteroGraph, metapaths: Sequence[Metapath], seed: int) -> None:
        """Check the metapaths and lay their tables out.

        Raises:
            MetapathError: for no metapath, or one that the graph cannot be walked by.
        """
        if not metapaths:
            raise MetapathError("there is no metapath; name at least one, as user-item-user")
        for path in metapaths:
            path.check(graph.types, graph.edges)
        used = sorted({step for path in metapaths for step in path.steps()})
        place = {step: number for number, step in enumerate(used)}
        tables = [graph.neighbours(step) for step in used]
        rows, self._edges, self._choices = joined_tables(tables)
        steps = [place[step] for path in metapaths for step in path.steps()]
        self._rows = rows[steps]
        self._around = np.array([tables[step].first for step in steps], dtype=np.int64)
        counts = [len(path.steps()) for path in metapaths]
        self._steps = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        begin = [graph.nodes(path.types[0]) for path in metapaths]
        self.starts = np.concatenate([np.arange(r.start, r.stop, dtype=np.int32) for r in begin])
        self.ways = np.repeat(np.arange(len(begin)), [len(r) for r in begin])
        self.types = sorted({kind for path in metapaths for kind in path.types})
        self._seed = seed

    def order(self, number: int) -> npt.NDArray[np.int64]:
        """The places in ``starts`` of pass ``number``, in the order they are walked from."""
        return np.random.default_rng([self._seed, number]).permutation(len(self.starts))

    def walks(
        self, places: npt.NDArray[np.int64], number: int, length: int, pool: ThreadPoolExecutor
    ) -> npt.NDArray[np.int32]:
        """(len(places), length) walks from ``places``; ``number`` names the round's randomness."""
        starts, ways = self.starts[places], self.ways[places]
        found = np.empty((len(places), length), dtype=np.int32)
        seed = _seed(self._seed, 1, number)
        cuts = np.linspace(0, len(places), 2 * _cores() + 1).astype(int)

        def part(first: int, last: int) -> None:
            walk(starts, ways, first, last, self._rows, self._steps, self._around, self._edges,
                 self._choices, seed, found)  # fmt: skip

        list(pool.map(part, cuts[:-1], cuts[1:]))
        return found


def embed(
    graph: HeteroGraph,
    metapaths: Sequence[Metapath],
    config: SkipGramConfig,
    start: tuple[Vectors, Vectors] | None = None,
    progress: Progress = silent,
    watch: Callable[[int, Vectors], None] | None = None,
) -> Embedded:
    """Vectors of all nodes of ``graph``.

    Args:
        start: (N, D) each, vectors as nodes and as contexts to go on from.
        watch: called after every round with the share done and the vectors so far.

    Raises:
        MetapathError: for a metapath that the graph cannot be walked by.
        TrainingRefused: when a vector is not finite any more.
    """
    began = time.perf_counter()
    walker = Walker(graph, metapaths, config.seed)
    inner, outer = start or fresh_vectors(graph.size, config)
    inner, outer = inner.copy(), outer.copy()
    with ThreadPoolExecutor(_cores()) as pool:
        visits = _visits(graph, walker, config, pool)
        noise = _noise(graph, walker, visits, config)
        seconds = {"tables": time.perf_counter() - began, "walk": 0.0, "train": 0.0}
        tokens = pairs = 0
        losses: list[float] = []
        told = time.perf_counter()
        total = len(walker.starts) * config.walks_per_node
        done = 0
        for number, places in enumerate(_rounds(walker, config)):
            before = time.perf_counter()
            walks = walker.walks(places, number, config.walk_length, pool)
            between = time.perf_counter()
            rate = max(config.learning_rate * (1.0 - done / total), config.final_rate)
            loss, told_pairs, trained = _round(
                walks, number, inner, outer, noise, rate, config, pool
            )
            seconds["walk"] += between - before
            seconds["train"] += time.perf_counter() - between
            done += len(places)
            tokens += int((walks >= 0).sum())
            pairs += trained
            if told_pairs:  # the last round of a pass may be too short to have any
                losses.append(loss / told_pairs)
            if not math.isfinite(loss):
                raise TrainingRefused(
                    f"the loss is {loss} after {done:,} of {total:,} walks; lower the learning "
                    f"rate {config.learning_rate}"
                )
            if watch is not None:
                watch(done, inner)
            if time.perf_counter() - told > _TELL_SECONDS or done == total:
                told = time.perf_counter()
                speed = tokens / (seconds["walk"] + seconds["train"])
                left = (total - done) * (seconds["walk"] + seconds["train"]) / done
                progress(
                    f"{done / total:.0%} of {total:,} walks, {speed:,.0f} tokens/s, loss of a "
                    f"pair {losses[-1] if losses else math.nan:.3f}, {left:.0f} s left"
                )
    return Embedded(inner, outer, tuple(losses), tokens, pairs, visits, seconds)


def _rounds(walker: Walker, config: SkipGramConfig) -> Iterator[npt.NDArray[np.int64]]:
    """The places walked from in every round: ``walks_per_node`` passes over all, shuffled."""
    total = len(walker.starts) * config.walks_per_node
    size = max(min(config.walks_a_round, total // _ROUNDS_AT_LEAST), 1)
    for number in range(config.walks_per_node):
        order = walker.order(number)
        for begin in range(0, len(order), size):
            yield order[begin : begin + size]


@dataclass(frozen=True)
class _Noise:
    """Of what kind each node is, and the choices of a kind and part."""

    kinds: npt.NDArray[np.uint8]
    shares: npt.NDArray[np.int64]
    choices: npt.NDArray[np.uint32]


def _noise(
    graph: HeteroGraph, walker: Walker, visits: npt.NDArray[np.int64], config: SkipGramConfig
) -> _Noise:
    kinds = graph.kinds() if config.typed_negatives else np.zeros(graph.size, dtype=np.uint8)
    parts = (np.arange(graph.size) >> _STRETCH) % config.parts
    shares = kinds.astype(np.int64) * config.parts + parts
    # Every node that may be a context is noise, also where the counted walks missed it.
    there = np.concatenate([np.arange(r.start, r.stop) for r in map(graph.nodes, walker.types)])
    order = there[np.argsort(shares[there], kind="stable")]
    count = (int(kinds.max()) + 1) * config.parts
    starts = np.searchsorted(shares[order], np.arange(count + 1)).astype(np.int64)
    weights = np.maximum(visits[order], 1).astype(np.float64) ** config.power
    return _Noise(kinds, starts, alias_tables(starts, order.astype(np.int32), weights))


def _visits(
    graph: HeteroGraph, walker: Walker, config: SkipGramConfig, pool: ThreadPoolExecutor
) -> npt.NDArray[np.int64]:
    """(N,) how often a pass of its own visits each node."""
    counts = np.zeros(graph.size, dtype=np.int64)
    order = np.arange(len(walker.starts))
    for begin in range(0, len(order), config.walks_a_round):
        places = order[begin : begin + config.walks_a_round]
        count_visits(walker.walks(places, -1 - begin, config.walk_length, pool), counts)
    return counts


def fresh_vectors(size: int, config: SkipGramConfig) -> tuple[Vectors, Vectors]:
    """Small random vectors of nodes, and none as contexts, as word2vec begins."""
    random = np.random.default_rng([config.seed, 0])
    inner = random.random((size, config.dimensions), dtype=np.float32) - np.float32(0.5)
    inner /= np.float32(config.dimensions)
    return inner, np.zeros((size, config.dimensions), dtype=np.float32)


def _round(
    walks: npt.NDArray[np.int32],
    number: int,
    inner: Vectors,
    outer: Vectors,
    noise: _Noise,
    rate: float,
    config: SkipGramConfig,
    pool: ThreadPoolExecutor,
) -> tuple[float, int, int]:
    """Train on the walks of a round; the loss of some pairs, how many, and of all pairs."""
    loss, told, pairs = 0.0, 0, 0
    windows = _seed(config.seed, 2, number)

    def block(mine: int, theirs: int) -> tuple[float, int, int]:
        own = _seed(config.seed, 3 + mine * config.parts + theirs, number)
        return train_block(
            walks, mine, theirs, config.parts, _STRETCH, inner, outer, noise.kinds, noise.shares,
            noise.choices, config.window, config.negatives, config.noise_pool, rate,
            (windows, own),
        )  # fmt: skip

    parts = range(config.parts)
    for shift in parts:
        for found in pool.map(block, parts, [(part + shift) % config.parts for part in parts]):
            loss, told, pairs = loss + found[0], told + found[1], pairs + found[2]
    return loss, told, pairs


def _seed(*words: int) -> np.uint64:
    """64 bits that follow from ``words``."""
    state = np.random.SeedSequence([word % 2**64 for word in words]).generate_state(1, np.uint64)
    return np.uint64(state[0])


def _cores() -> int:
    return len(os.sched_getaffinity(0))
