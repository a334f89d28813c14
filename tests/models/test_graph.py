"""Graphs, walks and skip-gram beside plain loops that say what they must do."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from models.graph.heterograph import GraphError, HeteroGraph
from models.graph.kernels import alias_tables, group_loss, train_block, train_group
from models.graph.metapaths import Metapath, MetapathError
from models.graph.skipgram import SkipGramConfig, Walker, embed
from models.kernels import mix
from tests.models.graphs import edge_table, macro_f1, planted

EDGES = [
    ("user", "u1", "item", "i1", 1.0), ("user", "u1", "item", "i2", 3.0),
    ("item", "i2", "user", "u2", 2.0), ("user", "u2", "item", "i2", 1.0),
    ("user", "u2", "user", "u1", 4.0), ("item", "i3", "shop", "s1", 1.0),
    ("item", "i1", "shop", "s1", 0.5),
]  # fmt: skip
STEP = 0x9E3779B97F4A7C15
MASK = 2**64 - 1


@pytest.fixture(scope="module")
def graph() -> HeteroGraph:
    return HeteroGraph(edge_table(EDGES))


def names(graph: HeteroGraph) -> list[str]:
    return graph.table()["node_id"].to_pylist()


def test_a_graph_holds_every_edge_in_both_directions_and_adds_equal_ones_up(
    graph: HeteroGraph,
) -> None:
    assert graph.types == ("item", "shop", "user")
    assert names(graph) == ["i1", "i2", "i3", "s1", "u1", "u2"]
    assert graph.edges == {("item", "shop"): 2, ("item", "user"): 3, ("user", "user"): 1}
    expected: dict[tuple[str, str, str], float] = Counter()
    for left, a, right, b, weight in EDGES:
        expected[left + right, a, b] += weight
        expected[right + left, b, a] += weight
    found = {}
    for (source, target), near in graph.adjacencies().items():
        for row, node in enumerate(graph.nodes(source)):
            for place in range(near.starts[row], near.starts[row + 1]):
                ends = names(graph)[node], names(graph)[near.nodes[place]]
                found[source + target, *ends] = near.weights[place]
    assert found == expected


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.slice(0, 0), "there are no edges"),
        (lambda t: t.drop_columns(["weight"]), "lack the columns weight"),
        (lambda t: t.set_column(4, "weight", pa.array([0.0] + [1.0] * 6)), "1 weights"),
        (lambda t: t.set_column(4, "weight", pa.array([np.nan] + [1.0] * 6)), "positive and fin"),
        (lambda t: t.set_column(1, "source_id", pa.array([None] + ["x"] * 6)), "no source_id"),
    ],
)
def test_edges_that_make_no_graph_are_refused(change: Any, said: str) -> None:
    with pytest.raises(GraphError, match=said):
        HeteroGraph(change(edge_table(EDGES)))


def test_a_metapath_goes_round_and_names_the_step_that_has_no_edges(graph: HeteroGraph) -> None:
    assert str(Metapath.parse("user-item-user")) == "user-item-user"
    assert Metapath.parse("user-item-shop").types == ("user", "item", "shop", "item")
    for text in ("user", "user--item", ""):
        with pytest.raises(MetapathError, match="no metapath"):
            Metapath.parse(text)
    with pytest.raises(MetapathError, match="step 2, item-item, has no edge type"):
        Metapath.parse("user-item-item-user").check(graph.types, graph.edges)
    with pytest.raises(MetapathError, match="no node has the type 'room'; the graph has item"):
        Metapath.parse("user-room-user").check(graph.types, graph.edges)
    with pytest.raises(MetapathError, match="step 1, user-shop"):
        Walker(graph, [Metapath.parse("user-shop-user")], seed=0)


def test_choices_have_exactly_the_weights_share() -> None:
    rng = np.random.default_rng(3)
    sizes = [1, 2, 7, 40, 0, 3]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    nodes = np.arange(starts[-1], dtype=np.int32)
    weights = rng.exponential(size=starts[-1]) + 1e-3
    table = alias_tables(starts, nodes, weights)
    for low, high in itertools.pairwise(starts):
        share = np.zeros(len(nodes))
        for threshold, first, second in table[low:high]:
            share[first] += threshold / 2**32 / (high - low)
            share[second] += (1 - threshold / 2**32) / (high - low)
        if high > low:
            wanted = weights[low:high] / weights[low:high].sum()
            assert np.allclose(share[low:high], wanted, atol=1e-8)


def test_walks_follow_the_metapath_in_proportion_to_weights(graph: HeteroGraph) -> None:
    from concurrent.futures import ThreadPoolExecutor

    walker = Walker(graph, [Metapath.parse("user-item-user"), Metapath.parse("shop-item-shop")], 5)
    places = np.tile(np.arange(len(walker.starts)), 4000)
    with ThreadPoolExecutor(2) as pool:
        walks = walker.walks(places, 0, 5, pool)
        assert np.array_equal(walks, walker.walks(places, 0, 5, pool))
        assert not np.array_equal(walks, walker.walks(places, 1, 5, pool))
    known = names(graph)
    from_u1 = Counter(known[row[1]] for row in walks if known[row[0]] == "u1")
    assert from_u1["i2"] / from_u1.total() == pytest.approx(3 / 4, abs=0.02)
    from_i2 = Counter(known[row[2]] for row in walks if known[row[1]] == "i2")
    assert from_i2["u2"] / from_i2.total() == pytest.approx(3 / 6, abs=0.02)
    for row in walks:
        kinds = [known[node][0] for node in row if node >= 0]
        assert "".join(kinds) in ("uiuiu", "sisis"), row


def test_a_walk_ends_where_no_neighbour_of_the_next_type_is() -> None:
    from concurrent.futures import ThreadPoolExecutor

    graph = HeteroGraph(edge_table([("a", "1", "b", "1", 1.0), ("b", "2", "c", "1", 1.0)]))
    walker = Walker(graph, [Metapath.parse("a-b-c")], 0)
    with ThreadPoolExecutor(1) as pool:
        [row] = walker.walks(np.array([0]), 0, 6, pool)
    assert [names(graph)[node] for node in row if node >= 0] == ["1", "1"]
    assert row[2:].tolist() == [-1] * 4


def reference_loss(center: Any, outer: Any, contexts: Any, noise: Any, weight: float) -> Any:
    """-sum log s(c.o) - weight * sum log s(-c.n), in torch."""
    good = torch.nn.functional.logsigmoid(outer[contexts] @ center).sum()
    bad = torch.nn.functional.logsigmoid(-(outer[noise] @ center)).sum()
    return -good - weight * bad


def test_a_group_descends_the_loss_by_its_gradient() -> None:
    rng = np.random.default_rng(0)
    inner, outer = rng.normal(size=(4, 16)), rng.normal(size=(9, 16))
    contexts, noise = np.array([1, 4, 0], np.int32), np.array([0, 7, 8, 1], np.int32)
    tracked = [torch.tensor(value, requires_grad=True) for value in (inner, outer)]
    loss = reference_loss(tracked[0][3], tracked[1], [1, 4], [0, 7, 8], 2.0)
    loss.backward()
    group = (inner, 3, outer, contexts, 2, noise, 3)
    assert group_loss(*group) == pytest.approx(loss.item(), abs=1e-6)
    rate, before = 1e-3, (inner.copy(), outer.copy())
    train_group(*group, rate, np.zeros(16))
    for value, old, of in zip((inner, outer), before, tracked, strict=True):
        assert of.grad is not None
        assert np.allclose((old - value) / rate, of.grad.numpy(), atol=1e-6)


SHIFT = 1
"""Two nodes that follow one another are of one part."""


def plain_block(
    walks: Any, mine: int, theirs: int, parts: int, inner: Any, outer: Any, kinds: Any,
    noise: dict[tuple[int, int], tuple[int, int]], table: Any, window: int, negatives: int,
    pool_size: int, rate: float, seeds: tuple[int, int],
) -> int:  # fmt: skip
    """What `train_block` says it does, a pair at a time."""

    def drawn(low: int, high: int, bits: int) -> int:
        place = low + ((bits >> 32) * (high - low) >> 32)
        return int(table[place, 1] if (bits & 0xFFFFFFFF) < table[place, 0] else table[place, 2])

    pairs = 0
    for number, row in enumerate(walks):
        widths, state = (mixed(seed + number * STEP) for seed in seeds)
        pool: dict[int, list[int]] = {}
        row = [int(node) for node in row if node >= 0]
        for place, node in enumerate(row):
            widths += STEP
            wide = 1 + ((mixed(widths) >> 32) * window >> 32)
            near = row[max(place - wide, 0) : place] + row[place + 1 : place + wide + 1]
            contexts = [other for other in near if (other >> SHIFT) % parts == theirs]
            if (node >> SHIFT) % parts != mine or not contexts:
                continue
            told = []
            bits = state = mixed(state + STEP)
            for k in range(negatives):
                kind = int(kinds[contexts[k % len(contexts)]])
                if kind not in pool:
                    pool[kind] = []
                    for _ in range(pool_size):
                        bits += STEP
                        pool[kind].append(drawn(*noise[kind, theirs], mixed(bits)))
                bits += STEP
                told.append(pool[kind][(mixed(bits) >> 32) * pool_size >> 32])
            pairs += len(contexts)
            center, moved = inner[node].copy(), np.zeros_like(inner[node])
            steps = [(o, 1.0, 1.0) for o in contexts]
            steps += [(n, 0.0, float(len(contexts))) for n in told if n not in contexts]
            for other, label, weight in steps:
                step = (label - 1 / (1 + np.exp(-center @ outer[other]))) * weight * rate
                moved += step * outer[other]
                outer[other] += step * center
            inner[node] += moved
    return pairs


def mixed(state: int) -> int:
    return int(mix(np.uint64(state & MASK)))


@pytest.mark.parametrize("typed", [True, False])
def test_a_block_is_what_a_plain_loop_makes_of_it(typed: bool) -> None:
    """metapath2vec++ tells a context from noise of its own type, metapath2vec from any."""
    rng = np.random.default_rng(1)
    nodes, parts = 12, 2
    kinds = (np.arange(nodes) >= 7).astype(np.uint8) if typed else np.zeros(nodes, np.uint8)
    walks = rng.integers(0, nodes, (5, 9)).astype(np.int32)
    walks[3, 4:] = -1
    shares = kinds.astype(int) * parts + (np.arange(nodes) >> SHIFT) % parts
    order = np.argsort(shares, kind="stable").astype(np.int32)
    starts = np.searchsorted(shares[order], np.arange((kinds.max() + 1) * parts + 1))
    table = alias_tables(starts.astype(np.int64), order, rng.random(nodes) + 0.1)
    rows = {
        (kind, part): (int(starts[kind * parts + part]), int(starts[kind * parts + part + 1]))
        for kind in range(kinds.max() + 1)
        for part in range(parts)
    }
    if typed:
        assert all(
            kinds[table[low:high, 1:].astype(int)].ravel().tolist() == [kind] * 2 * (high - low)
            for (kind, _), (low, high) in rows.items()
        )
    inner, outer = rng.normal(size=(nodes, 6)), rng.normal(size=(nodes, 6))
    plain = inner.copy(), outer.copy()
    for mine, theirs in ((0, 0), (1, 1), (0, 1), (1, 0)):
        seeds = np.uint64(11), np.uint64(mine + 40)
        pairs = train_block(walks, mine, theirs, parts, SHIFT, inner, outer, kinds, starts, table,
                            3, 4, 6, 0.05, seeds)[2]  # fmt: skip
        assert pairs == plain_block(walks, mine, theirs, parts, *plain, kinds, rows, table, 3, 4,
                                    6, 0.05, (11, mine + 40))  # fmt: skip
    assert np.allclose(inner, plain[0], atol=1e-6)
    assert np.allclose(outer, plain[1], atol=1e-6)


def test_vectors_follow_from_the_seed_however_many_cores_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph = HeteroGraph(planted(classes=3, users=60, items=40, seed=1).edges)
    paths = [Metapath.parse("user-item-user")]
    config = SkipGramConfig(dimensions=8, walks_per_node=2, walk_length=10)
    first = embed(graph, paths, config)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    alone = embed(graph, paths, config)
    assert np.array_equal(first.inner, alone.inner)
    assert np.array_equal(first.outer, alone.outer)
    other = embed(graph, paths, SkipGramConfig(dimensions=8, walks_per_node=2, walk_length=10,
                                               seed=8))  # fmt: skip
    assert not np.array_equal(first.inner, other.inner)


@pytest.mark.parametrize("typed", [True, False])
def test_classes_of_a_planted_partition_are_recovered(typed: bool) -> None:
    market = planted(classes=8, users=1600, items=1200, seed=0)
    graph = HeteroGraph(market.edges)
    config = SkipGramConfig(dimensions=32, walk_length=20, walks_per_node=10, typed_negatives=typed)
    found = embed(graph, [Metapath.parse("user-item-user")], config)
    users = graph.nodes("user")
    classes = np.array([market.classes[name] for name in graph.ids["user"].to_pylist()])
    assert macro_f1(found.inner[users.start : users.stop], classes) >= 0.95
    assert 0 < found.losses[-1] < found.losses[0]


def test_a_loss_is_told_of_rounds_that_have_one() -> None:
    """A pass ends with a round of what is left, often too short to look at any pair."""
    graph = HeteroGraph(planted(classes=3, users=61, items=40, seed=1).edges)
    config = SkipGramConfig(dimensions=8, walks_per_node=10, walk_length=20)
    told: list[str] = []
    found = embed(graph, [Metapath.parse("user-item-user")], config, progress=told.append)
    assert found.losses and all(loss > 0.1 for loss in found.losses)
    assert f"loss of a pair {found.losses[-1]:.3f}" in told[-1]


def test_a_fit_goes_on_from_the_vectors_that_it_is_given() -> None:
    graph = HeteroGraph(planted(classes=3, users=60, items=40, seed=1).edges)
    paths = [Metapath.parse("user-item-user")]
    config = SkipGramConfig(dimensions=8, walks_per_node=5, walk_length=20)
    first = embed(graph, paths, config)
    again = embed(graph, paths, config, start=(first.inner, first.outer))
    assert again.losses[0] < first.losses[0]
    assert not np.array_equal(first.inner, again.inner)
